"""Compiled: which rows share features."""

from __future__ import annotations

from hemiola.kernels._compile import compiled


@compiled
def most_neighbours(indptr, indices, rows, others, mark):
    """The most of ``others`` that share a feature with one of ``rows``; ``mark`` (p,) holds 0."""
    most = 0
    for q in range(rows.shape[0]):
        i = rows[q]
        for k in range(indptr[i], indptr[i + 1]):
            mark[indices[k]] = q + 1
        neighbours = 0
        for o in others:
            for k in range(indptr[o], indptr[o + 1]):
                if mark[indices[k]] == q + 1:
                    neighbours += 1
                    break
        most = max(most, neighbours)
    return most
