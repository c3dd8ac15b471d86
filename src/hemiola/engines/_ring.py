"""Ranks that say something to each other all at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from hemiola.engines._ranks import Place
from hemiola.types import Array


class Ring:
    """A group in which everybody says something to everybody at once."""

    def __init__(self, group: Any, rank: int, size: int, device: str = "cpu") -> None:
        self._group = group
        self._device = torch.device(device)
        self.rank = rank
        self.size = size

    def gather(self, own: Array) -> list[Array]:
        """Everybody's array, all of one shape and type, in rank order."""
        mine = torch.from_numpy(own).to(self._device)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        self._group.allgather([found], [mine]).wait()
        return [tensor.cpu().numpy() for tensor in found]

    def swap(self, own: bytes | Array) -> list[Array]:
        """Everybody's bytes (uint8), of any number, in rank order."""
        mine = np.frombuffer(own, np.uint8) if isinstance(own, bytes) else own
        sizes = [int(size[0]) for size in self.gather(np.array([len(mine)]))]
        if not max(sizes):
            return [mine] * self.size
        padded = np.zeros(max(sizes), np.uint8)
        padded[: len(mine)] = mine
        return [found[:size] for found, size in zip(self.gather(padded), sizes, strict=True)]

    def sum(self, own: Array) -> Array:
        """The sum of everybody's arrays; on the CPU it overwrites one's own."""
        total = torch.from_numpy(own).to(self._device)
        self._group.allreduce([total]).wait()
        found: Array = total.cpu().numpy()
        return found


def ring_of(place: Place, rank: int, size: int, local: int, backend: str, timeout: float) -> Ring:
    """All ranks; on GPUs, a host's ``local``-th rank has its ``local``-th one."""
    if backend == "nccl":
        group = place.gpu_group("ring", rank, size, timeout)
        return Ring(group, rank, size, f"cuda:{local % torch.cuda.device_count()}")
    return Ring(place.group("ring", rank, size, timeout), rank, size)


class Heads(NamedTuple):
    """What all ranks say of themselves and their workers' messages, float64.

    ``ranks``    (ranks, 4): what it is about, whether work failed, how many messages it has, and a
                 check sum of their layout;
    ``workers``  (workers, 4): weight, local steps, seconds of computing, and whether the message
                 is finite.
    """

    ranks: Array
    workers: Array

    @classmethod
    def blank(cls, ranks: int, workers: int) -> Heads:
        return cls(np.zeros((ranks, 4)), np.zeros((workers, 4)))

    def digits(self) -> Array:
        """As numbers that single precision holds: to add those of ranks, of which each has filled
        in its own rows, is to join them."""
        return np.concatenate(self).ravel().view(np.uint16).astype(np.float32)

    def joined(self, digits: Array) -> Heads:
        """Heads of this size from the sum of all ranks' digits."""
        found = digits.astype(np.uint16).view(np.float64).reshape(-1, 4)
        return Heads(found[: len(self.ranks)], found[len(self.ranks) :])
