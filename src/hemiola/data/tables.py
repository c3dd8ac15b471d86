"""The reader of CSV, and what all tables with named columns have in common."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from hemiola.data.formats import Raw, Request
from hemiola.errors import DataError, nearest
from hemiola.types import Array

LABEL_NAMES = ("label", "target", "y")
_MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})
_BLOCK = 1 << 24  # bytes; a row of a CSV file must fit in one block


class _Layout(NamedTuple):
    """How a CSV file is laid out: its columns' names, whether they are in it, and the label's."""

    names: list[str]
    header: bool
    delimiter: str
    label: int


def read_csv(file: BinaryIO, ask: Request) -> Raw:
    """Numeric columns separated by comma, semicolon or tab; the header is found by itself.

    The label is the last column unless ``label`` names or numbers (from 0) another one.
    """
    from pyarrow import csv as arrow_csv

    layout = _layout(file, ask)
    with _explained(layout.names, ask):
        table = arrow_csv.read_csv(file, **_options(layout, ask))
    columns = table.columns
    columns[layout.label] = numbers_if_possible(columns[layout.label])
    return assemble(columns, layout.names, layout.label, ask)


def csv_blocks(file: BinaryIO, ask: Request) -> Iterator[Raw]:
    """The same in blocks; labels are text, as later ones are not known yet."""
    import pyarrow as pa
    from pyarrow import compute
    from pyarrow import csv as arrow_csv

    layout = _layout(file, ask)
    with _explained(layout.names, ask):
        for batch in arrow_csv.open_csv(file, **_options(layout, ask)):
            if batch.num_rows:
                table = pa.Table.from_batches([batch])
                columns = table.columns
                columns[layout.label] = compute.utf8_trim_whitespace(columns[layout.label])
                yield assemble(columns, layout.names, layout.label, ask)


def _layout(file: BinaryIO, ask: Request) -> _Layout:
    first, second, delimiter = _head(file, ask)
    header = _is_header(first, second, ask.label)
    names = first if header else [f"column {i}" for i in range(len(first))]
    return _Layout(names, header, delimiter, label_position(names, ask, len(names) - 1))


def _options(layout: _Layout, ask: Request) -> dict[str, Any]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    keys = [str(i) for i in range(len(layout.names))]  # names may occur twice, numbers cannot
    types: dict[str, Any] = dict.fromkeys(keys, pa.from_numpy_dtype(ask.dtype))
    types[keys[layout.label]] = pa.string()
    return {
        "read_options": arrow_csv.ReadOptions(
            column_names=keys, skip_rows=int(layout.header), block_size=_BLOCK
        ),
        "parse_options": arrow_csv.ParseOptions(delimiter=layout.delimiter),
        "convert_options": arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=True),
    }


@contextmanager
def _explained(names: list[str], ask: Request) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        raise DataError(f"{ask.name}: {_csv_fault(str(error), names)}") from error


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
    if first[-1].lower() in LABEL_NAMES:
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


def numbers_if_possible(column: Any) -> Any:
    """Text as numbers when all of it is numeric, else without surrounding blanks."""
    import pyarrow as pa
    from pyarrow import compute

    column = compute.utf8_trim_whitespace(column)
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        return column


def label_position(names: list[str], ask: Request, default: int) -> int:
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


def assemble(columns: list[Any], names: list[str], label: int, ask: Request) -> Raw:
    """Columns (n,) as features (n, p) and labels (n,)."""
    check_rows(columns[label], ask)
    features = [i for i in range(len(names)) if i != label]
    X = np.empty((len(columns[label]), len(features)), dtype=ask.dtype)
    for place, i in enumerate(features):
        X[:, place] = numeric(columns[i], names[i], ask)
    return Raw(X, labels(columns[label], names[label], ask))


def check_rows(column: Any, ask: Request) -> None:
    if len(column) == 0:
        raise DataError(f"{ask.name}: the table holds no rows; give a file with data.")


def numeric(column: Any, name: str, ask: Request) -> Array:
    """A column of numbers (n,); :class:`DataError` for anything else."""
    import pyarrow as pa

    if not is_number(column.type):
        raise DataError(
            f"{ask.name}: column {name!r} is of type {column.type}, which is not a number; "
            "encode such columns as numbers, or drop them."
        )
    refuse_missing(column, name, ask)
    return as_array(column.cast(pa.from_numpy_dtype(ask.dtype), safe=False))


def is_number(kind: Any) -> bool:
    """Whether an Arrow type is one of numbers."""
    import pyarrow as pa

    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(is_kind(kind) for is_kind in kinds)


def as_array(column: Any) -> Array:
    """An Arrow column as a NumPy array."""
    values: Array = np.asarray(column)
    return values


def refuse_missing(column: Any, name: str, ask: Request) -> None:
    if column.null_count:
        raise DataError(
            f"{ask.name}: column {name!r} has {column.null_count} missing value(s) of "
            f"{len(column)}; drop those rows or fill them in."
        )


def labels(column: Any, name: str, ask: Request) -> Array:
    """A column of labels (n,), numbers or text."""
    import pyarrow as pa

    refuse_missing(column, name, ask)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    values = as_array(column)
    return values.astype(np.str_) if values.dtype == object else values
