"""Cyclades: parallel SGD, SVRG and SAGA without conflicts, equal to the serial run bit for bit.

Pan, Lam, Tu, Papailiopoulos, Zhang, Jordan, Ramchandran, Re, Recht, "Cyclades: conflict-free
asynchronous machine learning", NIPS 2016.

    sample an order pi of the updates; cut it into batches of B
    for each batch:
        CC = connected components of its graph of conflicts, i ~ j iff S_i and S_j intersect
        allocate CC to P cores;  barrier
        each core, for each of its updates in the order of pi:  x_S <- u(x_S)
        barrier

=========  =====================================  ==================
symbol     here                                   shape
=========  =====================================  ==================
pi         ``stream(seed, "cyclades")``           (n,)
B          ``batch_size``
P          threads
S_j        ``conflicts.Touched``                  CSR
CC         ``conflicts.label``                    (n,)
x          ``state["w"]``                         (d,)
=========  =====================================  ==================

The order is drawn once, without replacement, so components are found once and serve all passes
(``plan`` keeps them on disk). Components go to cores largest first; the authors' code deals them
out as they come.

Steps: SGD; SVRG of Johnson and Zhang, NIPS 2013, with a snapshot a pass; SAGA of Defazio, Bach,
Lacoste-Julien, NIPS 2014. What is dense in them is caught up exactly when a weight is next needed;
the authors' catch-up does nothing when there is no ridge and is off by one factor otherwise.
``sparse-saga``, after Leblond, Pedregosa, Lacoste-Julien, AISTATS 2017, has nothing to catch up: it
moves on the support only, with everything dense times n / n_v, which the authors' code leaves out.
The ridge has that factor too; were it caught up instead, noise would stay at the optimum.

Frequent features are split off (:mod:`hemiola.algorithms.linear_passes`). With such features, the
intercept being one, the outcome depends on B, and an automatic B on the number of threads if there
are more than two; it never depends on timing or on how the components are dealt out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Interval

from hemiola.algorithm import SharedMemoryAlgorithm
from hemiola.algorithms.conflicts import (
    Forecast,
    Schedule,
    Touched,
    choose_batch,
    digest,
    forecast,
    label,
    load_labels,
    save_labels,
    schedule,
    serial,
)
from hemiola.algorithms.factor_passes import FactorPasses
from hemiola.algorithms.linear_passes import LOSSES, LinearPasses
from hemiola.component import component
from hemiola.contracts import Objective
from hemiola.dataset import Dataset
from hemiola.errors import DataError, OptionError
from hemiola.job import Work
from hemiola.objectives import LinearObjective, MatrixFactorization
from hemiola.rng import stream
from hemiola.team import Team
from hemiola.types import Array

PAPER = "Pan et al., NIPS 2016"

Update = Literal["sgd", "svrg", "saga", "sparse-saga"]


@dataclass(frozen=True, eq=False)
class Plan:
    """Data laid out along a schedule, and what was expected of it."""

    passes: FactorPasses | LinearPasses
    schedule: Schedule
    team: Team
    forecast: Forecast
    lr: float
    seconds: float


@component
class Cyclades:
    """Serial SGD, SVRG or SAGA, executed by several threads without conflicts.

    ``lr``          learning rate; None: from the data (linear models only), 1/(3 L) for SVRG and
                    SAGA, where L is the smoothness of the largest row's loss, 1/(5 L) for the
                    sparse form of SAGA;
    ``batch_size``  B; None: the largest whose components can be balanced;
    ``hot``         features in more than this share of the rows are frozen within a batch;
    ``decay``       the rate's factor after every pass;
    ``plan``        a file to keep the components in, and to take them from when it is there.
    """

    update: Update = "sgd"
    lr: Annotated[float, Gt(0)] | None = None
    batch_size: Annotated[int, Ge(1)] | None = None
    hot: Annotated[float, Interval(gt=0, le=1)] = 0.02
    decay: Annotated[float, Interval(gt=0, le=1)] = 1.0
    plan: str | None = None

    def with_lr(self, base: float) -> Cyclades:
        """At a rate of ``base`` for SGD; with variance reduction the largest row decides, later."""
        return replace(self, lr=base) if self.update == "sgd" else self

    def prepare(self, work: Work) -> Plan:
        begun = perf_counter()
        passes = self._passes(work)
        lr, touched = self._rate(passes), passes.touched
        saved = _Saved(self.plan, touched)
        labels, batch = saved.load(self.batch_size)
        batch = min(batch or choose_batch(touched, max(work.threads, 2)), len(work.data))
        expected = forecast(touched, batch, work.threads)
        team = Team(work.threads if expected.pays else 1)
        if labels is None and (expected.pays or self.plan is not None):
            labels = label(touched, np.arange(len(work.data)), batch, team)
            saved.save(labels, batch)
        if team.size == 1:
            made = serial(touched.load, batch)
        else:
            assert labels is not None
            made = schedule(labels, touched.load, batch, team.size, team)
        passes = passes.laid_out(made.position, made.bounds, batch)
        return Plan(passes, made, team, expected, lr, perf_counter() - begun)

    def _passes(self, work: Work) -> FactorPasses | LinearPasses:
        _check(work.objective, work.data, self.update)
        order = stream(work.seed, "cyclades").permutation(len(work.data))
        if isinstance(work.objective, MatrixFactorization):
            return FactorPasses.of(work, order)
        return LinearPasses.of(work, order, self.update, self.hot)

    def _rate(self, passes: FactorPasses | LinearPasses) -> float:
        if self.lr is not None:
            return self.lr
        if isinstance(passes, FactorPasses) or self.update == "sgd":
            raise OptionError("cyclades: give a learning rate (lr).")
        return 1 / ((5 if self.update == "sparse-saga" else 3) * passes.roughest_row())

    def init(self, plan: Plan, w0: Array) -> dict[str, Any]:
        return plan.passes.init(w0)

    def epoch(self, plan: Plan, state: dict[str, Any], epoch: int) -> None:
        plan.passes.run(state, plan.schedule.bounds, plan.lr * self.decay**epoch, plan.team)

    def model(self, plan: Plan, state: dict[str, Any]) -> Array:
        w: Array = state["w"]
        return w.copy()

    def words(self, plan: Plan) -> list[str]:
        expected, made = plan.forecast, plan.schedule
        said = [
            f"Cyclades: {made.batches:,} batches of {expected.batch:,} at learning rate "
            f"{plan.lr:.3g}."
        ]
        if expected.cores > 1:
            said.append(f"The largest component holds {expected.largest:.1%} of a batch.")
        if plan.team.size > 1:
            said.append(
                f"{made.cores} threads can be up to {made.balance:.2f} times as fast as one; the "
                f"plan took {plan.seconds:.2g} s, once."
            )
        elif expected.cores > 1:
            said.append(
                f"{expected.cores} threads would be {expected.balance:.2f} times as fast as one at "
                f"best, which does not pay for a plan of {expected.seconds:.2g} s: one thread does "
                "all, with the same outcome."
            )
        hot = len(plan.passes.of_hot) if isinstance(plan.passes, LinearPasses) else 0
        if hot:
            said.append(
                f"{hot:,} weights that too many samples share, the intercept included if there is "
                f"one, change once a batch of {expected.batch:,} only."
            )
        return said


class _Saved:
    """The file of a plan, if there is to be one."""

    def __init__(self, path: str | None, touched: Touched) -> None:
        self._path = None if path is None else Path(path)
        self._key = "" if path is None else digest(touched)

    def load(self, batch: int | None) -> tuple[Array | None, int | None]:
        """Labels and the size of batches; none and the size that was asked for without a file."""
        if self._path is None or not self._path.exists():
            return None, batch
        return load_labels(self._path, batch, self._key)

    def save(self, labels: Array, batch: int) -> None:
        if self._path is not None:
            save_labels(self._path, labels, batch, self._key)


def _check(objective: Objective, data: Dataset, update: Update) -> None:
    if isinstance(objective, MatrixFactorization):
        if update != "sgd":
            raise OptionError(f"matrix factorisation has no {update} here; use update=sgd.")
        return
    if not isinstance(objective, LinearObjective) or objective.loss not in LOSSES:
        raise OptionError(
            "cyclades handles logistic, squared and hinge loss and matrix factorisation; use "
            "another algorithm for this objective."
        )
    if objective.loss == "hinge" and update != "sgd":
        raise OptionError(f"hinge loss is not smooth, so {update} does not converge; use sgd.")
    if not data.is_sparse:
        raise DataError(
            f"{data.name}: in dense rows every sample touches every weight, so nothing can run at "
            "the same time; use sparse (CSR) features or another algorithm."
        )


def cyclades(
    update: Update = "sgd",
    lr: float | None = None,
    batch_size: int | None = None,
    hot: float = 0.02,
    decay: float = 1.0,
    plan: str | None = None,
) -> SharedMemoryAlgorithm:
    """Cyclades: threads without conflicts do exactly what one thread would.

    The paper's defaults are SGD and a constant rate; its code has batches of 5000.

    >>> cyclades(update="saga").solver.update
    'saga'
    """
    return SharedMemoryAlgorithm("cyclades", Cyclades(update, lr, batch_size, hot, decay, plan))
