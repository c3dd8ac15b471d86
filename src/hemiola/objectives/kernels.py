"""Compiled loops over the rows of a batch. They copy no rows, hold no lock and are deterministic.

``rows`` are sample numbers; ``y`` class numbers or real targets; ``s`` sample weights, or an empty
array when all count alike. ``w`` holds the p feature weights and then the intercept; for C classes
it is a (p + 1, C) matrix whose last row holds the intercepts. Gradients overwrite ``g``: the mean
loss's plus ``l2`` times the feature weights. Values are means of losses, without the penalty. The
fastmath flags leave NaN and infinity alone, so that divergence stays visible.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

LOGISTIC, SQUARED, HINGE = 0, 1, 2

_FAST = {"reassoc", "contract", "arcp", "nsz"}


def _compile(function):
    return njit(nogil=True, cache=True, fastmath=_FAST)(function)


@_compile
def _slope(loss, z, y):
    """d loss / d z"""
    if loss == LOGISTIC:
        e = math.exp(-abs(z))
        return (1.0 if z >= 0 else e) / (1.0 + e) - y
    if loss == SQUARED:
        return z - y
    sign = 2.0 * y - 1.0
    return -sign if sign * z < 1.0 else 0.0


@_compile
def _loss(loss, z, y):
    if loss == LOGISTIC:
        return max(z, 0.0) - y * z + math.log1p(math.exp(-abs(z)))
    if loss == SQUARED:
        return 0.5 * (z - y) * (z - y)
    return max(0.0, 1.0 - (2.0 * y - 1.0) * z)


@_compile
def _penalty_grad(w, l2, g):
    """g = l2 w, and 0 in the last place, which holds the intercept."""
    p = w.shape[0] - 1
    for j in range(p):
        g[j] = l2 * w[j]
    g[p] = 0.0


@_compile
def dense_grad(loss, X, y, s, rows, w, l2, g):
    n, p = rows.shape[0], X.shape[1]
    _penalty_grad(w, l2, g)
    for q in range(n):
        i = rows[q]
        x = X[i]
        z = w[p]
        for j in range(p):
            z += x[j] * w[j]
        r = _slope(loss, z, y[i]) / n
        if s.shape[0]:
            r *= s[i]
        if r != 0.0:
            for j in range(p):
                g[j] += r * x[j]
            g[p] += r


@_compile
def dense_value(loss, X, y, s, rows, w):
    n, p = rows.shape[0], X.shape[1]
    total = 0.0
    for q in range(n):
        i = rows[q]
        x = X[i]
        z = w[p]
        for j in range(p):
            z += x[j] * w[j]
        term = _loss(loss, z, y[i])
        total += term * s[i] if s.shape[0] else term
    return total / n


@_compile
def csr_grad(loss, values, indices, indptr, y, s, rows, w, l2, g):
    n, p = rows.shape[0], w.shape[0] - 1
    _penalty_grad(w, l2, g)
    for q in range(n):
        i = rows[q]
        z = w[p]
        for a in range(indptr[i], indptr[i + 1]):
            z += values[a] * w[indices[a]]
        r = _slope(loss, z, y[i]) / n
        if s.shape[0]:
            r *= s[i]
        if r != 0.0:
            for a in range(indptr[i], indptr[i + 1]):
                g[indices[a]] += r * values[a]
            g[p] += r


@_compile
def csr_value(loss, values, indices, indptr, y, s, rows, w):
    n, p = rows.shape[0], w.shape[0] - 1
    total = 0.0
    for q in range(n):
        i = rows[q]
        z = w[p]
        for a in range(indptr[i], indptr[i + 1]):
            z += values[a] * w[indices[a]]
        term = _loss(loss, z, y[i])
        total += term * s[i] if s.shape[0] else term
    return total / n


@_compile
def csr_columns(values, indices, indptr, s, rows, sums, squares):
    """sums_j += mean_i s_i x_ij, squares_j += mean_i s_i x_ij^2 over the rows"""
    n = rows.shape[0]
    for q in range(n):
        i = rows[q]
        weight = (s[i] if s.shape[0] else 1.0) / n
        for a in range(indptr[i], indptr[i + 1]):
            sums[indices[a]] += weight * values[a]
            squares[indices[a]] += weight * values[a] * values[a]


@_compile
def _logits(values, indices, indptr, i, w, z):
    """z = x_i W + intercepts, for one sparse row."""
    z[:] = w[-1]
    for a in range(indptr[i], indptr[i + 1]):
        x = values[a]
        column = w[indices[a]]
        for c in range(z.shape[0]):
            z[c] += x * column[c]


@_compile
def _softmax_row(z, y):
    """Turn logits into probabilities in place; return -log probability of class y."""
    top = z.max()
    total = 0.0
    shifted = z[y] - top
    for c in range(z.shape[0]):
        z[c] = math.exp(z[c] - top)
        total += z[c]
    for c in range(z.shape[0]):
        z[c] /= total
    return math.log(total) - shifted


@_compile
def csr_softmax_grad(values, indices, indptr, y, s, rows, w, l2, g):
    n, p = rows.shape[0], w.shape[0] - 1
    for j in range(p):
        for c in range(w.shape[1]):
            g[j, c] = l2 * w[j, c]
    g[p] = 0.0
    z = np.empty(w.shape[1], dtype=w.dtype)
    for q in range(n):
        i = rows[q]
        _logits(values, indices, indptr, i, w, z)
        _softmax_row(z, y[i])
        z[y[i]] -= 1.0
        scale = (s[i] if s.shape[0] else 1.0) / n
        for c in range(z.shape[0]):
            z[c] *= scale
            g[p, c] += z[c]
        for a in range(indptr[i], indptr[i + 1]):
            x = values[a]
            to = g[indices[a]]
            for c in range(z.shape[0]):
                to[c] += x * z[c]


@_compile
def csr_softmax_value(values, indices, indptr, y, s, rows, w):
    n = rows.shape[0]
    z = np.empty(w.shape[1], dtype=w.dtype)
    total = 0.0
    for q in range(n):
        i = rows[q]
        _logits(values, indices, indptr, i, w, z)
        term = _softmax_row(z, y[i])
        total += term * s[i] if s.shape[0] else term
    return total / n


@_compile
def csr_moments(values, indices, indptr, s, M):
    """M += sum_i s_i (x_i, 1)(x_i, 1)', (p + 1, p + 1): the part on and below the diagonal. Columns
    ascend in every row."""
    p = M.shape[0] - 1
    for i in range(s.shape[0]):
        for a in range(indptr[i], indptr[i + 1]):
            j, x = indices[a], s[i] * values[a]
            for b in range(indptr[i], a + 1):
                M[j, indices[b]] += x * values[b]
            M[p, j] += x
        M[p, p] += s[i]
