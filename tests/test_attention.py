"""Attention maps and static-bias measures against cases whose answer is known."""

import pytest
import torch
from torch import nn

from mede_core.attention import (
    MAPS,
    LayerAttention,
    actor_mass,
    attention_maps,
    causal_effects,
    class_margin,
    log_probability,
    occlusion_maps,
    record_attention,
    relevance_maps,
    static_bias,
    weight_gradient,
)
from mede_core.lab.map_tests import faithfulness, shuffled_weights
from mede_core.learner import Normalize, build_learner
from mede_core.scoring import Reordered, evaluate
from mede_core.world.synthetic import World, make_set


@pytest.fixture(scope="module")
def clips():
    return make_set(World(1), half="all", count=72, context="noise")


@pytest.mark.parametrize("module", ["st_adapter", "expanded", "aim"])
@pytest.mark.parametrize("method", ["last", "rollout"])
def test_maps_are_of_each_frame_itself_sum_to_one_on_the_patch_grid(clips, module, method):
    learner = build_learner(temporal_module=module, trainable="visual", num_frames=8)
    raw = []
    learner.visual.transformer.resblocks[-1].attn.register_forward_hook(lambda *call: raw.append(call[-1][1]))
    maps = attention_maps(learner, clips.videos[:2], method=method)
    assert maps.shape == (2, 8, 4, 4) and (maps >= 0).all()
    torch.testing.assert_close(maps.sum((-1, -2)), torch.ones(2, 8))
    assert raw[-1].shape == (16, 4, 17, 51 if module == "expanded" else 17)
    if method == "last":  # keys are the frames after, before and itself, each with its class token and 16 patches
        within = raw[-1][..., -17:] / raw[-1][..., -17:].sum(-1, keepdim=True)
        own = within.mean(1)[:, 0, 1:]
        torch.testing.assert_close(maps.flatten(0, 1).flatten(1), own / own.sum(-1, keepdim=True))


def test_recording_changes_no_output_and_leaves_no_hook(clips):
    learner = build_learner()
    before = learner.encode(clips.videos[:2])
    with record_attention(learner.visual) as recorded:
        during = learner.encode(clips.videos[:2])
    torch.testing.assert_close(before, during, rtol=1e-4, atol=1e-5)
    assert [layer.weights.shape for layer in recorded.values()] == [(16, 4, 17, 17)] * 4
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in learner.modules())
    with pytest.raises(RuntimeError), record_attention(learner.visual):
        raise RuntimeError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in learner.modules())


def test_recorded_weights_equal_softmax_of_queries_and_keys():
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(1, 5, 8)
    with record_attention(nn.Sequential(layer)) as recorded, torch.no_grad():
        layer(x, x, x, need_weights=False)
        q, k, _ = (x @ layer.in_proj_weight.T + layer.in_proj_bias).chunk(3, -1)
        q, k = (t.view(1, 5, 2, 4).transpose(1, 2) for t in (q, k))
        torch.testing.assert_close(recorded[layer].weights, (q @ k.transpose(-1, -2) / 2).softmax(-1))


def test_even_attention_has_the_actors_area_as_its_mass(clips):
    mass, area = actor_mass(torch.full((72, 8, 4, 4), 1 / 16), clips.masks)
    torch.testing.assert_close(mass, area)


def test_attention_on_a_fully_covered_patch_is_all_on_the_actor():
    maps, masks = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    maps[:, :, 1, 2] = 1
    masks[:, :, 8:16, 16:24] = True
    mass, area = actor_mass(maps, masks)
    assert mass.item() == 1 and area.item() == pytest.approx(1 / 16)
    assert actor_mass(maps.flip(-1), masks)[0].item() == 0


def test_frozen_clip_has_no_order_gap_and_a_temporal_model_moves(clips):
    bias = static_bias(build_learner(), clips, map_clips=16)
    assert bias.order_gap == 0 and 0 < bias.actor_area < 20 and 0 < bias.actor_mass <= 100
    learner = build_learner()
    learner.load_trainable({k: torch.randn_like(v) for k, v in learner.trainable_state().items()})
    shuffled = static_bias(learner, clips, map_clips=16)
    assert (shuffled.accuracy, shuffled.shuffled) != (bias.accuracy, bias.shuffled)


def test_unknown_methods_are_named(clips):
    with pytest.raises(ValueError, match="method is 'gradcam'; allowed: last, rollout"):
        attention_maps(build_learner(), clips.videos[:1], method="gradcam")


# ------------------------------------------------------------------------------------ maps that explain a class
class Watcher:
    """Looks at one corner of the third frame alone: the brighter it is, the more it says "bright"."""

    normalize, logit_scale = Normalize([0.5] * 3, [0.25] * 3), torch.tensor(1.0)

    def set_classes(self, names):
        return self

    def __call__(self, frames):
        seen = self.normalize(frames)[:, 2, :, :8, 8:16].mean((1, 2, 3))
        return torch.stack([seen, -seen, torch.full_like(seen, -9)], 1)


BRIGHT = torch.full((2, 4, 3, 32, 32), 255, dtype=torch.uint8)


def test_occlusion_finds_the_place_and_the_frame_that_count():
    maps = occlusion_maps(Watcher(), BRIGHT, torch.tensor([0, 1]))
    assert maps.shape == (2, 4, 13, 13)
    assert not maps[:, [0, 1, 3]].any()
    assert (maps[0] >= 0).all() and (maps[1] <= 0).all(), "what speaks for one class speaks against the other"
    assert divmod(int(maps[0, 2].argmax()), 13) == (0, 4)  # rows 0 to 8, columns 8 to 16
    whole = log_probability(Watcher()(BRIGHT[:1]), torch.tensor([0]))
    covered = log_probability(torch.tensor([[0, 0, -9.0]]), torch.tensor([0]))
    torch.testing.assert_close(maps[0, 2, 0, 4], (whole - covered)[0])
    everywhere = occlusion_maps(Watcher(), BRIGHT[:1], torch.tensor([0]), together=True, stride=8, batch_size=3)
    assert (everywhere[0] > 0).sum((1, 2)).tolist() == [1] * 4


def test_a_true_map_falls_and_rises_faster_than_a_random_one_and_an_inverted_one_slower():
    labels, maps = torch.tensor([0, 0]), torch.zeros(2, 4, 8, 8)
    maps[:, 2, :2, 2:4] = 1
    noise = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    means = [
        [curve.mean().item() for curve in faithfulness(Watcher(), BRIGHT, labels, one).values()]
        for one in (maps, noise, -maps)
    ]
    assert means[0][0] < means[1][0] < means[2][0] and means[0][1] > means[1][1] > means[2][1]
    curves = faithfulness(Watcher(), BRIGHT, labels, noise, steps=5)
    assert curves["deletion"].shape == (2, 6)
    torch.testing.assert_close(curves["deletion"][:, 0], curves["insertion"][:, -1])
    torch.testing.assert_close(curves["deletion"][:, -1], curves["insertion"][:, 0])


def test_the_gradient_of_the_attention_weights_is_autograds():
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True).double(), torch.randn(3, 5, 8, dtype=torch.float64)
    value = (x @ layer.in_proj_weight[16:].T + layer.in_proj_bias[16:]).unflatten(-1, (2, 4)).transpose(1, 2)
    weights = torch.rand(3, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    output = layer.out_proj((weights @ value).transpose(1, 2).flatten(2))
    upstream = torch.randn_like(output)
    (expected,) = torch.autograd.grad(output, weights, upstream, retain_graph=True)
    torch.testing.assert_close(weight_gradient(layer, LayerAttention(weights, x, output), upstream), expected)


@pytest.mark.parametrize("module", ["st_adapter", "aim", "expanded"])
def test_relevance_is_of_the_class_asked_for_and_leaves_the_learner_alone(clips, module):
    learner = build_learner(temporal_module=module, trainable="visual", num_frames=8).set_classes(clips.class_names)
    one, other = (relevance_maps(learner, clips.videos[:3], labels) for labels in (clips.labels[:3], clips.labels[3:6]))
    assert one.shape == (3, 8, 4, 4) and (one >= 0).all() and (one > 0).any()
    assert not torch.allclose(one, other)
    assert all(p.grad is None for p in learner.parameters())
    torch.testing.assert_close(relevance_maps(learner, clips.videos[1:2], clips.labels[1:2]), one[1:2])


def test_relevance_and_rollout_find_what_frozen_clip_uses_better_than_chance(clips):
    learner = build_learner().set_classes(clips.class_names)
    video, labels = clips.videos[:24], clips.labels[:24]
    noise = torch.rand(24, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    chance = faithfulness(learner, video, labels, noise, steps=8)
    for name in ("rollout", "relevance"):
        curves = faithfulness(learner, video, labels, MAPS[name](learner, video, labels), steps=8)
        assert curves["deletion"].mean() < chance["deletion"].mean() - 0.02
        assert curves["insertion"].mean() > chance["insertion"].mean() + 0.02


def test_shuffled_weights_are_the_same_numbers_in_another_order(clips):
    learner = build_learner()
    other = shuffled_weights(learner)
    one, two = learner.visual.proj, other.visual.proj
    assert not torch.equal(one, two) and torch.equal(one.flatten().sort().values, two.flatten().sort().values)
    assert torch.equal(learner.visual.proj, build_learner().visual.proj)
    maps = [MAPS["rollout"](x, clips.videos[:2], clips.labels[:2]) for x in (learner, other)]
    assert not torch.allclose(*maps)


# ------------------------------------------------------------------------------------ by intervention
def test_the_margin_is_the_lead_over_the_best_other_class():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert class_margin(logits, torch.tensor([0, 1])).tolist() == [1.0, -2.0]


def test_a_learner_that_reads_a_corner_has_a_background_effect_and_frozen_clip_no_motion_effect(clips):
    twins = make_set(World(1), half="all", count=72, context="stripes")
    effects = causal_effects(build_learner(), clips, twins)
    assert abs(effects["motion"]).max() < 1e-4 < abs(effects["background"]).max()
    assert all(values.shape == (72,) for values in effects.values())
    for name, scored in (("whole", clips), ("swapped", twins), ("single", Reordered(clips, "single"))):
        assert effects[name].tolist() == evaluate(build_learner(), scored).correct.tolist(), name
    assert (effects["shuffled"] == effects["whole"]).mean() > 0.98, "blind to order, up to ties"
    bright = type("Clips", (), {"videos": BRIGHT, "labels": torch.tensor([0, 0]), "class_names": ["a"]})
    dark = type("Clips", (), {"videos": BRIGHT // 4})
    told = causal_effects(Watcher(), bright, dark)
    assert told["background"] == pytest.approx([2 * 2 * 0.75 * 2] * 2, rel=0.02) and not told["motion"].any()
