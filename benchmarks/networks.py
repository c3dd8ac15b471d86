"""One network under every algorithm: until a share of the test images is told apart.

The perceptron 784-128-10 on Fashion-MNIST, four workers, mini-batches of 64. Every run ends at the
target, or after so many epochs (``--epochs``; L-BFGS, ten times as many). Workers that are free for
several steps take ten (DiLoCo 50); FedAvg and its like take an epoch, one-shot averaging all of its
forty. Rates are one a family, none is tuned further than that runs do not diverge. ADMM, CoCoA and
threads that share memory are for linear models and stay away.

    python benchmarks/networks.py [--data DIRECTORY] [--engine torchrun] [--target 0.87]
        [--algorithms ssgd,bmuf]

``DIRECTORY`` holds ``fashion-mnist/*-ubyte.gz``; without it scikit-learn's digits take its place.
Epochs are gradients' samples over the training samples. Seconds leave out evaluations; on an
engine of processes they are those of a machine whose cores are shared by all workers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from staleness import fashion_mnist

import hemiola
from hemiola.algorithm import Algorithm
from hemiola.algorithms.registry import build
from hemiola.callbacks import Callback
from hemiola.dataset import Dataset
from hemiola.epochs import rounds_for
from hemiola.errors import DivergedError
from hemiola.history import Record
from hemiola.training import source_of
from hemiola.types import Array

WORKERS, BATCH = 4, 64
NETWORK = "mlp(hidden=128)"
PORTIONS, LONGER = 16, 10  # gradients of the whole data are few an epoch
WHOLE = {"sandblaster": PORTIONS, "lbfgs": WORKERS}  # in how many parts
SETTINGS: dict[str, dict[str, Any]] = {
    "ssgd": {"lr": 0.3},
    "model-averaging": {"lr": 0.15},
    "one-shot-averaging": {"lr": 0.1, "steps": 9380},
    "fedavg": {"lr": 0.3},
    "fedprox": {"lr": 0.3, "mu": 0.001},
    "fedadam": {"lr": 0.1, "server.lr": 0.01},
    "ditto": {"lr": 0.3},
    "bmuf": {"lr": 0.1},
    "bmuf-adam": {"lr": 0.0005},
    "slowmo": {"lr": 0.1},
    "post-local-sgd": {"lr": 0.15},
    "diloco": {"lr": 0.001},
    "streaming-diloco": {"lr": 0.001},
    "easgd": {"lr": 0.15},
    "eamsgd": {"lr": 0.02},
    "asgd": {"lr": 0.1},
    "ssp": {"lr": 0.1},
    "easgd-async": {"lr": 0.15},
    "eamsgd-async": {"lr": 0.02},
    "adadelay": {"lr": 0.1},
    "adaptive-revision": {"lr": 0.03},
    "dc-asgd": {"lr": 0.1},
    "downpour": {"lr": 0.02, "optimizer.lr": 0.02},
    "sandblaster": {"memory": 20},
    "lbfgs": {"memory": 20},
    "hybrid": {"inner.lr": 0.1, "outer.lr": 0.1},
}
BATCHES = {"hybrid": "inner.batch_size", "sandblaster": "", "lbfgs": ""}


@dataclass
class TargetScore(Callback):
    """Stop once the accuracy on the test data is at least ``score``."""

    score: float

    def on_record(self, record: Record, model: Array) -> str | None:
        if record.score >= self.score:
            return f"the score reached {self.score:g}"
        return None


def scaled(data: Dataset) -> Dataset:
    """Pixels from 0 to 1 in single precision."""
    return Dataset(np.asarray(data.X, np.float32), data.y, data.classes, name=data.name)


def data_sets(directory: Path | None) -> tuple[Dataset, Dataset]:
    if directory is not None:
        train, test = (
            fashion_mnist(directory / "fashion-mnist", part) for part in ("train", "t10k")
        )
        return scaled(train), scaled(test)
    digits = hemiola.load("digits")
    train, test = hemiola.split(digits)
    scale = hemiola.Standardizer.fit(train)
    return scaled(scale.apply(train)), scaled(scale.apply(test))


def rounds_of(algorithm: Algorithm, train: Dataset, epochs: float) -> int:
    if algorithm.name == "sandblaster":
        return math.ceil(LONGER * epochs * PORTIONS / WORKERS)
    if algorithm.name == "lbfgs":
        return math.ceil(LONGER * epochs)
    if algorithm.name == "post-local-sgd":  # rounds of one step, then of as many as averaging's
        local: Any = algorithm.local
        twin = build("model-averaging", {"steps": local.then.steps, "batch_size": BATCH})
        return int(local.switch) + rounds_of(twin, train, epochs)
    return rounds_for(algorithm, source_of(algorithm, train, WORKERS, 0), WORKERS, epochs)


def cells(
    name: str, train: Dataset, test: Dataset, engine: str, epochs: float, target: float
) -> list[str]:
    """A row of the table."""
    options = dict(SETTINGS[name])
    if key := BATCHES.get(name, "batch_size"):
        options[key] = BATCH
    algorithm = build(name, options)
    rounds = rounds_of(algorithm, train, epochs)
    try:
        result = hemiola.fit(
            algorithm, NETWORK, train, engine=engine, workers=WORKERS, rounds=rounds,
            eval_data=test, eval_every=max(1, round(rounds / epochs / 4)),
            callbacks=[TargetScore(target)],
        )  # fmt: skip
    except DivergedError:
        return [name, "diverged"]
    last = result.history.last
    samples = len(train) / WHOLE[name] if name in WHOLE else BATCH
    sent = (last.bytes_up + last.bytes_down) / 1e6
    passes = last.local_steps * samples / len(train)
    return [
        name, f"{last.score:.4f}", f"{passes:.2f}", f"{last.rounds:,.0f}", f"{last.seconds:.1f}",
        f"{sent:,.0f}",
    ]  # fmt: skip


def main(
    data: Annotated[Path | None, typer.Option(help="directory of the data sets")] = None,
    engine: Annotated[str, typer.Option(help="where workers run")] = "torchrun",
    epochs: Annotated[float, typer.Option(help="passes to give up after")] = 40.0,
    target: Annotated[float, typer.Option(help="accuracy on the test data to stop at")] = 0.87,
    algorithms: Annotated[str, typer.Option(help="only these, with commas between")] = "",
) -> None:
    """Print one table."""
    train, test = data_sets(data)
    table = Table(title=f"{NETWORK} on {train.name}, {WORKERS} workers, engine {engine}")
    for column in ("algorithm", "accuracy", "epochs", "rounds", "seconds", "MB sent"):
        table.add_column(column, justify="left" if column == "algorithm" else "right")
    with Live(table, console=Console(width=100)):  # what is done is shown, whatever comes
        for name in algorithms.split(",") if algorithms else SETTINGS:
            table.add_row(*cells(name, train, test, engine, epochs, target))


if __name__ == "__main__":
    typer.run(main)
