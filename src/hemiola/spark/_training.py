"""Training on a DataFrame: what a barrier stage's tasks do, and the driver that starts them.

Worker k is task k, and its shard the rows of its partition. The tasks meet at a store in
task 0, tell each other what they have, and are ranks from then on
(:mod:`hemiola.engines._replicated`). Each has the same sample of the rows, at most 10,000 of all
partitions, for the learning rate and the figures of the history. Task 0 sends the outcome to the
driver, or what went wrong in whichever task: nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import BarrierTaskContext
from pyspark.sql import DataFrame
from scipy import sparse

from hemiola.algorithm import Algorithm
from hemiola.algorithms.registry import build
from hemiola.communicate import Synchronous
from hemiola.contracts import Objective
from hemiola.dataset import Dataset
from hemiola.describe import describe
from hemiola.engines import _replicated as ranks
from hemiola.engines._drive import drive
from hemiola.engines._flat import raised, report
from hemiola.engines._ranks import Place, Seat, open_store
from hemiola.engines._ring import Ring, ring_of
from hemiola.errors import DataError, UnsupportedError
from hemiola.history import History
from hemiola.job import Event, Job
from hemiola.learning_rate import with_learning_rate
from hemiola.partition import Shards, ShuffleSplit
from hemiola.partition.sources import Part
from hemiola.penalty import with_penalty
from hemiola.result import Model, Result
from hemiola.rng import stream
from hemiola.run import Plan, Run
from hemiola.spark._columns import Rows, rows_of
from hemiola.spark._stages import dealt, in_barrier
from hemiola.storage import nest_from_bytes, nest_to_bytes
from hemiola.training import make_objective
from hemiola.types import Array, State

_SAMPLE = 10_000


class Wish(NamedTuple):
    """What is to be trained. ``names`` are those of the columns of features, labels and weights."""

    algorithm: str
    objective: str
    rounds: int
    l1: float
    l2: float | None
    seed: int
    options: dict[str, Any]
    names: tuple[str, ...]
    is_regression: bool


def algorithm_of(wish: Wish) -> Algorithm:
    """Raises :class:`UnsupportedError` for those that are not synchronous."""
    algorithm = build(wish.algorithm, wish.options)
    if not isinstance(algorithm, Algorithm) or not isinstance(algorithm.communicate, Synchronous):
        raise UnsupportedError(
            f"{wish.algorithm} is not synchronous, which training on a DataFrame asks for; choose "
            "a synchronous algorithm, or use hemiola.fit with data in memory."
        )
    return algorithm


def train(frame: DataFrame, wish: Wish, workers: int | None, timeout: float) -> Result:
    """Train on a DataFrame's columns of features, labels and, perhaps, weights."""
    algorithm_of(wish)
    frame = dealt(frame, workers)

    def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return _task(batches, wish, timeout)

    return _result(in_barrier(frame, task), wish)


def _result(content: bytes, wish: Wish) -> Result:
    """What task 0 has sent: a result, or an error, which is raised."""
    nest = nest_from_bytes(content)
    if "error" in nest:
        raise raised(nest["error"].tobytes(), "a task of Spark")
    objective = objective_of(wish, nest["l2"], nest["classes"])
    model = Model(nest["weights"], objective, nest["features"], nest["classes"])
    return Result(model, History.from_dict(nest["history"]), nest["settings"], nest["stopped"])


def objective_of(wish: Wish, l2: float, classes: Array | None) -> Objective:
    """The loss for these classes (C,), or for real targets."""
    few = Dataset(np.zeros((1, 1)), np.zeros(1), classes)
    return make_objective(wish.objective, few, l2, wish.l1)


# In a task


def _task(
    batches: Iterator[pa.RecordBatch], wish: Wish, timeout: float
) -> Iterator[pa.RecordBatch]:
    import torch

    torch.set_num_threads(1)
    seat, store = _meet()
    own, error = _read(batches, wish)
    ring = ring_of(seat.place, seat.rank, seat.size, 0, "gloo", timeout)
    said = [part.tobytes() for part in ring.swap(b"" if error is None else report(error))]
    failed = next((words for words in said if words), None)
    if failed is not None:
        content: dict[str, Any] = {"error": np.frombuffer(failed, np.uint8)}
    else:
        assert own is not None
        content = _Rank(ring, own, wish).train()
    if seat.rank == 0:
        yield pa.RecordBatch.from_pydict({"content": [nest_to_bytes(content)]})
    del store


def _meet() -> tuple[Seat, Any]:
    """Where this task meets the others: at a store in task 0, which must keep it."""
    context = BarrierTaskContext.get()
    rank, own, store = context.partitionId(), "", None
    if rank == 0:
        hosts = [info.address.rpartition(":")[0] for info in context.getTaskInfos()]
        place, store = open_store(hosts[0] if len(set(hosts)) > 1 else "127.0.0.1")
        own = f"{place.host} {place.port}"
    said = context.allGather(own)  # once: it takes a second
    host, port = said[0].split()
    return Seat(Place(host, int(port)), rank, len(said), 0), store


def _read(
    batches: Iterator[pa.RecordBatch], wish: Wish
) -> tuple[Rows | None, BaseException | None]:
    """This partition's rows that count, or what is wrong with them."""
    try:
        rows = rows_of(batches, wish.names)
        if rows is not None and rows.weight is not None:
            rows = _weighted(rows, wish.names[2])
        if rows is None:
            raise DataError(
                "a partition has no rows that count, and each worker needs one: take fewer "
                "workers (numWorkers), or more data."
            )
    except Exception as error:  # told to all tasks
        for _ in batches:  # Spark waits for who leaves anything unread
            pass
        return None, error
    return rows, None


def _weighted(rows: Rows, name: str) -> Rows | None:
    """Without rows of weight zero; None if that leaves none."""
    weight = rows.weight
    assert weight is not None
    if (weight < 0).any():
        raise DataError(f"column {name!r} has weights below zero; weights must not be negative.")
    used = np.flatnonzero(weight > 0)
    return Rows(rows.X[used], rows.y[used], weight[used]) if len(used) else None


@dataclass
class _Engine:
    """The ranks, to whom the run belongs."""

    ring: Ring
    name: str = "spark"
    supports: frozenset[type] = frozenset({Synchronous})

    def run(self, job: Job, resume: State | None = None) -> Iterator[Event]:
        with closing(ranks.Replicated(job, self.ring, fixed=False)) as executor:
            yield from drive(job, executor, resume)


class _Rank:
    """A task that has rows, and knows what the others have."""

    def __init__(self, ring: Ring, own: Rows, wish: Wish) -> None:
        self._ring = ring
        self._wish = wish
        total = float(len(own.y) if own.weight is None else own.weight.sum())
        found = self._swap({
            "rows": len(own.y), "features": own.X.shape[1], "total": total,
            "sparse": int(sparse.issparse(own.X)),
            "labels": np.zeros(0) if wish.is_regression else np.unique(own.y),
        })  # fmt: skip
        self._sizes = [int(one["rows"]) for one in found]
        self._total = sum(one["total"] for one in found)
        self._widths = {int(one["features"]) for one in found}
        labels = np.unique(np.concatenate([one["labels"] for one in found]))
        self._classes = None if wish.is_regression else labels
        X = own.X
        if any(one["sparse"] for one in found) and not sparse.issparse(X):
            X = sparse.csr_array(X)
        self._own = Rows(X, own.y, own.weight)

    def _swap(self, nest: dict[str, Any]) -> list[dict[str, Any]]:
        return [nest_from_bytes(part.tobytes()) for part in self._ring.swap(nest_to_bytes(nest))]

    def train(self) -> dict[str, Any]:
        """What is to be sent to the driver, which only rank 0 has in full."""
        try:
            job, sample, settings = self._job()
        except (DataError, ValueError) as error:  # all ranks come to the same end
            return {"error": np.frombuffer(report(error), np.uint8)}
        if self._ring.rank > 0:
            ranks.follow(job, None, ranks.Replicated(job, self._ring, fixed=False))
            return {}
        every = max(1, self._wish.rounds // 100)
        run = Run(job, _Engine(self._ring), sample, None, settings, [])
        try:
            result = run.train(Plan(self._wish.rounds, 1, every))
        except Exception as error:  # raised again by the driver
            return {"error": np.frombuffer(report(error), np.uint8)}
        return {
            "weights": result.weights, "classes": self._classes, "features": sample.n_features,
            "history": result.history.to_dict(), "settings": settings, "stopped": result.stopped,
            "l2": self._l2,
        }  # fmt: skip

    @property
    def _l2(self) -> float | None:
        wished = self._wish.l2
        if wished is None and not self._wish.l1:
            return 1 / self._total
        return wished

    def _job(self) -> tuple[Job, Dataset, dict[str, Any]]:
        self._check()
        wish, workers = self._wish, self._ring.size
        objective = objective_of(wish, self._l2, self._classes)  # type: ignore[arg-type]
        data = self._dataset(self._own)
        sample = self._sample(data)
        objective.check(sample)
        mine = Part({self._ring.rank: np.arange(len(data))}, self._sizes)
        source = Shards(data, ShuffleSplit(), workers, wish.seed, mine)
        algorithm = with_learning_rate(
            with_penalty(algorithm_of(wish), objective, sample), objective, sample, source, workers
        )
        assert isinstance(algorithm, Algorithm)
        w0 = objective.init(sample, stream(wish.seed, "init"))
        job = Job(algorithm, objective, source, workers, wish.seed, w0)
        settings = {
            "algorithm": describe(algorithm), "objective": describe(objective),
            "engine": {"name": "spark"}, "workers": workers, "seed": wish.seed,
            "rounds": wish.rounds,
        }  # fmt: skip
        return job, sample, settings

    def _check(self) -> None:
        if len(self._widths) > 1:
            few, many = min(self._widths), max(self._widths)
            raise DataError(
                f"column {self._wish.names[0]!r} holds vectors with {few} and with {many} numbers; "
                "all must be of one length."
            )
        if self._classes is not None and len(self._classes) < 2:
            raise DataError(
                f"all rows that count are of one class, {self._classes[0]:g}; a classifier needs "
                "at least two classes."
            )

    def _dataset(self, rows: Rows) -> Dataset:
        """Rows with class numbers, and weights that have the mean 1 over all partitions."""
        weight = None if rows.weight is None else rows.weight * sum(self._sizes) / self._total
        y = rows.y if self._classes is None else np.searchsorted(self._classes, rows.y)
        return Dataset(rows.X, y, self._classes, weight, "the DataFrame")

    def _sample(self, data: Dataset) -> Dataset:
        """The same rows on all ranks: all, or from each partition its share."""
        share = min(1.0, _SAMPLE / sum(self._sizes))
        count = max(1, round(share * len(data)))
        rng = stream(self._wish.seed, "evaluation", self._ring.rank)
        some = data.take(np.sort(rng.choice(len(data), count, replace=False)))
        parts = self._swap(_plain(some))
        X = [_matrix(part) for part in parts]
        joined = sparse.csr_array(sparse.vstack(X, "csr")) if data.is_sparse else np.concatenate(X)
        y = np.concatenate([part["y"] for part in parts])
        weight = None
        if data.weight is not None:
            weight = np.concatenate([part["weight"] for part in parts])
        return Dataset(joined, y, data.classes, weight, data.name)


def _plain(data: Dataset) -> dict[str, Any]:
    nest = {"y": data.y, "weight": data.weight}
    if data.is_sparse:
        X = data.X
        shape = list(X.shape)
        return {**nest, "data": X.data, "indices": X.indices, "indptr": X.indptr, "shape": shape}
    return {**nest, "X": data.X}


def _matrix(nest: dict[str, Any]) -> Any:
    if "X" in nest:
        return nest["X"]
    return sparse.csr_array((nest["data"], nest["indices"], nest["indptr"]), shape=nest["shape"])
