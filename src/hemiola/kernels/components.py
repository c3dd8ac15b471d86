"""Compiled parts of a plan without conflicts: components, their allocation, the order of execution.

A sequence of samples ``order`` (T,) is cut into batches. Sample j touches the parameters
``columns[starts[j]:starts[j + 1]]``. Positions of a batch count from 0, and a component is named by
the least position in it, so every way of finding components gives the same names.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_compile = njit(nogil=True, cache=True)


@_compile
def _root(parent, i):
    """The end of i's chain, which is halved on the way."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@_compile
def union_find(order, starts, columns, begin, end, owner, label):
    """``label[begin:end]`` = names of the components of the batch at these positions.

    ``owner[c]`` is a position that touches parameter c; positions before ``begin`` are left from
    earlier batches and do not count, so nothing has to be cleared.
    """
    parent = label[begin:end]
    for i in range(end - begin):
        parent[i] = i
        root = np.int64(i)
        j = order[begin + i]
        for a in range(starts[j], starts[j + 1]):
            c = columns[a]
            if owner[c] < begin:
                owner[c] = begin + i
                continue
            other = _root(parent, owner[c] - begin)
            if other < root:
                parent[root] = other
                root = other
            elif root < other:
                parent[other] = root
    for i in range(end - begin):  # chains lead to lower positions, which are done already
        parent[i] = parent[parent[i]]


@_compile
def label_batches(order, starts, columns, n_columns, batch, first, step, label):
    """Components of the batches number ``first``, ``first + step``, ..."""
    owner = np.full(n_columns, -1, np.int64)
    total = order.shape[0]
    for begin in range(first * batch, total, step * batch):
        union_find(order, starts, columns, begin, min(begin + batch, total), owner, label)


@_compile
def _largest_first(loads):
    """Numbers of the loads in descending order, equal ones as they come; a counting sort."""
    top = loads.max() if loads.shape[0] else 0
    place = np.zeros(top + 2, np.int64)
    for load in loads:
        place[top - load + 1] += 1
    for key in range(top + 1):
        place[key + 1] += place[key]
    ranked = np.empty(loads.shape[0], np.int64)
    for c in range(loads.shape[0]):
        key = top - loads[c]
        ranked[place[key]] = c
        place[key] += 1
    return ranked


@_compile
def allocate(loads, cores):
    """Largest first to the least loaded core (Graham 1969), ties to the lower number.

    Whole ``loads`` (m,) >= 0. Returns the core of each (m,) and what the cores have to do (P,).
    """
    busy = np.zeros(cores, np.int64)
    chosen = np.empty(loads.shape[0], np.int64)
    for c in _largest_first(loads):
        least = 0
        for p in range(1, cores):
            if busy[p] < busy[least]:
                least = p
        chosen[c] = least
        busy[least] += loads[c]
    return chosen, busy


@_compile
def _component_loads(label, load):
    """Loads of the components in the order of their names, and each position's component."""
    number = np.empty(label.shape[0], np.int64)
    count = 0
    for i in range(label.shape[0]):
        if label[i] == i:
            number[i] = count
            count += 1
        else:
            number[i] = number[label[i]]
    loads = np.zeros(count, np.int64)
    for i in range(label.shape[0]):
        loads[number[i]] += load[i]
    return loads, number


@_compile
def schedule_batches(label, load, batch, cores, first, step, position, bounds, busy, largest):
    """Deal components to cores in the batches number ``first``, ``first + step``, ...

    Core p of batch b executes ``position[bounds[b P + p]:bounds[b P + p + 1]]``, in increasing
    order; ``busy[b, p]`` is its load, ``largest[b]`` that of the batch's largest component.
    """
    total = label.shape[0]
    place = np.empty(cores + 1, np.int64)
    for begin in range(first * batch, total, step * batch):
        end = min(begin + batch, total)
        b = begin // batch
        loads, number = _component_loads(label[begin:end], load[begin:end])
        chosen, busy[b] = allocate(loads, cores)
        largest[b] = loads.max()
        place[:] = 0
        for i in range(end - begin):
            place[chosen[number[i]] + 1] += 1
        place[0] = begin
        for p in range(cores):
            bounds[b * cores + p] = place[p]
            place[p + 1] += place[p]
        for i in range(end - begin):
            p = chosen[number[i]]
            position[place[p]] = begin + i
            place[p] += 1
