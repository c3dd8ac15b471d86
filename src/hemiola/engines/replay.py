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
from hemiola.communicate import Asynchronous, Grouped
from hemiola.engines._asynchronous import apply
from hemiola.engines._executor import Arrival, Change, Workers
from hemiola.engines._faults import refuse_faults
from hemiola.engines._groups import GroupLoop
from hemiola.engines._server import Server
from hemiola.errors import CheckpointError
from hemiola.grouping import Groups, in_order
from hemiola.job import GROUP, JOIN, PULL, PUSH, Event, Job, Trace
from hemiola.types import Message, State


@dataclass(frozen=True)
class Replay:
    """Repeat a trace."""

    trace: Trace
    name: ClassVar[str] = "replay"
    supports: ClassVar[frozenset[type]] = frozenset({Asynchronous, Grouped})

    def run(self, job: Job, resume: State | None = None) -> Iterator[Event]:
        """Yield the recorded updates; raises :class:`CheckpointError` for an impossible trace."""
        refuse_faults(job, self.name)
        executor = _Executor(job)
        tape = _Tape(self.trace, job.workers)
        if isinstance(job.algorithm.communicate, Grouped):
            return _grouped(job, executor, tape)
        return _asynchronous(job, executor, tape)


Entry = tuple[int, int, float, float]
"""Kind, worker, seconds since the start, seconds of computing."""


class _Tape:
    """The entries of a trace, one after another."""

    def __init__(self, trace: Trace, workers: int) -> None:
        columns = (trace.kinds, trace.workers, trace.seconds, trace.computed)
        self._entries = list(zip(*columns, strict=True))
        self._workers = workers
        self._at = 0

    def __iter__(self) -> Iterator[Entry]:
        while self._at < len(self._entries):
            yield self._take()

    def _take(self) -> Entry:
        entry = self._entries[self._at]
        worker = entry[1]
        if not 0 <= worker < self._workers:
            raise CheckpointError(
                f"the trace names worker {worker}, but there are {self._workers}."
            )
        self._at += 1
        return entry

    def groups(self) -> Groups | None:
        """The new groups, if the trace has them here."""
        members: dict[int, list[int]] = {}
        while self._at + 1 < len(self._entries) and self._entries[self._at][0] == GROUP:
            worker, lead = self._take()[1], self._take()[1]
            members.setdefault(lead, []).append(worker)
        return in_order(list(members.values())) or None


def _asynchronous(job: Job, executor: _Executor, tape: _Tape) -> Iterator[Event]:
    server = Server(job, executor, None)
    for kind, worker, seconds, computed in tape:
        executor.clock = seconds
        if kind == PULL:
            server.send(worker)
        elif kind == PUSH:
            staleness = apply(server, executor.take(worker, computed))
            if staleness is not None:
                yield server.event((worker,), staleness, server.snapshot)
        else:
            executor.done.pop(worker, None)
            server.change(Change(worker, kind == JOIN))


def _grouped(job: Job, executor: _Executor, tape: _Tape) -> Iterator[Event]:
    """When who reads follows from the groups and the order of arrivals."""
    first = tape.groups()
    loop = GroupLoop(job, executor, decide=tape.groups)
    if first is not None and first != loop.groups:
        raise CheckpointError("the trace begins with other groups than its settings.")
    loop.begin()
    for kind, worker, seconds, computed in tape:
        executor.clock = seconds
        event = None
        if kind == PUSH:
            event = loop.take(executor.take(worker, computed))
        elif kind != PULL:
            executor.done.pop(worker, None)
            event = loop.take(Change(worker, kind == JOIN))
        if event is not None:
            yield event


class _Executor:
    """Work is done when it begins and kept until the trace says that it arrived."""

    def __init__(self, job: Job) -> None:
        self._workers = Workers(job)
        self.done: dict[int, Arrival] = {}
        self.clock = 0.0

    def start(self, down: Message, task: Task) -> None:
        up, steps, _ = self._workers.work(down, task)
        self.done[task.worker] = Arrival(task.worker, up, steps, self.clock, 0.0, task.step)

    def take(self, worker: int, computed: float) -> Arrival:
        if worker not in self.done:
            raise CheckpointError(f"the trace has worker {worker} answer before it was asked.")
        return self.done.pop(worker)._replace(finished=self.clock, computed=computed)

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
