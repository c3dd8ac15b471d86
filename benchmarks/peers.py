"""Logistic regression by hemiola's threads and by other packages: price of a pass, time to a goal.

The same data, the same penalty (l2 = 1/n), the same run. All solvers take turns, as often as
``--repeats`` says, and medians count. ``ns`` is the time of one more pass (or iteration) over the
number of non-zeros; ``of floor`` is the share of it that no SGD can do without, measured in the
same run; ``vs SGD`` and ``2 threads`` are how many times as fast a pass is as scikit-learn's
SGDClassifier's and as the same solver's on one thread. The last two columns are seconds, with the
passes that it took, until the objective is within 1 % and 0.1 % of its least value.

    OPENBLAS_NUM_THREADS=1 python benchmarks/peers.py [--data DIRECTORY] [--scale 0.05]
        [--features 1.0] [--repeats 3] [--wall] [--sets power-law,uniform]

Times are the processor's, which other programs hardly change; ``--wall`` on a machine with nothing
else to do. ``DIRECTORY`` holds ``a9a/a9a.svm.bz2`` and ``debsec/debsec.svm.bz2``. ``--scale`` is
the share of the full rows of the synthetic sets; where features are many more than non-zeros, what
a pass costs is what touching every weight costs. The last table is of matrix completion
(``benchmarks/factorization.py``). Packages that are not installed are named and left out:
``pip install 'hemiola[bench]'``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Annotated

import factorization
import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import make_classification
from solvers import Catalogue, Solver

import hemiola
from hemiola.data.synthetic import KINDS, synthetic
from hemiola.dataset import Batch, Dataset, make_dataset
from hemiola.objectives import LinearObjective

GOALS = (1e-2, 1e-3)
PASSES = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)
ENOUGH = 5  # passes to tell the price of one
WIDTH = 100


@dataclass
class Record:
    """What was seen of one solver: seconds by passes, once a repeat; and when it got there."""

    seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    reached: dict[float, int] = field(default_factory=dict)
    failure: str = ""

    def price(self) -> float | None:
        """Seconds of one more pass."""
        if len(self.seconds) < 2:
            return None
        first, last = min(self.seconds), max(self.seconds)
        spent = np.subtract(self.seconds[last], self.seconds[first]) / (last - first)
        return float(np.median(spent))

    def to(self, goal: float) -> str:
        if goal not in self.reached:
            return self.failure or "-"
        passes = self.reached[goal]
        return f"{np.median(self.seconds[passes]):.3f} ({passes})"


@dataclass
class Race:
    """All solvers on one data set; ``best`` is the least value of the objective."""

    data: Dataset
    best: float
    patience: float
    records: dict[Solver, Record] = field(default_factory=lambda: defaultdict(Record))

    def explore(self, solver: Solver) -> None:
        """Pass after pass until both goals are reached or patience is at an end."""
        record, begun = self.records[solver], process_time()
        try:
            for passes, seconds, w in solver.walk(self.data, self._l2, PASSES):
                record.seconds[passes].append(seconds)
                if w is not None:
                    self._note(record, passes, w)
                spent = process_time() - begun
                done = len(record.reached) == len(GOALS) or w is None
                if (done and passes >= ENOUGH) or spent > self.patience:
                    return
        except (RuntimeError, ValueError) as error:
            record.failure = type(error).__name__

    def repeat(self, solver: Solver) -> None:
        """Only what the table shows: the first pass, the last, and those that reached a goal."""
        record = self.records[solver]
        if not record.failure:
            looked = {min(record.seconds), max(record.seconds), *record.reached.values()}
            record.seconds = defaultdict(list, {k: record.seconds[k] for k in sorted(looked)})
            for passes, seconds, _ in solver.walk(self.data, self._l2, sorted(looked)):
                if passes in looked:
                    record.seconds[passes].append(seconds)

    @property
    def _l2(self) -> float:
        return 1 / len(self.data)

    def _note(self, record: Record, passes: int, w: object) -> None:
        value = objective(self.data).value(np.asarray(w, np.float64), Batch(self.data))
        for goal in GOALS:
            if value <= (1 + goal) * self.best:
                record.reached.setdefault(goal, passes)


def objective(data: Dataset) -> LinearObjective:
    return LinearObjective("logistic", 1 / len(data))


def least_value(data: Dataset) -> float:
    """What sdca certifies to be within 1e-5 of the least."""
    precise = Dataset(data.X.astype(np.float64), data.y, data.classes)
    result = hemiola.fit(
        hemiola.algorithms.sdca(1e-5), objective(data), precise, workers=1, rounds=2000,
        eval_every=2000,
    )  # fmt: skip
    return result.history.last.loss


def dense(scale: float) -> Dataset:
    X, y = make_classification(int(400_000 * scale), 256, n_informative=20, random_state=0)
    return make_dataset(X.astype(np.float32) / 16, y, name="dense")


def data_sets(
    directory: Path | None, scale: float, features: float, wanted: list[str]
) -> Iterator[Dataset]:
    """All in single precision."""
    for name in ("a9a", "debsec") if directory is not None else ():
        if not wanted or name in wanted:
            found = hemiola.load(str(directory / name / f"{name}.svm.bz2"))
            yield Dataset(found.X.astype(np.float32), found.y, found.classes, name=name)
    for name in ("power-law", "kdd-like", "uniform"):
        if not wanted or name in wanted:
            kind = KINDS[name]
            yield synthetic(name, int(kind.rows * scale), int(kind.features * features))
    if not wanted or "dense" in wanted:
        yield dense(scale)


def race(data: Dataset, catalogue: Catalogue, repeats: int, patience: float) -> Race:
    """Everybody once to compile, once to find out, and the rest to be sure."""
    entered = [s for s in catalogue.of(data.is_sparse, data.n_features) if s.is_here]
    with Progress(transient=True) as progress:
        bar = progress.add_task(data.name, total=len(entered) * (repeats + 1) + 1)
        found = Race(data, least_value(data), patience)
        for solver in entered:
            progress.update(bar, advance=1, description=f"{data.name}: {solver.name}, compiling")
            warm_up(solver, data)
        for number in range(repeats):
            for solver in entered:
                progress.update(bar, advance=1, description=f"{data.name}: {solver.name}")
                (found.repeat if number else found.explore)(solver)
    return found


def warm_up(solver: Solver, data: Dataset) -> None:
    few = data.take(np.arange(min(len(data), 2000)))
    for _ in solver.walk(few, 1 / len(few), (1,)):
        return


def show(found: Race) -> Table:
    data = found.data
    entries = data.X.nnz if data.is_sparse else data.X.size
    table = Table(
        title=f"{data.name}: {len(data):,} x {data.n_features:,}, {entries:,} non-zeros, "
        f"least {found.best:.6f}"
    )
    table.add_column("solver")
    for column in ("threads", "ns", "of floor", "vs SGD", "2 threads", "to 1 %", "to 0.1 %"):
        table.add_column(column, justify="right")
    prices = {(s.name, s.threads): r.price() for s, r in found.records.items() if s.counts}

    def ratio(of: tuple[str, int], price: float | None, form: str) -> str:
        base = prices.get(of)
        return form.format(base / price) if base and price else ""

    for solver, record in found.records.items():
        price = prices.get((solver.name, solver.threads))
        table.add_row(
            solver.name, str(solver.threads), f"{1e9 * price / entries:.2f}" if price else "",
            ratio(("floor", 1), price, "{:.0%}"), ratio(("SGDClassifier", 1), price, "{:.1f}x"),
            ratio((solver.name, 1), price, "{:.2f}x") if solver.threads > 1 else "",
            *(record.to(goal) if solver.name != "floor" else "" for goal in GOALS),
        )  # fmt: skip
    return table


def main(
    data: Annotated[Path | None, typer.Option(help="directory of data sets")] = None,
    scale: Annotated[float, typer.Option(help="share of the synthetic sets' full rows")] = 0.05,
    features: Annotated[float, typer.Option(help="share of their full features")] = 1.0,
    repeats: Annotated[int, typer.Option(help="runs of which the median counts")] = 3,
    patience: Annotated[float, typer.Option(help="seconds until a solver is given up")] = 3.0,
    wall: Annotated[bool, typer.Option(help="wall-clock instead of processor time")] = False,
    sets: Annotated[str, typer.Option(help="only these, with commas between")] = "",
) -> None:
    """Print one table a data set."""
    console, catalogue = Console(width=WIDTH), Catalogue(wall)
    missing = {s.needs for s in catalogue.of(True, 1) if not s.is_here}
    if missing:
        console.print(f"not installed: {', '.join(sorted(missing))}; pip install 'hemiola[bench]'.")
    wanted = [name for name in sets.split(",") if name]
    for found in data_sets(data, scale, features, wanted):
        console.print(show(race(found, catalogue, repeats, patience)))
    if not wanted or "ratings" in wanted:
        ratings = factorization.synthetic(int(20_000_000 * scale), np.float32)
        console.print(factorization.compare(ratings, rank=16, passes=20)[0])


if __name__ == "__main__":
    typer.run(main)
