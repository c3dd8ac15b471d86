"""Second derivatives of linear models' losses, as matrices and as products with vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hemiola.objectives import kernels
from hemiola.types import Array

_CHUNK = 8192


@dataclass(frozen=True)
class Hessian:
    """The Hessian of a mean loss, without a penalty, at one point.

    ``X``          (m, p) the batch's features, dense or CSR;
    ``share``      (m,) what a sample counts: its weight over m;
    ``curvature``  (m,) second derivatives of the losses in their scores; for softmax the class
                   probabilities (m, C), whose rows stand for diag(P_i) - P_i P_i';
    ``intercept``  False leaves zeros in the intercepts' rows and columns.
    """

    X: Any
    share: Array
    curvature: Array
    intercept: bool = True

    def dot(self, v: Array) -> Array:
        """H v, (d,)."""
        V = v.reshape(self.X.shape[1] + 1, -1)
        product = np.empty_like(V)
        scores = self.X @ V[:-1] + (V[-1] if self.intercept else 0.0)
        if self.curvature.ndim == 1:
            scores *= (self.share * self.curvature)[:, None]
        else:
            P = self.curvature
            scores = P * (scores - (P * scores).sum(axis=1, keepdims=True))
            scores *= self.share[:, None]
        product[:-1] = self.X.T @ scores
        product[-1] = scores.sum(axis=0) if self.intercept else 0.0
        return product.ravel()

    def matrix(self) -> Array:
        """H, (d, d)."""
        p, P = self.X.shape[1], self.curvature.reshape(len(self.share), -1)
        C = P.shape[1]
        H = np.zeros((p + 1, C, p + 1, C))
        for a in range(C):
            for b in range(a, C):
                weight = P[:, a] * ((a == b) - P[:, b]) if C > 1 else P[:, 0]
                H[:, a, :, b] = H[:, b, :, a] = self._moments(self.share * weight)
        if not self.intercept:
            H[p] = 0.0
            H[:, :, p] = 0.0
        return H.reshape((p + 1) * C, (p + 1) * C)

    def _moments(self, weight: Array) -> Array:
        """sum_i weight_i (x_i, 1)(x_i, 1)', (p + 1, p + 1)."""
        X, p = self.X, self.X.shape[1]
        M = np.zeros((p + 1, p + 1))
        if not isinstance(X, np.ndarray):
            kernels.csr_moments(X.data, X.indices, X.indptr, weight, M)
            return M + np.tril(M, -1).T
        for rows in _chunks(len(weight)):
            weighted = X[rows] * weight[rows, None]
            M[:p, :p] += X[rows].T @ weighted
            M[p, :p] += weighted.sum(axis=0)
        M[:p, p] = M[p, :p]
        M[p, p] = weight.sum()
        return M


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, n, _CHUNK))
