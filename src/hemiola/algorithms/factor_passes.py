"""Passes of SGD over ratings by threads that share the factors, for any schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hemiola.algorithms.conflicts import Touched
from hemiola.job import Work
from hemiola.kernels import factor
from hemiola.kernels.barrier import meeting_point
from hemiola.objectives import MatrixFactorization
from hemiola.objectives.factorization import pair_numbers
from hemiola.team import Team
from hemiola.types import Array


@dataclass(frozen=True, eq=False)
class FactorPasses:
    """Ratings in the order of execution; one rating touches its user's row and its item's."""

    objective: MatrixFactorization
    users: Array
    items: Array
    z: Array

    @classmethod
    def of(cls, work: Work, order: Array) -> FactorPasses:
        """The ratings in this order."""
        assert isinstance(work.objective, MatrixFactorization)
        u, v = pair_numbers(work.data.X[order])
        return cls(work.objective, u.astype(np.uint32), v.astype(np.uint32), work.data.y[order])

    @property
    def touched(self) -> Touched:
        """Two rows a rating, counted over users and then items."""
        rows = np.column_stack([self.users, self.items + np.uint32(self.objective.users)])
        total = self.objective.users + self.objective.items
        return Touched(2 * np.arange(len(rows) + 1, dtype=np.uint64), rows.ravel(), total)

    def laid_out(self, position: Array, bounds: Array, batch: int) -> FactorPasses:
        """The ratings at these positions, one after another."""
        return FactorPasses(
            self.objective, self.users[position], self.items[position], self.z[position]
        )

    def init(self, w0: Array) -> dict[str, Any]:
        return {"w": w0.copy()}

    def run(
        self,
        state: dict[str, Any],
        bounds: Array,
        lr: float,
        team: Team,
        order: Array | None = None,
    ) -> None:
        """The waves of ``order``, or all of them in turn, by the whole team."""
        L, R = self.objective.factors(state["w"])
        waves = np.arange((len(bounds) - 1) // team.size) if order is None else order
        counter, number = meeting_point(), state["w"].dtype.type
        settings = (number(self.objective.mean), number(lr), number(self.objective.l2))
        team.run(lambda k: factor.waves(
            k, team.size, counter, waves, bounds, self.users, self.items, self.z, L, R, *settings
        ))  # fmt: skip
