"""Compiled SGD over sparse rows; :mod:`hemiola.kernels._passes` explains the arguments."""

from __future__ import annotations

import numpy as np

from hemiola.kernels._compile import compiled, prefetch
from hemiola.kernels._steps import (
    SOFTMAX,
    intercept_step,
    scale_at,
    shrinkage,
    shrunk,
    slope,
    slopes,
    step_at,
)

_AHEAD = 4  # rows
_ONE = np.uint64(1)


@compiled
def sparse_rows(table, loss, first, last, V, pace, t, pull, told, far):
    if loss == SOFTMAX:
        _outputs(table, loss, first, last, V, pace, t, pull, told)
    else:
        _one_output(table, loss, first, last, V.reshape(-1), pace, t, pull, told.reshape(-1), far)


@compiled
def dot(indices, values, begin, end, v):
    """x v"""
    z = v.dtype.type(0)
    for k in range(begin, end):
        z += values[k] * v[indices[k]]
    return z


@compiled
def scores(indices, values, begin, end, V, scale, z):
    """z = scale x V + intercepts"""
    z[:] = 0.0
    for k in range(begin, end):
        for c in range(z.shape[0]):
            z[c] += values[k] * V[indices[k], c]
    for c in range(z.shape[0]):
        z[c] = V.dtype.type(scale) * z[c] + V[V.shape[0] - 1, c]


@compiled
def _update(indices, values, begin, end, v, a, rate, pull, told):
    """v_j <- max(1 - rate pull_j, 0) v_j - a x_j"""
    for k in range(begin, end):
        j = indices[k]
        before = v[j]
        after = (shrunk(before, rate * pull[j]) if pull.shape[0] else before) - a * values[k]
        v[j] = after
        if told.shape[0]:
            told[j] += np.float64(after) - np.float64(before)


@compiled
def _one_output(table, loss, first, last, v, pace, t, pull, told, far):
    indptr, indices, values, y, s = table
    p = v.shape[0] - 1
    scale, shrink, one = scale_at(pace, t), shrinkage(pace), v.dtype.type(1)
    for row in range(first, last):
        i = np.uint64(row)
        begin, end = indptr[i], indptr[i + _ONE]
        if far and row + _AHEAD < last:
            for k in range(indptr[row + _AHEAD], indptr[row + _AHEAD + 1]):
                prefetch(v, indices[k])
        z = v.dtype.type(scale) * dot(indices, values, begin, end, v) + v[p]
        r = slope(loss, z, y[i], one)
        if s.shape[0]:
            r *= s[i]
        _, rate, gain, following = step_at(pace, t, scale, shrink)
        a = v.dtype.type(gain) * r
        if pull.shape[0] or told.shape[0]:
            _update(indices, values, begin, end, v, a, v.dtype.type(rate), pull, told)
        elif r != 0.0:  # written out: a call with so many arrays costs as much as the row
            for k in range(begin, end):
                v[indices[k]] -= a * values[k]
        if pace.bias != 0.0 and r != 0.0:
            before = v[p]
            after = before - v.dtype.type(intercept_step(pace, t, rate)) * r
            v[p] = after
            if told.shape[0]:
                told[p] += np.float64(after) - np.float64(before)
        t += pace.stride
        scale = following


@compiled
def _outputs(table, loss, first, last, V, pace, t, pull, told):
    indptr, indices, values, y, s = table
    p = V.shape[0] - 1
    z = np.empty(V.shape[1], V.dtype)
    scale, shrink, one = scale_at(pace, t), shrinkage(pace), V.dtype.type(1)
    for row in range(first, last):
        i = np.uint64(row)
        scores(indices, values, indptr[i], indptr[i + _ONE], V, scale, z)
        slopes(loss, z, y[i], one)
        if s.shape[0]:
            z *= s[i]
        _, rate, gain, following = step_at(pace, t, scale, shrink)
        for k in range(indptr[i], indptr[i + _ONE]):
            j = indices[k]
            pulled = V.dtype.type(rate) * pull[j] if pull.shape[0] else V.dtype.type(0)
            for c in range(z.shape[0]):
                before = V[j, c]
                after = shrunk(before, pulled) - V.dtype.type(gain * z[c]) * values[k]
                V[j, c] = after
                if told.shape[0]:
                    told[j, c] += np.float64(after) - np.float64(before)
        if pace.bias != 0.0:
            for c in range(z.shape[0]):
                before = V[p, c]
                after = before - V.dtype.type(intercept_step(pace, t, rate) * z[c])
                V[p, c] = after
                if told.shape[0]:
                    told[p, c] += np.float64(after) - np.float64(before)
        t += pace.stride
        scale = following
