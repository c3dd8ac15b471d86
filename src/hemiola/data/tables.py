"""Readers of tables with named columns: CSV and Parquet."""

from __future__ import annotations

import csv
from typing import Any, BinaryIO

import numpy as np

from hemiola.data.formats import Raw, Request
from hemiola.errors import DataError, nearest
from hemiola.types import Array

_LABEL_NAMES = ("label", "target", "y")
_MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})
_BLOCK = 1 << 24  # bytes; a row of a CSV file must fit in one block


def read_csv(file: BinaryIO, ask: Request) -> Raw:
    """Numeric columns separated by comma, semicolon or tab; the header is found by itself.

    The label is the last column unless ``label`` names or numbers (from 0) another one.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    first, second, delimiter = _head(file, ask)
    header = _is_header(first, second, ask.label)
    names = first if header else [f"column {i}" for i in range(len(first))]
    label = _label_position(names, ask, len(names) - 1)
    keys = [str(i) for i in range(len(names))]  # names may occur twice, numbers cannot
    types: dict[str, Any] = dict.fromkeys(keys, pa.from_numpy_dtype(ask.dtype))
    types[keys[label]] = pa.string()
    try:
        table = arrow_csv.read_csv(
            file,
            read_options=arrow_csv.ReadOptions(
                column_names=keys, skip_rows=int(header), block_size=_BLOCK
            ),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter),
            convert_options=arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=True),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{ask.name}: {_csv_fault(str(error), names)}") from error
    columns = table.columns
    columns[label] = _numbers_if_possible(columns[label])
    return _assemble(columns, names, label, ask)


def _head(file: BinaryIO, ask: Request) -> tuple[list[str], list[str], str]:
    """The cells of the first two lines, and the delimiter."""
    lines: list[str] = []
    try:
        while len(lines) < 2 and (line := file.readline(_BLOCK)):
            text = line.decode("utf-8-sig").strip("\r\n")
            if text.strip() or not lines:
                lines.append(text)
    except UnicodeDecodeError as error:
        raise DataError(f"{ask.name}: is not UTF-8 text; save it as CSV in UTF-8.") from error
    file.seek(0)
    if not lines or not lines[0].strip():
        raise DataError(f"{ask.name}: the first line is blank; start with a header or with data.")
    delimiter = max(",;\t", key=lines[0].count)
    first, second = (next(csv.reader([text], delimiter=delimiter)) for text in [*lines, " "][:2])
    return [cell.strip() for cell in first], [cell.strip() for cell in second], delimiter


def _is_header(first: list[str], second: list[str], label: str | int | None) -> bool:
    """A first line with text where the second has a number, or with the label's name."""
    if label in first or not any(_is_number(cell) for cell in first):
        return True
    if first[-1].lower() in _LABEL_NAMES:
        return True
    pairs = zip(first, second, strict=False)
    return any(_is_number(below) and not _is_number(above) for above, below in pairs)


def _is_number(cell: str) -> bool:
    if cell.lower() in _MISSING:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _csv_fault(message: str, names: list[str]) -> str:
    """Arrow's message with the column by name, and a remedy."""
    column, found, rest = message.partition(": CSV conversion error to ")
    if found:
        name = names[int(column.rpartition("#")[2])]
        if "UTF8" in rest:
            return f"column {name!r} is not UTF-8 text; save the file in UTF-8."
        value = rest.partition("invalid value ")[2] or rest
        return (
            f"column {name!r} has the value {value}, which is not a number; "
            "encode text columns as numbers, or drop them."
        )
    return f"{message.splitlines()[0]}; every row needs {len(names)} columns."


def _numbers_if_possible(column: Any) -> Any:
    """Text as numbers when all of it is numeric, else without surrounding blanks."""
    import pyarrow as pa
    from pyarrow import compute

    column = compute.utf8_trim_whitespace(column)
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        return column


def read_parquet(file: BinaryIO, ask: Request) -> Raw:
    """Numeric columns; the label is column ``label``, ``target`` or ``y``, else the last one."""
    from pyarrow import parquet

    table = parquet.read_table(file)
    names = table.column_names
    usual = [names.index(name) for name in _LABEL_NAMES if name in names]
    label = _label_position(names, ask, usual[0] if usual else len(names) - 1)
    return _assemble(table.columns, names, label, ask)


def _label_position(names: list[str], ask: Request, default: int) -> int:
    if len(names) < 2:
        raise DataError(
            f"{ask.name}: found {len(names)} column(s); a table needs features and a label."
        )
    wanted = ask.label
    if wanted is None:
        return default
    if wanted in names:
        return names.index(str(wanted))
    try:
        return range(len(names))[int(wanted)]
    except (ValueError, IndexError) as error:
        hint = (
            nearest(wanted, names)
            if isinstance(wanted, str)
            else f"columns are numbered 0 to {len(names) - 1}."
        )
        raise DataError(f"{ask.name}: no label column {wanted!r}; {hint}") from error


def _assemble(columns: list[Any], names: list[str], label: int, ask: Request) -> Raw:
    """Columns (n,) as features (n, p) and labels (n,)."""
    if len(columns[label]) == 0:
        raise DataError(f"{ask.name}: the table holds no rows; give a file with data.")
    features = [i for i in range(len(names)) if i != label]
    X = np.empty((len(columns[label]), len(features)), dtype=ask.dtype)
    for place, i in enumerate(features):
        X[:, place] = _numeric(columns[i], names[i], ask)
    _refuse_missing(columns[label], names[label], ask)
    return Raw(X, _labels(columns[label]))


def _numeric(column: Any, name: str, ask: Request) -> Array:
    import pyarrow as pa

    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise DataError(
            f"{ask.name}: column {name!r} is of type {column.type}, which is not a number; "
            "encode such columns as numbers, or drop them."
        )
    _refuse_missing(column, name, ask)
    values: Array = column.cast(pa.from_numpy_dtype(ask.dtype), safe=False).to_numpy()
    return values


def _refuse_missing(column: Any, name: str, ask: Request) -> None:
    if column.null_count:
        raise DataError(
            f"{ask.name}: column {name!r} has {column.null_count} missing value(s) of "
            f"{len(column)}; drop those rows or fill them in."
        )


def _labels(column: Any) -> Array:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    values: Array = column.to_numpy()
    return values.astype(np.str_) if values.dtype == object else values
