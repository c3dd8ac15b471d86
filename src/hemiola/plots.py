"""Learning curves as a picture: score and loss against rounds, local steps and seconds."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hemiola.errors import OptionError
from hemiola.history import History
from hemiola.storage import write_atomically
from hemiola.types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXTENSIONS = (".png", ".svg", ".pdf")

_COLUMNS = ("rounds", "local_steps", "seconds")
_POINTS = 200
_MARKERS_A_LINE = 7
_START = 0.03  # share of the records that may leave the picture
_LOG_FROM = 20.0  # losses that span more than this factor are drawn on a logarithmic axis

# Colours of Okabe and Ito in an order that alternates dark and light; with lines and markers of
# their own, so that curves can be told apart in grey.
_COLOURS = ("#0072B2", "#E69F00", "#000000", "#009E73", "#D55E00", "#56B4E9", "#8C2D75", "#7F7F7F")
_LINES = ("-", "--", "-.", (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


class _Style(NamedTuple):
    colour: str
    line: Any
    marker: str
    offset: float  # of the first marker, so that markers of different lines stay apart


class Curve(NamedTuple):
    """Points x, mean y, their standard deviation over the runs (0 for one run), each (m,)."""

    x: Array
    y: Array
    sd: Array


def check_extension(path: str | Path) -> None:
    """Raise :class:`OptionError` when a picture cannot be written in the format of this path.

    >>> check_extension("curves.svg")
    """
    suffix = Path(path).suffix.lower()
    if suffix not in EXTENSIONS:
        raise OptionError(
            f"{path}: cannot draw {suffix or 'a file without extension'!r}; "
            f"use one of {', '.join(EXTENSIONS)}."
        )


def plot_histories(
    histories: Mapping[str, Sequence[History]],
    path: str | Path,
    title: str,
    time_label: str = "seconds",
) -> None:
    """Draw the runs of each label, one seed a history, to a PNG, SVG or PDF file.

    A thin line is what was measured, or the mean over the seeds; the thick one over it is
    exponentially smoothed; the light band is one standard deviation over the seeds.
    Raises :class:`OptionError` for another extension or nothing to draw, and :class:`DataError`
    when the place cannot be written.
    """
    check_extension(path)
    drawn = {label: list(runs) for label, runs in histories.items() if any(r.records for r in runs)}
    if not drawn:
        raise OptionError("there is nothing to draw: no run has a record.")
    _save(_figure(drawn, title, time_label), path)


def plot_asynchrony(
    histories: Mapping[str, History], path: str | Path, title: str, time_label: str = "seconds"
) -> None:
    """Draw the distribution of staleness, and loss against updates and against time.

    One run a label. Raises as :func:`plot_histories` does.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_extension(path)
    figure = Figure(figsize=(12.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    for (label, history), style in zip(histories.items(), _styles(len(histories)), strict=True):
        counts = np.array(history.staleness or [0], dtype=float)
        share = counts / max(counts.sum(), 1)
        left.step(
            np.arange(len(share)), share, where="mid", color=style.colour, linestyle=style.line,
            label=f"{label}: mean {history.mean_staleness():.1f}, max {len(counts) - 1}",
        )  # fmt: skip
        _draw(middle, curve([history], "updates", "loss"), style)
        _draw(right, curve([history], "seconds", "loss"), style)
    left.set(xlabel="staleness in updates", ylabel="share of updates")
    left.legend(fontsize=8, frameon=False)
    middle.set(xlabel="updates", ylabel="training loss")
    right.set(xlabel=time_label, ylabel="training loss")
    for ax in (left, middle, right):
        ax.grid(alpha=0.3, linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in (middle, right):
        _scale(ax, [history.column("loss") for history in histories.values()], "loss")
    figure.suptitle(title, fontsize=12)
    _save(figure, path)


def plot_residuals(history: History, path: str | Path, title: str) -> None:
    """Draw ADMM's residuals and what they may be, and rho, by round, to a PNG, SVG or PDF file.

    Raises :class:`OptionError` for another extension, and for a run without residuals.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_extension(path)
    if not len(history.measured("primal")[0]):
        raise OptionError(
            "there are no residuals to draw: only the runs of admm and its kin have them, from the "
            "second round on."
        )
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for name, style in zip(("primal", "dual"), _styles(2), strict=True):
        rounds, values = history.measured(name)
        _draw(left, Curve(rounds, values, np.zeros_like(values)), style)
        left.lines[-1].set_label(f"{name} residual")
        rounds, values = history.measured(f"{name}_allowed")
        left.plot(rounds, values, color=style.colour, linewidth=0.8, label=f"allowed, {name}")
    right.step(*history.measured("rho"), where="mid", color=_COLOURS[0])
    left.set(yscale="log", xlabel="rounds")
    right.set(yscale="log", xlabel="rounds", ylabel="rho")
    left.legend(fontsize=8, frameon=False)
    for ax in (left, right):
        ax.grid(alpha=0.3, linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=12)
    _save(figure, path)


def _save(figure: Figure, path: str | Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix.lower()[1:], dpi=130)
    write_atomically(Path(path), buffer.getvalue())


def curve(runs: Sequence[History], across: str, along: str) -> Curve:
    """One field against another, averaged over runs. Several runs are interpolated to shared points
    up to where the shortest of them ends."""
    pairs = [(run.column(across).astype(float), run.column(along)) for run in runs if run.records]
    if len(pairs) == 1:
        x, y = pairs[0]
        return Curve(x, y, np.zeros_like(y))
    first = pairs[0][0]
    if not all(np.array_equal(first, x) for x, _ in pairs):
        first = np.linspace(max(x[0] for x, _ in pairs), min(x[-1] for x, _ in pairs), _POINTS)
    ys = np.array([np.interp(first, x, y) for x, y in pairs])
    return Curve(first, ys.mean(axis=0), ys.std(axis=0, ddof=1))


def smooth(y: Array) -> Array:
    """Exponentially weighted means (m,) of a curve's points on both sides, so that nothing lags.

    The first point, before training, stays out of it.

    >>> smooth(np.array([0.0, 1.0, 1.0])).tolist()
    [0.0, 1.0, 1.0]
    """
    decay = 1 - 2 / (max(1.0, len(y) / 30) + 1)
    ones = np.ones(len(y) - 1)
    inner = _both_ways(y[1:], decay) / _both_ways(ones, decay)
    return np.concatenate([y[:1], inner])


def _both_ways(y: Array, decay: float) -> Array:
    """sum_j decay^|i - j| y_j"""
    before, after = np.array(y, dtype=float), np.array(y, dtype=float)
    for i in range(1, len(y)):
        before[i] += decay * before[i - 1]
        after[-1 - i] += decay * after[-i]
    return before + after - y


def _figure(drawn: Mapping[str, Sequence[History]], title: str, time_label: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(2, len(_COLUMNS), sharey="row", sharex="col")
    metric = next(iter(drawn.values()))[0].metric
    names = dict(zip(_COLUMNS, ("rounds", "local steps, all workers", time_label), strict=True))
    for row, (field, name) in enumerate((("score", _metric_name(metric)), ("loss", "loss"))):
        for column, across in enumerate(_COLUMNS):
            ax = axes[row, column]
            for (_, runs), style in zip(drawn.items(), _styles(len(drawn)), strict=True):
                _draw(ax, curve(runs, across, field), style)
            ax.grid(alpha=0.3, linewidth=0.6)
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_xlabel(names[across] if row == 1 else "")
            ax.margins(x=0.02)
        axes[row, 0].set_ylabel(name if field == "score" else f"training {name}")
        _scale(axes[row, 0], _values(drawn, field), field)
    figure.suptitle(title, fontsize=12)
    _legend(figure, drawn)
    return figure


def _values(drawn: Mapping[str, Sequence[History]], field: str) -> list[Array]:
    return [run.column(field) for runs in drawn.values() for run in runs if run.records]


def _styles(count: int) -> list[_Style]:
    looks = zip(range(count), cycle(_COLOURS), cycle(_LINES), cycle(_MARKERS), strict=False)
    return [_Style(colour, line, marker, i / max(count, 1)) for i, colour, line, marker in looks]


def _draw(ax: Axes, points: Curve, style: _Style) -> None:
    x, y, sd = points
    colour = style.colour
    if sd.any():
        ax.fill_between(x, y - sd, y + sd, color=colour, alpha=0.15, linewidth=0)
    smoothed = smooth(y)
    if not np.array_equal(smoothed, y):
        ax.plot(x, y, color=colour, linewidth=0.6, alpha=0.45)
    gap = max(1, len(x) // _MARKERS_A_LINE)
    ax.plot(
        x, smoothed, color=colour, linestyle=style.line, linewidth=1.8, marker=style.marker,
        markersize=5.5, markerfacecolor="white", markeredgewidth=1.3,
        markevery=(min(int(style.offset * gap) , len(x) - 1), gap),
    )  # fmt: skip


def _scale(ax: Axes, values: list[Array], field: str) -> None:
    """Keep what happens at the very start from flattening all that follows."""
    pooled = np.concatenate(values)
    ends = [float(v[-1]) for v in values]
    low, high = float(pooled.min()), float(pooled.max())
    if field == "loss":
        high = max(float(np.quantile(pooled, 1 - _START)), *ends)
        if low > 0 and high / low > _LOG_FROM:
            ax.set_yscale("log")
            ax.set_ylim(low / 1.2, high * 1.2)
            return
    else:
        low = min(float(np.quantile(pooled, _START)), *ends)
    margin = 0.06 * (high - low) or 0.05
    ax.set_ylim(low - margin, high + margin)


def _metric_name(metric: str) -> str:
    return {"r2": "R²"}.get(metric, metric)


def _legend(figure: Figure, drawn: Mapping[str, Sequence[History]]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=style.colour, linestyle=style.line, marker=style.marker, linewidth=1.8,
            markersize=6, markerfacecolor="white", markeredgewidth=1.3, label=_caption(label, runs),
        )
        for (label, runs), style in zip(drawn.items(), _styles(len(drawn)), strict=True)
    ]  # fmt: skip
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 2),
        frameon=False,
        handlelength=4.5,
    )


def _caption(label: str, runs: Sequence[History]) -> str:
    """The label and the final figures."""
    ends = [run.last for run in runs if run.records]
    score = _figures([record.score for record in ends], ".4f")
    loss = _figures([record.loss for record in ends], ".4g")
    return f"{label}: {_metric_name(runs[0].metric)} {score}, training loss {loss}"


def _figures(values: Sequence[float], form: str) -> str:
    mean = format(float(np.mean(values)), form)
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.2g}"
