"""Training objectives against the published equations in float64, and that memory and precision change no meaning."""

import math

import pytest
import torch
import torch.nn.functional as F
from kernel_problems import Point, assert_same_bits, flat, make_net, make_quadratics, quadratic
from kernel_problems import cross_entropy as net_loss
from torch import nn

from mede_core.checkpoints import interpolate, method_weights
from mede_core.config import load_config
from mede_core.experiment import learner_for, teacher_for, train_method, trained_learner
from mede_core.learner import build_learner
from mede_core.meta import meta_gradients
from mede_core.objectives import (
    ResidualDistillation,
    cross_entropy,
    in_precision,
    interpolated_gradients,
    smaller_pieces,
)
from mede_core.report.costs import allocation_peak
from mede_core.steps import interpolated_step
from mede_core.train import fit
from mede_core.world.synthetic import World, make_set

TINY = {"epochs": 3, "warmup_epochs": 1, "train_clips": 48, "batch_size": 16}


@pytest.fixture(scope="module")
def clips():
    return make_set(World(1), train=True, count=96)


def batch_of(clips, size=8):
    return torch.stack([clips[i][0] for i in range(size)]), torch.tensor([clips[i][1] for i in range(size)])


# --- interpolated weights


def test_interpolated_gradient_is_handed_straight_through_on_a_quadratic():
    (matrix, center), _, x = make_quadratics()
    model, anchor_point = Point(x), torch.randn(5, dtype=torch.float64)
    anchor = {name: p.detach() for name, p in Point(anchor_point).named_parameters()}
    for ratio in (0.0, 0.35, 1.0):
        grads, loss, between = interpolated_gradients(
            model, quadratic, (matrix, center), anchor, ratio=ratio, weight=0.5
        )
        there = ratio * anchor_point + (1 - ratio) * x  # and no factor (1 - ratio), as the published code has it
        expected = matrix @ (x - center) + 0.5 * matrix @ (there - center)
        assert torch.allclose(flat(grads), expected, rtol=0, atol=1e-12)
        assert math.isclose(loss, (x - center) @ matrix @ (x - center) / 2, rel_tol=1e-12)
        assert math.isclose(between, (there - center) @ matrix @ (there - center) / 2, rel_tol=1e-12)
    assert torch.equal(model(), x) and model.u.grad is None


def test_interpolated_step_moves_along_both_gradients_and_leaves_the_weights_alone_on_failure():
    (matrix, center), _, x = make_quadratics()
    model, anchor = Point(x), {"u": torch.zeros(2).double(), "w": torch.zeros(3).double()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    chosen = {"anchor": anchor, "ratio": 0.5, "weight": 0.5}
    record = interpolated_step(model, quadratic, (matrix, center), optimizer, math.inf, **chosen)
    gradient = matrix @ (x - center) + 0.5 * matrix @ (0.5 * x - center)
    assert torch.allclose(model(), x - 0.1 * gradient, rtol=0, atol=1e-12)
    assert math.isclose(record["support_grad_norm"], gradient.norm(), rel_tol=1e-12) and record["ratio"] == 0.5
    before = model().detach().clone()
    with pytest.raises(FloatingPointError, match="support_loss is nan"):
        interpolated_step(model, quadratic, (matrix * math.nan, center), optimizer, 1.0, **chosen)
    assert torch.equal(model(), before)


def test_interpolated_gradient_names_a_wrong_anchor_or_ratio():
    (matrix, center), _, x = make_quadratics()
    with pytest.raises(ValueError, match=r"anchor and trainable parameters differ in \['w'\]"):
        interpolated_gradients(Point(x), quadratic, (matrix, center), {"u": x[:2]}, ratio=0.5)
    with pytest.raises(ValueError, match=r"ratio is 1.5.*0 <= ratio <= 1"):
        interpolated_gradients(Point(x), quadratic, (matrix, center), {}, ratio=1.5)


# --- distillation


def test_distillation_equals_its_equation_in_float64(clips):
    torch.manual_seed(0)
    learner, teacher = build_learner().double(), build_learner(adapter_width=0, trainable="visual").double()
    learner.set_classes(clips.class_names)
    for block in learner.temporal:
        nn.init.normal_(block.adapter.up.weight, std=0.1)
    loss = ResidualDistillation(teacher, learner.embed_dim, weight=2.0).double()
    first, _, second = loss.projector
    assert second.weight.abs().sum() == 0 and first.bias is second.bias is None
    nn.init.normal_(second.weight)
    video, labels = batch_of(clips, 3)
    video = (video.double() / 255 - learner.mean) / learner.std
    logits, terms = [], []
    for clip in video:
        frames = []
        for frame in clip:
            z = learner.encode(clip[None])[0][len(frames)]  # the student sees the whole clip
            target = F.normalize(teacher.visual(frame[None]), dim=-1)[0]  # the teacher each frame by itself
            projected = z + 0.1 * second.weight @ F.gelu(first.weight @ z)
            terms.append(1 - projected @ target / projected.norm() / target.norm())
            frames.append(learner.logit_scale * (learner.text_features.double() @ z))
        logits.append(torch.stack(frames).mean(0))
    expected = F.cross_entropy(torch.stack(logits), labels) + 2.0 * torch.stack(terms).mean()
    assert torch.allclose(loss(learner, (video, labels)), expected, rtol=1e-10)


def test_distillation_starts_at_the_plain_cosine_and_is_zero_for_frozen_clip(clips):
    learner, teacher = build_learner(), build_learner(adapter_width=0, trainable="visual")
    learner.set_classes(clips.class_names)
    batch = batch_of(clips)
    loss = ResidualDistillation(teacher, learner.embed_dim)
    assert torch.allclose(loss(learner, batch), cross_entropy(learner, batch), atol=1e-5)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert {name for name, _ in loss.named_parameters()} == {"projector.0.weight", "projector.2.weight"}


# --- memory and precision


@pytest.mark.parametrize("first_order", [True, False])
def test_smaller_pieces_give_the_gradient_of_the_whole_batch(first_order):
    model, batches = make_net()[0].eval(), []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randn(7, 4, 6, generator=generator, dtype=torch.float64)
        batches.append((tokens, torch.randint(3, (7,), generator=generator)))
    if first_order:
        whole, pieces = (
            meta_gradients(model, loss, *batches, inner_lr=0.1) for loss in (net_loss, smaller_pieces(net_loss, 3))
        )
        assert math.isclose(whole.query_loss, pieces.query_loss, rel_tol=1e-12)
        for name in whole.grads:
            assert torch.allclose(whole.grads[name], pieces.grads[name], rtol=0, atol=1e-12)
    else:
        losses = [loss(model, batches[0]) for loss in (net_loss, smaller_pieces(net_loss, 3))]
        grads = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
        assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(*grads))


def test_smaller_pieces_hold_fewer_activations(clips):
    learner = build_learner().set_classes(clips.class_names)
    batch = batch_of(clips, 16)

    def peak(size):
        return allocation_peak(lambda: smaller_pieces(cross_entropy, size)(learner, batch).backward())

    assert peak(4) < 0.5 * peak(0)


def test_bf16_keeps_weights_gradients_and_head_in_float32_and_stays_close(clips):
    learner = build_learner().set_classes(clips.class_names)
    batch = batch_of(clips)
    exact = meta_gradients(learner, cross_entropy, batch, batch, inner_lr=0.1)
    mixed = meta_gradients(learner, in_precision(cross_entropy, "bf16"), batch, batch, inner_lr=0.1)
    assert all(grad.dtype == torch.float32 for grad in mixed.grads.values())
    assert exact.support_loss != mixed.support_loss and abs(exact.support_loss - mixed.support_loss) < 0.05
    one, other = (torch.cat([g.flatten() for g in result.grads.values()]) for result in (exact, mixed))
    assert F.cosine_similarity(one, other, dim=0) > 0.97
    with torch.autocast("cpu", torch.bfloat16):
        assert learner(batch[0]).dtype == torch.float32
    with pytest.raises(ValueError, match="precision is 'fp8'; allowed: float32, bf16"):
        in_precision(cross_entropy, "fp8")


# --- the methods


@pytest.mark.parametrize("method", ["open_vclip", "froster"])
@pytest.mark.parametrize(
    "learner",
    [{}, {"temporal_module": "aim"}, {"temporal_module": "expanded", "trainable": "visual", "outer_lr": 1e-4}],
    ids=["st_adapter", "aim", "expanded"],
)
def test_every_baseline_trains_on_every_temporal_module(method, learner, clips, tmp_path):
    config = load_config(method=method, **{**TINY, "epochs": 2, **learner})
    run = train_method(config, tmp_path)
    moved = method_weights(run, config)
    start = learner_for(config).trainable_state()
    assert moved.keys() == start.keys() and any(not torch.equal(moved[name], start[name]) for name in moved)
    assert not any("projector" in name for name in moved)


def test_open_vclip_is_evaluated_between_clip_and_the_mean_of_epochs_two_to_the_last(tmp_path):
    config = load_config(method="open_vclip", **TINY)
    train_method(config, tmp_path)
    states = {
        ratio: trained_learner(load_config(method="open_vclip", **TINY, patch_ratio=ratio), tmp_path).trainable_state()
        for ratio in (0.0, 0.5, 1.0)
    }
    start = learner_for(config).trainable_state()
    assert_same_bits(states[1.0], start)
    epochs = [
        method_weights(tmp_path / config.run_name(), load_config(method="open_vclip", **TINY, swa_start=first))
        for first in (2, 3)
    ]
    for name, tensor in start.items():
        assert torch.equal(states[0.0][name], epochs[0][name])
        assert torch.allclose(states[0.5][name], (tensor + states[0.0][name]) / 2, atol=1e-6)
    assert any(not torch.equal(epochs[0][name], epochs[1][name]) for name in start)


def test_a_killed_distillation_resumes_to_the_same_bits_with_its_projector(clips, tmp_path, monkeypatch):
    config = load_config(method="froster", **TINY)
    whole = train_method(config, tmp_path / "whole")
    import mede_core.train as train_module

    original, calls = train_module.method_step, []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:  # in the second epoch
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(train_module, "method_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train_method(config, tmp_path / "killed")
    monkeypatch.setattr(train_module, "method_step", original)
    again = train_method(config, tmp_path / "killed")
    for epoch in ("epoch_003", "gwa"):
        assert (whole / f"{epoch}.safetensors").read_bytes() == (again / f"{epoch}.safetensors").read_bytes()


def test_distillation_without_a_teacher_is_refused(clips, tmp_path):
    config = load_config(method="froster", **TINY)
    with pytest.raises(ValueError, match="method 'froster' distills: it needs a teacher"):
        fit(learner_for(config), clips, config, tmp_path)
    assert teacher_for(load_config(method="open_mede")) is None


def test_interpolation_runs_from_clip_to_the_trained_weights():
    trained, clip = {"a": torch.tensor([2.0])}, {"a": torch.tensor([0.0])}
    assert [interpolate(trained, clip, ratio)["a"].item() for ratio in (0.0, 0.25, 1.0)] == [2.0, 1.5, 0.0]
    with pytest.raises(ValueError, match="differ in"):
        interpolate(trained, {}, 0.5)
