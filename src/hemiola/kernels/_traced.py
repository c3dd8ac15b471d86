"""Compiled SGD with an L1 penalty, or with the sum of all iterates; one thread, any loss.

With w = σ v the truncation by η_t l1 of w is one of v by η_t l1 / σ_{t+1}. ``u`` adds these up; a
feature j is truncated by u - debt_j when a row uses it, and debt_j becomes u.

Let δ_t be the change of v in step t and S_t the sum of σ_1 to σ_t. The sum of the iterates σ_t v_t
after T steps is then S_T v_T - sum_t δ_t S_{t-1}; ``m`` adds up the last terms, -δ_t S_{t-1}.
Intercepts are not scaled: m adds up themselves.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from hemiola.kernels import _dense, _sparse
from hemiola.kernels._compile import FAST, compiled
from hemiola.kernels._steps import intercept_step, scale_at, shrinkage, slopes, step_at, truncated
from hemiola.kernels.rows import Sparse


@compiled
def _truncate(V, j, by):
    for c in range(V.shape[1]):
        V[j, c] = truncated(V[j, c], V.dtype.type(by))


@compiled
def _change(V, j, z, a, m, before):
    """V_j -= a z, noted in m."""
    for c in range(z.shape[0]):
        change = V.dtype.type(a * z[c])
        V[j, c] -= change
        if m.shape[0]:
            m[j, c] += before * change


def one_row(table, i, V, scale, z, u, debt):
    """Truncate what row i uses; z = its outputs."""
    raise NotImplementedError("compiled only")


def change_row(table, i, V, z, gain, m, before):
    """The step on row i, given the slopes z."""
    raise NotImplementedError("compiled only")


@compiled
def _one_sparse(table, i, V, scale, z, u, debt):
    begin, end = table.indptr[i], table.indptr[i + 1]
    if debt.shape[0]:
        for k in range(begin, end):
            j = table.indices[k]
            _truncate(V, j, u - debt[j])
            debt[j] = u
    _sparse.scores(table.indices, table.values, begin, end, V, scale, z)


@compiled
def _one_dense(table, i, V, scale, z, u, debt):
    for j in range(debt.shape[0]):
        _truncate(V, j, u - debt[j])
        debt[j] = u
    _dense.scores(table.X[i], V, scale, z)


@compiled
def _change_sparse(table, i, V, z, gain, m, before):
    for k in range(table.indptr[i], table.indptr[i + 1]):
        _change(V, table.indices[k], z, gain * table.values[k], m, before)


@compiled
def _change_dense(table, i, V, z, gain, m, before):
    for j in range(table.X.shape[1]):
        _change(V, j, z, gain * table.X[i, j], m, before)


@overload(one_row, jit_options={"fastmath": FAST})
def _one_row(table, i, V, scale, z, u, debt):
    if table.instance_class is Sparse:
        return lambda table, i, V, scale, z, u, debt: _one_sparse(table, i, V, scale, z, u, debt)
    return lambda table, i, V, scale, z, u, debt: _one_dense(table, i, V, scale, z, u, debt)


@overload(change_row, jit_options={"fastmath": FAST})
def _change_row(table, i, V, z, gain, m, before):
    if table.instance_class is Sparse:
        return lambda table, i, V, z, gain, m, before: _change_sparse(
            table, i, V, z, gain, m, before
        )
    return lambda table, i, V, z, gain, m, before: _change_dense(table, i, V, z, gain, m, before)


@compiled
def traced_pass(table, loss, blocks, size, n, V, pace, l1, debt, m, sums):
    """All blocks in order, from t = 0. ``debt`` (p,) and ``m`` (p + 1, C) start at 0; either may be
    empty. The sum of the iterates w (p + 1, C) is added to ``sums``."""
    p, s = V.shape[0] - 1, table.s
    z = np.empty(V.shape[1], V.dtype)
    scale, shrink, one = scale_at(pace, 0.0), shrinkage(pace), V.dtype.type(1)
    t, u, total = 0.0, 0.0, 0.0
    for b in blocks:
        for i in range(b * size, min((b + 1) * size, n)):
            one_row(table, i, V, scale, z, u, debt)
            slopes(loss, z, table.y[i], one)
            if s.shape[0]:
                z *= s[i]
            after, rate, gain, following = step_at(pace, t, scale, shrink)
            change_row(table, i, V, z, gain, m, total)
            for c in range(z.shape[0]):
                if pace.bias != 0.0:
                    V[p, c] -= V.dtype.type(intercept_step(pace, t, rate) * z[c])
                if m.shape[0]:
                    m[p, c] += V[p, c]
            u += gain * l1
            total += after
            t += pace.stride
            scale = following
    for j in range(debt.shape[0]):
        _truncate(V, j, u - debt[j])
    for j in range(m.shape[0]):
        for c in range(V.shape[1]):
            sums[j, c] += m[j, c] if j == p else total * V[j, c] + m[j, c]
