"""Compiled: many steps of mini-batch SGD in one call. Equal to single steps but for rounding,
and on dense rows with one output to the bit.

The arguments are those of :mod:`hemiola.objectives.kernels`; batch i is rows[ends[i-1]:ends[i]] and
steps by ``rates[i]``; ``w`` is changed in place. Sparse batches cost what their non-zeros cost: the
weights are kept as w = scale v, and a step on the penalty multiplies ``scale``.
"""

from __future__ import annotations

import numpy as np

from hemiola.objectives.kernels import (
    _compile,
    _slope,
    _softmax_row,
    dense_grad,
)

SOFTMAX = 3

_LEAST, _MOST = 1e-6, 1e6  # of |scale|; beyond, v is scaled anew
_CHUNK = 8192


@_compile
def _descend(w, g, rate, p):
    """w -= rate g, in two loops so that the product is rounded before it is subtracted."""
    for j in range(p):
        g[j] *= rate
    for j in range(p):
        w[j] -= g[j]


@_compile
def dense_sgd(loss, X, y, s, rows, ends, rates, l2, bias, w):
    g = np.empty_like(w)
    p, begin = X.shape[1], 0
    for i in range(ends.shape[0]):
        dense_grad(loss, X, y, s, rows[begin : ends[i]], w, l2, g)
        _descend(w, g, w.dtype.type(rates[i]), p + 1 if bias else p)
        begin = ends[i]


@_compile
def _shrink(v, p, scale, by):
    """scale times ``by``; when it leaves its bounds, v (p, ...) takes it in."""
    scale *= by
    if _LEAST < abs(scale) < _MOST:
        return scale
    for j in range(p):
        v[j] *= scale
    return 1.0


@_compile
def _most(ends):
    """The size of the largest batch."""
    most, begin = 1, 0
    for end in ends:
        most = max(most, end - begin)
        begin = end
    return most


@_compile
def csr_sgd(loss, values, indices, indptr, y, s, rows, ends, rates, l2, bias, w):
    p, begin, scale = w.shape[0] - 1, 0, 1.0
    residual = np.empty(_most(ends), w.dtype)
    for b in range(ends.shape[0]):
        n = ends[b] - begin
        for q in range(n):
            i = rows[begin + q]
            z = w.dtype.type(0)
            for a in range(indptr[i], indptr[i + 1]):
                z += values[a] * w[indices[a]]
            r = _slope(loss, scale * z + w[p], y[i]) / n
            residual[q] = r * s[i] if s.shape[0] else r
        scale = _shrink(w, p, scale, 1.0 - rates[b] * l2)
        for q in range(n):
            i = rows[begin + q]
            step = w.dtype.type(rates[b] / scale * residual[q])
            if step != 0.0:
                for a in range(indptr[i], indptr[i + 1]):
                    w[indices[a]] -= step * values[a]
                if bias:
                    w[p] -= rates[b] * residual[q]
        begin = ends[b]
    for j in range(p):
        w[j] *= scale


@_compile
def _sparse_logits(values, indices, indptr, i, W, scale, z):
    z[:] = 0.0
    for a in range(indptr[i], indptr[i + 1]):
        for c in range(z.shape[0]):
            z[c] += values[a] * W[indices[a], c]
    for c in range(z.shape[0]):
        z[c] = scale * z[c] + W[W.shape[0] - 1, c]


@_compile
def csr_softmax_sgd(values, indices, indptr, y, s, rows, ends, rates, l2, bias, W):
    p, begin, scale = W.shape[0] - 1, 0, 1.0
    residual = np.empty((_most(ends), W.shape[1]), W.dtype)
    for b in range(ends.shape[0]):
        n = ends[b] - begin
        for q in range(n):
            i, z = rows[begin + q], residual[q]
            _sparse_logits(values, indices, indptr, i, W, scale, z)
            _softmax_row(z, y[i])
            z[y[i]] -= 1.0
            z *= (s[i] if s.shape[0] else 1.0) / n
        scale = _shrink(W, p, scale, 1.0 - rates[b] * l2)
        for q in range(n):
            i = rows[begin + q]
            for a in range(indptr[i], indptr[i + 1]):
                step = rates[b] / scale * values[a]
                for c in range(W.shape[1]):
                    W[indices[a], c] -= step * residual[q, c]
            if bias:
                for c in range(W.shape[1]):
                    W[p, c] -= rates[b] * residual[q, c]
        begin = ends[b]
    for j in range(p):
        W[j] *= scale


@_compile
def _add_dense_softmax(X, y, s, rows, n, W, G):
    """G += the gradient of the losses of these rows over n, by two matrix products."""
    p = X.shape[1]
    x = np.empty((rows.shape[0], p), X.dtype)
    for q in range(rows.shape[0]):
        x[q] = X[rows[q]]
    Z = np.dot(x, W[:p])
    for q in range(rows.shape[0]):
        i = rows[q]
        for c in range(Z.shape[1]):
            Z[q, c] += W[p, c]
        _softmax_row(Z[q], y[i])
        Z[q, y[i]] -= 1.0
        Z[q] *= (s[i] if s.shape[0] else 1.0) / n
    G[:p] += np.dot(x.T, Z)
    for q in range(rows.shape[0]):
        G[p] += Z[q]


@_compile
def dense_softmax_sgd(X, y, s, rows, ends, rates, l2, bias, W):
    G = np.empty_like(W)
    p, begin = X.shape[1], 0
    for b in range(ends.shape[0]):
        end = ends[b]
        for j in range(p):
            for c in range(W.shape[1]):
                G[j, c] = l2 * W[j, c]
        G[p] = 0.0
        for first in range(begin, end, _CHUNK):
            part = rows[first : min(first + _CHUNK, end)]
            _add_dense_softmax(X, y, s, part, end - begin, W, G)
        for j in range(p if not bias else p + 1):
            for c in range(W.shape[1]):
                W[j, c] -= rates[b] * G[j, c]
        begin = end
