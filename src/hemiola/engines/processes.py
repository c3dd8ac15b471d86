"""Engine ``processes``: many worker processes on one host, one server in the calling process.

For objectives that Python threads cannot speed up, and for workers that really die. The server owns
the model and applies the updates; messages lie in shared memory and only small packets move. The
data are placed in shared memory once and are read-only in the workers. Synchronous runs give the
same bits as ``serial``; asynchronous ones depend on the machine's timing.

*Death.* A worker that ends, for whatever reason, leaves the run, which goes on with the others if
it may; its unfinished message is never applied. A worker that hangs holds up a synchronous round
without a timeout of its own, and nothing else, until ``timeout``. A resumed run has all its
workers; those that had died begin afresh. When the server ends, for whatever reason, so do the
workers. Shared memory has no names, so nothing is left behind.

*Scripts.* Worker processes import the main script: training must begin under
``if __name__ == "__main__":``, and what the workers need must be importable. Linux only.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Annotated, ClassVar, NoReturn

from annotated_types import Gt

from hemiola.algorithm import Task
from hemiola.communicate import Asynchronous, Grouped, Synchronous
from hemiola.component import component
from hemiola.engines import _wire
from hemiola.engines._clock import WallClock
from hemiola.engines._crew import GUARD, Crew
from hemiola.engines._drive import drive
from hemiola.engines._executor import Arrival, Change
from hemiola.engines._faults import Fate, Returns, earliest
from hemiola.engines._shared import keep_freed_memory, pack, parcel, unpack
from hemiola.engines._wire import Packet
from hemiola.engines._worker import Failure
from hemiola.errors import UnsupportedError, WorkersLostError
from hemiola.job import Event, Job
from hemiola.types import Message, State

_ATTEMPTS = 3
"""A worker that dies this many times in a row before it is ready is given up."""


@component
class Processes:
    """A process for every worker. With ``rejoin`` a fresh one takes the place of one that died.

    A worker at work that for ``timeout`` seconds neither answers nor uses the processor has hung
    and is killed; None: never. A piece of work may take as long as it likes.
    """

    name: ClassVar[str] = "processes"
    supports: ClassVar[frozenset[type]] = frozenset({Synchronous, Asynchronous, Grouped})

    rejoin: bool = False
    timeout: Annotated[float, Gt(0)] | None = 60.0

    def run(self, job: Job, resume: State | None = None) -> Iterator[Event]:
        if sys.platform != "linux":
            raise UnsupportedError("engine processes needs Linux; use threads.")
        keep_freed_memory()
        executor = _Executor(job, self)
        try:
            executor.open()
            yield from drive(job, executor, resume and {**resume, "afresh": True})
        finally:
            executor.close()


class _Executor:
    def __init__(self, job: Job, options: Processes) -> None:
        self._job = parcel("processes", job)
        self._crew = Crew(options.timeout, type(job.objective).__module__)
        self._workers = job.workers
        self._rejoin = options.rejoin
        self._fate = Fate(job)
        self._returns = Returns()
        self._clock = WallClock()
        self.now = self._clock.now
        self.resume = self._clock.resume
        self._at_work: dict[int, int] = {}  # the number of the task
        self._hanging: set[int] = set()
        self._patient = options.timeout is None
        self._starting: dict[int, int] = {}  # attempts so far
        self._asked: set[int] = set()
        self._states: list[State] = []
        self._kept: deque[Arrival | Change] = deque()

    def open(self) -> None:
        """Start all processes; the clock starts when they are ready."""
        for rank in range(self._workers):
            self._crew.spawn(rank, self._job)
        waiting = set(range(self._workers))
        while waiting:
            rank, packet = self._heard()
            if packet is None:
                raise WorkersLostError(f"worker {rank} died before it began; {GUARD}")
            self._hear(rank, packet)
            waiting.discard(rank)
        self._clock.set(0.0)

    def start(self, down: Message, task: Task) -> None:
        rank = task.worker
        if rank not in self._crew:  # died idle
            self._kept.append(self._leave(rank))
            return
        holds, fd = self._crew.put(rank, down)
        self._at_work[rank] = task.step
        if self._fate.of(rank, task.step).hangs:
            self._hanging.add(rank)
        self._crew.send(rank, Packet(_wire.WORK, holds, task.step, fd=fd), owes=True)
        if fd is not None:
            os.close(fd)

    def next(self, until: float | None = None) -> Arrival | Change | None:
        while not self._kept:
            wake = earliest(until, self._returns.next)
            if wake is None and not self._starting and not self._working():
                return None
            self._step(wake)
            if not self._kept and until is not None and self.now() >= until:
                return None
        return self._kept.popleft()

    def _working(self) -> set[int]:
        """Who is at work and will be heard of."""
        return self._at_work.keys() - (self._hanging if self._patient else set())

    def set_state(self, worker: int, state: State) -> None:
        if worker in self._crew:
            fd = pack(state)
            self._crew.send(worker, Packet(_wire.SET, fd=fd))
            os.close(fd)

    def states(self) -> list[State]:
        self.pending()
        self._states = [None] * self._workers
        here = (rank for rank in range(self._workers) if self._is_ready(rank))
        self._asked = {rank for rank in here if rank not in self._at_work}
        for rank in self._asked:
            self._crew.send(rank, Packet(_wire.ASK), owes=True)
        while self._asked:
            self._step()
        return self._states

    def pending(self) -> Sequence[Arrival | Change]:
        while self._at_work.keys() - self._hanging:
            self._step()
        return [kept for kept in self._kept if isinstance(kept, Arrival)]

    def restore(self, pending: Sequence[Arrival | Change], clock: float) -> None:
        self._kept.extend(pending)
        self._clock.set(clock)

    def pause(self) -> None:
        """Asynchronous workers go on while the consumer is busy, and then time goes on too."""
        if not self._at_work.keys() - self._hanging:
            self._clock.pause()

    def close(self) -> None:
        for rank in self._hanging:
            self._crew.kill(rank)
        self._crew.close()
        os.close(self._job)

    def _is_ready(self, rank: int) -> bool:
        return rank in self._crew and rank not in self._starting

    def _heard(self) -> tuple[int, Packet | None]:
        heard = self._crew.take()
        assert heard is not None
        return heard

    def _step(self, until: float | None = None) -> None:
        """Wait for the next thing to happen, until then, and keep what comes of it."""
        heard = self._crew.take(None if until is None else until - self.now())
        while (back := self._returns.due(self.now())) is not None:
            self._respawn(back)
        if heard is None:
            return
        rank, packet = heard
        if packet is not None:
            self._hear(rank, packet)
        elif rank in self._at_work:
            self._kept.append(self._leave(rank))
        elif rank in self._starting:
            self._respawn(rank)
        else:
            self._asked.discard(rank)  # idle: told when it is needed

    def _hear(self, rank: int, packet: Packet) -> None:
        """Take in a packet from a worker."""
        if packet.kind == _wire.DONE:
            up = self._crew.get(rank, packet)
            del self._at_work[rank]
            finished = self.now() - (perf_counter() - packet.seconds)
            done = Arrival(rank, up, packet.steps, finished, packet.spent, packet.task)
            self._kept.append(done)
        elif packet.kind == _wire.STATE:
            self._states[rank] = unpack(packet.file)
            self._asked.discard(rank)
        elif packet.kind == _wire.FAILED:
            _raise(rank, unpack(packet.file))
        elif self._starting.pop(rank, None) is not None:
            self._kept.append(Change(rank, joined=True))

    def _leave(self, rank: int) -> Change:
        """Have the worker replaced, if and when it should be."""
        self._hanging.discard(rank)
        lot = self._fate.of(rank, self._at_work.pop(rank, -1))
        if lot.dies and lot.back_after is not None:
            self._returns.add(rank, self.now() + lot.back_after)
        elif self._rejoin:
            self._respawn(rank)
        return Change(rank, joined=False)

    def _respawn(self, rank: int) -> None:
        """Start a fresh process for this rank, unless that failed too often."""
        attempt = self._starting.pop(rank, 0) + 1
        if attempt > _ATTEMPTS:
            return
        with suppress(WorkersLostError):
            self._crew.spawn(rank, self._job)
            self._starting[rank] = attempt


def _raise(rank: int, failure: Failure) -> NoReturn:
    """An exception of a worker, with its traceback as text."""
    if failure.error is not None:
        failure.error.add_note(f"in worker {rank}:\n{failure.where}")
        raise failure.error
    raise RuntimeError(f"worker {rank} failed: {failure.what}\n\n{failure.where}")
