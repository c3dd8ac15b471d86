"""Nanoseconds per non-zero of one pass: SGD, its floor on this machine, two threads, scikit-learn.

The floor is a loop that does what no SGD can do without, in the same order over the same rows:
gather the weights of a row, then read, change and write them. All contestants take turns, so that a
slow minute hits all of them, and the fastest of the repeats counts: look at ratios. Times are times
on the processor, which other processes do not lengthen: of the calling thread, and of several
threads at once the longest. Only on a machine with nothing else to do are these wall-clock times.
`alone` is SGD by threads that share no model: the speed-up that the machine has to give.

    python benchmarks/kernels.py             a twentieth of the rows: about a minute
    python benchmarks/kernels.py --rows 1.0  the full size: 8 GB of memory
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import thread_time
from typing import Any

import numpy as np
from numba import njit
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import SGDClassifier

from hemiola.algorithms.hogwild import Hogwild
from hemiola.algorithms.tiered import Tiered
from hemiola.data.synthetic import KINDS, synthetic
from hemiola.dataset import Dataset
from hemiola.job import Work
from hemiola.kernels import Rows, sgd
from hemiola.kernels.sgd import Rule
from hemiola.objectives import logistic
from hemiola.team import Team

ONE = np.uint64(1)
Contestant = Callable[[int], float]


@njit(nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"})
def floor_pass(indptr, indices, values, blocks, size, n, v):
    for b in blocks:
        for row in range(b * size, min((b + 1) * size, n)):
            i = np.uint64(row)
            z = v.dtype.type(0)
            for k in range(indptr[i], indptr[i + ONE]):
                z += values[k] * v[indices[k]]
            step = v.dtype.type(1e-9) * z
            for k in range(indptr[i], indptr[i + ONE]):
                v[indices[k]] -= step * values[k]


def floor(rows: Rows) -> Contestant:
    v, size = np.ones(rows.n_features + 1, rows.dtype), rows.block_size()
    table = rows.table

    def run(e: int) -> float:
        floor_pass(*table[:3], rows.blocks(0, e, size), size, len(rows), v)
        return 0.0

    return run


class Threads:
    """Parts of work that run at the same time, and how much longer than the caller's they took."""

    def __init__(self, team: Team) -> None:
        self.run_all, self.beyond = team.run, 0.0

    def run(self, part: Callable[[int], Any]) -> list[Any]:
        def timed(k: int) -> tuple[Any, float]:
            start = thread_time()
            return part(k), thread_time() - start

        results = self.run_all(timed)
        seconds = [spent for _, spent in results]
        self.beyond += max(seconds) - seconds[0]
        return [result for result, _ in results]


def passes(solver: Tiered | Hogwild, data: Dataset, threads: int) -> Contestant:
    """One pass of a solver after another."""
    objective = logistic(1 / len(data))
    plan = solver.prepare(Work(objective, data, threads, 0))
    state = solver.init(plan, objective.init(data, np.random.default_rng(0)))
    timed = Threads(plan.team)
    plan.team.run = timed.run

    def run(e: int) -> float:
        timed.beyond = 0.0
        solver.epoch(plan, state, e)
        return timed.beyond

    return run


def alone(rows: Rows, threads: int) -> Contestant:
    """Threads that share the rows out but no model: what parallel SGD could reach at best."""
    team, size, rule = Team(threads), rows.block_size(), Rule("logistic", 1.0, 1 / len(rows))
    models = [rows.inside(np.zeros(rows.n_features + 1)) for _ in range(threads)]
    timed = Threads(team)

    def run(e: int) -> float:
        timed.beyond = 0.0
        parts = np.array_split(rows.blocks(0, e, size), threads)
        timed.run(lambda k: sgd.plain(rows, models[k], rule, rule.pace(), parts[k], size))
        return timed.beyond

    return run


def sklearn(data: Dataset, shuffle: bool) -> Contestant:
    model = SGDClassifier(loss="log_loss", alpha=1 / len(data), shuffle=shuffle)

    def run(e: int) -> float:
        model.partial_fit(data.X, data.y, classes=[0, 1])
        return 0.0

    return run


def contestants(data: Dataset, threads: int) -> dict[str, Contestant]:
    rows = Rows.of(data, 0)
    return {
        "floor": floor(rows),
        "SGD": passes(Tiered(1.0), data, 1),
        f"alone, {threads}": alone(rows, threads),
        f"tiered, {threads}": passes(Tiered(1.0), data, threads),
        f"Hogwild!, {threads}": passes(Hogwild(0.5), data, threads),
        "scikit-learn": sklearn(data, True),
        "in order": sklearn(data, False),
    }


def measure(data: Dataset, threads: int, repeats: int) -> dict[str, float]:
    """The best time of each, in ns per non-zero."""
    running = contestants(data, threads)
    best = dict.fromkeys(running, np.inf)
    for e in range(repeats + 1):  # the first compiles
        for name, run in running.items():
            start = thread_time()
            beyond = run(e)
            if e:
                best[name] = min(best[name], thread_time() - start + beyond)
    return {name: 1e9 * seconds / data.X.nnz for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=0.05, help="share of the full rows")
    parser.add_argument("--features", type=float, default=1.0, help="share of the full features")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("sets", nargs="*", default=list(KINDS))
    asked = parser.parse_args()
    table = Table(title="ns per non-zero and pass, float32, logistic loss")
    console = Console(width=120)
    for name in asked.sets:
        kind = KINDS[name]
        data = synthetic(name, int(asked.rows * kind.rows), int(asked.features * kind.features))
        found = measure(data, asked.threads, asked.repeats)
        if not table.columns:
            table.add_column("set")
            for column in (*found, "SGD / floor", "speed-up: alone", "tiered", "Hogwild!"):
                table.add_column(column, justify="right")
        figures = [f"{value:.2f}" for value in found.values()]
        figures.append(f"{found['SGD'] / found['floor']:.2f}")
        for who in ("alone", "tiered", "Hogwild!"):
            figures.append(f"{found['SGD'] / found[f'{who}, {asked.threads}']:.2f}x")
        table.add_row(name, *figures)
    console.print(table)


if __name__ == "__main__":
    main()
