"""The asynchronous loop: every message is an update, and its worker goes on, or waits at a gate."""

from __future__ import annotations

from collections.abc import Iterator

from hemiola.algorithm import Info
from hemiola.communicate import Asynchronous
from hemiola.engines._barrier import Barrier
from hemiola.engines._executor import Arrival, Change, Executor
from hemiola.engines._server import Server
from hemiola.job import Event, Job
from hemiola.types import State


def asynchronous(job: Job, executor: Executor, resume: State | None) -> Iterator[Event]:
    """One event a message that was not refused."""
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
