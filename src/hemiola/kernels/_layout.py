"""Compiled loops that lay rows out anew."""

from __future__ import annotations

import numpy as np

from hemiola.kernels._compile import compiled


@compiled
def count_features(indices, counts):
    """counts[j] = entries of feature j."""
    for k in range(indices.shape[0]):
        counts[indices[k]] += 1


@compiled
def lay_out(indptr, indices, values, order, rank, to_indptr, to_indices, to_values):
    """Copy the rows in ``order``, with every feature by its rank."""
    at = 0
    for i in range(order.shape[0]):
        to_indptr[i] = at
        for k in range(indptr[order[i]], indptr[order[i] + 1]):
            to_indices[at] = rank[indices[k]]
            to_values[at] = values[k]
            at += 1
    to_indptr[order.shape[0]] = at


@compiled
def squares_and_reach(indptr, indices, values, s, squares, reach):
    """For each feature j the sums over rows of x_j^2 and of |x_j| |x|_1 (with the constant 1)."""
    for i in range(indptr.shape[0] - 1):
        total = 1.0
        for k in range(indptr[i], indptr[i + 1]):
            total += abs(values[k])
        weight = s[i] if s.shape[0] else 1.0
        for k in range(indptr[i], indptr[i + 1]):
            x = abs(values[k])
            squares[indices[k]] += weight * x * x
            reach[indices[k]] += weight * x * total
        reach[reach.shape[0] - 1] += weight * total
        squares[squares.shape[0] - 1] += weight


def ranks(counts):
    """Features by falling frequency (p,), ties in order; and the rank of each feature (p,)."""
    names = np.argsort(-counts, kind="stable")
    rank = np.empty(len(names), dtype=np.uint32)
    rank[names] = np.arange(len(names), dtype=np.uint32)
    return names, rank
