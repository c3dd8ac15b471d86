"""Rounds without a server process: every rank keeps the server's state and applies every update.

A rank computes the pieces of its own workers; then all swap a header, and then either all messages
(the reduction is then the same loop on every rank, in rank order) or their sum, by an all-reduce.
So all ranks make the same update, and the loop of rounds is that of every other engine.

Before a round every rank says what it is about: the round, a wish for all workers' states, or the
end. Who asks for states gets them, whatever the others are about; when one rank ends, all do. So
ranks need not decide alike when to stop or to keep a checkpoint.
"""

from __future__ import annotations

import os
import signal
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from time import sleep
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
import torch

from hemiola.algorithm import Task
from hemiola.communicate import Synchronous
from hemiola.engines._clock import WallClock
from hemiola.engines._drive import Arrival, Change, Workers, drive, is_finite, reduce_arrivals
from hemiola.engines._faults import Done, Fate
from hemiola.engines._flat import blank, flatten, layout_of, raised, report, unflatten
from hemiola.engines._ranks import Place
from hemiola.engines._shared import unpack
from hemiola.errors import RestartError, StreamEnded, UnsupportedError, WorkersLostError
from hemiola.job import Event, Job
from hemiola.storage import nest_from_bytes, nest_to_bytes
from hemiola.types import Array, Message, State, copy_state

_ROUND, _STATES, _STOP = range(3)
_PER_WORKER = 4  # weight, local steps, seconds of computing, whether the message is finite


class Ring:
    """A group in which everybody says something to everybody at once."""

    def __init__(self, group: Any, rank: int, size: int, device: str = "cpu") -> None:
        self._group = group
        self._device = torch.device(device)
        self.rank = rank
        self.size = size

    def gather(self, own: Array) -> list[Array]:
        """Everybody's array, all of one shape and type, in rank order."""
        mine = torch.from_numpy(own).to(self._device)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        self._group.allgather([found], [mine]).wait()
        return [tensor.cpu().numpy() for tensor in found]

    def swap(self, own: bytes | Array) -> list[Array]:
        """Everybody's bytes (uint8), of any number, in rank order."""
        mine = np.frombuffer(own, np.uint8) if isinstance(own, bytes) else own
        sizes = [int(size[0]) for size in self.gather(np.array([len(mine)]))]
        if not max(sizes):
            return [mine] * self.size
        padded = np.zeros(max(sizes), np.uint8)
        padded[: len(mine)] = mine
        return [found[:size] for found, size in zip(self.gather(padded), sizes, strict=True)]

    def sum(self, own: Array) -> Array:
        """The sum of everybody's arrays."""
        total = torch.from_numpy(own).to(self._device)
        self._group.allreduce([total]).wait()
        found: Array = total.cpu().numpy()
        return found


class Options(NamedTuple):
    """``fixed``: messages are reduced in rank order, not by an all-reduce."""

    fixed: bool
    timeout: float
    backend: str


def ring_of(place: Place, rank: int, size: int, local: int, backend: str, timeout: float) -> Ring:
    """All ranks; on GPUs, a host's ``local``-th rank has its ``local``-th one."""
    if backend == "nccl":
        group = place.gpu_group("ring", rank, size, timeout)
        return Ring(group, rank, size, f"cuda:{local % torch.cuda.device_count()}")
    return Ring(place.group("ring", rank, size, timeout), rank, size)


class Starter(Protocol):
    """What started the other ranks."""

    def fallen(self, seconds: float) -> str:
        """Which of them have ended, and how, in words; waits for one, but not longer than that."""
        ...


class Replicated:
    """The executor of one rank. ``starter``: in rank 0, if it had the others started. ``idle``: so
    many ranks, the first, have no workers. ``is_over``: the ranks talk no more."""

    def __init__(
        self, job: Job, ring: Ring, fixed: bool, starter: Starter | None = None, idle: int = 0
    ) -> None:
        self._job = job
        self._ring = ring
        self._fixed = fixed
        self._starter = starter
        self._idle = idle
        self._workers = Workers(job)
        self._fate = Fate(job)
        self._clock = WallClock()
        self.now = self._clock.now
        self.pause = self._clock.pause
        self.resume = self._clock.resume
        self._asked: list[Task] = []
        self._own: dict[int, Done] = {}
        self._messages: dict[int, Message] = {}  # of this rank's workers, the latest
        self._done: deque[Arrival | Change] = deque()
        self._begun = [0] * job.workers
        self._layout = b"[]"
        self._failure: BaseException | None = None
        self.is_over = False

    def _rank_of(self, worker: int) -> int:
        return self._idle + worker * (self._ring.size - self._idle) // self._job.workers

    def _is_mine(self, worker: int) -> bool:
        return self._rank_of(worker) == self._ring.rank

    def start(self, down: Message, task: Task) -> None:
        if not self._asked:
            self._agree(_ROUND)
        self._asked.append(task)
        self._begun[task.worker] = task.step + 1
        if self._failure is not None or not self._is_mine(task.worker):
            return
        lot = self._fate.of(task.worker, task.step)
        if lot.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        while lot.hangs:
            signal.pause()
        try:
            self._own[task.worker] = lot.suffer(partial(self._workers.work, down, task), sleep)
        except Exception as error:  # told to all ranks, which raise it
            self._failure = error

    def next(self, until: float | None = None) -> Arrival | Change | None:
        if not self._done and self._asked:
            self._exchange()
        return self._done.popleft() if self._done else None

    def _exchange(self) -> None:
        """Tell each other what has become of the pieces begun."""
        heads = self._guarded(partial(self._ring.gather, self._header()))
        if any(head[0] for head in heads):
            self._fail()
        self._share_layout(heads)
        messages = self._swapped() if self._fixed else {}
        for task in self._asked:
            at = 3 + task.worker * _PER_WORKER
            head = heads[self._rank_of(task.worker)]
            weight, steps, computed, finite = head[at : at + _PER_WORKER].tolist()
            up = messages.get(task.worker)
            if up is None:
                weights = {"weight": np.array(weight)}
                up = {**blank(self._layout, 0.0 if finite else np.nan), **weights}
            arrival = Arrival(task.worker, up, int(steps), self.now(), computed, task.step)
            self._done.append(arrival)
        self._messages |= {worker: done[0] for worker, done in self._own.items()}
        self._asked, self._own = [], {}

    def _header(self) -> Array:
        """Whether work failed, how many messages there are, a check sum of their layout, and four
        numbers a worker."""
        head = np.zeros(3 + _PER_WORKER * self._job.workers)
        head[0], head[1] = self._failure is not None, len(self._own)
        for worker, (up, steps, computed) in self._own.items():
            head[2] = zlib.crc32(layout_of(up))
            finite = all(map(is_finite, up.values()))
            at = 3 + worker * _PER_WORKER
            head[at : at + _PER_WORKER] = float(up["weight"]), steps, computed, finite
        return head

    def _agree(self, op: int) -> None:
        """Until all ranks are about a round: give states to who asks; stop if one does."""
        while True:
            said = self._guarded(partial(self._ring.gather, np.array([op])))
            ops = {int(one[0]) for one in said}
            if _STATES in ops:
                own = [s if self._is_mine(k) else None for k, s in enumerate(self._workers.states)]
                found = self._guarded(partial(self._ring.swap, nest_to_bytes(own)))
                if op == _STATES:
                    self._join_states([nest_from_bytes(part.tobytes()) for part in found])
                    return
                continue
            if _STOP in ops:
                self.is_over = True
                if op == _ROUND:
                    raise StreamEnded("another rank has ended the run")
            return

    def _fail(self) -> NoReturn:
        own = b"" if self._failure is None else report(self._failure)
        reports = self._guarded(partial(self._ring.swap, own))
        self.is_over = True
        if self._failure is not None:
            raise self._failure
        rank = next(rank for rank, found in enumerate(reports) if len(found))
        raise raised(reports[rank].tobytes(), f"rank {rank}")

    def _share_layout(self, heads: list[Array]) -> None:
        """Learn how messages are laid out, which who has none this round cannot know."""
        sums = {int(head[2]) for head in heads if head[1]}
        if sums == {zlib.crc32(self._layout)}:
            return
        own = layout_of(next(iter(self._own.values()))[0]) if self._own else b""
        found = {part.tobytes() for part in self._guarded(partial(self._ring.swap, own))} - {b""}
        if len(found) != 1:
            raise UnsupportedError(
                "rounds among ranks need messages of one shape; use engine processes."
            )
        self._layout = found.pop()

    def _swapped(self) -> dict[int, Message]:
        """Everybody's messages by worker."""
        own = [flatten(done[0]) for done in self._own.values()]
        joined = np.concatenate(own) if own else np.zeros(0, np.uint8)
        found: dict[int, Message] = {}
        for rank, part in enumerate(self._guarded(partial(self._ring.swap, joined))):
            workers = [t.worker for t in self._asked if self._rank_of(t.worker) == rank]
            if workers:
                parts = part.reshape(len(workers), -1)
                messages = [unflatten(self._layout, row) for row in parts]
                found |= dict(zip(workers, messages, strict=True))
        return found

    def join(self, arrivals: list[Arrival]) -> tuple[Message, float]:
        """The round's reduced message, the same on every rank, and its weight."""
        if self._fixed:
            return reduce_arrivals(self._job, arrivals)
        reduce = self._job.algorithm.reduce
        weights = [float(arrival.up["weight"]) for arrival in arrivals]
        total = sum(weights)
        lifted = [
            reduce.lift(self._messages[arrival.worker], weight / total if total else 0.0)
            for arrival, weight in zip(arrivals, weights, strict=True)
            if self._is_mine(arrival.worker)
        ]
        joined = lifted[0] if lifted else reduce.lift(blank(self._layout, 0.0), 0.0)
        for part in lifted[1:]:
            joined = reduce.merge(joined, part)
        return self._summed(joined), total

    def _summed(self, part: dict[str, Array]) -> Message:
        """The sum over all ranks, by one all-reduce of all arrays in one buffer."""
        dtype = np.result_type(*part.values())
        flat = [array.ravel().astype(dtype, copy=False) for array in part.values()]
        joined = flat[0] if len(flat) == 1 else np.concatenate(flat)
        total = self._guarded(partial(self._ring.sum, joined))
        cuts = np.cumsum([array.size for array in part.values()])[:-1]
        return {
            name: piece.reshape(array.shape).astype(array.dtype, copy=False)
            for (name, array), piece in zip(part.items(), np.split(total, cuts), strict=True)
        }

    def set_state(self, worker: int, state: State) -> None:
        self._workers.states[worker] = copy_state(state)

    def states(self) -> list[State]:
        self._agree(_STATES)
        return self._workers.states

    def _join_states(self, found: list[list[State]]) -> None:
        for worker in range(self._job.workers):
            self._workers.states[worker] = found[self._rank_of(worker)][worker]

    def pending(self) -> Sequence[Arrival | Change]:
        return list(self._done)

    def restore(self, pending: Sequence[Arrival | Change], clock: float) -> None:
        self._done.extend(pending)
        self._clock.set(clock)

    def _guarded(self, swap: Any) -> Any:
        """Do something together; when that fails, a rank is gone."""
        try:
            return swap()
        except RuntimeError as error:
            self.is_over = True
            raise self._lost(str(error)) from error

    def _lost(self, why: str) -> WorkersLostError:
        who = "" if self._starter is None else self._starter.fallen(1.0)
        what = who or f"a rank is gone, or did not answer in time ({why.splitlines()[0]})"
        discipline = self._job.algorithm.communicate
        if isinstance(discipline, Synchronous) and discipline.on_loss == "restart":
            if self._starter is not None:
                return RestartError(what, self._begun)
            return WorkersLostError(
                f"{what}; start with torchrun --max-restarts N and a checkpoint, to go on from it."
            )
        return WorkersLostError(
            f"{what}; rounds among ranks need every one: go back to a checkpoint with "
            "on_loss=restart, or use engine processes, which goes on without the dead."
        )

    def close(self) -> None:
        """Tell the others that this rank ends."""
        if not self.is_over:
            with suppress(StreamEnded, WorkersLostError):
                self._agree(_STOP)


def take_part(parcel: int, place: Place, rank: int, size: int, options: Options) -> None:
    """A rank that was started by rank 0: it makes the same updates, and nobody looks at them."""
    job, resume = unpack(parcel)
    torch.set_num_threads(1)
    ring = ring_of(place, rank, size, rank, options.backend, options.timeout)
    follow(job, resume, Replicated(job, ring, options.fixed))


def lead(job: Job, resume: State | None, executor: Replicated) -> Iterator[Event]:
    """The run's updates; when whoever looks at them has enough, all ranks end."""
    try:
        yield from drive(job, executor, resume)
    except KeyboardInterrupt:  # amid a conversation, perhaps
        executor.is_over = True
        raise
    finally:
        executor.close()


def follow(job: Job, resume: State | None, executor: Replicated) -> None:
    """Make the updates that rank 0 makes, until it ends the run or is gone."""
    try:
        for _ in drive(job, executor, resume):
            pass
    except Exception:  # rank 0 makes the same updates, and raises the same
        if not executor.is_over:
            executor.close()
