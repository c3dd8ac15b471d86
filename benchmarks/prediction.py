"""Predicted against measured time to a target loss, on processes with one slow worker.

Four worker processes, of which one is slowed five times by injection (all of them compute with
pauses, so that four fit on two cores). Each algorithm trains to the target several times; the
pieces of work of a run are timed, the simulator is calibrated from them and predicts the time to
the target. Medians. The order of the algorithms in the simulation should be the real one.

    python benchmarks/prediction.py
"""

from __future__ import annotations

import statistics

from rich.console import Console
from rich.table import Table

import hemiola
from hemiola.algorithms.registry import build
from hemiola.calibration import Timing, calibrate
from hemiola.callbacks import TargetLoss
from hemiola.dataset import Dataset, make_dataset
from hemiola.engines import engine_class
from hemiola.engines.simulator import Simulator
from hemiola.faults import Slow
from hemiola.history import History
from hemiola.objectives import LinearObjective
from hemiola.rng import stream

WORKERS, REPEATS, TARGET, ROUNDS = 4, 3, 0.9, 400
FAULTS = (Slow(0, 20.0), Slow(1, 4.0), Slow(2, 4.0), Slow(3, 4.0))
ALGORITHMS = {
    "ssgd": ("ssgd", {"lr": 0.4}),
    "ssp, s = 3": ("ssp", {"s": 3, "lr": 0.1}),
    "asgd": ("asgd", {"lr": 0.1}),
    "dc-asgd-a": ("dc-asgd", {"lr": 0.1}),
    "adadelay": ("adadelay", {"lr": 0.05}),
    "adaptive-revision": ("adaptive-revision", {"lr": 0.05}),
    "hybrid": ("hybrid", {"outer.lr": 0.2}),
}


def problem() -> Dataset:
    """Ten noisy classes of 200 features: a gradient takes a millisecond or so."""
    rng = stream(0, "benchmark")
    X = rng.normal(size=(4000, 200))
    y = (X @ rng.normal(size=(200, 10)) + 4 * rng.gumbel(size=(4000, 10))).argmax(axis=1)
    return make_dataset(X, y)


def run(name: str, data: Dataset, engine: object, faults: tuple[Slow, ...]) -> History:
    recipe, options = ALGORITHMS[name]
    return hemiola.fit(
        build(recipe, {"batch_size": 512, **options}), LinearObjective("softmax", 1e-4), data,
        engine=engine, workers=WORKERS, rounds=ROUNDS, eval_every=1, faults=faults,
        callbacks=[TargetLoss(TARGET)],
    ).history  # fmt: skip


def foreseen(name: str, data: Dataset, real: History) -> float:
    """Virtual seconds to the target of workers as fast as those of a real run."""
    engine = calibrate(Simulator(), Timing.of(real, "processes"))
    return run(name, data, engine, ()).last.seconds


def main() -> None:
    data = problem()
    table = Table(title=f"seconds to loss {TARGET}: processes, and the calibrated simulator")
    for column in ("algorithm", "measured", "predicted", "error", "updates", "staleness"):
        table.add_column(column, justify="left" if column == "algorithm" else "right")
    orders: list[tuple[float, float, str]] = []
    for name in ALGORITHMS:
        real = [run(name, data, engine_class("processes")(), FAULTS) for _ in range(REPEATS)]
        measured = statistics.median(history.last.seconds for history in real)
        predicted = statistics.median(foreseen(name, data, history) for history in real)
        orders.append((measured, predicted, name))
        table.add_row(
            name, f"{measured:.3f}", f"{predicted:.3f}", f"{predicted / measured - 1:+.0%}",
            f"{real[0].last.updates:,}", f"{real[0].mean_staleness():.2f}",
        )  # fmt: skip
    console = Console(width=100)
    console.print(table)
    console.print("measured: ", ", ".join(name for _, _, name in sorted(orders)))
    console.print("predicted:", ", ".join(n for _, n in sorted((p, n) for _, p, n in orders)))


if __name__ == "__main__":
    main()
