"""Compiled SGD for matrix factorisation by threads that share the factors.

``parts[bounds[b P + p]:bounds[b P + p + 1]]`` of wave b are core p's; a barrier ends each wave.
One core with one wave is plain serial SGD, and several cores with one wave are Hogwild!: whether
cores meet in a parameter is up to the waves. All use the same machine code, so equal sequences of
updates give equal bits.

A rating is (user u, item v, z). Row u of ``L`` holds the user's r factors and then its bias, row v
of ``R`` the item's. Both rows change by the gradient at their old values,

    e = mean + b_u + b_v + L_u . R_v - z
    L_u -= lr (e R_v + l2 L_u),  R_v -= lr (e L_u + l2 R_v),  b -= lr (e + l2 b)
"""

from __future__ import annotations

from numba import njit

from hemiola.kernels.barrier import meet

_FAST = {"reassoc", "contract", "arcp", "nsz"}


@njit(nogil=True, cache=True, fastmath=_FAST)
def _update(L, R, u, v, z, mean, lr, l2):
    r = L.shape[1] - 1
    e = mean - z
    for k in range(r):
        e += L[u, k] * R[v, k]
    e += L[u, r] + R[v, r]
    for k in range(r):
        left, right = L[u, k], R[v, k]
        L[u, k] = left - lr * (e * right + l2 * left)
        R[v, k] = right - lr * (e * left + l2 * right)
    L[u, r] -= lr * (e + l2 * L[u, r])
    R[v, r] -= lr * (e + l2 * R[v, r])


@njit(nogil=True, cache=True, fastmath=_FAST)
def waves(core, cores, counter, order, bounds, users, items, z, L, R, mean, lr, l2):
    """The share of one core in the waves ``order``, one after another."""
    for b in order:
        for s in range(bounds[b * cores + core], bounds[b * cores + core + 1]):
            _update(L, R, users[s], items[s], z[s], mean, lr, l2)
        meet(counter, cores)
