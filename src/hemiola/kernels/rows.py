"""A data set laid out for compiled passes.

Three things decide how fast a pass over sparse rows is, once it is compiled:

* the rows are **shuffled once, in memory**, and then visited in random blocks of consecutive rows,
  so that they stream in instead of being fetched one by one;
* row pointers are ``uint64`` and feature numbers ``uint32``, which need no check for negative ones;
* features are **renumbered by frequency**, so that those which most rows use share few cache lines.

Weights are kept in this order too, as a (p + 1, C) matrix whose last row holds the intercepts
(C = 1 but for softmax). :meth:`Rows.inside` and :meth:`Rows.outside` translate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from hemiola.dataset import Dataset
from hemiola.rng import stream
from hemiola.types import Array

BLOCK = 256
"""Rows of a block at most: enough to stream, few enough to be random."""

_BLOCKS = 64  # at least, where there are that many rows


class Sparse(NamedTuple):
    """CSR rows: ``indptr`` (n + 1,) uint64, ``indices`` (nnz,) uint32, ``values`` (nnz,).

    ``y`` (n,) holds -1 and 1 for two classes, class numbers for softmax, else the real targets;
    ``s`` (n,) sample weights, or nothing when all samples count alike. All but the first two have
    the type of the values.
    """

    indptr: Array
    indices: Array
    values: Array
    y: Array
    s: Array


class Dense(NamedTuple):
    """Dense rows ``X`` (n, p), C-contiguous; ``y`` and ``s`` as in :class:`Sparse`."""

    X: Array
    y: Array
    s: Array


@dataclass(frozen=True, eq=False)
class Rows:
    """Shuffled rows of a data set.

    ``table``     what kernels take;
    ``order``     (n,) the sample that each row was;
    ``features``  (p,) the feature behind each rank; None when they have kept their places (dense);
    ``counts``    (p,) the rows that use the feature of each rank;
    ``outputs``   C, columns of the weights.

    >>> from hemiola.dataset import make_dataset
    >>> data = make_dataset(sparse.csr_array([[0.0, 1.0], [2.0, 3.0]]), [0, 1])
    >>> rows = Rows.of(data, seed=0)
    >>> rows.features.tolist(), rows.counts.tolist()
    ([1, 0], [2, 1])
    >>> rows.inside(np.array([10.0, 20.0, 30.0]))
    array([20., 10., 30.])
    """

    table: Sparse | Dense
    order: Array
    features: Array | None
    counts: Array
    outputs: int

    @classmethod
    def of(cls, data: Dataset, seed: int, loss: str = "logistic") -> Rows:
        """Lay out ``data`` in an order given by ``seed``, with targets for ``loss``.

        Entries of one row that name the same feature are added up.
        """
        order = stream(seed, "rows").permutation(len(data))
        y = _targets(data, loss)[order]
        s = np.empty(0, data.dtype) if data.weight is None else data.weight[order]
        outputs = data.n_classes if loss == "softmax" else 1
        if not data.is_sparse:
            counts = np.full(data.n_features, len(data))
            return cls(Dense(np.take(data.X, order, axis=0), y, s), order, None, counts, outputs)
        table, features, counts = _ranked(data.X, order, y, s)
        return cls(table, order, features, counts, outputs)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def n_features(self) -> int:
        return len(self.counts)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.table.y.dtype)

    @property
    def is_sparse(self) -> bool:
        return isinstance(self.table, Sparse)

    @property
    def entries(self) -> int:
        """Stored values: of sparse rows their non-zeros."""
        return int((self.table.values if isinstance(self.table, Sparse) else self.table.X).size)

    @property
    def used(self) -> int:
        """Features that some row uses; they have the lowest ranks."""
        return int(np.count_nonzero(self.counts))

    def inside(self, w: Array) -> Array:
        """Weights (d,) in the objective's layout, as kernels have them: a new flat array."""
        W = w.reshape(-1, self.outputs)
        if self.features is None:
            return W.astype(self.dtype).ravel()
        return np.concatenate([W[self.features], W[-1:]]).astype(self.dtype).ravel()

    def outside(self, v: Array) -> Array:
        """The inverse of :meth:`inside`: a new flat array (d,)."""
        V = v.reshape(-1, self.outputs)
        if self.features is None:
            return V.copy().ravel()
        W = np.empty_like(V)
        W[self.features] = V[:-1]
        W[-1] = V[-1]
        return W.ravel()

    def block_size(self, most: int = BLOCK) -> int:
        """Rows of a block: ``most``, or less, so that there are at least 64 blocks."""
        return int(max(1, min(most, len(self) // _BLOCKS)))

    def blocks(self, seed: int, epoch: int, size: int) -> Array:
        """The numbers of all blocks of ``size`` rows (the last may be short), in this epoch's
        random order. Block b holds the rows from b * size on."""
        return stream(seed, "blocks", epoch).permutation(-(-len(self) // size))

    def spread(self) -> tuple[Array, Array]:
        """Of each weight (p + 1,): the mean of x_j^2, and of |x_j| |x|_1, a diagonal above X'X / n.

        The constant feature of the intercept counts as 1 and comes last.
        """
        squares, reach = np.zeros(self.n_features + 1), np.zeros(self.n_features + 1)
        if isinstance(self.table, Dense):
            weight = self.table.s if self.table.s.size else np.ones(1)
            size = np.abs(self.table.X)
            total = (1 + size.sum(axis=1)) * weight
            squares[:-1] = np.square(size).T @ np.broadcast_to(weight, len(self))
            reach[:-1], reach[-1] = size.T @ total, total.sum()
            squares[-1] = np.broadcast_to(weight, len(self)).sum()
        else:
            from hemiola.kernels import _layout

            _, indices, values, _, s = self.table
            _layout.squares_and_reach(self.table.indptr, indices, values, s, squares, reach)
        return squares / len(self), reach / len(self)


def _targets(data: Dataset, loss: str) -> Array:
    if loss in ("logistic", "hinge"):
        return (2 * data.y - 1).astype(data.dtype)
    return data.y.astype(data.dtype)


def _ranked(X: Any, order: Array, y: Array, s: Array) -> tuple[Sparse, Array, Array]:
    from hemiola.kernels import _layout

    if not X.has_canonical_format:
        X = sparse.csr_array((X.data.copy(), X.indices.copy(), X.indptr.copy()), shape=X.shape)
        X.sum_duplicates()
    counts = np.zeros(X.shape[1], dtype=np.int64)
    _layout.count_features(X.indices, counts)
    features, rank = _layout.ranks(counts)
    table = Sparse(
        np.empty(X.shape[0] + 1, np.uint64), np.empty(X.nnz, np.uint32), np.empty_like(X.data), y, s
    )
    _layout.lay_out(X.indptr, X.indices, X.data, order, rank, *table[:3])
    return table, features, counts[features]
