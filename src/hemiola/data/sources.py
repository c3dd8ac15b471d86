"""From a name or a path to a :class:`~hemiola.dataset.Dataset`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from hemiola.data.catalog import REGRESSION, builtin_arrays, builtin_names
from hemiola.data.dtypes import float_dtype
from hemiola.data.files import Source, find, read
from hemiola.data.formats import Raw, Request
from hemiola.data.join import joined
from hemiola.dataset import Dataset, make_dataset
from hemiola.errors import DataError
from hemiola.types import Array


def load(
    source: Source,
    *,
    regression: bool = False,
    dtype: Any = "float64",
    label: str | int | None = None,
    n_features: int | None = None,
) -> Dataset:
    """Read a data set: a built-in one by name, or a file by path.

    ``source``      one of :func:`builtin_names` (which win over files: write ``./iris`` for a file
                    of that name), or a path. The format follows the extension: LIBSVM (.svm,
                    .libsvm, .svmlight, .txt), CSV (.csv), Parquet (.parquet) or NPZ (.npz), each
                    also compressed (.gz, .bz2, .xz). A directory stands for the one data file in
                    it, test sets (``*.t.*``) and .txt files aside.
    ``regression``  targets are real numbers, not classes; always so for ``diabetes`` and
                    ``synthetic_regression``.
    ``dtype``       type of the features: float64 or float32.
    ``label``       CSV and Parquet: name or number (from 0) of the label column. By default the
                    last one; in Parquet a column ``label``, ``target`` or ``y`` comes first.
    ``n_features``  how many features the data have. Sparse data are widened to it (a LIBSVM test
                    set may lack the last features), dense data must have it.

    Returns X (n, p), sparse for LIBSVM and for CSR in NPZ, and y (n,). Class labels that are whole
    numbers become integers.
    Raises :class:`DataError` when the data cannot be found or read or are not finite, and
    :class:`OptionError` for a dtype or label that makes no sense.

    >>> data = load("iris")
    >>> data.X.shape, data.classes.tolist()
    ((150, 4), [0, 1, 2])
    """
    ask = Request(str(source), float_dtype(dtype), label)
    regression = regression or (isinstance(source, str) and source in REGRESSION)
    name, raw = _obtain(source, ask)
    with np.errstate(over="ignore"):  # make_dataset refuses what becomes infinite
        X = raw.X.astype(ask.dtype, copy=False)
    y = raw.y if regression else _whole_numbers(raw.y)
    data = make_dataset(X, y, weight=raw.weight, regression=regression, name=name)
    return data if n_features is None else replace(data, X=_widened(data.X, n_features, name))


def _obtain(source: Source, ask: Request) -> tuple[str, Raw]:
    """The name of the data, and the data."""
    if isinstance(source, str) and source in builtin_names():
        ask.no_label("a built-in data set")
        return source, Raw(*builtin_arrays(source))
    name, paths = find(source)
    blocks = [(str(p), raw) for p in paths for raw in read(p, replace(ask, name=str(p)))]
    return name, joined(blocks, str(source) if isinstance(source, str | Path) else name)


def _widened(X: Any, n_features: int, name: str) -> Any:
    """``X`` with exactly ``n_features`` columns."""
    found = X.shape[1]
    if sparse.issparse(X) and found < n_features:
        return sparse.csr_array((X.data, X.indices, X.indptr), shape=(X.shape[0], n_features))
    if found != n_features:
        raise DataError(
            f"{name}: has {found} features, not n_features={n_features}; "
            "correct n_features, or leave it out."
        )
    return X


def _whole_numbers(y: Array) -> Array:
    """Labels 1.0, 2.0, ... as 1, 2, ...; all others unchanged."""
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.floor(y)).all():
        return y.astype(np.int64)
    return y
