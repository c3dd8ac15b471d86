"""Compiled access to rows: of a dense matrix, or of (row pointers, feature numbers, values).

The compiler chooses by the type of ``X``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from hemiola.kernels._compile import FAST, compiled

_ONE = np.uint64(1)


def dot(X, i, w):
    """x_i · w"""
    raise NotImplementedError


def add(X, i, a, w):
    """w += a x_i"""
    raise NotImplementedError


def square(X, i):
    """|x_i|^2"""
    raise NotImplementedError


@overload(dot, jit_options={"fastmath": FAST})
def _dot_of(X, i, w):
    def sparse(X, i, w):
        indptr, indices, values = X
        z = w.dtype.type(0)
        for k in range(indptr[i], indptr[i + _ONE]):
            z += values[k] * w[indices[k]]
        return z

    def dense(X, i, w):
        x = X[i]
        z = w.dtype.type(0)
        for j in range(x.shape[0]):
            z += x[j] * w[j]
        return z

    return sparse if isinstance(X, types.BaseTuple) else dense


@overload(add, jit_options={"fastmath": FAST})
def _add_of(X, i, a, w):
    def sparse(X, i, a, w):
        indptr, indices, values = X
        a = w.dtype.type(a)
        for k in range(indptr[i], indptr[i + _ONE]):
            w[indices[k]] += a * values[k]

    def dense(X, i, a, w):
        x = X[i]
        a = w.dtype.type(a)
        for j in range(x.shape[0]):
            w[j] += a * x[j]

    return sparse if isinstance(X, types.BaseTuple) else dense


@overload(square, jit_options={"fastmath": FAST})
def _square_of(X, i):
    def sparse(X, i):
        indptr, _, values = X
        total = 0.0
        for k in range(indptr[i], indptr[i + _ONE]):
            total += values[k] * values[k]
        return total

    def dense(X, i):
        x = X[i]
        total = 0.0
        for j in range(x.shape[0]):
            total += x[j] * x[j]
        return total

    return sparse if isinstance(X, types.BaseTuple) else dense


def add_squares(X, i, squares):
    """squares += x_i^2, by feature"""
    raise NotImplementedError


@overload(add_squares)
def _add_squares_of(X, i, squares):
    def sparse(X, i, squares):
        indptr, indices, values = X
        for k in range(indptr[i], indptr[i + _ONE]):
            squares[indices[k]] += values[k] * values[k]

    def dense(X, i, squares):
        x = X[i]
        for j in range(x.shape[0]):
            squares[j] += x[j] * x[j]

    return sparse if isinstance(X, types.BaseTuple) else dense


@compiled
def row_of(rows, i):
    return np.uint64(rows[i]) if rows.shape[0] else np.uint64(i)


@compiled
def square_norms(X, rows, norms):
    """norms[i] = |x_i|^2"""
    for i in range(norms.shape[0]):
        norms[i] = square(X, row_of(rows, i))


@compiled
def lengths_and_squares(X, lengths, squares):
    """lengths[i] = |x_i|; squares[j] += x_ij^2 over all rows."""
    for i in range(np.uint64(lengths.shape[0])):
        lengths[i] = math.sqrt(square(X, i))
        add_squares(X, i, squares)


@compiled
def stretch(values, indices, factor):
    """values *= factor, by feature"""
    for k in range(values.shape[0]):
        values[k] *= factor[indices[k]]
