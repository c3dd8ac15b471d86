"""Large sparse sets for two classes, made up with the statistics that decide how fast kernels are.

What counts is how many weights there are, how often the frequent ones are used and how long rows
are; that is what each kind copies from the data that it is named after. Labels follow a planted
model, a tenth of them flipped. Feature numbers carry no order. The same arguments give the same
bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from hemiola.data.dtypes import float_dtype
from hemiola.dataset import Dataset, make_dataset
from hemiola.errors import OptionError, nearest
from hemiola.rng import stream
from hemiola.types import Array

_FLIPPED = 0.1


@dataclass(frozen=True)
class Kind:
    """``entries`` a row on average, spread by a log-normal of width ``spread``; a share ``skewed``
    of them by a power law, the j-th feature as often as 1 / j, the rest uniformly."""

    rows: int
    features: int
    entries: float
    spread: float
    skewed: float


KINDS = {
    "rcv1-like": Kind(700_000, 47_000, 73, 0.5, 1.0),
    "power-law": Kind(500_000, 50_000, 60, 0.0, 1.0),
    "kdd-like": Kind(1_000_000, 5_000_000, 30, 0.2, 0.5),
    "uniform": Kind(1_000_000, 5_000_000, 30, 0.0, 0.0),
}
"""In their full size: text, a plain power law, click logs, and no frequent features at all."""


def synthetic(
    name: str,
    rows: int | None = None,
    features: int | None = None,
    *,
    seed: int = 0,
    dtype: Any = np.float32,
) -> Dataset:
    """A sparse set of two classes: ``rcv1-like``, ``power-law``, ``kdd-like`` or ``uniform``.

    ``rows`` and ``features`` replace the full size. Rows have length 1 and positive values.

    >>> data = synthetic("kdd-like", rows=100, features=1000)
    >>> data.X.shape, data.is_sparse, data.n_classes
    ((100, 1000), True, 2)
    """
    if name not in KINDS:
        raise OptionError(f"there is no synthetic set {name!r}; {nearest(name, KINDS)}")
    kind, dtype = KINDS[name], float_dtype(dtype)
    n, p = rows or kind.rows, features or kind.features
    rng = stream(seed, f"synthetic {name}")
    lengths = _lengths(kind, n, p, rng)
    indptr = np.append(0, np.cumsum(lengths))
    indptr = indptr.astype(np.int32 if indptr[-1] < 2**31 else np.int64)
    indices = _features(kind, int(indptr[-1]), p, rng)
    X = sparse.csr_array((rng.random(indptr[-1], dtype=np.float32), indices, indptr), shape=(n, p))
    X.sum_duplicates()
    X.data /= np.repeat(
        np.sqrt(np.add.reduceat(np.square(X.data), X.indptr[:-1])), np.diff(X.indptr)
    )
    X = X.astype(dtype)
    score = X @ rng.standard_normal(p, dtype=np.float32)
    y = (score > np.median(score)) ^ (rng.random(n) < _FLIPPED)
    y[:2] = False, True  # both classes, whatever the size
    return make_dataset(X, y.astype(int), name=name)


def _lengths(kind: Kind, n: int, p: int, rng: np.random.Generator) -> Array:
    """Entries of each row (n,), at least 1."""
    wide = np.exp(kind.spread * rng.standard_normal(n) - kind.spread**2 / 2)
    return np.clip(np.rint(kind.entries * wide), 1, p).astype(np.int64)


def _features(kind: Kind, count: int, p: int, rng: np.random.Generator) -> Array:
    """Feature numbers (count,): some by rank, the exponential of a uniform number, some uniform."""
    rank = np.minimum(np.exp(rng.random(count) * np.log(p)).astype(np.int64), p) - 1
    uniform = rng.integers(0, p, count)
    chosen = np.where(rng.random(count) < kind.skewed, rank, uniform)
    renamed: Array = rng.permutation(p).astype(np.int32)[chosen]
    return renamed
