"""Engine ``serial``: a plain loop. The reference that every other engine is measured against.

Synchronous: the members of a round work one after another, in rank order. Asynchronous: workers
take turns, 0, 1, ..., K-1, 0, ...; all read the model at the start, so delays are 0, 1, ..., K-1
and then K-1 for ever. Nobody is late: a round's timeout does not count while workers take turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import ClassVar

from hemiola.algorithm import Task
from hemiola.communicate import Asynchronous, Grouped, Synchronous
from hemiola.component import component
from hemiola.engines._clock import WallClock
from hemiola.engines._drive import drive
from hemiola.engines._executor import Arrival, Change, Workers
from hemiola.engines._faults import refuse_faults
from hemiola.job import Event, Job
from hemiola.types import Message, State


@component
class Serial:
    """One process, one thread, one worker after another."""

    name: ClassVar[str] = "serial"
    supports: ClassVar[frozenset[type]] = frozenset({Synchronous, Asynchronous, Grouped})

    def run(self, job: Job, resume: State | None = None) -> Iterator[Event]:
        refuse_faults(job, self.name)
        return drive(job, _Executor(job), resume)


class _Executor:
    def __init__(self, job: Job) -> None:
        self._workers = Workers(job)
        self._done: deque[Arrival | Change] = deque()
        self._clock = WallClock()
        self._now = 0.0
        self.pause = self._clock.pause
        self.resume = self._clock.resume

    def start(self, down: Message, task: Task) -> None:
        up, steps, computed = self._workers.work(down, task)
        self._now = self._clock.now()
        self._done.append(Arrival(task.worker, up, steps, self._now, computed, task.step))

    def now(self) -> float:
        """When the last piece of work ended: taking turns is not waiting."""
        return self._now

    def next(self, until: float | None = None) -> Arrival | Change | None:
        done = self._done.popleft() if self._done else None
        return done._replace(finished=self._now) if isinstance(done, Arrival) else done

    def set_state(self, worker: int, state: State) -> None:
        self._workers.states[worker] = state

    def states(self) -> list[State]:
        return self._workers.states

    def pending(self) -> Sequence[Arrival | Change]:
        return list(self._done)

    def restore(self, pending: Sequence[Arrival | Change], clock: float) -> None:
        self._done.extend(pending)
        self._clock.set(clock)
        self._now = clock
