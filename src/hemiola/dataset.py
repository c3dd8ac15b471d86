"""What a worker computes on: a finite set of samples, shared by all workers and never copied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from hemiola.errors import DataError
from hemiola.types import Array


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and their targets.

    ``X``        (n, p) float32 or float64: a C-contiguous array or a ``scipy.sparse.csr_array``.
    ``y``        (n,) class numbers 0..C-1 (``intp``) when ``classes`` is given, else real targets.
    ``classes``  (C,) the original labels, in the order of their numbers; None for regression.
    ``weight``   (n,) sample weights with mean 1, of X's type; None when all samples count alike.

    Build one with :func:`make_dataset`, which checks and converts.
    """

    X: Any
    y: Array
    classes: Array | None = None
    weight: Array | None = None
    name: str = "data"

    def __len__(self) -> int:
        return int(self.X.shape[0])

    @property
    def n_features(self) -> int:
        return int(self.X.shape[1])

    @property
    def n_classes(self) -> int:
        return 0 if self.classes is None else len(self.classes)

    @property
    def is_sparse(self) -> bool:
        return bool(sparse.issparse(self.X))

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.X.dtype)

    def take(self, rows: Array) -> Dataset:
        """The sub-set of these rows (a copy)."""
        weight = None if self.weight is None else self.weight[rows]
        return Dataset(self.X[rows], self.y[rows], self.classes, weight, self.name)


class Batch(NamedTuple):
    """Rows of a data set by index, None for all: nothing is copied until a kernel reads it.

    ``address`` is (seed, worker, t) of the draw: where random numbers that learning from the batch
    needs, such as a dropout mask, are to be found (:func:`hemiola.rng.stream`).
    """

    data: Dataset
    rows: Array | None = None
    address: tuple[int, int, int] | None = None

    def __len__(self) -> int:
        return len(self.data) if self.rows is None else len(self.rows)


def make_dataset(
    X: Any, y: Any, *, weight: Any = None, regression: bool = False, name: str = "data"
) -> Dataset:
    """Check arrays and turn them into a :class:`Dataset`.

    Accepts anything NumPy or SciPy can read. float32 is kept, everything else becomes float64.
    Raises :class:`DataError` for NaN or infinite values, lengths that differ and empty data.

    >>> make_dataset([[0.0, 1.0], [1.0, 0.0]], ["no", "yes"]).y.tolist()
    [0, 1]
    """
    X = _features(X, name)
    y = np.asarray(y).ravel()
    if len(y) != X.shape[0]:
        raise DataError(f"{name}: {X.shape[0]} rows but {len(y)} labels; each row needs one label.")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise DataError(f"{name}: some labels are NaN or infinite; remove or repair those rows.")
    if weight is not None:
        X, y, weight = _weighted(X, y, weight, name)
    if regression:
        try:
            return Dataset(X, y.astype(X.dtype), None, weight, name)
        except (TypeError, ValueError) as error:
            raise DataError(f"{name}: regression needs numbers as targets ({error}).") from error
    if y.dtype == object and all(isinstance(label, str) for label in y):
        y = y.astype(str)  # text proper: it can be stored without pickle
    classes, numbers = np.unique(y, return_inverse=True)
    return Dataset(X, numbers.astype(np.intp), classes, weight, name)


def as_regression(data: Dataset) -> Dataset:
    """The same samples with their labels as real targets, for squared loss.

    Raises :class:`DataError` when the labels are not numbers.
    """
    if data.classes is None:
        return data
    if data.classes.dtype.kind not in "iufb":
        raise DataError(
            f"{data.name}: squared loss needs numbers as targets; for classes use logistic, "
            "softmax or hinge loss."
        )
    return replace(data, y=data.classes[data.y].astype(data.dtype), classes=None)


def _features(X: Any, name: str) -> Any:
    if sparse.issparse(X):
        X = sparse.csr_array(X)
        if not X.has_canonical_format:
            X = X.copy()  # the caller's matrix stays as it is
            X.sum_duplicates()
    else:
        X = np.asarray(X)
    if X.ndim != 2 or 0 in X.shape:
        raise DataError(f"{name}: expected a table of samples and features, found shape {X.shape}.")
    try:
        X = X.astype(np.float32 if X.dtype == np.float32 else np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: features must be numbers ({error}).") from error
    values = X.data if sparse.issparse(X) else X
    if not np.isfinite(values).all():
        raise DataError(
            f"{name}: some features are NaN or infinite; drop those rows or impute them "
            "(for example with sklearn.impute.SimpleImputer)."
        )
    return X if sparse.issparse(X) else np.ascontiguousarray(X)


def _weighted(X: Any, y: Array, weight: Any, name: str) -> tuple[Any, Array, Array]:
    """Drop samples of weight zero and scale the rest to mean 1."""
    weight = np.asarray(weight, dtype=X.dtype).ravel()
    if len(weight) != len(y) or not np.isfinite(weight).all() or (weight < 0).any():
        raise DataError(f"{name}: sample weights must be {len(y)} finite numbers, none negative.")
    used = weight > 0
    if not used.any():
        raise DataError(f"{name}: all sample weights are zero; at least one must be positive.")
    if not used.all():
        X, y, weight = X[used], y[used], weight[used]
    return X, y, weight / weight.mean()
