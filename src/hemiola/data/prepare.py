"""What is done to data between reading and training: hold some back, set features to one scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from hemiola.dataset import Dataset
from hemiola.errors import DataError
from hemiola.types import Array


def split(dataset: Dataset, test_size: float = 0.2, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Two disjoint parts of the samples, ``(train, test)``, drawn at random without stratification.

    ``test_size`` is the share of the test part. The rows are those that scikit-learn's
    ``train_test_split(X, test_size=test_size, random_state=seed)`` picks. Sample weights are scaled
    to mean 1 in each part.
    Raises :class:`DataError` when ``test_size`` is not between 0 and 1, when a part would be empty,
    or when the training part has no sample of some class.

    >>> from hemiola.data import load
    >>> train, test = split(load("breast_cancer"), test_size=0.3, seed=0)
    >>> len(train), len(test), int(test.y.sum())
    (398, 171, 108)
    """
    if not 0.0 < test_size < 1.0:
        raise DataError(f"test_size is {test_size}; it must lie between 0 and 1, for example 0.2.")
    if not 0 <= seed < 2**32:
        raise DataError(f"the seed of a split is {seed}; it must lie between 0 and 2**32 - 1.")
    from sklearn.model_selection import train_test_split

    try:
        rows = train_test_split(np.arange(len(dataset)), test_size=test_size, random_state=seed)
    except ValueError as error:
        raise DataError(
            f"{dataset.name}: test_size={test_size} leaves no training samples of {len(dataset)}; "
            "choose a smaller test_size or more data."
        ) from error
    train, test = (_normalised(dataset.take(part)) for part in rows)
    _check_classes(dataset, train)
    return train, test


def _normalised(part: Dataset) -> Dataset:
    if part.weight is None:
        return part
    return replace(part, weight=part.weight / part.weight.mean())


def _check_classes(whole: Dataset, train: Dataset) -> None:
    """Every class that the data have must be among the training samples."""
    if whole.classes is None:
        return
    missing = np.setdiff1d(whole.y, train.y)
    if len(missing):
        labels = ", ".join(str(whole.classes[number]) for number in missing)
        raise DataError(
            f"{whole.name}: the training part has no sample of class {labels}; "
            "choose another seed or a smaller test_size, or drop that class."
        )


def by_class(labels: Array, classes: Array, name: str) -> Array:
    """Class numbers (n,) of labels, by the ordered ``classes`` (C,).

    Raises :class:`DataError` for a label that is none of them.

    >>> by_class(np.array([1.0, -1.0]), np.array([-1, 1]), "data").tolist()
    [1, 0]
    """
    if (labels.dtype.kind in "iufb") != (classes.dtype.kind in "iufb"):
        labels = labels.astype(str) if classes.dtype.kind == "U" else labels
    known = (
        np.isin(labels, classes)
        if labels.dtype.kind != "U" or classes.dtype.kind == "U"
        else (np.zeros(len(labels), bool))
    )
    if not known.all():
        odd = labels[np.flatnonzero(~known)[0]]
        raise DataError(
            f"{name}: the label {odd!s} is none of the classes "
            f"{', '.join(map(str, classes[:10]))}; name all classes."
        )
    return np.searchsorted(classes, labels).astype(np.intp)


@dataclass(frozen=True, eq=False)
class Standardizer:
    """A change of scale that gives every feature unit variance, and zero mean if data are dense.

    ``mean``   (p,) is subtracted first; None for sparse data, which would lose their zeros.
    ``scale``  (p,) is divided by: the population standard deviation, 1 for constant features.

    Fit it on the training part only and apply it to every part.

    >>> from hemiola.dataset import make_dataset
    >>> data = make_dataset([[1.0, 5.0], [3.0, 5.0]], [0, 1])
    >>> Standardizer.fit(data).apply(data).X.tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    mean: Array | None
    scale: Array

    @classmethod
    def fit(cls, dataset: Dataset) -> Standardizer:
        """Means and deviations of the features, in double precision; samples count alike."""
        return cls.fit_parts([dataset])

    @classmethod
    def fit_parts(cls, parts: Iterable[Dataset]) -> Standardizer:
        """The same over several data sets, one at a time; for one, to the same bits."""
        n, is_sparse = 0, False
        mean = variance = np.zeros(0)
        for part in parts:
            ours = _moments(part)
            mean, variance = _pooled(n, mean, variance, len(part), *ours) if n else ours
            n += len(part)
            is_sparse = part.is_sparse
        # A constant feature has a variance of rounding errors only; the bound is scikit-learn's.
        eps = np.finfo(np.float64).eps
        constant = variance <= n * eps * variance + (n * mean * eps) ** 2
        scale = np.where(constant, 1.0, np.sqrt(variance))
        return cls(None if is_sparse else mean, scale)

    def apply(self, dataset: Dataset) -> Dataset:
        """The data set with its features rescaled (a copy); see :meth:`apply_features`."""
        return replace(dataset, X=self.apply_features(dataset.X))

    def apply_features(self, X: Any) -> Any:
        """Features (n, p) on the new scale: a copy, float32 if X is float32 and else float64.

        Raises :class:`DataError` when X has another number of features, or is sparse although the
        standardizer subtracts means.
        """
        X = X if sparse.issparse(X) else np.asarray(X)
        if X.ndim != 2 or X.shape[1] != len(self.scale):
            raise DataError(
                f"features of shape {X.shape} do not fit a standardizer of {len(self.scale)} "
                "features; use the same columns as in training (for LIBSVM, set n_features)."
            )
        dtype = np.dtype(np.float32 if X.dtype == np.float32 else np.float64)
        if sparse.issparse(X):
            return self._scale_sparse(X, dtype)
        centred = X - (0.0 if self.mean is None else self.mean)
        return np.ascontiguousarray(centred / self.scale, dtype=dtype)

    def _scale_sparse(self, X: Any, dtype: np.dtype[Any]) -> sparse.csr_array:
        if self.mean is not None:
            raise DataError(
                "sparse features cannot be centred; fit the standardizer on sparse data, "
                "or make these features dense with X.toarray()."
            )
        scaled = sparse.csr_array(X, dtype=dtype, copy=True)
        scaled.data = (scaled.data / self.scale[scaled.indices]).astype(dtype, copy=False)
        return scaled


def _moments(data: Dataset) -> tuple[Array, Array]:
    if data.is_sparse:
        return _sparse_moments(data.X)
    return data.X.mean(axis=0, dtype=np.float64), data.X.var(axis=0, dtype=np.float64)


def _pooled(
    n: int, mean: Array, variance: Array, m: int, other: Array, spread: Array
) -> tuple[Array, Array]:
    """Mean and variance of n and m samples together (Chan, Golub and LeVeque, 1979)."""
    share = m / (n + m)
    gap = other - mean
    between = share * (1 - share) * gap**2
    return mean + share * gap, (1 - share) * variance + share * spread + between


def _sparse_moments(X: sparse.csr_array) -> tuple[Array, Array]:
    """Mean and population variance (p,) of each column, by two passes over the stored values."""
    n, p = X.shape
    mean = np.bincount(X.indices, X.data, minlength=p) / n
    stored = np.bincount(X.indices, minlength=p)
    squares = np.bincount(X.indices, (X.data - mean[X.indices]) ** 2, minlength=p)
    return mean, (squares + (n - stored) * mean**2) / n
