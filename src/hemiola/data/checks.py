"""Compiled passes over arrays that come from outside: one look at everything before it is trusted.

Kernels that train look nothing up twice and check no index, so nothing unchecked may reach them.
The passes hold no lock, and bring the pages of a memory map into memory while they are at it.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def sound_dense(X):
    """Whether all numbers (n, p) are finite."""
    for i in range(X.shape[0]):
        total = X.dtype.type(0)
        for j in range(X.shape[1]):
            total += X[i, j] * X.dtype.type(0)  # 0, or NaN for what is not finite
        if total != 0:
            return False
    return True


@njit(nogil=True, cache=True)
def sound_csr(values, indices, indptr, width):
    """Whether a CSR matrix is one: rows in order, indices ascending and in range, finite values."""
    n = indptr.shape[0] - 1
    if indptr[0] != 0 or indptr[n] != values.shape[0] or values.shape[0] != indices.shape[0]:
        return False
    for i in range(n):
        if indptr[i + 1] < indptr[i] or indptr[i + 1] > values.shape[0]:
            return False
        previous = -1
        for a in range(indptr[i], indptr[i + 1]):
            if indices[a] <= previous or indices[a] >= width or not np.isfinite(values[a]):
                return False
            previous = indices[a]
    return True


@njit(nogil=True, cache=True)
def touch(data):
    """Read one byte of every page, so that nobody waits for it later."""
    total = 0
    for i in range(0, data.shape[0], 4096):
        total += data[i]
    return total
