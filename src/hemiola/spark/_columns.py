"""Columns of a DataFrame as arrays: which are asked for, and what Arrow's batches hold of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import compute
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, NumericType
from scipy import sparse

from hemiola.errors import DataError, nearest
from hemiola.types import Array

FEATURES, LABEL, WEIGHT = "features", "label", "weight"
_SPARSE = 0  # the type of a sparse vector


class Rows(NamedTuple):
    """X (n, p), dense or CSR; y (n,) and the weights (n,) where there are such."""

    X: Any
    y: Array
    weight: Array | None


def selected(frame: DataFrame, features: Sequence[str], label: str, weight: str) -> DataFrame:
    """The columns that training needs, under names of their own, as vectors, lists or numbers."""
    columns = [_features(frame, features).alias(FEATURES), _number(frame, label).alias(LABEL)]
    if weight:
        columns.append(_number(frame, weight).alias(WEIGHT))
    return frame.select(*columns)


def _features(frame: DataFrame, names: Sequence[str]) -> Any:
    """A column of vectors or arrays, or several of numbers as one of arrays."""
    if len(names) > 1:
        return F.array(*(_number(frame, name) for name in names))
    kind = _type_of(frame, names[0])
    if isinstance(kind, VectorUDT):
        return frame[names[0]]
    if isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType):
        return frame[names[0]].cast("array<double>")
    if isinstance(kind, NumericType):
        return F.array(frame[names[0]].cast("double"))
    raise DataError(
        f"column {names[0]!r} is of type {kind.simpleString()}; features are a column of vectors "
        "(pyspark.ml.feature.VectorAssembler makes one), one of arrays of numbers, or columns of "
        "numbers (featuresCols)."
    )


def features_of(frame: DataFrame, names: Sequence[str]) -> Any:
    """The features alone, to predict from."""
    return _features(frame, names)


def _number(frame: DataFrame, name: str) -> Any:
    kind = _type_of(frame, name)
    if not isinstance(kind, NumericType):
        raise DataError(
            f"column {name!r} is of type {kind.simpleString()}, which is not a number; make "
            "numbers of it, for instance with pyspark.ml.feature.StringIndexer."
        )
    return frame[name].cast("double")


def _type_of(frame: DataFrame, name: str) -> Any:
    if name not in frame.columns:
        raise DataError(f"the DataFrame has no column {name!r}; {nearest(name, frame.columns)}")
    return frame.schema[name].dataType


def rows_of(batches: Iterable[pa.RecordBatch], names: Sequence[str]) -> Rows | None:
    """All rows of a partition; ``names`` are those of the columns for the user. None: no rows."""
    parts = [_part(batch, names) for batch in batches if batch.num_rows]
    if not parts:
        return None
    widths = {part.X.shape[1] for part in parts}
    if len(widths) > 1:
        raise _uneven(names[0], widths)
    stacked = [part.X for part in parts]
    all_dense = not any(sparse.issparse(X) for X in stacked)
    X = np.concatenate(stacked) if all_dense else sparse.csr_array(sparse.vstack(stacked, "csr"))
    weights = [part.weight for part in parts if part.weight is not None]
    weight = np.concatenate(weights) if weights else None
    return Rows(X, np.concatenate([part.y for part in parts]), weight)


def _part(batch: pa.RecordBatch, names: Sequence[str]) -> Rows:
    X = matrix(batch.column(0), names[0])
    y = _array(batch.column(1), names[1])
    weight = _array(batch.column(2), names[2]) if batch.num_columns > 2 else None
    return Rows(X, y, weight)


def matrix(column: Any, name: str) -> Any:
    """(n, p) of vectors or lists: CSR if any of the vectors is sparse.

    >>> matrix(pa.array([[1.0, 2.0], [3.0, 4.0]]), "features").tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    _refuse_nulls(column, name)
    if not pa.types.is_struct(column.type):
        return _dense(column, name)
    kinds = np.asarray(column.field("type"))
    if not (kinds == _SPARSE).any():
        return _dense(column.field("values"), name)
    return _csr(column, kinds == _SPARSE, name)


def _dense(lists: Any, name: str) -> Array:
    lengths, flat = _lists(lists, name)
    if lengths.min() != lengths.max() or not lengths[0]:
        raise _uneven(name, {int(lengths.min()), int(lengths.max())})
    return flat.reshape(len(lengths), -1)


def _csr(column: Any, is_sparse: Array, name: str) -> Any:
    """Vectors of both kinds; the dense ones have neither indices nor a size."""
    lengths, values = _lists(column.field("values"), name)
    sizes = np.where(is_sparse, np.asarray(column.field("size").fill_null(0)), lengths)
    if sizes.min() != sizes.max() or not sizes[0]:
        raise _uneven(name, {int(sizes.min()), int(sizes.max())})
    ends = np.cumsum(lengths)
    indices = np.arange(len(values)) - np.repeat(ends - lengths, lengths)
    given = np.asarray(compute.list_flatten(column.field("indices")))
    indices[np.repeat(is_sparse, lengths)] = given
    X = sparse.csr_array(
        (values, indices.astype(np.int32), np.concatenate([[0], ends])),
        shape=(len(lengths), int(sizes[0])),
    )
    if indices.min(initial=0) < 0 or indices.max(initial=0) >= sizes[0]:
        raise DataError(f"column {name!r} has a vector with an index beyond its size.")
    X.sum_duplicates()
    return X


def _lists(lists: Any, name: str) -> tuple[Array, Array]:
    """The lengths of the lists (n,), and what they hold, one after another."""
    flat = compute.list_flatten(lists)
    _refuse_nulls(flat, name)
    return np.asarray(compute.list_value_length(lists)).astype(np.int64), _array(flat, name)


def _array(column: Any, name: str) -> Array:
    """Finite numbers (n,)."""
    _refuse_nulls(column, name)
    found = np.array(column, dtype=np.float64)
    if not np.isfinite(found).all():
        raise DataError(
            f"column {name!r} has values that are NaN or infinite; drop those rows, or fill them "
            "in with pyspark.ml.feature.Imputer."
        )
    return found


def _refuse_nulls(column: Any, name: str) -> None:
    if column.null_count:
        raise DataError(
            f"column {name!r} has missing values; drop those rows (DataFrame.dropna), or fill them "
            "in with pyspark.ml.feature.Imputer."
        )


def _uneven(name: str, widths: Iterable[int]) -> DataError:
    few, many = min(widths), max(widths)
    how = "no numbers" if few == many else f"{few} and with {many} numbers"
    return DataError(f"column {name!r} holds vectors with {how}; all must be of one length.")
