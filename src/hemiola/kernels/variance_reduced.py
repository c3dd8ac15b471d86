"""Compiled SGD, SVRG and SAGA for linear models on CSR rows, by threads that share the weights.

A pass has positions t = 0..T-1, and waves as in :mod:`hemiola.kernels.factor`: core p of wave b
executes ``position[bounds[b P + p]:bounds[b P + p + 1]]``, and a barrier ends the wave. Rows lie
in the order of execution, everything else is by position. A row's step, of slope g at x:

    SGD          x <- (1 - mu) x - lr g a                          mu = lr l2
    SVRG         x <- (1 - mu) x - lr ((g - g_t) a + mean)         g_t: slope at the snapshot
    SAGA         the same; then mean += (g - g_t) a / n, g_t <- g
    sparse SAGA  x <- (1 - mu D) x - lr ((g - g_t) a + D mean) on the support only, D_v = n / n_v;
                 then as SAGA

What is dense in a step is not done at once but caught up when a coordinate is needed next: after q
steps without it, x is ``keep[q] x - lr mean drift[q]`` with keep[q] = (1 - mu)^q and drift[q] =
(1 - keep[q]) / mu, or q if mu = 0; mean_v changes only in steps that need coordinate v. ``last[v]``
is the first position that v has not seen. Nothing here depends on who else runs, so bits are those
of one core.

*Hot* features, and the intercept, are in rows of their own, ``hot``. They are frozen in a wave and
make one step at its end, by the sum of the wave's steps times ``damp``; ``by_feature`` are the hot
rows by wave and feature, so the cores share these steps out. The feature numbers ``of_hot`` have a
decay ``hot_mu``, which is 0 for the intercept.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from numba import njit

from hemiola.kernels.barrier import meet
from hemiola.types import Array

SGD, SVRG, SAGA, SPARSE_SAGA = 0, 1, 2, 3
LOGISTIC, SQUARED, HINGE = 0, 1, 2

_FAST = {"reassoc", "contract", "arcp", "nsz"}
_compile = njit(nogil=True, cache=True, fastmath=_FAST)


class Cold(NamedTuple):
    """Rows in the order of execution, without hot features; ``position`` (T,) of each."""

    starts: Array
    columns: Array
    values: Array
    position: Array
    bounds: Array


class Hot(NamedTuple):
    """Hot features: as rows (numbers count hot features only), and by wave and feature.

    The intercept, if it is trained, is the last of them and in the latter only.
    """

    starts: Array
    columns: Array
    values: Array
    of_hot: Array
    feature_starts: Array
    feature_positions: Array
    feature_values: Array


class Target(NamedTuple):
    """By position: class numbers or real targets, and sample weights or nothing."""

    y: Array
    s: Array


class Memory(NamedTuple):
    """What the rows' steps remember.

    ``last`` (d,) see above; ``slope`` and ``move`` (T,) g_t and the last g - g_t, by position;
    ``mean`` (d,) the mean of g_t a; ``scale`` (d,) D.
    """

    last: Array
    slope: Array
    move: Array
    mean: Array
    scale: Array


class Rates(NamedTuple):
    """``keep`` and ``drift`` (T + 1,), the step ``lr``, ``mu``, ``damp`` and ``hot_mu`` (H,);
    ``lazy``: is there anything to catch up?"""

    keep: Array
    drift: Array
    lr: float
    mu: float
    damp: float
    hot_mu: Array
    lazy: bool


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
def _rows(method, loss, begin, end, cold, hot, target, memory, rates, x):
    """The steps of rows begin..end-1.

    One long function: a call with arrays, or an access through a tuple, costs more than a row.
    """
    starts, columns, values, position = cold.starts, cold.columns, cold.values, cold.position
    hot_starts, hot_columns, hot_values, of_hot = hot.starts, hot.columns, hot.values, hot.of_hot
    last, slopes, moves, means = memory.last, memory.slope, memory.move, memory.mean
    scales, keeps, drifts, y, weights = memory.scale, rates.keep, rates.drift, target.y, target.s
    number, intercept = x.dtype.type, x.shape[0] - 1
    lr, mu, share = number(rates.lr), number(rates.mu), number(1.0 / y.shape[0])
    keep = number(1) - mu
    for s in range(begin, end):
        t, first, after = position[s], starts[s], starts[s + 1]
        z = x[intercept]
        for a in range(hot_starts[s], hot_starts[s + 1]):
            z += hot_values[a] * x[of_hot[hot_columns[a]]]
        if rates.lazy:
            for a in range(first, after):
                v = columns[a]
                q = t - last[v]
                last[v] = t + 1
                now = x[v] * keeps[q]
                if method != SGD:
                    now -= lr * means[v] * drifts[q]
                x[v] = now
                z += values[a] * now
        else:
            for a in range(first, after):
                z += values[a] * x[columns[a]]
        slope = number(_slope(loss, z, y[t]))
        if weights.shape[0]:
            slope *= weights[t]
        move = slope if method == SGD else slope - slopes[t]
        moves[t] = move
        if method == SGD:
            step = lr * move
            for a in range(first, after):
                v = columns[a]
                x[v] = keep * x[v] - step * values[a]
        elif method == SPARSE_SAGA:
            for a in range(first, after):
                v, g = columns[a], move * values[a]
                d = scales[v]
                x[v] -= mu * d * x[v] + lr * (g + d * means[v])
                means[v] += g * share
            slopes[t] = slope
        else:
            for a in range(first, after):
                v, g = columns[a], move * values[a]
                x[v] = keep * x[v] - lr * (g + means[v])
                if method == SAGA:
                    means[v] += g * share
            if method == SAGA:
                slopes[t] = slope


@_compile
def _hot_feature(method, b, h, steps, hot, target, memory, rates, x):
    """The step of hot feature h at the end of wave b, which had so many ``steps``."""
    features, v = hot.of_hot.shape[0], hot.of_hot[h]
    begin = hot.feature_starts[b * features + h]
    end = hot.feature_starts[b * features + h + 1]
    positions, values, moves = hot.feature_positions, hot.feature_values, memory.move
    total = 0.0
    for a in range(begin, end):
        total += moves[positions[a]] * values[a]
    times = (end - begin) * memory.scale[v] if method == SPARSE_SAGA else steps
    step = total if method == SGD else total + times * memory.mean[v]
    x[v] -= rates.damp * (rates.lr * step + times * rates.hot_mu[h] * x[v])
    if method >= SAGA:
        memory.mean[v] += total / target.y.shape[0]


@_compile
def _catch_up(method, begin, end, memory, rates, total, x):
    """All weights begin..end-1 after the last of ``total`` positions."""
    for v in range(begin, end):
        q = total - memory.last[v]
        if memory.last[v] >= 0:
            x[v] *= rates.keep[q]
            if method != SGD:
                x[v] -= rates.lr * memory.mean[v] * rates.drift[q]


@_compile
def waves(core, cores, counter, method, loss, cold, hot, target, memory, rates, x):
    """The share of one core in all waves of a pass, and in catching up at its end."""
    features = hot.of_hot.shape[0]
    bounds = cold.bounds
    for b in range((bounds.shape[0] - 1) // cores):
        begin, end = bounds[b * cores + core], bounds[b * cores + core + 1]
        _rows(method, loss, begin, end, cold, hot, target, memory, rates, x)
        meet(counter, cores)
        if features:
            steps = bounds[(b + 1) * cores] - bounds[b * cores]
            for h in range(core, features, cores):
                _hot_feature(method, b, h, steps, hot, target, memory, rates, x)
            meet(counter, cores)
    if rates.lazy:
        d = memory.last.shape[0]
        begin, end = d * core // cores, d * (core + 1) // cores
        _catch_up(method, begin, end, memory, rates, target.y.shape[0], x)


@_compile
def _row_gradients(loss, begin, end, cold, hot, target, memory, x):
    starts, columns, values, position = cold.starts, cold.columns, cold.values, cold.position
    hot_starts, hot_columns, hot_values, of_hot = hot.starts, hot.columns, hot.values, hot.of_hot
    slopes, means, y, weights = memory.slope, memory.mean, target.y, target.s
    share = x.dtype.type(1.0 / y.shape[0])
    for s in range(begin, end):
        t = position[s]
        z = x[x.shape[0] - 1]
        for a in range(hot_starts[s], hot_starts[s + 1]):
            z += hot_values[a] * x[of_hot[hot_columns[a]]]
        for a in range(starts[s], starts[s + 1]):
            z += values[a] * x[columns[a]]
        slope = x.dtype.type(_slope(loss, z, y[t]))
        if weights.shape[0]:
            slope *= weights[t]
        slopes[t] = slope
        for a in range(starts[s], starts[s + 1]):
            means[columns[a]] += slope * values[a] * share


@_compile
def _hot_gradient(b, h, hot, target, memory):
    features, v = hot.of_hot.shape[0], hot.of_hot[h]
    positions, values, slopes = hot.feature_positions, hot.feature_values, memory.slope
    for a in range(hot.feature_starts[b * features + h], hot.feature_starts[b * features + h + 1]):
        memory.mean[v] += slopes[positions[a]] * values[a] / target.y.shape[0]


@_compile
def full_gradient(core, cores, counter, loss, cold, hot, target, memory, x):
    """``memory.slope`` at x, and ``memory.mean``, which must be 0 before: SVRG's snapshot."""
    bounds = cold.bounds
    for b in range((bounds.shape[0] - 1) // cores):
        begin, end = bounds[b * cores + core], bounds[b * cores + core + 1]
        _row_gradients(loss, begin, end, cold, hot, target, memory, x)
        meet(counter, cores)
        for h in range(core, hot.of_hot.shape[0], cores):
            _hot_gradient(b, h, hot, target, memory)
