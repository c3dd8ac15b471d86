"""Engine ``threads``: one worker a thread, one server in the calling thread, memory shared.

Compiled kernels release the interpreter lock, so workers run in parallel as far as their work is
inside them. Synchronous runs give the same bits as ``serial``; asynchronous ones depend on the
machine's timing.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import ClassVar

import numpy as np

from hemiola.algorithm import Task
from hemiola.communicate import Asynchronous, Grouped, SharedMemory, Synchronous
from hemiola.component import component
from hemiola.engines._clock import WallClock
from hemiola.engines._drive import Arrival, Workers, drive
from hemiola.engines._shared import keep_freed_memory
from hemiola.engines._shared_memory import passes
from hemiola.job import Event, Job
from hemiola.types import Message, State

_SWITCH_INTERVAL = 1e-4
"""Seconds. At Python's default of 5 ms the server waits that long for the interpreter lock."""


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
            with _switch_interval(_SWITCH_INTERVAL):
                yield from drive(job, executor, resume)
        finally:
            executor.close()


@contextmanager
def _switch_interval(seconds: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


_Call = tuple[Message, Task] | None


class _Executor:
    def __init__(self, job: Job) -> None:
        self._workers = Workers(job)
        self._clock = WallClock()
        self.now = self._clock.now
        self.resume = self._clock.resume
        self._running = 0
        self._done: SimpleQueue[Arrival | BaseException] = SimpleQueue()
        self._kept: deque[Arrival] = deque()
        self._inbox: list[SimpleQueue[_Call]] = [SimpleQueue() for _ in range(job.workers)]
        self._threads = [
            Thread(target=self._serve, args=(inbox,), name=f"hemiola-worker-{k}", daemon=True)
            for k, inbox in enumerate(self._inbox)
        ]
        for thread in self._threads:
            thread.start()

    @np.errstate(over="ignore", invalid="ignore")  # the server looks at what arrives
    def _serve(self, inbox: SimpleQueue[_Call]) -> None:
        while (call := inbox.get()) is not None:
            try:
                down, task = call
                up, steps, computed = self._workers.work(down, task)
                self._done.put(Arrival(task.worker, up, steps, self.now(), computed))
            except BaseException as error:  # handed to the server, which raises it
                self._done.put(error)

    def start(self, down: Message, task: Task) -> None:
        self._running += 1
        self._inbox[task.worker].put((down, task))

    def next(self) -> Arrival:
        return self._kept.popleft() if self._kept else self._take()

    def _take(self) -> Arrival:
        done = self._done.get()
        self._running -= 1
        if isinstance(done, BaseException):
            raise done
        return done

    def set_state(self, worker: int, state: State) -> None:
        self._workers.states[worker] = state

    def states(self) -> list[State]:
        return self._workers.states

    def pending(self) -> list[Arrival]:
        while self._running:
            self._kept.append(self._take())
        return list(self._kept)

    def restore(self, arrivals: list[Arrival], clock: float) -> None:
        self._kept.extend(arrivals)
        self._clock.set(clock)

    def pause(self) -> None:
        """Asynchronous workers go on while the consumer is busy, and then time goes on too."""
        if not self._running:
            self._clock.pause()

    def close(self) -> None:
        for inbox in self._inbox:
            inbox.put(None)
        for thread in self._threads:
            thread.join()
