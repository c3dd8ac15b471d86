"""``hemiola advise``: which algorithm for these data on this cluster, and why."""

from __future__ import annotations

import math
import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from hemiola.advise import CANDIDATES, TIE, Advice, Situation
from hemiola.advise import advise as ask
from hemiola.cli import output
from hemiola.cli.progress import make_progress
from hemiola.cli.setup import Setup, build_engine, prepare
from hemiola.engines.simulator import Simulator
from hemiola.errors import DataError, OptionError

_HERE = 1e-4  # seconds of a message between threads of this machine, and back
_MEMORY = 4e9  # bytes a second that a core copies here


def read_cluster(path: Path) -> dict[str, Any]:
    """The description of a cluster: ``workers`` and options of engine simulator, from TOML.

    Raises :class:`DataError` for a file that cannot be read.
    """
    try:
        nest = tomllib.loads(path.read_text())
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is no TOML file ({error}); write lines such as  workers = 16  and  "
            "latency = 0.001."
        ) from error
    return dict(_flat(nest))


def _flat(nest: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """A table's ``type`` stands for the table itself: [network] type = "tiers"."""
    for key, value in nest.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif key == "type" and above:
            yield above[:-1], value
        else:
            yield above + key, value


def advise(setup: Setup, cluster: Path | None, workers: int | None, json: Path | None) -> None:
    """Measure, simulate, and print the candidates in order."""
    output.check_places((json,))
    described = {} if cluster is None else read_cluster(cluster)
    count = described.pop("workers", None) if workers is None else workers
    described.pop("workers", None)
    count = (os.cpu_count() or 1) if count is None else count
    if not isinstance(count, int) or count < 1:
        raise OptionError(f"workers must be a whole number of at least 1, not {count!r}.")
    if cluster is None:
        described = {"latency": _HERE / 2, "bandwidth": _MEMORY}
    words = [f"{key}={_text(value)}" for key, value in described.items()]
    engine = build_engine("simulator", words)
    assert isinstance(engine, Simulator)
    data = prepare(setup).train
    progress = make_progress()
    task = progress.add_task("simulating", total=len(CANDIDATES), state="")
    with progress:

        def show(label: str) -> None:
            progress.update(task, advance=1, state=label)

        situation, found = ask(data, count, engine, target_loss=setup.target_loss, progress=show)
    _report(situation, found, setup, json)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _report(situation: Situation, found: Sequence[Advice], setup: Setup, json: Path | None) -> None:
    if json is not None:
        rows = [{**asdict(advice), "command": command(advice, setup)} for advice in found]
        output.write_json(json, {"situation": asdict(situation), "advice": rows})
    console = output.console(stderr=str(json) == "-")
    console.print(
        f"{situation.workers} workers, {situation.parameters:,} parameters; a step of 32 samples "
        f"takes {situation.step_seconds:.3g} s, a message both ways "
        f"{situation.message_seconds:.3g} s; target loss {situation.target:.4g}",
        highlight=False,
    )
    console.print(_table(found))
    console.print(
        f"Of those at most {TIE:g} times slower than the fastest, the simplest is first.",
        highlight=False,
    )
    for advice in found[:3]:
        console.print(f"{advice.candidate.label}: {advice.reason}", highlight=False)
    console.print(f"\n  {command(found[0], setup)}", highlight=False, soft_wrap=True)


def _table(found: Sequence[Advice]) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("", "algorithm", "seconds", "bytes", "idle", "staleness", "loss"):
        table.add_column(column, justify="left" if column == "algorithm" else "right")
    for rank, advice in enumerate(found, 1):
        reached = not math.isinf(advice.seconds)
        table.add_row(
            str(rank), advice.candidate.label,
            f"{advice.seconds:.3g}" if reached else "not reached",
            output.human_bytes(round(advice.bytes)), f"{advice.idle:.0%}",
            f"{advice.staleness:.1f}", f"{advice.loss:.4g}",
        )  # fmt: skip
    return table


def command(advice: Advice, setup: Setup) -> str:
    """The command line that trains so."""
    words = ["hemiola", "train", setup.data, "--algorithm", advice.candidate.recipe]
    words += ["--workers", str(advice.workers)]
    words += ["--engine", "serial" if advice.workers == 1 else "threads"]
    for option in advice.options():
        words += ["-o", option]
    if setup.standardize:
        words.append("--standardize")
    if setup.target_loss is not None:
        words += ["--target-loss", f"{setup.target_loss:g}"]
    return shlex.join(words)
