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

# tanh(x) = x A(x^2) / B(x^2), fitted to 1e-8 for |x| < 8.3; beyond, it is 1 in float32
_A = tuple(
    np.float32(a) for a in (0.999999957, 0.134191242, 0.00354126576, 2.13821157e-05, 1.44785793e-08)
)
_B = tuple(np.float32(b) for b in (1, 0.467524399, 0.0260496096, 0.000336119267, 8.22459783e-07))
_FLAT = np.float32(8.3)


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


def falling(x):
    """1 / (1 + e^x); of float32 to 2e-7, by a quotient of polynomials without a call."""
    return 1.0 / (1.0 + math.exp(x))


@overload(falling, jit_options={"fastmath": FAST})
def _falling(x):
    if x != types.float32:
        return lambda x: 1.0 / (1.0 + math.exp(x))

    def inline(x):
        half = np.float32(0.5) * x
        if half > _FLAT:
            half = _FLAT
        elif half < -_FLAT:
            half = -_FLAT
        x2 = half * half
        x4 = x2 * x2  # few multiplications in a row: the next row waits for the outcome
        top = (_A[0] + _A[1] * x2) + x4 * (_A[2] + _A[3] * x2) + (x4 * x4) * _A[4]
        below = (_B[0] + _B[1] * x2) + x4 * (_B[2] + _B[3] * x2) + (x4 * x4) * _B[4]
        return np.float32(0.5) - half * top / (below + below)

    return inline


@compiled
def intercept_step(pace, t, rate):
    """The intercept's step: ``rate`` at first, falling as 1/t, but not below its share of it."""
    return min(rate, max(pace.bias * rate, BEND / (pace.since + t + 1.0)))


@compiled
def slope(loss, z, y, one):
    """d loss / d z; y is -1 or 1, or a real target. All have the type of ``one``, which is 1."""
    if loss == LOGISTIC:
        return -y * falling(y * z)
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
def shrunk(v, by):
    """v (1 - by), but not beyond 0."""
    return v - by * v if by < 1 else v - v


@compiled
def truncated(v, by):
    """Towards zero by so much, and not beyond it."""
    if v > by:
        return v - by
    return v + by if v < -by else v - v
