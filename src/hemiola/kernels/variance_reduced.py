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
def _frozen_part(hot, s, x):
    """Of row s: what the intercept and the hot features add to z."""
    z = x[x.shape[0] - 1] + 0.0
    for a in range(hot.starts[s], hot.starts[s + 1]):
        z += hot.values[a] * x[hot.of_hot[hot.columns[a]]]
    return z


@_compile
def _caught_up(method, v, q, x, memory, rates):
    value = x[v] * rates.keep[q]
    if method != SGD:
        value -= rates.lr * memory.mean[v] * rates.drift[q]
    return value


@_compile
def _stepped(method, v, g, memory, rates, x):
    if method == SPARSE_SAGA:
        d = memory.scale[v]
        return (1.0 - rates.mu * d) * x[v] - rates.lr * (g + d * memory.mean[v])
    step = g if method == SGD else g + memory.mean[v]
    return (1.0 - rates.mu) * x[v] - rates.lr * step


@_compile
def _row(method, loss, s, cold, hot, target, memory, rates, x):
    t = cold.position[s]
    begin, end = cold.starts[s], cold.starts[s + 1]
    z = _frozen_part(hot, s, x)
    for a in range(begin, end):
        v = cold.columns[a]
        if rates.lazy:
            x[v] = _caught_up(method, v, t - memory.last[v], x, memory, rates)
            memory.last[v] = t + 1
        z += cold.values[a] * x[v]
    slope = _slope(loss, z, target.y[t])
    if target.s.shape[0]:
        slope *= target.s[t]
    move = slope if method == SGD else slope - memory.slope[t]
    memory.move[t] = move
    n = target.y.shape[0]
    for a in range(begin, end):
        v = cold.columns[a]
        g = move * cold.values[a]
        x[v] = _stepped(method, v, g, memory, rates, x)
        if method >= SAGA:
            memory.mean[v] += g / n
    if method >= SAGA:
        memory.slope[t] = slope


@_compile
def _hot_feature(method, b, h, steps, hot, target, memory, rates, x):
    """The step of hot feature h at the end of wave b, which had so many ``steps``."""
    features, v = hot.of_hot.shape[0], hot.of_hot[h]
    begin = hot.feature_starts[b * features + h]
    end = hot.feature_starts[b * features + h + 1]
    total = 0.0
    for a in range(begin, end):
        total += memory.move[hot.feature_positions[a]] * hot.feature_values[a]
    times = (end - begin) * memory.scale[v] if method == SPARSE_SAGA else steps
    step = total if method == SGD else total + times * memory.mean[v]
    x[v] -= rates.damp * (rates.lr * step + times * rates.hot_mu[h] * x[v])
    if method >= SAGA:
        memory.mean[v] += total / target.y.shape[0]


@_compile
def waves(core, cores, counter, method, loss, cold, hot, target, memory, rates, x):
    """The share of one core in all waves of a pass, and in catching up at its end."""
    features = hot.of_hot.shape[0]
    count = (cold.bounds.shape[0] - 1) // cores
    for b in range(count):
        for s in range(cold.bounds[b * cores + core], cold.bounds[b * cores + core + 1]):
            _row(method, loss, s, cold, hot, target, memory, rates, x)
        meet(counter, cores)
        if features:
            steps = cold.bounds[(b + 1) * cores] - cold.bounds[b * cores]
            for h in range(core, features, cores):
                _hot_feature(method, b, h, steps, hot, target, memory, rates, x)
            meet(counter, cores)
    if rates.lazy:
        d, total = memory.last.shape[0], target.y.shape[0]
        for v in range(d * core // cores, d * (core + 1) // cores):
            if memory.last[v] >= 0:
                x[v] = _caught_up(method, v, total - memory.last[v], x, memory, rates)


@_compile
def full_gradient(core, cores, counter, loss, cold, hot, target, memory, x):
    """``memory.slope`` at x, and ``memory.mean``, which must be 0 before: SVRG's snapshot."""
    features, n = hot.of_hot.shape[0], target.y.shape[0]
    count = (cold.bounds.shape[0] - 1) // cores
    for b in range(count):
        for s in range(cold.bounds[b * cores + core], cold.bounds[b * cores + core + 1]):
            t = cold.position[s]
            z = _frozen_part(hot, s, x)
            for a in range(cold.starts[s], cold.starts[s + 1]):
                z += cold.values[a] * x[cold.columns[a]]
            slope = _slope(loss, z, target.y[t])
            if target.s.shape[0]:
                slope *= target.s[t]
            memory.slope[t] = slope
            for a in range(cold.starts[s], cold.starts[s + 1]):
                memory.mean[cold.columns[a]] += slope * cold.values[a] / n
        meet(counter, cores)
        for h in range(core, features, cores):
            v = hot.of_hot[h]
            for a in range(hot.feature_starts[b * features + h],
                           hot.feature_starts[b * features + h + 1]):  # fmt: skip
                slope = memory.slope[hot.feature_positions[a]]
                memory.mean[v] += slope * hot.feature_values[a] / n
