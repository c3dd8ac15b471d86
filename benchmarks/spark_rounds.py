"""Seconds a round on Apache Spark: both modes of engine ``spark``, the published way, an empty job.

Setting: standardised breast-cancer data (398 x 30), 4 workers in 4 partitions, mini-batches of a
tenth, 5 local steps (SSGD: 1). The published way is written anew from its description: rows as
Python objects in an RDD; a random sample of it, a map and a join with the local models, which
shuffles, for every local step; the driver averages; nothing cuts the lineage. It is timed for 20
rounds at most, and stopped after ``--patience`` seconds. The empty job has 4 Python tasks that do
nothing; it is timed before and after the rounds of each algorithm, which are compared with it. The
published way comes last: it leaves behind dozens of idle Python workers, and Spark gives tasks to
all of them in turn, each of which then sees the data of later runs for the first time.

Run it with ``make bench-spark`` or ``python benchmarks/spark_rounds.py``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import hemiola
from hemiola.algorithms.registry import build
from hemiola.callbacks import Callback
from hemiola.dataset import Dataset
from hemiola.engines.spark import Spark, session
from hemiola.objectives import logistic

PARTITIONS, STEPS, L2, LR = 4, 5, 0.01, 0.1
SETTINGS: dict[str, dict[str, Any]] = {
    "ssgd": {},
    "model-averaging": {"steps": STEPS},
    "bmuf": {"steps": STEPS},
    "easgd": {"period": STEPS},
}
WARM = 3  # rounds that are not counted
ROUNDS = {"rounds": 30, "barrier": 300}


class Times(Callback):
    """When each update was made."""

    def __init__(self) -> None:
        self.clock: list[float] = []

    def on_update(self, event: Any) -> None:
        self.clock.append(perf_counter())

    @property
    def seconds(self) -> float:
        """The median from one round to the next."""
        return statistics.median(np.diff(self.clock[WARM:]))


def engine_seconds(name: str, mode: str, data: Dataset) -> float:
    times, rounds = Times(), ROUNDS[mode]
    engine = Spark(mode=mode, partitions=PARTITIONS)  # type: ignore[arg-type]
    hemiola.fit(
        build(name, {**SETTINGS[name], "lr": LR}), logistic(L2), data, engine=engine,
        workers=PARTITIONS, rounds=rounds, eval_every=rounds, callbacks=[times],
    )  # fmt: skip
    return times.seconds


def engine_milliseconds(spark: Any, name: str, data: Dataset) -> tuple[float, float, float]:
    """A round's, of an empty job and in both modes."""
    before = empty_seconds(spark)
    rounds = engine_seconds(name, "rounds", data)
    empty = statistics.median(before + empty_seconds(spark))
    return 1000 * empty, 1000 * rounds, 1000 * engine_seconds(name, "barrier", data)


def empty_seconds(spark: Any) -> list[float]:
    found = []
    for _ in range(15):
        start = perf_counter()
        spark.parallelize(range(PARTITIONS), PARTITIONS).mapPartitions(_nothing).collect()
        found.append(perf_counter() - start)
    return found[WARM:]


def _nothing(rows: Iterator[Any]) -> Iterator[Any]:
    return iter(list(rows))


# The published way


def _gradient(row: Any, w: Any) -> Any:
    """Of the logistic loss on one row (x, y), intercept last, as (gradient, 1)."""
    x, y = row
    return (1 / (1 + np.exp(-x @ w)) - y) * x, 1


def _added(a: Any, b: Any) -> Any:
    return a[0] + b[0], a[1] + b[1]


def _stepped(pair: Any) -> Any:
    """A local model after a step on the sum of its gradients."""
    w, (g, count) = pair
    return w - LR * (g / count + L2 * w)


class Published:
    """Local models as an RDD that is joined with gradients for each step; ``rule`` makes the new
    centre of the old one, the mean of the local models, and what the rule keeps."""

    def __init__(self, spark: Any, data: Dataset, steps: int) -> None:
        X = np.column_stack([data.X, np.ones(len(data))])
        rows = [(x, float(y)) for x, y in zip(X, data.y, strict=True)]
        self._points = spark.parallelize(rows, PARTITIONS).cache()
        self._points.count()
        self._spark, self._steps = spark, steps
        self._w = np.zeros(X.shape[1])
        self._delta = np.zeros(X.shape[1])
        self._models: Any = None

    def _keyed(self, t: int) -> Any:
        """A sample of the rows, each under the number of its partition."""
        sample = self._points.sample(False, 0.1, 42 + t)
        return sample.mapPartitionsWithIndex(_numbered)

    def _descended(self, models: Any, t: int) -> Any:
        for step in range(self._steps):
            own = self._keyed(t * self._steps + step).join(models)  # each row with its model
            gradients = own.mapValues(_gradient_of).reduceByKey(_added, PARTITIONS)
            models = models.join(gradients, PARTITIONS).mapValues(_stepped)
        return models

    def _fresh(self) -> Any:
        w = self._w
        return self._spark.parallelize([(k, w) for k in range(PARTITIONS)], PARTITIONS)

    def ssgd(self, t: int) -> None:
        w = self._w
        g, n = self._points.sample(False, 0.1, 42 + t).map(lambda r: _gradient(r, w)).reduce(_added)
        self._w = w - LR * (g / n + L2 * w)

    def averaging(self, t: int) -> None:
        models = self._models if self._models is not None else self._fresh()
        found = self._descended(models, t)
        mean = found.values().sum() / PARTITIONS
        self._w = mean
        self._models = found.mapValues(lambda _, mean=mean: mean)  # and so the lineage grows

    def bmuf(self, t: int) -> None:
        before = self._w
        self.averaging(t)
        self._delta = 0.9 * self._delta + 0.1 * (self._w - before)
        self._w = w = before + self._delta
        self._models = self._models.mapValues(lambda _, w=w: w)

    def easgd(self, t: int) -> None:
        models = self._models if self._models is not None else self._fresh()
        found, centre, alpha = self._descended(models, t), self._w, 0.04
        found = found.mapValues(lambda x, c=centre: x - alpha * (x - c))
        self._w = centre + alpha * (found.values().sum() - PARTITIONS * centre)
        self._models = found


def _numbered(number: int, rows: Iterator[Any]) -> Iterator[Any]:
    return ((number, row) for row in rows)


def _gradient_of(pair: Any) -> Any:
    return _gradient(*pair)


def published_seconds(spark: Any, data: Dataset, name: str, patience: float) -> tuple[float, int]:
    """Seconds a round, and over how many."""
    run = Published(spark, data, 1 if name in ("ssgd", "easgd") else STEPS)
    round_of: Callable[[int], None] = {
        "ssgd": run.ssgd, "model-averaging": run.averaging, "bmuf": run.bmuf, "easgd": run.easgd,
    }[name]  # fmt: skip
    start, done = perf_counter(), 0
    while done < 20 and perf_counter() - start < patience:
        round_of(done)
        done += 1
    return (perf_counter() - start) / done, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--patience", type=float, default=60.0, help="seconds (default: 60)")
    given = parser.parse_args()
    train, _ = hemiola.split(hemiola.load("breast_cancer"), test_size=0.3)
    data = hemiola.Standardizer.fit(train).apply(train)
    console = Console(width=100)
    with session(f"local[{PARTITIONS}]") as spark:
        title = "milliseconds a round, and of an empty job of 4 tasks"
        table = Table(title=title, pad_edge=False)
        for column in ("algorithm", "empty", "rounds", "/ empty", "barrier", "published",
                       "(timed)", "/ rounds", "/ barrier"):  # fmt: skip
            table.add_column(column, justify="left" if column == "algorithm" else "right")
        ours = {name: engine_milliseconds(spark, name, data) for name in SETTINGS}
        for name, (empty, rounds, barrier) in ours.items():
            seconds, timed = published_seconds(spark, data, name, given.patience)
            published = 1000 * seconds
            table.add_row(
                name, f"{empty:.0f}", f"{rounds:.0f}", f"{rounds / empty:.2f}", f"{barrier:.1f}",
                f"{published:,.0f}", str(timed), f"{published / rounds:.0f}",
                f"{published / barrier:.0f}",
            )  # fmt: skip
        console.print(table)


if __name__ == "__main__":
    main()
