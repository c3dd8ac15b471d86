"""How much threads that share one vector would get in each other's way, from the data alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hemiola.kernels.rows import Rows, Sparse
from hemiola.kernels.sgd import FAR
from hemiola.rng import stream

EXACT = 10**8
"""Looks at features that an exact rho may cost."""

_ROWS, _OTHERS = 200, 20_000  # of a sampled rho

_NEAR, _DISTANT, _HANDOFF = 1.75, 5.5, 15.0  # ns an access: in the cache, beyond it; if taken over
_DENSE, _DENSE_HANDOFF = 0.7, 2.5


class Sparsity(NamedTuple):
    """The constants of Niu et al., of the features without the intercept.

    ``omega``    Ω, the most features of a sample;
    ``delta``    Δ, the share of the samples that use the most frequent feature;
    ``rho``      ρ, the largest share of the samples that share a feature with one sample, itself
                 included;
    ``sampled``  samples that ρ was looked for at; None: all.
    """

    omega: int
    delta: float
    rho: float
    sampled: int | None


def sparsity(rows: Rows, seed: int = 0, exact: int = EXACT) -> Sparsity:
    """Ω, Δ and ρ; ρ from a sample of the rows, and then too low if anything, where an exact one
    would cost more than ``exact`` looks.

    >>> from hemiola.dataset import make_dataset
    >>> from scipy.sparse import csr_array
    >>> X = csr_array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> sparsity(Rows.of(make_dataset(X, [0, 1, 1]), seed=0))
    Sparsity(omega=2, delta=0.6666666666666666, rho=0.6666666666666666, sampled=None)
    """
    n = len(rows)
    if not isinstance(rows.table, Sparse):
        return Sparsity(rows.n_features, 1.0, 1.0, None)
    from hemiola.kernels._conflicts import most_neighbours

    indptr, indices = rows.table.indptr, rows.table.indices
    omega, delta = int(np.diff(indptr).max()), float(rows.counts[0]) / n
    mark = np.zeros(rows.n_features, np.int64)
    everyone = np.arange(n)
    if n * rows.entries <= exact:
        most = most_neighbours(indptr, indices, everyone, everyone, mark)
        return Sparsity(omega, delta, most / n, None)
    rng = stream(seed, "sparsity")
    chosen = rng.choice(n, min(_ROWS, n), replace=False)
    others = rng.choice(n, min(_OTHERS, n), replace=False)
    most = most_neighbours(indptr, indices, chosen, others, mark)
    return Sparsity(omega, delta, most / len(others), len(chosen))


def contested_share(rows: Rows) -> float:
    """The share of all accesses to weights that hit one which a core keeps in its own cache, if the
    most frequent are kept: only those can be taken away by another core."""
    if not rows.is_sparse:
        return 1.0
    kept = max(1, FAR // (rows.dtype.itemsize * rows.outputs))
    return float(rows.counts[:kept].sum()) / max(rows.entries, 1)


def racing_speedup(rows: Rows, threads: int) -> float:
    """How much faster than one thread several are likely to be on one shared vector.

    An access costs what it costs alone and, with probability (K - 1) / K if it is contested, the
    time to take a cache line over from another core. The constants are nanoseconds measured on
    two cores; ratios travel better than times, and this is a ratio.
    """
    if not rows.is_sparse:
        alone, extra = _DENSE, _DENSE_HANDOFF
    else:
        size = rows.n_features * rows.outputs * rows.dtype.itemsize
        alone, extra = _NEAR if size <= FAR else _DISTANT, _HANDOFF
    return threads * alone / (alone + (threads - 1) / threads * extra * contested_share(rows))
