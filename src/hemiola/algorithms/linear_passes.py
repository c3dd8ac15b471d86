"""Passes of SGD, SVRG and SAGA over sparse rows by threads that share the weights.

Features in more than a share ``hot`` of the rows, and the intercept, would put all rows into one
component. They are split off: frozen while a batch is worked on and changed at its end, by the sum
of the steps that the batch's rows ask for. That sum is a step of B times the length on the mean
gradient, so it is damped where it would be longer than 1 / smoothness of the batch's sum in these
features (a third of that with variance reduction: SAGA swings at more). What this costs is
freshness: such a feature makes one step a batch instead of one a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from hemiola.algorithms.conflicts import Touched
from hemiola.job import Work
from hemiola.kernels import variance_reduced as kernels
from hemiola.kernels.barrier import meeting_point
from hemiola.objectives import LinearObjective
from hemiola.team import Team
from hemiola.types import Array

METHODS = {
    "sgd": kernels.SGD,
    "svrg": kernels.SVRG,
    "saga": kernels.SAGA,
    "sparse-saga": kernels.SPARSE_SAGA,
}
LOSSES = {"logistic": kernels.LOGISTIC, "squared": kernels.SQUARED, "hinge": kernels.HINGE}

_EXACT = 500  # hot features up to which their largest eigenvalue is computed, not bounded
_MARGIN = 1.01


@dataclass(frozen=True, eq=False)
class LinearPasses:
    """Rows in the order of execution, those of ``cold`` and of ``hot`` features apart.

    ``target``     by position: y (n,) and s (n,) or nothing;
    ``scale``      (p + 1,) n / n_v, where n_v rows have feature v;
    ``of_hot``     (H,) the hot features' numbers, the intercept being p;
    ``curvature``  of the mean loss in the hot features, l2 included;
    ``layout``     what the kernel takes, once there is a schedule.
    """

    objective: LinearObjective
    method: int
    cold: Any
    hot: Any
    target: kernels.Target
    scale: Array
    of_hot: Array
    curvature: float
    batch: int = 0
    layout: tuple[kernels.Cold, kernels.Hot] | None = None

    @classmethod
    def of(cls, work: Work, order: Array, update: str, share: float) -> LinearPasses:
        """The rows in this order; features of more than ``share`` of them are hot."""
        objective, X = work.objective, work.data.X[order]
        assert isinstance(objective, LinearObjective)
        n, p = X.shape
        counts = np.bincount(X.indices, minlength=p)
        of_hot = np.flatnonzero(counts > share * n)
        cold, hot = _without(X, of_hot), X[:, of_hot]
        if objective.intercept:
            of_hot = np.append(of_hot, p)
            hot = sparse.hstack([hot, np.ones((n, 1), X.dtype)], format="csr")
        weight = work.data.weight
        s = np.empty(0, X.dtype) if weight is None else weight[order]
        target = kernels.Target(work.data.y[order], s)
        scale = (n / np.maximum(np.append(counts, n), 1)).astype(X.dtype)
        curvature = objective.curvature * _largest_eigenvalue(hot, s) + objective.l2
        return cls(objective, METHODS[update], cold, hot, target, scale, of_hot, curvature)

    @property
    def touched(self) -> Touched:
        """The features of each row that are not hot."""
        return Touched(
            self.cold.indptr.astype(np.uint64), self.cold.indices.astype(np.uint32),
            self.cold.shape[1],
        )  # fmt: skip

    @property
    def _features(self) -> int:
        """Hot ones without the intercept."""
        return int((self.of_hot < len(self.scale) - 1).sum())

    def laid_out(self, position: Array, bounds: Array, batch: int) -> LinearPasses:
        """The rows at these positions, one after another; ``batch`` positions are a wave."""
        cold, hot = self.cold[position], self.hot[position, : self._features]
        starts, positions, values = _by_feature(self.hot, batch)
        layout = (
            kernels.Cold(*_arrays(cold), position, bounds),
            kernels.Hot(*_arrays(hot), self.of_hot, starts, positions, values),
        )
        return replace(self, cold=None, hot=None, batch=batch, layout=layout)

    def roughest_row(self) -> float:
        """The largest smoothness constant of a row's loss, l2 included."""
        squares = self.cold.multiply(self.cold).sum(axis=1) + self.hot.multiply(self.hot).sum(
            axis=1
        )
        squares = squares * self.target.s if len(self.target.s) else squares
        return self.objective.curvature * float(squares.max()) + self.objective.l2

    def init(self, w0: Array) -> dict[str, Any]:
        """Both forms of SAGA start with a table of zeros."""
        n = len(self.target.y)
        state = {"w": w0.copy()}
        if self.method >= kernels.SAGA:
            state.update(slope=np.zeros(n, w0.dtype), mean=np.zeros_like(w0))
        return state

    def run(self, state: dict[str, Any], bounds: Array, lr: float, team: Team) -> None:
        """One pass by the whole team; SVRG takes its snapshot first."""
        assert self.layout is not None
        (cold, hot), x, loss = self.layout, state["w"], LOSSES[self.objective.loss]
        memory, rates, counter = self._memory(state), self._rates(lr, x.dtype), meeting_point()
        if self.method == kernels.SVRG:
            team.run(lambda k: kernels.full_gradient(
                k, team.size, counter, loss, cold, hot, self.target, memory, x
            ))  # fmt: skip
        team.run(lambda k: kernels.waves(
            k, team.size, counter, self.method, loss, cold, hot, self.target, memory, rates, x
        ))  # fmt: skip

    def _memory(self, state: dict[str, Any]) -> kernels.Memory:
        x, n = state["w"], len(self.target.y)
        last = np.zeros(len(x), np.int64)
        last[self.of_hot] = last[-1] = -1
        slopes = n if self.method == kernels.SVRG else 0
        return kernels.Memory(
            last, state.get("slope", np.zeros(slopes, x.dtype)), np.zeros(n, x.dtype),
            state.get("mean", np.zeros_like(x)), self.scale,
        )  # fmt: skip

    def _rates(self, lr: float, dtype: Any) -> kernels.Rates:
        mu = lr * self.objective.l2
        dense = {kernels.SGD: mu > 0, kernels.SPARSE_SAGA: False}
        lazy = dense.get(self.method, True)
        keep, drift = gaps(mu, len(self.target.y) if lazy else 0)
        steepness = (1 if self.method == kernels.SGD else 3) * lr * self.batch * self.curvature
        damp = min(1.0, 1.0 / steepness) if steepness else 1.0
        hot_mu = np.where(self.of_hot == len(self.scale) - 1, 0.0, mu)
        return kernels.Rates(
            keep.astype(dtype), drift.astype(dtype), float(lr), float(mu), float(damp),
            hot_mu.astype(dtype), lazy,
        )  # fmt: skip


def gaps(mu: float, longest: int) -> tuple[Array, Array]:
    """(1 - mu)^q and the sum of (1 - mu)^k over k < q, for q = 0..longest.

    >>> [array.tolist() for array in gaps(0.5, 2)], gaps(0.0, 2)[1].tolist()
    ([[1.0, 0.5, 0.25], [0.0, 1.0, 1.5]], [0.0, 1.0, 2.0])
    """
    q = np.arange(longest + 1, dtype=np.float64)
    if mu == 0:
        return np.ones_like(q), q
    keep = (1 - mu) ** q
    return keep, -np.expm1(q * np.log1p(-mu)) / mu if mu < 1 else (1 - keep) / mu


def _without(X: Any, columns: Array) -> Any:
    """The rows without these columns, which keep their numbers."""
    stays = np.ones(X.shape[1], dtype=bool)
    stays[columns] = False
    kept = stays[X.indices]
    counted = np.append(0, np.cumsum(kept))
    return sparse.csr_array((X.data[kept], X.indices[kept], counted[X.indptr]), shape=X.shape)


def _arrays(X: Any) -> tuple[Array, Array, Array]:
    return X.indptr.astype(np.uint64), X.indices.astype(np.uint32), X.data


def _by_feature(hot: Any, batch: int) -> tuple[Array, Array, Array]:
    """Entries by wave, then feature, then position: where each list starts, and the lists."""
    entries = hot.tocoo()
    position, feature = entries.coords
    waves = -(-hot.shape[0] // batch)
    key = (position // batch).astype(np.int64) * hot.shape[1] + feature
    order = np.lexsort((position, key))
    counts = np.bincount(key, minlength=waves * hot.shape[1])
    starts = np.append(0, np.cumsum(counts)).astype(np.int64)
    return starts, position[order].astype(np.int64), entries.data[order]


def _largest_eigenvalue(hot: Any, s: Array) -> float:
    """Of the weighted second moments of the hot features; of very many, only a bound."""
    n, features = hot.shape
    if not features:
        return 0.0
    weighted = hot.multiply(np.sqrt(s)[:, None]).tocsr() if len(s) else hot
    if features > _EXACT:
        return float(weighted.multiply(weighted).sum() / n)
    moments = (weighted.T @ weighted).toarray().astype(np.float64) / n
    return _MARGIN * float(np.linalg.eigvalsh(moments)[-1])
