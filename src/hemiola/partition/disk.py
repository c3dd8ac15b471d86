"""Data generation from shards on disk: mini-batches of what is mapped, while more is read ahead."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np

from hemiola.algorithm import MiniBatch
from hemiola.contracts import Sharded
from hemiola.dataset import Batch, Dataset
from hemiola.rng import stream
from hemiola.types import Array

_OPEN = 128  # parts at most: each is up to four maps
_MEMORY = 1 << 30  # bytes of parts that are copies


@dataclass(slots=True)
class _Cursor:
    """Where a worker is: a window of its parts and the order of its batches in it.

    ``batches`` (m, 3) are part, first place in the part's order of rows, and size; ``orders`` the
    orders of rows by part, made when first needed.
    """

    mini_batch: MiniBatch
    start: int
    batches: Array
    epoch: int
    orders: dict[int, Array]

    def holds(self, mini_batch: MiniBatch, t: int) -> bool:
        same = self.mini_batch is mini_batch or self.mini_batch == mini_batch
        return same and self.start <= t < self.start + len(self.batches)


class Streamed:
    """Offline generation from parts that are opened one after another.

    A worker owns whole parts, dealt at random so that all have about the same number of samples;
    parts are cut only if there are fewer than workers. In each epoch a worker goes through its
    parts in a new order, ``data.window`` parts at a time: rows are shuffled within a part, batches
    within a window. A batch comes from one part, so the last one of a part may be short, and a
    mini-batch that is a fraction, or everything, is so of a part.

    Which rows a batch holds is a function of (seed, worker, t). While a window is in use a thread
    opens the next one. What an algorithm's partition says is for data in memory.
    """

    def __init__(self, data: Sharded, workers: int, seed: int) -> None:
        self.data = data.cut(workers)
        self.workers = workers
        self.seed = seed
        window = self.data.window
        self._sizes = np.array(self.data.sizes)
        self._owned = _dealt(self._sizes, workers, stream(seed, "deal-shards"))
        self._cursors: list[_Cursor | None] = [None] * workers
        self._lock = Lock()
        self._open: OrderedDict[int, Future[Dataset]] = OrderedDict()
        self._reader: ThreadPoolExecutor | None = None
        wanted = 2 * window * workers
        room = _MEMORY // max(1, self.data.resident_bytes)
        self._most = max(1, min(wanted, room, _OPEN))
        self._reads_ahead = self._most == wanted

    def __getstate__(self) -> dict[str, object]:
        return {"data": self.data, "workers": self.workers, "seed": self.seed}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # maps, threads and locks are made anew

    def samples(self, worker: int) -> int:
        return int(self._sizes[self._owned[worker]].sum())

    def steps_per_epoch(self, worker: int, mini_batch: MiniBatch) -> int:
        return self._steps_in(self._owned[worker], mini_batch)

    def batch(self, worker: int, t: int, mini_batch: MiniBatch) -> Batch:
        cursor = self._cursors[worker]
        if cursor is None or not cursor.holds(mini_batch, t):
            cursor = self._cursors[worker] = self._seek(worker, mini_batch, t)
        part, first, size = cursor.batches[t - cursor.start].tolist()
        data, address = self._part(part), (self.seed, worker, t)
        if mini_batch.draw != "shuffled":
            return Batch(data, self._draw(worker, t, mini_batch, len(data)), address)
        if part not in cursor.orders:
            rng = stream(self.seed, "rows-of-shard", worker, cursor.epoch, part)
            whole = size == len(data)
            cursor.orders[part] = np.arange(size) if whole else rng.permutation(len(data))
        return Batch(data, cursor.orders[part][first : first + size], address)

    def _steps_in(self, parts: Array, mini_batch: MiniBatch) -> int:
        return sum(-(-n // mini_batch.count(n)) for n in self._sizes[parts].tolist())

    def _seek(self, worker: int, mini_batch: MiniBatch, t: int) -> _Cursor:
        """The window of step t; the thread is told to open the next one."""
        per_epoch = self.steps_per_epoch(worker, mini_batch)
        epoch = t // per_epoch
        windows = self._windows(worker, epoch)
        start, number = epoch * per_epoch, 0
        while t >= start + (steps := self._steps_in(windows[number], mini_batch)):
            start, number = start + steps, number + 1
        parts = windows[number]
        following = windows[number + 1 :] or self._windows(worker, epoch + 1)
        self._read_ahead(parts, following[0])
        batches = np.concatenate([self._batches(part, mini_batch) for part in parts])
        if len(parts) > 1:
            batches = stream(self.seed, "window", worker, epoch, number).permutation(batches)
        return _Cursor(mini_batch, start, batches, epoch, {})

    def _windows(self, worker: int, epoch: int) -> list[Array]:
        order = stream(self.seed, "order-of-shards", worker, epoch).permutation(self._owned[worker])
        width = self.data.window
        return [order[i : i + width] for i in range(0, len(order), width)]

    def _batches(self, part: int, mini_batch: MiniBatch) -> Array:
        n = int(self._sizes[part])
        first = np.arange(0, n, mini_batch.count(n))
        size = np.diff(first, append=n)
        return np.column_stack([np.full(len(first), part), first, size])

    def _draw(self, worker: int, t: int, mini_batch: MiniBatch, n: int) -> Array:
        """Rows drawn without regard to what was drawn before."""
        rng = stream(self.seed, "draw", worker, t)
        if mini_batch.draw == "replacement":
            return rng.integers(0, n, size=mini_batch.count(n))
        return np.flatnonzero(rng.random(n) < mini_batch.fraction(n))

    def _part(self, number: int) -> Dataset:
        with self._lock:
            future = self._started(number)
        return future.result()

    def _read_ahead(self, now: Array, later: Array) -> None:
        with self._lock:
            for part in (*now, *(later if self._reads_ahead else ())):
                self._started(int(part))

    def _started(self, number: int) -> Future[Dataset]:
        """A part that is open or being opened; the one that was not used for longest is let go."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, "hemiola-read-ahead")
        while len(self._open) >= self._most:
            self._open.popitem(last=False)
        self._open[number] = self._reader.submit(self.data.part, number)
        return self._open[number]


def _dealt(sizes: Array, workers: int, rng: np.random.Generator) -> list[Array]:
    """The parts of each worker: at random, the largest first, each to who has least."""
    order = rng.permutation(len(sizes))
    owned: list[list[int]] = [[] for _ in range(workers)]
    load = [0] * workers
    for part in order[np.argsort(-sizes[order], kind="stable")].tolist():
        least = load.index(min(load))
        owned[least].append(part)
        load[least] += int(sizes[part])
    return [np.sort(np.array(parts, dtype=np.intp)) for parts in owned]
