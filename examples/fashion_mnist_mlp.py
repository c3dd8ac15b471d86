"""Train one network by five algorithms: what do fewer messages cost?

    python examples/fashion_mnist_mlp.py [--data DIRECTORY] [--engine processes]

DIRECTORY holds Fashion-MNIST's four files as published (``train-images-idx3-ubyte.gz``, ...);
without it, scikit-learn's digits are used. Every algorithm takes the same number of gradients.
Needs ``pip install 'hemiola[torch]'``. HEMIOLA_QUICK=1 shortens the runs.
"""

from __future__ import annotations

import argparse
import gzip
import os
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import hemiola
from hemiola.algorithms.registry import build
from hemiola.dataset import Dataset, make_dataset

QUICK = bool(os.environ.get("HEMIOLA_QUICK"))
WORKERS, STEPS = 4, 10
GRADIENTS = 40 if QUICK else 1500  # of each worker
RATES = {"ssgd": 0.2, "model-averaging": 0.1, "bmuf": 0.1, "eamsgd": 0.02, "asgd": 0.05}


def options(name: str) -> dict[str, float]:
    """Mini-batches of 64; those that average models do so after ten local steps."""
    chosen: dict[str, float] = {"batch_size": 64, "lr": RATES[name]}
    if name in ("model-averaging", "bmuf"):
        chosen["steps"] = STEPS
    if name == "eamsgd":
        chosen["period"] = STEPS
    return chosen


def rounds(name: str) -> int:
    return GRADIENTS if name in ("ssgd", "asgd") else GRADIENTS // STEPS


def images(directory: Path, part: str) -> Dataset:
    """One part of Fashion-MNIST, pixels from 0 to 1 in single precision."""
    with gzip.open(directory / f"{part}-images-idx3-ubyte.gz") as file:
        X = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(directory / f"{part}-labels-idx1-ubyte.gz") as file:
        y = np.frombuffer(file.read(), np.uint8, offset=8)
    return make_dataset(X.astype(np.float32) / 255, y, name="Fashion-MNIST")


def digits() -> tuple[Dataset, Dataset]:
    train, test = hemiola.split(hemiola.load("digits"))
    scale = hemiola.Standardizer.fit(train)
    return scale.apply(train), scale.apply(test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="directory with Fashion-MNIST's files")
    parser.add_argument("--engine", default="serial")
    parser.add_argument("--network", default="mlp(hidden=100)")
    given = parser.parse_args()
    if given.data is None:
        train, test = digits()
    else:
        train, test = images(given.data, "train"), images(given.data, "t10k")
    table = Table(title=f"{given.network} on {train.name}, {WORKERS} workers, {given.engine}")
    for title in ("algorithm", "test accuracy", "training loss", "sent", "seconds"):
        table.add_column(title, justify="left" if title == "algorithm" else "right")
    for name in RATES:
        result = hemiola.fit(
            build(name, options(name)), given.network, train, workers=WORKERS,
            rounds=rounds(name), eval_data=test, engine=given.engine,
            eval_every=rounds(name),
        )  # fmt: skip
        last = result.history.last
        sent = f"{(last.bytes_up + last.bytes_down) / 1e6:,.0f} MB"
        row = (name, f"{last.score:.4f}", f"{last.loss:.4f}", sent, f"{last.seconds:.1f}")
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
