"""Who did what when: the spans of a timeline, as a picture or as a trace that Perfetto opens.

What a worker does is ``compute``, ``communicate`` (both on its way and in the server's queue),
``wait`` (between handing in work and being sent new work), or ``unfinished`` (at a piece of work
whose answer had not come when the run ended). Where nobody measured how long a piece was computed,
it is ``work`` as a whole. A piece's way is drawn as half before and half after its computing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hemiola.errors import OptionError
from hemiola.job import Timeline
from hemiola.storage import write_atomically
from hemiola.types import Array

KINDS = ("compute", "communicate", "wait", "unfinished", "work")
PICTURES = (".png", ".svg", ".pdf")
EXTENSIONS = (*PICTURES, ".json")

_COMPUTE, _COMMUNICATE, _WAIT, _UNFINISHED, _WORK = range(len(KINDS))
_NANO = 1_000_000_000

Groups = Sequence[Sequence[int]]


class Spans(NamedTuple):
    """``workers``, ``kinds`` (numbers of :data:`KINDS`), ``start`` and ``stop`` in seconds: (m,).

    They are sorted by worker and time. A worker's spans do not overlap, and cover the whole run.
    """

    workers: Array
    kinds: Array
    start: Array
    stop: Array

    def seconds(self) -> dict[str, float]:
        """The sum over all workers, by kind; only kinds that occur."""
        sums = np.bincount(self.kinds, self.stop - self.start, minlength=len(KINDS))
        return {kind: float(total) for kind, total in zip(KINDS, sums, strict=True) if total}


def spans(timeline: Timeline, workers: int, end: float) -> Spans:
    """All spans of a run that ended at ``end`` seconds.

    >>> timeline = Timeline()
    >>> timeline.note(0, begun=0.0, computed=2.0, finished=3.0)
    >>> spans(timeline, workers=1, end=4.0).seconds()
    {'compute': 2.0, 'communicate': 1.0, 'wait': 1.0}
    """
    who, begun, computed, finished = _sorted(timeline)
    open_ = sorted(timeline.open.items())
    at, since = _columns(open_)
    origin = min([*begun, *since], default=0.0)
    end = max([end, *finished, *since])
    first = np.r_[True, who[1:] != who[:-1]] if len(who) else np.empty(0, bool)
    before = np.where(first, origin, np.r_[0.0, finished[:-1]] if len(who) else finished)
    half = (finished - begun - computed) / 2
    unknown = computed == 0
    begins, ends = begun + half, finished - half
    idle, until = np.full(workers, origin), np.full(workers, end)
    idle[who] = finished  # the last one of each worker stays
    until[at] = since
    parts = [
        (who, _WAIT, before, begun),
        (who[unknown], _WORK, begun[unknown], finished[unknown]),
        (who[~unknown], _COMMUNICATE, begun[~unknown], begins[~unknown]),
        (who[~unknown], _COMPUTE, begins[~unknown], ends[~unknown]),
        (who[~unknown], _COMMUNICATE, ends[~unknown], finished[~unknown]),
        (np.arange(workers), _WAIT, idle, until),
        (at, _UNFINISHED, since, np.full(len(at), end)),
    ]
    return _joined(parts)


def _sorted(timeline: Timeline) -> tuple[Array, Array, Array, Array]:
    """The timeline's columns by worker and time."""
    who = np.array(timeline.workers, dtype=np.intp)
    begun, computed, finished = (
        np.array(column, dtype=float)
        for column in (timeline.begun, timeline.computed, timeline.finished)
    )
    order = np.lexsort((begun, who))
    who, begun, finished = who[order], begun[order], finished[order]
    return who, begun, np.minimum(computed[order], finished - begun), finished


def _columns(pairs: list[tuple[int, float]]) -> tuple[Array, Array]:
    return (
        np.array([worker for worker, _ in pairs], dtype=np.intp),
        np.array([seconds for _, seconds in pairs], dtype=float),
    )


def _joined(parts: Iterable[tuple[Array, int, Array, Array]]) -> Spans:
    """One table of all spans that take any time."""
    columns = [(who, np.full(len(who), kind), start, stop) for who, kind, start, stop in parts]
    who, kinds, start, stop = (np.concatenate([column[i] for column in columns]) for i in range(4))
    order = np.lexsort((start, who))
    order = order[(stop > start)[order]]
    return Spans(who[order], kinds[order], start[order], stop[order])


def check_timeline(path: str | Path) -> None:
    """Raise :class:`OptionError` when a timeline cannot be written in the format of this path.

    >>> check_timeline("run.json")
    """
    suffix = Path(path).suffix.lower()
    if suffix not in EXTENSIONS:
        raise OptionError(
            f"{path}: cannot write a timeline as {suffix or 'a file without extension'!r}; use "
            f"{', '.join(PICTURES)} for a picture, or .json for Perfetto."
        )


def save_timeline(
    path: str | Path,
    timeline: Timeline,
    workers: int,
    end: float,
    groups: Groups | None = None,
    title: str = "",
    time_label: str = "seconds",
) -> None:
    """Write a picture or a trace, as the extension says, atomically.

    ``groups`` are lists of workers that belong together. Raises :class:`OptionError` for another
    extension and :class:`DataError` when the place cannot be written.
    """
    check_timeline(path)
    found = spans(timeline, workers, end)
    if Path(path).suffix.lower() == ".json":
        text = ",\n".join(json.dumps(event) for event in trace_events(found, groups))
        write_atomically(Path(path), f"[\n{text}\n]\n".encode())
        return
    from hemiola.gantt import plot_timeline

    plot_timeline(found, path, groups, title, time_label)


def trace_events(found: Spans, groups: Groups | None = None) -> Iterator[dict[str, Any]]:
    """Events of the Trace Event Format, times in microseconds: pid is the group, tid the worker.

    >>> timeline = Timeline()
    >>> timeline.note(0, begun=0.0, computed=2.0, finished=2.0)
    >>> list(trace_events(spans(timeline, workers=1, end=2.0)))[-1]
    {'name': 'compute', 'ph': 'X', 'ts': 0.0, 'dur': 2000000.0, 'pid': 0, 'tid': 0}
    """
    group_of = {worker: g for g, members in enumerate(groups or ()) for worker in members}
    named = "group {}" if groups else "workers"
    workers = np.unique(found.workers).tolist()
    for pid in sorted({group_of.get(worker, 0) for worker in workers}):
        yield _name("process_name", named.format(pid), pid, 0)
    for worker in workers:
        yield _name("thread_name", f"worker {worker}", group_of.get(worker, 0), worker)
    starts, stops = (np.rint(times * _NANO).astype(np.int64) for times in (found.start, found.stop))
    rows = zip(found.workers.tolist(), found.kinds.tolist(), starts.tolist(), stops.tolist(),
               strict=True)  # fmt: skip
    for worker, kind, start, stop in rows:
        yield {
            "name": KINDS[kind], "ph": "X", "ts": start / 1000, "dur": (stop - start) / 1000,
            "pid": group_of.get(worker, 0), "tid": worker,
        }  # fmt: skip


def _name(what: str, name: str, pid: int, tid: int) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
