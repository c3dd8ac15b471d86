"""From a name or a path to a :class:`~hemiola.dataset.Dataset`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from hemiola.data.catalog import REGRESSION, builtin_arrays, builtin_names
from hemiola.data.disk import open_shards
from hemiola.data.dtypes import float_dtype
from hemiola.data.files import Source, find, read
from hemiola.data.formats import Raw, Request, whole_numbers
from hemiola.data.join import joined
from hemiola.data.manifest import is_shards
from hemiola.dataset import Dataset, make_dataset
from hemiola.errors import DataError


def load(
    source: Source,
    *,
    regression: bool = False,
    dtype: Any = "float64",
    label: str | int | None = None,
    n_features: int | None = None,
) -> Dataset:
    """Read a data set: a built-in one by name, files by path, or shards by their directory.

    ``source``      one of :func:`builtin_names` (which win over files: write ``./iris`` for a file
                    of that name), or a path. The format follows the extension: LIBSVM (.svm,
                    .libsvm, .svmlight, .txt), CSV (.csv), Parquet (.parquet) or NPZ (.npz), each
                    also compressed (.gz, .bz2, .xz). A directory is one of shards
                    (:func:`convert`), or stands for the one data file in it, test sets
                    (``*.t.*``) and .txt files aside. Data in several parts are a list of paths, a
                    pattern such as ``part-*.svm``, or a directory of files whose names differ in
                    numbers only.
    ``regression``  targets are real numbers, not classes; always so for ``diabetes`` and
                    ``synthetic_regression``.
    ``dtype``       type of the features: float64 or float32. Shards of float32 stay so.
    ``label``       CSV and Parquet: name or number (from 0) of the label column. By default the
                    last one; in Parquet a column ``label``, ``target`` or ``y`` comes first.
    ``n_features``  how many features the data have. Sparse data are widened to it (a LIBSVM test
                    set may lack the last features), dense data must have it.

    Returns X (n, p), sparse for LIBSVM, sparse Parquet and for CSR in NPZ, and y (n,). Class labels
    that are whole numbers become integers. A single shard is mapped, not read.
    Raises :class:`DataError` when the data cannot be found or read or are not finite, and
    :class:`OptionError` for a dtype or label that makes no sense.

    >>> data = load("iris")
    >>> data.X.shape, data.classes.tolist()
    ((150, 4), [0, 1, 2])
    """
    ask = Request(str(source), float_dtype(dtype), label)
    if isinstance(source, str | Path) and source not in builtin_names() and is_shards(source):
        data = _from_shards(source, ask, regression)
        name = data.name
    else:
        regression = regression or (isinstance(source, str) and source in REGRESSION)
        name, raw = _obtain(source, ask)
        with np.errstate(over="ignore"):  # make_dataset refuses what becomes infinite
            X = raw.X.astype(ask.dtype, copy=False)
        y = raw.y if regression else whole_numbers(raw.y)
        data = make_dataset(X, y, weight=raw.weight, regression=regression, name=name)
    return data if n_features is None else replace(data, X=_widened(data.X, n_features, name))


def _from_shards(source: str | Path, ask: Request, regression: bool) -> Dataset:
    ask.no_label("a directory of shards")
    shards = open_shards(source)
    data = (shards.as_regression() if regression else shards).load()
    if ask.dtype == data.dtype or ask.dtype == np.float64:
        return data
    weight = None if data.weight is None else data.weight.astype(ask.dtype)
    y = data.y if data.classes is not None else data.y.astype(ask.dtype)
    with np.errstate(over="ignore"):
        X = data.X.astype(ask.dtype)
    if not np.isfinite(X.data if data.is_sparse else X).all():
        raise DataError(f"{data.name}: some features are too large for {ask.dtype}; use float64.")
    return Dataset(X, y, data.classes, weight, data.name)


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
