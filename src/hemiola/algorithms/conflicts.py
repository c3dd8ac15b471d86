"""Plans without conflicts: which samples of a batch may be worked on at the same time.

Two samples are in conflict if they touch a parameter in common. The connected components of a
batch's graph of conflicts share no parameter, so each may run on a core of its own without locks,
and the outcome is that of working through the batch in order. Components are found by union-find
with path halving (Galler and Fischer 1964) or, alternatively, by propagating the least label, and
dealt to the cores largest first (Graham 1969), which needs at most 4/3 - 1/(3P) times the shortest
time. Batches are independent of each other, so the cores share the planning.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from hemiola.errors import OptionError
from hemiola.kernels import components as kernels
from hemiola.storage import load_nest, save_nest
from hemiola.team import Team
from hemiola.types import Array

SMALLEST_BATCH = 125
PAYS = 1.5
"""The least speed-up in prospect for which work is divided at all."""

_PROBES = 4  # batches to look at for each size that is considered
_FORMAT = "hemiola-conflicts-1"


@dataclass(frozen=True, eq=False)
class Touched:
    """Sample j touches the parameters ``columns[starts[j]:starts[j + 1]]`` out of ``n``."""

    starts: Array
    columns: Array
    n: int

    @property
    def load(self) -> Array:
        """How many parameters each sample touches, at least 1 for its own overhead."""
        return np.maximum(np.diff(self.starts.astype(np.int64)), 1)


@dataclass(frozen=True, eq=False)
class Schedule:
    """Who does what: core p of batch b executes the positions ``position[bounds[b P + p] : ...]``.

    ``position``  (T,) positions in the order of execution, batch by batch and core by core;
    ``bounds``    (batches P + 1,);
    ``busy``      (batches, P) loads;
    ``largest``   (batches,) load of the largest component of each batch.
    """

    batch: int
    cores: int
    position: Array
    bounds: Array
    busy: Array
    largest: Array

    @property
    def batches(self) -> int:
        return len(self.largest)

    @property
    def balance(self) -> float:
        """The speed-up over one core if cores were all that counts: work over longest work."""
        return float(self.busy.sum() / max(self.busy.max(axis=1).sum(), 1))


def label(touched: Touched, rows: Array, batch: int, team: Team | None = None) -> Array:
    """The component of each position in ``rows`` (T,): the least position in it, counted inside
    its batch. Union-find; the batches are shared out among the team.

    >>> touched = Touched(np.array([0, 1, 2, 4]), np.array([5, 6, 5, 7]), 8)
    >>> label(touched, np.array([0, 1, 2, 1]), batch=4).tolist()
    [0, 1, 0, 1]
    """
    labels = np.empty(len(rows), dtype=np.int32)
    _share(team, lambda first, step: kernels.label_batches(
        rows, touched.starts, touched.columns, touched.n, batch, first, step, labels
    ))  # fmt: skip
    return labels


def label_by_propagation(touched: Touched, rows: Array, rounds: int = 50) -> Array:
    """The same for one batch of ``rows`` by propagating the least label, a round at a time.

    A round carries a label from a sample to those in conflict with it, so a chain of m samples
    needs m rounds; after ``rounds`` of them union-find takes over.
    """
    entries = [touched.columns[int(touched.starts[j]) : int(touched.starts[j + 1])] for j in rows]
    columns = np.concatenate(entries)
    owner = np.repeat(np.arange(len(rows)), [len(entry) for entry in entries])
    labels = np.arange(len(rows), dtype=np.int32)
    for _ in range(rounds):
        least = np.full(touched.n, len(rows), dtype=np.int32)
        np.minimum.at(least, columns, labels[owner])
        new = labels.copy()
        np.minimum.at(new, owner, least[columns])
        if np.array_equal(new, labels):
            return labels
        labels = new
    return label(touched, rows, max(len(rows), 1))


def schedule(
    labels: Array, load: Array, batch: int, cores: int, team: Team | None = None
) -> Schedule:
    """Deal every batch's components to the cores. ``load`` (T,) is that of each position."""
    batches = math.ceil(len(labels) / batch)
    made = Schedule(
        batch, cores, np.empty(len(labels), np.int64), np.zeros(batches * cores + 1, np.int64),
        np.zeros((batches, cores), np.int64), np.zeros(batches, np.int64),
    )  # fmt: skip
    made.bounds[-1] = len(labels)
    _share(team, lambda first, step: kernels.schedule_batches(
        labels, load, batch, cores, first, step,
        made.position, made.bounds, made.busy, made.largest,
    ))  # fmt: skip
    return made


def serial(load: Array, batch: int) -> Schedule:
    """One core, everything in order; batches are cut all the same."""
    edges = np.append(np.arange(0, len(load), batch), len(load))
    busy = np.add.reduceat(load, edges[:-1])[:, None]
    return Schedule(batch, 1, np.arange(len(load)), edges, busy, busy[:, 0])


@dataclass(frozen=True)
class Forecast:
    """What a plan would be like, from a few of its batches.

    ``balance``  the speed-up if cores were all that counts;
    ``largest``  the share of a batch's work in its largest component;
    ``seconds``  that finding all components would take on one core.
    """

    batch: int
    cores: int
    balance: float
    largest: float
    seconds: float

    @property
    def pays(self) -> bool:
        """Is a speed-up in prospect that would be noticed?"""
        return self.balance >= PAYS


def forecast(touched: Touched, batch: int, cores: int) -> Forecast:
    """Plan a few batches from all over the samples, which are to be visited as they lie."""
    if cores == 1:
        return Forecast(batch, 1, 1.0, 1.0, 0.0)
    total = len(touched.starts) - 1
    chosen = np.unique(np.linspace(0, max(total // batch, 1) - 1, _PROBES).astype(int))
    rows = np.concatenate([np.arange(b * batch, min((b + 1) * batch, total)) for b in chosen])
    begun = perf_counter()
    seen = schedule(label(touched, rows, batch), touched.load[rows], batch, cores)
    seconds = (perf_counter() - begun) * total / len(rows)
    largest = float(seen.largest.sum() / seen.busy.sum())
    return Forecast(batch, cores, seen.balance, largest, seconds)


def choose_batch(touched: Touched, cores: int) -> int:
    """The largest batch whose largest component stays below the P-th part of it; beyond that one
    core alone decides how long a batch takes. Doubles from 125."""
    total = len(touched.starts) - 1
    best = batch = min(SMALLEST_BATCH, total)
    while batch <= total and forecast(touched, batch, cores).largest < 1 / cores:
        best, batch = batch, 2 * batch
    return best


def digest(touched: Touched) -> str:
    """Of everything that the components depend on, but for the size of batches."""
    hashed = hashlib.sha256()
    for array in (touched.starts, touched.columns):
        hashed.update(array.tobytes())
    return hashed.hexdigest()


def save_labels(path: Path, labels: Array, batch: int, key: str) -> None:
    """Keep what takes longest to find; it serves any number of cores."""
    save_nest(path, {"format": _FORMAT, "batch": batch, "key": key, "labels": labels})


def load_labels(path: Path, batch: int | None, key: str) -> tuple[Array, int]:
    """Labels and the size of their batches. Raises :class:`OptionError` for a plan of other data,
    of another order or of another size than ``batch``."""
    nest: Any = load_nest(path)
    if not isinstance(nest, dict) or nest.get("format") != _FORMAT:
        raise OptionError(f"{path} is no plan of this version; name another file or delete it.")
    if nest["key"] != key:
        raise OptionError(
            f"{path} is a plan for other data, another seed or another threshold for frequent "
            "features; name another file or delete it."
        )
    if batch not in (None, nest["batch"]):
        raise OptionError(f"{path} is a plan for batches of {nest['batch']}, not {batch}.")
    return nest["labels"], nest["batch"]


def _share(team: Team | None, work: Any) -> None:
    if team is None:
        work(0, 1)
    else:
        team.run(lambda k: work(k, team.size))
