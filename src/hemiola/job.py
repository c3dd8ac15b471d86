"""What an engine is given, a :class:`Job`, and what it yields, an :class:`Event` an update."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hemiola.algorithm import Algorithm, Task
from hemiola.contracts import Objective, Source
from hemiola.faults import Faults
from hemiola.types import Array, State

PULL, PUSH, LEAVE, JOIN = range(4)
"""Kinds of entries in a trace."""


@dataclass
class Ledger:
    """What a run has cost so far. Bytes are payload, counted between workers and one server.

    ``waiting`` sums, over the workers, the seconds between handing in work and starting the next.
    ``staleness[s]`` counts updates that were s versions old, ``lead[s]`` reads by workers that were
    s pieces of work ahead of the slowest, ``updates[k]`` the updates by worker k. ``refused``
    messages were not finite; ``left`` and ``joined`` count workers that went away and came back,
    ``deaths[k]`` how often worker k went away.

    Of the pieces of work that were ``sent``, each has been applied, or was refused, came too late,
    was lost with its worker, or is still in flight: nothing is lost unseen, nothing counted twice.

    >>> Ledger(sent=9, updates=[2, 3], refused=1, late=1, lost=1).in_flight
    1
    """

    local_steps: int = 0
    messages: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    waiting: float = 0.0
    refused: int = 0
    left: int = 0
    joined: int = 0
    sent: int = 0
    late: int = 0
    lost: int = 0
    staleness: list[int] = field(default_factory=list)
    lead: list[int] = field(default_factory=list)
    updates: list[int] = field(default_factory=list)
    deaths: list[int] = field(default_factory=list)

    @property
    def in_flight(self) -> int:
        """Pieces of work that were sent and of which nothing has been heard."""
        return self.sent - sum(self.updates) - self.refused - self.late - self.lost

    @staticmethod
    def count(histogram: list[int], value: int) -> None:
        """Add one to a histogram's bin, which may be a new one."""
        if value >= len(histogram):
            histogram.extend([0] * (value + 1 - len(histogram)))
        histogram[value] += 1


class Trace:
    """What happened at the server, in order: enough to repeat a run to the bit.

    Entries are (kind, worker, seconds): a worker read the model and began to work (PULL), its
    message arrived (PUSH), it went away (LEAVE) or came back (JOIN).
    """

    def __init__(self) -> None:
        self.kinds = array("B")
        self.workers = array("i")
        self.seconds = array("d")

    def note(self, kind: int, worker: int, seconds: float) -> None:
        self.kinds.append(kind)
        self.workers.append(worker)
        self.seconds.append(seconds)

    def snapshot(self) -> dict[str, Array]:
        """Three arrays of one length."""
        return {
            "kinds": np.array(self.kinds, dtype=np.uint8),
            "workers": np.array(self.workers, dtype=np.int32),
            "seconds": np.array(self.seconds, dtype=np.float64),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on after another trace's snapshot."""
        self.kinds = array("B", saved["kinds"].tolist())
        self.workers = array("i", saved["workers"].tolist())
        self.seconds = array("d", saved["seconds"].tolist())


class Timeline:
    """Who did what when: one entry for every piece of work.

    ``begun`` and ``finished`` are seconds since the start, from sending a piece of work off to
    having its answer; ``computed`` seconds of that were spent on computing, the rest on the way.
    """

    def __init__(self) -> None:
        self.workers = array("i")
        self.begun = array("d")
        self.computed = array("d")
        self.finished = array("d")

    def note(self, worker: int, begun: float, computed: float, finished: float) -> None:
        self.workers.append(worker)
        self.begun.append(begun)
        self.computed.append(computed)
        self.finished.append(finished)


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
    """What an engine runs: everything but the loop. ``w0`` has shape (d,).

    What happens is noted in ``trace`` and ``timeline``, when there are such. ``faults`` are to
    befall the workers.
    """

    algorithm: Algorithm
    objective: Objective
    source: Source
    workers: int
    seed: int
    w0: Array
    trace: Trace | None = None
    timeline: Timeline | None = None
    faults: Faults = ()

    def task(self, worker: int, step: int) -> Task:
        return Task(worker, step, self.workers, self.seed, self.objective, self.source)
