"""A grid of simulations: its points, their runs in parallel processes, and one table of them."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import fields
from itertools import product
from multiprocessing import active_children, get_context, resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from rich.box import SIMPLE_HEAVY
from rich.table import Table

from hemiola.cli import output
from hemiola.cli.progress import make_progress
from hemiola.cli.setup import Prepared
from hemiola.engines.simulator import Simulator
from hemiola.errors import HemiolaError, OptionError, WorkersLostError
from hemiola.options import parse_options

Point = dict[str, str]
Outcome = dict[str, Any]


class Case(Protocol):
    """What can be run in another process."""

    @property
    def point(self) -> Point: ...

    def run(self, prepared: Prepared) -> Outcome: ...


def grid(texts: Iterable[str]) -> list[Point]:
    """All combinations of the values of each key; one empty point if there are no keys.

    >>> grid(["workers=2,4", "algorithm=ssgd"])
    [{'workers': '2', 'algorithm': 'ssgd'}, {'workers': '4', 'algorithm': 'ssgd'}]
    """
    axes = {key: _values(key, text) for key, text in parse_options(texts).items()}
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def _values(key: str, text: str) -> list[str]:
    values = [value.strip() for value in text.split(",") if value.strip()]
    if not values:
        raise OptionError(f"--sweep {key} has no values; write it as {key}=A,B,C.")
    if len(set(values)) < len(values):
        raise OptionError(f"--sweep {key} names a value twice; leave one out.")
    return values


def sorted_out(point: Point) -> tuple[list[str], list[str]]:
    """The point's options of the simulator, and those of the algorithm, as key=value.

    >>> sorted_out({"compute.mean": "1", "steps": "5"})
    (['compute.mean=1'], ['steps=5'])
    """
    own = {field.name for field in fields(Simulator)}
    here = [f"{key}={value}" for key, value in point.items() if key.split(".")[0] in own]
    there = [f"{key}={value}" for key, value in point.items() if key.split(".")[0] not in own]
    return here, there


def words(point: Point) -> str:
    return ", ".join(f"{key}={value}" for key, value in point.items())


_prepared: Prepared


def _begin(file: str) -> None:
    global _prepared
    _prepared = pickle.loads(Path(file).read_bytes())


def _work(case: Case) -> Outcome:
    try:
        return case.run(_prepared)
    except HemiolaError as error:
        return {"point": case.point, "error": str(error)}


def run_all(cases: Sequence[Case], prepared: Prepared, jobs: int | None = None) -> list[Outcome]:
    """The outcomes of all cases, in their order, computed by ``jobs`` processes.

    Ctrl-C ends the processes. Raises :class:`WorkersLostError` when one of them dies.
    """
    jobs = min(jobs or _processors(), len(cases))
    before = set(active_children())
    resource_tracker.ensure_running()  # it would let SIGINT through
    directory = TemporaryDirectory(prefix="hemiola-")
    file = Path(directory.name, "prepared")
    file.write_bytes(pickle.dumps(prepared))
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (str(file),))
    try:
        with _no_interrupts():  # so that Ctrl-C reaches this process only
            futures = [pool.submit(_work, case) for case in cases]
        _watch(futures)
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise WorkersLostError(
            "a process of the sweep died, perhaps for lack of memory; use fewer --jobs."
        ) from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown()
        directory.cleanup()


def _watch(futures: Sequence[Future[Outcome]]) -> None:
    """Show how many are done; raises what one of them raised."""
    with make_progress() as progress:
        task = progress.add_task("sweep", total=len(futures), state="starting")
        progress.refresh()
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            progress.update(task, completed=done, state=f"{done} of {len(futures)}")
            progress.refresh()


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile never get SIGINT; this one gets it afterwards.

    The mask is for them. It is not enough here: other threads of this process take the signal.
    """
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if came:
            raise KeyboardInterrupt


def time_to_target(found: dict[str, Any]) -> str:
    """In virtual seconds."""
    seconds = found["seconds_to_target"]
    return "not reached" if seconds is None else f"{seconds:.3g}"


def table(outcomes: Sequence[Outcome], target: float | None) -> Table:
    """One row a point, within 100 columns."""
    good = [out["simulated"] for out in outcomes if "error" not in out]
    tiers = list(good[0]["bytes_by_tier"]) if good else []
    tiers = tiers if all(list(found["bytes_by_tier"]) == tiers for found in good) else []
    made = Table(box=SIMPLE_HEAVY, padding=0, pad_edge=False)
    for key in outcomes[0]["point"]:
        made.add_column(key.replace(".", ".\n"), overflow="fold")
    goal = [] if target is None else [f"time to\nloss {target:g}"]
    sent = [f"sent,\n{tier}" for tier in tiers] if len(tiers) > 1 else ["sent"]
    headers = ["training\nloss", "virtual\nseconds", "updates", "idle", *sent]
    for header in (*goal, *headers, "stale: mean,\n50, 95 %, max"):
        made.add_column(header, justify="right", no_wrap=True)
    for out in outcomes:
        figures = ["failed"] if "error" in out else _row(out["simulated"], target, tiers)
        made.add_row(*out["point"].values(), *figures)
    return made


def _row(found: dict[str, Any], target: float | None, tiers: Sequence[str]) -> list[str]:
    sizes = list(found["bytes_by_tier"].values()) if len(tiers) > 1 else [found["bytes"]]
    old = found["staleness"]
    return [
        *([time_to_target(found)] if target is not None else []),
        f"{found['loss']:.5g}",
        f"{found['seconds']:.3g}",
        f"{found['updates']:,}",
        f"{found['idle_share']:.0%}",
        *map(output.human_bytes, sizes),
        f"{old['mean']:.3g}, {old['median']}, {old['95 %']}, {old['max']}",
    ]
