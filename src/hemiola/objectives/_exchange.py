"""One worker's end of what workers say to each other, and the gradients of it.

Messages go from point to point, so a worker's ``sent`` is what it put on the wire; sums are made in
the order of ranks, so all workers get the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hemiola.errors import OptionError


class Exchange:
    """A worker's end of a group of ``torch.distributed``, or the only worker there is.

    ``sent``  the bytes that this worker has sent to others.

    >>> Exchange().size
    1
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group
        self.rank: int = 0 if group is None else group.rank()
        self.size: int = 1 if group is None else group.size()
        self.sent = 0

    def gather(self, own: Any, sizes: Sequence[int], dim: int = 0) -> Any:
        """What all workers have, side by side along ``dim``; worker k has ``sizes[k]`` of it."""
        self._fits(own, sizes, dim)
        shapes = [_with(own.shape, dim, size) for size in sizes]
        found = self.swap([own] * self.size, [own.new_empty(shape) for shape in shapes])
        return torch.cat(found, dim)

    def deal(self, parts: Sequence[Any]) -> Any:
        """The sum over workers of what they have for this one; ``parts[k]`` is for worker k."""
        own = parts[self.rank]
        found = self.swap(parts, [torch.empty_like(own) for _ in parts])
        total = torch.zeros_like(own)
        for part in found:
            total += part
        return total

    def sum(self, own: Any) -> Any:
        """The sum over workers, at each of them: dealt in shares, and then gathered. Shape (n,)."""
        shares = own.tensor_split(self.size)
        return self.gather(self.deal(shares), [len(share) for share in shares])

    def swap(self, out: Sequence[Any], into: Sequence[Any]) -> list[Any]:
        """Send ``out[k]`` to every other worker k and read ``into[k]``; one's own passes by."""
        found = list(into)
        found[self.rank] = out[self.rank]
        others = [k for k in range(self.size) if k != self.rank]
        works = [self._send(out[k], k) for k in others if out[k].numel()]
        works += [self._group.recv([into[k]], k, 0) for k in others if into[k].numel()]
        for work in works:
            work.wait()
        return found

    def _send(self, tensor: Any, to: int) -> Any:
        self.sent += tensor.numel() * tensor.element_size()
        return self._group.send([tensor.detach().contiguous()], to, 0)

    def _fits(self, own: Any, sizes: Sequence[int], dim: int) -> None:
        if len(sizes) != self.size or own.shape[dim] != sizes[self.rank]:
            raise OptionError(
                f"worker {self.rank} of {self.size} has {own.shape[dim]} of what should be "
                f"{list(sizes)}; all workers must bring as many samples."
            )


def _with(shape: Any, dim: int, size: int) -> Any:
    return (*shape[:dim], size, *shape[dim + 1 :])


class _Gathered(torch.autograd.Function):
    """Every worker has its own use for what it gathers: the gradients of all are summed."""

    @staticmethod
    def forward(ctx: Any, own: Any, exchange: Exchange, sizes: Any, dim: int) -> Any:
        ctx.exchange, ctx.sizes, ctx.dim = exchange, list(sizes), dim
        return exchange.gather(own, sizes, dim)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        parts = [part.contiguous() for part in gradient.split(ctx.sizes, ctx.dim)]
        return ctx.exchange.deal(parts), None, None, None


class _Shared(torch.autograd.Function):
    """Every worker makes the same of what it gathers: each knows its own gradient already."""

    @staticmethod
    def forward(ctx: Any, own: Any, exchange: Exchange, sizes: Any, dim: int) -> Any:
        ctx.rank, ctx.sizes, ctx.dim = exchange.rank, list(sizes), dim
        return exchange.gather(own, sizes, dim)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return gradient.split(ctx.sizes, ctx.dim)[ctx.rank], None, None, None


def gathered(own: Any, exchange: Exchange, sizes: Sequence[int], dim: int) -> Any:
    """:meth:`Exchange.gather` before work that differs: the gradient is a sum over workers."""
    return _Gathered.apply(own, exchange, sizes, dim)


def shared(own: Any, exchange: Exchange, sizes: Sequence[int], dim: int) -> Any:
    """:meth:`Exchange.gather` before work that all do alike: no message on the way back."""
    return _Shared.apply(own, exchange, sizes, dim)
