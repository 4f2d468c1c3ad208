"""Gaussian Weight Averaging (Open-MeDe, ICCV 2025): one set of weights from the trajectory of a training.

In the paper's letters, over the epochs t = 1..E:

    w_t = exp(-(t - mu)^2 / (2 sigma^2))              the factor 1 / (sqrt(2 pi) sigma) cancels below
    alpha_t = w_t / sum_i w_i                         what `gaussian_weights` returns
    theta_GWA <- (1 - c_t) theta_GWA + c_t theta_t    after each epoch, with c_t = w_t / sum_{i<=t} w_i

The running form equals the one-shot sum of alpha_t theta_t, and is a valid average after any epoch. It is a
linear interpolation, so a tensor that never changes stays as it is, bit for bit. theta_0, CLIP's own weights,
never enters, since c_1 = 1. Only parameters that require grad are averaged, not buffers: where a model has
batch-norm statistics, recompute them afterwards, e.g. with `torch.optim.swa_utils.update_bn`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]  # by parameter name, as in model.named_parameters()
STATE = ("mu", "sigma", "start", "epochs", "average")


def published_schedule(num_epochs: int) -> tuple[float, float]:
    """Return (mu, sigma) for a training of `num_epochs` epochs: 0.68 and 0.45 of its length.

    Source: the paper's text, as far as it was reachable, gives no values. The first author's earlier public
    repository holds mu = 15 and sigma = 10 for 22 epochs; we keep these ratios at any other length.
    """
    num_epochs = _epoch("num_epochs", num_epochs)
    return 0.68 * num_epochs, 0.45 * num_epochs


def gaussian_weights(num_epochs: int, mu: float, sigma: float, *, start: int = 1) -> Tensor:
    """Return each epoch's share alpha_t of the average; the shares sum to 1.

    Args:
        num_epochs: E >= 1; epochs count from 1 and include the warm-up.
        mu: the epoch of the highest weight; any finite number, also outside 1..E.
        sigma: width in epochs, finite and > 0: towards infinity all epochs count alike, towards 0 the one
            nearest to mu counts alone.
        start: the first epoch that counts; those before it get 0.

    Returns:
        float64 tensor [num_epochs]; element t - 1 is the share of epoch t.

    Raises:
        ValueError: a value outside these ranges.

    Source: paper, Key Designs 2.
    """
    num_epochs = _epoch("num_epochs", num_epochs)
    mu, sigma, start = _gaussian(mu, sigma, start)
    if start > num_epochs:
        raise ValueError(f"start is {start}; allowed is 1..{num_epochs}")
    shares = _shares(range(start, num_epochs + 1), mu, sigma)
    return torch.tensor([0.0] * (start - 1) + shares, dtype=torch.float64)


class GaussianWeightAverage:
    """The running Gaussian average of a model's trainable parameters: one `update` per epoch.

    Args:
        model: gives names, shapes and types of what is averaged; its present weights, theta_0, are not used.
        mu, sigma, start: as in `gaussian_weights`.

    Raises:
        ValueError: a value out of range, or a model without trainable parameters.
    """

    def __init__(self, model: nn.Module, mu: float, sigma: float, *, start: int = 1):
        self.mu, self.sigma, self.start = _gaussian(mu, sigma, start)
        self.epochs: list[int] = []  # those in the average; the weights w_t are recomputed from them
        self._form = _form(_trainable(model))
        self._average: Tensors = {}

    def update(self, model: nn.Module, epoch: int) -> None:
        """Take in the model's weights at the end of `epoch`: 1, 2, ...; epochs before `start` are left out.

        ValueError: `epoch` is no integer above the last one, or the model's tensors differ in form.
        """
        epoch = _epoch("epoch", epoch)
        if self.epochs and epoch <= self.epochs[-1]:
            raise ValueError(f"epoch is {epoch}; allowed is an integer > {self.epochs[-1]}, the last epoch")
        theta = _trainable(model)
        _check_form("model", _form(theta), self._form)
        if epoch >= self.start:
            self.epochs.append(epoch)
            # c_t = w_t / sum_{i<=t} w_i is the last share among the epochs so far.
            _lerp(self._average, theta, _shares(self.epochs, self.mu, self.sigma)[-1])

    def averaged(self) -> Tensors:
        """Return a copy of the average so far, {name: tensor} in the parameters' own types; ValueError before any."""
        if not self.epochs:
            raise ValueError(f"epochs is empty; update must be called first, for an epoch >= {self.start}")
        return {name: self._average[name].to(dtype, copy=True) for name, (_, dtype) in self._form.items()}

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the average into the model's trainable parameters, in place; ValueErrors as of `update`, `averaged`."""
        theta = _trainable(model)
        _check_form("model", _form(theta), self._form)
        for name, tensor in self.averaged().items():
            theta[name].copy_(tensor)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that a resume needs: mu, sigma, start, epochs, average."""
        average = {name: tensor.clone() for name, tensor in self._average.items()}
        values = (self.mu, self.sigma, self.start, list(self.epochs), average)
        return dict(zip(STATE, values, strict=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, bit for bit.

        ValueError: other entries; another mu, sigma or start; impossible epochs; tensors of another form.
        """
        if set(state) != set(STATE):
            raise ValueError(f"state holds {sorted(state)}; allowed is exactly {sorted(STATE)}")
        for field in ("mu", "sigma", "start"):
            if state[field] != getattr(self, field):
                raise ValueError(f"{field} is {state[field]} in the state; allowed is {getattr(self, field)}")
        epochs = list(state["epochs"])
        if any(t <= before for before, t in zip([self.start - 1, *epochs], epochs, strict=False)):
            raise ValueError(f"epochs is {epochs} in the state; allowed is rising numbers >= {self.start}")
        expected = {name: (shape, _wide(dtype)) for name, (shape, dtype) in self._form.items()}
        _check_form("state", _form(state["average"]), expected if epochs else {})
        self.epochs = epochs
        self._average = {name: tensor.detach().clone() for name, tensor in state["average"].items()}


def average_trajectory(checkpoints: Iterable[Mapping[str, Tensor]], weights: Sequence[float] | Tensor) -> Tensors:
    """Return the weighted mean of checkpoints, read one at a time: GWA, SWA or any average, after training.

    Args:
        checkpoints: {name: tensor} each, of equal names, shapes and floating types, in `weights`' order.
        weights: a finite number >= 0 for each, of any positive sum: they are normalized here.

    Returns:
        {name: tensor} in the checkpoints' own types; a checkpoint of weight 0 does not enter at all.

    Raises:
        ValueError: unusable weights, more or fewer checkpoints than weights, or one of another form.
    """
    weights = [float(weight) for weight in weights]
    if not all(0 <= w < math.inf for w in weights) or not 0 < sum(weights) < math.inf:
        raise ValueError(f"weights is {weights}; allowed are finite numbers >= 0 with a finite sum > 0")
    average: Tensors = {}
    form, count, total = {}, 0, 0.0
    for count, checkpoint in enumerate(checkpoints, start=1):
        if count > len(weights):
            raise ValueError(f"checkpoints holds more than {len(weights)}; allowed is one per weight")
        form = form or _form(checkpoint)
        _check_form(f"checkpoint {count}", _form(checkpoint), form)
        weight = weights[count - 1]
        total += weight
        if weight > 0:
            _lerp(average, checkpoint, weight / total)
    if count < len(weights):
        raise ValueError(f"checkpoints holds {count}; allowed is {len(weights)}, one per weight")
    return {name: average[name].to(dtype) for name, (_, dtype) in form.items()}


def _shares(epochs: Sequence[int], mu: float, sigma: float) -> list[float]:
    """Normalized Gaussian weights of rising epochs, for any finite mu and any sigma > 0."""
    # In log space and relative to n, the epoch nearest to mu:
    #     log(w_t / w_n) = ((n - mu)^2 - (t - mu)^2) / (2 sigma^2) = -((t - n) / sigma) (((t + n) / 2 - mu) / sigma)
    # So w_n is exp(0) and the sum is never 0; and no square of a far mu swallows what sets two epochs apart.
    nearest = epochs[0]
    for t in epochs:
        if (t + nearest) / 2 < mu:  # the midpoint lies left of mu, so t is nearer
            nearest = t
    weights = []
    for t in epochs:
        step, offset = t - nearest, (t + nearest) / 2 - mu
        # Where a factor is 0, t is as near as n; the other factor may be infinite.
        weights.append(math.exp(-(step / sigma) * (offset / sigma)) if step and offset else 1.0)
    total = math.fsum(weights)
    return [weight / total for weight in weights]


@torch.no_grad()
def _lerp(average: Tensors, theta: Mapping[str, Tensor], share: float) -> None:
    """Make average (1 - share) average + share theta; an empty average becomes a copy of theta."""
    for name, tensor in theta.items():
        wide = tensor.detach().to(_wide(tensor.dtype))
        known = name in average
        average[name] = torch.lerp(average[name].to(wide.device), wide, share) if known else wide.clone()


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The type to average in: at least float32, so that small shares are not rounded away."""
    return torch.promote_types(dtype, torch.float32)


def _trainable(model: nn.Module) -> Tensors:
    theta = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not theta:
        raise ValueError("model has no parameter that requires grad; there is nothing to average")
    return theta


def _form(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    integers = sorted(name for name, tensor in tensors.items() if not tensor.is_floating_point())
    if integers:
        raise ValueError(f"tensors {integers} hold no floating-point numbers; allowed are those that can be averaged")
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _check_form(what: str, found: Mapping[str, tuple], expected: Mapping[str, tuple]) -> None:
    names = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
    if names:
        told = [f"{n} is {found.get(n, 'missing')}, allowed is {expected.get(n, 'nothing')}" for n in names]
        raise ValueError(f"{what} differs in {len(names)} tensors: {'; '.join(told[:5])}")


def _epoch(name: str, value: Any) -> int:
    """An integer >= 1 of any type: Python's, NumPy's, a tensor of one element."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} is {value!r}; allowed is an integer >= 1")
    return number


def _gaussian(mu: Any, sigma: Any, start: Any) -> tuple[float, float, int]:
    numbers = {}
    for name, value in (("mu", mu), ("sigma", sigma)):
        try:
            numbers[name] = math.nan if isinstance(value, bool | str) else float(value)
        except (TypeError, ValueError, OverflowError):
            numbers[name] = math.nan
    if not math.isfinite(numbers["mu"]):
        raise ValueError(f"mu is {mu!r}; allowed is any finite number")
    if not 0 < numbers["sigma"] < math.inf:
        raise ValueError(f"sigma is {sigma!r}; allowed is a finite number > 0")
    return numbers["mu"], numbers["sigma"], _epoch("start", start)
