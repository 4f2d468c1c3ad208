"""Averaging a stored trajectory, and what weight averaging refuses."""

import math

import pytest
import torch
from kernel_problems import EPOCHS, assert_close, assert_same_bits, make_averaged_model, one_shot, run, trajectory

from mede_core.gwa import GaussianWeightAverage, average_trajectory, gaussian_weights

# --- the stored trajectory


def test_checkpoints_are_read_one_at_a_time():
    model = make_averaged_model()
    weights = trajectory(model)
    alive = []

    class Tracked(dict):
        def __init__(self, theta):
            super().__init__(theta)
            alive.append(1)

        def __del__(self):
            alive.pop()

    def stream():
        for theta in weights:
            assert len(alive) <= 1  # the one before, at most
            yield Tracked(theta)

    average_trajectory(stream(), [1.0] * EPOCHS)
    assert not alive


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


@pytest.mark.parametrize("how", ["name", "shape", "type"])
def test_a_state_of_other_tensors_is_refused_and_named(how):
    model = make_averaged_model()
    average = GaussianWeightAverage(model, 5.0, 2.0)
    run(average, model, trajectory(model, 2))
    state = average.state_dict()
    weight = state["average"].pop("2.weight")
    others = {"name": ("3.weight", weight), "shape": ("2.weight", weight.T), "type": ("2.weight", weight.float())}
    name, tensor = others[how]
    state["average"][name] = tensor
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
