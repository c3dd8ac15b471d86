"""Coordinate descent for a quadratic with an elastic-net penalty."""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True)
def elastic_net(G, b, l1, l2, x, tolerance, passes):
    """x <- argmin x'Gx/2 - b'x + sum_j l1_j |x_j| + l2_j x_j^2 / 2, from x and in place.

    Friedman, Hastie, Tibshirani, Journal of Statistical Software 33(1), 2010, covariance updates.
    Ends when no coordinate moves the quadratic's gradient by more than ``tolerance``, or after so
    many ``passes``.
    """
    for _ in range(passes):
        largest = 0.0
        for j in range(x.shape[0]):
            bend = G[j, j] + l2[j]
            if bend == 0.0:
                continue
            pull = b[j]
            for k in range(x.shape[0]):
                pull -= G[j, k] * x[k]
            pull += G[j, j] * x[j]
            size = abs(pull) - l1[j]
            new = 0.0 if size <= 0.0 else (size if pull > 0 else -size) / bend
            largest = max(largest, bend * abs(new - x[j]))
            x[j] = new
        if largest <= tolerance:
            break
