"""Linear models: logistic, softmax, squared and hinge loss with an unpenalised intercept.

The value is the mean loss plus l2/2 times the squared norm of the feature weights and l1 times the
sum of their absolute values. The gradient is that of the smooth part, without l1, which only
algorithms with a proximal step minimise. The flat parameter vector holds the p feature weights and
then the intercept; with C classes the row-major (p + 1, C) matrix whose last row holds the
intercepts.

    logistic  log(1 + exp(z)) - y z, y in {0, 1}       softmax  log sum_c exp(z_c) - z_y
    squared   (z - y)^2 / 2                            hinge    max(0, 1 - y z), y in {-1, 1}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from hemiola.component import component
from hemiola.dataset import Batch, Dataset, as_regression
from hemiola.errors import DataError, OptionError
from hemiola.objectives import fused, kernels
from hemiola.objectives.hessian import Hessian
from hemiola.penalty import Penalty
from hemiola.types import Array

_CODES = {"logistic": kernels.LOGISTIC, "squared": kernels.SQUARED, "hinge": kernels.HINGE}
_ALIKE = np.empty(0)
_CHUNK = 8192


@component
class LinearObjective:
    """A linear model under one of four losses. Data may be dense or CSR, float32 or float64.

    >>> from hemiola.dataset import Batch, make_dataset
    >>> data = make_dataset([[1.0], [-1.0]], [1, 0])
    >>> objective = LinearObjective(loss="logistic", l2=0.0)
    >>> objective.grad(np.zeros(2), Batch(data))
    array([-0.5,  0. ])
    """

    loss: Literal["logistic", "softmax", "squared", "hinge"] = "logistic"
    l2: Annotated[float, Ge(0)] = 0.0
    intercept: bool = True
    l1: Annotated[float, Ge(0)] = 0.0

    def check(self, data: Dataset) -> None:
        """Raise :class:`~hemiola.errors.DataError` when the targets do not fit the loss."""
        if self.loss == "squared":
            as_regression(data)
            return
        if data.classes is None:
            raise DataError(
                f"{data.name}: {self.loss} loss needs classes, but the targets were "
                "read as real numbers; use squared loss."
            )
        if data.n_classes < 2:
            raise DataError(
                f"{data.name}: all labels are {data.classes[0]!s}; a classifier needs "
                "at least two classes."
            )
        if self.loss != "softmax" and data.n_classes > 2:
            raise DataError(
                f"{data.name}: {self.loss} loss tells two classes apart, the data have "
                f"{data.n_classes}; use softmax loss."
            )

    def init(self, data: Dataset, rng: np.random.Generator) -> Array:
        """Zeros: the objective is convex. Shape (p + 1,), or ((p + 1) C,) for softmax."""
        return np.zeros((data.n_features + 1) * self._outputs(data), dtype=data.dtype)

    def value(self, w: Array, batch: Batch) -> float:
        """The objective on a batch; an empty one has only the penalty."""
        data, rows = batch.data, _rows(batch)
        penalty = Penalty(self.l1, self.l2, w.size // (data.n_features + 1)).value(w)
        if not len(rows):
            return penalty
        if self.loss == "softmax":
            return penalty + _softmax_value(w, data, rows)
        X, y, s, code = data.X, data.y, _weights(data), _CODES[self.loss]
        if data.is_sparse:
            loss = kernels.csr_value(code, X.data, X.indices, X.indptr, y, s, rows, w)
        else:
            loss = kernels.dense_value(code, X, y, s, rows, w)
        return penalty + float(loss)

    def grad(self, w: Array, batch: Batch) -> Array:
        """The gradient (d,) without l1, a new array. An empty batch has only the penalty's."""
        data, rows = batch.data, _rows(batch)
        g = np.empty_like(w)
        X, y, s = data.X, data.y, _weights(data)
        if self.loss == "softmax":
            _softmax_grad(w, data, rows, self.l2, g)
        elif isinstance(X, np.ndarray):
            kernels.dense_grad(_CODES[self.loss], X, y, s, rows, w, self.l2, g)
        else:
            kernels.csr_grad(
                _CODES[self.loss], X.data, X.indices, X.indptr, y, s, rows, w, self.l2, g
            )
        if not self.intercept:
            g[-(w.size // (data.n_features + 1)) :] = 0
        return g

    def sgd(self, w: Array, data: Dataset, rows: Array, ends: Array, rates: Array) -> Array:
        """A new w (d,) after one step of SGD on every batch of rows, as in
        :class:`~hemiola.contracts.FusedObjective`."""
        code = fused.SOFTMAX if self.loss == "softmax" else _CODES[self.loss]
        w = w.copy()
        X, y, s = data.X, data.y, _weights(data)
        outputs = w.size // (data.n_features + 1)
        batches = (rows, ends, rates, self.l2, self.intercept)
        W = w.reshape(-1, outputs)
        if data.is_sparse:
            if outputs == 1 and code != fused.SOFTMAX:
                fused.csr_sgd(code, X.data, X.indices, X.indptr, y, s, *batches, w)
            else:
                fused.csr_softmax_sgd(X.data, X.indices, X.indptr, y, s, *batches, W)
        elif code == fused.SOFTMAX:
            fused.dense_softmax_sgd(X, y, s, *batches, W)
        else:
            fused.dense_sgd(code, X, y, s, *batches, w)
        return w

    def hessian(self, w: Array, batch: Batch) -> Hessian:
        """The second derivative of the mean loss, without the penalty, at w. Not for hinge loss."""
        data, rows = batch.data, _rows(batch)
        X = data.X[rows]
        share = np.full(len(rows), 1 / len(rows)) if data.weight is None else (
            data.weight[rows] / len(rows)
        )  # fmt: skip
        z = self.scores(w, X)
        if self.loss == "softmax":
            curvature = np.exp(_log_softmax(z))
        elif self.loss == "logistic":
            e = np.exp(-np.abs(z))
            curvature = e / np.square(1 + e)
        elif self.loss == "squared":
            curvature = np.ones_like(z)
        else:
            raise OptionError(
                "hinge loss has no second derivative; use solver=auto or solver=dual."
            )
        return Hessian(X, share, curvature, self.intercept)

    def curvatures(self, w: Array, batch: Batch) -> Array:
        """As in :class:`~hemiola.contracts.CurvedObjective`: a bound that holds at any w."""
        data, rows, s = batch.data, _rows(batch), _weights(batch.data)
        moments, p = np.zeros((2, data.n_features + 1)), data.n_features
        squares, sums = moments[:, :p]
        X, weight = data.X, s[rows] if s.size else np.ones(len(rows))
        if data.is_sparse:
            kernels.csr_columns(X.data, X.indices, X.indptr, s, rows, sums, squares)
        else:
            for part in _chunks(np.arange(len(rows))):
                sums += weight[part] @ X[rows[part]] / len(rows)
                squares += weight[part] @ np.square(X[rows[part]]) / len(rows)
        moments[0, p] = weight.mean() if len(rows) else 0.0
        if not self.intercept:
            moments[0, p] = 0.0
            moments[1] = 0.0
        bound = self.curvature * moments
        bound[0, :p] += self.l2
        return np.repeat(bound[:, :, None], w.size // (p + 1), axis=2).astype(w.dtype)

    def penalty(self, data: Dataset) -> Penalty:
        """l1 and l2 on all weights but the intercepts, which come last."""
        return Penalty(self.l1, self.l2, self._outputs(data))

    def without_penalty(self) -> LinearObjective:
        """The loss alone.

        >>> LinearObjective(loss="squared", l2=0.1).without_penalty()
        LinearObjective(loss='squared', l2=0.0, intercept=True, l1=0.0)
        """
        return replace(self, l1=0.0, l2=0.0)

    def scores(self, w: Array, X: Any) -> Array:
        """Decision values: (m,), or (m, C) for softmax."""
        W = w.reshape(X.shape[1] + 1, -1)
        z = X @ W[:-1] + W[-1]
        return np.asarray(z) if self.loss == "softmax" else np.asarray(z).ravel()

    def predict(self, w: Array, X: Any) -> Array:
        """Class numbers (m,), or real predictions (m,) for squared loss."""
        z = self.scores(w, X)
        if self.loss == "squared":
            return z
        return z.argmax(axis=1) if self.loss == "softmax" else (z > 0).astype(np.intp)

    def _outputs(self, data: Dataset) -> int:
        return data.n_classes if self.loss == "softmax" else 1

    @property
    def curvature(self) -> float:
        """A bound on the second derivative of the loss in its argument (hinge: as if smoothed)."""
        return {"logistic": 0.25, "softmax": 0.5, "squared": 1.0, "hinge": 1.0}[self.loss]


def _rows(batch: Batch) -> Array:
    return np.arange(len(batch.data)) if batch.rows is None else batch.rows


def _weights(data: Dataset) -> Array:
    return _ALIKE if data.weight is None else data.weight


def _softmax_value(w: Array, data: Dataset, rows: Array) -> float:
    W = w.reshape(data.n_features + 1, -1)
    X, s = data.X, _weights(data)
    if data.is_sparse:
        return float(kernels.csr_softmax_value(X.data, X.indices, X.indptr, data.y, s, rows, W))
    total = 0.0
    for part in _chunks(rows):
        logp = _log_softmax(X[part] @ W[:-1] + W[-1])[np.arange(len(part)), data.y[part]]
        total -= float((logp * s[part]).sum() if s.size else logp.sum())
    return total / len(rows)


def _softmax_grad(w: Array, data: Dataset, rows: Array, l2: float, g: Array) -> None:
    W, G = w.reshape(data.n_features + 1, -1), g.reshape(data.n_features + 1, -1)
    X, s = data.X, _weights(data)
    if data.is_sparse:
        kernels.csr_softmax_grad(X.data, X.indices, X.indptr, data.y, s, rows, W, l2, G)
        return
    G[:-1] = l2 * W[:-1]
    G[-1] = 0
    for part in _chunks(rows):
        x = X[part]
        residual = np.exp(_log_softmax(x @ W[:-1] + W[-1]))
        residual[np.arange(len(part)), data.y[part]] -= 1
        if s.size:
            residual *= s[part, None]
        residual /= len(rows)
        G[:-1] += x.T @ residual
        G[-1] += residual.sum(axis=0)


def _chunks(rows: Array) -> Iterator[Array]:
    """Pieces small enough for their logits to stay in cache and their rows in memory."""
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


def _log_softmax(z: Array) -> Array:
    z -= z.max(axis=1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
    return z


def logistic(l2: float = 0.0) -> LinearObjective:
    """Logistic regression for two classes."""
    return LinearObjective("logistic", l2)


def softmax(l2: float = 0.0) -> LinearObjective:
    """Multinomial logistic regression."""
    return LinearObjective("softmax", l2)


def squared(l2: float = 0.0) -> LinearObjective:
    """Least squares (ridge regression)."""
    return LinearObjective("squared", l2)


def hinge(l2: float = 0.0) -> LinearObjective:
    """The linear support vector machine."""
    return LinearObjective("hinge", l2)
