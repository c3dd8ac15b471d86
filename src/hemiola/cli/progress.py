"""Progress on standard error, while somebody watches."""

from __future__ import annotations

from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hemiola.callbacks import Callback
from hemiola.communicate import SharedMemory, Synchronous
from hemiola.history import Record
from hemiola.job import Event, Job
from hemiola.types import Array

_REFRESH = 0.1


def make_progress() -> Progress:
    """Bars on standard error that leave nothing behind; nothing at all unless on a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        auto_refresh=False,
        disable=not console.is_terminal,
    )


class ProgressBar(Callback):
    """Rounds done, loss, score and rounds a second. Draws between updates, without a thread."""

    def __init__(self, label: str) -> None:
        self._progress = make_progress()
        self._task = self._progress.add_task(label, total=None, state="starting")
        self._score = ""
        self._start = self._last = 0.0
        self._first = -1
        self._per_round = 1
        self._total = 0

    def on_start(self, job: Job, updates: int) -> None:
        if not isinstance(job.algorithm.communicate, Synchronous | SharedMemory):
            self._per_round = job.workers
        self._total = updates // self._per_round
        self._progress.update(self._task, total=updates)
        self._start = self._last = perf_counter()
        self._progress.start()

    def on_update(self, event: Event) -> str | None:
        now = perf_counter()
        if self._first < 0:
            self._first = event.step - 1
        if now - self._last >= _REFRESH:
            self._last = now
            self._show(event.step, now)
        return None

    def on_record(self, record: Record, model: Array) -> str | None:
        self._score = f"  loss {record.loss:.4f}  score {record.score:.4f}"
        return None

    def _show(self, step: int, now: float) -> None:
        rate = (step - self._first) / self._per_round / (now - self._start)
        done = f"round {step // self._per_round:,}/{self._total:,}"
        state = f"{done}{self._score}  {rate:,.4g} rounds/s"
        self._progress.update(self._task, completed=step, state=state)
        self._progress.refresh()

    def on_end(self) -> None:
        self._progress.stop()
