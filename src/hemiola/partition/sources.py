"""Data generation: mini-batches from a finite set (offline) or from a stream (online).

A worker's t-th batch is a pure function of (seed, worker, t): any engine, in any order of
execution, before or after a restart, draws the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np

from hemiola.algorithm import MiniBatch
from hemiola.contracts import Partition, Stream
from hemiola.dataset import Batch, Dataset
from hemiola.errors import DataError
from hemiola.rng import stream
from hemiola.types import Array

_DEALS_KEPT = 4


@dataclass(slots=True)
class _Cursor:
    """Where a worker is: an epoch, its first step, its batches and its order of samples."""

    mini_batch: MiniBatch
    epoch: int
    start: int
    size: int
    steps: int
    order: Array

    def holds(self, mini_batch: MiniBatch, t: int) -> bool:
        same = self.mini_batch is mini_batch or self.mini_batch == mini_batch
        return same and self.start <= t < self.start + self.steps


class Part(NamedTuple):
    """What some workers have of a data set that was dealt: their ``shards`` (n_k,) by worker, as
    numbers of the rows at hand, and the ``sizes`` of all."""

    shards: dict[int, Array]
    sizes: list[int]


class Shards:
    """Offline generation: each worker draws from its shard of a finite set.

    The worker's epoch e uses deal e // R of a partition that reshuffles globally every R epochs.
    Shards are index arrays into the one shared data set, or into the rows of a ``part``. Raises
    :class:`~hemiola.errors.DataError` when there are more workers than samples.
    """

    def __init__(
        self,
        data: Dataset,
        partition: Partition,
        workers: int,
        seed: int,
        part: Part | None = None,
    ) -> None:
        if part is None and workers > len(data):
            raise DataError(
                f"{workers} workers for {len(data)} samples: each worker needs at "
                f"least one, so use at most {len(data)} workers."
            )
        self.data = data
        self.partition = partition
        self.workers = workers
        self.seed = seed
        self._part = part
        self._lock = Lock()
        self._deals: dict[int, list[Array]] = {}
        self._cursors: list[_Cursor | None] = [None] * workers
        self._sizes = [len(s) for s in self._deal(0)] if part is None else part.sizes

    def __getstate__(self) -> dict[str, object]:
        return {
            "data": self.data,
            "partition": self.partition,
            "workers": self.workers,
            "seed": self.seed,
            "part": self._part,
        }

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # caches and the lock are made anew

    def only(self, workers: Sequence[int]) -> Shards:
        """The same source for these workers alone: it holds no rows but theirs, numbered anew.

        All rows stay where the partition deals anew.
        """
        if self.partition.reshuffle_every is not None:
            return self
        dealt = self._deal(0)
        rows = np.unique(np.concatenate([dealt[worker] for worker in workers]))
        own = {worker: np.searchsorted(rows, dealt[worker]) for worker in workers}
        part = Part(own, self._sizes)
        return Shards(self.data.take(rows), self.partition, self.workers, self.seed, part)

    def samples(self, worker: int) -> int:
        return self._sizes[worker]

    def steps_per_epoch(self, worker: int, mini_batch: MiniBatch) -> int:
        n = self._sizes[worker]
        return -(-n // mini_batch.count(n))

    def shard(self, worker: int, epoch: int = 0) -> Array:
        """The worker's sample numbers (n_k,) in ``epoch``, in the order they were dealt."""
        if self._part is not None:
            return self._part.shards[worker]
        every = self.partition.reshuffle_every
        return self._deal(epoch // every if every else 0)[worker]

    def batch(self, worker: int, t: int, mini_batch: MiniBatch) -> Batch:
        cursor = self._cursor(worker, mini_batch, t)
        address = (self.seed, worker, t)
        if mini_batch.draw != "shuffled":
            return Batch(self.data, self._draw(worker, t, cursor), address)
        first = (t - cursor.start) * cursor.size
        return Batch(self.data, cursor.order[first : first + cursor.size], address)

    def batches(self, worker: int, steps: range, mini_batch: MiniBatch) -> tuple[Array, Array]:
        """The rows of all batches t in ``steps``, one after another, and where each ends."""
        parts: list[Array] = []
        ends: list[int] = []
        t, end = steps.start, 0
        while t < steps.stop:
            cursor = self._cursor(worker, mini_batch, t)
            if mini_batch.draw != "shuffled":
                parts.append(self._draw(worker, t, cursor))
                count = 1
            else:  # as much of the epoch as is wanted
                first, size = t - cursor.start, cursor.size
                count = min(steps.stop - t, cursor.steps - first)
                parts.append(cursor.order[first * size : (first + count) * size])
                ends += range(end + size, end + count * size, size)
            end += len(parts[-1])
            ends.append(end)
            t += count
        return parts[0] if len(parts) == 1 else np.concatenate(parts), np.array(ends)

    def _cursor(self, worker: int, mini_batch: MiniBatch, t: int) -> _Cursor:
        cursor = self._cursors[worker]
        if cursor is None or not cursor.holds(mini_batch, t):
            cursor = self._cursors[worker] = self._seek(worker, mini_batch, t, cursor)
        return cursor

    def _seek(self, worker: int, mini_batch: MiniBatch, t: int, near: _Cursor | None) -> _Cursor:
        """The epoch of step t. A new deal may change a shard's size: then count through all."""
        epoch, start = 0, 0
        if self.partition.reshuffle_every is None:
            epoch = t // self.steps_per_epoch(worker, mini_batch)
            start = epoch * self.steps_per_epoch(worker, mini_batch)
        elif near is not None and near.mini_batch == mini_batch and near.start <= t:
            epoch, start = near.epoch, near.start
        while True:
            shard = self.shard(worker, epoch)
            size = mini_batch.count(len(shard))
            steps = -(-len(shard) // size)
            if t < start + steps:
                break
            epoch, start = epoch + 1, start + steps
        if mini_batch.draw == "shuffled" and size < len(shard):
            shard = stream(self.seed, "order", worker, epoch).permutation(shard)
        return _Cursor(mini_batch, epoch, start, size, steps, shard)

    def _draw(self, worker: int, t: int, cursor: _Cursor) -> Array:
        """Sample numbers drawn without regard to what was drawn before."""
        shard, mini_batch = cursor.order, cursor.mini_batch
        rng = stream(self.seed, "draw", worker, t)
        if mini_batch.draw == "replacement":
            return shard[rng.integers(0, len(shard), size=cursor.size)]
        return shard[rng.random(len(shard)) < mini_batch.fraction(len(shard))]

    def _deal(self, number: int) -> list[Array]:
        with self._lock:
            if number not in self._deals:
                rng = stream(self.seed, "deal", number)
                shards = self.partition.split(self.data.y, self.workers, rng)
                while len(self._deals) >= _DEALS_KEPT:
                    self._deals.pop(next(iter(self._deals)))
                self._deals[number] = [np.ascontiguousarray(s, dtype=np.intp) for s in shards]
            return self._deals[number]


class Online:
    """Online generation: each draw is a fresh sample of a stream, and none is used twice.

    There are no shards and no epochs, so a mini-batch needs a count, and one step is an epoch.
    """

    def __init__(self, source: Stream, seed: int) -> None:
        self.source = source
        self.seed = seed

    def samples(self, worker: int) -> int:
        return 1

    def steps_per_epoch(self, worker: int, mini_batch: MiniBatch) -> int:
        return 1

    def batch(self, worker: int, t: int, mini_batch: MiniBatch) -> Batch:
        if mini_batch.size is None or mini_batch.size < 1:
            raise DataError(
                "a stream has no end, so a batch cannot be a fraction of it: give a "
                "count, for example -o batch_size=32."
            )
        rng = stream(self.seed, "online", worker, t)
        data = self.source.draw(rng, int(mini_batch.size))
        return Batch(data, None, (self.seed, worker, t))
