"""A first look at all blocks of data, so that the second can write them as they should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from hemiola.data.formats import Raw, narrow_indices, whole_numbers
from hemiola.data.join import first_index
from hemiola.data.shards import Schema
from hemiola.errors import DataError
from hemiola.types import Array

_MOST_CLASSES = 100_000


@dataclass
class Survey:
    """What there is to know of data before they are written. ``collect`` their classes, or not."""

    name: str
    collect: bool
    regression: bool
    rows: int = 0
    width: int = 0
    sparse: bool | None = None
    numeric: bool = True
    weighted: bool | None = None
    weight: float = 0.0
    lowest: list[int | None] = field(default_factory=list)
    labels: set[Any] = field(default_factory=set)
    widths: set[int] = field(default_factory=set)
    classes: Array | None = None

    def see(self, block: Raw) -> None:
        """Take note of a block. Raises :class:`DataError` where it does not fit the others."""
        block = self._weighty(block)
        is_sparse, weighted = bool(sparse.issparse(block.X)), block.weight is not None
        values = block.X.data if is_sparse else block.X
        if not np.isfinite(values).all():
            raise DataError(f"{self.name}: some features are NaN or infinite; remove those rows.")
        if block.lowest is None:
            self.widths.add(block.X.shape[1])
        if self.sparse not in (None, is_sparse) or self.weighted not in (None, weighted):
            raise DataError(f"{self.name}: the parts are not alike; convert them one by one.")
        if len(self.widths) > 1:
            raise DataError(
                f"{self.name}: parts have {min(self.widths)} and {max(self.widths)} features."
            )
        self.sparse, self.weighted = is_sparse, weighted
        self.rows += len(block.y)
        self.width = max(self.width, block.X.shape[1])
        if block.weight is not None:
            self.weight += float(block.weight.sum(dtype=np.float64))
        if block.lowest is not None and block.X.nnz:
            self.lowest = [*{*self.lowest, block.lowest}]
        self._see_labels(block.y)

    def _see_labels(self, y: Array) -> None:
        distinct = np.unique(y)
        if distinct.dtype.kind == "f" and not np.isfinite(distinct).all():
            raise DataError(f"{self.name}: some labels are NaN or infinite; remove those rows.")
        self.numeric = self.numeric and (y.dtype.kind in "iufb" or _are_numbers(distinct))
        if self.regression and not self.numeric:
            raise DataError(f"{self.name}: regression needs numbers as targets.")
        if self.collect:
            self.labels.update(distinct.tolist())
            if len(self.labels) > _MOST_CLASSES:
                raise DataError(
                    f"{self.name}: has more than {_MOST_CLASSES:,} different labels; "
                    "for real targets say so (--regression)."
                )

    def check(self) -> None:
        """All has been seen. Raises :class:`DataError` if there is nothing."""
        if self.rows == 0:
            raise DataError(f"{self.name}: holds no samples; give a file with data.")
        if self.width - self.first < 1:
            raise DataError(f"{self.name}: no sample has features.")
        self.width -= self.first
        self.classes = self._classes() if self.collect else None

    @property
    def first(self) -> int:
        """What indices start at."""
        return first_index(self.lowest) if self.lowest else 0

    def _classes(self) -> Array:
        """The labels in order, whole numbers as integers."""
        if self.numeric and not all(isinstance(label, bool) for label in self.labels):
            return np.unique(whole_numbers(np.array([float(label) for label in self.labels])))
        return np.unique(np.array(sorted(self.labels, key=str)))

    def schema(self, name: str, dtype: np.dtype[Any]) -> Schema:
        return Schema(name, self.width, bool(self.sparse), dtype, self.classes, bool(self.weighted))

    def ready(self, block: Raw, dtype: np.dtype[Any]) -> Raw:
        """A block as it is written: indices from 0, final labels, weights of mean 1."""
        block = self._weighty(block)
        y = block.y
        if y.dtype.kind not in "iufb" and self.numeric:
            y = whole_numbers(y.astype(np.float64)) if not self.regression else y.astype(np.float64)
        if self.classes is not None:
            y = np.searchsorted(self.classes, y.astype(self.classes.dtype)).astype(np.int64)
        weight = block.weight
        if weight is not None:
            weight = (weight * (self.rows / self.weight)).astype(dtype)
        return Raw(self._features(block.X, dtype), y, weight)

    def _weighty(self, block: Raw) -> Raw:
        """Without samples of weight zero."""
        weight = block.weight
        if weight is None:
            return block
        if not np.isfinite(weight).all() or (weight < 0).any():
            raise DataError(f"{self.name}: sample weights must be finite numbers, none negative.")
        used = weight > 0
        if used.all():
            return block
        return Raw(block.X[used], block.y[used], weight[used], block.lowest)

    def _features(self, X: Any, dtype: np.dtype[Any]) -> Any:
        with np.errstate(over="ignore"):
            X = X.astype(dtype, copy=False)
        values = X.data if self.sparse else X
        if not np.isfinite(values).all():
            raise DataError(
                f"{self.name}: some features are too large for {dtype.name}; use float64."
            )
        if not self.sparse:
            return X
        indices = X.indices - self.first if self.lowest and self.first else X.indices
        X = sparse.csr_array((X.data, indices, X.indptr), shape=(X.shape[0], self.width))
        if not X.has_canonical_format:
            X = X.copy()
            X.sum_duplicates()
        return narrow_indices(X)


def _are_numbers(labels: Array) -> bool:
    try:
        return bool(np.isfinite(labels.astype(np.float64)).all())
    except (TypeError, ValueError):
        return False
