"""A timeline as a picture: one row a worker, one bar a span."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hemiola.storage import write_atomically
from hemiola.timeline import KINDS, Groups, Spans
from hemiola.types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#E69F00", "#D9D9D9", "#9CC9E3", "#0072B2")
_LABELS = ("compute", "communicate", "wait", "unfinished at the end", "compute and communicate")
_ROWS = 48
_PIECES = 30  # of a typical worker that fit into the picture
_HEIGHT = 0.8


def plot_timeline(
    found: Spans,
    path: str | Path,
    groups: Groups | None = None,
    title: str = "",
    time_label: str = "seconds",
    window: tuple[float, float] | None = None,
) -> None:
    """Draw a Gantt chart to a PNG, SVG or PDF file.

    Of many workers an even choice is drawn, and of a long run the beginning, unless ``window`` says
    from when to when. The shares in the legend are those of all workers and the whole run.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = _chosen(np.unique(found.workers).tolist(), groups)
    left, right = window or _window(found)
    figure = Figure(figsize=(12.5, 2.2 + 0.17 * max(len(shown), 8)), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    _draw(ax, found, shown, left, right)
    ax.set(xlim=(left, right), ylim=(len(shown) - 0.4, -0.6), xlabel=time_label)
    _name_rows(ax, shown)
    if groups:
        _brackets(ax, shown, groups)
    ax.spines[["top", "right"]].set_visible(False)
    if ax.collections:
        figure.legend(loc="outside lower center", ncols=len(KINDS), frameon=False)
    figure.suptitle(_caption(found, title, len(shown), left, right), fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix.lower()[1:], dpi=130)
    write_atomically(Path(path), buffer.getvalue())


def _chosen(workers: list[int], groups: Groups | None) -> list[int]:
    """The workers that are drawn, those of a group side by side."""
    if groups:
        there = set(workers)
        grouped = [worker for members in groups for worker in members if worker in there]
        workers = grouped + sorted(there - set(grouped))
    if len(workers) <= _ROWS:
        return workers
    return [workers[i] for i in np.linspace(0, len(workers) - 1, _ROWS).astype(int)]


def _window(found: Spans) -> tuple[float, float]:
    """The beginning, with some thirty pieces of work of a typical worker."""
    if not len(found.workers):
        return 0.0, 1.0
    left, end = float(found.start.min()), float(found.stop.max())
    pieces = np.isin(found.kinds, (KINDS.index("compute"), KINDS.index("work")))
    _, counts = np.unique(found.workers[pieces], return_counts=True)
    if not len(counts):
        return left, end
    typical = (end - left) / float(np.median(counts))
    return left, min(end, left + _PIECES * typical)


def _draw(ax: Axes, found: Spans, shown: Sequence[int], left: float, right: float) -> None:
    """All bars of one kind at once."""
    from matplotlib.collections import PolyCollection

    rows = np.full(int(max(shown, default=0)) + 1, -1)
    rows[list(shown)] = np.arange(len(shown))
    inside = (found.start < right) & (found.stop > left) & (found.workers < len(rows))
    inside[inside] = rows[found.workers[inside]] >= 0
    seconds, total = found.seconds(), max(sum(found.seconds().values()), 1e-300)
    for kind, name in enumerate(KINDS):
        if name not in seconds:
            continue
        mask = inside & (found.kinds == kind)
        start, stop = found.start[mask].clip(left), found.stop[mask].clip(max=right)
        bars = _bars(start, stop, rows[found.workers[mask]])
        label = f"{_LABELS[kind]} {seconds[name] / total:.0%}"
        ax.add_collection(
            PolyCollection(list(bars), facecolors=_COLOURS[kind], linewidths=0, label=label)
        )


def _bars(start: Array, stop: Array, rows: Array) -> Array:
    """The corners of rectangles, (m, 4, 2)."""
    low, high = rows - _HEIGHT / 2, rows + _HEIGHT / 2
    corners = ((start, low), (stop, low), (stop, high), (start, high))
    return np.stack([np.stack([x, y], axis=-1) for x, y in corners], axis=1)


def _name_rows(ax: Axes, shown: Sequence[int]) -> None:
    step = max(1, len(shown) // 24)
    ax.set_yticks(range(0, len(shown), step), [f"{worker:,}" for worker in shown[::step]])
    ax.tick_params(axis="y", length=0, labelsize=8)
    ax.set_ylabel("worker")


def _brackets(ax: Axes, shown: Sequence[int], groups: Groups) -> None:
    """A line and a name beside the rows of each group."""
    row_of = {worker: row for row, worker in enumerate(shown)}
    beside = ax.get_yaxis_transform()
    for number, members in enumerate(groups):
        rows = [row_of[worker] for worker in members if worker in row_of]
        if not rows:
            continue
        low, high = min(rows) - 0.4, max(rows) + 0.4
        ax.plot([1.008, 1.008], [low, high], color="0.3", lw=1.5, transform=beside, clip_on=False)
        ax.text(1.014, (low + high) / 2, f"group {number}", va="center", fontsize=8,
                transform=beside)  # fmt: skip


def _caption(found: Spans, title: str, shown: int, left: float, right: float) -> str:
    """The title, and what part of the run is drawn."""
    words = [title] if title else []
    workers = len(np.unique(found.workers))
    if shown < workers:
        words.append(f"{shown} of {workers:,} workers")
    end = float(found.stop.max()) if len(found.stop) else right
    if right < end:
        words.append(f"{left:.3g} to {right:.3g} of {end:.3g} seconds")
    return "; ".join(words)
