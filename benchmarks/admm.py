"""Rounds of consensus ADMM until the loss is within 1e-3 of the optimum, beside L-BFGS.

Logistic regression with L2 penalty 1/n; 2, 8 and 32 workers with equal shards. A round of ADMM
sends one vector each way and solves every shard's problem; an iteration of L-BFGS on all data also
sends one vector each way, the model and its gradient, for every evaluation. "Gradients" are those
of one worker's shard.

    python benchmarks/admm.py [--data DIRECTORY] [--rounds N]

``DIRECTORY`` holds ``a9a/a9a.svm.bz2`` and ``debsec/debsec.svm.bz2``; without it there is breast
cancer alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import minimize

import hemiola
from hemiola.algorithms.registry import build
from hemiola.callbacks import TargetLoss
from hemiola.dataset import Batch, Dataset
from hemiola.objectives import LinearObjective
from hemiola.reference import pooled_optimum
from hemiola.training import make_objective

WORKERS = (2, 8, 32)
WITHIN = 1e-3
PATIENT = {"stopping.absolute": 0, "stopping.relative": 0}
SETTINGS: dict[str, dict[str, Any]] = {
    "rho balanced": {},
    "rho = 0.1": {"balance.rounds": 0},
    "rho = 0.01": {"rho": 0.01, "balance.rounds": 0},
    "not relaxed": {"relax": 1.0},
}


def data_sets(directory: Path | None) -> list[Dataset]:
    cancer = hemiola.load("breast_cancer")
    sets = [hemiola.Standardizer.fit(cancer).apply(cancer)]
    if directory is not None:
        sets += [hemiola.load(directory / name / f"{name}.svm.bz2") for name in ("a9a", "debsec")]
    return sets


def lbfgs(objective: LinearObjective, data: Dataset, target: float) -> tuple[int, int]:
    """Iterations and evaluations of SciPy's L-BFGS until the loss is as low as ``target``."""
    batch, start = Batch(data), np.zeros(data.n_features + 1)
    counts = {"iterations": 0, "evaluations": 0}

    def evaluate(w: np.ndarray) -> tuple[float, np.ndarray]:
        counts["evaluations"] += 1
        return objective.value(w, batch), objective.grad(w, batch)

    def reached(intermediate_result: Any) -> None:
        counts["iterations"] += 1
        if intermediate_result.fun <= target:
            raise StopIteration

    minimize(evaluate, start, jac=True, method="L-BFGS-B", callback=reached,
             options={"maxiter": 5000})  # fmt: skip
    return counts["iterations"], counts["evaluations"]


def admm(
    objective: LinearObjective, data: Dataset, target: float, workers: int, rounds: int, name: str
) -> str:
    """Rounds to the target, and gradients of a shard."""
    result = hemiola.fit(
        build("admm", {**PATIENT, **SETTINGS[name]}), objective, data, workers=workers,
        rounds=rounds, eval_every=1, callbacks=[TargetLoss(target)],
    )  # fmt: skip
    last = result.history.last
    if last.loss > target:
        return f"> {rounds}"
    return f"{last.rounds:.0f} ({last.local_steps / workers:.0f})"


def main(
    data: Annotated[Path | None, typer.Option(help="directory of the data sets")] = None,
    rounds: Annotated[int, typer.Option(help="rounds to give up after")] = 100,
) -> None:
    """Run the comparison and print one table."""
    table = Table(title=f"rounds (gradients) to a loss within {WITHIN:g} of the optimum")
    for column in ("data", "L-BFGS", "ADMM", *(f"{k} workers" for k in WORKERS)):
        table.add_column(column, justify="left" if column in ("data", "ADMM") else "right")
    for part in data_sets(data):
        objective = make_objective("logistic", part)
        target = (1 + WITHIN) * pooled_optimum(objective, part)[1]
        iterations, evaluations = lbfgs(objective, part, target)
        for name in track(SETTINGS, description=part.name, transient=True):
            cells = [admm(objective, part, target, k, rounds, name) for k in WORKERS]
            first = name == next(iter(SETTINGS))
            whole = f"{iterations} ({evaluations})" if first else ""
            table.add_row(part.name.split(".")[0] if first else "", whole, name, *cells)
        table.add_section()
        Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
