"""Compiled SGD over dense rows; :mod:`hemiola.kernels._passes` explains the arguments."""

from __future__ import annotations

import numpy as np

from hemiola.kernels._compile import compiled
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


@compiled
def dense_rows(table, loss, first, last, V, pace, t, pull, told, far):
    if loss == SOFTMAX:
        _outputs(table, loss, first, last, V, pace, t, pull, told)
    else:
        _one_output(table, loss, first, last, V.reshape(-1), pace, t, pull, told.reshape(-1))


@compiled
def dot(x, v):
    """x v"""
    z = v.dtype.type(0)
    for j in range(x.shape[0]):
        z += x[j] * v[j]
    return z


@compiled
def scores(x, V, scale, z):
    """z = scale x V + intercepts"""
    z[:] = 0.0
    for j in range(x.shape[0]):
        for c in range(z.shape[0]):
            z[c] += x[j] * V[j, c]
    for c in range(z.shape[0]):
        z[c] = V.dtype.type(scale) * z[c] + V[V.shape[0] - 1, c]


@compiled
def _update(x, v, a, rate, pull, told):
    """v <- max(1 - rate pull, 0) v - a x"""
    for j in range(x.shape[0]):
        before = v[j]
        after = (shrunk(before, rate * pull[j]) if pull.shape[0] else before) - a * x[j]
        v[j] = after
        if told.shape[0]:
            told[j] += np.float64(after) - np.float64(before)


@compiled
def _one_output(table, loss, first, last, v, pace, t, pull, told):
    X, y, s = table
    p = v.shape[0] - 1
    scale, shrink, one = scale_at(pace, t), shrinkage(pace), v.dtype.type(1)
    for i in range(first, last):
        x = X[i]
        r = slope(loss, v.dtype.type(scale) * dot(x, v) + v[p], y[i], one)
        if s.shape[0]:
            r *= s[i]
        _, rate, gain, following = step_at(pace, t, scale, shrink)
        a = v.dtype.type(gain) * r
        if pull.shape[0] or told.shape[0]:
            _update(x, v, a, v.dtype.type(rate), pull, told)
        elif r != 0.0:
            for j in range(p):
                v[j] -= a * x[j]
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
    X, y, s = table
    p = V.shape[0] - 1
    z = np.empty(V.shape[1], V.dtype)
    scale, shrink, one = scale_at(pace, t), shrinkage(pace), V.dtype.type(1)
    for i in range(first, last):
        x = X[i]
        scores(x, V, scale, z)
        slopes(loss, z, y[i], one)
        if s.shape[0]:
            z *= s[i]
        _, rate, gain, following = step_at(pace, t, scale, shrink)
        for j in range(p):
            pulled = V.dtype.type(rate) * pull[j] if pull.shape[0] else V.dtype.type(0)
            for c in range(z.shape[0]):
                before = V[j, c]
                after = shrunk(before, pulled) - V.dtype.type(gain * z[c]) * x[j]
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
