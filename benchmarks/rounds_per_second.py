"""Rounds per second of the published breast-cancer setting on one core, and where the time goes.

Setting: 4 workers, 5 local steps, mini-batches of a tenth of the shard, logistic loss, standardised
breast-cancer data (398 x 30), serial engine, one BLAS thread. The share of Python overhead is one
minus the time that the compiled gradient kernel alone takes for the same calls, measured in the
same run. For comparison: published PySpark code of this setting runs model averaging at about 0.5
rounds a second on two cores.

Run it with ``make bench`` or ``python benchmarks/rounds_per_second.py``.
"""

from __future__ import annotations

import statistics
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table

import hemiola
from hemiola.algorithm import Algorithm
from hemiola.algorithms.registry import build
from hemiola.dataset import Batch, Dataset
from hemiola.objectives import logistic

ROUNDS, REPEATS, WORKERS = 2000, 5, 4
SETTINGS = {
    "ssgd": {},
    "model-averaging": {"steps": 5},
    "bmuf": {"steps": 5},
    "easgd": {"period": 5},
}


def seconds_per_gradient(data: Dataset) -> float:
    """The kernel alone: one gradient of a worker's mini-batch."""
    from hemiola.objectives import kernels

    w, g = np.zeros(data.n_features + 1), np.zeros(data.n_features + 1)
    rows, none = np.arange(10), np.empty(0)
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        for _ in range(10_000):
            kernels.dense_grad(kernels.LOGISTIC, data.X, data.y, none, rows, w, 0.01, g)
        times.append((perf_counter() - start) / 10_000)
    return statistics.median(times)


def run(algorithm: Algorithm, data: Dataset) -> tuple[float, int]:
    """Seconds and gradients of one run."""
    result = hemiola.fit(
        algorithm, logistic(0.01), data, workers=WORKERS, rounds=ROUNDS, eval_every=ROUNDS
    )
    return result.history.last.seconds, result.history.last.local_steps


def main() -> None:
    train, _ = hemiola.split(hemiola.load("breast_cancer"), test_size=0.3)
    data = hemiola.Standardizer.fit(train).apply(train)
    logistic(0.01).grad(np.zeros(31), Batch(data, np.arange(10)))  # compile
    algorithms = {name: build(name, {**o, "lr": 0.1}) for name, o in SETTINGS.items()}
    times: dict[str, list[float]] = {name: [] for name in algorithms}
    gradients = {}
    for _ in range(REPEATS):  # in turn, so that a slow minute hits all alike
        for name, algorithm in algorithms.items():
            seconds, gradients[name] = run(algorithm, data)
            times[name].append(seconds)
    kernel = seconds_per_gradient(data)

    table = Table(title=f"serial engine, {WORKERS} workers, {ROUNDS} rounds, {REPEATS} repeats")
    for column in ("algorithm", "rounds/s", "min", "max", "us/gradient", "Python overhead"):
        table.add_column(column, justify="left" if column == "algorithm" else "right")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        table.add_row(
            name,
            f"{ROUNDS / middle:,.0f}",
            f"{ROUNDS / max(seconds):,.0f}",
            f"{ROUNDS / min(seconds):,.0f}",
            f"{1e6 * middle / gradients[name]:.1f}",
            f"{1 - kernel * gradients[name] / middle:.0%}",
        )
    console = Console(width=100)
    console.print(table)
    console.print(f"compiled gradient kernel alone: {1e6 * kernel:.1f} us")


if __name__ == "__main__":
    main()
