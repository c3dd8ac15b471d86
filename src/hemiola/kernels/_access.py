"""Compiled passes over the rows of a matrix, sparse or dense.

A matrix is three arrays: row pointers, feature numbers and values. A dense one has no pointers, no
numbers, and its rows one after another. ``rows`` are the rows of interest, nothing: all. Loops over
a row are written out wherever they are needed: arrays that are handed on to functions have their
references counted, which would cost more than the row.
"""

from __future__ import annotations

import math

import numpy as np

from hemiola.kernels._compile import compiled

_ONE = np.uint64(1)


@compiled
def scores(indptr, indices, values, rows, w, first, z):
    """z[i] = x_i · w, from entry ``first`` on; w is longer than x_i by one."""
    p = np.uint64(w.shape[0] - 1)
    for i in range(np.uint64(z.shape[0])):
        row = np.uint64(rows[i + first]) if rows.shape[0] else i + np.uint64(first)
        total = w.dtype.type(0)
        if indptr.shape[0]:
            for k in range(indptr[row], indptr[row + _ONE]):
                total += values[k] * w[indices[k]]
        else:
            start = row * p
            for j in range(p):
                total += values[start + j] * w[j]
        z[i] = total


@compiled
def weighted_sum(indptr, indices, values, rows, weights, w):
    """w = sum_i weights[i] x_i; w is longer than x_i by one."""
    p = np.uint64(w.shape[0] - 1)
    w[:] = 0
    for i in range(np.uint64(weights.shape[0])):
        row = np.uint64(rows[i]) if rows.shape[0] else i
        a = weights[i]
        if a == 0.0:
            continue
        if indptr.shape[0]:
            for k in range(indptr[row], indptr[row + _ONE]):
                w[indices[k]] += a * values[k]
        else:
            start = row * p
            for j in range(p):
                w[j] += a * values[start + j]


@compiled
def square_norms(indptr, indices, values, rows, p, norms):
    """norms[i] = |x_i|^2, of rows of p features."""
    for i in range(np.uint64(norms.shape[0])):
        row = np.uint64(rows[i]) if rows.shape[0] else i
        start = indptr[row] if indptr.shape[0] else row * np.uint64(p)
        end = indptr[row + _ONE] if indptr.shape[0] else start + np.uint64(p)
        total = 0.0
        for k in range(start, end):
            total += values[k] * values[k]
        norms[i] = total


@compiled
def lengths_and_squares(indptr, indices, values, lengths, squares):
    """lengths[i] = |x_i|; squares[j] += x_ij^2 over all rows."""
    p = np.uint64(squares.shape[0])
    for i in range(np.uint64(lengths.shape[0])):
        start = indptr[i] if indptr.shape[0] else i * p
        end = indptr[i + _ONE] if indptr.shape[0] else start + p
        total = 0.0
        for k in range(start, end):
            square = values[k] * values[k]
            total += square
            squares[indices[k] if indptr.shape[0] else k - start] += square
        lengths[i] = math.sqrt(total)


@compiled
def stretch(values, indices, factor):
    """values *= factor, by feature"""
    for k in range(values.shape[0]):
        values[k] *= factor[indices[k]]
