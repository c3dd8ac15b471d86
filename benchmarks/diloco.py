"""DiLoCo and streaming DiLoCo against synchronous SGD: loss against bytes sent.

Eight workers make the same number of steps on mini-batches of 32 samples. ``ssgd`` sends a gradient
and a model at every step; DiLoCo a model every H steps; streaming DiLoCo a fifth of one every H/5
steps, merged two steps later. All of them use AdamW: the server of SSGD, the workers of the others.
Best of three rates.

    python benchmarks/diloco.py [--data DIRECTORY] [--plot FILE] [--steps N]

``DIRECTORY`` holds ``fashion-mnist/*-ubyte.gz``, of which 10,000 training images are used.
Without it the built-in set digits takes its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from bmuf_adam import Outcome, images
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

import hemiola
from hemiola.algorithms.registry import build
from hemiola.dataset import Dataset
from hemiola.errors import DivergedError
from hemiola.optim import AdamW, Nesterov

WORKERS, FRAGMENTS = 8, 5
RATES = (0.001, 0.004, 0.016)
RECIPES: dict[str, tuple[str, dict[str, object], int]] = {
    "ssgd, AdamW": ("ssgd", {}, 1),
    "model-averaging, H = 50": ("model-averaging", {"steps": 50}, 50),
    "diloco, H = 10": ("diloco", {"steps": 10}, 10),
    "diloco, H = 50": ("diloco", {"steps": 50}, 50),
    "diloco, H = 50, outer 1, 0.5": ("diloco", {"steps": 50, "server": Nesterov(1.0, 0.5)}, 50),
    "streaming, H = 50": ("streaming-diloco", {"steps": 50, "fragments": FRAGMENTS}, 10),
}
"""Recipe, options, and local steps of a round."""


def best(name: str, data: Dataset, steps: int) -> Outcome:
    """Training at every rate."""
    recipe, options, period = RECIPES[name]
    rounds, outcomes = steps // period, []
    for rate in RATES:
        algorithm = build(recipe, {**options, "batch_size": 32, "optimizer": AdamW(rate, 0.0)})
        try:
            result = hemiola.fit(
                algorithm, "auto", data, workers=WORKERS, rounds=rounds,
                eval_every=max(1, rounds // 40),
            )  # fmt: skip
            outcomes.append(Outcome(result.history.last.loss, rate, result.history))
        except DivergedError:
            continue
    return min(outcomes)


def main(
    data: Annotated[Path | None, typer.Option(help="directory of the data sets")] = None,
    plot: Annotated[Path | None, typer.Option(help="figure to write")] = None,
    steps: Annotated[int, typer.Option(help="local steps of every worker")] = 1000,
) -> None:
    """Run the comparison and print a table."""
    part = images(data)
    table = Table(title=f"{part.name}, {len(part):,} rows, {WORKERS} workers, {steps:,} steps each")
    for column in ("algorithm", "rate", "loss", "rounds", "MB sent", "kB a message"):
        table.add_column(column, justify="left" if column == "algorithm" else "right")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(track(RECIPES, description=part.name, transient=True)):
        loss, rate, history = best(name, part, steps)
        last = history.last
        table.add_row(
            name, f"{rate:g}", f"{loss:.4f}", f"{last.rounds:,.0f}",
            f"{(last.bytes_up + last.bytes_down) / 1e6:,.1f}",
            f"{2 * last.bytes_up / last.messages / 1e3:.1f}",
        )  # fmt: skip
        records = history.records[1:]
        sent = [(record.bytes_up + record.bytes_down) / 1e6 for record in records]
        losses = [record.loss for record in records]
        axes.plot(sent, losses, label=name, marker="osD^vP*X"[i], markersize=3, linewidth=1)
    Console(width=100).print(table)
    axes.set(xscale="log", xlabel="MB sent", ylabel="training loss", title=part.name)
    axes.legend(fontsize=8)
    if plot is not None:
        figure.savefig(plot, dpi=90)


if __name__ == "__main__":
    typer.run(main)
