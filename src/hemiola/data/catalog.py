"""Data sets that can be had by name, without a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from hemiola.data.formats import narrow_indices
from hemiola.data.streams import LinearStream, LogisticStream
from hemiola.rng import stream
from hemiola.types import Array

REGRESSION = frozenset({"diabetes", "synthetic_regression"})
"""Built-in data sets whose targets are real numbers."""


def builtin_names() -> list[str]:
    """The names that :func:`hemiola.data.load` knows without a file.

    >>> "breast_cancer" in builtin_names()
    True
    """
    return sorted(_CATALOG)


def builtin_arrays(name: str) -> tuple[Any, Array]:
    """Features (n, p) and targets (n,) of a built-in data set, in double precision."""
    return _CATALOG[name]()


def _sklearn(loader: str) -> Callable[[], tuple[Any, Array]]:
    def read() -> tuple[Any, Array]:
        from sklearn import datasets

        X, y = getattr(datasets, loader)(return_X_y=True)
        return X, y

    return read


def _synthetic() -> tuple[Any, Array]:
    """10 000 x 50, two classes from a logistic model."""
    data = LogisticStream(n_features=50).draw(stream(0, "synthetic"), 10_000)
    return data.X, data.y


def _synthetic_regression() -> tuple[Any, Array]:
    """10 000 x 50, real targets from a linear model with noise."""
    data = LinearStream(n_features=50, noise=0.5).draw(stream(0, "synthetic"), 10_000)
    return data.X, data.y


def _synthetic_sparse(n: int = 20_000, p: int = 5_000, words: int = 40) -> tuple[Any, Array]:
    """Like text: each row counts ``words`` draws of features with power-law frequencies.

    Counts are log-damped and rows have unit length; two classes from a logistic model.
    """
    rng = stream(0, "synthetic-sparse")
    frequency = 1.0 / np.arange(1, p + 1)
    columns = rng.choice(p, size=n * words, p=frequency / frequency.sum())
    rows = np.repeat(np.arange(n), words)
    X = sparse.csr_array(sparse.coo_array((np.ones(n * words), (rows, columns)), shape=(n, p)))
    X.sum_duplicates()
    X = narrow_indices(X)
    X.data = np.log1p(X.data)
    length = np.sqrt(np.add.reduceat(X.data**2, X.indptr[:-1]))
    X.data /= np.repeat(length, np.diff(X.indptr))
    margin = X @ rng.normal(scale=6.0, size=p)
    margin -= np.median(margin)
    return X, (rng.random(n) < 1.0 / (1.0 + np.exp(-margin))).astype(np.intp)


_CATALOG: dict[str, Callable[[], tuple[Any, Array]]] = {
    "breast_cancer": _sklearn("load_breast_cancer"),
    "diabetes": _sklearn("load_diabetes"),
    "digits": _sklearn("load_digits"),
    "iris": _sklearn("load_iris"),
    "synthetic": _synthetic,
    "synthetic_regression": _synthetic_regression,
    "synthetic_sparse": _synthetic_sparse,
    "wine": _sklearn("load_wine"),
}
