"""Matrix completion by threads that share the factors: serial, stratified, Cyclades, Hogwild!.

Root mean squared error on a held-out tenth of the ratings, and what a pass costs, on 1 and 2
threads. All methods take their passes in turn, so that a slow minute hits all alike; the median
pass counts. Times are processor time, which hardly depends on who else uses the machine: of a pass
that of the busiest thread, waiting for others included, and of the ``plan`` that of the calling
one. ``speed-up`` is over the serial loop, which visits the ratings in one random order, laid out in
memory once. ``to 1 %`` and ``to 0.1 %`` are seconds, plan included, with the passes that it took,
until the error is so near the least that any method reached. ``bits`` says whether the outcome
is that of the same algorithm on one thread.

    python benchmarks/factorization.py [--data FILE] [--ratings N] [--rank R] [--passes N]
        [--float64] [--plot FILE]

``FILE`` is MovieLens's ``ratings.csv``, which may be packed. Without it there are only synthetic
ratings, whose users and items have power-law frequencies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, thread_time
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from hemiola.algorithms import cyclades, stratified
from hemiola.algorithms.factor_passes import FactorPasses
from hemiola.data import read_ratings, split
from hemiola.dataset import Dataset, make_dataset
from hemiola.job import Work
from hemiola.objectives import MatrixFactorization, factorization
from hemiola.rng import stream
from hemiola.team import Team

LR, DECAY, L2 = 0.02, 0.95, 0.05
GOALS = (1e-2, 1e-3)
LINES = ("-", "--", "-.", ":", "-")


class Clocked:
    """A team that notes the processor time of its busiest thread in everything it does."""

    def __init__(self, team: Team) -> None:
        self.size, self.seconds = team.size, 0.0
        self._team = team

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        def clocked(k: int) -> float:
            begun = thread_time()
            work(k)
            return thread_time() - begun

        self.seconds = max(self._team.run(clocked))
        return []


@dataclass
class Contender:
    """One method on so many threads, one pass after another."""

    name: str
    threads: int
    plan: float
    step: Callable[[int], None]
    state: dict[str, Any]
    team: Clocked
    seconds: list[float] = field(default_factory=list)
    busiest: list[float] = field(default_factory=list)
    rmse: list[float] = field(default_factory=list)

    def to(self, rmse: float) -> str:
        """Seconds, plan included, and passes until the error is so small."""
        passes = next((k for k, reached in enumerate(self.rmse, 1) if reached <= rmse), None)
        return "-" if passes is None else f"{self.plan + sum(self.busiest[:passes]):.3f} ({passes})"

    def go(self, epoch: int, objective: MatrixFactorization, held_out: Dataset) -> None:
        begun = perf_counter()
        self.step(epoch)
        self.seconds.append(perf_counter() - begun)
        self.busiest.append(self.team.seconds)
        self.rmse.append(objective.rmse(self.state["w"], held_out))


def contender(name: str, algorithm: Any, work: Work) -> Contender:
    solver = algorithm.solver
    solver.prepare(
        Work(work.objective, work.data.take(np.arange(5000)), work.threads, 0)
    )  # compile
    begun = thread_time()
    plan = solver.prepare(work)
    seconds = thread_time() - begun
    state, team = solver.init(plan, start(work)), Clocked(plan.team)
    plan = replace(plan, team=team)
    return Contender(
        name, work.threads, seconds, lambda epoch: solver.epoch(plan, state, epoch), state, team
    )


def hogwild(work: Work) -> Contender:
    """The serial order cut into one piece a thread, without locks and without a plan."""
    begun = thread_time()
    n, team = len(work.data), Clocked(Team(work.threads))
    passes = FactorPasses.of(work, stream(0, "cyclades").permutation(n))
    bounds = np.linspace(0, n, work.threads + 1).astype(np.int64)
    state = passes.init(start(work))
    seconds = thread_time() - begun
    return Contender(
        "Hogwild!", work.threads, seconds,
        lambda epoch: passes.run(state, bounds, LR * DECAY**epoch, team),  # type: ignore[arg-type]
        state, team,
    )  # fmt: skip


def start(work: Work) -> np.ndarray[Any, Any]:
    return work.objective.init(work.data, stream(0, "init"))


def contenders(objective: MatrixFactorization, data: Dataset) -> list[Contender]:
    one, two = (Work(objective, data, threads, 0) for threads in (1, 2))
    return [
        contender("serial", cyclades(lr=LR, decay=DECAY, batch_size=len(data)), one),
        contender("Cyclades", cyclades(lr=LR, decay=DECAY), two),
        contender("stratified", stratified(LR, DECAY), one),
        contender("stratified", stratified(LR, DECAY), two),
        hogwild(two),
    ]


def synthetic(n: int, dtype: Any, users: int = 50_000, items: int = 10_000) -> Dataset:
    """Rank-8 preferences with noise of 0.5; the k-th user and item come up like k^-0.6."""
    rng = stream(0, "ratings")
    u, v = (
        np.minimum((size * rng.random(n) ** 2.5).astype(np.int64), size - 1)
        for size in (users, items)
    )
    L, R = rng.normal(size=(users, 8)) * 0.5, rng.normal(size=(items, 8)) * 0.5
    z = 3.5 + np.einsum("ij,ij->i", L[u], R[v]) + 0.5 * rng.normal(size=n)
    pairs = np.column_stack([u, v]).astype(dtype)
    return make_dataset(pairs, z.astype(dtype), regression=True, name="synthetic ratings")


def compare(data: Dataset, rank: int, passes: int) -> tuple[Table, list[Contender]]:
    objective = factorization(data, rank, L2)
    train, held_out = split(data, test_size=0.1)
    lined_up = contenders(objective, train)
    for epoch in range(passes):
        for each in lined_up:
            each.go(epoch, objective, held_out)
    serial = lined_up[0]
    table = Table(
        title=f"{data.name}: {len(train):,} ratings, {objective.users:,} x {objective.items:,}, "
        f"rank {rank}, {data.dtype}, {passes} passes"
    )
    for column in (
        "method", "threads", "plan, s", "ns a rating", "speed-up", "to 1 %", "to 0.1 %", "RMSE",
        "bits",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column == "method" else "right")
    first: dict[str, Contender] = {"Cyclades": serial, "Hogwild!": serial}
    best = min(min(each.rmse) for each in lined_up)
    for each in lined_up:
        alone = first.setdefault(each.name, each)
        same = "" if alone is each else "same" if equal(each, alone) else "other"
        price = np.median(each.busiest)
        table.add_row(
            each.name, str(each.threads), f"{each.plan:.3f}", f"{1e9 * price / len(train):.1f}",
            f"{np.median(serial.busiest) / price:.2f}x",
            *(each.to((1 + goal) * best) for goal in GOALS), f"{each.rmse[-1]:.4f}", same,
        )  # fmt: skip
    return table, lined_up


def equal(a: Contender, b: Contender) -> bool:
    return bool((a.state["w"] == b.state["w"]).all())


def main(
    data: Annotated[Path | None, typer.Option(help="ratings.csv, may be packed")] = None,
    ratings: Annotated[int, typer.Option(help="number of synthetic ratings")] = 1_000_000,
    rank: Annotated[int, typer.Option(help="factors of a user or item")] = 16,
    passes: Annotated[int, typer.Option(help="over the data")] = 20,
    float64: Annotated[bool, typer.Option(help="instead of float32")] = False,
    plot: Annotated[Path | None, typer.Option(help="figure to write")] = None,
) -> None:
    """Print one table a data set."""
    console, dtype = Console(width=100), np.float64 if float64 else np.float32
    sets = [synthetic(ratings, dtype)]
    if data is not None and data.exists():
        sets.insert(0, read_ratings(data, dtype).data)
    else:
        console.print("no file of ratings: synthetic ones only (--data FILE for MovieLens).")
    figure = Figure(figsize=(5.5 * len(sets), 4.5), layout="constrained")
    for part, axes in zip(sets, figure.subplots(1, len(sets), squeeze=False)[0], strict=True):
        table, lined_up = compare(part, rank, passes)
        console.print(table)
        for line, each in zip(LINES, lined_up, strict=True):
            seconds = each.plan + min(each.seconds) * np.arange(1, passes + 1)
            axes.plot(seconds, each.rmse, line, label=f"{each.name}, {each.threads}")
        axes.set(xlabel="seconds, plan included", ylabel="RMSE, held out", title=part.name)
    axes.legend(title="method, threads")
    if plot is not None:
        figure.savefig(plot, dpi=130)


if __name__ == "__main__":
    typer.run(main)
