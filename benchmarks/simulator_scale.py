"""What an event of the simulator costs, by the number of workers.

Every row is a process of its own: its peak memory is that of the run, data and all. An event is one
piece of work, computed and applied; its time is that of the processor, without the start, where
every worker begins to work. The data are a9a, or as many random samples of that shape. SSGD is
there for comparison: its event is a worker's part of a round.

    python benchmarks/simulator_scale.py
    python benchmarks/simulator_scale.py --data a9a.svm.bz2 --updates 100000 --algorithms asgd
"""

from __future__ import annotations

import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy import sparse

import hemiola
from hemiola.algorithms.registry import build
from hemiola.callbacks import Callback
from hemiola.dataset import Dataset, make_dataset
from hemiola.engines.simulator import LogNormal, LogNormalSpeed, Simulator, Tiers
from hemiola.job import Event
from hemiola.training import make_objective

SAMPLES, FEATURES, NONZERO = 32_561, 123, 14
BATCH = 3  # as many as a worker of 10,000 has
ALGORITHMS = "asgd,ssp,dc-asgd,adaptive-revision,easgd-async,downpour,ssgd"


class Stopwatch(Callback):
    """Seconds of this processor and pieces of work from the first event to the last."""

    def __init__(self) -> None:
        self.first = self.last = (0, 0.0)

    def on_update(self, event: Event) -> None:
        now = (event.ledger.pieces, process_time())
        self.first = self.first if self.first[0] else now
        self.last = now


def load(path: Path | None) -> Dataset:
    if path is not None:
        return hemiola.load(path)
    rng = np.random.default_rng(0)
    columns = rng.random((SAMPLES, FEATURES)).argpartition(NONZERO, axis=1)[:, :NONZERO]
    rows = np.repeat(np.arange(SAMPLES), NONZERO)
    X = sparse.csr_array((np.ones(rows.size), (rows, columns.ravel())), (SAMPLES, FEATURES))
    return make_dataset(X, (X @ rng.normal(size=FEATURES) > 0).astype(int), name="random")


def measure(name: str, workers: int, updates: int, path: Path | None) -> tuple[float, ...]:
    """(seconds of the whole run, microseconds an event, events, peak gigabytes)."""
    data = load(path)
    algorithm = build(name, {"batch_size": BATCH})
    rounds = max(3, updates // workers)
    watch, start = Stopwatch(), perf_counter()
    engine = Simulator(LogNormal(), speed=LogNormalSpeed(0.3), network=Tiers())
    hemiola.fit(
        algorithm, make_objective("auto", data), data, engine=engine, workers=workers,
        rounds=rounds, eval_every=rounds, callbacks=[watch],
    )  # fmt: skip
    total = perf_counter() - start
    events = watch.last[0] - watch.first[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return total, 1e6 * (watch.last[1] - watch.first[1]) / events, events, peak


def main(
    data: Annotated[Path | None, typer.Option(help="a file of a9a")] = None,
    updates: Annotated[int, typer.Option(help="pieces of work of every run")] = 100_000,
    workers: Annotated[str, typer.Option(help="numbers of workers")] = "100,1000,10000",
    algorithms: Annotated[str, typer.Option(help="names")] = ALGORITHMS,
) -> None:
    """Print one table; ratios are to the first number of workers."""
    table = Table(title=f"simulator, {updates:,} pieces of work of {BATCH} samples")
    for column in ("algorithm", "workers", "run, s", "us/event", "ratio", "peak GB"):
        table.add_column(column, justify="left" if column == "algorithm" else "right")
    for name in algorithms.split(","):
        base = None
        for k in map(int, workers.split(",")):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                total, event, _, peak = pool.submit(measure, name, k, updates, data).result()
            base = base or event
            table.add_row(
                name, f"{k:,}", f"{total:.1f}", f"{event:.0f}", f"{event / base:.2f}", f"{peak:.2f}"
            )
        table.add_section()
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
