"""How far single steps of dual coordinate ascent may move the weights of frequent features.

A step that is exact for sample i changes the prediction for another sample k by x_i·x_k / (λ n)
times what α_i changes by. Where rows have much in common - dense features, frequent words,
categories - and the penalty is weak, that is more than any loss curves back: the steps undo each
other, and the end of a pass depends on its last rows. Proximal centres cure that
(:mod:`hemiola.kernels.sdca`, (6)): the columns become c_j x_j with

    (1)  c_j^2 = min(1, τ / mean_i x_ij^2),      the largest τ for which
    (2)  φ'' sqrt(mean_{i != k} (sum_j c_j^2 x_ij x_kj)^2) <= λ n / 10

where φ'' bounds the loss's curvature. All c_j are 1, and nothing changes, where (2) holds anyway,
as in most sparse data. Cf. Shalev-Shwartz, Zhang, "Accelerated Proximal Stochastic Dual Coordinate
Ascent", ICML 2014, and Lin, Mairal, Harchaoui, "A Universal Catalyst for First-Order Optimization",
NIPS 2015, who put one centre around all of w; these are by feature and move after every pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from hemiola.kernels.rows import Dense, Rows
from hemiola.kernels.sdca import flat
from hemiola.types import Array

SAMPLE = 128
"""Rows that the mean in (2) is taken over."""

_STEPS, _ENOUGH = 20, 1.05
_TIGHT = 10.0


def squared_factors(sample: Any, squares: Array, most: float) -> Array:
    """c_j^2 (p,) for rows like these (m, p) whose columns have mean squares ``squares``.

    ``most`` is the right-hand side of (2) over φ''.

    >>> X = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    >>> squared_factors(X, np.array([1.0, 0.5, 0.5]), most=1.0)
    array([1., 1., 1.])
    >>> squared_factors(X, np.array([1.0, 0.5, 0.5]), most=0.1).round(3)
    array([0.1, 0.2, 0.2])
    """
    factors, tau = np.ones(len(squares)), float(squares.max(initial=0.0))
    for _ in range(_STEPS):
        common = _common(sample, factors)
        if common <= _ENOUGH * most:
            break
        tau *= most / common  # less than this is never needed, as what is common is concave in τ
        factors = _factors(squares, tau)
    return factors


def _factors(squares: Array, tau: float) -> Array:
    return np.asarray(tau / np.maximum(squares, tau))


def _common(sample: Any, factors: Array) -> float:
    """The root mean square of x_i·x_k over pairs of different rows, in scaled columns."""
    m = sample.shape[0]
    if m < 2:
        return 0.0
    products = (sample * factors) @ sample.T
    products = products.toarray() if hasattr(products, "toarray") else np.array(products)
    np.fill_diagonal(products, 0.0)
    return float(np.sqrt(np.square(products).sum() / (m * (m - 1))))


def damped(rows: Rows, curvature: float, strength: float, wanted: bool) -> tuple[Array, Array]:
    """Multiply the rows' columns by c_j, in place. Returns c_j (p,) and |x_i| (n,) as it was.

    ``curvature`` is φ'', ``strength`` λ n.
    """
    lengths, squares = _lengths_and_squares(rows)
    factors = np.ones(rows.n_features, rows.dtype)
    if not wanted:
        return factors, lengths
    most = strength / (_TIGHT * curvature)
    factors = np.sqrt(squared_factors(_first(rows), squares, most)).astype(rows.dtype)
    if (factors < 1).any():
        _stretch(rows, factors)
    return factors, lengths


def matrix(rows: Rows) -> Any:
    """X: dense, or its three arrays."""
    return rows.table.X if isinstance(rows.table, Dense) else tuple(rows.table[:3])


def loosened(rows: Rows, factors: Array, by: float) -> None:
    """c_j <- min(1, by c_j), and the columns with them; both in place."""
    ratio = np.minimum(by, 1 / factors)
    _stretch(rows, ratio)
    factors *= ratio


def _first(rows: Rows) -> Any:
    """The first rows, which are as random as any, in double precision."""
    m, table = min(SAMPLE, len(rows)), rows.table
    if isinstance(table, Dense):
        return table.X[:m].astype(np.float64)
    end = int(table.indptr[m])
    parts = (table.values[:end].astype(np.float64), table.indices[:end].astype(np.int64))
    pointers = table.indptr[: m + 1].astype(np.int64)
    return sparse.csr_array((*parts, pointers), shape=(m, rows.n_features))


def _lengths_and_squares(rows: Rows) -> tuple[Array, Array]:
    """|x_i| (n,) and the mean of x_ij^2 (p,)."""
    from hemiola.kernels import _access

    lengths, squares = np.zeros(len(rows)), np.zeros(rows.n_features)
    X = matrix(rows)
    _access.lengths_and_squares(*(X if rows.is_sparse else flat(X)), lengths, squares)
    return lengths, squares / len(rows)


def _stretch(rows: Rows, factors: Array) -> None:
    from hemiola.kernels import _access

    table = rows.table
    if isinstance(table, Dense):
        np.multiply(table.X, factors, out=table.X)
    else:
        _access.stretch(table.values, table.indices, factors)
