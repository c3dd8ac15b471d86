"""Two threads that share memory on real data: what is learned a pass, and what is learned a second.

Softmax regression on Fashion-MNIST, with the error on its 10,000 test images; matrix factorisation
on MovieLens, with the error on a held-out tenth of the ratings and three times as many passes.
Every curve is one run of ``hemiola.fit`` with the algorithm's defaults, but for softmax at a tenth
of the estimated rate, at which the error swings. Seconds are the processor's, which other programs
do not lengthen: what all threads spent in passes over their number, and what was spent before the
first pass on laying out the data and on the plan; without evaluations. One thread is drawn as a
dashed line.

    OPENBLAS_NUM_THREADS=1 python benchmarks/shared_memory.py --data DIRECTORY [--plot FIGURE]
        [--passes 10]

``DIRECTORY`` holds ``fashion-mnist/*-ubyte.gz`` and ``ml-latest-small/ratings.csv.xz``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import numpy as np
import typer
from factorization import DECAY, L2, LR
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from staleness import fashion_mnist

import hemiola
from hemiola.algorithms import cyclades, stratified
from hemiola.algorithms.hogwild import hogwild
from hemiola.algorithms.tiered import tiered
from hemiola.callbacks import Callback
from hemiola.data import read_ratings, split
from hemiola.dataset import Dataset, make_dataset
from hemiola.history import Record
from hemiola.job import Event, Job
from hemiola.learning_rate import base_rate
from hemiola.objectives import factorization
from hemiola.training import make_objective
from hemiola.types import Array

COLOURS = {"tiered": "C0", "hogwild": "C1", "stratified": "C2", "cyclades": "C3"}
RANK = 16


@dataclass
class Curve(Callback):
    """One run: seconds so far and error after every pass."""

    name: str
    threads: int
    error: Callable[[Record, Array], float]
    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    spent: float = 0.0
    since: float = 0.0

    def on_start(self, job: Job, updates: int) -> None:
        self.since = process_time()

    def on_words(self, words: Sequence[str]) -> None:
        """The plan, made by one thread, is ready."""
        self.spent += process_time() - self.since
        self.since = process_time()

    def on_update(self, event: Event) -> None:
        self.spent += (process_time() - self.since) / self.threads

    def on_record(self, record: Record, model: Array) -> None:
        self.seconds.append(self.spent)
        self.errors.append(self.error(record, model))
        self.since = process_time()


@dataclass
class Problem:
    """Data, an objective, what an error is, and who takes part on how many threads."""

    title: str
    label: str
    train: Dataset
    held_out: Dataset
    objective: Any
    error: Callable[[Record, Array], float]
    entered: list[tuple[Any, int]]
    longer: int = 1

    def curve(self, algorithm: Any, threads: int, passes: int) -> Curve:
        found = Curve(algorithm.name, threads, self.error)
        for rounds, watchers in (
            (1, []),
            (self.longer * passes, [found]),
        ):  # the first one compiles
            hemiola.fit(
                algorithm, self.objective, self.train, engine="threads", workers=threads,
                rounds=rounds, eval_data=self.held_out, eval_every=1, callbacks=watchers,
            )  # fmt: skip
        return found


def images(directory: Path) -> Problem:
    train, test = (
        make_dataset(part.X.astype(np.float32), part.y, name="Fashion-MNIST")
        for part in (fashion_mnist(directory), fashion_mnist(directory, "t10k"))
    )
    objective = make_objective("auto", train)
    lr = base_rate(objective, train, 1) / 10
    return Problem(
        "Fashion-MNIST, softmax", "test error, %", train, test, objective,
        lambda record, _: 100 * (1 - record.score),
        [(tiered(lr), 1), (tiered(lr), 2), (hogwild(lr), 1), (hogwild(lr), 2)],
    )  # fmt: skip


def ratings(file: Path) -> Problem:
    data = read_ratings(file, np.float32).data
    train, held_out = split(data, test_size=0.1)
    objective = factorization(data, RANK, L2)
    planned, blocks = cyclades(lr=LR, decay=DECAY), stratified(LR, DECAY)
    return Problem(
        f"MovieLens (small), {RANK} factors", "RMSE, held out", train, held_out, objective,
        lambda _, model: objective.rmse(model, held_out),
        [(planned, 1), (planned, 2), (blocks, 1), (blocks, 2)], longer=3,
    )  # fmt: skip


def table(problem: Problem, curves: list[Curve]) -> Table:
    found = Table(title=f"{problem.title}: {len(problem.train):,} samples")
    for column in ("algorithm", "threads", "ms before", "ms a pass", "least", "last"):
        found.add_column(column, justify="left" if column == "algorithm" else "right")
    for curve in curves:
        each = float(np.median(np.diff(curve.seconds)))
        before = max(curve.seconds[0] - each, 0.0)
        found.add_row(
            curve.name, str(curve.threads), f"{1e3 * before:.0f}", f"{1e3 * each:.1f}",
            f"{min(curve.errors):.4g}", f"{curve.errors[-1]:.4g}",
        )  # fmt: skip
    return found


def draw(figure: Any, row: int, problem: Problem, curves: list[Curve]) -> None:
    """By passes on the left, by seconds on the right."""
    by_pass, by_second = figure[row]
    for curve in curves:
        look = {
            "color": COLOURS[curve.name], "linestyle": "--" if curve.threads == 1 else "-",
            "marker": "." if curve.threads == 1 else "o", "markersize": 4, "linewidth": 1.4,
            "label": f"{curve.name}, {curve.threads} thread{'s' * (curve.threads > 1)}",
        }  # fmt: skip
        by_pass.plot(range(1, len(curve.errors) + 1), curve.errors, **look)
        by_second.plot(curve.seconds, curve.errors, **look)
    by_pass.set(xlabel="passes", ylabel=problem.label, title=problem.title)
    by_second.set(xlabel="seconds of processor time, preparation included", title=problem.title)
    by_second.set_xlim(left=0)
    by_second.legend()
    for axes in (by_pass, by_second):
        axes.grid(alpha=0.3)


def main(
    data: Annotated[Path, typer.Option(help="directory of the data sets")],
    plot: Annotated[Path | None, typer.Option(help="figure to write")] = None,
    passes: Annotated[int, typer.Option(help="over Fashion-MNIST")] = 10,
) -> None:
    """Print a table a data set, and draw the curves."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    problems = [images(data / "fashion-mnist"), ratings(data / "ml-latest-small/ratings.csv.xz")]
    for row, problem in enumerate(problems):
        entered = track(problem.entered, description=problem.title, transient=True)
        curves = [problem.curve(algorithm, threads, passes) for algorithm, threads in entered]
        Console(width=100).print(table(problem, curves))
        draw(axes, row, problem, curves)
    if plot is not None:
        figure.savefig(plot, dpi=110)


if __name__ == "__main__":
    typer.run(main)
