"""The server's side of every loop: what it knows of the workers, what it counts, what it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from hemiola.algorithm import Info
from hemiola.communicate import Synchronous
from hemiola.contracts import Clocked, Measured
from hemiola.engines._executor import Arrival, Change, Executor, Remembering
from hemiola.engines._ticks import Ticks
from hemiola.errors import CheckpointError, DivergedError, WorkersLostError
from hemiola.job import JOIN, LEAVE, PULL, PUSH, Event, Job, Ledger
from hemiola.types import Array, Message, State, copy_state, freeze, nbytes

_REFUSALS = 100
"""This many messages in a row that are not finite, and ten a worker, end a run."""


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
