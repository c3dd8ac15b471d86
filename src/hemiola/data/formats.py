"""One reader for each file format: from an opened binary file to arrays.

Readers raise :class:`DataError` for what they can name precisely; whatever their libraries raise
is turned into a :class:`DataError` by :func:`hemiola.data.load`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from scipy import sparse

from hemiola.errors import DataError, OptionError
from hemiola.types import Array


class Raw(NamedTuple):
    """What a reader returns: features (n, p), labels (n,) and weights (n,) if the file has them.

    ``lowest`` is the lowest index of LIBSVM lines, whose X has the indices as they are written.
    """

    X: Any
    y: Array
    weight: Array | None = None
    lowest: int | None = None


@dataclass(frozen=True)
class Request:
    """What the caller wants of a file. ``name`` opens every message."""

    name: str
    dtype: np.dtype[Any]
    label: str | int | None = None

    def no_label(self, kind: str) -> None:
        """Refuse ``label`` where a format leaves no choice."""
        if self.label is not None:
            raise OptionError(
                f"{self.name}: label={self.label!r} applies to CSV and Parquet only; "
                f"{kind} has a fixed place for labels, so leave label out."
            )


def narrow_indices(X: sparse.csr_array) -> sparse.csr_array:
    """The same matrix with 32-bit indices where they suffice."""
    if max(X.nnz, *X.shape) <= np.iinfo(np.int32).max:
        X.indices = X.indices.astype(np.int32, copy=False)
        X.indptr = X.indptr.astype(np.int32, copy=False)
    return X


def whole_numbers(y: Array) -> Array:
    """Labels 1.0, 2.0, ... as 1, 2, ...; all others unchanged."""
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.floor(y)).all():
        return y.astype(np.int64)
    return y


def read_npz(file: BinaryIO, ask: Request) -> Raw:
    """Arrays ``X`` and ``y``, or CSR as ``data, indices, indptr, shape`` and ``y``; and ``weight``.

    A file of ``scipy.sparse.save_npz`` with ``y`` added has the right names.
    """
    ask.no_label("NPZ")
    if file.read(2) != b"PK":
        raise DataError(f"{ask.name}: is not NPZ; write it with np.savez(path, X=X, y=y).")
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        names = set(archive.files)
        csr = {"data", "indices", "indptr", "shape"} <= names
        if "y" not in names or not (csr or "X" in names):
            raise DataError(
                f"{ask.name}: holds the arrays {', '.join(sorted(names)) or 'none'}; needed are y "
                "and either X or data, indices, indptr, shape."
            )
        X = _npz_csr(archive, ask) if csr else _array(archive, "X", ask)
        if X.dtype.kind not in "biuf":
            raise DataError(f"{ask.name}: features of type {X.dtype}; save them as real numbers.")
        weight = _array(archive, "weight", ask) if "weight" in names else None
        return Raw(X, _array(archive, "y", ask), weight)


def _array(archive: Any, key: str, ask: Request) -> Array:
    try:
        values: Array = archive[key]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise DataError(
            f"{ask.name}: the array {key!r} holds Python objects; save it as numbers or text, "
            f"for example {key}.astype(str)."
        ) from error
    return values


def _npz_csr(archive: Any, ask: Request) -> sparse.csr_array:
    stored = _array(archive, "format", ask).item() if "format" in archive.files else b"csr"
    if stored not in (b"csr", "csr"):
        raise DataError(f"{ask.name}: sparse format {stored!r}; save it as CSR (X.tocsr()).")
    data, indices, indptr, shape = (
        _array(archive, key, ask) for key in ("data", "indices", "indptr", "shape")
    )
    X = sparse.csr_array((data, indices, indptr), shape=tuple(int(size) for size in shape))
    X.check_format(full_check=True)
    return narrow_indices(X)
