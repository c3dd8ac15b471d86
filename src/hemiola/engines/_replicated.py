"""Rounds without a server process: every rank keeps the server's state and applies every update.

A rank computes the pieces of its own workers; then all swap heads, and then either all messages
(the reduction is then the same loop on every rank, in rank order) or their sum, by an all-reduce.
So all ranks make the same update, and the loop of rounds is that of every other engine.

Waiting for each other costs more than the numbers do, so a round is one all-reduce: the heads ride
with the sum. That takes the round's total weight, by which messages are divided, before the heads
have told it. Ranks guess that it is what it was in the last two rounds; when it is not, when a
message is missing or laid out anew, the sum is thrown away and made again. Nor does anybody look
whether its messages are finite before the sum is not.

A head also says what its rank is about: the round, a wish for all workers' states, or the end. Who
asks for states gets them, as they were before the round that others have perhaps begun; when one
rank ends, all do. So ranks need not decide alike when to stop or to keep a checkpoint.
"""

from __future__ import annotations

import math
import os
import signal
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import sleep
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
import torch

from hemiola.algorithm import Task
from hemiola.communicate import Synchronous
from hemiola.engines._clock import WallClock
from hemiola.engines._drive import drive
from hemiola.engines._executor import Arrival, Change, Workers
from hemiola.engines._faults import Done, Fate
from hemiola.engines._flat import blank, flatten, layout_of, raised, report, unflatten
from hemiola.engines._ranks import Place
from hemiola.engines._ring import Heads, Ring, ring_of
from hemiola.engines._server import is_finite, reduce_arrivals
from hemiola.engines._shared import unpack
from hemiola.errors import RestartError, StreamEnded, UnsupportedError, WorkersLostError
from hemiola.job import Event, Job
from hemiola.storage import nest_from_bytes, nest_to_bytes
from hemiola.types import Array, Message, State, copy_state

_ROUND, _STATES, _STOP = range(3)
_NOTHING = np.zeros(0, np.float32)


class _Riding(NamedTuple):
    """A sum of messages that came with the heads: of which workers, divided by which total."""

    workers: list[int]
    total: float
    sum: Message


_Entry = tuple[str, Any, tuple[int, ...]]
"""An array's name, type and shape."""


class Packed(NamedTuple):
    """One buffer: ``first`` numbers, then the arrays of a message of this layout."""

    flat: Array
    first: int
    layout: list[_Entry]

    def views(self) -> dict[str, Array]:
        """The arrays, in the buffer."""
        found, at = {}, self.first
        for name, _, shape in self.layout:
            size = math.prod(shape)
            found[name] = self.flat[at : at + size].reshape(shape)
            at += size
        return found


class Options(NamedTuple):
    """``fixed``: messages are reduced in rank order, not by an all-reduce."""

    fixed: bool
    timeout: float
    backend: str


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
        self._before: list[State] = []  # this rank's workers' states when the round began
        self._total: float | None = None  # the weight of the last round's messages
        self._guess: float | None = None  # and of the next one's, if all goes on as it did
        self._riding: _Riding | None = None
        self._done: deque[Arrival | Change] = deque()
        self._begun = [0] * job.workers
        self._layout = b"[]"
        self._lifted: list[_Entry] = []  # how messages are laid out once they are lifted
        self._failure: BaseException | None = None
        self.is_over = False

    def _rank_of(self, worker: int) -> int:
        return self._idle + worker * (self._ring.size - self._idle) // self._job.workers

    def _is_mine(self, worker: int) -> bool:
        return self._rank_of(worker) == self._ring.rank

    def start(self, down: Message, task: Task) -> None:
        if not self._asked:
            self._before = [copy_state(state) for state in self._own_states()]
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
        heads, total = self._agree(_ROUND)
        if not all(map(is_finite, total.values())):
            self._guess = None  # all ranks see it, and tell each other whose message it is
            heads, total = self._agree(_ROUND)
        if heads.ranks[:, 1].any():
            self._fail()
        stays = self._share_layout(heads)
        messages = self._swapped() if self._fixed else {}
        for task in self._asked:
            weight, steps, computed, finite = heads.workers[task.worker].tolist()
            up = messages.get(task.worker)
            if up is None:
                weights = {"weight": np.array(weight)}
                up = {**blank(self._layout, 0.0 if finite else np.nan), **weights}
            arrival = Arrival(task.worker, up, int(steps), self.now(), computed, task.step)
            self._done.append(arrival)
        guess, workers = self._guess, [task.worker for task in self._asked]
        self._riding = _Riding(workers, guess, total) if guess is not None and stays else None
        self._messages |= {worker: done[0] for worker, done in self._own.items()}
        self._asked, self._own = [], {}

    def _agree(self, op: int) -> tuple[Heads, Message]:
        """Swap heads until all ranks are about the same: give states to who asks; stop if one does.
        With the heads comes the sum of messages, if there is a guess of their total weight."""
        mine = self._heads(op)
        while True:
            digits, found = self._summed(self._guessed(mine))
            heads = mine.joined(digits)
            ops = set(heads.ranks[:, 0].tolist())
            if _STATES in ops:
                self._share_states()
                if op == _STATES:
                    return heads, {}
                continue
            if _STOP in ops:
                self.is_over = True
                if op == _ROUND:
                    raise StreamEnded("another rank has ended the run")
            return heads, found

    def _heads(self, op: int) -> Heads:
        """This rank's part of them."""
        heads = Heads.blank(self._ring.size, self._job.workers)
        heads.ranks[self._ring.rank, :2] = op, self._failure is not None
        for worker, (up, steps, computed) in self._own.items():
            check = zlib.crc32(layout_of(up))
            heads.ranks[self._ring.rank, 2:] = len(self._own), check
            rides = self._guess is not None and check == zlib.crc32(self._layout)
            finite = rides or all(map(is_finite, up.values()))
            heads.workers[worker] = float(up["weight"]), steps, computed, finite
        return heads

    def _guessed(self, heads: Heads) -> Packed:
        """This rank's part of the round's sum, behind its heads, if the total weight is what it
        was."""
        digits = heads.digits()
        if self._guess is None:
            return Packed(digits, digits.size, [])
        own = {worker: done[0] for worker, done in self._own.items()}
        fits = heads.ranks[self._ring.rank, 3] == zlib.crc32(self._layout)
        return self._packed(digits, own if fits else {}, self._guess)

    def _fail(self) -> NoReturn:
        own = b"" if self._failure is None else report(self._failure)
        reports = self._guarded(partial(self._ring.swap, own))
        self.is_over = True
        if self._failure is not None:
            raise self._failure
        rank = next(rank for rank, found in enumerate(reports) if len(found))
        raise raised(reports[rank].tobytes(), f"rank {rank}")

    def _share_layout(self, heads: Heads) -> bool:
        """Learn how messages are laid out, which who has none this round cannot know; whether it is
        as before."""
        sums = {int(check) for _, _, count, check in heads.ranks if count}
        if sums == {zlib.crc32(self._layout)}:
            return True
        own = layout_of(next(iter(self._own.values()))[0]) if self._own else b""
        found = {part.tobytes() for part in self._guarded(partial(self._ring.swap, own))} - {b""}
        if len(found) != 1:
            raise UnsupportedError(
                "rounds among ranks need messages of one shape; use engine processes."
            )
        self._layout = found.pop()
        lifted = self._job.algorithm.reduce.lift(blank(self._layout, 0.0), 0.0)
        self._lifted = [(name, array.dtype, array.shape) for name, array in lifted.items()]
        self._guess = self._total = None
        return False

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
        weights = {arrival.worker: float(arrival.up["weight"]) for arrival in arrivals}
        total = sum(weights.values())
        self._guess, self._total = (total if total == self._total else None), total
        riding, self._riding = self._riding, None
        if riding is not None and riding.workers == list(weights) and riding.total == total:
            return riding.sum, total
        own = {worker: self._messages[worker] for worker in weights if self._is_mine(worker)}
        return self._summed(self._packed(_NOTHING, own, total))[1], total

    def _packed(self, digits: Array, messages: Mapping[int, Message], total: float) -> Packed:
        """Numbers, and these workers' part of a reduction, zeros if there are none: in one buffer,
        into which messages are lifted."""
        reduce = self._job.algorithm.reduce
        first, *rest = [
            (up, float(up["weight"]) / total if total else 0.0) for up in messages.values()
        ] or [(blank(self._layout, 0.0), 0.0)]
        size = digits.size + sum(math.prod(shape) for _, _, shape in self._lifted)
        dtype = np.result_type(digits, *(dtype for _, dtype, _ in self._lifted))
        packed = Packed(np.empty(size, dtype), digits.size, self._lifted)
        packed.flat[: digits.size] = digits
        joined = reduce.lift(*first, out=packed.views())
        for up, share in rest:
            joined = reduce.merge(joined, reduce.lift(up, share))
        return packed

    def _summed(self, part: Packed) -> tuple[Array, Message]:
        """The sums over all ranks, by one all-reduce, of the numbers and of the messages."""
        total = part._replace(flat=self._guarded(partial(self._ring.sum, part.flat)))
        found = total.views()
        return total.flat[: part.first], {
            name: found[name].astype(dtype, copy=False) for name, dtype, _ in part.layout
        }

    def set_state(self, worker: int, state: State) -> None:
        self._workers.states[worker] = copy_state(state)

    def states(self) -> list[State]:
        self._agree(_STATES)
        return self._workers.states

    def _own_states(self) -> list[State]:
        """None for the workers of other ranks, of which a checkpoint has perhaps left copies."""
        return [s if self._is_mine(k) else None for k, s in enumerate(self._workers.states)]

    def _share_states(self) -> None:
        """Learn all workers' states, as they were before a round that is under way here."""
        own = self._before if self._asked else self._own_states()
        parts = self._guarded(partial(self._ring.swap, nest_to_bytes(own)))
        if not self._asked:
            found = [nest_from_bytes(part.tobytes()) for part in parts]
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
                ahead = not self._asked  # then others have perhaps begun the next round
                begun = [n + (ahead and not self._is_mine(k)) for k, n in enumerate(self._begun)]
                return RestartError(what, begun)
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
