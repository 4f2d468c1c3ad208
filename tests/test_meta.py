"""The meta-step's properties. Notation: S support, Q query, alpha = inner_lr, delta = query_weight.

Closed form on quadratics, used by several tests. With symmetric A, B and

    L_S(x) = (x - a)' A (x - a) / 2        L_Q(x) = (x - b)' B (x - b) / 2

g_S = A (x - a); the fast weights are x' = x - alpha P g_S, where the diagonal 0/1 matrix P selects what the
inner step moves; g_Q = B (x' - b). First order: g_S + delta g_Q. Exact: dx'/dx = I - alpha P A, so that of
L_S(x) + delta L_Q(x') is g_S + delta (I - alpha P A)' g_Q = g_S + delta (I - alpha A P) g_Q.
Reduction over ranks is linear: where it multiplies by c, c A and c B stand for A and B.
"""

import pytest
import torch
import torch.nn.functional as F
from kernel_problems import (
    Point,
    assert_same_bits,
    cross_entropy,
    flat,
    halve,
    make_net,
    make_quadratics,
    quadratic,
)
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from mede_core.meta import cross_batch_pairs, meta_gradients, meta_step


def closed_form(support, query, x, alpha, delta, moved, first_order):
    (A, a), (B, b) = support, query
    P = torch.diag(torch.tensor(moved, dtype=torch.float64))
    g_s = A @ (x - a)
    g_q = B @ (x - alpha * P @ g_s - b)
    return g_s + delta * (g_q if first_order else g_q - alpha * A @ P @ g_q), g_s, g_q


def halved(grads):
    return {name: grad * 0.5 for name, grad in grads.items()}


# --- the gradient itself


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("inner", [None, ["u"], ["w"], []])
@pytest.mark.parametrize("reduce_grads", [None, halved, halve], ids=["one rank", "new tensors", "in place"])
def test_gradient_is_the_closed_form_on_quadratics(first_order, inner, reduce_grads):
    support, query, x = make_quadratics()
    moved = [float(inner is None or name in inner) for name in "uuwww"]
    (A, a), (B, b) = ((matrix / (2 if reduce_grads else 1), center) for matrix, center in (support, query))
    expected, g_s, g_q = closed_form((A, a), (B, b), x, 0.07, 0.6, moved, first_order)
    how = {"inner_lr": 0.07, "query_weight": 0.6, "first_order": first_order}
    found = meta_gradients(Point(x), quadratic, support, query, **how, inner_params=inner, reduce_grads=reduce_grads)
    torch.testing.assert_close(flat(found.grads), expected, rtol=1e-12, atol=1e-12)
    assert found.support_grad_norm == pytest.approx(g_s.norm().item(), rel=1e-12)
    assert found.query_grad_norm == pytest.approx(g_q.norm().item(), rel=1e-12)
    assert found.grad_inner_product == pytest.approx((g_s @ g_q).item(), rel=1e-12)


@pytest.mark.parametrize("first_order", [True, False])
def test_gradient_equals_an_oracle_written_with_functional_call(first_order):
    model, support, query = make_net()
    theta = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.eval()  # running statistics: the oracle may call the model as often as it likes

    def loss(weights, batch):
        return F.cross_entropy(functional_call(model, weights, (batch[0],)), batch[1])

    def objective(weights):
        g_s = torch.func.grad(loss)(weights, support)
        fast = {name: weights[name] - 0.3 * g_s[name] for name in weights}
        return loss(weights, support) + 0.7 * loss(fast, query)

    with sdpa_kernel(SDPBackend.MATH):
        if first_order:
            g_s = torch.func.grad(loss)(theta, support)
            g_q = torch.func.grad(loss)({name: theta[name] - 0.3 * g_s[name] for name in theta}, query)
            expected = {name: g_s[name] + 0.7 * g_q[name] for name in theta}
        else:
            expected = torch.func.grad(objective)(theta)
    found = meta_gradients(
        model, cross_entropy, support, query, inner_lr=0.3, query_weight=0.7, first_order=first_order
    )
    for name in theta:
        torch.testing.assert_close(found.grads[name], expected[name], rtol=1e-10, atol=1e-12)


def test_query_weight_zero_is_plain_training_bit_for_bit():
    model, support, query = make_net(dtype=torch.float32)
    twin, *_ = make_net(dtype=torch.float32)
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-2) for m in (model, twin)]
    for _ in range(3):
        meta_step(model, cross_entropy, support, query, optimizers[0], inner_lr=0.5, query_weight=0.0)
        optimizers[1].zero_grad()
        cross_entropy(twin, support).backward()
        optimizers[1].step()
    assert_same_bits(dict(model.named_parameters()), dict(twin.named_parameters()))


def test_params_leaves_the_other_tensors_alone():
    support, query, x = make_quadratics()
    model = Point(x)
    model.w.grad = torch.ones_like(model.w)  # left over from elsewhere
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = meta_step(model, quadratic, support, query, optimizer, inner_lr=0.1, params=["u"])
    expected, *_ = closed_form(support, query, x, 0.1, 1.0, [1, 1, 0, 0, 0], True)
    torch.testing.assert_close(result.grads["u"], expected[:2], rtol=1e-12, atol=1e-12)
    assert list(result.grads) == ["u"]
    assert torch.equal(model.w.detach(), x[2:]) and model.w.grad is model.u.grad is None


def test_clipping_bounds_the_merged_gradient():
    support, query, x = make_quadratics()
    free = meta_gradients(Point(x), quadratic, support, query, inner_lr=0.1).grads
    model = Point(x)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    clipped = meta_step(model, quadratic, support, query, optimizer, inner_lr=0.1, max_grad_norm=0.5).grads
    assert flat(free).norm() > 1
    torch.testing.assert_close(flat(clipped), flat(free) * 0.5 / flat(free).norm(), rtol=1e-5, atol=0)
    torch.testing.assert_close(x - model().detach(), flat(clipped))


# --- any module, any loss


def test_tied_weights_move_together():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    model[2].weight = model[0].weight
    s, q = torch.randn(2, 4, 3, dtype=torch.float64)

    def loss(weight, x):
        return ((torch.tanh(x @ weight.T) @ weight.T) ** 2).mean()

    weight = model[0].weight.detach()
    g_s = torch.func.grad(loss)(weight, s)
    expected = g_s + torch.func.grad(loss)(weight - 0.5 * g_s, q)
    found = meta_gradients(model, lambda m, x: (m(x) ** 2).mean(), s, q, inner_lr=0.5).grads
    torch.testing.assert_close(found["0.weight"], expected)
    assert len(found) == 1


def test_half_precision_norms_do_not_overflow():
    model = Point(torch.ones(5, dtype=torch.float16))
    found = meta_gradients(model, lambda m, b: (m() * b).sum(), 300.0, 300.0, inner_lr=0.1)
    assert found.support_grad_norm == pytest.approx(300 * 5**0.5, rel=1e-3)
    assert found.grads["u"].dtype == torch.float16


# --- pairs of batches


def test_pairs_are_read_lazily_with_one_batch_of_lookahead_from_any_iterable():
    read = []

    def loader():
        for i in range(4):
            read.append(i)
            yield i

    pairs = cross_batch_pairs(loader())
    assert read == []
    assert next(pairs) == (0, 1)
    assert read == [0, 1]
    assert next(pairs) == (1, 2)
    assert read == [0, 1, 2]
    assert list(pairs) == [(2, 3), (3, 0)]


def test_pairs_hold_the_batches_themselves_and_never_compare_them():
    batches = [(torch.randn(2), torch.randn(2)) for _ in range(3)]
    for i, (support, query) in enumerate(cross_batch_pairs(batches)):
        assert support is batches[i]
        assert query is batches[(i + 1) % 3]
    assert list(cross_batch_pairs([None, None])) == [(None, None)] * 2


@pytest.mark.parametrize("batches", [[], ["only"]])
def test_fewer_than_two_batches_are_an_error(batches):
    with pytest.raises(ValueError, match=rf"loader gave {len(batches)} batch"):
        list(cross_batch_pairs(batches))
