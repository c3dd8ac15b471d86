"""What a run leaves on the screen and in files."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hemiola.errors import DataError
from hemiola.history import History
from hemiola.result import Result
from hemiola.storage import write_atomically

WIDTH = 100
_BINS = 10


def console() -> Console:
    """Standard output, at most 100 columns wide."""
    screen = Console()
    return Console(width=min(screen.width, WIDTH)) if screen.is_terminal else Console(width=WIDTH)


def check_places(files: Iterable[Path | None], directories: Iterable[Path | None] = ()) -> None:
    """Raise :class:`DataError` before training when something could not be written after it."""
    wanted = [path.parent for path in files if path is not None and str(path) != "-"]
    for directory in (*wanted, *(path for path in directories if path is not None)):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory):
                pass
        except OSError as error:
            raise DataError(
                f"cannot write to {directory} ({error.strerror or error}); "
                "choose a place you may write to."
            ) from error
    for path in files:
        if path is not None and path.is_dir():
            raise DataError(f"{path} is a directory; name a file to write.")


def write_json(path: Path, document: Any) -> None:
    """Write a document to a file, or to standard output for ``-``."""
    text = json.dumps(document, indent=2) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        write_atomically(path, text.encode())


def document(result: Result, data: dict[str, Any]) -> dict[str, Any]:
    """A run as plain data: settings, history, final figures and the hash of the weights."""
    last = result.history.last
    return {
        **result.settings,
        "data": data,
        "history": result.history.to_dict(),
        "final": {
            "loss": last.loss,
            result.history.metric: last.score,
            "rounds": last.rounds,
            "updates": last.updates,
            "local_steps": last.local_steps,
            "seconds": last.seconds,
            "mean_staleness": result.history.mean_staleness(),
        },
        "stopped": result.stopped,
        "weights_sha256": result.model.sha256,
    }


def human_bytes(n: float) -> str:
    """
    >>> human_bytes(2_500_000)
    '2.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


def summary(result: Result, workers: int, virtual: bool) -> Table:
    """The outcome of one run."""
    history, last = result.history, result.history.last
    name = "accuracy" if history.metric == "accuracy" else "R^2"
    share = last.waiting / (last.seconds * workers) if last.seconds else 0.0
    rows = {
        f"test {name}": f"{last.score:.4f}",
        "training loss": f"{last.loss:.6g}",
        "rounds": f"{last.rounds:g}",
        "updates, local steps": f"{last.updates:,}, {last.local_steps:,}",
        "seconds (virtual)" if virtual else "seconds": f"{last.seconds:.4g}",
        "sent up, down": f"{human_bytes(last.bytes_up)}, {human_bytes(last.bytes_down)} "
        f"in {last.messages:,} messages",
        "workers waiting": f"{share:.1%} of their time",
        "stopped": result.stopped,
        "weights sha256": result.model.sha256[:16],
    }
    table = Table(title=result.settings["algorithm"]["name"], show_header=False)
    for key, value in rows.items():
        table.add_row(key, value)
    return table


def staleness(history: History) -> Table | None:
    """The distribution of staleness, if there was any."""
    counts = history.staleness
    total = sum(counts)
    if len(counts) < 2 or not total:
        return None
    quantiles = {q: _quantile(counts, q) for q in (0.5, 0.95)}
    title = (
        f"staleness of {total:,} updates: mean {history.mean_staleness():.2f}, median "
        f"{quantiles[0.5]}, 95 % {quantiles[0.95]}, max {len(counts) - 1}"
    )
    table = Table(title=title, show_header=False)
    width = -(-len(counts) // _BINS)
    bins = [sum(counts[i : i + width]) for i in range(0, len(counts), width)]
    for i, count in enumerate(bins):
        last = min((i + 1) * width, len(counts)) - 1
        label = str(last) if width == 1 else f"{i * width}-{last}"
        table.add_row(label, f"{count:,}", "#" * round(50 * count / max(bins)))
    return table


def _quantile(counts: list[int], q: float) -> int:
    wanted, seen = q * sum(counts), 0
    for value, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            return value
    return len(counts) - 1
