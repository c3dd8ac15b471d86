"""Seconds to the same value of the objective: MLlib's LogisticRegression and this library's
DistributedClassifier, side by side on one DataFrame.

Logistic regression with L2 penalty 1/n on sparse vectors in four partitions, cached; local[4].
MLlib runs once to warm up and then as often as ``--repeats`` says, without standardisation and with
its own stopping rule: the value that it reaches is the goal. DistributedClassifier takes L-BFGS,
too, with its preconditioner. It gets 8 rounds, and twice as many until its value is as low, or
there are 512; only fits of that many rounds count, from the call to the model. Medians. Compare the
values: at 512 rounds the goal may be missed.

    python benchmarks/spark_mllib.py [--data DIRECTORY] [--scale 1.0] [--repeats 3]

``DIRECTORY`` holds ``a9a/a9a.svm.bz2`` and ``debsec/debsec.svm.bz2``; the synthetic set has 500,000
rows times ``--scale``, 50,000 features and 30 million non-zeros times that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer
from pyspark.ml.classification import LogisticRegression
from pyspark.sql import SparkSession
from rich.console import Console
from rich.table import Table
from sklearn.datasets import dump_svmlight_file

import hemiola
from hemiola.data.synthetic import synthetic
from hemiola.dataset import Batch, Dataset
from hemiola.engines.spark import session
from hemiola.objectives import logistic
from hemiola.spark import DistributedClassifier

PARTITIONS, LEAST, MOST = 4, 8, 512
ROWS, FEATURES = 500_000, 50_000


def data_sets(directory: Path | None, scale: float) -> Iterator[Dataset]:
    for name in ("a9a", "debsec") if directory is not None else ():
        yield hemiola.load(directory / name / f"{name}.svm.bz2")
    yield synthetic("power-law", int(ROWS * scale), FEATURES)


def frame_of(spark: Any, data: Dataset, place: Path) -> Any:
    """The data as Spark reads them, cached."""
    path = place / f"{data.name}.svm"
    dump_svmlight_file(data.X, data.y, str(path), zero_based=False)
    reader = spark.read.format("libsvm").option("numFeatures", data.n_features)
    frame = reader.load(str(path)).repartition(PARTITIONS).cache()
    frame.count()
    return frame


def seconds_of_mllib(frame: Any, l2: float) -> tuple[float, Any]:
    """And the weights (d,)."""
    start = perf_counter()
    model = LogisticRegression(regParam=l2, standardization=False).fit(frame)
    return perf_counter() - start, np.append(model.coefficients.toArray(), model.intercept)


def seconds_of_ours(frame: Any, l2: float, rounds: int) -> tuple[float, Any]:
    estimator = DistributedClassifier(
        algorithm="lbfgs", rounds=rounds, l2=l2, numWorkers=PARTITIONS, options={"tolerance": 0}
    )
    start = perf_counter()
    model = estimator.fit(frame)
    return perf_counter() - start, model.result.weights


def rows_of(spark: Any, data: Dataset, repeats: int) -> Iterator[list[str]]:
    """The table's rows of one data set."""
    l2 = 1 / len(data)

    def value(w: Any) -> float:
        return logistic(l2).value(w, Batch(data))

    with TemporaryDirectory() as place:
        frame = frame_of(spark, data, Path(place))
        goal = value(seconds_of_mllib(frame, l2)[1])
        rounds = LEAST
        while value(seconds_of_ours(frame, l2, rounds)[1]) > goal and rounds < MOST:
            rounds *= 2
        peer, ours = [], []
        for _ in range(repeats):
            peer.append(seconds_of_mllib(frame, l2))
            ours.append(seconds_of_ours(frame, l2, rounds))
        frame.unpersist()
    times = [median(seconds for seconds, _ in found) for found in (peer, ours)]
    yield [data.name, "MLlib", "", f"{times[0]:.2f}", f"{value(peer[0][1]):.7f}", ""]
    yield ["", "L-BFGS", str(rounds), f"{times[1]:.2f}",
           f"{value(ours[0][1]):.7f}", f"{times[1] / times[0]:.2f}"]  # fmt: skip


def main(
    data: Annotated[Path | None, typer.Option(help="directory of the data sets")] = None,
    scale: Annotated[float, typer.Option(help="share of the synthetic set's rows")] = 1.0,
    repeats: Annotated[int, typer.Option(help="runs of which the median counts")] = 3,
) -> None:
    """Print one table."""
    table = Table(title=f"seconds to MLlib's objective value, {PARTITIONS} partitions")
    for column in ("data", "", "rounds", "seconds", "objective", "of MLlib"):
        table.add_column(column, justify="left" if column in ("data", "") else "right")
    with session(f"local[{PARTITIONS}]", ["spark.driver.memory=8g"]) as context:
        spark = SparkSession(context)
        for part in data_sets(data, scale):
            for row in rows_of(spark, part, repeats):
                table.add_row(*row)
            table.add_section()
            Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
