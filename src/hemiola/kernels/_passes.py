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
def _merge(k, first, last, shift, v, seen, sums, share):
    """Publish the thread's own changes of first <= j < last and take in those of others. Number j
    of the merged weights is number j + ``shift`` of v."""
    mine, saw, weights = sums[k, first:last], seen[first:last], v[first + shift : last + shift]
    shares = share[first + shift : last + shift]
    for j in range(last - first):  # plain loops over flat arrays: eight and more at a time
        mine[j] += shares[j] * (weights[j] - saw[j] - mine[j])
    saw[:] = 0.0
    for i in range(sums.shape[0]):
        if i != k:
            theirs = sums[i, first:last]
            for j in range(last - first):
                saw[j] += theirs[j]
    for j in range(last - first):
        weights[j] = mine[j] + saw[j]


@compiled
def begin_replica(k, V, w, seen):
    """V (p + 1, C) as the model w."""
    v = V.reshape(-1)
    bias, m = v.shape[0] - V.shape[1], seen.shape[0] - V.shape[1]
    for j in range(v.shape[0]):
        v[j] = w[j if j < bias else w.shape[0] - v.shape[0] + j]
    for j in range(seen.shape[0]):
        seen[j] = 0.0 if k == 0 else v[j if j < m else j - seen.shape[0] + v.shape[0]]


@compiled
def block_of_replica(
    table, loss, first, last, V, pace, t, far, k, seen, sums, share, ends, periods, rows
):
    """The rows from ``first`` to before ``last``, the ``rows``-th and next ones of this pass by
    thread k, and the merges that are due after them."""
    v = V.reshape(-1)
    step_rows(table, loss, first, last, V, pace, t, v[:0], np.empty((0, V.shape[1])), far)
    begin, d = 0, seen.shape[0]
    for i in range(ends.shape[0]):
        if (rows + last - first) // periods[i] > rows // periods[i]:
            _merge(k, begin, ends[i], 0, v, seen, sums, share)
            if i == 0:
                _merge(k, d - V.shape[1], d, v.shape[0] - d, v, seen, sums, share)
        begin = ends[i]


@compiled
def end_replica(k, V, seen, sums, share):
    """Publish everything that is merged."""
    v, d = V.reshape(-1), seen.shape[0]
    _merge(k, 0, d - V.shape[1], 0, v, seen, sums, share)
    _merge(k, d - V.shape[1], d, v.shape[0] - d, v, seen, sums, share)


@compiled
def tiered_pass(
    table, loss, blocks, size, n, w, V, pace, t, far, k, seen, sums, share, ends, periods
):
    """All blocks in order, on a replica V (p + 1, C) of the model w by thread ``k``.

    Merged are the first m weights and the intercepts, the last C: d in all. ``seen`` (d,) what V
    holds of the others' changes; ``sums`` (K, d) the published changes of each thread, of which
    thread 0's begin as the model; ``share`` ((p + 1) C,) how much of a change is published; tier i
    ends before weight ``ends[i]`` and is merged every ``periods[i]`` rows, the intercepts with the
    first tier.
    """
    begin_replica(k, V, w, seen)
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
def collect(first, last, scale, w, replicas, sums, share, outputs):
    """The model w after a pass, of replica weights first <= j < last; ``scale`` is σ.

    Merged weights are the sum of what all threads published. Of the others the shares of all
    changes are added up: ``replicas`` (K, ...) hold each thread's weights, flat.
    """
    threads, merged = sums.shape[0], sums.shape[1] - outputs
    bias = share.shape[0] - outputs
    for j in range(first, last):
        at = j if j < merged else j - share.shape[0] + sums.shape[1]
        if j < merged or j >= bias:
            x = sums[0, at]
            for k in range(1, threads):
                x += sums[k, at]
        else:
            x = w[j]
            change = -threads * x
            for k in range(threads):
                change += replicas[k, j]
            x += share[j] * change
        if j < bias:
            w[j] = scale * x
        else:
            w[w.shape[0] - share.shape[0] + j] = x
