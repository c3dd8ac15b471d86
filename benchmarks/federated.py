"""Federated learning on data dealt by label: rounds to 80 % accuracy, and personal models.

100 clients hold two labels each (``by-label``), a tenth takes part in a round. FedSGD is FedAvg
with one epoch of the whole shard as one batch, so gradient descent on the sampled clients; FedAvg
makes 5 epochs on batches of 10. Then Ditto: a fifth of every client's samples is set aside as its
own test data, on which its personal model is compared with the global one.

    python benchmarks/federated.py [--data DIRECTORY] [--plot FILE] [--rounds N]

``DIRECTORY`` holds ``fashion-mnist/*-ubyte.gz``, of which the first 1,000 training images of every
class are used. Without it the built-in set digits takes its place, a quarter of it as test data.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from staleness import fashion_mnist

import hemiola
from hemiola.algorithms.registry import build
from hemiola.callbacks import Callback
from hemiola.dataset import Dataset, make_dataset
from hemiola.errors import DivergedError
from hemiola.history import History, Record
from hemiola.partition import ByLabel
from hemiola.result import Model
from hemiola.types import Array

CLIENTS, TARGET, A_CLASS = 100, 0.8, 1000
LOCAL = {"epochs": 5, "batch_size": 10}
RECIPES: dict[str, tuple[str, dict[str, object], tuple[float, ...]]] = {
    "FedSGD": ("fedavg", {"epochs": 1, "batch_size": None}, (0.03, 0.1)),
    "FedAvg": ("fedavg", LOCAL, (0.001, 0.003, 0.01)),
    "FedProx, mu = 0.1": ("fedprox", {**LOCAL, "mu": 0.1}, (0.003,)),
    "FedAdam": ("fedadam", LOCAL, (0.003,)),
}
LAMBDAS = (0.0, 0.1, 1.0)


def data_sets(directory: Path | None) -> tuple[Dataset, Dataset]:
    """Training and test data."""
    if directory is None:
        train, test = hemiola.split(hemiola.load("digits"), 0.25)
        scale = hemiola.Standardizer.fit(train)
        return scale.apply(train), scale.apply(test)
    images = directory / "fashion-mnist"
    train = fashion_mnist(images)
    rows = np.concatenate([np.flatnonzero(train.y == label)[:A_CLASS] for label in range(10)])
    with gzip.open(images / "t10k-images-idx3-ubyte.gz") as file:
        X = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784) / 255
    with gzip.open(images / "t10k-labels-idx1-ubyte.gz") as file:
        y = np.frombuffer(file.read(), np.uint8, offset=8)
    return train.take(np.sort(rows)), make_dataset(X, y, name="fashion-mnist, test")


@dataclass
class TargetScore(Callback):
    """Stop once the score on the evaluation data is at least ``score``."""

    score: float

    def on_record(self, record: Record, model: Array) -> str | None:
        return "the target was reached" if record.score >= self.score else None


class Outcome(NamedTuple):
    """``rounds`` to the target, infinite if it was not reached; the rate; how it came about."""

    rounds: float
    rate: float
    history: History


def best(name: str, train: Dataset, test: Dataset, rounds: int) -> Outcome:
    """The rate that needs the fewest rounds, or else the one that comes closest."""
    recipe, options, rates = RECIPES[name]
    common = {"participation": 0.1, "partition": ByLabel(2)}
    outcomes = []
    for rate in rates:
        algorithm = build(recipe, {**options, **common, "lr": rate})
        try:
            history = hemiola.fit(
                algorithm, "auto", train, workers=CLIENTS, rounds=rounds, eval_data=test,
                eval_every=5, callbacks=[TargetScore(TARGET)],
            ).history  # fmt: skip
        except DivergedError:
            continue
        reached = history.last.score >= TARGET
        outcomes.append(Outcome(history.last.rounds if reached else np.inf, rate, history))
    return min(outcomes, key=lambda found: (found.rounds, -max(found.history.column("score"))))


def race(train: Dataset, test: Dataset, rounds: int, axes: Axes) -> float:
    """Rounds to the target; returns FedAvg's best rate."""
    table = Table(title=f"{train.name}, {CLIENTS} clients of 2 labels, 10 a round: to {TARGET:.0%}")
    for column in ("algorithm", "rate", "rounds", "best accuracy", "local steps", "MB sent"):
        table.add_column(column, justify="left" if column == "algorithm" else "right")
    rates = {}
    for name in track(RECIPES, description="rounds to the target", transient=True):
        needed, rates[name], history = best(name, train, test, rounds)
        last, scores = history.last, history.column("score")
        table.add_row(
            name, f"{rates[name]:g}", f"{needed:.0f}" if needed < np.inf else f"> {rounds}",
            f"{max(scores):.4f}", f"{last.local_steps:,}",
            f"{(last.bytes_up + last.bytes_down) / 1e6:,.1f}",
        )  # fmt: skip
        axes.plot(history.column("rounds"), scores, label=name, linewidth=1)
    Console(width=100).print(table)
    axes.axhline(TARGET, color="0.6", linewidth=0.8)
    axes.set(xscale="log", xlabel="rounds", ylabel="test accuracy")
    axes.legend(fontsize=8)
    return rates["FedAvg"]


@dataclass(frozen=True)
class Dealt:
    """Consecutive shards of these sizes: who holds what was decided before."""

    sizes: list[int] = field(repr=False)
    reshuffle_every: int | None = None

    def split(self, y: Array, workers: int, rng: np.random.Generator) -> list[Array]:
        return np.split(np.arange(len(y)), np.cumsum(self.sizes)[:-1])


def set_aside(data: Dataset) -> tuple[Dataset, Dealt, list[Dataset]]:
    """What clients train on, in the order of clients; who holds what; their own test data."""
    rng = np.random.default_rng(1)
    shards = [rng.permutation(shard) for shard in ByLabel(2).split(data.y, CLIENTS, rng)]
    cut = [max(1, len(shard) // 5) for shard in shards]
    own = [data.take(shard[:n]) for shard, n in zip(shards, cut, strict=True)]
    rest = [shard[n:] for shard, n in zip(shards, cut, strict=True)]
    return data.take(np.concatenate(rest)), Dealt([len(shard) for shard in rest]), own


def personal(data: Dataset, rate: float, rounds: int, axes: Axes) -> None:
    """Personal models against the global one on the clients' own test data."""
    train, dealt, own = set_aside(data)
    table = Table(title=f"accuracy on {CLIENTS} clients' own test data, {rounds} rounds of Ditto")
    for column in ("model", "mean", "sd of clients", "worst tenth"):
        table.add_column(column, justify="left" if column == "model" else "right")

    def row(name: str, models: list[Model]) -> None:
        pairs = zip(models, own, strict=True)
        found = np.sort([(m.predict(test.X) == labels(test)).mean() for m, test in pairs])
        worst = found[: CLIENTS // 10].mean()
        table.add_row(name, f"{found.mean():.4f}", f"{found.std():.4f}", f"{worst:.4f}")
        axes.plot(found, np.arange(1, CLIENTS + 1) / CLIENTS, label=name, linewidth=1)

    for lam in track(LAMBDAS, description="Ditto", transient=True):
        algorithm = build("ditto", {
            **LOCAL, "lam": lam, "participation": 0.1, "personal_epochs": 5, "lr": rate,
            "partition": dealt,
        })  # fmt: skip
        result = hemiola.fit(
            algorithm, "auto", train, workers=CLIENTS, rounds=rounds, eval_every=rounds
        )
        if lam == LAMBDAS[0]:
            row("global", [result.model] * CLIENTS)
        name = f"personal, lambda = {lam:g}" + ("" if lam else " (local training)")
        row(name, [result.personal_model(k) for k in range(CLIENTS)])
    Console(width=100).print(table)
    axes.set(xlabel="accuracy on a client's own test data", ylabel="share of clients below")
    axes.legend(fontsize=8)


def labels(data: Dataset) -> Array:
    """The original labels (n,)."""
    assert data.classes is not None
    return data.classes[data.y.astype(int)]


def main(
    data: Annotated[Path | None, typer.Option(help="directory of the data sets")] = None,
    plot: Annotated[Path | None, typer.Option(help="figure to write")] = None,
    rounds: Annotated[int, typer.Option(help="rounds to the target, at most")] = 600,
) -> None:
    """Run both comparisons and print a table each."""
    train, test = data_sets(data)
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rate = race(train, test, rounds, left)
    personal(train, rate, max(1, rounds // 3), right)
    if plot is not None:
        figure.savefig(plot, dpi=80)


if __name__ == "__main__":
    typer.run(main)
