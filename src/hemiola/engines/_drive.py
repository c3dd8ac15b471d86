"""The two loops that all in-process engines share, and what an engine must supply to them.

An engine is an *executor*: it keeps the workers' states, starts their pieces of work and hands over
pieces that are done. Everything else - who takes part, who must wait, in which order messages are
reduced, what the server is told, what is counted, what a snapshot holds - is here once, so that
engines cannot differ in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from hemiola.algorithm import Info, Task
from hemiola.communicate import Asynchronous, Grouped, Synchronous
from hemiola.contracts import Clocked, Measured
from hemiola.engines._barrier import Barrier
from hemiola.engines._ticks import Ticks
from hemiola.errors import CheckpointError, DivergedError, UnsupportedError, WorkersLostError
from hemiola.job import JOIN, LEAVE, PULL, PUSH, Event, Job, Ledger
from hemiola.types import Array, Message, State, copy_state, freeze, nbytes

_REFUSALS = 100
"""This many messages in a row that are not finite, and ten a worker, end a run."""


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
        """As :func:`reduce_arrivals`: the reduced message and the total weight."""
        ...


def drive(job: Job, executor: Executor, resume: State | None) -> Iterator[Event]:
    """Run the algorithm's discipline on an executor."""
    if isinstance(job.algorithm.communicate, Synchronous):
        from hemiola.engines._rounds import synchronous

        return synchronous(job, executor, resume)
    if isinstance(job.algorithm.communicate, Grouped):
        from hemiola.engines._groups import grouped

        return grouped(job, executor, resume)
    return _asynchronous(job, executor, resume)


def refuse_unsupported(job: Job, name: str, supports: frozenset[type], others: str) -> None:
    """Raise :class:`UnsupportedError` when the engine lacks the algorithm's discipline."""
    discipline = type(job.algorithm.communicate)
    if discipline not in supports:
        raise UnsupportedError(
            f"engine {name} has no {discipline.__name__.lower()} discipline, "
            f"which {job.algorithm.name} needs; use {others}."
        )


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


class Server:
    """The server's side of a run: its state, its clock ticks and its books."""

    def __init__(self, job: Job, executor: Executor, resume: State | None) -> None:
        self.job = job
        self.executor = executor
        self.step = 0
        self.state = job.algorithm.aggregate.init(job.w0, job.workers)
        self.ledger = Ledger(updates=[0] * job.workers)
        self.ticks = Ticks([0] * job.workers)
        self.local_steps = [0] * job.workers
        self.begun = [0.0] * job.workers  # when each worker's piece of work was sent off
        self.read = [0] * job.workers  # the version that each worker read last
        self.at_work: set[int] = set()  # who owes an answer
        self.refused_in_a_row = 0
        self._in_rounds = isinstance(job.algorithm.communicate, Synchronous)
        aggregate = job.algorithm.aggregate  # looked at once: a look takes 10 us
        self._clocked = aggregate if isinstance(aggregate, Clocked) else None
        self._measured = aggregate if isinstance(aggregate, Measured) else None
        if resume is not None:
            self._restore(resume)

    def _restore(self, resume: State) -> None:
        saved = copy_state(resume)
        self.step = saved["step"]
        self.state = saved["server"]
        self.ledger = Ledger(**saved["ledger"])
        self.ticks = Ticks(saved["ticks"], saved["away"])
        self.read, self.local_steps = saved["read"], saved["local_steps"]
        self.begun = saved["begun"]
        if self.job.trace is not None:
            if saved["trace"] is None:
                raise CheckpointError(
                    "the checkpoint is of a run without a trace; resume it "
                    "without one, or start anew."
                )
            self.job.trace.restore(saved["trace"])
        self.at_work = set(_at_work(saved))
        if "sent" not in saved["ledger"]:  # a checkpoint from before pieces were counted
            self.ledger.sent = len(self.at_work) - self.ledger.in_flight
        gone = _gone(saved) if saved.get("afresh") else set()
        for worker, state in enumerate(saved["workers"]):
            if state is not None:
                self.executor.set_state(worker, state)
        pending = [_happening(entry, saved["ticks"]) for entry in saved["pending"]]
        if saved.get("afresh"):
            pending = [p for p in pending if isinstance(p, Arrival) and p.worker not in gone]
        self.executor.restore(pending, saved["clock"])
        for worker in sorted(gone):
            if worker not in self.ticks.away:
                self.change(Change(worker, joined=False))
            self.change(Change(worker, joined=True))
        if isinstance(self.executor, Remembering) and saved.get("executor"):
            self.executor.recall(saved["executor"])

    def snapshot(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        pending = [happening._asdict() for happening in self.executor.pending()]
        executor = self.executor
        memory = executor.memory() if isinstance(executor, Remembering) else {}
        return copy_state({
            "step": self.step, "clock": self.executor.now(), "server": self.state,
            "ledger": vars(self.ledger), "read": self.read, "local_steps": self.local_steps,
            "begun": self.begun, "executor": memory,
            "ticks": self.ticks.values, "away": sorted(self.ticks.away),
            "at_work": sorted(self.at_work),
            "workers": self.executor.states(), "pending": pending,
            "trace": None if self.job.trace is None else self.job.trace.snapshot(),
        })  # fmt: skip

    def send(self, worker: int) -> None:
        """Let a worker read, if it is time to, and begin its next piece of work."""
        down: Message = {}
        if self.ticks[worker] % self.job.algorithm.communicate.fetch_every == 0:
            down = self.read_for(worker, [worker])
        self.dispatch(worker, down)

    def read_for(self, number: int, workers: Sequence[int]) -> Message:
        """What these workers, known by this number, read now."""
        down = self.job.algorithm.aggregate.pull(self.state, number)
        for worker in workers:
            self.read[worker] = self.step
        self.ledger.messages += 1
        self.ledger.down(number, nbytes(down))
        return down

    def dispatch(self, worker: int, down: Message) -> None:
        """Let a worker begin its next piece of work on a message."""
        self._note(PULL, worker)
        self.ledger.count(self.ledger.lead, self.ticks.lead(worker))
        self.begun[worker] = self.executor.now()
        if self.job.timeline is not None:
            self.job.timeline.begin(worker, self.begun[worker])
        self.ledger.sent += 1
        self.at_work.add(worker)
        self.executor.start(down, self.job.task(worker, self.ticks[worker]))

    def receive(self, arrival: Arrival, inside: bool = False) -> None:
        """Count a piece of work; its message stays ``inside`` a group or comes to the server."""
        worker = arrival.worker
        if worker not in self.at_work or arrival.tick != self.ticks[worker]:
            raise AssertionError(
                f"worker {worker} answered task {arrival.tick}, but task {self.ticks[worker]} "
                f"{'was its last' if worker in self.at_work else 'has not been sent'}."
            )
        self.at_work.discard(worker)
        self._note(PUSH, worker, arrival.computed)
        begun, finished = self.begun[worker], arrival.finished
        if self.job.timeline is not None:
            self.job.timeline.note(worker, begun, arrival.computed, finished)
        # a message is on its way until the server takes it in, but one that waits for its round
        taken = finished if self._in_rounds else self.executor.now()
        self.ledger.took(worker, arrival.steps, arrival.computed, taken - begun)
        if not inside:
            self.ledger.messages += 1
            self.ledger.up(worker, nbytes(arrival.up))
        self.ledger.local_steps += arrival.steps
        self.local_steps[worker] += arrival.steps
        self.ticks.advance(worker)

    def push(self, up: Message, info: Info) -> None:
        """Apply a message."""
        self.ledger.count(self.ledger.staleness, info.staleness)
        for worker in info.workers:
            self.ledger.updates[worker] += 1
        self.ledger.pieces += len(info.workers)
        self.state = self.job.algorithm.aggregate.push(self.state, up, info)
        self.step += 1

    def refuses(self, up: Message) -> bool:
        """Whether a message is not finite. It is counted, and never applied."""
        if all(is_finite(array) for array in up.values()):
            self.refused_in_a_row = 0
            return False
        self.ledger.refused += 1
        self.refused_in_a_row += 1
        if self.refused_in_a_row > max(_REFUSALS, 10 * self.job.workers):
            raise DivergedError(
                f"training diverged: the last {self.refused_in_a_row} messages "
                "held NaN or infinite values and were refused."
            )
        return True

    def complete(self) -> None:
        """Without a message that would tell it: let the aggregate know which clocks are done."""
        if self._clocked is not None:
            self.state = self._clocked.complete(self.state, self.ticks.lowest)

    def change(self, change: Change) -> None:
        """Take a worker out, or take one back with a fresh state at the current model.

        The piece of work that is lost with a worker keeps its number.
        """
        worker = change.worker
        self._note(JOIN if change.joined else LEAVE, worker)
        if not change.joined:
            self.ticks.leave(worker)
            self.ledger.left += 1
            if self.job.timeline is not None:
                self.job.timeline.drop(worker)
            self.ledger.count(self.ledger.deaths, worker)
            if worker in self.at_work:
                self.at_work.discard(worker)
                self.ticks.advance(worker)
                self.ledger.lost += 1
            self.complete()
            return
        self.ticks.join(worker)
        self.ledger.joined += 1
        algorithm = self.job.algorithm
        state = algorithm.local.init(algorithm.aggregate.model(self.state))
        state["t"] = self.local_steps[worker]
        self.executor.set_state(worker, state)

    def abandoned(self, awaited: Iterable[int]) -> WorkersLostError:
        """The error to raise when nothing will ever happen any more."""
        if not self.ticks.present:
            return WorkersLostError("all workers are gone; the run cannot go on.")
        who = words(awaited)
        return WorkersLostError(f"{who} will never answer, and the run would wait for ever.")

    def event(self, workers: Sequence[int], staleness: int, snapshot: Callable[[], State]) -> Event:
        clock = self.executor.now()
        stopped = None if self._measured is None else self._measured.ended(self.state)
        return Event(
            self.step, clock, workers, staleness, self.state, self.ledger, snapshot, stopped
        )

    def _note(self, kind: int, worker: int, computed: float = 0.0) -> None:
        if self.job.trace is not None:
            self.job.trace.note(kind, worker, self.executor.now(), computed)


def words(workers: Iterable[int]) -> str:
    """Workers by their numbers.

    >>> words([2]), words({3, 1})
    ('worker 2', 'workers 1, 3')
    """
    numbers = sorted(workers)
    return f"worker{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _at_work(saved: State) -> list[int]:
    """Who owed an answer when the snapshot was taken."""
    if "at_work" in saved:
        return list(saved["at_work"])
    if "parked" not in saved:
        return []  # between rounds
    idle = {int(worker) for worker in (*saved["parked"], *saved["away"])}
    return sorted(set(range(len(saved["workers"]))) - idle)


def _gone(saved: State) -> set[int]:
    """Who was away, or would never have been heard of again, when the snapshot was taken."""
    answered = {entry["worker"] for entry in saved["pending"] if "up" in entry}
    begun = {worker for worker, ticks in enumerate(saved["ticks"]) if ticks}
    begun |= set(_at_work(saved))
    stateless = {worker for worker in begun if saved["workers"][worker] is None}
    return {int(worker) for worker in saved["away"]} | stateless | set(_at_work(saved)) - answered


def _happening(entry: dict[str, Any], ticks: Sequence[int]) -> Arrival | Change:
    """An entry of ``pending`` as it was; the first checkpoints had no ticks there."""
    if "up" not in entry:
        return Change(**entry)
    return Arrival(**{"tick": ticks[entry["worker"]], **entry, "up": freeze(**entry["up"])})


def is_finite(array: Array) -> bool:
    """Whether all numbers are. The sum of squares says so in one pass, unless it overflows."""
    if array.size and not any(array.strides):  # one number everywhere
        return bool(np.isfinite(array.flat[0]))
    flat = array.ravel()
    return bool(np.isfinite(np.dot(flat, flat)) or np.isfinite(flat).all())


def reduce_arrivals(job: Job, arrivals: list[Arrival]) -> tuple[Message, float]:
    """Join a round's messages in rank order, so that the sum's rounding is the same everywhere."""
    reduce = job.algorithm.reduce
    weights = [float(arrival.up["weight"]) for arrival in arrivals]
    total = sum(weights)
    shares = [weight / total if total else 0.0 for weight in weights]
    joined: dict[str, Array] = reduce.lift(arrivals[0].up, shares[0])
    for arrival, share in zip(arrivals[1:], shares[1:], strict=True):
        joined = reduce.merge(joined, reduce.lift(arrival.up, share))
    return joined, total


def _asynchronous(job: Job, executor: Executor, resume: State | None) -> Iterator[Event]:
    server = Server(job, executor, resume)
    gate = _gate(server)
    if resume is None:
        for worker in range(job.workers):
            gate.start(worker, executor.now())
    else:
        gate.restore(resume)
        for worker in range(job.workers):
            if worker not in server.at_work | server.ticks.away | gate.parked.keys():
                gate.start(worker, executor.now())

    def snapshot() -> State:
        return {**server.snapshot(), **gate.snapshot()}

    while True:
        happened = executor.next()
        if happened is None:
            raise server.abandoned(server.at_work)
        if isinstance(happened, Change):
            server.change(happened)
            if happened.joined:
                gate.start(happened.worker, executor.now())
            gate.release()
            continue
        staleness = apply(server, happened)
        gate.start(happened.worker, happened.finished)
        gate.release()
        if staleness is None:
            continue
        event = server.event((happened.worker,), staleness, snapshot)
        executor.pause()
        yield event
        executor.resume()


def apply(server: Server, arrival: Arrival) -> int | None:
    """Take in one worker's message; its staleness, or None if it was refused."""
    worker = arrival.worker
    server.receive(arrival)
    if server.refuses(arrival.up):
        server.complete()
        return None
    staleness = server.step - server.read[worker]
    weight = float(arrival.up["weight"])
    tick, lowest = server.ticks[worker] - 1, server.ticks.lowest
    workers = server.job.workers
    info = Info(server.step, (worker,), weight, staleness, workers, tick, lowest)
    server.push(arrival.up, info)
    return staleness


def _gate(server: Server) -> _Gate | Barrier:
    discipline = server.job.algorithm.communicate
    assert isinstance(discipline, Asynchronous)
    together = discipline.barrier > 1 or discipline.max_delay is not None
    return Barrier(server) if together else _Gate(server)


class _Gate:
    """Bounded lead: a worker may be ``max_lead`` ticks ahead of the slowest, and waits beyond.

    A worker's tick count is that of its completed pieces of work; it may *read* when
    min_j ticks[j] >= ticks[k] - max_lead. Workers that went away hold nobody up.
    """

    def __init__(self, server: Server) -> None:
        discipline = server.job.algorithm.communicate
        assert isinstance(discipline, Asynchronous)
        self._server = server
        self._max_lead = discipline.max_lead
        self.parked: dict[int, float] = {}
        self._looked: tuple[int, ...] = ()

    def start(self, worker: int, finished: float) -> None:
        """Let a worker go on that has been idle since ``finished``, or park it."""
        lead = self._server.ticks.lead(worker)
        if self._max_lead is not None and lead > self._max_lead:
            self.parked[worker] = finished
            return
        self._server.ledger.waiting += self._server.executor.now() - finished
        self._server.send(worker)

    def release(self) -> None:
        """Let those go on that need not wait any longer, in rank order.

        Nobody can, as long as the slowest is where it was and the same workers are there.
        """
        ledger = self._server.ledger
        now = (self._server.ticks.lowest, ledger.left, ledger.joined)
        if now == self._looked:
            return
        self._looked = now
        for worker in sorted(self.parked):
            if worker in self._server.ticks.away:
                del self.parked[worker]
            elif self._server.ticks.lead(worker) <= (self._max_lead or 0):
                self.start(worker, self.parked.pop(worker))

    def snapshot(self) -> State:
        """What a resumed run needs besides what the server keeps."""
        return {"parked": {str(worker): finished for worker, finished in self.parked.items()}}

    def restore(self, saved: State) -> None:
        self.parked = {int(worker): finished for worker, finished in saved["parked"].items()}
