"""Engine for replay: a recorded run once more, in the recorded order, bit for bit.

What a worker computes is a function of the model that it read and of its own history; what the
server does is a function of the order of reads and arrivals. A trace holds that order, so it does
not matter which engine recorded it. Times are the recorded ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hemiola.algorithm import Task
from hemiola.communicate import Asynchronous
from hemiola.engines._drive import Arrival, Change, Server, Workers, apply
from hemiola.engines._faults import refuse_faults
from hemiola.errors import CheckpointError
from hemiola.job import JOIN, PULL, PUSH, Event, Job, Trace
from hemiola.types import Message, State


@dataclass(frozen=True)
class Replay:
    """Repeat a trace."""

    trace: Trace
    name: ClassVar[str] = "replay"
    supports: ClassVar[frozenset[type]] = frozenset({Asynchronous})

    def run(self, job: Job, resume: State | None = None) -> Iterator[Event]:
        """Yield the recorded updates; raises :class:`CheckpointError` for an impossible trace."""
        refuse_faults(job, self.name)
        executor = _Executor(job)
        server = Server(job, executor, resume)
        recorded = zip(self.trace.kinds, self.trace.workers, self.trace.seconds, strict=True)
        for kind, worker, seconds in recorded:
            executor.clock = seconds
            if not 0 <= worker < job.workers:
                raise CheckpointError(
                    f"the trace names worker {worker}, but there are {job.workers}."
                )
            if kind == PULL:
                server.send(worker)
            elif kind == PUSH:
                staleness = apply(server, executor.take(worker))
                if staleness is not None:
                    yield server.event((worker,), staleness, server.snapshot)
            else:
                executor.done.pop(worker, None)
                server.change(Change(worker, kind == JOIN))


class _Executor:
    """Work is done when it begins and kept until the trace says that it arrived."""

    def __init__(self, job: Job) -> None:
        self._workers = Workers(job)
        self.done: dict[int, Arrival] = {}
        self.clock = 0.0

    def start(self, down: Message, task: Task) -> None:
        up, steps, _ = self._workers.work(down, task)
        self.done[task.worker] = Arrival(task.worker, up, steps, self.clock, 0.0, task.step)

    def take(self, worker: int) -> Arrival:
        if worker not in self.done:
            raise CheckpointError(f"the trace has worker {worker} answer before it was asked.")
        return self.done.pop(worker)

    def next(self, until: float | None = None) -> Arrival:
        raise AssertionError("the trace says what is next")

    def set_state(self, worker: int, state: State) -> None:
        self._workers.states[worker] = state

    def states(self) -> list[State]:
        return self._workers.states

    def pending(self) -> list[Arrival]:
        return list(self.done.values())

    def restore(self, pending: Sequence[Arrival | Change], clock: float) -> None:
        self.done = {item.worker: item for item in pending if isinstance(item, Arrival)}
        self.clock = clock

    def now(self) -> float:
        return self.clock

    def pause(self) -> None:
        """Recorded time does not pass."""

    def resume(self) -> None:
        """See :meth:`pause`."""
