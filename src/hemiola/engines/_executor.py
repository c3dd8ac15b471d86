"""What an engine must supply to the loops that all of them share, and the workers' part of them."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple, Protocol, runtime_checkable

from hemiola.algorithm import Task
from hemiola.errors import UnsupportedError
from hemiola.job import Job
from hemiola.types import Message, State, freeze


class Arrival(NamedTuple):
    """One piece of work done.

    ``finished`` is in seconds on the executor's clock; ``computed`` are the seconds of computing.
    ``tick`` is the number of the task that this answers.
    """

    worker: int
    up: Message
    steps: int
    finished: float
    computed: float
    tick: int


def as_arrival(plain: dict[str, Any]) -> Arrival:
    """An arrival from its fields in a snapshot."""
    return Arrival(**{**plain, "up": freeze(**plain["up"])})


class Change(NamedTuple):
    """A worker that is gone (``joined`` False), or one that is back and has lost its state.

    ``when`` is in seconds on the executor's clock, where that matters: on those that know ahead.
    """

    worker: int
    joined: bool
    when: float = 0.0


class Executor(Protocol):
    """What an engine supplies."""

    def start(self, down: Message, task: Task) -> None:
        """Begin ``local.work`` for the task's worker; may return before it is done."""
        ...

    def next(self, until: float | None = None) -> Arrival | Change | None:
        """What happens next, in the engine's order; waits for it.

        None: nothing did before the clock reached ``until``, or, without it, nothing ever will.
        """
        ...

    def set_state(self, worker: int, state: State) -> None:
        """Replace the state of a worker that is not at work."""
        ...

    def states(self) -> list[State]:
        """All workers' states, of those at work as it will be; None if not begun yet."""
        ...

    def pending(self) -> Sequence[Arrival | Change]:
        """All pieces begun and not yet handed over, in order; waits for them, keeps them.

        Also who comes and goes, on engines that know ahead. Who hangs is not waited for.
        """
        ...

    def restore(self, pending: Sequence[Arrival | Change], clock: float) -> None:
        """Continue from another executor's ``pending()`` and clock."""
        ...

    def now(self) -> float: ...

    def pause(self) -> None:
        """The consumer is busy: time that no worker uses does not count until ``resume``."""
        ...

    def resume(self) -> None: ...


@runtime_checkable
class Remembering(Protocol):
    """An executor that must keep more than work, states and the clock to go on exactly."""

    def memory(self) -> dict[str, float]: ...

    def recall(self, memory: dict[str, float]) -> None:
        """Continue from another executor's ``memory()``."""
        ...


@runtime_checkable
class Joining(Protocol):
    """An executor that joins a round's messages itself, as by an all-reduce."""

    def join(self, arrivals: list[Arrival]) -> tuple[Message, float]:
        """As :func:`hemiola.engines._server.reduce_arrivals`: the sum and its weight."""
        ...


class Workers:
    """The states of workers that live in this process, and their work."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.states: list[State] = [None] * job.workers

    def work(self, down: Message, task: Task) -> tuple[Message, int, float]:
        """Do a piece of work: (up, local steps taken, seconds that it took)."""
        start = perf_counter()
        local = self._job.algorithm.local
        state = self.states[task.worker]
        state = local.init(self._job.w0) if state is None else state
        before = state["t"]
        self.states[task.worker], up = local.work(state, down, task)
        return up, self.states[task.worker]["t"] - before, perf_counter() - start


def refuse_unsupported(job: Job, name: str, supports: frozenset[type], others: str) -> None:
    """Raise :class:`UnsupportedError` when the engine lacks the algorithm's discipline."""
    discipline = type(job.algorithm.communicate)
    if discipline not in supports:
        raise UnsupportedError(
            f"engine {name} has no {discipline.__name__.lower()} discipline, "
            f"which {job.algorithm.name} needs; use {others}."
        )
