"""The reader of Parquet: plain columns, columns of vectors, and sparse rows.

``plain``    a number a row: one feature;
``vectors``  a list of numbers a row, all of one length: as many features, in place of the column;
``sparse``   a struct of two lists ``indices`` and ``values`` a row (as Spark writes its vectors),
             or two columns of these names, and no feature beside them. Indices start at 0. The
             number of features is the struct's ``size``, if it has one, or what the file's
             metadata say under ``hemiola.n_features``, or follows from the largest index.

A column that the metadata name as ``hemiola.weight`` holds the sample weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from scipy import sparse

from hemiola.data.formats import Raw, Request
from hemiola.data.lines import LARGEST
from hemiola.data.tables import (
    LABEL_NAMES,
    as_array,
    check_rows,
    is_number,
    label_position,
    labels,
    numeric,
    refuse_missing,
)
from hemiola.errors import DataError
from hemiola.types import Array

WIDTH, WEIGHT = b"hemiola.n_features", b"hemiola.weight"
"""Keys of the metadata that say what columns cannot."""

_BATCH = 1 << 14  # rows


def read_parquet(file: BinaryIO, ask: Request) -> Raw:
    """The label is column ``label``, ``target`` or ``y``, else the last one."""
    from pyarrow import parquet

    return _raw(parquet.read_table(file), ask)


def parquet_blocks(file: BinaryIO, ask: Request) -> Iterator[Raw]:
    """The same in blocks."""
    import pyarrow as pa
    from pyarrow import parquet

    whole = parquet.ParquetFile(file)
    for batch in whole.iter_batches(_BATCH):
        if batch.num_rows:
            table = pa.Table.from_batches([batch])
            yield _raw(table.replace_schema_metadata(whole.schema_arrow.metadata), ask)


def _raw(table: Any, ask: Request) -> Raw:
    notes = table.schema.metadata or {}
    columns = dict(zip(table.column_names, table.combine_chunks().columns, strict=True))
    weight = None
    if WEIGHT in notes:
        name = notes[WEIGHT].decode("utf-8", "replace")
        if name not in columns:
            raise DataError(f"{ask.name}: there is no column {name!r} of weights; write it anew.")
        weight = numeric(columns.pop(name), name, ask)
    names = list(columns)
    usual = [names.index(name) for name in LABEL_NAMES if name in names]
    label = names[label_position(names, ask, usual[0] if usual else len(names) - 1)]
    target = columns.pop(label)
    check_rows(target, ask)
    y = labels(target, label, ask)
    found = _sparse_columns(columns, ask)
    if found is None:
        return Raw(_dense(columns, ask), y, weight)
    X = _csr(*found, _width(notes, columns, ask), ask)
    return Raw(X[0], y, weight, X[1])


def _dense(columns: dict[str, Any], ask: Request) -> Array:
    """Plain columns and vectors side by side, (n, p)."""
    parts = [
        _vectors(column, name, ask) if is_list(column.type) else numeric(column, name, ask)
        for name, column in columns.items()
    ]
    widths = [1 if part.ndim == 1 else part.shape[1] for part in parts]
    X = np.empty((len(parts[0]), sum(widths)), ask.dtype)
    start = 0
    for part, width in zip(parts, widths, strict=True):
        X[:, start : start + width] = part.reshape(len(part), width)
        start += width
    return X


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is one of lists."""
    import pyarrow as pa

    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in kinds)


def _lists(column: Any, name: str, ask: Request) -> tuple[Array, Any]:
    """The lengths of the lists (n,), and what they hold, one after another."""
    from pyarrow import compute

    if len(getattr(column, "chunks", [column])) == 1:
        column = getattr(column, "chunks", [column])[0]
    refuse_missing(column, name, ask)
    flat = compute.list_flatten(column)
    if not is_number(flat.type):
        raise DataError(
            f"{ask.name}: column {name!r} holds lists of {flat.type}; lists must hold numbers."
        )
    refuse_missing(flat, name, ask)
    return as_array(compute.list_value_length(column)).astype(np.int64), flat


def _vectors(column: Any, name: str, ask: Request) -> Array:
    """(n, p) from lists of one length."""
    lengths, flat = _lists(column, name, ask)
    least, most = int(lengths.min()), int(lengths.max())
    if least != most or most == 0:
        how = f"of {least} and of {most} numbers" if least != most else "without numbers"
        raise DataError(
            f"{ask.name}: column {name!r} holds vectors {how}; all must be of one length. "
            "(Sparse rows need the columns indices and values.)"
        )
    return numeric(flat, name, ask).reshape(len(lengths), most)


def _sparse_columns(columns: dict[str, Any], ask: Request) -> tuple[Any, Any, str] | None:
    """The columns of indices and of values, and their name; None if there are none."""
    import pyarrow as pa
    from pyarrow import compute

    if {"indices", "values"} <= set(columns):
        pair = columns["indices"], columns["values"]
        found = [(*pair, "indices")] if all(is_list(column.type) for column in pair) else []
        rest = [name for name in columns if name not in ("indices", "values")]
    else:
        structs = {
            name: column
            for name, column in columns.items()
            if pa.types.is_struct(column.type)
            and {"indices", "values"} <= {field.name for field in column.type}
        }
        for name, column in structs.items():
            refuse_missing(column, name, ask)
        found = [
            (compute.struct_field(c, "indices"), compute.struct_field(c, "values"), name)
            for name, c in structs.items()
        ]
        rest = [name for name in columns if name != (found[0][2] if found else None)]
    if found and rest:
        raise DataError(
            f"{ask.name}: column {rest[0]!r} stands beside sparse rows; "
            "put it into their indices and values, or drop it."
        )
    return found[0] if found else None


def _width(notes: dict[bytes, bytes], columns: dict[str, Any], ask: Request) -> int | None:
    """How many features sparse rows have, if the file says so."""
    from pyarrow import compute

    if notes.get(WIDTH, b"").isdigit():
        return int(notes[WIDTH])
    column = next(iter(columns.values()))
    if is_list(column.type) or "size" not in {field.name for field in column.type}:
        return None
    sizes = compute.unique(compute.struct_field(column, "size")).to_pylist()
    if len(sizes) != 1 or not isinstance(sizes[0], int):
        raise DataError(f"{ask.name}: the sizes of its vectors differ or are missing.")
    return sizes[0]


def _csr(
    indices: Any, values: Any, name: str, width: int | None, ask: Request
) -> tuple[Any, int | None]:
    """A CSR matrix, and 0 as its lowest index if the file does not say how wide it is."""
    import pyarrow as pa

    lengths, places = _lists(indices, name, ask)
    others, numbers = _lists(values, name, ask)
    if not np.array_equal(lengths, others):
        row = int(np.flatnonzero(lengths != others)[0])
        raise DataError(
            f"{ask.name}: row {row} has {lengths[row]} indices but {others[row]} values."
        )
    if not pa.types.is_integer(places.type):
        raise DataError(f"{ask.name}: column {name!r} has indices that are no whole numbers.")
    columns = as_array(places)
    top = LARGEST if width is None else width - 1
    outside = np.flatnonzero((columns < 0) | (columns > top))
    if len(outside):
        row = int(np.searchsorted(np.cumsum(lengths), outside[0], side="right"))
        raise DataError(f"{ask.name}: row {row} has index {columns[outside[0]]}, not in 0..{top}.")
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    shape = (len(lengths), width or int(columns.max(initial=-1)) + 1)
    X = sparse.csr_array(
        (numeric(numbers, name, ask), columns.astype(np.int32), indptr), shape=shape
    )
    return X, 0 if width is None else None
