"""BMUF-Adam against synchronous Adam and plain averaging of Adam: loss against rounds and bytes.

Every worker of 4, 16 and 64 simulated ones makes the same number of steps on mini-batches of 32
samples: Adam at the server, a round a step (``ssgd``); and Adam in the workers, a round every five
steps, with models and moments averaged (``model-averaging``, ``carry=average``) or filtered
(``bmuf-adam``, with block momentum 1 - 1/K and with 0.75). Best of three rates.

    python benchmarks/bmuf_adam.py [--data DIRECTORY] [--plot FILE] [--steps N]

``DIRECTORY`` holds ``fashion-mnist/*-ubyte.gz`` and ``debsec/debsec.svm.bz2``; of either
10,000 rows are used. Without it the built-in sets digits and breast_cancer take their places.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from staleness import fashion_mnist

import hemiola
from hemiola.algorithms.registry import build
from hemiola.dataset import Dataset
from hemiola.engines.simulator import LogNormal, Simulator
from hemiola.errors import DivergedError
from hemiola.history import History
from hemiola.optim import Adam

PERIOD, ROWS = 5, 10_000
WORKERS = (4, 16, 64)
RATES = (0.001, 0.004, 0.016)
RECIPES: dict[str, tuple[str, dict[str, object]]] = {
    "ssgd, Adam": ("ssgd", {}),
    "averaging of Adam": ("model-averaging", {"steps": PERIOD, "carry": "average"}),
    "bmuf-adam": ("bmuf-adam", {"steps": PERIOD}),
    "bmuf-adam, eta = 0.75": ("bmuf-adam", {"steps": PERIOD, "eta": 0.75}),
}


class Outcome(NamedTuple):
    """The lowest final loss of all rates, the rate, and how it came about."""

    loss: float
    rate: float
    history: History


def thinned(data: Dataset) -> Dataset:
    """At most so many rows, drawn at random."""
    if len(data) <= ROWS:
        return data
    return data.take(np.sort(np.random.default_rng(0).choice(len(data), ROWS, replace=False)))


def images(directory: Path | None) -> Dataset:
    """Ten classes, dense."""
    if directory is None:
        digits = hemiola.load("digits")
        return hemiola.Standardizer.fit(digits).apply(digits)
    return thinned(fashion_mnist(directory / "fashion-mnist"))


def texts(directory: Path | None) -> Dataset:
    """Two classes, sparse; the built-in set is small and dense."""
    if directory is None:
        cancer = hemiola.load("breast_cancer")
        return hemiola.Standardizer.fit(cancer).apply(cancer)
    return thinned(hemiola.load(directory / "debsec" / "debsec.svm.bz2"))


def best(name: str, data: Dataset, workers: int, steps: int) -> Outcome:
    """Training at every rate; SSGD has five times as many rounds as the others."""
    recipe, options = RECIPES[name]
    rounds = steps if recipe == "ssgd" else steps // PERIOD
    outcomes = []
    for rate in RATES:
        given = {"batch_size": min(32, len(data) // workers), "optimizer": Adam(rate)}
        try:
            result = hemiola.fit(
                build(recipe, {**options, **given}), "auto", data, workers=workers, rounds=rounds,
                engine=Simulator(compute=LogNormal()), eval_every=max(1, rounds // 20),
            )  # fmt: skip
            outcomes.append(Outcome(result.history.last.loss, rate, result.history))
        except DivergedError:
            continue
    return min(outcomes)


def loss_at(history: History, rounds: int) -> float:
    """At the last evaluation up to so many rounds."""
    return [record.loss for record in history.records if record.rounds <= rounds][-1]


def main(
    data: Annotated[Path | None, typer.Option(help="directory of the data sets")] = None,
    plot: Annotated[Path | None, typer.Option(help="figure to write")] = None,
    steps: Annotated[int, typer.Option(help="local steps of every worker")] = 160,
) -> None:
    """Run the comparison and print one table a data set."""
    rounds, figure = steps // PERIOD, Figure(figsize=(11, 6.5), layout="constrained")
    sets = [images(data), texts(data)]
    for row, part in zip(figure.subplots(2, 3), sets, strict=True):
        table = Table(title=f"{part.name}, {len(part):,} rows: loss; {steps} steps a worker")
        for column in ("workers", "algorithm", "rate", f"after {rounds} rounds", f"after {steps} "
                       "steps", "MB sent"):  # fmt: skip
            table.add_column(column, justify="left" if column == "algorithm" else "right")
        runs = [(axes, k, name) for axes, k in zip(row, WORKERS, strict=True) for name in RECIPES]
        for axes, workers, name in track(runs, description=part.name, transient=True):
            loss, rate, history = best(name, part, workers, steps)
            sent = history.last.bytes_up + history.last.bytes_down
            table.add_row(
                str(workers), name, f"{rate:g}", f"{loss_at(history, rounds):.4f}", f"{loss:.4f}",
                f"{sent / 1e6:,.1f}", end_section=name == list(RECIPES)[-1],
            )  # fmt: skip
            axes.plot(history.column("rounds"), history.column("loss"), label=name, marker=".")
            axes.set(xlim=(0, 2 * rounds), xlabel="rounds", title=f"{part.name}, K = {workers}")
        Console(width=100).print(table)
        row[0].set(ylabel="training loss")
    row[0].legend(fontsize=8)
    if plot is not None:
        figure.savefig(plot, dpi=80)


if __name__ == "__main__":
    typer.run(main)
