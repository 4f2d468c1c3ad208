"""The kernel in people's own training loops: right, or refused with a word on what to do, and never silently wrong."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.distributed as dist
from kernel_problems import Point, assert_same_bits, cross_entropy, make_net, make_quadratics, quadratic
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mede_core.config import load_config
from mede_core.gwa import GaussianWeightAverage, gaussian_weights
from mede_core.learner import build_learner
from mede_core.meta import meta_gradients, meta_step
from mede_core.methods import build_method, build_optimizer

both_orders = pytest.mark.parametrize("first_order", [True, False])


def square(model, batch):
    return model(batch).square().mean()


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def two_batches(*shape):
    return torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# --- hooks


@both_orders
def test_a_gradient_hook_that_freezes_rows_acts_on_both_gradients(first_order):
    support, query, x = make_quadratics()
    mask = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    model = Point(x)
    model.w.register_hook(lambda grad: grad * mask)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (A, a), (B, b) = support, query
    P = torch.diag(torch.tensor([1.0, 1.0, *mask], dtype=torch.float64))
    g_s = P @ A @ (x - a)
    g_q = P @ B @ (x - 0.3 * g_s - b)
    expected = g_s + (g_q if first_order else g_q - 0.3 * P @ A @ g_q)
    meta_step(model, quadratic, support, query, optimizer, inner_lr=0.3, first_order=first_order)
    torch.testing.assert_close(model().detach(), x - 0.1 * expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(model.w.detach()[[0, 2]], x[[2, 4]])


def test_a_hook_that_would_never_run_is_refused():
    support, query, x = make_quadratics()
    model = Point(x)
    model.w.register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(ValueError, match="w has a post-accumulate-grad hook"):
        meta_gradients(model, quadratic, support, query, inner_lr=0.1)


# --- wrapped, sharded, compiled


@pytest.fixture
def one_process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded(how):
    from torch.distributed._composable.replicate import replicate
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import distribute_module

    mesh, model = init_device_mesh("cpu", (1,)), mlp()
    if how == "DDP":
        return replicate(model)
    return fully_shard(model, mesh=mesh) if how == "FSDPModule" else distribute_module(model, mesh)


DDP = nn.parallel.DistributedDataParallel


@pytest.mark.parametrize(
    ("kind", "build"),
    [
        ("DistributedDataParallel", lambda: DDP(mlp())),
        ("DistributedDataParallel", lambda: nn.Sequential(DDP(mlp()), nn.Linear(3, 3).double())),
        ("FSDPModule", lambda: sharded("FSDPModule")),
        ("DTensor", lambda: sharded("DTensor")),
        ("DDP", lambda: sharded("DDP")),
    ],
    ids=["wrapped", "part of a model", "fully_shard", "DTensor", "replicate"],
)
def test_a_model_made_for_data_parallel_training_is_refused_wherever_it_hides(kind, build, one_process_group):
    with pytest.raises(ValueError, match=f"is a {kind}; pass the plain module.*reduce_grads"):
        meta_gradients(build(), square, *two_batches(5, 4), inner_lr=0.1)


@pytest.mark.parametrize("what", ["model", "loss"])
def test_a_compiled_model_or_loss_sees_the_fast_weights(what):
    batches = two_batches(5, 4)
    expected = meta_gradients(mlp(), square, *batches, inner_lr=1.0)
    model = torch.compile(mlp(), backend="eager") if what == "model" else mlp()
    loss_fn = torch.compile(square, backend="eager") if what == "loss" else square
    for _ in range(2):
        found = meta_gradients(model, loss_fn, *batches, inner_lr=1.0)
        assert found.query_loss == pytest.approx(expected.query_loss, rel=1e-12)
        for one, other in zip(found.grads.values(), expected.grads.values()):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


# --- did the query pass see the fast weights?


class Listed(nn.Module):
    """Reads one of its parameters from a list, where nothing can be lent in its place."""

    def __init__(self, how):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8).double(), nn.Linear(8, 3).double()
        self.norm, self.how, self.listed = nn.BatchNorm1d(8).double(), how, [self.last.weight]

    def forward(self, x):
        hidden = nn.functional.dropout(self.norm(torch.tanh(self.first(x))), 0.5)
        out = hidden @ self.listed[0].T + self.last.bias
        return out + self.last(hidden) if self.how == "both ways" else out


@both_orders
@pytest.mark.parametrize("how", ["list", "both ways"])
def test_a_parameter_that_is_read_past_the_module_is_noticed(how, first_order):
    model = Listed(how)
    optimizer = torch.optim.AdamW(model.parameters())
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match=r"read \['last.weight'\] past the model.*did not see the fast weights"):
        meta_step(model, square, *two_batches(5, 4), optimizer, inner_lr=0.1, first_order=first_order)
    assert_same_bits(dict(model.named_parameters()), before)
    assert not optimizer.state and all(p.grad is None for p in model.parameters())
    found = meta_gradients(model, square, *two_batches(5, 4), inner_lr=0.1, params=["first.weight"])
    assert found.grads["first.weight"].abs().sum() > 0  # what is not moved may be read from anywhere


def test_a_loss_of_a_copy_of_the_model_is_noticed():
    model, other = mlp(), mlp()
    with pytest.raises(ValueError, match="support_loss reaches none of params; a copy of the model was used"):
        meta_gradients(model, lambda _model, batch: square(other, batch), *two_batches(5, 4), inner_lr=0.1)


class Routed(nn.Module):
    """An expert for each batch, and one that is never used: nothing is wrong."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 3) for _ in range(3)).double()

    def forward(self, x):
        return self.experts[int(x.sum() > 0)](x)


@both_orders
def test_routed_models_and_layers_that_a_batch_or_all_leave_out_train_on(first_order):
    torch.manual_seed(0)
    model = Routed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = [torch.full((5, 4), value, dtype=torch.float64) for value in (1.0, -1.0, 1.0)]
    for support, query in pairwise(batches):
        found = meta_step(model, square, support, query, optimizer, inner_lr=0.1, first_order=first_order)
        reached = [found.grads[f"experts.{number}.weight"].any().item() for number in range(3)]
        assert reached == [True, True, False]


@pytest.mark.parametrize(
    "build",
    [lambda: nn.LSTM(4, 3, num_layers=2), lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))],
    ids=["lstm", "weight_norm"],
)
def test_modules_that_keep_their_weights_in_other_forms_see_the_fast_weights(build):
    def first(model, batch):  # of what it returns: an LSTM gives its state too
        return model(batch)[0].square().mean()

    torch.manual_seed(0)
    model, (support, query) = build().double(), two_batches(2, 5, 4)
    found = meta_gradients(model, first, support, query, inner_lr=0.7).grads
    g_s = torch.autograd.grad(first(model, support), list(model.parameters()))
    with torch.no_grad():  # really moved
        for p, g in zip(model.parameters(), g_s):
            p -= 0.7 * g
    g_q = torch.autograd.grad(first(model, query), list(model.parameters()))
    for one, s, q in zip(found.values(), g_s, g_q, strict=True):
        torch.testing.assert_close(one, s + q, rtol=1e-10, atol=1e-12)


# --- optimizers


def test_an_optimizer_that_needs_a_closure_is_refused_before_anything_runs():
    support, query, x = make_quadratics()
    model, ran = Point(x), []
    optimizer = torch.optim.LBFGS(model.parameters())
    with pytest.raises(ValueError, match="optimizer is LBFGS, whose step needs a closure"):
        meta_step(model, lambda *_: ran.append(1), support, query, optimizer, inner_lr=0.1)
    assert not ran


def test_grads_are_as_before_where_the_optimizer_raises():
    class Broken(torch.optim.SGD):
        def step(self, closure=None):
            raise RuntimeError("no closure")

    support, query, x = make_quadratics()
    model = Point(x)
    model.u.grad = torch.full_like(model.u, 7.0)
    with pytest.raises(RuntimeError, match="no closure"):
        meta_step(model, quadratic, support, query, Broken(model.parameters(), lr=0.1), inner_lr=0.1)
    assert (model.u.grad == 7).all() and model.w.grad is None
    assert torch.equal(model().detach(), x)


# --- gradients and numbers of other kinds


def test_sparse_and_complex_gradients_are_refused_by_name():
    embedding = nn.Sequential(nn.Embedding(5, 3, sparse=True))
    words = torch.tensor([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=r"gradients of \['0.weight'\] are sparse; allowed are dense"):
        meta_gradients(embedding, square, *words, inner_lr=0.1)
    model = nn.Module()
    model.w = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="w is complex; allowed are real"):
        meta_gradients(model, lambda m, b: m.w.abs().sum(), 0, 0, inner_lr=0.1)


@pytest.mark.parametrize("of", [np.float64, np.array, torch.tensor, lambda value: torch.tensor(value).double()])
def test_numbers_of_numpy_and_torch_are_taken(of):
    support, query, x = make_quadratics()
    values = {"inner_lr": 0.125, "query_weight": 0.5}
    expected = meta_gradients(Point(x), quadratic, support, query, **values).grads
    found = meta_gradients(Point(x), quadratic, support, query, **{name: of(v) for name, v in values.items()}).grads
    assert_same_bits(found, expected)
    assert torch.equal(gaussian_weights(np.int64(6), of(4.0), of(2.5)), gaussian_weights(6, 4.0, 2.5))
    average = GaussianWeightAverage(Point(x), of(4.0), of(2.5), start=np.int32(1))
    for epoch in (np.int64(1), torch.tensor(2)):
        average.update(Point(x), epoch)
    state = average.state_dict()
    assert state["epochs"] == [1, 2] and [type(state[name]) for name in ("mu", "sigma", "start")] == [float, float, int]


# --- a step waits for the device once


class Waits(TorchDispatchMode):
    """Counts the times that a number is read from a tensor, one by one."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["finetune", "open_vclip", "froster", "open_mede"])
def test_nothing_is_read_back_before_the_optimizer_but_all_numbers_at_once(method, monkeypatch):
    lists, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: lists.append(1) or tolist(tensor))
    config = load_config(method=method, batch_size=4)
    learner = build_learner().set_classes(["a red star rising", "a red star falling"])
    teacher = build_learner(adapter_width=0, trainable="visual") if method == "froster" else None
    step = build_method(config, learner, teacher)
    optimizer = build_optimizer(learner, config, step)
    monkeypatch.setattr(optimizer, "step", lambda: None)  # its own counters are its own
    batch = torch.randint(0, 256, (4, 8, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    generator = torch.Generator().manual_seed(0)
    with Waits() as waits:
        found = step.step((batch, batch) if step.passes == 2 else batch, optimizer, generator)
    drawn = method == "open_vclip"  # its ratio, which never was on the device
    assert waits.count == 0 and len(lists) == 1 + drawn
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize("method", ["finetune", "open_vclip", "open_mede"])
def test_a_gradient_that_is_not_finite_stops_every_method_before_its_optimizer(method):
    learner = build_learner().set_classes(["a red star rising", "a red star falling"])
    step = build_method(load_config(method=method), learner)
    optimizer = build_optimizer(learner, load_config(method=method), step)
    learner.temporal[0].adapter.up.bias.register_hook(lambda grad: grad * float("inf"))
    before = {name: tensor.clone() for name, tensor in learner.trainable_state().items()}
    batch = torch.randint(0, 256, (2, 8, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1])
    with pytest.raises(FloatingPointError, match="support_grad_norm is (nan|inf)"):
        step.step((batch, batch) if step.passes == 2 else batch, optimizer, None)
    assert_same_bits(learner.trainable_state(), before)
    assert not optimizer.state


def test_what_broke_the_query_pass_is_named_where_it_was_the_support_pass():
    model, support, query = make_net()

    def loss_fn(module, batch):
        if batch is query and not torch.isfinite(module.mlp[0].weight).all():
            raise RuntimeError("the decomposition did not converge")
        return cross_entropy(module, batch) * (float("nan") if batch is support else 1)

    with pytest.raises(FloatingPointError, match="support_loss is nan"):
        meta_gradients(model, loss_fn, support, query, inner_lr=0.1)
