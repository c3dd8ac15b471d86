"""What an engine is given, a :class:`Job`, and what it yields, an :class:`Event` an update."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hemiola.algorithm import Algorithm, Task
from hemiola.contracts import Objective, Source
from hemiola.dataset import Dataset
from hemiola.faults import Faults
from hemiola.types import Array, State

PULL, PUSH, LEAVE, JOIN, GROUP, LEAD = range(6)
"""Kinds of entries in a trace. A worker's GROUP is followed by the LEAD of its new group."""


@dataclass
class Ledger:
    """What a run has cost so far. Bytes are payload, counted between workers and one server.

    ``pieces`` of work were applied, each one local computation of one worker. ``waiting`` sums,
    over the workers, the seconds between handing in work and starting the next. ``bytes_inside`` is
    what moved inside groups. ``staleness[s]`` counts updates that were s versions old, ``lead[s]``
    reads by workers that were s pieces of work ahead of the slowest, ``updates[k]`` the updates by
    worker k. ``refused`` messages were not finite; ``left`` and ``joined`` count workers that went
    away and came back, ``deaths[k]`` how often worker k went away. ``groups`` are the books of
    groups of workers, past and present.

    ``links[k]`` are the bytes to and from worker k. ``times[k]`` are running sums over worker k's
    pieces of work but the first, which may have warmed something up: their number, local steps,
    seconds of computing, logarithms of seconds of computing a step, squares of those, seconds on
    the way.

    Of the pieces of work that were ``sent``, each has been applied, or was refused, came too late,
    was lost with its worker, or is still in flight: nothing is lost unseen, nothing counted twice.

    >>> Ledger(sent=9, pieces=5, refused=1, late=1, lost=1).in_flight
    1

    ``undone[i]`` is the share of what pass i over shared memory meant to change and races undid, if
    that was counted.
    """

    local_steps: int = 0
    pieces: int = 0
    messages: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_inside: int = 0
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
    undone: list[float] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    times: list[list[float]] = field(default_factory=list)

    def open_groups(
        self, members: dict[int, list[int]], expected: Sequence[Sequence[float]] | None, now: float
    ) -> dict[int, dict[str, Any]]:
        """From ``now`` on there are these groups; (seconds, staleness) of each as expected. Returns
        their books by number."""
        for group in self.groups:
            group.setdefault("until", now)
        for i, (number, workers) in enumerate(members.items()):
            seconds, staleness = (None, None) if expected is None else expected[i]
            self.groups.append({
                "number": number, "members": list(workers), "since": now, "updates": 0,
                "staleness": 0, "samples": 0.0, "expected_seconds": seconds,
                "expected_staleness": staleness,
            })  # fmt: skip
        return self.open_books()

    def open_books(self) -> dict[int, dict[str, Any]]:
        """The books of the present groups, by number."""
        return {group["number"]: group for group in self.groups if "until" not in group}

    def down(self, worker: int, size: int) -> None:
        """Count a message to a worker."""
        self.bytes_down += size
        self._grow(worker)
        self.links[worker] += size

    def up(self, worker: int, size: int) -> None:
        """Count a message from a worker."""
        self.bytes_up += size
        self._grow(worker)
        self.links[worker] += size

    def took(self, worker: int, steps: int, computed: float, seconds: float) -> None:
        """Count what a piece of work took: ``seconds``, ``computed`` of which were computing."""
        self._grow(worker)
        sums = self.times[worker]
        if not sums:
            sums.extend([0.0] * 6)
        elif steps > 0 and computed > 0:
            log = math.log(computed / steps)
            sums[0] += 1
            sums[1] += steps
            sums[2] += computed
            sums[3] += log
            sums[4] += log * log
            sums[5] += max(seconds - computed, 0.0)

    def _grow(self, worker: int) -> None:
        while len(self.links) <= worker:
            self.links.append(0)
        while len(self.times) <= worker:
            self.times.append([])

    @property
    def in_flight(self) -> int:
        """Pieces of work that were sent and of which nothing has been heard."""
        return self.sent - self.pieces - self.refused - self.late - self.lost

    @staticmethod
    def count(histogram: list[int], value: int) -> None:
        """Add one to a histogram's bin, which may be a new one."""
        if value >= len(histogram):
            histogram.extend([0] * (value + 1 - len(histogram)))
        histogram[value] += 1


class Trace:
    """What happened at the server, in order: enough to repeat a run to the bit.

    Entries are (kind, worker, seconds): a worker read the model and began to work (PULL), its
    message arrived (PUSH), it went away (LEAVE) or came back (JOIN). ``computed`` says how many
    seconds a PUSH's work was computing, where that is known; nothing depends on it.
    """

    def __init__(self) -> None:
        self.kinds = array("B")
        self.workers = array("i")
        self.seconds = array("d")
        self.computed = array("d")

    def note(self, kind: int, worker: int, seconds: float, computed: float = 0.0) -> None:
        self.kinds.append(kind)
        self.workers.append(worker)
        self.seconds.append(seconds)
        self.computed.append(computed)

    def snapshot(self) -> dict[str, Array]:
        """Four arrays of one length."""
        return {
            "kinds": np.array(self.kinds, dtype=np.uint8),
            "workers": np.array(self.workers, dtype=np.int32),
            "seconds": np.array(self.seconds, dtype=np.float64),
            "computed": np.array(self.computed, dtype=np.float64),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on after another trace's snapshot, which may lack ``computed``."""
        self.kinds = array("B", saved["kinds"].tolist())
        self.workers = array("i", saved["workers"].tolist())
        self.seconds = array("d", saved["seconds"].tolist())
        computed = np.asarray(saved.get("computed", ()), dtype=np.float64)
        known = computed.shape == (len(self.seconds),)
        self.computed = array("d", computed.tolist() if known else [0.0] * len(self.seconds))


class Timeline:
    """Who did what when: one entry for every piece of work.

    ``begun`` and ``finished`` are seconds since the start, from sending a piece of work off to
    having its answer; ``computed`` seconds of that were spent on computing, the rest on the way.
    ``open`` says since when a worker has been at a piece whose answer is not there yet.
    """

    def __init__(self) -> None:
        self.workers = array("i")
        self.begun = array("d")
        self.computed = array("d")
        self.finished = array("d")
        self.open: dict[int, float] = {}

    def begin(self, worker: int, seconds: float) -> None:
        """A piece of work was sent off."""
        self.open[worker] = seconds

    def drop(self, worker: int) -> None:
        """The answer will never come."""
        self.open.pop(worker, None)

    def note(self, worker: int, begun: float, computed: float, finished: float) -> None:
        """The answer is there."""
        self.open.pop(worker, None)
        self.workers.append(worker)
        self.begun.append(begun)
        self.computed.append(computed)
        self.finished.append(finished)


@dataclass(frozen=True, slots=True)
class Event:
    """One update of the server.

    ``step`` updates so far, this one included; ``clock`` seconds since the start, virtual in the
    simulator; ``server`` the server's state, to be read now or never; ``snapshot()`` everything
    that is needed to resume right after this event; ``stopped`` a sentence, if the algorithm has
    come to its end by itself; ``gap()`` the duality gap, of algorithms that have one.
    """

    step: int
    clock: float
    workers: Sequence[int]
    staleness: int
    server: State
    ledger: Ledger
    snapshot: Callable[[], State]
    stopped: str | None = None
    gap: Callable[[], float | None] = lambda: None


@dataclass(frozen=True)
class Work:
    """What a solver of shared memory works on, with so many ``threads``."""

    objective: Objective
    data: Dataset
    threads: int
    seed: int


@dataclass(frozen=True)
class Job:
    """What an engine runs: everything but the loop. ``w0`` has shape (d,).

    What happens is noted in ``trace`` and ``timeline``, when there are such. ``faults`` are to
    befall the workers. ``tell`` is given what a solver has to say before its first pass.
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
    tell: Callable[[list[str]], None] | None = None

    def task(self, worker: int, step: int) -> Task:
        return Task(worker, step, self.workers, self.seed, self.objective, self.source)
