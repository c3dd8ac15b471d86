"""Rounds of consensus ADMM until the loss is within 1e-3 of the optimum, beside L-BFGS.

Logistic regression with L2 penalty 1/n; 2, 8 and 32 workers with equal shards. A round of ADMM
sends one vector each way and solves every shard's problem; an iteration of L-BFGS on all data also
sends one vector each way, the model and its gradient, for every evaluation. "Gradients" are those
of one worker's shard.

    python benchmarks/admm.py [--data DIRECTORY] [--rounds N] [--exact]

``--exact`` prints another table, of many rounds: how far the consensus model is from
scikit-learn's optimum on all data, and with an L1 penalty whether both use the same features.
Where features are collinear, as a9a's groups of indicators are, L1 has many optima; a little L2
beside it leaves one. This takes a quarter of an hour, most of it scikit-learn's with L1.

``DIRECTORY`` holds ``a9a/a9a.svm.bz2`` and ``debsec/debsec.svm.bz2``; without it there is breast
cancer alone.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

import hemiola
from hemiola.algorithms.registry import build
from hemiola.callbacks import TargetLoss
from hemiola.dataset import Batch, Dataset
from hemiola.objectives import LinearObjective
from hemiola.reference import pooled_optimum
from hemiola.training import make_objective

WORKERS = (2, 8, 32)
WITHIN = 1e-3
EXACT: dict[str, tuple[dict[str, Any], int]] = {
    "breast_cancer": ({"rho": 0.01, "balance.rounds": 0}, 2000),
    "a9a": ({"rho": 0.01, "balance.rounds": 0}, 500),
    "debsec": ({"rho": 0.01}, 100),
}
"""Options, and rounds."""
PENALTIES = {  # l1, l2
    "L2 = 0.001": (0.0, 0.001),
    "L2 = 0.01": (0.0, 0.01),
    "L1 = 0.001": (0.001, 0.0),
    "L1 = 0.001, L2 = 0.001": (0.001, 0.001),
}
PATIENT = {"stopping.absolute": 0, "stopping.relative": 0}
SETTINGS: dict[str, dict[str, Any]] = {
    "rho balanced": {},
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


def by_sklearn(data: Dataset, l1: float, l2: float) -> np.ndarray:
    """The optimum (d,) with an unpenalised intercept."""
    settings: dict[str, Any] = {"tol": 1e-12, "max_iter": 5000}
    if l1:
        patience = 100_000 if len(data) < 1000 else 3000
        settings = {"solver": "saga", "tol": 1e-8, "max_iter": patience, "random_state": 0}
    else:
        settings["solver"] = "newton-cholesky" if data.n_features < 500 else "newton-cg"
    strength = 1 / (len(data) * (l1 + l2))
    model = LogisticRegression(C=strength, l1_ratio=l1 / (l1 + l2), **settings)
    model.fit(data.X, data.y)
    return np.append(model.coef_.ravel(), model.intercept_)


def exactness(data: Dataset, penalty: str, workers: int) -> list[str]:
    """A row of the table of ``--exact``."""
    l1, l2 = PENALTIES[penalty]
    name = data.name.split(".")[0]
    chosen, rounds = EXACT[name]
    options = {**PATIENT, **chosen, "solver": "newton"}
    objective = LinearObjective("logistic", l2, l1=l1)
    begun = perf_counter()
    result = hemiola.fit(
        build("admm", options), objective, data, workers=workers, rounds=rounds, eval_every=rounds
    )
    seconds = perf_counter() - begun
    w, best = result.weights, by_sklearn(data, l1, l2)
    whole = Batch(data)
    losses = [objective.value(v, whole) for v in (w, best)]
    ours, theirs = (set(np.flatnonzero(v[:-1]).tolist()) for v in (w, best))
    support = "the same" if ours == theirs else f"{len(ours ^ theirs)} differ"
    return [
        name, penalty, str(workers), str(rounds), f"{np.abs(w - best).max():.1e}",
        f"{losses[0] - losses[1]:.1e}", f"{len(ours)}, {support}" if l1 else "", f"{seconds:.0f}",
    ]  # fmt: skip


def compare_exactly(sets: list[Dataset]) -> None:
    table = Table(title="consensus model against scikit-learn's on all data")
    for column in ("data", "penalty", "workers", "rounds", "|w - w*|", "loss less", "support", "s"):
        table.add_column(column, justify="left" if column in ("data", "penalty") else "right")
    with Live(table, console=Console(width=100)):
        for part in sets:
            for penalty in PENALTIES:
                table.add_row(*exactness(part, penalty, workers=8))


def main(
    data: Annotated[Path | None, typer.Option(help="directory of the data sets")] = None,
    rounds: Annotated[int, typer.Option(help="rounds to give up after")] = 100,
    exact: Annotated[bool, typer.Option("--exact", help="compare with scikit-learn")] = False,
) -> None:
    """Run the comparison and print one table."""
    if exact:
        compare_exactly(data_sets(data))
        return
    table = Table(title=f"rounds (gradients) to a loss within {WITHIN:g} of the optimum")
    for column in ("data", "L-BFGS", "ADMM", *(f"{k} workers" for k in WORKERS)):
        table.add_column(column, justify="left" if column in ("data", "ADMM") else "right")
    with Live(table, console=Console(width=100)):  # what is done is shown, whatever comes
        for part in data_sets(data):
            objective = make_objective("logistic", part)
            target = (1 + WITHIN) * pooled_optimum(objective, part)[1]
            iterations, evaluations = lbfgs(objective, part, target)
            first = [part.name.split(".")[0], f"{iterations} ({evaluations})"]
            for name in SETTINGS:
                cells = [admm(objective, part, target, k, rounds, name) for k in WORKERS]
                table.add_row(*first, name, *cells)
                first = ["", ""]
            table.add_section()


if __name__ == "__main__":
    typer.run(main)
