"""Groups of workers of similar speed, and what a system of such groups will do.

The time model: a group's round takes as long as its slowest member, T_q = E[max_k (a_k + c_k)],
where a_k are the seconds that worker k computes for one piece of work and c_k those that its
messages take. Groups do not wait for each other, so

    updates/s = sum_q 1/T_q,   samples/s = sum_q B_q/T_q,   staleness of q = T_q sum_{r != q} 1/T_r

One group is synchronous training, a group a worker asynchronous training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

import numpy as np
from annotated_types import Ge

from hemiola.component import component
from hemiola.types import Array

Groups = tuple[tuple[int, ...], ...]
"""Who works together: each group's workers in rank order, groups in the order of their first."""

Samples = Sequence[Array]
"""Measured pieces of work, an array for every worker: (m_k, 2), seconds of computing (a) and of
messages (c)."""


@runtime_checkable
class Grouping(Protocol):
    """A rule that puts workers of similar speed together."""

    def groups(self, samples: Samples) -> Groups: ...


@component
class ByRatio:
    """Sort by time; a worker joins the open group while it takes at most ``ratio`` times as long as
    that group's *fastest* member, and opens a new group otherwise.

    To compare neighbours instead would chain: 1, 1.3, 1.69, ... would be one group.

    >>> ByRatio(1.4).groups([np.array([[t, 0.0]]) for t in (1.0, 5.0, 1.3, 1.69)])
    ((0, 2), (1,), (3,))
    """

    ratio: Annotated[float, Ge(1)] = 1.4

    def groups(self, samples: Samples) -> Groups:
        seconds = typical(samples).sum(axis=1)
        groups: list[list[int]] = []
        fastest = 0.0
        for worker in np.argsort(seconds, kind="stable"):
            if not groups or seconds[worker] > self.ratio * fastest:
                groups.append([])
                fastest = seconds[worker]
            groups[-1].append(int(worker))
        return in_order(groups)


@component
class ByKMeans:
    """Two-dimensional k-means on the logarithms of computing and message time.

    ``count`` groups; None takes the number that trains on the most samples a second while no group
    is expected to be staler than ``max_staleness``.
    """

    count: Annotated[int, Ge(1)] | None = None
    max_staleness: Annotated[float, Ge(0)] = 4.0

    def groups(self, samples: Samples) -> Groups:
        if self.count is not None:
            return self._cluster(samples, min(self.count, len(samples)))
        best, most = self._cluster(samples, 1), 0.0
        for count in range(1, len(samples) + 1):
            groups = self._cluster(samples, count)
            expected = forecast(samples, groups)
            if max(expected.staleness) <= self.max_staleness and expected.samples > most * 1.001:
                best, most = groups, expected.samples
        return best

    def _cluster(self, samples: Samples, count: int) -> Groups:
        from sklearn.cluster import KMeans

        points = np.log(np.maximum(typical(samples), 1e-9))
        distinct = len(np.unique(points, axis=0))
        labels = KMeans(min(count, distinct), n_init=4, random_state=0).fit(points).labels_
        return in_order([np.flatnonzero(labels == q).tolist() for q in np.unique(labels)])


def in_order(groups: Sequence[Sequence[int]]) -> Groups:
    """Each group sorted, and groups by their first workers."""
    return tuple(sorted(tuple(sorted(int(k) for k in group)) for group in groups if group))


def typical(samples: Samples) -> Array:
    """(K, 2): each worker's median seconds of computing and of messages.

    >>> typical([np.array([[1.0, 0.0], [2.0, 1.0], [9.0, 1.0]])])
    array([[2., 1.]])
    """
    return np.array([np.median(piece, axis=0) for piece in samples])


class Forecast(NamedTuple):
    """What the time model expects: ``seconds`` of a round and ``staleness``, one for each group;
    ``updates`` and ``samples`` a second of all together."""

    seconds: list[float]
    staleness: list[float]
    updates: float
    samples: float


def forecast(samples: Samples, groups: Groups, batch: Sequence[float] | None = None) -> Forecast:
    """Apply the time model. ``batch``: samples in a piece of work, for each worker; 1 if None.

    >>> half = [np.array([[t, 0.0]]) for t in (1.0, 1.0, 2.0, 2.0)]
    >>> forecast(half, ((0, 1), (2, 3)))
    Forecast(seconds=[1.0, 2.0], staleness=[0.5, 2.0], updates=1.5, samples=3.0)
    """
    sizes = [1.0] * len(samples) if batch is None else batch
    seconds = [expected_maximum([samples[k].sum(axis=1) for k in group]) for group in groups]
    return expect(seconds, [sum(sizes[k] for k in group) for group in groups])


def expect(seconds: Sequence[float], sizes: Sequence[float]) -> Forecast:
    """What groups do whose rounds take so many seconds and pass through so many samples."""
    rates = [1 / t if t else math.inf for t in seconds]
    return Forecast(
        list(seconds),
        [t * (sum(rates) - rate) for t, rate in zip(seconds, rates, strict=True)],
        sum(rates),
        sum(size * rate for size, rate in zip(sizes, rates, strict=True)),
    )


@component
class Measured:
    """What was measured before a run: each worker's typical seconds of computing and of messages
    for a piece of work, and how long each group's round is expected to take."""

    compute: tuple[float, ...]
    exchange: tuple[float, ...]
    rounds: tuple[float, ...]

    @property
    def seconds(self) -> Array:
        """(K, 2), as :func:`typical` gives it."""
        return np.column_stack([self.compute, self.exchange])


def measured(samples: Samples, groups: Groups) -> Measured:
    """Sum measured pieces of work up."""
    compute, exchange = typical(samples).T.tolist()
    return Measured(tuple(compute), tuple(exchange), tuple(forecast(samples, groups).seconds))


def expected_maximum(samples: Sequence[Array]) -> float:
    """E[max_k X_k] of independent variables, each given by values that are equally likely.

    >>> expected_maximum([np.array([0.0, 1.0]), np.array([0.0, 1.0])])
    0.75
    """
    values = np.unique(np.concatenate(samples))
    below = np.ones(len(values))
    for piece in samples:
        below *= np.searchsorted(np.sort(piece), values, side="right") / len(piece)
    return float(values[-1] - (below[:-1] * np.diff(values)).sum())
