"""``hemiola convert``: data from one format to another."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from rich.progress import TaskID

from hemiola.cli import output
from hemiola.cli.progress import make_progress
from hemiola.cli.setup import column
from hemiola.data import convert as convert_data

_REFRESH = 0.1


class _Bar:
    """Rows read, then rows written, while somebody watches."""

    def __init__(self) -> None:
        self.rows = 0
        self._progress = make_progress()
        self._tasks: dict[str, TaskID] = {}
        self._last = 0.0

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        self.rows = done
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, state="")
        self._progress.update(self._tasks[what], completed=done, state=f"{done:,} rows")
        if perf_counter() - self._last >= _REFRESH:
            self._progress.refresh()
            self._last = perf_counter()


def convert(
    source: str,
    target: Path,
    shards: int | None,
    rows_per_shard: int | None,
    dtype: str,
    label: str | None,
    regression: bool,
) -> None:
    """Convert, and say what was written."""
    with _Bar() as bar:
        convert_data(
            source,
            target,
            shards=shards,
            rows_per_shard=rows_per_shard,
            dtype=dtype,
            label=column(label),
            regression=regression,
            progress=bar,
        )
    size = sum(path.stat().st_size for path in _files(target.expanduser()))
    console = output.console()
    console.print(
        f"{target}: {bar.rows:,} samples, {size / 1e6:,.1f} MB",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _files(target: Path) -> list[Path]:
    return list(target.iterdir()) if target.is_dir() else [target]
