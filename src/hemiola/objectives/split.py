"""Model parallelism: one network over several devices, which exchange activations.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks",
NIPS 2012, section 3.2; Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", arXiv:1404.5997; Dean et al., "Large scale distributed deep networks", NIPS 2012.

A layer y = W x + b can be split in two ways:

    columns   y_j = W_j x + b_j          each device has some of the outputs, and needs all inputs
    rows      y = sum_j W_j x_j + b      each device has some of the inputs; the parts are added up

of which the first's outputs are the second's inputs: a pair needs one exchange. A convolution is
split by its output channels, or by its input channels, in the same way; one with as many groups as
there are devices needs no exchange at all. So AlexNet's two columns talk before conv3 and before
each fully connected layer only.

==========  ==========================  ===========================================
symbol      here                        shape
==========  ==========================  ===========================================
W_j, b_j    ``columns(layer, parts)``   (p_out / parts, p_in), (p_out / parts,)
W_j         ``rows(layer, parts)``      (p_out, p_in / parts); b in part 0
x_j         a list, one entry a device  (m, p_in / parts) or (m, channels / parts, h, w)
==========  ==========================  ===========================================

Parts need not be equal. The split network computes what the whole one does, forward and backward,
but for rounding. Masks of dropout are those of the whole layer, cut: they belong to units, not to
devices. What normalises across channels is given all of them.

To an algorithm a split network is one worker: ``Torch(split(network, devices), device="own")``.
The devices are those of one process.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hemiola.errors import OptionError

_EACH = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.MaxPool2d, nn.AvgPool2d, nn.Flatten, nn.Identity)
_ACROSS = (nn.LocalResponseNorm,)


class Wire:
    """Counts what devices send to each other: ``sent`` numbers, in forward passes.

    A backward pass sends as many the other way.
    """

    def __init__(self) -> None:
        self.sent = 0

    def send(self, tensor: Any, device: Any) -> Any:
        """A tensor from one part to another."""
        self.sent += tensor.numel()
        return tensor.to(device)


class Spread(nn.Module):
    """Give every device the same input: their gradients are added up on the way back."""

    def __init__(self, devices: Sequence[str]) -> None:
        super().__init__()
        self.devices = tuple(devices)

    def forward(self, x: Any) -> list[Any]:
        return [x.to(device) for device in self.devices]


class Columns(nn.Module):
    """One module a device, each on its own part."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, parts: list[Any]) -> list[Any]:
        return [module(part) for module, part in zip(self.parts, parts, strict=True)]


class Gather(nn.Module):
    """Give every device all parts, side by side: each part is sent once to each other device."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.wire = wire

    def forward(self, parts: list[Any]) -> list[Any]:
        return [torch.cat(self._at(i, parts), dim=1) for i in range(len(parts))]

    def _at(self, i: int, parts: list[Any]) -> list[Any]:
        """All parts on the i-th one's device."""
        device = parts[i].device
        return [p if i == j else self.wire.send(p, device) for j, p in enumerate(parts)]


class Add(nn.Module):
    """The sum of all parts, on the first one's device."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.wire = wire

    def forward(self, parts: list[Any]) -> Any:
        total = parts[0]
        for part in parts[1:]:
            total = total + self.wire.send(part, total.device)
        return total


class Join(nn.Module):
    """All parts side by side, on the first one's device."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.wire = wire

    def forward(self, parts: list[Any]) -> Any:
        first, *rest = parts
        return torch.cat([first, *(self.wire.send(part, first.device) for part in rest)], dim=1)


class Across(nn.Module):
    """A module that looks at all channels: every device applies it to all, and keeps its own."""

    def __init__(self, module: nn.Module, wire: Wire) -> None:
        super().__init__()
        self.module = module
        self.gather = Gather(wire)

    def forward(self, parts: list[Any]) -> list[Any]:
        sizes = [part.shape[1] for part in parts]
        whole = self.gather(parts)
        return [self.module(x).split(sizes, dim=1)[j] for j, x in enumerate(whole)]


class Masks(nn.Module):
    """Dropout with the masks that the whole layer would have, cut."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, parts: list[Any]) -> list[Any]:
        if not self.training:
            return parts
        sizes = [part.shape[1] for part in parts]
        first = parts[0]
        whole = first.new_ones(first.shape[0], sum(sizes), *first.shape[2:])
        masks = nn.functional.dropout(whole, self.p).split(sizes, dim=1)
        return [part * mask.to(part.device) for part, mask in zip(parts, masks, strict=True)]


def cut(total: int, parts: int) -> list[int]:
    """Sizes of so many parts, as equal as can be.

    >>> cut(10, 3)
    [4, 3, 3]
    """
    if not 1 <= parts <= total:
        raise OptionError(f"{total} units cannot be split into {parts} parts.")
    return [total // parts + (j < total % parts) for j in range(parts)]


def columns(layer: nn.Module, parts: int) -> list[nn.Module]:
    """The layer by its outputs. Of a convolution with ``parts`` groups, each part is one group.

    >>> [part.weight.shape[0] for part in columns(nn.Linear(2, 5), 2)]
    [3, 2]
    """
    _check(layer)
    groups = getattr(layer, "groups", 1)
    if groups not in (1, parts):
        raise OptionError(f"a convolution of {groups} groups cannot be split into {parts} parts.")
    weights = layer.weight.split(cut(len(layer.weight), parts))
    biases = [None] * parts if layer.bias is None else layer.bias.split([len(w) for w in weights])
    return [_part(layer, w, b) for w, b in zip(weights, biases, strict=True)]


def rows(layer: nn.Module, parts: int) -> list[nn.Module]:
    """The layer by its inputs: part j takes the j-th share of them, and the outputs add up.

    >>> [part.weight.shape for part in rows(nn.Linear(4, 3), 2)]
    [torch.Size([3, 2]), torch.Size([3, 2])]
    """
    _check(layer)
    if getattr(layer, "groups", 1) != 1:
        raise OptionError("a convolution of groups has no inputs that all outputs share.")
    weights = layer.weight.split(cut(layer.weight.shape[1], parts), dim=1)
    biases = [layer.bias, *[None] * (parts - 1)]
    return [_part(layer, w, b) for w, b in zip(weights, biases, strict=True)]


def _check(layer: nn.Module) -> None:
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise OptionError(f"{type(layer).__name__} cannot be split; nn.Linear and nn.Conv2d can.")


def _part(layer: Any, weight: Any, bias: Any) -> nn.Module:
    """A layer like this one with a part of its weights, copied."""
    part = copy.copy(layer)
    part._parameters = {}
    outputs, inputs = weight.shape[:2]
    part.weight = nn.Parameter(weight.detach().clone())
    part.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    if isinstance(layer, nn.Linear):
        part.out_features, part.in_features = outputs, inputs
    else:
        part.out_channels, part.in_channels, part.groups = outputs, inputs, 1
    return part


def split(
    network: nn.Sequential, devices: Sequence[str], wire: Wire | None = None
) -> nn.Sequential:
    """A sequence of layers over these devices, all layers by columns.

    A convolution with as many groups as devices works on its own device's part; other convolutions
    and linear layers are given all parts. Raises :class:`~hemiola.errors.OptionError` for layers
    that it does not know.

    >>> whole = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    >>> x = torch.ones(5, 3, dtype=torch.float64)
    >>> torch.allclose(split(whole, ["cpu", "cpu"])(x), whole(x))
    True
    """
    wire, parts = wire or Wire(), len(devices)
    made: list[nn.Module] = [Spread(devices)]
    has_all = True  # every device has all channels
    for layer in network:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            is_grouped = getattr(layer, "groups", 1) > 1
            if is_grouped and has_all:
                raise OptionError("the first layer cannot have groups; each device has all of it.")
            if not has_all and not is_grouped:
                made.append(Gather(wire))
            pieces = columns(layer, parts)
            made.append(Columns([p.to(d) for p, d in zip(pieces, devices, strict=True)]))
            has_all = False
        elif isinstance(layer, _EACH):
            made.append(Columns([copy.deepcopy(layer) for _ in devices]))
        elif isinstance(layer, nn.Dropout) and not has_all:
            made.append(Masks(layer.p))
        elif isinstance(layer, _ACROSS) and not has_all:
            made.append(Across(copy.deepcopy(layer), wire))
        else:
            raise OptionError(f"{type(layer).__name__} cannot be split here.")
    return nn.Sequential(*made, Join(wire))
