"""How samples are dealt to workers. Index arrays only: the data stay where they are."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from hemiola.component import component
from hemiola.errors import DataError
from hemiola.types import Array

Epochs = Annotated[int, Ge(1)] | None


@component
class ShuffleSplit:
    """Permute once, cut into K consecutive parts whose sizes differ by at most one.

    The permutation does not depend on K, only the cut does. ``reshuffle_every=R`` deals anew after
    every R epochs (global reshuffle); within an epoch's order every worker reshuffles its own shard
    anyway (local reshuffle, :class:`~hemiola.algorithm.MiniBatch`).

    >>> parts = ShuffleSplit().split(np.zeros(5), 2, np.random.default_rng(0))
    >>> [len(part) for part in parts], sorted(np.concatenate(parts).tolist())
    ([3, 2], [0, 1, 2, 3, 4])
    """

    reshuffle_every: Epochs = None

    def split(self, y: Array, workers: int, rng: np.random.Generator) -> list[Array]:
        return np.array_split(rng.permutation(len(y)), workers)


@component
class BySpeed:
    """Permute once, cut into parts in proportion to the workers' ``speeds``; equal ones if None.

    A worker that is twice as fast gets twice as many samples, so that all pass through theirs in
    the same time and no sample counts less because its worker is slow.

    >>> parts = BySpeed((1.0, 0.5)).split(np.zeros(6), 2, np.random.default_rng(0))
    >>> [len(part) for part in parts], sorted(np.concatenate(parts).tolist())
    ([4, 2], [0, 1, 2, 3, 4, 5])
    """

    speeds: tuple[Annotated[float, Gt(0)], ...] | None = None
    reshuffle_every: Epochs = None

    def split(self, y: Array, workers: int, rng: np.random.Generator) -> list[Array]:
        order = rng.permutation(len(y))
        if self.speeds is None:
            return np.array_split(order, workers)
        if len(self.speeds) != workers:
            raise DataError(f"speeds name {len(self.speeds)} workers, but there are {workers}.")
        spare = len(y) - workers  # everybody gets one sample at least
        ends = np.cumsum(self.speeds) / sum(self.speeds) * spare
        return np.split(order, np.rint(ends[:-1]).astype(int) + np.arange(1, workers))


@component
class RandomSampling:
    """Each worker gets samples drawn independently, uniformly, with replacement from all.

    ``capacity`` is the shard size m_k, one number for all workers or one for each; by default n/K
    rounded up. Shards may overlap and repeat samples; of n draws about 1/e of the samples stay
    unused.
    """

    capacity: Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(1)], ...] | None = None
    reshuffle_every: Epochs = None

    def split(self, y: Array, workers: int, rng: np.random.Generator) -> list[Array]:
        capacity = self.capacity or -(-len(y) // workers)
        sizes = (capacity,) * workers if isinstance(capacity, int) else capacity
        if len(sizes) != workers:
            raise DataError(f"capacity names {len(sizes)} workers, but there are {workers}.")
        return [rng.integers(0, len(y), size=m) for m in sizes]


@component
class Contiguous:
    """Cut the samples as they stand. Sorted data give skewed shards: that may be the point."""

    reshuffle_every: Epochs = None

    def split(self, y: Array, workers: int, rng: np.random.Generator) -> list[Array]:
        return np.array_split(np.arange(len(y)), workers)


@component
class ByLabel:
    """Non-IID: sort by label, cut into K * ``pieces`` parts, deal each worker ``pieces``.

    With equal classes a worker sees about ``pieces`` labels. McMahan et al., AISTATS
    2017, section 3.
    """

    pieces: Annotated[int, Ge(1)] = 2
    reshuffle_every: Epochs = None

    def split(self, y: Array, workers: int, rng: np.random.Generator) -> list[Array]:
        if len(y) < workers * self.pieces:
            raise DataError(
                f"{len(y)} samples cannot be cut into {workers * self.pieces} pieces; "
                "use fewer workers or fewer pieces."
            )
        shuffled = rng.permutation(len(y))
        by_label = shuffled[np.argsort(y[shuffled], kind="stable")]
        parts = np.array_split(by_label, workers * self.pieces)
        deal = rng.permutation(len(parts)).reshape(workers, self.pieces)
        return [np.concatenate([parts[i] for i in row]) for row in deal]


@component
class Dirichlet:
    """Non-IID: each class is spread over the workers in proportions drawn from Dirichlet(alpha).

    Small ``alpha`` gives each worker few classes, large ``alpha`` approaches IID. A worker left
    empty takes one sample from the largest shard. Hsu, Qi, Brown, arXiv 1909.06335.
    """

    alpha: Annotated[float, Gt(0)] = 0.5
    reshuffle_every: Epochs = None

    def split(self, y: Array, workers: int, rng: np.random.Generator) -> list[Array]:
        parts: list[list[Array]] = [[] for _ in range(workers)]
        for label in np.unique(y):
            rows = rng.permutation(np.flatnonzero(y == label))
            share = rng.dirichlet(np.full(workers, self.alpha))
            cuts = np.round(np.cumsum(share)[:-1] * len(rows)).astype(int)
            for part, piece in zip(parts, np.split(rows, cuts), strict=True):
                part.append(piece)
        shards = [np.concatenate(part) for part in parts]
        for k in range(workers):
            if not len(shards[k]):
                largest = max(range(workers), key=lambda j: len(shards[j]))
                shards[k], shards[largest] = shards[largest][:1], shards[largest][1:]
        return shards


@component
class Whole:
    """Every worker may draw from all samples: for memory that is shared. Not disjoint."""

    reshuffle_every: Epochs = None

    def split(self, y: Array, workers: int, rng: np.random.Generator) -> list[Array]:
        return [np.arange(len(y))] * workers


@component
class FeatureSplit:
    """The model is split, not the samples: every worker has all rows, and some of the features.

    Consecutive features in parts whose sizes differ by at most one. Not disjoint in the samples.

    >>> [FeatureSplit.columns(5, 2, worker).tolist() for worker in (0, 1)]
    [[0, 1, 2], [3, 4]]
    """

    reshuffle_every: Epochs = None

    def split(self, y: Array, workers: int, rng: np.random.Generator) -> list[Array]:
        return [np.arange(len(y))] * workers

    @staticmethod
    def columns(n_features: int, workers: int, worker: int) -> Array:
        """The features (p_j,) of a worker: none, if there are fewer than workers before it."""
        return np.array_split(np.arange(n_features), workers)[worker]
