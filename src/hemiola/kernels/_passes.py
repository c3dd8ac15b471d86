"""Compiled passes of one thread over blocks of rows.

``table``   :class:`~hemiola.kernels.rows.Sparse` or :class:`~hemiola.kernels.rows.Dense`;
``loss``    its number in :mod:`hemiola.kernels._steps`;
``blocks``  numbers of blocks of ``size`` rows, of ``n`` rows in all;
``V``       (p + 1, C), in place; w = σ V but for the last row, which holds the intercepts;
``pace``    :class:`~hemiola.kernels._steps.Pace`; ``t`` the steps that all threads did before;
``pull``    (p,) how much a step of 1 shrinks v_j when a row uses j; empty: nothing shrinks;
``told``    (p + 1, C) float64: every change is added to it; empty: none is;
``far``     whether V is larger than the cache, so that it should be fetched ahead of use.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from hemiola.kernels._compile import FAST, compiled
from hemiola.kernels._dense import dense_rows
from hemiola.kernels._sparse import sparse_rows
from hemiola.kernels.rows import Sparse


def step_rows(table, loss, first, last, V, pace, t, pull, told, far):
    """SGD over the rows from ``first`` to before ``last``."""
    raise NotImplementedError("compiled only")


@overload(step_rows, jit_options={"fastmath": FAST})
def _step_rows(table, loss, first, last, V, pace, t, pull, told, far):
    if table.instance_class is Sparse:
        return lambda table, loss, first, last, V, pace, t, pull, told, far: sparse_rows(
            table, loss, first, last, V, pace, t, pull, told, far
        )
    return lambda table, loss, first, last, V, pace, t, pull, told, far: dense_rows(
        table, loss, first, last, V, pace, t, pull, told, far
    )


@compiled
def block_pass(table, loss, blocks, size, n, V, pace, t, pull, told, far):
    """All blocks in order."""
    for b in blocks:
        last = min((b + 1) * size, n)
        step_rows(table, loss, b * size, last, V, pace, t, pull, told, far)
        t += pace.stride * (last - b * size)


@compiled
def _merge(k, first, last, v, seen, sums, share):
    """Publish the thread's own changes of v_j, first <= j < last, and take in those of others."""
    for j in range(first, last):
        mine = sums[k, j]
        mine += share[j] * (v[j] - seen[j] - mine)
        others = v.dtype.type(0)
        for i in range(sums.shape[0]):
            if i != k:
                others += sums[i, j]
        sums[k, j] = mine
        seen[j] = others
        v[j] = mine + others


@compiled
def begin_replica(k, V, seen, sums):
    """V (p + 1, C) as the model that ``sums[0]`` holds."""
    v = V.reshape(-1)
    for j in range(v.shape[0]):
        v[j] = sums[0, j]
        seen[j] = 0.0 if k == 0 else v[j]


@compiled
def block_of_replica(
    table, loss, first, last, V, pace, t, far, k, seen, sums, share, ends, periods, rows
):
    """The rows from ``first`` to before ``last``, the ``rows``-th and next ones of this pass by
    thread k, and the merges that are due after them."""
    v = V.reshape(-1)
    bias = v.shape[0] - V.shape[1]
    step_rows(table, loss, first, last, V, pace, t, v[:0], np.empty((0, V.shape[1])), far)
    begin = 0
    for i in range(ends.shape[0]):
        if (rows + last - first) // periods[i] > rows // periods[i]:
            _merge(k, begin, ends[i], v, seen, sums, share)
            if i == 0:
                _merge(k, bias, v.shape[0], v, seen, sums, share)
        begin = ends[i]


@compiled
def end_replica(k, V, seen, sums, share):
    """Publish everything."""
    _merge(k, 0, seen.shape[0], V.reshape(-1), seen, sums, share)


@compiled
def tiered_pass(table, loss, blocks, size, n, V, pace, t, far, k, seen, sums, share, ends, periods):
    """All blocks in order, on a replica V of the model by thread ``k``.

    ``seen`` (d,) what V holds of the others' changes; ``sums`` (K, d) the published changes of each
    thread, of which thread 0's begin as the model; ``share`` (d,) how much of a change is
    published; tier i ends before v_j with j = ``ends[i]`` and is merged every ``periods[i]`` rows;
    the intercepts, the last C weights, are merged with the first tier.
    """
    begin_replica(k, V, seen, sums)
    rows = 0
    for b in blocks:
        first, last = b * size, min((b + 1) * size, n)
        block_of_replica(
            table, loss, first, last, V, pace, t, far, k, seen, sums, share, ends, periods, rows
        )
        rows += last - first
        t += pace.stride * (last - first)
    end_replica(k, V, seen, sums, share)


@compiled
def collect(sums, scale, w, outputs):
    """w_j = scale times the sum of all threads' changes; ``sums`` hold the first weights of w and
    at last the intercepts, which are not scaled."""
    d = sums.shape[1]
    for j in range(d):
        x = sums[0, j]
        for i in range(1, sums.shape[0]):
            x += sums[i, j]
        if j < d - outputs:
            w[j] = scale * x
        else:
            w[w.shape[0] - d + j] = x
