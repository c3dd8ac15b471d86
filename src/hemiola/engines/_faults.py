"""What the faults of a job mean for a piece of work, alike on every engine that injects them."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from hemiola.errors import UnsupportedError
from hemiola.faults import Die, Hang, Poison, Slow, Stall
from hemiola.job import Job
from hemiola.rng import stream
from hemiola.types import Array, Message, freeze

Done = tuple[Message, int, float]
"""A message, the local steps that it took, and the seconds of computing."""


class Lot(NamedTuple):
    """What befalls one piece of work."""

    dies: bool = False
    back_after: float | None = None
    hangs: bool = False
    factor: float = 1.0
    stall: float = 0.0
    poisoned: bool = False

    def compute(self, seconds: float) -> float:
        """How long computing takes that would have taken so many seconds."""
        return self.factor * seconds

    def delay(self, seconds: float) -> float:
        """How much longer the piece takes, if its computing takes so many seconds."""
        return (self.factor - 1) * seconds + self.stall

    def spoil(self, up: Message) -> Message:
        """The message that is sent in place of this one."""
        if not self.poisoned:
            return up
        return freeze(**{name: _spoilt(name, array) for name, array in up.items()})

    def suffer(self, work: Callable[[], Done], sleep: Callable[[float], object]) -> Done:
        """Do a piece of work that neither dies nor hangs, in real time."""
        up, steps, computed = work()
        if (delay := self.delay(computed)) > 0:
            sleep(delay)
        return self.spoil(up), steps, self.compute(computed)


SPARED = Lot()
"""Nothing happens."""


def _spoilt(name: str, array: Array) -> Array:
    """NaN in place of every number; a message's weight stays, so that only a look at the numbers
    tells."""
    if name == "weight" or array.dtype.kind != "f":
        return array
    return np.full_like(array, np.nan)


class Fate:
    """What befalls whose pieces of work: a function of the job, so every process finds the same."""

    def __init__(self, job: Job) -> None:
        self._seed = job.seed
        self._faults = {
            worker: [fault for fault in job.faults if fault.worker == worker]
            for worker in {fault.worker for fault in job.faults}
        }

    def of(self, worker: int, step: int) -> Lot:
        """What befalls the worker's piece of work of this number."""
        lot = SPARED
        for fault in self._faults.get(worker, ()):
            match fault:
                case Slow() if step >= fault.at:
                    lot = lot._replace(factor=lot.factor * fault.factor)
                case Stall() if stream(self._seed, "stall", worker, step).random() < (
                    fault.probability
                ):
                    lot = lot._replace(stall=lot.stall + fault.seconds)
                case Die() if step == fault.at:
                    lot = lot._replace(dies=True, back_after=fault.back_after)
                case Hang() if step == fault.at:
                    lot = lot._replace(hangs=True)
                case Poison() if fault.at <= step and (fault.until is None or step < fault.until):
                    lot = lot._replace(poisoned=True)
        return lot


class Returns:
    """Who comes back when.

    >>> returns = Returns()
    >>> returns.add(3, 2.5)
    >>> returns.next, returns.due(2.0), returns.due(2.5), returns.next
    (2.5, None, 3, None)
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []

    def add(self, worker: int, when: float) -> None:
        heappush(self._heap, (when, worker))

    @property
    def next(self) -> float | None:
        """When somebody comes back; None: nobody does."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> int | None:
        """Who is back by now; each is told once."""
        if self._heap and self._heap[0][0] <= now:
            return heappop(self._heap)[1]
        return None

    def all(self) -> list[tuple[float, int]]:
        """Everybody who comes back, in order."""
        return sorted(self._heap)


def earliest(*times: float | None) -> float | None:
    """The first of some times, of which None never comes.

    >>> earliest(2.0, None, 1.0), earliest(None)
    (1.0, None)
    """
    return min((time for time in times if time is not None), default=None)


def refuse_faults(job: Job, name: str) -> None:
    """Raise :class:`UnsupportedError` on an engine that cannot inject the job's faults."""
    if job.faults:
        raise UnsupportedError(
            f"engine {name} injects no faults; use simulator, threads or processes."
        )
