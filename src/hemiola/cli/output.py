"""What a run leaves on the screen and in files."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from hemiola import __version__
from hemiola.calibration import Timing
from hemiola.communicate import SharedMemory
from hemiola.describe import describe
from hemiola.errors import DataError
from hemiola.history import History, Record
from hemiola.result import Result
from hemiola.storage import write_atomically

WIDTH = 100
_BINS = 10
_BAR = 40


def console(stderr: bool = False) -> Console:
    """A console at most 100 columns wide."""
    screen = Console(stderr=stderr)
    width = min(screen.width, WIDTH) if screen.is_terminal else WIDTH
    return Console(stderr=stderr, width=width)


def virtual(engine: str) -> bool:
    """Whether an engine's seconds are virtual."""
    return engine == "simulator"


def seconds_label(engine: str) -> str:
    return "seconds (virtual)" if virtual(engine) else "seconds"


def metric_name(metric: str) -> str:
    return {"r2": "R²"}.get(metric, metric)


def check_places(files: Sequence[Path | None], directories: Iterable[Path | None] = ()) -> None:
    """Raise :class:`DataError` before training when something could not be written after it."""
    wanted = [path for path in files if path is not None and str(path) != "-"]
    for directory in (*(p.parent for p in wanted), *(d for d in directories if d is not None)):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory):
                pass
        except OSError as error:
            raise DataError(
                f"cannot write to {directory} ({error.strerror or error}); "
                "choose a place you may write to."
            ) from error
    for path in wanted:
        if path.is_dir():
            raise DataError(f"{path} is a directory; name a file to write.")


def write_json(path: Path, document: Any) -> None:
    """Write a document to a file, or to standard output for ``-``."""
    text = json.dumps(describe(document), indent=2, allow_nan=False) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        write_atomically(path, text.encode())


def name_places(screen: Console, places: Mapping[str, Path | None]) -> None:
    """Say which files were written."""
    for what, path in places.items():
        if path is not None and str(path) != "-":
            screen.print(f"{what}: {path}", markup=False, highlight=False, soft_wrap=True)


def kept(history: History, best: bool) -> Record:
    """The record of the model that was kept: the last, or the one of the lowest test loss."""
    return min(history.records, key=lambda r: r.eval_loss) if best else history.last


def waiting_share(record: Record, workers: int) -> float:
    """The share of the workers' time that they spent waiting."""
    total = record.seconds * workers
    return record.waiting / total if total else 0.0


def document(result: Result, data: dict[str, Any], best: bool = False) -> dict[str, Any]:
    """A run as plain data: settings, history, final figures and the hash of the weights."""
    history, last, model = result.history, result.history.last, kept(result.history, best)
    return {
        "hemiola": __version__,
        **result.settings,
        "data": data,
        "history": {k: v for k, v in history.to_dict().items() if k != "times"},
        "timing": vars(Timing.of(history, result.settings["engine"]["name"])),
        "final": {
            "loss": model.loss,
            "eval_loss": model.eval_loss,
            history.metric: model.score,
            "rounds_of_the_model": model.rounds,
            "rounds": last.rounds,
            "updates": last.updates,
            "local_steps": last.local_steps,
            "seconds": last.seconds,
            "virtual_time": virtual(result.settings["engine"]["name"]),
            "bytes_up": last.bytes_up,
            "bytes_down": last.bytes_down,
            "messages": last.messages,
            "gap": last.gap,
            "waiting_share": waiting_share(last, result.settings["workers"]),
            "mean_staleness": history.mean_staleness(),
        },
        "stopped": result.stopped,
        "incidents": history.incidents(),
        "weights_sha256": result.model.sha256,
    }


def human_bytes(n: float) -> str:
    """Decimal units, three digits.

    >>> human_bytes(2_500_000), human_bytes(999_999)
    ('2.5 MB', '1 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n < 999.5:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


def summary(result: Result, data: dict[str, Any], best: bool = False) -> Table:
    """The outcome of one run."""
    history, last, model = result.history, result.history.last, kept(result.history, best)
    where = "test" if data["test"] else "training"
    table = Table(box=SIMPLE, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    rows = {f"{where} {metric_name(history.metric)}": f"{model.score:.4f}"}
    if data["test"]:
        rows["test loss"] = f"{model.eval_loss:.6g}"
    rows["training loss"] = f"{model.loss:.6g}"
    if best:
        rows["of round"] = f"{model.rounds:g}, the best"
    shared = _shares_memory(result)
    rows |= {
        "passes" if shared else "rounds": f"{last.rounds:,g}",
        "local steps": f"{last.local_steps:,}",
        seconds_label(result.settings["engine"]["name"]): f"{last.seconds:.4g}",
    }
    rows |= _about_passes(history) if shared else _about_messages(result)
    if history.lead and len(history.lead) > 1:
        rows["lead"] = f"at most {len(history.lead) - 1} pieces of work ahead of the slowest"
    if history.late or history.refused or history.lost:
        rows["not applied"] = (
            f"{history.late:,} late and {history.refused:,} not finite messages, "
            f"{history.lost:,} lost with their workers"
        )
    rows |= {"stopped": result.stopped, "weights sha256": result.model.sha256[:16]}
    for row in rows.items():
        table.add_row(*row)
    return table


def _shares_memory(result: Result) -> bool:
    """Threads without a server: there are no messages, and no updates to count."""
    discipline: str = result.settings["algorithm"]["communicate"]["type"]
    return discipline == SharedMemory.__name__


def _about_passes(history: History) -> dict[str, str]:
    rows = {}
    if history.last.gap is not None:
        rows["duality gap"] = f"at most {history.last.gap:.2g} above the least training loss"
    if history.undone:
        rows["lost updates"] = f"{max(history.undone):.2%} of the change of a pass, at most"
    return rows


def _about_messages(result: Result) -> dict[str, str]:
    history, last = result.history, result.history.last
    waiting = waiting_share(last, result.settings["workers"])
    return {
        "server updates": f"{last.updates:,}",
        "sent": f"{human_bytes(last.bytes_up)} up, {human_bytes(last.bytes_down)} down, "
        f"{last.messages:,} messages",
        "waiting": f"{waiting:.1%} of the workers' time",
        "mean staleness": f"{history.mean_staleness():.2f}",
        "worker updates": _updates(history),
    }


def _updates(history: History) -> str:
    """The fewest, the mean and the most updates by a worker."""
    counts = history.worker_updates or [0]
    return f"{min(counts):,} to {max(counts):,}, mean {sum(counts) / len(counts):,.1f}"


def staleness(history: History) -> Table | None:
    """A histogram of staleness, if there was any."""
    counts = history.staleness
    if len(counts) < 2:
        return None
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(justify="right")
    table.add_column(justify="right")
    width = -(-len(counts) // _BINS)
    bins = [sum(counts[i : i + width]) for i in range(0, len(counts), width)]
    for i, count in enumerate(bins):
        last = min((i + 1) * width, len(counts)) - 1
        label = str(last) if width == 1 else f"{i * width}-{last}"
        length = _BAR * count / max(bins)
        bar = "#" * max(round(length), 1 if count else 0)
        table.add_row(label, f"{count / sum(counts):.1%}", bar)
    return table


def staleness_words(history: History) -> str:
    """The distribution of staleness in one line."""
    counts = history.staleness
    return (
        f"staleness of {sum(counts):,} updates: mean {history.mean_staleness():.2f}, "
        f"median {quantile(counts, 0.5)}, 95 % {quantile(counts, 0.95)}, max {len(counts) - 1}"
    )


def quantile(counts: Sequence[int], q: float) -> int:
    """Of a histogram over 0, 1, 2, ...

    >>> quantile([5, 0, 5], 0.5), quantile([5, 0, 5], 0.95)
    (0, 2)
    """
    wanted, seen = q * sum(counts), 0
    for value, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            return value
    return len(counts) - 1
