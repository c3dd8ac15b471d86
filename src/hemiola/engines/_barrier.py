"""The gate of asynchronous runs with a partial barrier: who has answered waits for company."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hemiola.communicate import Asynchronous
from hemiola.types import State

if TYPE_CHECKING:
    from hemiola.engines._server import Server


class Barrier:
    """Workers that have answered read the next model together: as soon as ``barrier`` of them are
    there, and nobody at work would miss its ``max_delay``-th release.

    A worker that is new, or back, reads at once. Workers that went away hold nobody up.
    """

    def __init__(self, server: Server) -> None:
        discipline = server.job.algorithm.communicate
        assert isinstance(discipline, Asynchronous)
        self._server = server
        self._discipline = discipline
        self.parked: dict[int, float] = {}
        self._released = 0
        self._at_work: dict[int, int] = {}  # with which release each went on, the oldest first

    def start(self, worker: int, finished: float) -> None:
        """Park a worker that has been idle since ``finished``, unless it has never read."""
        if self._at_work.pop(worker, None) is None:
            self._go(worker, finished)
        else:
            self.parked[worker] = finished

    def release(self) -> None:
        """Let all who wait go on, in rank order, if they are enough and nobody is overdue."""
        for worker in self._server.ticks.away:
            self._at_work.pop(worker, None)
            self.parked.pop(worker, None)
        if not self.parked or not self._may_go():
            return
        self._released += 1
        for worker in sorted(self.parked):
            self._go(worker, self.parked.pop(worker))

    def _may_go(self) -> bool:
        present = len(self.parked) + len(self._at_work)
        if len(self.parked) < min(self._discipline.barrier, present):
            return False
        oldest, most = next(iter(self._at_work.values()), None), self._discipline.max_delay
        return oldest is None or most is None or self._released + 1 - oldest < most

    def _go(self, worker: int, finished: float) -> None:
        self._at_work[worker] = self._released
        self._server.ledger.waiting += self._server.executor.now() - finished
        self._server.send(worker)

    def snapshot(self) -> State:
        """What a resumed run needs besides what the server keeps."""
        parked = {str(worker): finished for worker, finished in self.parked.items()}
        releases = [list(pair) for pair in self._at_work.items()]
        return {"parked": parked, "released": self._released, "releases": releases}

    def restore(self, saved: State) -> None:
        self.parked = {int(worker): finished for worker, finished in saved["parked"].items()}
        self._at_work = {int(worker): int(release) for worker, release in saved["releases"]}
        self._released = saved["released"]
