"""A network split over devices computes what the whole one does, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.dataset import Batch, make_dataset
from hemiola.errors import OptionError

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hemiola.objectives import Torch  # noqa: E402
from hemiola.objectives.networks import alexnet, alexnet28, mlp2  # noqa: E402
from hemiola.objectives.split import (  # noqa: E402
    Add,
    Columns,
    Join,
    Spread,
    Wire,
    columns,
    rows,
    split,
)


def close(a, b):
    return torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def layers():
    torch.manual_seed(0)
    yield nn.Linear(7, 5).double(), torch.randn(6, 7, dtype=torch.float64)
    yield nn.Linear(7, 5, bias=False).double(), torch.randn(6, 7, dtype=torch.float64)
    yield (
        nn.Conv2d(7, 5, 3, padding=1, stride=2).double(),
        torch.randn(2, 7, 6, 6, dtype=torch.float64),
    )


def backward(module, x):
    """The output, and the gradients of x and of a fixed function of the output."""
    x = x.clone().requires_grad_()
    y = module(x)
    (y * torch.arange(y.numel(), dtype=y.dtype).view(y.shape).cos()).sum().backward()
    return y.detach(), x.grad


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
@pytest.mark.parametrize("number", range(3))
def test_a_layer_by_columns_is_the_layer(number, parts):
    layer, x = list(layers())[number]
    pieces = columns(layer, parts)
    wire = Wire()
    whole, part = (
        backward(module, x)
        for module in (
            layer, nn.Sequential(Spread(["cpu"] * parts), Columns(pieces), Join(wire)),
        )
    )  # fmt: skip
    assert all(map(close, whole, part))
    assert close(torch.cat([piece.weight.grad for piece in pieces]), layer.weight.grad)
    if layer.bias is not None:
        assert close(torch.cat([piece.bias.grad for piece in pieces]), layer.bias.grad)
    first = pieces[0].weight.shape[0] / layer.weight.shape[0]
    assert wire.sent == round(whole[0].numel() * (1 - first))


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("number", range(3))
def test_a_layer_by_rows_is_the_layer(number, parts):
    layer, x = list(layers())[number]
    pieces = rows(layer, parts)
    wire = Wire()
    sizes = [piece.weight.shape[1] for piece in pieces]

    class Shares(nn.Module):
        def forward(self, x):
            return list(x.split(sizes, dim=1))

    whole = backward(layer, x)
    part = backward(nn.Sequential(Shares(), Columns(pieces), Add(wire)), x)
    assert all(map(close, whole, part))
    assert close(torch.cat([piece.weight.grad for piece in pieces], dim=1), layer.weight.grad)
    if layer.bias is not None:
        assert close(pieces[0].bias.grad, layer.bias.grad)
    assert wire.sent == (parts - 1) * whole[0].numel()


def test_columns_followed_by_rows_need_one_exchange():
    torch.manual_seed(0)
    first, second = nn.Linear(4, 6).double(), nn.Linear(6, 3).double()
    wire = Wire()
    pair = nn.Sequential(
        Spread(["cpu"] * 2), Columns(columns(first, 2)), Columns([nn.ReLU(), nn.ReLU()]),
        Columns(rows(second, 2)), Add(wire),
    )  # fmt: skip
    x = torch.randn(5, 4, dtype=torch.float64)
    whole = backward(nn.Sequential(first, nn.ReLU(), second), x)
    assert all(map(close, whole, backward(pair, x)))
    assert wire.sent == 5 * 3


def whole_gradients(network):
    return [p.grad for p in network.parameters()]


def split_gradients(network):
    found = []
    for module in network:
        if isinstance(module, Columns) and hasattr(module.parts[0], "weight"):
            found += [
                torch.cat([getattr(part, name).grad for part in module.parts])
                for name in ("weight", "bias")
            ]
    return found


@pytest.mark.parametrize("training", [False, True])
def test_alexnet_in_two_columns_is_alexnet(training):
    """With dropout: the same units are dropped, whatever device they are on."""
    torch.manual_seed(0)
    whole = alexnet28(width=8).double().train(training)
    parts = split(whole, ["cpu", "cpu"]).train(training)
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    found = []
    for network in (whole, parts):
        torch.manual_seed(5)
        found.append(backward(network, x))
    assert all(map(close, *found))
    expected, got = whole_gradients(whole), split_gradients(parts)
    assert len(expected) == len(got) == 16
    assert all(map(close, expected, got))


def test_each_column_of_a_grouped_convolution_needs_its_own_part_only():
    """AlexNet's columns talk before conv3 and the three linear layers, and at the end."""
    wire = Wire()
    split(alexnet28(width=8), ["cpu", "cpu"], wire)(torch.rand(3, 1, 28, 28))
    conv2, conv5, full = 20 * 7 * 7, 20 * 3 * 3, 128
    assert wire.sent == 3 * (conv2 + conv5 + full + full + 10 / 2)


def test_the_published_alexnet_is_split_with_its_normalisation():
    with torch.device("meta"):
        whole = alexnet()
        parts = split(whole, ["meta", "meta"])
        assert parts(torch.empty(2, 3, 227, 227)).shape == (2, 1000)
    assert sum(p.numel() for p in parts.parameters()) == 60_965_224


def test_normalisation_sees_the_channels_of_all_devices():
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Conv2d(1, 6, 3), nn.LocalResponseNorm(5, 0.5, 0.75, 2.0)).double()
    parts = split(whole, ["cpu"] * 3)
    x = torch.randn(2, 1, 5, 5, dtype=torch.float64)
    assert all(map(close, backward(whole, x), backward(parts, x)))


def test_a_split_network_is_one_objective():
    torch.manual_seed(0)
    whole = mlp2(784, 3, 5, 4)
    rng = np.random.default_rng(0)
    data = make_dataset(rng.random((9, 784)), np.arange(9) % 3)
    values, norms = [], []
    for objective in (Torch(whole), Torch(split(whole, ["cpu", "cpu"]), device="own")):
        w = objective.init(data, rng)
        values.append(objective.value(w, Batch(data)))
        norms.append(np.linalg.norm(objective.grad(w, Batch(data))))
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert norms[0] == pytest.approx(norms[1], rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: columns(nn.Linear(2, 3), 4), "cannot be split into 4"),
        (lambda: columns(nn.Conv2d(4, 4, 1, groups=4), 2), "4 groups"),
        (lambda: rows(nn.Conv2d(4, 4, 1, groups=2), 2), "no inputs that all"),
        (lambda: rows(nn.ReLU(), 2), "ReLU cannot be split"),
        (lambda: split(nn.Sequential(nn.BatchNorm1d(2)), ["cpu"]), "BatchNorm1d"),
        (lambda: split(nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), ["cpu"] * 2), "first layer"),
    ],
)
def test_what_cannot_be_split_is_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()
