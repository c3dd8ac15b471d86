"""Pull-push cycles a second of engine ``processes``: 2 workers that do nothing but answer.

A cycle is the whole way: the server writes the model to shared memory, a worker reads it and
answers with an array of the same size, the server checks the answer and applies it as a step of
SGD. Run it with ``python benchmarks/processes_throughput.py [workers]``.
"""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from hemiola.algorithm import Task, weight_of
from hemiola.algorithms import asgd
from hemiola.dataset import make_dataset
from hemiola.engines import engine_class
from hemiola.job import Job
from hemiola.objectives import logistic
from hemiola.optim import SGD
from hemiola.partition import Shards
from hemiola.types import Message

CYCLES = {1_000: 20_000, 100_000: 10_000, 10_000_000: 60}
REPEATS = 5


@dataclass(frozen=True)
class Echo:
    """up = down, under another name: no work at all."""

    def init(self, w0: Any) -> dict[str, int]:
        return {"t": 0}

    def work(self, state: dict[str, int], down: Message, task: Task) -> Any:
        state["t"] += 1
        return state, {"g": down["w"], "weight": weight_of(1)}


def cycles_per_second(engine: str, d: int, workers: int, cycles: int) -> float:
    algorithm = replace(asgd(SGD(1e-9)), local=Echo())
    data = make_dataset(np.eye(10), np.arange(10) % 2)
    source = Shards(data, algorithm.partition, workers, 0)
    job = Job(algorithm, logistic(), source, workers, 0, np.ones(d))
    with closing(engine_class(engine)().run(job)) as events:
        for _ in islice(events, cycles // 10):  # first touches of the memory
            pass
        start = perf_counter()
        for _ in islice(events, cycles):
            pass
        return cycles / (perf_counter() - start)


def main() -> None:
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    for engine in ("processes", "threads", "serial"):
        for d, cycles in CYCLES.items():
            runs = [cycles_per_second(engine, d, workers, cycles) for _ in range(REPEATS)]
            low, middle, high = min(runs), median(runs), max(runs)
            print(
                f"{engine:10} d = {d:.0e}: {middle:8,.0f} cycles/s ({low:,.0f} - {high:,.0f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
