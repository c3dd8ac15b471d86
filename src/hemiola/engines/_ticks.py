"""How many pieces of work each worker has done, and the least of them, at a cost that does not grow
with the number of workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


class Ticks:
    """Counts of workers 0, 1, ..., K-1, of which some may be away.

    >>> ticks = Ticks([0, 0, 0])
    >>> ticks.advance(0), ticks.lowest
    (None, 0)
    >>> ticks.advance(1), ticks.leave(2), ticks.lowest
    (None, None, 1)
    """

    def __init__(self, values: Sequence[int], away: Iterable[int] = ()) -> None:
        self.values = list(values)
        self.away = set(away)
        present = [tick for worker, tick in enumerate(values) if worker not in self.away]
        self._count = Counter(present)
        self.lowest = min(present, default=0)

    def __getitem__(self, worker: int) -> int:
        return self.values[worker]

    def lead(self, worker: int) -> int:
        """How far a worker is ahead of the slowest one present."""
        return self.values[worker] - self.lowest

    def advance(self, worker: int) -> None:
        """One more piece of work done."""
        self.values[worker] += 1
        if worker not in self.away:
            self._count[self.values[worker]] += 1
            self._drop(self.values[worker] - 1)

    def leave(self, worker: int) -> None:
        """Hold nobody up from now on."""
        if worker not in self.away:
            self.away.add(worker)
            self._drop(self.values[worker])

    def join(self, worker: int) -> None:
        """Be back, not behind the slowest one present."""
        self.away.discard(worker)
        self.values[worker] = max(self.values[worker], self.lowest)
        self._count[self.values[worker]] += 1

    @property
    def present(self) -> int:
        return len(self.values) - len(self.away)

    def _drop(self, value: int) -> None:
        self._count[value] -= 1
        while self._count[self.lowest] <= 0 and self.present:
            del self._count[self.lowest]
            self.lowest += 1
