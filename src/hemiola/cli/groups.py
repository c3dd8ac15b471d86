"""Groups of workers on the screen: what the time model predicts, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.table import Table

from hemiola.algorithm import MiniBatch
from hemiola.callbacks import Callback
from hemiola.communicate import Grouped
from hemiola.contracts import Source
from hemiola.grouping import expect
from hemiola.history import History
from hemiola.job import Job

_SHOWN = 12


class Announce(Callback):
    """Says before a run who works together, and what the time model expects of that."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_start(self, job: Job, updates: int) -> None:
        table = predicted(job)
        if table is not None:
            self._console.print(table)

    def on_words(self, words: Sequence[str]) -> None:
        for sentence in words:
            self._console.print(sentence, highlight=False, markup=False)


def names(members: Sequence[int]) -> str:
    """Workers in a few words.

    >>> names([0, 1, 2, 5]), names([3])
    ('0-2, 5', '3')
    """
    runs: list[list[int]] = []
    for worker in members:
        if runs and worker == runs[-1][-1] + 1:
            runs[-1].append(worker)
        else:
            runs.append([worker])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(words[:_SHOWN]) + (", ..." if len(words) > _SHOWN else "")


def predicted(job: Job) -> Group | None:
    """The groups of a job as measured before its run; None if there are none."""
    discipline = job.algorithm.communicate
    if not isinstance(discipline, Grouped) or not (discipline.groups and discipline.measured):
        return None
    batch: Any = getattr(job.algorithm.local, "batch", None)
    sizes = [_samples_a_step(job.source, k, batch) for k in range(job.workers)]
    expected = expect(
        discipline.measured.rounds, [sum(sizes[k] for k in group) for group in discipline.groups]
    )
    words = (
        f"{len(discipline.groups)} groups of similar speed; predicted: "
        f"{expected.updates:,.4g} updates/s, {expected.samples:,.4g} samples/s"
    )
    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("workers", "seconds a round", "updates/s", "staleness"):
        table.add_column(column, justify="left" if column == "workers" else "right")
    rows = zip(discipline.groups, expected.seconds, expected.staleness, strict=True)
    for group, seconds, staleness in list(rows)[:_SHOWN]:
        table.add_row(names(group), f"{seconds:.4g}", f"{1 / seconds:,.4g}", f"{staleness:.2f}")
    return Group(words, table)


def _samples_a_step(source: Source, worker: int, batch: MiniBatch | None) -> float:
    if batch is None:
        return 1.0
    return source.samples(worker) / source.steps_per_epoch(worker, batch)


def measured(history: History) -> Group | None:
    """Prediction beside measurement, for the groups that were there longest; None if none."""
    books = [book for book in history.groups if book["updates"]]
    if not books:
        return None
    seconds = history.last.seconds
    samples = sum(book["samples"] for book in books)
    words = (
        f"groups; measured: {history.last.updates / seconds:,.4g} updates/s, "
        f"{samples / seconds:,.4g} samples/s"
    )
    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("workers", "from s", "updates", "seconds a round", "predicted", "staleness",
                   "predicted "):  # fmt: skip
        table.add_column(column, justify="left" if column == "workers" else "right")
    longest = sorted(books, key=lambda book: book["since"] - book["until"])[:_SHOWN]
    for book in sorted(longest, key=lambda book: (book["since"], book["number"])):
        table.add_row(
            names(book["members"]), f"{book['since']:.4g}", f"{book['updates']:,}",
            f"{(book['until'] - book['since']) / book['updates']:.4g}",
            _or_dash(book["expected_seconds"], ".4g"),
            f"{book['staleness'] / book['updates']:.2f}",
            _or_dash(book["expected_staleness"], ".2f"),
        )  # fmt: skip
    return Group(words, table)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
