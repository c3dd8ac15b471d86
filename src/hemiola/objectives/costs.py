"""What the layers of a network compute, keep and send, and how fast this machine is at it.

Nothing is computed to know the costs: the layers see tensors without memory (device ``meta``), in
training mode. Operations are those of PyTorch's counter, of matrix products and convolutions; a
backward pass has twice as many as the forward pass, half of which the first layer with parameters
does without, as nobody asks for the gradient of the data. What autograd keeps for the backward pass
is counted by the memory that holds it, once wherever it is used: a rectifier's outputs are the next
layer's inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from hemiola.errors import OptionError
from hemiola.objectives._exchange import Exchange
from hemiola.objectives._net import seeded

_ENOUGH = 5.0  # seconds of measuring
_MESSAGE = 4 << 20  # bytes of a measured message
_REPEATS = 3


@dataclass(frozen=True)
class Layer:
    """The costs of one layer for some samples, in bytes but for ``flops``.

    ``parameters``  of the layer;
    ``flops``       operations of a forward and a backward pass;
    ``takes``       its inputs;
    ``sends``       its outputs, and as many bytes of their gradients;
    ``keeps``       what waits for the backward pass, by the memory that holds it;
    ``reads``, ``writes``  the memory of its inputs and outputs.
    """

    name: str
    parameters: int
    flops: int
    takes: int
    sends: int
    keeps: Mapping[int, int]
    reads: int
    writes: int


def layers_of(network: nn.Sequential, shape: Sequence[int], samples: int) -> list[Layer]:
    """The costs of every layer for so many samples of this shape, with cross-entropy at the end.

    Raises :class:`~hemiola.errors.OptionError` for what is no sequence of layers, and for samples
    that do not fit.

    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> [(layer.parameters, layer.flops, layer.sends) for layer in layers_of(network, [4], 2)]
    [(160, 256, 64), (0, 0, 64), (108, 288, 24)]
    """
    if not isinstance(network, nn.Sequential) or not len(network):
        raise OptionError(
            f"a {type(network).__name__} cannot be cut between its layers; an nn.Sequential can."
        )
    hollow = copy.deepcopy(network).to("meta").train()
    dtype = next((p.dtype for p in hollow.parameters()), torch.float32)
    x = torch.empty(samples, *shape, dtype=dtype, device="meta")
    everything, made, learns = [x], [], False  # memory that is in use has a number of its own
    for number, layer in enumerate(hollow):
        try:
            is_last = number == len(hollow) - 1
            found, x = _costs(number, layer, x.detach().requires_grad_(learns), everything, is_last)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise OptionError(
                f"layer {number}, {type(layer).__name__}, does not fit samples of shape "
                f"{tuple(shape)}: {str(error).splitlines()[0]}"
            ) from error
        made.append(found)
        learns = learns or any(p.requires_grad for p in layer.parameters())
    return made


def _costs(
    number: int, layer: nn.Module, x: Any, everything: list[Any], is_last: bool
) -> tuple[Layer, Any]:
    """The layer's costs at the inputs x, and its outputs."""
    own = {_memory(p) for p in layer.parameters()}
    keeps: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        everything.append(tensor)
        if _memory(tensor) not in own and tensor.is_floating_point() | (tensor.numel() > len(x)):
            keeps[_memory(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        saved_tensors_hooks(keep, lambda tensor: tensor),
        FlopCounterMode(display=False) as counted,
    ):
        out = layer(x)
        if is_last and out.ndim == 2:
            labels = torch.zeros(len(x), dtype=torch.long, device="meta")
            everything.append(nn.functional.cross_entropy(out, labels))
    everything.append(out)
    passes = 3 if x.requires_grad else 2
    return Layer(
        f"layer {number}, {_name(layer)}", sum(map(_size, layer.parameters())),
        passes * counted.get_total_flops(), _size(x), _size(out), keeps, _memory(x), _memory(out),
    ), out  # fmt: skip


def _same(tensor: Any) -> Any:
    return tensor


def _size(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


def _memory(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)


def _name(layer: Any) -> str:
    kind = type(layer).__name__
    if isinstance(layer, nn.Linear):
        return f"{kind}({layer.in_features}, {layer.out_features})"
    if isinstance(layer, nn.Conv2d):
        return f"{kind}({layer.in_channels}, {layer.out_channels})"
    return kind


def measured_seconds(
    network: nn.Sequential, shape: Sequence[int], samples: int
) -> tuple[float, ...]:
    """Seconds that one thread takes here for each layer, forward and backward.

    Of random numbers: the median of three passes after one to warm up, fewer if they are long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with seeded(0):
            own = copy.deepcopy(network).train()
            dtype = next((p.dtype for p in own.parameters()), torch.float32)
            x = torch.rand(samples, *shape, dtype=dtype)
            passes = [_timed(own, x), _timed(own, x)]
            while len(passes) <= _REPEATS and sum(map(sum, passes)) < _ENOUGH:
                passes.append(_timed(own, x))
    finally:
        torch.set_num_threads(threads)
    return tuple(median(took) for took in zip(*passes[1:], strict=True))


def _timed(network: nn.Sequential, x: Any) -> list[float]:
    """Seconds of every layer in one pass."""
    took, learns = [], False
    for layer in network:
        x = x.detach().requires_grad_(learns)
        start = perf_counter()
        x = layer(x)
        if x.requires_grad:
            x.backward(torch.ones_like(x))
        took.append(perf_counter() - start)
        learns = learns or x.requires_grad
    return took


def measured_bandwidth() -> float:
    """Bytes a second from one worker of this machine to another, by gloo on the loopback device."""
    store = dist.HashStore()

    def end(rank: int) -> float:
        options = dist.ProcessGroupGloo._Options()
        options._timeout = timedelta(seconds=60)
        options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        exchange = Exchange(dist.ProcessGroupGloo(store, rank, 2, options))
        return median([_swap(exchange) for _ in range(_REPEATS + 1)][1:])

    with ThreadPoolExecutor(2) as pool:
        return _MESSAGE / max(pool.map(end, range(2)))


def _swap(exchange: Exchange) -> float:
    """Seconds of sending a message and reading one, at the same time."""
    data, into = torch.zeros(2, _MESSAGE // 4), torch.zeros(2, _MESSAGE // 4)
    start = perf_counter()
    exchange.swap(list(data), list(into))
    return perf_counter() - start
