"""An algorithm is four modules side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Interval

from hemiola.communicate import Discipline, SharedMemory
from hemiola.component import component
from hemiola.contracts import Aggregate, Local, Objective, Partition, Reduce, Solver, Source
from hemiola.dataset import Batch
from hemiola.types import Array, frozen


@dataclass(frozen=True)
class Algorithm:
    """A distributed learning algorithm.

    ``partition``    deals the samples to the workers;
    ``local``        is what a worker does alone;
    ``communicate``  says when messages move (:mod:`hemiola.communicate`);
    ``reduce``       joins the messages of one round, where there are rounds;
    ``aggregate``    is what the server does with the outcome.
    """

    name: str
    partition: Partition
    local: Local
    communicate: Discipline
    reduce: Reduce
    aggregate: Aggregate


@dataclass(frozen=True)
class SharedMemoryAlgorithm:
    """An algorithm of threads that change one model in place.

    It has no workers with messages, no partition of its own and no server; to call its parts so
    would be a lie. ``solver`` is all of it (:class:`~hemiola.contracts.Solver`).
    """

    name: str
    solver: Solver
    communicate: SharedMemory = SharedMemory()  # noqa: RUF009

    @property
    def aggregate(self) -> Published:
        """What reads the model out of an event."""
        return Published()


AnyAlgorithm = Algorithm | SharedMemoryAlgorithm


class Published:
    """The model as a solver hands it out between two passes."""

    def model(self, state: dict[str, Array]) -> Array:
        return frozen(state["w"])


@component
class MiniBatch:
    """How a worker draws samples from its shard.

    ``size``  a count, or a fraction of the shard in (0, 1), or None for the whole shard.
    ``draw``  ``shuffled``: without replacement, in an order that is new every epoch; the last
              batch of an epoch may be short;
              ``replacement``: independently and uniformly, so a batch may hold a sample twice;
              ``bernoulli``: each sample with probability size / n_k, so the batch size varies and
              may be 0.
    """

    size: Annotated[int, Ge(1)] | Annotated[float, Interval(gt=0, lt=1)] | None = 0.1
    draw: Literal["shuffled", "replacement", "bernoulli"] = "shuffled"

    def count(self, n: int) -> int:
        """Samples drawn from a shard of n.

        >>> MiniBatch(0.1).count(99), MiniBatch(32).count(20), MiniBatch(None).count(20)
        (10, 20, 20)
        """
        if self.size is None:
            return n
        if self.size >= 1:
            return min(n, int(self.size))
        return max(1, math.ceil(self.size * n - 1e-9))  # up, so that no tiny batch is left over

    def fraction(self, n: int) -> float:
        """The share of a shard of n that a batch holds on average."""
        if self.size is None:
            return 1.0
        return self.size if self.size < 1 else min(1.0, self.size / n)


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is told: who it is, how many tasks it did before, and what to learn from."""

    worker: int
    step: int
    n_workers: int
    seed: int
    objective: Objective
    source: Source

    def batch(self, t: int, mini_batch: MiniBatch) -> Batch:
        """This worker's t-th mini-batch."""
        return self.source.batch(self.worker, t, mini_batch)


@dataclass(frozen=True, slots=True)
class Info:
    """What a server is told about one ``up``.

    ``step``       updates applied before this one;
    ``workers``    whose work the message holds (one worker, or the members of a round);
    ``weight``     how much it stands for, in samples;
    ``staleness``  updates applied since the sender read its model (0 in synchronous rounds);
    ``tick``       pieces of work that the sender had done before this one (rounds, in rounds);
    ``lowest``     the least number of pieces that any worker present has done by now;
    ``group``      the number under which a group of workers reads and sends.
    """

    step: int
    workers: Sequence[int]
    weight: float
    staleness: int
    n_workers: int
    tick: int = 0
    lowest: int = 0
    group: int | None = None

    @property
    def sender(self) -> int:
        """As whom the server knows the sender: one worker, or a group by its number."""
        return self.workers[0] if self.group is None else self.group


def weight_of(n: float) -> Array:
    """A message's ``weight`` entry."""
    return np.array(float(n))
