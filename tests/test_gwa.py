"""Gaussian weight averaging: the weights, the running average, and resuming it."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_problems import EPOCHS, assert_close, assert_same_bits, load, make_averaged_model, one_shot, run, trajectory
from torch.optim.swa_utils import AveragedModel

from mede_core.gwa import GaussianWeightAverage, average_trajectory, gaussian_weights, published_schedule

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
relaxed = settings(deadline=None, max_examples=200, derandomize=True)


# --- the weights


def test_weights_are_the_normalized_gaussian_of_the_paper():
    shares = gaussian_weights(9, 4.3, 2.1)
    w = [math.exp(-((t - 4.3) ** 2) / (2 * 2.1**2)) / (math.sqrt(2 * math.pi) * 2.1) for t in range(1, 10)]
    assert shares.dtype == torch.float64
    torch.testing.assert_close(shares, torch.tensor(w, dtype=torch.float64) / sum(w), rtol=1e-13, atol=0)


@relaxed
@given(st.integers(1, 60), finite, positive)
def test_weights_are_shares_whatever_mu_and_sigma(epochs, mu, sigma):
    shares = gaussian_weights(epochs, mu, sigma)
    assert shares.shape == (epochs,)
    assert torch.isfinite(shares).all()
    assert (shares >= 0).all()
    assert shares.sum().item() == pytest.approx(1, abs=1e-12)


@relaxed
@given(st.integers(1, 30), finite, positive)
def test_no_epoch_weighs_more_than_one_nearer_to_mu(epochs, mu, sigma):
    shares = gaussian_weights(epochs, mu, sigma).tolist()
    order = sorted(range(epochs), key=lambda i: abs(i + 1 - Fraction(mu)))
    assert all(shares[near] >= shares[far] for near, far in pairwise(order))


@relaxed
@given(st.integers(2, 20), st.floats(-50, 50), st.floats(0.5, 50))
def test_weights_equal_exact_arithmetic_up_to_rounding(epochs, mu, sigma):
    """The exponents in rational numbers, hence without overflow or cancellation."""
    exponents = [-((t - Fraction(mu)) ** 2) / (2 * Fraction(sigma) ** 2) for t in range(1, epochs + 1)]
    w = [math.exp(e - max(exponents)) for e in exponents]
    expected = [x / math.fsum(w) for x in w]
    assert gaussian_weights(epochs, mu, sigma).tolist() == pytest.approx(expected, rel=1e-10, abs=1e-300)


@pytest.mark.parametrize(
    ("mu", "sigma", "epoch"),
    [(30.0, 0.5, 10), (1e300, 1.0, 10), (-1e308, 1e-3, 1), (4.4, 5e-324, 4), (4.6, 1e-320, 5), (1.7e308, 1.0, 10)],
)
def test_weights_that_would_underflow_or_overflow_still_pick_the_nearest_epoch(mu, sigma, epoch):
    expected = torch.zeros(10, dtype=torch.float64)
    expected[epoch - 1] = 1
    torch.testing.assert_close(gaussian_weights(10, mu, sigma), expected, rtol=0, atol=1e-6)


def test_two_nearest_epochs_share_alike_for_the_smallest_sigma():
    assert gaussian_weights(4, 2.5, 5e-324).tolist() == [0, 0.5, 0.5, 0]


def test_published_values_give_the_filter_that_protocols_describe():
    """mu = 15, sigma = 10 over the epochs 2..22: nearly flat; mu = 11, sigma = 5 is another filter."""
    shares = gaussian_weights(22, 15, 10, start=2)
    assert shares[0] == 0
    counted = shares[1:]
    assert round(counted.min().item(), 3) == 0.025 == round(shares[2 - 1].item(), 3)
    assert round(counted.max().item(), 3) == 0.058 == round(shares[15 - 1].item(), 3)
    assert round(shares[22 - 1].item(), 3) == 0.046
    assert round(1 / counted.square().sum().item(), 1) == 20.1  # effective number of epochs
    narrower = gaussian_weights(22, 11, 5)
    assert round(narrower.max().item(), 3) == 0.082
    assert round(narrower[0].item(), 2) == round(narrower[-1].item(), 2) == 0.01


def test_published_schedule_keeps_the_published_ratios():
    mu, sigma = published_schedule(22)
    assert (round(mu), round(sigma)) == (15, 10)
    assert published_schedule(10) == pytest.approx((6.8, 4.5))


def test_start_leaves_the_earlier_epochs_out_and_the_shape_as_it_is():
    whole, late = gaussian_weights(8, 5, 2), gaussian_weights(8, 5, 2, start=3)
    assert late[:2].tolist() == [0, 0]
    torch.testing.assert_close(late[2:], whole[2:] / whole[2:].sum(), rtol=1e-13, atol=0)


# --- the running average


@pytest.mark.parametrize("mu", [-3.0, 1.0, 4.76, 7.0, 30.0])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.15, 100.0])
def test_running_average_equals_the_one_shot_sum_after_every_epoch(mu, sigma):
    model = make_averaged_model()
    weights, average = trajectory(model), GaussianWeightAverage(model, mu, sigma)
    for epoch, theta in enumerate(weights, start=1):
        average.update(load(model, theta), epoch)
        shares = gaussian_weights(epoch, mu, sigma)
        expected = one_shot(weights[:epoch], shares.tolist())
        assert_close(average.averaged(), expected)
        assert_close(average_trajectory(iter(weights[:epoch]), shares), expected)


def test_epochs_may_be_missing():
    model = make_averaged_model()
    weights = trajectory(model, 3)
    average = GaussianWeightAverage(model, 5.0, 2.0)
    for epoch, theta in zip((2, 5, 9), weights, strict=True):
        average.update(load(model, theta), epoch)
    w = [math.exp(-((t - 5.0) ** 2) / 8) for t in (2, 5, 9)]
    assert_close(average.averaged(), one_shot(weights, [x / sum(w) for x in w]))


def test_start_leaves_early_epochs_out_of_the_running_average():
    model = make_averaged_model()
    weights = trajectory(model)
    found = run(GaussianWeightAverage(model, 5.0, 2.0, start=3), model, weights)
    assert_close(found, one_shot(weights, gaussian_weights(EPOCHS, 5.0, 2.0, start=3).tolist()))


def test_sigma_to_infinity_is_stochastic_weight_averaging():
    model = make_averaged_model()
    swa = AveragedModel(model)
    weights = trajectory(model)
    for theta in weights:
        swa.update_parameters(load(model, theta))
    expected = dict(swa.module.named_parameters())
    found = run(GaussianWeightAverage(model, 5.0, 1e200), model, weights)
    assert_close(found, {name: p.detach() for name, p in expected.items()})


@pytest.mark.parametrize(("mu", "nearest"), [(-9.0, 1), (3.2, 3), (3.8, 4), (99.0, 7)])
def test_sigma_to_zero_is_the_nearest_epoch_bit_for_bit(mu, nearest):
    model = make_averaged_model(torch.float32)
    weights = trajectory(model)
    assert_same_bits(run(GaussianWeightAverage(model, mu, 1e-3), model, weights), weights[nearest - 1])


@settings(deadline=None, max_examples=40, derandomize=True)
@given(finite, positive)
def test_extreme_mu_and_sigma_keep_the_average_inside_the_trajectory(mu, sigma):
    model = make_averaged_model()
    weights = trajectory(model, 4)
    found = run(GaussianWeightAverage(model, mu, sigma), model, weights)
    for name, tensor in found.items():
        stacked = torch.stack([theta[name] for theta in weights])
        assert torch.isfinite(tensor).all()
        assert (tensor >= stacked.amin(0) - 1e-12).all()
        assert (tensor <= stacked.amax(0) + 1e-12).all()


def test_initial_weights_never_enter():
    model = make_averaged_model(torch.float32)
    weights = trajectory(model)
    plain = run(GaussianWeightAverage(model, 4.0, 2.0), model, weights)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(math.nan)
    assert_same_bits(run(GaussianWeightAverage(model, 4.0, 2.0), model, weights), plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_that_never_change_stay_bit_identical(dtype):
    model = make_averaged_model(dtype)
    weights = trajectory(model)
    for theta in weights:
        theta["0.weight"] = weights[0]["0.weight"]
    found = run(GaussianWeightAverage(model, 4.0, 2.0), model, weights)
    assert torch.equal(found["0.weight"], weights[0]["0.weight"])
    assert torch.equal(average_trajectory(weights, [0.1] * EPOCHS)["0.weight"], weights[0]["0.weight"])
    assert not torch.equal(found["2.weight"], weights[0]["2.weight"])


def test_only_trainable_parameters_are_averaged_and_written():
    model = make_averaged_model(torch.float32)
    model[0].requires_grad_(False)
    average = GaussianWeightAverage(model, 4.0, 2.0)
    assert run(average, model, trajectory(model)).keys() == {"1.weight", "1.bias", "2.weight", "2.bias"}
    target = make_averaged_model(torch.float32)
    target[0].requires_grad_(False)
    with torch.no_grad():
        target[0].weight.fill_(3), target[1].running_mean.fill_(5)
    average.copy_to(target)
    assert (target[0].weight == 3).all()
    assert (target[1].running_mean == 5).all()
    assert_same_bits({n: p.detach() for n, p in target.named_parameters() if p.requires_grad}, average.averaged())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_averaged_in_float32_and_returned_in_their_own(dtype):
    model = make_averaged_model(dtype)
    weights = trajectory(model, 20)
    found = run(GaussianWeightAverage(model, 10.0, 5.0), model, weights)
    wide = [{name: tensor.double() for name, tensor in theta.items()} for theta in weights]
    expected = one_shot(wide, gaussian_weights(20, 10.0, 5.0).tolist())
    for name, tensor in found.items():
        assert tensor.dtype == dtype
        error = (tensor.double() - expected[name]).abs().max()
        assert error <= torch.finfo(dtype).eps * expected[name].abs().max()


def test_what_it_returns_is_a_copy():
    model = make_averaged_model()
    average = GaussianWeightAverage(model, 4.0, 2.0)
    first = run(average, model, trajectory(model, 2))
    kept = {name: tensor.clone() for name, tensor in first.items()}
    state = average.state_dict()
    for tensor in [*first.values(), *average.state_dict()["average"].values(), *model.state_dict().values()]:
        tensor.zero_()
    assert_same_bits(average.averaged(), kept)
    run(average, model, trajectory(model, 2, seed=5), first=3)
    assert state["epochs"] == [1, 2]
    assert_same_bits(state["average"], kept)


# --- resume


@pytest.mark.parametrize("stop", range(EPOCHS + 1))
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_resume_at_any_epoch_ends_with_the_same_bits(stop, dtype, tmp_path):
    model = make_averaged_model(dtype)
    weights = trajectory(model)
    expected = run(GaussianWeightAverage(model, 4.5, 2.5, start=2), model, weights)
    first = GaussianWeightAverage(model, 4.5, 2.5, start=2)
    for epoch in range(1, stop + 1):
        first.update(load(model, weights[epoch - 1]), epoch)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = GaussianWeightAverage(make_averaged_model(dtype), 4.5, 2.5, start=2)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for epoch in range(stop + 1, EPOCHS + 1):
        second.update(load(model, weights[epoch - 1]), epoch)
    assert_same_bits(second.averaged(), expected)
