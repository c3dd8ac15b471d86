"""Nanoseconds per non-zero of one pass: SGD, its floor on this machine, two threads, scikit-learn.

The floor is a loop that does what no SGD can do without, in the same order over the same rows:
gather the weights of a row, then read, change and write them. All contestants take turns, so that a
slow minute hits all of them, and the fastest of the repeats counts: look at ratios. Times are times
on the processor, which other processes do not lengthen: of the calling thread, and of several
threads at once the longest. Only on a machine with nothing else to do are these wall-clock times.

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
from hemiola.kernels import Rows
from hemiola.objectives import logistic

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


class Pass:
    """One pass of a solver after another."""

    def __init__(self, solver: Tiered | Hogwild, data: Dataset, threads: int) -> None:
        objective = logistic(1 / len(data))
        self.solver = solver
        self.plan = solver.prepare(Work(objective, data, threads, 0))
        self.state = solver.init(self.plan, objective.init(data, np.random.default_rng(0)))
        self.longest = 0.0
        self.together, self.plan.team.run = self.plan.team.run, self.timed

    def timed(self, part: Callable[[int], Any]) -> list[Any]:
        """All threads' parts; notes how much longer than the caller's the longest one was."""

        def timed_part(k: int) -> tuple[Any, float]:
            start = thread_time()
            return part(k), thread_time() - start

        results = self.together(timed_part)
        seconds = [spent for _, spent in results]
        self.longest += max(seconds) - seconds[0]
        return [result for result, _ in results]

    def __call__(self, e: int) -> float:
        """Seconds that the other threads took beyond the calling one."""
        self.longest = 0.0
        self.solver.epoch(self.plan, self.state, e)
        return self.longest


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
        "SGD": Pass(Tiered(1.0), data, 1),
        f"tiered, {threads}": Pass(Tiered(1.0), data, threads),
        f"Hogwild!, {threads}": Pass(Hogwild(0.5), data, threads),
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
            for column in (*found, "SGD / floor", "tiered speed-up", "Hogwild! speed-up"):
                table.add_column(column, justify="right")
        figures = [f"{value:.2f}" for value in found.values()]
        figures.append(f"{found['SGD'] / found['floor']:.2f}")
        for who in ("tiered", "Hogwild!"):
            figures.append(f"{found['SGD'] / found[f'{who}, {asked.threads}']:.2f}x")
        table.add_row(name, *figures)
    console.print(table)


if __name__ == "__main__":
    main()
