"""Attention maps and static-bias measures against cases whose answer is known."""

import pytest
import torch
from torch import nn

from mede_core.attention import actor_mass, attention_maps, record_attention, static_bias
from mede_core.learner import build_learner
from mede_core.world.synthetic import World, make_set


@pytest.fixture(scope="module")
def clips():
    return make_set(World(1), half="all", count=144, context="noise")


@pytest.mark.parametrize("method", ["last", "rollout"])
def test_each_frame_sums_to_one_on_the_patch_grid(clips, method):
    maps = attention_maps(build_learner(), clips.videos[:3], method=method)
    assert maps.shape == (3, 8, 4, 4) and (maps >= 0).all()
    torch.testing.assert_close(maps.sum((-1, -2)), torch.ones(3, 8))


@pytest.mark.parametrize("module", ["expanded", "aim"])
@pytest.mark.parametrize("method", ["last", "rollout"])
def test_maps_of_other_temporal_modules_are_of_the_frame_itself(clips, module, method):
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
    assert [layer.shape for layer in recorded.values()] == [(16, 4, 17, 17)] * 4
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
        torch.testing.assert_close(recorded[layer], (q @ k.transpose(-1, -2) / 2).softmax(-1))


def test_even_attention_has_the_actors_area_as_its_mass(clips):
    mass, area = actor_mass(torch.full((144, 8, 4, 4), 1 / 16), clips.masks)
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
