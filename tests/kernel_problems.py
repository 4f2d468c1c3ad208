"""Small problems with known answers, shared by the tests of the meta-step and of weight averaging."""

import torch
import torch.nn.functional as F
from torch import nn


class Point(nn.Module):
    """A vector x of five, held as two parameters so that names and subsets mean something."""

    def __init__(self, x):
        super().__init__()
        self.u, self.w = nn.Parameter(x[:2].clone()), nn.Parameter(x[2:].clone())

    def forward(self):
        return torch.cat([self.u, self.w])


def quadratic(model, batch):
    matrix, center = batch
    offset = model() - center
    return offset @ matrix @ offset / 2


def make_quadratics(seed=0):
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(2, 5, 5, generator=generator, dtype=torch.float64)
    matrices = half @ half.mT + torch.eye(5)
    a, b, x = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    return (matrices[0], a), (matrices[1], b), x


def flat(grads):
    return torch.cat([grads["u"], grads["w"]])


def halve(grads):
    """A `reduce_grads` that works in place."""
    for grad in grads.values():
        grad.mul_(0.5)


class Net(nn.Module):
    """Attention, batch-norm on the input, dropout: everything that draws numbers or holds state."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 3))

    def forward(self, x):  # [B, N, 6] -> [B, 3]
        x = self.norm(x.flatten(0, 1)).view_as(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.mlp(x.mean(dim=1))


def cross_entropy(model, batch):
    tokens, label = batch
    return F.cross_entropy(model(tokens), label)


def make_net(dropout=0.0, dtype=torch.float64):
    torch.manual_seed(1)
    model = Net(dropout).to(dtype)
    batches = [(torch.randn(8, 4, 6, dtype=dtype), torch.randint(3, (8,))) for _ in range(2)]
    return model, *batches


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


EPOCHS = 7  # length of the trajectories below


def make_averaged_model(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).to(dtype)


def trajectory(model, epochs=EPOCHS, seed=1):
    """One set of weights per epoch, theta_1 .. theta_E."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            n: torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
            for n, p in model.named_parameters()
        }
        for _ in range(epochs)
    ]


def load(model, weights):
    model.load_state_dict(weights, strict=False)
    return model


def run(average, model, weights, first=1):
    for epoch, theta in enumerate(weights, start=first):
        average.update(load(model, theta), epoch)
    return average.averaged()


def one_shot(weights, shares):
    return {n: sum(share * theta[n] for share, theta in zip(shares, weights, strict=True)) for n in weights[0]}


def assert_close(found, expected, tolerance=1e-12):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance)
