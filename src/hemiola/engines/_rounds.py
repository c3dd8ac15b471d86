"""The synchronous loop: who takes part in a round, how long it waits, and what becomes of those
that are late, wrong or gone. :class:`~hemiola.communicate.Synchronous` says what is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from hemiola.algorithm import Info
from hemiola.communicate import Synchronous
from hemiola.engines._executor import Arrival, Change, Executor, Joining
from hemiola.engines._server import Server, reduce_arrivals, words
from hemiola.errors import DivergedError, RestartError, WorkersLostError
from hemiola.job import Event, Job
from hemiola.types import State


def synchronous(job: Job, executor: Executor, resume: State | None) -> Iterator[Event]:
    """One event a round."""
    server = Server(job, executor, resume)
    join = executor.join if isinstance(executor, Joining) else partial(reduce_arrivals, job)
    while True:
        arrived = _Round(server)
        answers = arrived.answers()
        up, weight = join(answers)
        there = [arrival.worker for arrival in answers]
        server.push(up, Info(server.step, there, weight, 0, job.workers, server.step))
        end = executor.now()
        server.ledger.waiting += sum(end - finished for finished in arrived.idle_since)
        event = server.event(there, 0, server.snapshot)
        executor.pause()
        yield event
        executor.resume()


class _Round:
    """The messages that one update is made of.

    ``idle_since`` says when each message came, of which nothing came of some.
    """

    def __init__(self, server: Server) -> None:
        discipline = server.job.algorithm.communicate
        assert isinstance(discipline, Synchronous)
        self._discipline = discipline
        self._server = server
        self._sampled = discipline.members(server.step, server.job.workers, server.job.seed)
        self._enough = discipline.enough(len(self._sampled))
        self._asked: set[int] = set()
        self._taken: list[Arrival] = []
        self._refused: list[Arrival] = []
        self.idle_since: list[float] = []

    def answers(self) -> list[Arrival]:
        """The answers that count, in rank order: at least one."""
        while not self._taken:
            begun = self._server.executor.now()
            asked = self._ask()
            self._wait(begun, asked)
            self._count()
        return self._taken

    def _ask(self) -> bool:
        """Send the model to the members that are free, or else to whoever is; whether any is."""
        busy = self._server.ticks.away | self._server.at_work
        members = [worker for worker in self._sampled if worker not in busy]
        members = members or [k for k in range(self._server.job.workers) if k not in busy]
        for worker in members:
            self._server.send(worker)
        self._asked.update(members)
        return bool(members)

    def _wait(self, begun: float, asked: bool) -> None:
        """Until there are enough answers, or time is up, or nobody is left who could answer."""
        timeout = self._discipline.timeout
        until = begun + timeout if asked and timeout is not None else None
        if not self._asked:  # all are at work for earlier rounds, or away
            self._hear(until)
        while self._asked and len(self._taken) < self._enough:
            if not self._hear(until):
                self._time_is_up()
                return

    def _hear(self, until: float | None) -> bool:
        """Take in what happens next; False when time is up."""
        happened = self._server.executor.next(until)
        if isinstance(happened, Change):
            self._change(happened)
        elif happened is not None:
            self._hear_from(happened)
        elif until is None:
            raise self._server.abandoned(self._asked or self._server.at_work)
        return happened is not None

    def _hear_from(self, arrival: Arrival) -> None:
        if arrival.worker not in self._asked:
            self._server.ledger.late += 1
            self._server.receive(arrival)
            self.idle_since.append(arrival.finished)
            return
        self._asked.discard(arrival.worker)
        (self._refused if self._server.refuses(arrival.up) else self._taken).append(arrival)

    def _count(self) -> None:
        """Enter the answers of this time into the books, in rank order."""
        self._taken.sort(key=lambda arrival: arrival.worker)
        for arrival in sorted(self._taken + self._refused, key=lambda arrival: arrival.worker):
            self._server.receive(arrival)
            self.idle_since.append(arrival.finished)
        if self._refused and self._discipline.on_loss != "drop":
            self._refuse()
        self._refused = []

    def _refuse(self) -> None:
        wrong = words(arrival.worker for arrival in self._refused)
        what = f"the answer of {wrong} to round {self._server.step} held NaN or infinite values"
        if self._taken:
            raise WorkersLostError(
                f"{what}, and on_loss={self._discipline.on_loss!r} does not go on without it; "
                "with on_loss='drop' it would be dropped."
            )
        raise DivergedError(f"training diverged: {what}.")

    def _time_is_up(self) -> None:
        """Go on with the answers that are there, or else with the first one."""
        if self._discipline.late == "raise":
            raise WorkersLostError(
                f"{words(self._asked)} did not answer to round {self._server.step} within "
                f"{self._discipline.timeout:g} seconds; allow more time, or drop late answers."
            )
        self._enough = 1

    def _change(self, change: Change) -> None:
        self._asked.discard(change.worker)
        self._server.change(change)
        if change.joined or self._discipline.on_loss == "drop":
            return
        what = f"worker {change.worker} died in round {self._server.step}"
        if self._discipline.on_loss == "raise":
            raise WorkersLostError(f"{what}; with on_loss='drop' the others would go on.")
        at_work, ticks = self._server.at_work, self._server.ticks
        begun = [ticks[k] + (k in at_work) for k in range(self._server.job.workers)]
        raise RestartError(what, begun)
