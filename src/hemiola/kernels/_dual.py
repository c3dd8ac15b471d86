"""Compiled steps of dual coordinate ascent, passes over rows, and the sums behind a duality gap.

The equations and the symbols are those of :mod:`hemiola.kernels.sdca`, a matrix is that of
:mod:`hemiola.kernels._access`. ``y`` holds -1 and 1, or real targets; ``s`` sample weights, or
nothing when all count alike. ``w`` (p + 1,) ends with the intercept. Entry i of ``y``, ``s``,
``norms`` and ``alpha`` belongs to row i of the matrix, or to row ``rows[i]`` where there are such.
A block b of ``size`` holds the entries from b size on.
"""

from __future__ import annotations

import math

import numpy as np

from hemiola.kernels._compile import compiled

LOGISTIC, SQUARED, HINGE = 0, 1, 2
LOSS, TOTAL, VALUE, ALONG, REACH = 0, 1, 2, 3, 4

_CLOSE = 1e-2
_NEWTON = 60
_ONE = np.uint64(1)


@compiled
def _sigmoid(z):
    e = math.exp(-abs(z))
    return (1.0 if z >= 0 else e) / (1.0 + e)


@compiled
def _logistic_root(m, u, t, q):
    """1 / (1 + exp(r)) where r = m + q (1 / (1 + exp(r)) - t), from u = 1 / (1 + exp(m)).

    Newton's method in a shrinking bracket: the difference of the two sides increases in r.
    """
    low, high = m - q * t, m + q * (1.0 - t)
    r = m
    for _ in range(_NEWTON):
        f = r - m - q * (u - t)
        if f > 0:
            high = r
        else:
            low = r
        step = f / (1.0 + q * u * (1.0 - u))
        if abs(step) < _CLOSE:
            return u + u * (1.0 - u) * step
        r -= step
        if r <= low or r >= high:
            r = 0.5 * (low + high)
        u = _sigmoid(-r)
    return u


@compiled
def dual_step(loss, z, a, q, y):
    """The α_i that maximises (5), from the present one, a; and the slack there was,

    φ_i(z) + φ_i*(-a) + a z >= 0, which for the logistic loss is only close to it.
    """
    if loss == SQUARED:
        rest = y - z - a
        return a + rest / (1.0 + q), 0.5 * rest * rest
    m, t = y * z, y * a
    if loss == LOGISTIC:
        u = _sigmoid(-m)
        slack = 0.5 * (u - t) * (u - t) / max(u * (1.0 - u), t * (1.0 - t), 1e-12)
        return y * _logistic_root(m, u, t, q), slack
    rest = 1.0 - m
    slack = max(0.0, rest) - t * rest
    if q == 0.0:
        return (y if rest > 0 else 0.0 * y), slack
    return y * min(1.0, max(0.0, t + rest / q)), slack


@compiled
def _merge(low, high, me, w, start, sums, seen, sigma, unit, cross):
    """Publish what this thread has changed in [low, high), and take in what the others have.

    Notes products of both in units of ``unit``: cross[0] += own · new, cross[1] += own · own.
    """
    for j in range(low, high):
        own = (w[j] - (start[j] + sums[me, j] + seen[me, j])) / sigma
        others = w.dtype.type(0)
        for k in range(sums.shape[0]):
            if k != me:
                others += sums[k, j]
        cross[0] += own * (others - seen[me, j]) / unit
        cross[1] += own * own / unit
        sums[me, j] += own
        seen[me, j] = others
        w[j] = start[j] + sums[me, j] + others


@compiled
def _merge_tier(tier, tiers, me, w, start, sums, seen, sigma, c2, cross):
    """The intercept goes with the first tier."""
    _merge(tiers[tier], tiers[tier + 1], me, w, start, sums, seen, sigma, 1.0, cross)
    if tier == 0 and c2 > 0:
        p = w.shape[0] - 1
        _merge(p, p + 1, me, w, start, sums, seen, sigma, c2, cross)


@compiled
def ascend(
    loss, indptr, indices, values, y, s, rows, norms, alpha, w, blocks, size, scale, c2, sigma,
    start, sums, seen, me, tiers, periods, cross,
):  # fmt: skip
    """Visit blocks in turn; w moves by σ times what the change of α is worth.

    Of several threads this is number ``me``, and w its replica of ``start``, what all had at first,
    and all ``sums`` of changes. Features in [tiers[k], tiers[k + 1]) are merged every periods[k]
    blocks and at the end; without periods w is nobody else's. Returns the sum of slacks met.
    """
    n, p, met = np.uint64(alpha.shape[0]), np.uint64(w.shape[0] - 1), 0.0
    for b in range(blocks.shape[0]):
        first = np.uint64(blocks[b]) * np.uint64(size)
        for i in range(first, min(first + np.uint64(size), n)):
            row = np.uint64(rows[i]) if rows.shape[0] else i
            low = indptr[row] if indptr.shape[0] else row * p
            high = indptr[row + _ONE] if indptr.shape[0] else low + p
            z = w.dtype.type(0)
            if indptr.shape[0]:
                for k in range(low, high):
                    z += values[k] * w[indices[k]]
            else:
                for j in range(p):
                    z += values[low + j] * w[j]
            weight = s[i] if s.shape[0] else 1.0
            gain = sigma * scale * weight
            a = alpha[i]
            new, slack = dual_step(loss, z + w[p], a, gain * (norms[i] + c2), y[i])
            met += weight * slack
            if new == a:
                continue
            alpha[i] = new
            move = w.dtype.type(gain * (new - a))
            if indptr.shape[0]:
                for k in range(low, high):
                    w[indices[k]] += move * values[k]
            else:
                for j in range(p):
                    w[j] += move * values[low + j]
            w[p] += gain * c2 * (new - a)
        for tier in range(periods.shape[0]):
            if (b + 1) % periods[tier] == 0:
                _merge_tier(tier, tiers, me, w, start, sums, seen, sigma, c2, cross)
    for tier in range(periods.shape[0]):
        _merge_tier(tier, tiers, me, w, start, sums, seen, sigma, c2, cross)
    return met


@compiled
def _entropy(t):
    return -t * math.log(t) if t > 0.0 else 0.0


@compiled
def _worth(loss, a, y):
    """-φ_i*(-a)"""
    if loss == SQUARED:
        return a * y - 0.5 * a * a
    t = y * a
    return t if loss == HINGE else _entropy(t) + _entropy(1.0 - t)


@compiled
def _loss(loss, z, y):
    if loss == SQUARED:
        return 0.5 * (z - y) * (z - y)
    m = y * z
    if loss == HINGE:
        return max(0.0, 1.0 - m)
    return max(0.0, -m) + math.log1p(math.exp(-abs(m)))


@compiled
def add_up(loss, z, y, s, lengths, alpha, b, first, sums):
    """sums (5, 2) += over entries from ``first`` on, whose x·w are z: LOSS of s φ(z + b), and of
    s y; and, apart for α >= 0 and α < 0, TOTAL of s α, VALUE of -s φ*(-α), ALONG of s α z, REACH of
    s |α| |x|. Squared loss: ALONG of s z, REACH of s |x|."""
    for k in range(z.shape[0]):
        i = k + first
        weight = s[i] if s.shape[0] else 1.0
        a = alpha[i]
        side = 0 if a >= 0 else 1
        share = 1.0 if loss == SQUARED else a
        sums[LOSS, 0] += weight * _loss(loss, z[k] + b, y[i])
        sums[LOSS, 1] += weight * y[i]
        sums[TOTAL, side] += weight * a
        sums[VALUE, side] += weight * _worth(loss, a, y[i])
        sums[ALONG, side] += weight * share * z[k]
        sums[REACH, side] += weight * abs(share) * lengths[i]


@compiled
def slopes(loss, z, y, s, alpha):
    """alpha = -φ'(z); returns the sum of -s φ*(-α)."""
    worth = 0.0
    for i in range(alpha.shape[0]):
        if loss == SQUARED:
            alpha[i] = y[i] - z[i]
        elif loss == LOGISTIC:
            alpha[i] = y[i] * _sigmoid(-y[i] * z[i])
        else:
            alpha[i] = y[i] if y[i] * z[i] < 1.0 else 0.0
        worth += (s[i] if s.shape[0] else 1.0) * _worth(loss, alpha[i], y[i])
    return worth
