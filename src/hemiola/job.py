"""What an engine is given, a :class:`Job`, and what it yields, an :class:`Event` an update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hemiola.algorithm import Algorithm, Task
from hemiola.contracts import Objective, Source
from hemiola.types import Array, State


@dataclass
class Ledger:
    """What a run has cost so far. Bytes are payload, counted between workers and one server.

    ``waiting`` sums, over the workers, the seconds between handing in work and starting the next.
    ``staleness[s]`` counts updates that were s versions old; ``updates[k]`` those of worker k.
    """

    local_steps: int = 0
    messages: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    waiting: float = 0.0
    staleness: list[int] = field(default_factory=list)
    updates: list[int] = field(default_factory=list)

    def count_staleness(self, staleness: int) -> None:
        if staleness >= len(self.staleness):
            self.staleness.extend([0] * (staleness + 1 - len(self.staleness)))
        self.staleness[staleness] += 1


@dataclass(frozen=True, slots=True)
class Event:
    """One update of the server.

    ``step`` updates so far, this one included; ``clock`` seconds since the start, virtual in the
    simulator; ``server`` the server's state, to be read now or never; ``snapshot()`` everything
    that is needed to resume right after this event.
    """

    step: int
    clock: float
    workers: Sequence[int]
    staleness: int
    server: State
    ledger: Ledger
    snapshot: Callable[[], State]


@dataclass(frozen=True)
class Job:
    """What an engine runs: everything but the loop. ``w0`` has shape (d,)."""

    algorithm: Algorithm
    objective: Objective
    source: Source
    workers: int
    seed: int
    w0: Array

    def task(self, worker: int, step: int) -> Task:
        return Task(worker, step, self.workers, self.seed, self.objective, self.source)
