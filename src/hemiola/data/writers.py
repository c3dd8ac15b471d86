"""Writers of data files: blocks of samples in, one file out, which appears when it is complete."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from hemiola.data.files import OPENERS
from hemiola.data.formats import Raw
from hemiola.data.join import joined
from hemiola.data.parquet import WEIGHT, WIDTH
from hemiola.data.shards import cannot_write
from hemiola.errors import DataError
from hemiola.types import Array

_WIDEST_CSV = 10_000


class FileWriter:
    """Takes blocks of labelled samples; all are alike and have ``n_features`` features."""

    holds_weights: ClassVar[bool] = False

    def __init__(self, path: Path, n_features: int) -> None:
        self.path = path
        self.n_features = n_features
        self._temporary = Path()
        self._file: Any = None

    def __enter__(self) -> FileWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        os.close(handle)
        self._temporary = Path(name)
        opener = OPENERS.get(self.path.suffix.lower(), open)
        self._file = opener(self._temporary, "wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
            self._file.close()
            if kind is None:
                os.chmod(self._temporary, 0o644)
                os.replace(self._temporary, self.path)
        except OSError as failure:
            raise cannot_write(self.path, failure) from failure
        finally:
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def add(self, block: Raw) -> None:
        """Write samples. Raises :class:`DataError` for what the format cannot hold."""
        if block.weight is not None and not self.holds_weights:
            raise DataError(
                f"{self.path}: this format has no place for sample weights; choose Parquet, NPZ "
                "or shards."
            )
        try:
            self._write(block)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _write(self, block: Raw) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        """Called after the last block."""


class LibsvmWriter(FileWriter):
    """Indices from 1; numbers in the fewest digits that read back to the same bits."""

    def _write(self, block: Raw) -> None:
        if block.y.dtype.kind not in "iufb":
            raise DataError(
                f"{self.path}: LIBSVM has numbers as labels, not text such as {block.y[0]!s}; "
                "choose CSV, Parquet, NPZ or shards."
            )
        X = sparse.csr_array(block.X)
        pairs = [
            f"{i}:{v}" for i, v in zip((X.indices + 1).tolist(), _shortest(X.data), strict=True)
        ]
        ends = X.indptr.tolist()
        lines = (
            " ".join([label, *pairs[ends[i] : ends[i + 1]]])
            for i, label in enumerate(_shortest(block.y))
        )
        self._file.write("".join(f"{line}\n" for line in lines).encode())


def _shortest(values: Array) -> list[str]:
    if values.dtype.kind != "f":
        return [str(int(value)) for value in values.tolist()]
    texts = values.astype(str).tolist() if values.dtype == np.float32 else values.tolist()
    return [str(value).removesuffix(".0") for value in texts]


class CsvWriter(FileWriter):
    """A header ``x1,...,xp,label`` and dense rows."""

    _writer: Any = None

    def _write(self, block: Raw) -> None:
        import pyarrow as pa
        from pyarrow import csv

        X = block.X
        if sparse.issparse(X):
            if self.n_features > _WIDEST_CSV:
                raise DataError(
                    f"{self.path}: CSV has a column for each of the {self.n_features:,} features; "
                    "choose LIBSVM, Parquet, NPZ or shards."
                )
            X = X.toarray()
        columns = {f"x{j + 1}": X[:, j] for j in range(X.shape[1])}
        table = pa.table({**columns, "label": block.y})
        if self._writer is None:
            options = csv.WriteOptions(quoting_style="needed")
            self._writer = csv.CSVWriter(self._file, table.schema, write_options=options)
        self._writer.write_table(table)

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()


class ParquetWriter(FileWriter):
    """A column of vectors ``features``, or of ``indices`` and of ``values``; ``label``; ``weight``
    if there are any."""

    holds_weights = True
    _writer: Any = None

    def _write(self, block: Raw) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        X = block.X
        if sparse.issparse(X):
            ends = pa.array(X.indptr.astype(np.int64))
            columns = {
                "indices": pa.LargeListArray.from_arrays(ends, X.indices),
                "values": pa.LargeListArray.from_arrays(ends, X.data),
            }
        else:
            flat = pa.array(np.ascontiguousarray(X).reshape(-1))
            columns = {"features": pa.FixedSizeListArray.from_arrays(flat, X.shape[1])}
        columns["label"] = pa.array(block.y)
        notes = {WIDTH: str(self.n_features).encode()}
        if block.weight is not None:
            columns["weight"] = pa.array(block.weight)
            notes[WEIGHT] = b"weight"
        table = pa.table(columns).replace_schema_metadata(notes)
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()


class NpzWriter(FileWriter):
    """All arrays at once: the samples must fit into memory."""

    holds_weights = True

    def __enter__(self) -> FileWriter:
        self._blocks: list[tuple[str, Raw]] = []
        return super().__enter__()

    def _write(self, block: Raw) -> None:
        self._blocks.append((self.path.name, block))

    def _finish(self) -> None:
        raw = joined(self._blocks, self.path.name)
        arrays: dict[str, Any] = {"y": raw.y}
        if raw.weight is not None:
            arrays["weight"] = raw.weight
        if sparse.issparse(raw.X):
            names = ("data", "indices", "indptr", "shape")
            arrays |= {name: getattr(raw.X, name) for name in names}
        else:
            arrays["X"] = raw.X
        np.savez(self._file, **arrays)


WRITERS: dict[str, type[FileWriter]] = {
    ".svm": LibsvmWriter,
    ".libsvm": LibsvmWriter,
    ".svmlight": LibsvmWriter,
    ".txt": LibsvmWriter,
    ".csv": CsvWriter,
    ".parquet": ParquetWriter,
    ".npz": NpzWriter,
}
