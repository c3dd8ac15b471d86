"""Time to a target loss on an uneven cluster: 16 simulated workers, of which 4 are 5 times slower.

Each algorithm gets mini-batches of 32 samples and the best of several learning rates: its default
times 1/4, 1, 4, 16 and 64. A second table shows what the bound on the lead of stale synchronous
parallel training does when every worker is delayed at random (a tenth of its steps take 10 times as
long): the part of the time that workers wait, and the time to the target.

    python benchmarks/uneven_cluster.py [--data DIRECTORY] [--plot FILE]

``DIRECTORY`` holds ``a9a/a9a.svm.bz2`` and ``fashion-mnist/*-ubyte.gz``, of which every tenth image
is used; without it the built-in sets breast_cancer and digits take their places. Time is virtual:
the figures do not depend on the machine.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from staleness import data_sets

import hemiola
from hemiola.algorithms.registry import build
from hemiola.callbacks import TargetLoss
from hemiola.dataset import Dataset
from hemiola.engines.simulator import LogNormal, Simulator, Stragglers
from hemiola.errors import DivergedError
from hemiola.history import History
from hemiola.learning_rate import with_learning_rate
from hemiola.partition import Shards
from hemiola.training import make_objective

WORKERS = 16
CLUSTER = Simulator(LogNormal(1e-2, 0.2), latency=5e-4, slow_share=0.25, slow_factor=5.0)
STORMY = Simulator(Stragglers(1e-2, 0.1, 10.0), latency=5e-4)
FACTORS = (0.25, 1.0, 4.0, 16.0, 64.0)
ALGORITHMS: dict[str, tuple[str, dict[str, object]]] = {
    "ssgd": ("ssgd", {}),
    "ssp, s = 3": ("ssp", {"s": 3}),
    "asgd": ("asgd", {}),
    "dc-asgd-a": ("dc-asgd", {}),
    "adadelay": ("adadelay", {}),
    "adaptive-revision": ("adaptive-revision", {}),
    "hybrid": ("hybrid", {}),
}
LEADS = (0, 1, 2, 4, 8, 16, 32, None)
TARGETS = {"a9a.svm.bz2": 0.33, "fashion-mnist": 0.55, "breast_cancer": 0.08, "digits": 0.1}
EVERY = {"fashion-mnist": 10}
LINES = ("-", "--", ":", "-.")


class Outcome(NamedTuple):
    """``seconds`` to the target, infinite if it was not reached, and how."""

    seconds: float
    factor: float
    history: History | None


def default_rate(name: str, options: dict[str, object], data: Dataset) -> float:
    """The learning rate that is estimated from the data."""
    plain = build(name, options)
    source = Shards(data, plain.partition, WORKERS, 0)
    filled: Any = with_learning_rate(plain, make_objective("auto", data), data, source, WORKERS)
    rate: float | None = getattr(filled.aggregate, "lr", None)
    return rate if rate is not None else filled.aggregate.optimizer.lr


def run(
    name: str, options: dict[str, object], data: Dataset, factor: float, rounds: int,
    engine: Simulator = CLUSTER,
) -> Outcome:  # fmt: skip
    """Train to the target or to the end."""
    options = {"batch_size": 32, **options}
    if name == "hybrid":  # the estimate for two groups, which is what there will be
        options = {**options, "groups": (tuple(range(4)), tuple(range(4, WORKERS)))}
    rate = default_rate(name, options, data) * factor
    options.pop("groups", None)
    target = TARGETS[data.name]
    try:
        history = hemiola.fit(
            build(name, {**options, "lr": rate}), make_objective("auto", data), data,
            engine=engine, workers=WORKERS, rounds=rounds, eval_every=1,
            callbacks=[TargetLoss(target)],
        ).history  # fmt: skip
    except DivergedError:
        return Outcome(math.inf, factor, None)
    reached = history.last.seconds if history.last.loss <= target else math.inf
    return Outcome(reached, factor, history)


def best(
    name: str, options: dict[str, object], data: Dataset, rounds: int, engine: Simulator = CLUSTER
) -> Outcome:
    """The fastest learning rate; the one with the lowest loss if none reaches the target."""
    tried = [run(name, options, data, factor, rounds, engine) for factor in FACTORS]
    return min(tried, key=lambda o: (o.seconds, o.history.last.loss if o.history else math.inf))


def comparison(data: Dataset, rounds: int, axes: Any) -> Table:
    target = TARGETS[data.name]
    table = Table(title=f"{data.name}: 16 workers, 4 of them 5 times slower; loss {target:g}")
    for column in ("algorithm", "seconds", "of ssgd", "rate", "updates", "waiting", "staleness"):
        table.add_column(column, justify="left" if column == "algorithm" else "right")
    reference = math.inf
    for i, label in enumerate(track(ALGORITHMS, description=data.name, transient=True)):
        outcome = best(*ALGORITHMS[label], data, rounds)
        history = outcome.history
        if history is None:
            table.add_row(label, "diverged")
            continue
        reference = outcome.seconds if label == "ssgd" else reference
        table.add_row(
            label, f"{outcome.seconds:.2f}", f"{outcome.seconds / reference:.2f}",
            f"x{outcome.factor:g}", f"{history.last.updates:,}", f"{history.waiting_share():.1%}",
            f"{history.mean_staleness():.2f}",
        )  # fmt: skip
        axes.plot(history.column("seconds"), history.column("loss"), label=label,
                  linestyle=LINES[i % 4])  # fmt: skip
    axes.axhline(target, color="0.6", linewidth=0.8)
    axes.set(xlabel="virtual seconds", ylabel="loss", title=data.name, yscale="log")
    return table


def leads(data: Dataset, rounds: int) -> Table:
    table = Table(
        title=f"{data.name}: stale synchronous parallel, bound on the lead, random delays"
    )
    for column in ("s", "waiting", "seconds to target", "updates", "staleness"):
        table.add_column(column, justify="right")
    for s in LEADS:
        name, options = ("asgd", {}) if s is None else ("ssp", {"s": s})
        outcome = best(name, dict(options), data, rounds, STORMY)
        history = outcome.history
        if history is not None:
            table.add_row(
                "none" if s is None else str(s), f"{history.waiting_share():.1%}",
                f"{outcome.seconds:.2f}", f"{history.last.updates:,}",
                f"{history.mean_staleness():.2f}",
            )  # fmt: skip
    return table


def main(
    data: Annotated[Path | None, typer.Option(help="directory of the data sets")] = None,
    plot: Annotated[Path | None, typer.Option(help="figure to write")] = None,
    rounds: Annotated[int, typer.Option(help="pieces of work for every worker, at most")] = 600,
) -> None:
    """Print the tables."""
    console = Console(width=100)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    sets = [part.take(np.arange(0, len(part), EVERY.get(part.name, 1))) for part in data_sets(data)]
    for part, axes in zip(sets, figure.subplots(1, 2), strict=True):
        console.print(comparison(part, rounds, axes))
    axes.legend(fontsize=8)
    if plot is not None:
        figure.savefig(plot, dpi=130)
    console.print(leads(sets[0], rounds))


if __name__ == "__main__":
    typer.run(main)
