"""The two loops that all in-process engines share, and what an engine must supply to them.

An engine is an *executor*: it starts a worker's piece of work and hands over pieces that are done.
Everything else - who takes part, in which order messages are reduced, what the server is told, what
is counted, what a snapshot holds - is here once, so that engines cannot differ in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from hemiola.algorithm import Info, Task
from hemiola.communicate import Synchronous
from hemiola.errors import UnsupportedError
from hemiola.job import Event, Job, Ledger
from hemiola.types import Array, Message, State, copy_state, freeze, nbytes


class Call(NamedTuple):
    """One piece of work to be done: ``local.work(state, down, task)``."""

    state: State
    down: Message
    task: Task


class Arrival(NamedTuple):
    """One piece of work done. Times are seconds on the executor's clock."""

    worker: int
    state: State
    up: Message
    steps: int
    finished: float


class Executor(Protocol):
    """What an engine supplies."""

    def start(self, call: Call) -> None:
        """Begin; may return before the work is done."""
        ...

    def next(self) -> Arrival:
        """The next piece in the engine's order of arrival; waits for it."""
        ...

    def pending(self) -> list[Arrival]:
        """All pieces begun and not yet handed over, in order; waits for them, keeps them."""
        ...

    def restore(self, arrivals: list[Arrival], clock: float) -> None:
        """Continue from another executor's ``pending()`` and clock."""
        ...

    def now(self) -> float: ...

    def pause(self) -> None:
        """The consumer is busy: time that no worker uses does not count until ``resume``."""
        ...

    def resume(self) -> None: ...


def drive(job: Job, executor: Executor, resume: State | None) -> Iterator[Event]:
    """Run the algorithm's discipline on an executor."""
    if isinstance(job.algorithm.communicate, Synchronous):
        return _synchronous(job, executor, resume)
    return _asynchronous(job, executor, resume)


def refuse_unsupported(job: Job, name: str, supports: frozenset[type], others: str) -> None:
    """Raise :class:`UnsupportedError` when the engine lacks the algorithm's discipline."""
    discipline = type(job.algorithm.communicate)
    if discipline not in supports:
        raise UnsupportedError(
            f"engine {name} has no {discipline.__name__.lower()} discipline, "
            f"which {job.algorithm.name} needs; use {others}."
        )


def perform(job: Job, call: Call) -> tuple[State, Message, int]:
    """Do the work: (state, up, local steps taken)."""
    before = call.state["t"]
    state, up = job.algorithm.local.work(call.state, call.down, call.task)
    return state, up, state["t"] - before


class _Run:
    """What both loops keep: the server, the last message down, and the ledger."""

    def __init__(self, job: Job, executor: Executor, resume: State | None) -> None:
        self.job = job
        self.executor = executor
        if resume is None:
            self.step = 0
            self.server, self.down = job.algorithm.aggregate.init(job.w0, job.workers)
            self.ledger = Ledger(updates=[0] * job.workers)
            self.workers: list[State | None] = [None] * job.workers
            return
        saved = copy_state(resume)
        self.step = saved["step"]
        self.server = saved["server"]
        self.down = freeze(**saved["down"])
        self.ledger = Ledger(**saved["ledger"])
        self.workers = saved["workers"]
        executor.restore([], saved["clock"])

    def worker_state(self, worker: int) -> State:
        state = self.workers[worker]
        return self.job.algorithm.local.init(self.job.w0) if state is None else state

    def start(self, worker: int, step: int) -> None:
        """Send the latest message down to a worker and let it work."""
        self.ledger.messages += 1
        self.ledger.bytes_down += nbytes(self.down)
        call = Call(self.worker_state(worker), self.down, self.job.task(worker, step))
        self.workers[worker] = None  # the executor owns it now
        self.executor.start(call)

    def receive(self, arrival: Arrival) -> None:
        self.ledger.messages += 1
        self.ledger.bytes_up += nbytes(arrival.up)
        self.ledger.local_steps += arrival.steps
        self.ledger.updates[arrival.worker] += 1
        self.workers[arrival.worker] = arrival.state

    def update(self, up: Message, info: Info) -> None:
        self.ledger.count_staleness(info.staleness)
        aggregate = self.job.algorithm.aggregate
        self.server, self.down = aggregate.update(self.server, up, info)
        self.step += 1

    def event(self, workers: Sequence[int], staleness: int, snapshot: Any) -> Event:
        clock = self.executor.now()
        return Event(self.step, clock, workers, staleness, self.server, self.ledger, snapshot)

    def snapshot(self) -> dict[str, Any]:
        """Everything but what the executor holds."""
        return copy_state(
            {
                "step": self.step,
                "clock": self.executor.now(),
                "server": self.server,
                "down": dict(self.down),
                "ledger": vars(self.ledger),
                "workers": self.workers,
            }
        )


def _synchronous(job: Job, executor: Executor, resume: State | None) -> Iterator[Event]:
    run = _Run(job, executor, resume)
    discipline = job.algorithm.communicate
    assert isinstance(discipline, Synchronous)
    while True:
        members = discipline.members(run.step, job.workers, job.seed)
        for worker in members:
            run.start(worker, run.step)
        arrivals = sorted((executor.next() for _ in members), key=lambda arrival: arrival.worker)
        for arrival in arrivals:
            run.receive(arrival)
        up, weight = _reduce(job, arrivals)
        run.update(up, Info(run.step, members, weight, 0, job.workers))
        end = executor.now()
        run.ledger.waiting += sum(end - arrival.finished for arrival in arrivals)
        event = run.event(members, 0, run.snapshot)
        executor.pause()
        yield event
        executor.resume()


def _reduce(job: Job, arrivals: list[Arrival]) -> tuple[Message, float]:
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
    run = _Run(job, executor, resume)
    if resume is None:
        read = [0] * job.workers
        for worker in range(job.workers):
            run.start(worker, 0)
    else:
        read = list(resume["read"])
        pending = [
            Arrival(**{**saved, "up": freeze(**saved["up"])})
            for saved in copy_state(resume["pending"])
        ]
        executor.restore(pending, resume["clock"])

    def snapshot() -> State:
        pending = [arrival._asdict() for arrival in executor.pending()]
        return {**run.snapshot(), "read": list(read), "pending": copy_state(pending)}

    while True:
        arrival = executor.next()
        worker = arrival.worker
        run.receive(arrival)
        staleness = run.step - read[worker]
        weight = float(arrival.up["weight"])
        run.update(arrival.up, Info(run.step, (worker,), weight, staleness, job.workers))
        read[worker] = run.step
        run.ledger.waiting += executor.now() - arrival.finished
        run.start(worker, run.ledger.updates[worker])
        event = run.event((worker,), staleness, snapshot)
        executor.pause()
        yield event
        executor.resume()
