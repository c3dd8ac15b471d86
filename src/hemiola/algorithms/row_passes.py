"""What the solvers that pass over the rows of a linear model share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from hemiola.errors import OptionError
from hemiola.job import Work
from hemiola.kernels import Rows
from hemiola.objectives import LinearObjective
from hemiola.team import Team

_SPARSE_INTERCEPT = 0.01


@dataclass(eq=False)
class Passes:
    """A solver's plan: rows in their layout, the threads, and what it was made of."""

    rows: Rows
    team: Team
    objective: LinearObjective
    seed: int
    asked: int
    details: Any = None

    @property
    def threads(self) -> int:
        """No more than there are rows."""
        return self.team.size


def plan_passes(work: Work, name: str) -> Passes:
    """Lay the data out. Raises :class:`OptionError` for objectives that have no kernels."""
    if not isinstance(work.objective, LinearObjective):
        raise OptionError(
            f"{name} has compiled passes for linear models only (logistic, softmax, squared and "
            f"hinge loss), not for {type(work.objective).__name__}."
        )
    rows = Rows.of(work.data, work.seed, work.objective.loss)
    team = Team(min(work.threads, len(rows)))
    return Passes(rows, team, work.objective, work.seed, work.threads)


def rate_of(lr: float | None, name: str) -> float:
    """The learning rate; raises :class:`OptionError` if there is none yet."""
    if lr is None:
        raise OptionError(f"{name}: lr is not set; hemiola.fit estimates it.")
    return lr


def step_of_intercept(plan: Passes, given: float | None) -> float:
    """The intercept's least step over that of the weights. Where rows are sparse it is in many more
    rows than a weight, and a full step would make it noisy; scikit-learn takes 0.01 there, too."""
    if not plan.objective.intercept:
        return 0.0
    return given or (_SPARSE_INTERCEPT if plan.rows.is_sparse else 1.0)


def words_on_threads(plan: Passes) -> list[str]:
    """A warning when threads would have to share cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if cores is None or plan.threads <= cores:
        return []
    return [f"{plan.threads} threads share {cores} cores; as many threads as cores are faster."]
