"""The methods against their published equations in float64; memory and precision change no meaning."""

import math

import pytest
import torch
import torch.nn.functional as F
from kernel_problems import Point, make_net, make_quadratics, quadratic
from kernel_problems import cross_entropy as net_loss
from torch import nn

from mede_core.averages import averaged, interpolate
from mede_core.checkpoints import checkpoint_path, load_checkpoint
from mede_core.config import load_config
from mede_core.learner import build_learner
from mede_core.meta import meta_gradients
from mede_core.methods import (
    InterpolatedWeights,
    TrainingMethod,
    build_method,
    build_optimizer,
    cross_entropy,
    in_precision,
    smaller_pieces,
)
from mede_core.report.costs import allocation_peak
from mede_core.schedule import learning_rate
from mede_core.train import fit
from mede_core.world.synthetic import World, make_set

TINY = {"epochs": 2, "warmup_epochs": 1, "batch_size": 16}


def frozen_clip():
    return build_learner(adapter_width=0, trainable="visual")


@pytest.fixture(scope="module")
def clips():
    return make_set(World(1), train=True, count=48)


def batch_of(clips, size=8):
    return torch.stack([clips[i][0] for i in range(size)]), torch.tensor([clips[i][1] for i in range(size)])


# --- the plain step


def test_a_plain_step_equals_a_hand_written_one(clips):
    batch = batch_of(clips)
    ours, theirs = (build_learner().set_classes(clips.class_names) for _ in range(2))
    method = build_method(load_config(method="finetune", max_grad_norm=1e9), ours)
    method.step(batch, torch.optim.SGD(ours.parameters(), 0.1), None)
    loss = F.cross_entropy(theirs(batch[0]), batch[1])
    moved = {n: p for n, p in theirs.named_parameters() if p.requires_grad}
    for (name, p), g in zip(moved.items(), torch.autograd.grad(loss, list(moved.values()))):
        torch.testing.assert_close(ours.trainable_state()[name], (p - 0.1 * g).detach())


def test_biases_and_norms_get_no_weight_decay():
    groups = build_optimizer(build_learner(), load_config()).param_groups
    assert {p.ndim > 1 for p in groups[0]["params"]} == {True} and groups[0]["weight_decay"] == 0.01
    assert {p.ndim for p in groups[1]["params"]} == {1} and groups[1]["weight_decay"] == 0.0


def test_the_schedule_warms_up_linearly_and_ends_at_one_percent():
    rates = [learning_rate(step, 100, 20, 1.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.01) and rates[20] == pytest.approx(1.0) and max(rates) == rates[20]
    assert rates[10] == pytest.approx(0.505) and learning_rate(100, 100, 20, 1.0) == pytest.approx(0.01)
    assert learning_rate(60, 100, 20, 1.0) == pytest.approx(0.505)


# --- interpolated weights


class InterpolatedPoint(InterpolatedWeights):
    def loss(self, model, batch):
        return quadratic(model, batch)


def test_interpolated_step_moves_along_both_gradients_and_leaves_the_weights_alone_on_failure():
    (matrix, center), _, x = make_quadratics()
    model = Point(x)
    method = InterpolatedPoint(model, load_config(method="open_vclip", max_grad_norm=1e9))
    with torch.no_grad():
        model.u.add_(1.0)  # away from the anchor, which is where it began
    here = model().detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = method.step((matrix, center), optimizer, torch.Generator().manual_seed(0))
    there = record["ratio"] * x + (1 - record["ratio"]) * here
    losses = [((at - center) @ matrix @ (at - center) / 2).item() for at in (here, there)]
    assert [record["support_loss"], record["interpolated_loss"]] == pytest.approx(losses, rel=1e-12)
    # And no factor (1 - ratio), as the published code has it.
    gradient = matrix @ (here - center) + 0.5 * matrix @ (there - center)
    assert 0 < record["ratio"] < 0.6
    assert torch.allclose(model(), here - 0.1 * gradient, rtol=0, atol=1e-12)
    assert math.isclose(record["support_grad_norm"], gradient.norm(), rel_tol=1e-12)
    before = model().detach().clone()
    with pytest.raises(FloatingPointError, match="support_loss is nan"):
        method.step((matrix * math.nan, center), optimizer, None)
    assert torch.equal(model(), before)


# --- distillation


def test_distillation_equals_its_equation_in_float64(clips):
    torch.manual_seed(0)
    learner, teacher = build_learner().double(), frozen_clip().double()
    learner.set_classes(clips.class_names)
    for block in learner.temporal:
        nn.init.normal_(block.adapter.up.weight, std=0.1)
    method = build_method(load_config(method="froster"), learner, teacher).double()
    first, _, second = method.projector
    assert second.weight.abs().sum() == 0 and first.bias is second.bias is None
    nn.init.normal_(second.weight)
    video, labels = batch_of(clips, 3)
    video = (video.double() / 255 - learner.normalize.mean) / learner.normalize.std
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
    assert torch.allclose(method.loss(learner, (video, labels)), expected, rtol=1e-10)


def test_distillation_starts_at_the_plain_cosine_and_trains_its_projector_beside_the_learner(clips):
    learner, teacher, config = build_learner(), frozen_clip(), load_config(method="froster")
    learner.set_classes(clips.class_names)
    batch, method = batch_of(clips), build_method(config, learner, teacher)
    assert torch.allclose(method.loss(learner, batch), cross_entropy(learner, batch), atol=1e-5)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert list(method.state_dict()) == ["projector.0.weight", "projector.2.weight"]
    trained = {id(p) for group in build_optimizer(learner, config, method).param_groups for p in group["params"]}
    assert trained == {id(p) for p in (*learner.parameters(), *method.parameters()) if p.requires_grad}


def test_a_method_that_cannot_train_is_refused():
    with pytest.raises(ValueError, match="method 'froster' distills: it needs a teacher"):
        build_method(load_config(method="froster"), build_learner())
    with pytest.raises(ValueError, match="method 'frozen' does not train"):
        build_method(load_config(method="frozen"), build_learner())


# --- memory and precision


@pytest.mark.parametrize("first_order", [True, False])
def test_smaller_pieces_give_the_gradient_of_the_whole_batch(first_order):
    model, batches = make_net()[0].eval(), []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randn(7, 4, 6, generator=generator, dtype=torch.float64)
        batches.append((tokens, torch.randint(3, (7,), generator=generator)))
    how = {"inner_lr": 0.1, "first_order": first_order}
    whole, pieces = (meta_gradients(model, loss, *batches, **how) for loss in (net_loss, smaller_pieces(net_loss, 3)))
    assert math.isclose(whole.query_loss, pieces.query_loss, rel_tol=1e-12)
    for name in whole.grads:
        assert torch.allclose(whole.grads[name], pieces.grads[name], rtol=0, atol=1e-12)


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


# --- in training


def trained(config, clips, folder, **how):
    """The run of a fresh learner, and that learner's tensors before it."""
    names = ("trainable", "temporal_module", "num_frames", "seed")
    learner = build_learner(**{name: getattr(config, name) for name in names})
    start = {name: tensor.clone() for name, tensor in learner.trainable_state().items()}
    teacher = frozen_clip() if config.method == "froster" else None
    return fit(learner, clips, config, folder, teacher=teacher, **how), start


@pytest.mark.parametrize("method", ["open_vclip", "froster"])
@pytest.mark.parametrize(
    "learner",
    [{}, {"temporal_module": "aim"}, {"temporal_module": "expanded", "trainable": "visual", "outer_lr": 1e-4}],
    ids=["st_adapter", "aim", "expanded"],
)
def test_every_baseline_trains_on_every_temporal_module(method, learner, clips, tmp_path):
    run, start = trained(load_config(method=method, **{**TINY, **learner}, steps_per_epoch=1), clips, tmp_path)
    moved = load_checkpoint(checkpoint_path(run, 2))[0]
    assert moved.keys() == start.keys() and any(not torch.equal(moved[name], start[name]) for name in moved)


def test_open_vclip_is_tested_between_clip_and_the_mean_of_epochs_two_to_the_last(clips, tmp_path):
    config = load_config(method="open_vclip", **{**TINY, "epochs": 3, "steps_per_epoch": 1})
    run, start = trained(config, clips, tmp_path)
    epochs = {epoch: load_checkpoint(checkpoint_path(run, epoch))[0] for epoch in (2, 3)}
    tested = averaged(config.average(), lambda epoch: epochs[epoch], start, 3)
    for name, tensor in start.items():
        expected = (tensor + (epochs[2][name] + epochs[3][name]) / 2) / 2
        torch.testing.assert_close(tested[name], expected, rtol=0, atol=1e-6)
    assert any(not torch.equal(epochs[2][name], epochs[3][name]) for name in start)


def test_interpolation_runs_from_clip_to_the_trained_weights():
    trained, clip = {"a": torch.tensor([2.0])}, {"a": torch.tensor([0.0])}
    assert [interpolate(trained, clip, ratio)["a"].item() for ratio in (0.0, 0.25, 1.0)] == [2.0, 1.5, 0.0]


class Mine(TrainingMethod):
    """A method as a notebook's reader would write one: a parameter of its own in a loss of its own."""

    def __init__(self, learner, config):
        super().__init__(learner, config)
        self.scale = nn.Parameter(torch.rand(()) + 1)  # its start depends on the seed alone

    def loss(self, learner, batch):
        return self.scale.square() * super().loss(learner, batch)

    def step(self, batch, optimizer, generator):
        return {**super().step(batch, optimizer, generator), "scale": self.scale.detach()}


class StepsAgainst:
    """The least that a method is: an object with a step that wants two batches."""

    passes = 2

    def __init__(self, learner, config):
        self.learner = learner

    def step(self, batch, optimizer, generator):
        support, query = batch
        assert not torch.equal(support[0], query[0])
        loss = cross_entropy(self.learner, support) + cross_entropy(self.learner, query)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": loss.detach()}


@pytest.mark.parametrize("method", ["froster", Mine], ids=str)
def test_what_a_method_trains_beside_the_learner_survives_a_kill_to_the_bit(method, clips, tmp_path, monkeypatch):
    config = load_config(method="froster" if method == "froster" else "finetune", **TINY)
    own = {} if method == "froster" else {"method": method}
    whole, _ = trained(config, clips, tmp_path / "whole", **own)
    original, calls = TrainingMethod.step, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 5:  # in the second epoch
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(TrainingMethod, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(config, clips, tmp_path / "killed", **own)
    torch.rand(3)  # another process would have another random state
    again, _ = trained(config, clips, tmp_path / "killed", **own)
    for file in ("epoch_002.safetensors", "gwa.safetensors", "metrics.jsonl"):
        assert (whole / file).read_bytes() == (again / file).read_bytes()


def test_a_method_of_ones_own_is_any_object_with_a_step(clips, tmp_path):
    run, start = trained(load_config(**TINY), clips, tmp_path, method=StepsAgainst)
    moved = load_checkpoint(checkpoint_path(run, 2))[0]
    assert any(not torch.equal(moved[name], start[name]) for name in start)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 6 and '"loss"' in lines[0]
