"""How fast a server takes in updates, against a bare NumPy update of the same vector.

Workers that compute nothing push one constant gradient of d floats; the server applies w - lr g and
replies. Its updates per second on threads and on processes are compared, in the same run and in
turn, with the loop ``w -= lr * g`` in one thread. GB/s counts the bytes up and down. The last table
is the speed-up of two processes over one on work that holds the interpreter lock: SSGD and model
averaging of a softmax model in NumPy.

    python benchmarks/server_throughput.py
"""

from __future__ import annotations

import statistics
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import hemiola
from hemiola.aggregate import Descend, Sum
from hemiola.algorithm import Algorithm, MiniBatch, Task, weight_of
from hemiola.algorithms import model_averaging, ssgd
from hemiola.communicate import Asynchronous
from hemiola.data import LogisticStream
from hemiola.dataset import make_dataset
from hemiola.engines import engine_class
from hemiola.job import Job
from hemiola.objectives import LinearObjective
from hemiola.optim import SGD
from hemiola.partition import Online, ShuffleSplit
from hemiola.rng import stream
from hemiola.types import Array, Message, State, freeze

WORKERS, REPEATS, SECONDS = 2, 5, 0.5
SIZES = (1_000, 100_000, 10_000_000)


@dataclass(frozen=True)
class Constant:
    """A worker that sends one vector for ever."""

    d: int

    def init(self, w0: Array) -> State:
        return {"t": 0, "g": np.full(self.d, 1e-9)}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        state["t"] += 1
        return state, freeze(g=state["g"], weight=weight_of(1))


def bare(d: int) -> float:
    """Updates a second of the loop alone."""
    w, g, lr = np.zeros(d), np.full(d, 1e-9), 0.1
    count, start = 0, perf_counter()
    while perf_counter() - start < SECONDS:
        w -= lr * g
        count += 1
    return count / (perf_counter() - start)


def served(engine: str, d: int) -> float:
    """Updates a second through an engine, after the first ten."""
    algorithm = Algorithm(
        "constant", ShuffleSplit(), Constant(d), Asynchronous(), Sum(), Descend(SGD(lr=0.1))
    )
    objective: Any = LinearObjective()
    job = Job(algorithm, objective, Online(LogisticStream(), 0), WORKERS, 0, np.zeros(d))
    with closing(engine_class(engine)().run(job)) as events:  # type: ignore[type-var]
        for event in events:
            if event.step == 10:
                start = perf_counter()
            elif event.step > 10 and perf_counter() - start >= SECONDS:
                return (event.step - 10) / (perf_counter() - start)
    raise AssertionError


def throughput() -> Table:
    table = Table(title=f"server updates, {WORKERS} workers, medians of {REPEATS}")
    for column in ("d", "bare/s", "engine", "updates/s", "GB/s", "ratio", "min", "max"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for d in SIZES:
        for engine in ("threads", "processes"):
            pairs = [(bare(d), served(engine, d)) for _ in range(REPEATS)]
            alone, rate = (statistics.median(p[i] for p in pairs) for i in (0, 1))
            ratios = sorted(b / a for a, b in pairs)
            table.add_row(
                f"{d:,}", f"{alone:,.0f}", engine, f"{rate:,.0f}", f"{rate * 16 * d / 1e9:.2f}",
                f"{statistics.median(ratios):.2f}", f"{ratios[0]:.2f}", f"{ratios[-1]:.2f}",
            )  # fmt: skip
    return table


def speedup() -> Table:
    """Samples a second on two processes over one, on dense softmax (NumPy and BLAS)."""
    rng = stream(0, "benchmark")
    data = make_dataset(rng.normal(size=(20_000, 256)), rng.integers(0, 10, 20_000))
    table = Table(title="NumPy softmax, 20,000 x 256, 10 classes: samples/s")
    for column in ("algorithm", "1 process", "2 processes", "ratio", "min", "max"):
        table.add_column(column, justify="left" if column == "algorithm" else "right")
    batch = MiniBatch(1000)
    for algorithm in (ssgd(SGD(lr=0.1), batch), model_averaging(10, SGD(lr=0.1), batch=batch)):
        rounds = 60 if algorithm.name == "ssgd" else 12

        def samples(workers: int, algorithm: Algorithm = algorithm, rounds: int = rounds) -> float:
            result = hemiola.fit(
                algorithm, LinearObjective("softmax"), data, engine="processes", workers=workers,
                rounds=rounds, eval_every=2,
            )  # fmt: skip
            first, last = result.history.records[1], result.history.last  # without the start-up
            steps = last.local_steps - first.local_steps
            return 1000 * steps / (last.seconds - first.seconds)

        pairs = [(samples(1), samples(2)) for _ in range(REPEATS)]
        one, two = (statistics.median(p[i] for p in pairs) for i in (0, 1))
        ratios = sorted(b / a for a, b in pairs)
        table.add_row(
            algorithm.name, f"{one:,.0f}", f"{two:,.0f}",
            f"{statistics.median(ratios):.2f}", f"{ratios[0]:.2f}", f"{ratios[-1]:.2f}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    console = Console(width=100)
    console.print(throughput())
    console.print(speedup())
