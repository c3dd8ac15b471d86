"""Engine ``threads``: one worker a thread, one server in the calling thread, memory shared.

Compiled kernels release the interpreter lock, so workers run in parallel as far as their work is
inside them. Synchronous runs give the same bits as ``serial``; asynchronous ones depend on the
machine's timing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import ClassVar, NamedTuple

import numpy as np

from hemiola.algorithm import Task
from hemiola.communicate import Asynchronous, Grouped, SharedMemory, Synchronous
from hemiola.component import component
from hemiola.engines._clock import WallClock
from hemiola.engines._drive import drive
from hemiola.engines._executor import Arrival, Change, Workers
from hemiola.engines._faults import Fate, Lot, Returns, earliest
from hemiola.engines._interpreter import switching_often
from hemiola.engines._shared import keep_freed_memory
from hemiola.engines._shared_memory import passes
from hemiola.job import Event, Job
from hemiola.types import Message, State


@component
class Threads:
    """One process, a thread for every worker."""

    name: ClassVar[str] = "threads"
    supports: ClassVar[frozenset[type]] = frozenset(
        {Synchronous, Asynchronous, Grouped, SharedMemory}
    )

    def run(self, job: Job, resume: State | None = None) -> Iterator[Event]:
        discipline: object = job.algorithm.communicate
        if isinstance(discipline, SharedMemory):
            yield from passes(job, resume)
            return
        keep_freed_memory()
        executor = _Executor(job)
        try:
            with switching_often():
                yield from drive(job, executor, resume)
        finally:
            executor.close()


_Call = tuple[Message, Task] | None


class _Death(NamedTuple):
    """A worker's last word."""

    worker: int
    back_after: float | None


class _Executor:
    def __init__(self, job: Job) -> None:
        self._workers = Workers(job)
        self._clock = WallClock()
        self.now = self._clock.now
        self.resume = self._clock.resume
        self._fate = Fate(job)
        self._closing = Flag()
        self._running = 0  # without those that hang
        self._done: SimpleQueue[Arrival | _Death | BaseException] = SimpleQueue()
        self._kept: deque[Arrival | Change] = deque()
        self._returns = Returns()
        self._threads: list[Thread] = []
        self._inbox = [self._hire(worker) for worker in range(job.workers)]

    def _hire(self, worker: int) -> SimpleQueue[_Call]:
        """Start a worker's thread; where it finds its work."""
        inbox: SimpleQueue[_Call] = SimpleQueue()
        name = f"hemiola-worker-{worker}"
        self._threads.append(Thread(target=self._serve, args=(inbox,), name=name, daemon=True))
        self._threads[-1].start()
        return inbox

    @np.errstate(over="ignore", invalid="ignore")  # the server looks at what arrives
    def _serve(self, inbox: SimpleQueue[_Call]) -> None:
        while (call := inbox.get()) is not None:
            down, task = call
            lot = self._fate.of(task.worker, task.step)
            if lot.hangs:
                self._closing.wait()
                return
            if lot.dies:
                self._done.put(_Death(task.worker, lot.back_after))
                return
            try:
                self._done.put(self._work(down, task, lot))
            except BaseException as error:  # handed to the server, which raises it
                self._done.put(error)

    def _work(self, down: Message, task: Task, lot: Lot) -> Arrival:
        work = partial(self._workers.work, down, task)
        up, steps, computed = lot.suffer(work, self._closing.wait)
        return Arrival(task.worker, up, steps, self.now(), computed, task.step)

    def start(self, down: Message, task: Task) -> None:
        self._running += not self._fate.of(task.worker, task.step).hangs
        self._inbox[task.worker].put((down, task))

    def next(self, until: float | None = None) -> Arrival | Change | None:
        while not self._kept:
            wake = earliest(until, self._returns.next)
            if wake is None and not self._running:
                return None
            self._take(wake)
            self._come_back()
            if not self._kept and until is not None and self.now() >= until:
                return None
        return self._kept.popleft()

    def _take(self, until: float | None) -> None:
        """Keep what is done next, unless nothing is until then."""
        try:
            done = self._done.get(timeout=None if until is None else max(until - self.now(), 0.0))
        except Empty:
            return
        self._running -= 1
        if isinstance(done, BaseException):
            raise done
        self._kept.append(self._bury(done) if isinstance(done, _Death) else done)

    def _bury(self, death: _Death) -> Change:
        """Forget what the worker knew, and note when it comes back."""
        self._workers.states[death.worker] = None
        if death.back_after is not None:
            self._returns.add(death.worker, self.now() + death.back_after)
        return Change(death.worker, joined=False)

    def _come_back(self) -> None:
        while (worker := self._returns.due(self.now())) is not None:
            self._inbox[worker] = self._hire(worker)
            self._kept.append(Change(worker, joined=True))

    def set_state(self, worker: int, state: State) -> None:
        self._workers.states[worker] = state

    def states(self) -> list[State]:
        return self._workers.states

    def pending(self) -> Sequence[Arrival | Change]:
        while self._running:
            self._take(None)
        returns = [Change(worker, True, when) for when, worker in self._returns.all()]
        return [*self._kept, *returns]

    def restore(self, pending: Sequence[Arrival | Change], clock: float) -> None:
        for happening in pending:
            if isinstance(happening, Change) and happening.joined:
                self._returns.add(happening.worker, happening.when)
            else:
                self._kept.append(happening)
        self._clock.set(clock)

    def pause(self) -> None:
        """Asynchronous workers go on while the consumer is busy, and then time goes on too."""
        if not self._running:
            self._clock.pause()

    def close(self) -> None:
        self._closing.set()
        for inbox in self._inbox:
            inbox.put(None)
        for thread in self._threads:
            thread.join()
