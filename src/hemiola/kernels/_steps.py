"""Compiled: what a step depends on besides the row - losses, rates, shrinkage."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from hemiola.kernels._compile import FAST, compiled

LOGISTIC, SQUARED, HINGE, SOFTMAX = 0, 1, 2, 3
CODES = {"logistic": LOGISTIC, "squared": SQUARED, "hinge": HINGE, "softmax": SOFTMAX}


BEND = 20.0
"""One over the least curvature that is expected of a loss in the intercept."""

_POWERS = np.exp2(np.arange(-126, 128)).astype(np.float32)
_LOG2E, _LN2_HIGH, _LN2_LOW = (
    np.float32(1.442695),
    np.float32(0.693359375),
    np.float32(-2.1219444e-4),
)
_C0, _C2, _C3, _C4, _C5, _C6 = (np.float32(1 / math.factorial(i)) for i in (1, 2, 3, 4, 5, 6))


class Pace(NamedTuple):
    """How a pass steps. Weights are kept as v with w = σ_t v, where σ_t is the shrinkage by L2.

    ``rate``     η, at t = 0;
    ``l2``       λ, the part of it that is done by scaling;
    ``inverse``  η_t = η / (1 + η λ (t + 1)), else η_t = η;
    ``stride``   how far t goes with each row: one step for every thread;
    ``bias``     the least step of the intercept over that of the weights; 0: it stands still;
    ``since``    steps before t = 0.
    """

    rate: float
    l2: float
    inverse: bool
    stride: float
    bias: float
    since: float


@compiled
def scale_at(pace, t):
    """σ_t, the product of 1 - η_u λ over the steps u < t."""
    if pace.inverse:
        return 1.0 / (1.0 + pace.rate * pace.l2 * t)
    return math.exp(t * math.log1p(-pace.rate * pace.l2))


@compiled
def shrinkage(pace):
    """How much one step shrinks σ at a constant rate, and ``stride`` steps."""
    return 1.0 - pace.rate * pace.l2, math.exp(pace.stride * math.log1p(-pace.rate * pace.l2))


@compiled
def step_at(pace, t, scale, shrink):
    """σ_{t+1}, the step η_t, the step on v, η_t / σ_{t+1}, and σ before the next row's step."""
    if pace.inverse:
        bend = pace.rate * pace.l2
        after = 1.0 / (1.0 + bend * (t + 1.0))
        return after, pace.rate * after, pace.rate, 1.0 / (1.0 + bend * (t + pace.stride))
    after = scale * shrink[0]
    return after, pace.rate, pace.rate / after, scale * shrink[1]


def exponential(x):
    """e^x; of float32 without a call, to the last bit or two."""
    return math.exp(x)


@overload(exponential, jit_options={"fastmath": FAST})
def _exponential(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def inline(x):
        if x != x:
            return x
        if x < np.float32(-87.0):
            return np.float32(0.0)
        if x > np.float32(87.0):
            return _POWERS[253]
        k = int(np.floor(x * _LOG2E + np.float32(0.5)))
        r = x - np.float32(k) * _LN2_HIGH - np.float32(k) * _LN2_LOW
        low, high = _C0 + _C0 * r, _C2 + _C3 * r  # as few multiplications in a row as possible
        top = _C4 + _C5 * r + _C6 * (r * r)
        return (low + (r * r) * (high + (r * r) * top)) * _POWERS[k + 126]

    return inline


@compiled
def intercept_step(pace, t, rate):
    """The intercept's step: ``rate`` at first, falling as 1/t, but not below its share of it."""
    return min(rate, max(pace.bias * rate, BEND / (pace.since + t + 1.0)))


@compiled
def slope(loss, z, y, one):
    """d loss / d z; y is -1 or 1, or a real target. All have the type of ``one``, which is 1."""
    if loss == LOGISTIC:
        return -y / (one + exponential(y * z))
    if loss == SQUARED:
        return z - y
    return -y if y * z < one else y - y


@compiled
def slopes(loss, z, y, one):
    """The same for the outputs z (C,), in place; of softmax, y is the number of a class."""
    if loss != SOFTMAX:
        z[0] = slope(loss, z[0], y, one)
        return
    top = z.max()
    total = one - one
    for c in range(z.shape[0]):
        z[c] = math.exp(z[c] - top)
        total += z[c]
    for c in range(z.shape[0]):
        z[c] /= total
    z[int(y)] -= one


@compiled
def truncated(v, by):
    """Towards zero by so much, and not beyond it."""
    if v > by:
        return v - by
    return v + by if v < -by else v - v
