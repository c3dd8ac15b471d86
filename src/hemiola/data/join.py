"""From many blocks of samples to one: the same kind, one width, one set of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from hemiola.data.formats import Raw, narrow_indices
from hemiola.errors import DataError
from hemiola.types import Array

Named = tuple[str, Raw]


def joined(blocks: list[Named], name: str) -> Raw:
    """All blocks as one, in order; empties the list as it goes, to need little memory.

    Each block comes with the name of its file. LIBSVM lines get indices from 0 and the width of the
    widest block; everything else must agree.
    Raises :class:`DataError` for blocks that do not fit together.
    """
    if len(blocks) == 1 and blocks[0][1].lowest is None:
        return blocks.pop()[1]
    _check_alike(blocks)
    weight = None
    if blocks[0][1].weight is not None:
        weight = np.concatenate([raw.weight for _, raw in blocks])
    y = np.concatenate([raw.y for _, raw in blocks])
    if blocks[0][1].lowest is not None:
        return Raw(_libsvm(blocks, name), y, weight)
    if sparse.issparse(blocks[0][1].X):
        return Raw(stacked(blocks, blocks[0][1].X.shape[1]), y, weight)
    X = np.concatenate([raw.X for _, raw in blocks])
    blocks.clear()
    return Raw(X, y, weight)


def first_index(lowest: Sequence[int | None]) -> int:
    """What the indices of LIBSVM lines start at: 0 if any index is 0, else 1.

    >>> first_index([3, 1]), first_index([3, 0])
    (1, 0)
    """
    return 0 if 0 in lowest else 1


def _libsvm(blocks: list[Named], name: str) -> Any:
    rows = sum(len(raw.y) for _, raw in blocks)
    if rows == 0:
        raise DataError(f"{name}: the file holds no samples; give a file with data.")
    first = first_index([raw.lowest for _, raw in blocks])
    width = max(raw.X.shape[1] for _, raw in blocks) - first
    if width < 1:
        raise DataError(f"{name}: no line has features; LIBSVM lines read 'label index:value ...'.")
    return stacked(blocks, width, first)


def stacked(blocks: list[Named], width: int, first: int = 0) -> Any:
    """CSR blocks below each other, with ``first`` subtracted from all indices."""
    rows = sum(raw.X.shape[0] for _, raw in blocks)
    stored = sum(raw.X.nnz for _, raw in blocks)
    values = np.empty(stored, blocks[0][1].X.dtype)
    small = max(stored, rows, width) <= np.iinfo(np.int32).max
    indices = np.empty(stored, np.int32 if small else np.int64)
    indptr = np.zeros(rows + 1, indices.dtype)
    row, at = 0, 0
    while blocks:
        X = blocks.pop(0)[1].X
        n, m = X.shape[0], X.nnz
        values[at : at + m] = X.data[:m]
        np.subtract(X.indices[:m], first, out=indices[at : at + m], casting="same_kind")
        indptr[row + 1 : row + n + 1] = X.indptr[1:]
        indptr[row + 1 : row + n + 1] += at
        row, at = row + n, at + m
    return narrow_indices(sparse.csr_array((values, indices, indptr), shape=(rows, width)))


def _check_alike(blocks: list[Named]) -> None:
    """Every block against the first."""
    first, model = blocks[0]
    for name, raw in blocks[1:]:
        if name == first and raw.lowest is not None:
            continue
        what = _difference(model, raw)
        if what is not None:
            raise DataError(f"{name}: {what[1]}, but {first} {what[0]}; the parts must agree.")


def _difference(a: Raw, b: Raw) -> tuple[str, str] | None:
    if sparse.issparse(a.X) != sparse.issparse(b.X):
        return _each(a, b, lambda raw: "is sparse" if sparse.issparse(raw.X) else "is dense")
    if a.lowest is None and a.X.shape[1] != b.X.shape[1]:
        return _each(a, b, lambda raw: f"has {raw.X.shape[1]} features")
    if (a.weight is None) != (b.weight is None):
        return _each(a, b, lambda raw: f"has {'no' if raw.weight is None else 'sample'} weights")
    if _are_text(a.y) != _are_text(b.y):
        return _each(a, b, lambda raw: f"has {'text' if _are_text(raw.y) else 'numbers'} as labels")
    return None


def _each(a: Raw, b: Raw, words: Any) -> tuple[str, str]:
    return words(a), words(b)


def _are_text(y: Array) -> bool:
    return y.dtype.kind not in "iufb"
