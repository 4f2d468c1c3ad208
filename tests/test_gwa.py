"""Gaussian weight averaging: the weights, the running average, resuming it, and what is refused."""

import math
from fractions import Fraction
from weakref import WeakValueDictionary

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


@relaxed
@given(st.integers(1, 60), finite, positive)
def test_weights_are_shares_whatever_mu_and_sigma(epochs, mu, sigma):
    shares = gaussian_weights(epochs, mu, sigma)
    assert shares.shape == (epochs,)
    assert torch.isfinite(shares).all()
    assert (shares >= 0).all()
    assert shares.sum().item() == pytest.approx(1, abs=1e-12)


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


def test_published_schedule_keeps_the_published_ratios():
    assert published_schedule(22) == pytest.approx((0.68 * 22, 0.45 * 22))


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


# --- the stored trajectory


def test_checkpoints_are_read_one_at_a_time():
    model = make_averaged_model()
    weights = trajectory(model)
    alive = WeakValueDictionary()

    class Checkpoint(dict):
        """What can be referred to weakly."""

    def stream():
        for number, theta in enumerate(weights):
            assert len(alive) <= 1  # the one before, at most
            yield alive.setdefault(number, Checkpoint(theta))

    average_trajectory(stream(), [1.0] * EPOCHS)


@pytest.mark.parametrize("unused", [[0], [0, 1, 2], [3], [6], [0, 2, 4, 5, 6]])
def test_a_checkpoint_of_weight_zero_does_not_enter_even_if_it_is_broken(unused):
    weights = trajectory(make_averaged_model())
    shares = [0.0 if i in unused else 1.0 + i for i in range(EPOCHS)]
    expected = one_shot(weights, [share / sum(shares) for share in shares])
    for i in unused:
        weights[i]["2.weight"] = torch.full_like(weights[i]["2.weight"], math.nan)
    assert_close(average_trajectory(weights, shares), expected)


@pytest.mark.parametrize("count", [0, 1, 6, 8])
def test_another_number_of_checkpoints_than_weights_is_an_error(count):
    weights = trajectory(make_averaged_model(), 8)[:count]
    with pytest.raises(ValueError, match=r"checkpoints holds .*allowed is .*per weight"):
        average_trajectory(iter(weights), [1.0] * EPOCHS)


@pytest.mark.parametrize("shares", [[], [0.0] * 7, [1, -1, 1, 1, 1, 1, 1], [math.nan] * 7, [math.inf] * 7, [1e308] * 7])
def test_unusable_weights_are_an_error(shares):
    with pytest.raises(ValueError, match="weights is"):
        average_trajectory(trajectory(make_averaged_model()), shares)


@pytest.mark.parametrize("at", [1, 6])
def test_checkpoints_that_differ_are_an_error_that_names_the_tensor(at):
    weights = trajectory(make_averaged_model())
    del weights[at]["0.bias"]
    weights[at]["2.weight"] = weights[at]["2.weight"].T
    with pytest.raises(ValueError, match=rf"checkpoint {at + 1} differs in 2 tensors: 0\.bias is missing"):
        average_trajectory(weights, [0.0] * 3 + [1.0] * 4)


def test_integer_tensors_are_refused():
    with pytest.raises(ValueError, match=r"\['steps'\]"):
        average_trajectory([{"steps": torch.tensor(3)}] * 2, [1, 1])


# --- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mu": 4.0}, "mu is 4.0 in the state; allowed is 5.0"),
        ({"sigma": 4.0}, "sigma is 4.0 in the state; allowed is 2.0"),
        ({"start": 2}, "start is 2 in the state; allowed is 1"),
        ({"epochs": [1, 1]}, r"epochs is \[1, 1\] in the state"),
        ({"epochs": [0, 1]}, r"epochs is \[0, 1\] in the state"),
        ({"epochs": []}, "state differs in 6 tensors"),
        ({"average": {}}, "state differs in 6 tensors"),
        ({"other": 1}, "state holds .*other"),
    ],
)
def test_another_state_is_refused_and_changes_nothing(change, message):
    model = make_averaged_model()
    average = GaussianWeightAverage(model, 5.0, 2.0)
    run(average, model, trajectory(model, 2))
    before = average.state_dict()
    with pytest.raises(ValueError, match=message):
        average.load_state_dict({**before, **change})
    after = average.state_dict()
    assert after["epochs"] == before["epochs"]
    assert_same_bits(after["average"], before["average"])


@pytest.mark.parametrize(
    ("name", "change"), [("3.weight", torch.clone), ("2.weight", torch.t), ("2.weight", torch.Tensor.float)]
)
def test_a_state_of_other_tensors_is_refused_and_named(name, change):
    model = make_averaged_model()
    average = GaussianWeightAverage(model, 5.0, 2.0)
    run(average, model, trajectory(model, 2))
    state = average.state_dict()
    state["average"][name] = change(state["average"].pop("2.weight"))
    with pytest.raises(ValueError, match=r"2\.weight is"):
        average.load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1.0, 1.0), "num_epochs is 0"),
        ((2.0, 1.0, 1.0), "num_epochs is 2.0"),
        ((5, math.nan, 1.0), "mu is nan"),
        ((5, math.inf, 1.0), "mu is inf"),
        ((5, 1.0, 0.0), "sigma is 0.0"),
        ((5, 1.0, -1.0), "sigma is -1.0"),
        ((5, 1.0, math.inf), "sigma is inf"),
        ((5, 1.0, math.nan), "sigma is nan"),
        ((5, None, 1.0), "mu is None"),
    ],
)
def test_bad_weights_arguments_are_named_with_their_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_weights(*arguments)


@pytest.mark.parametrize("start", [0, 6, 1.0])
def test_bad_start_is_named(start):
    with pytest.raises(ValueError, match=f"start is {start}"):
        gaussian_weights(5, 1.0, 1.0, start=start)


@pytest.mark.parametrize("epoch", [0, -1, 1.0, True, 2, 3])
def test_epochs_are_integers_from_one_upwards_and_rise(epoch):
    """Epoch 0 would be theta_0, CLIP's own weights."""
    model = make_averaged_model()
    average = GaussianWeightAverage(model, 5.0, 2.0)
    if epoch in (2, 3) and epoch is not True:
        average.update(model, 3)
    with pytest.raises(ValueError, match=f"epoch is {epoch}"):
        average.update(model, epoch)


def test_a_model_of_another_form_is_refused():
    model = make_averaged_model()
    average = GaussianWeightAverage(model, 5.0, 2.0)
    average.update(model, 1)
    model[0].requires_grad_(False)
    for call in (lambda: average.update(model, 2), lambda: average.copy_to(model)):
        with pytest.raises(ValueError, match=r"model differs in 2 tensors: 0\.bias is missing"):
            call()
    with pytest.raises(ValueError, match="model has no parameter that requires grad"):
        GaussianWeightAverage(model.requires_grad_(False), 5.0, 2.0)


def test_an_average_of_nothing_is_an_error():
    model = make_averaged_model()
    average = GaussianWeightAverage(model, 5.0, 2.0, start=2)
    average.update(model, 1)
    for call in (average.averaged, lambda: average.copy_to(model)):
        with pytest.raises(ValueError, match="update must be called first, for an epoch >= 2"):
            call()
