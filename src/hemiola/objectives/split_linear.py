"""Linear models by features: every worker holds some columns of the data and their weights.

Dean et al., "Large scale distributed deep networks", NIPS 2012, section 3, of one layer.

    each worker j:  z_j = X_j w_j                      the margins of its features
    joined:         z   = sum_j z_j + b,  r = l'(z, y) / m
    each worker j:  g_j = X_j' r + l2 w_j

===========  ====================================  ============
symbol       here                                  shape
===========  ====================================  ============
X_j, w_j     columns and rows ``parts(p)[j]``      (m, p_j), (p_j, C)
z_j, z, r    margins and residuals                 (m, C); C = 1 but for softmax
b            with worker 0                         (C,)
===========  ====================================  ============

Margins go to worker 0 and residuals come back: 2 (K - 1) m C numbers for a mini-batch of m samples,
whatever the number of features. Workers take turns here. Outcomes are the whole model's but for
rounding.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from numpy.random import Generator
from scipy.special import expit, log_softmax

from hemiola.component import component
from hemiola.dataset import Batch, Dataset
from hemiola.errors import OptionError
from hemiola.objectives.linear import LinearObjective
from hemiola.types import Array


@component
class SplitLinear:
    """A linear objective whose features are split over ``workers``.

    Raises :class:`~hemiola.errors.OptionError` where there are fewer features than workers.

    >>> from hemiola.dataset import make_dataset
    >>> data = make_dataset([[1.0, 2.0], [-1.0, 0.0]], [1, 0])
    >>> SplitLinear(LinearObjective(), workers=2).grad(np.zeros(3), Batch(data)).tolist()
    [-0.5, -0.5, 0.0]
    """

    whole: LinearObjective
    workers: Annotated[int, Ge(1)] = 2

    def parts(self, features: int) -> list[slice]:
        """Each worker's features, consecutive ones."""
        if features < self.workers:
            raise OptionError(
                f"{features} features cannot be split over {self.workers} workers; take fewer."
            )
        ends = [features * j // self.workers for j in range(self.workers + 1)]
        return [slice(a, b) for a, b in pairwise(ends)]

    def check(self, data: Dataset) -> None:
        """Raise :class:`~hemiola.errors.DataError` when the targets do not fit the loss."""
        self.parts(data.n_features)
        self.whole.check(data)

    def init(self, data: Dataset, rng: Generator) -> Array:
        """The whole model's start, in its layout: (p + 1,), or ((p + 1) C,) for softmax."""
        return self.whole.init(data, rng)

    def value(self, w: Array, batch: Batch) -> float:
        """The objective on a batch, from summed margins."""
        data, rows = batch.data, _rows(batch)
        penalty = self.whole.penalty(data).value(w)
        if not len(rows):
            return penalty
        losses = _losses(self.whole.loss, self._margins(w, data, rows), data.y[rows])
        weight = 1.0 if data.weight is None else data.weight[rows]
        return penalty + float((losses * weight).mean())

    def grad(self, w: Array, batch: Batch) -> Array:
        """The gradient (d,) without l1, a new array, joined from the workers' parts."""
        data, rows = batch.data, _rows(batch)
        W = w.reshape(data.n_features + 1, -1)
        G = self.whole.l2 * W
        G[-1] = 0.0
        if len(rows):
            r = _slopes(self.whole.loss, self._margins(w, data, rows), data.y[rows])
            r /= len(rows)
            if data.weight is not None:
                r *= data.weight[rows, None]
            for part in self.parts(data.n_features):
                G[part] += data.X[rows][:, part].T @ r
            if self.whole.intercept:
                G[-1] += r.sum(axis=0)
        return G.reshape(-1)

    def predict(self, w: Array, X: Any) -> Array:
        """Class numbers (m,), or real predictions (m,) for squared loss."""
        return self.whole.predict(w, X)

    def numbers_sent(self, samples: int, outputs: int = 1) -> int:
        """Numbers that cross between workers for one gradient.

        >>> SplitLinear(LinearObjective(), workers=3).numbers_sent(samples=10)
        40
        """
        return 2 * (self.workers - 1) * samples * outputs

    def _margins(self, w: Array, data: Dataset, rows: Array) -> Array:
        """(m, C): every worker's, added up in their order."""
        W, X = w.reshape(data.n_features + 1, -1), data.X[rows]
        z = np.zeros((len(rows), W.shape[1]), dtype=w.dtype)
        for part in self.parts(data.n_features):
            z += X[:, part] @ W[part]
        return z + W[-1]


def _rows(batch: Batch) -> Array:
    return np.arange(len(batch.data)) if batch.rows is None else batch.rows


def _losses(loss: str, z: Array, y: Array) -> Array:
    """(m,) losses of margins (m, C)."""
    if loss == "softmax":
        return -np.asarray(log_softmax(z, axis=1))[np.arange(len(y)), y]
    z = z[:, 0]
    if loss == "logistic":
        return np.asarray(np.logaddexp(0.0, z) - y * z)
    if loss == "squared":
        return np.asarray(np.square(z - y) / 2)
    return np.asarray(np.maximum(0.0, 1 - (2 * y - 1) * z))


def _slopes(loss: str, z: Array, y: Array) -> Array:
    """(m, C) derivatives of losses by margins."""
    if loss == "softmax":
        r = np.exp(log_softmax(z, axis=1))
        r[np.arange(len(y)), y] -= 1
        return np.asarray(r)
    y = y.astype(z.dtype)[:, None]
    if loss == "logistic":
        return np.asarray(expit(z) - y)
    if loss == "squared":
        return np.asarray(z - y)
    sign = 2 * y - 1
    return np.where(sign * z < 1, -sign, np.zeros_like(z))
