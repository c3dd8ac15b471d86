"""A server process in the middle: every worker has a group of two with it, so one that dies or
hangs harms nobody else.

The server has a thread a worker, which carries orders there and waits for the answer; the loop that
decides everything runs in the calling thread, as on every engine. Both sides say first, in eight
numbers, what follows.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from time import sleep
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from hemiola.algorithm import Task
from hemiola.engines._clock import WallClock
from hemiola.engines._crew import GUARD
from hemiola.engines._executor import Arrival, Change, Workers
from hemiola.engines._faults import Fate, Returns, earliest
from hemiola.engines._flat import flatten, layout_of, raised, report, unflatten
from hemiola.engines._ranks import NEVER, Place
from hemiola.engines._shared import unpack
from hemiola.engines._wire import GoneError
from hemiola.errors import WorkersLostError
from hemiola.job import Job
from hemiola.storage import nest_from_bytes, nest_to_bytes
from hemiola.types import Array, Message, State

_WORK, _SET, _ASK, _STOP, _READY, _DONE, _STATE, _FAILED = range(8)
_HEAD = 8
_ATTEMPTS = 3
"""A worker that dies this many times in a row before it is ready is given up."""

_GRACE = 1.0
"""Seconds that a worker may take to finish its piece of work at the end of a run."""


class Note(NamedTuple):
    """What one side says: a kind, four numbers, and what comes with it."""

    kind: int
    task: int = 0
    steps: int = 0
    spent: float = 0.0
    body: Message | bytes = b""


class Line:
    """One end of a group of two. ``patience``: seconds that :meth:`receive` waits.

    Raises :class:`GoneError` when the other end is gone, or silent for too long.
    """

    def __init__(self, place: Place, name: str, end: int, timeout: float, patience: float) -> None:
        self._other = 1 - end
        self._patience = timedelta(seconds=patience)
        try:
            self._group = place.group(name, end, 2, timeout)
        except RuntimeError as error:
            raise GoneError from error

    def send(self, note: Note) -> None:
        """Returns when the other end has it."""
        layout, body = b"", np.zeros(0, np.uint8)
        if isinstance(note.body, bytes):
            body = np.frombuffer(note.body, np.uint8)
        else:
            layout, body = layout_of(note.body), flatten(note.body)
            layout = layout.ljust(-(-len(layout) // 64) * 64)
        payload = np.concatenate([np.frombuffer(layout, np.uint8), body])
        head = np.zeros(_HEAD)
        head[:6] = note.kind, note.task, note.steps, note.spent, len(layout), len(payload)
        try:
            for array in (head, payload)[: 2 if len(payload) else 1]:
                self._group.send([torch.from_numpy(array)], self._other, 0).wait()
        except RuntimeError as error:
            raise GoneError from error

    def receive(self) -> Note:
        head = self._take(np.zeros(_HEAD))
        kind, task, steps, spent, split, size = head[:6].tolist()
        payload = self._take(np.empty(int(size), np.uint8)) if size else np.zeros(0, np.uint8)
        layout, rest = payload[: int(split)].tobytes(), payload[int(split) :]
        body = unflatten(layout, rest) if layout else rest.tobytes()
        return Note(int(kind), int(task), int(steps), spent, body)

    def _take(self, into: Array) -> Array:
        try:
            self._group.recv([torch.from_numpy(into)], self._other, 0).wait(self._patience)
        except RuntimeError as error:
            raise GoneError from error
        return into


def line_name(worker: int, life: int) -> str:
    """Of the group of the server and this worker, in the worker's so-many-th life."""
    return f"worker {worker}, life {life}"


class Options(NamedTuple):
    """``timeout``: seconds after which a worker that owes an answer is given up."""

    timeout: float
    rejoin: bool


class Starter(Protocol):
    """What starts the workers; worker k is rank k + 1."""

    def start(self, rank: int, target: Callable[..., None], *arguments: Any) -> None: ...

    def wait_for(self, rank: int, group: str, member: int, timeout: float) -> None:
        """Wait for a worker to come to a group, as its so-many-th member.

        Raises :class:`WorkersLostError` when it never will, or takes too long.
        """
        ...

    def kill(self, rank: int) -> None:
        """End a worker, if it has not ended."""
        ...


class Server:
    """The executor in the middle. ``launcher``: None, if the workers were started by others."""

    def __init__(self, job: Job, place: Place, options: Options, launcher: Starter | None) -> None:
        self._job = job
        self._place = place
        self._options = options
        self._launcher = launcher
        self._fate = Fate(job)
        self._returns = Returns()
        self._clock = WallClock()
        self.now = self._clock.now
        self.resume = self._clock.resume
        self._orders: dict[int, SimpleQueue[Note | None]] = {}
        self._threads: list[Thread] = []
        self._lives = [0] * job.workers
        self._heard: SimpleQueue[tuple[int, int, float, Note | None]] = SimpleQueue()
        self._at_work: dict[int, int] = {}  # the number of the task
        self._hanging: set[int] = set()
        self._starting: dict[int, int] = {}  # attempts so far
        self._asked: set[int] = set()
        self._states: list[State] = []
        self._kept: deque[Arrival | Change] = deque()

    def open(self) -> None:
        """Wait for all workers; the clock starts when they are ready."""
        for worker in range(self._job.workers):
            self._hire(worker)
        waiting = set(range(self._job.workers))
        while waiting:
            worker, note = self._take(None)
            if note is None:
                raise WorkersLostError(f"worker {worker} was gone before it began; {GUARD}")
            self._hear(worker, note, self.now())
            waiting.discard(worker)
        self._clock.set(0.0)

    def _hire(self, worker: int) -> None:
        """Start a worker's process, if it is ours to start, and the thread that talks to it."""
        life = self._lives[worker]
        if self._launcher is not None:
            self._launcher.start(worker + 1, serve, worker, life, self._options)
        orders: SimpleQueue[Note | None] = SimpleQueue()
        self._orders[worker] = orders
        thread = Thread(
            target=self._talk, args=(worker, life, orders), name=f"hemiola-line-{worker}",
            daemon=True,
        )  # fmt: skip
        thread.start()
        self._threads.append(thread)

    def _talk(self, worker: int, life: int, orders: SimpleQueue[Note | None]) -> None:
        """Carry orders to one worker, and what it answers back."""
        try:
            timeout = self._options.timeout
            if self._launcher is not None:
                self._launcher.wait_for(worker + 1, line_name(worker, life), 1, timeout)
            line = Line(self._place, line_name(worker, life), 0, timeout, timeout)
            self._heard.put((worker, life, self.now(), line.receive()))
            while (order := orders.get()) is not None:
                line.send(order)
                if order.kind in (_WORK, _ASK):
                    note = line.receive()
                    self._heard.put((worker, life, self.now(), note))
        except (GoneError, WorkersLostError):
            self._heard.put((worker, life, self.now(), None))

    def start(self, down: Message, task: Task) -> None:
        worker = task.worker
        if worker not in self._orders:  # died idle
            self._kept.append(self._leave(worker))
            return
        self._at_work[worker] = task.step
        if self._fate.of(worker, task.step).hangs:
            self._hanging.add(worker)
        self._orders[worker].put(Note(_WORK, task.step, body=down or b""))

    def next(self, until: float | None = None) -> Arrival | Change | None:
        while not self._kept:
            wake = earliest(until, self._returns.next)
            if wake is None and not self._starting and not self._at_work:
                return None
            self._step(wake)
            if not self._kept and until is not None and self.now() >= until:
                return None
        return self._kept.popleft()

    def set_state(self, worker: int, state: State) -> None:
        if worker in self._orders:
            self._orders[worker].put(Note(_SET, body=nest_to_bytes(state)))

    def states(self) -> list[State]:
        self.pending()
        self._states = [None] * self._job.workers
        here = self._orders.keys() - self._starting.keys() - self._at_work.keys()
        self._asked = set(here)
        for worker in here:
            self._orders[worker].put(Note(_ASK))
        while self._asked:
            self._step(None)
        return self._states

    def pending(self) -> Sequence[Arrival | Change]:
        while self._at_work.keys() - self._hanging:
            self._step(None)
        return [kept for kept in self._kept if isinstance(kept, Arrival)]

    def restore(self, pending: Sequence[Arrival | Change], clock: float) -> None:
        self._kept.extend(pending)
        self._clock.set(clock)

    def pause(self) -> None:
        """Workers go on while the consumer is busy, and then time goes on too."""
        if not self._at_work.keys() - self._hanging:
            self._clock.pause()

    def _take(self, seconds: float | None) -> tuple[int, Note | None]:
        """What is heard next; raises ``Empty`` after so many seconds."""
        while True:
            worker, life, _, note = self._heard.get(timeout=seconds)
            if life == self._lives[worker]:
                return worker, note

    def _step(self, until: float | None) -> None:
        """Wait for the next thing to happen, until then, and keep what comes of it."""
        wait = None if until is None else max(until - self.now(), 0.0)
        try:
            worker, life, when, note = self._heard.get(timeout=wait)
        except Empty:
            worker, life, when, note = -1, 0, 0.0, None
        while (back := self._returns.due(self.now())) is not None:
            self._again(back)
        if worker < 0 or life != self._lives[worker]:
            return
        if note is not None:
            self._hear(worker, note, when)
        elif worker in self._at_work:
            self._kept.append(self._leave(worker))
        elif worker in self._starting:
            self._again(worker)
        else:
            self._forget(worker)  # idle: told when it is needed
            self._asked.discard(worker)

    def _hear(self, worker: int, note: Note, when: float) -> None:
        if note.kind == _DONE:
            assert not isinstance(note.body, bytes)
            self._at_work.pop(worker)
            done = Arrival(worker, note.body, note.steps, when, note.spent, note.task)
            self._kept.append(done)
        elif note.kind == _STATE:
            assert isinstance(note.body, bytes)
            self._states[worker] = nest_from_bytes(note.body)
            self._asked.discard(worker)
        elif note.kind == _FAILED:
            assert isinstance(note.body, bytes)
            raise raised(note.body, f"worker {worker}")
        elif self._starting.pop(worker, None) is not None:
            self._kept.append(Change(worker, joined=True))

    def _forget(self, worker: int) -> None:
        """Let the thread end; a process that lives on after all is of no use."""
        self._orders.pop(worker).put(None)
        self._lives[worker] += 1
        if self._launcher is not None:
            self._launcher.kill(worker + 1)

    def _leave(self, worker: int) -> Change:
        """Have the worker replaced, if and when it should be."""
        if worker in self._orders:
            self._forget(worker)
        self._hanging.discard(worker)
        lot = self._fate.of(worker, self._at_work.pop(worker, -1))
        if lot.dies and lot.back_after is not None:
            self._returns.add(worker, self.now() + lot.back_after)
        elif self._options.rejoin:
            self._again(worker)
        return Change(worker, joined=False)

    def _again(self, worker: int) -> None:
        """Start a fresh process for this worker, unless that failed too often."""
        if worker in self._orders:
            self._forget(worker)
        attempt = self._starting.pop(worker, 0) + 1
        if attempt <= _ATTEMPTS and self._launcher is not None:
            self._starting[worker] = attempt
            self._hire(worker)

    def close(self) -> None:
        """Tell all workers to stop, and wait for those that listen."""
        for worker, orders in self._orders.items():
            if worker in self._hanging and self._launcher is not None:
                self._launcher.kill(worker + 1)
            orders.put(Note(_STOP))
            orders.put(None)
        for thread in self._threads:
            thread.join(_GRACE)


def serve(parcel: int, place: Place, worker: int, life: int, options: Options) -> None:
    """A worker that the server started."""
    (job,) = unpack(parcel)
    work(job, place, worker, life, options.timeout)


def work(job: Job, place: Place, worker: int, life: int, timeout: float) -> None:
    """Work for the server until it says stop or is gone."""
    torch.set_num_threads(1)
    with suppress(GoneError):
        line = Line(place, line_name(worker, life), 1, timeout, NEVER)
        try:
            _obey(line, job, worker)
        except GoneError:
            raise
        except Exception as error:  # handed to the server, which raises it
            line.send(Note(_FAILED, body=report(error)))


def _obey(line: Line, job: Job, worker: int) -> None:
    workers, fate = Workers(job), Fate(job)
    line.send(Note(_READY))
    while (order := line.receive()).kind != _STOP:
        if order.kind == _SET:
            assert isinstance(order.body, bytes)
            workers.states[worker] = nest_from_bytes(order.body)
        elif order.kind == _ASK:
            line.send(Note(_STATE, body=nest_to_bytes(workers.states[worker])))
        else:
            line.send(_done(order, job, worker, workers, fate))


def _done(order: Note, job: Job, worker: int, workers: Workers, fate: Fate) -> Note:
    """Do a piece of work, unless something befalls it."""
    lot = fate.of(worker, order.task)
    if lot.dies:
        os.kill(os.getpid(), signal.SIGKILL)
    while lot.hangs:
        signal.pause()
    down = {} if isinstance(order.body, bytes) else order.body
    piece: Callable[[], Any] = partial(workers.work, down, job.task(worker, order.task))
    up, steps, spent = lot.suffer(piece, sleep)
    return Note(_DONE, order.task, steps, spent, up)
