"""Final loss of the asynchronous algorithms at mean staleness 1, 7 and 31, equal update budget.

With workers that are always busy the mean staleness of an update is K - 1 whatever their speeds, so
the three levels are 2, 8 and 32 workers on the simulator (log-normal compute times). Every
algorithm gets the same number of server updates, each from one mini-batch of 32 samples (elastic
averaging: one local step a period), and the best of five learning rates: its default times 1/16,
1/4, 1, 4 and 16. Sandblaster is left out: its updates are portions of one batch gradient.

    python benchmarks/staleness.py [--data DIRECTORY] [--plot FILE] [--updates N]

``DIRECTORY`` holds ``a9a/a9a.svm.bz2`` and ``fashion-mnist/*-ubyte.gz``; without it the built-in
sets breast_cancer and digits take their places.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

import hemiola
from hemiola.algorithms.registry import build
from hemiola.dataset import Dataset, make_dataset
from hemiola.engines.simulator import LogNormal, Simulator
from hemiola.errors import DivergedError
from hemiola.learning_rate import with_learning_rate
from hemiola.partition import Shards
from hemiola.reference import pooled_optimum
from hemiola.training import make_objective

WORKERS = (2, 8, 32)
FACTORS = (1 / 16, 0.25, 1.0, 4.0, 16.0)
RECIPES: dict[str, tuple[str, dict[str, object]]] = {
    "asgd": ("asgd", {}),
    "asgd, damped": ("asgd", {"damping": "inverse"}),
    "ssp, s = 3": ("ssp", {"s": 3}),
    "dc-asgd-c": ("dc-asgd", {"variant": "c"}),
    "dc-asgd-a": ("dc-asgd", {"variant": "a"}),
    "adadelay": ("adadelay", {}),
    "adaptive-revision": ("adaptive-revision", {}),
    "downpour": ("downpour", {}),
    "easgd-async": ("easgd-async", {"period": 1}),
    "eamsgd-async": ("eamsgd-async", {"period": 1}),
}


def fashion_mnist(directory: Path, part: str = "train") -> Dataset:
    """60,000 images of 28 x 28 as rows, scaled to [0, 1]; part ``t10k`` are 10,000 others."""
    with gzip.open(directory / f"{part}-images-idx3-ubyte.gz") as file:
        X = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784) / 255
    with gzip.open(directory / f"{part}-labels-idx1-ubyte.gz") as file:
        y = np.frombuffer(file.read(), np.uint8, offset=8)
    return make_dataset(X, y, name="fashion-mnist")


def data_sets(directory: Path | None) -> list[Dataset]:
    if directory is None:
        sets = [hemiola.load("breast_cancer"), hemiola.load("digits")]
        return [hemiola.Standardizer.fit(data).apply(data) for data in sets]
    return [
        hemiola.load(directory / "a9a" / "a9a.svm.bz2"),
        fashion_mnist(directory / "fashion-mnist"),
    ]


def final_loss(name: str, data: Dataset, workers: int, factor: float, updates: int) -> float:
    """Training loss after the budget; infinite if training diverged."""
    recipe, options = RECIPES[name]
    objective = make_objective("auto", data)
    options = {**options, "batch_size": 32}
    plain = build(recipe, options)
    source = Shards(data, plain.partition, workers, 0)
    filled = with_learning_rate(plain, objective, data, source, workers)
    rate = getattr(filled.aggregate, "lr", None) or getattr(filled.local, "lr", None)
    if rate is None:
        rate = filled.aggregate.optimizer.lr  # type: ignore[attr-defined]
    algorithm = build(recipe, {**options, "lr": rate * factor})
    if recipe == "downpour":  # the short name means the replicas' rate there
        algorithm = build(recipe, {**options, "optimizer.lr": rate * factor})
    engine = Simulator(compute=LogNormal())
    rounds = updates // workers
    try:
        result = hemiola.fit(
            algorithm, objective, data, engine=engine, workers=workers, rounds=rounds,
            eval_every=rounds,
        )  # fmt: skip
    except DivergedError:
        return float("inf")
    return result.history.last.loss


def main(
    data: Annotated[Path | None, typer.Option(help="directory of the data sets")] = None,
    plot: Annotated[Path | None, typer.Option(help="figure to write")] = None,
    updates: Annotated[int, typer.Option(help="server updates of every run")] = 4800,
) -> None:
    """Run the comparison and print one table a data set."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    sets = data_sets(data)
    for axes, part in zip(figure.subplots(1, 2), sets, strict=True):
        optimum = pooled_optimum(make_objective("auto", part), part, iterations=300)[1]
        table = Table(title=f"{part.name}: loss after {updates:,} updates (optimum {optimum:.4f})")
        for column in ("algorithm", *(f"staleness {k - 1}" for k in WORKERS)):
            table.add_column(column, justify="left" if column == "algorithm" else "right")
        for i, name in enumerate(track(RECIPES, description=part.name, transient=True)):
            runs = [[(final_loss(name, part, k, f, updates), f) for f in FACTORS] for k in WORKERS]
            best = [min(tried) for tried in runs]
            table.add_row(name, *(f"{loss:.4f} (x{factor:g})" for loss, factor in best))
            axes.plot(
                [k - 1 for k in WORKERS], [loss for loss, _ in best], label=name,
                marker="osD^vP*X<>"[i], linestyle=("-", "--", ":", "-.")[i % 4],
            )  # fmt: skip
        Console(width=100).print(table)
        axes.axhline(optimum, color="0.6", linewidth=0.8)
        axes.set(xscale="log", xlabel="mean staleness", ylabel="final loss", title=part.name)
        axes.set_xticks([k - 1 for k in WORKERS], [str(k - 1) for k in WORKERS])
    axes.legend(fontsize=8)
    if plot is not None:
        figure.savefig(plot, dpi=130)


if __name__ == "__main__":
    typer.run(main)
