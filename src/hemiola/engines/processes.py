"""Engine ``processes``: many worker processes on one host, one server in the calling process.

For objectives that Python threads cannot speed up, and for workers that really die. The server owns
the model and applies the updates; messages lie in shared memory and only small packets move. The
data are placed in shared memory once and are read-only in the workers. Synchronous runs give the
same bits as ``serial``; asynchronous ones depend on the machine's timing.

*Death.* A worker that ends, for whatever reason, leaves the run, which goes on with the others; its
unfinished message is never applied. A worker that hangs holds up a synchronous round, and nothing
else, until ``timeout``. When the server ends, for whatever reason, so do the workers. Shared memory
has no names, so nothing is left behind.

*Scripts.* Worker processes import the main script: training must begin under
``if __name__ == "__main__":``, and what the workers need must be importable. Linux only.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from typing import Annotated, ClassVar, NoReturn

from annotated_types import Gt

from hemiola.algorithm import Task
from hemiola.communicate import Asynchronous, Grouped, Synchronous
from hemiola.component import component
from hemiola.engines import _wire
from hemiola.engines._clock import WallClock
from hemiola.engines._crew import GUARD, Crew
from hemiola.engines._drive import Arrival, Change, drive
from hemiola.engines._shared import keep_freed_memory, pack, unpack
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
            executor.open(job, resume)
            yield from drive(job, executor, resume)
        finally:
            executor.close()


class _Executor:
    def __init__(self, job: Job, options: Processes) -> None:
        self._job = _parcel(job)
        self._crew = Crew(options.timeout, type(job.objective).__module__)
        self._workers = job.workers
        self._rejoin = options.rejoin
        self._clock = WallClock()
        self.now = self._clock.now
        self.resume = self._clock.resume
        self._at_work: set[int] = set()
        self._starting: dict[int, int] = {}  # attempts so far
        self._asked: set[int] = set()
        self._states: list[State] = []
        self._lost: set[int] = set()
        self._kept: deque[Arrival | Change] = deque()

    def open(self, job: Job, resume: State | None) -> None:
        """Start all processes; the clock starts when they are ready."""
        for rank in range(self._workers):
            self._crew.spawn(rank, self._job)
        waiting = set(range(self._workers))
        while waiting:
            rank, packet = self._crew.take()
            if packet is None:
                raise WorkersLostError(f"worker {rank} died before it began; {GUARD}")
            self._hear(rank, packet)
            waiting.discard(rank)
        self._clock.set(0.0)
        if resume is not None:
            self._come_back(job, resume)

    def _come_back(self, job: Job, resume: State) -> None:
        """A resumed run has all its workers; those that had died begin afresh."""
        self._kept.extend(Change(int(worker), joined=True) for worker in sorted(resume["away"]))
        idle = _idle(job, resume)
        for worker in sorted(idle):
            self._kept += [Change(worker, joined=False), Change(worker, joined=True)]
        self._lost = _lost(resume) - idle

    def start(self, down: Message, task: Task) -> None:
        rank = task.worker
        if rank in self._lost:
            self._lost.discard(rank)
            self._kept += [Change(rank, joined=False), Change(rank, joined=True)]
            return
        if rank not in self._crew:  # died idle
            self._kept.append(self._leave(rank))
            return
        holds, fd = self._crew.put(rank, down)
        self._at_work.add(rank)
        self._crew.send(rank, Packet(_wire.WORK, holds, task.step, fd=fd), owes=True)
        if fd is not None:
            os.close(fd)

    def next(self) -> Arrival | Change:
        while not self._kept:
            self._step()
        return self._kept.popleft()

    def set_state(self, worker: int, state: State) -> None:
        if worker in self._crew:
            fd = pack(state)
            self._crew.send(worker, Packet(_wire.SET, fd=fd))
            os.close(fd)

    def states(self) -> list[State]:
        self.pending()
        self._states = [None] * self._workers
        self._asked = {rank for rank in range(self._workers) if self._is_ready(rank)}
        for rank in self._asked:
            self._crew.send(rank, Packet(_wire.ASK), owes=True)
        while self._asked:
            self._step()
        return self._states

    def pending(self) -> list[Arrival]:
        while self._at_work:
            self._step()
        return [kept for kept in self._kept if isinstance(kept, Arrival)]

    def restore(self, arrivals: list[Arrival], clock: float) -> None:
        self._kept.extend(arrivals)
        self._clock.set(clock)

    def pause(self) -> None:
        """Asynchronous workers go on while the consumer is busy, and then time goes on too."""
        if not self._at_work:
            self._clock.pause()

    def close(self) -> None:
        self._crew.close()
        os.close(self._job)

    def _is_ready(self, rank: int) -> bool:
        return rank in self._crew and rank not in self._starting

    def _step(self) -> None:
        """Wait for the next thing to happen and keep what comes of it."""
        rank, packet = self._crew.take()
        if packet is not None:
            self._hear(rank, packet)
        elif rank in self._at_work:
            self._at_work.discard(rank)
            self._kept.append(self._leave(rank))
        elif rank in self._starting:
            self._respawn(rank)
        else:
            self._asked.discard(rank)  # idle: told when it is needed

    def _hear(self, rank: int, packet: Packet) -> None:
        """Take in a packet from a worker."""
        if packet.kind == _wire.DONE:
            up = self._crew.get(rank, packet)
            self._at_work.discard(rank)
            finished = self.now() - (perf_counter() - packet.seconds)
            self._kept.append(Arrival(rank, up, packet.number, finished, packet.spent))
        elif packet.kind == _wire.STATE:
            self._states[rank] = unpack(packet.file)
            self._asked.discard(rank)
        elif packet.kind == _wire.FAILED:
            _raise(rank, unpack(packet.file))
        elif self._starting.pop(rank, None) is not None:
            self._kept.append(Change(rank, joined=True))

    def _leave(self, rank: int) -> Change:
        if self._rejoin:
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


def _parcel(job: Job) -> int:
    """The job as the workers get it."""
    try:
        return pack(replace(job, trace=None, timeline=None))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UnsupportedError(
            f"engine processes cannot send this job to another process ({error}); define what it "
            "uses at the top level of a module, or use threads."
        ) from error


def _lost(resume: State) -> set[int]:
    """Workers whose processes had died when the snapshot was taken, before the server was told."""
    saved = enumerate(zip(resume["workers"], resume["ticks"], strict=True))
    begun = {int(arrival["worker"]) for arrival in resume["pending"]}
    begun |= {worker for worker, (_, ticks) in saved if ticks}
    away = {int(worker) for worker in resume["away"]}
    return {worker for worker in begun if resume["workers"][worker] is None} - away


def _idle(job: Job, resume: State) -> set[int]:
    """Workers from which an asynchronous run, resumed, would never hear again."""
    if isinstance(job.algorithm.communicate, Synchronous):
        return set()
    there = {int(arrival["worker"]) for arrival in resume["pending"]}
    there |= {int(worker) for worker in [*resume.get("parked", ()), *resume["away"]]}
    if "groups" in resume:
        there |= {int(worker) for worker in resume["groups"]["idle_since"]}
    return set(range(job.workers)) - there


def _raise(rank: int, failure: Failure) -> NoReturn:
    """An exception of a worker, with its traceback as text."""
    if failure.error is not None:
        failure.error.add_note(f"in worker {rank}:\n{failure.where}")
        raise failure.error
    raise RuntimeError(f"worker {rank} failed: {failure.what}\n\n{failure.where}")
