"""Shards on disk, ``hemiola-shards-1``: a directory of raw arrays and a manifest, to be mapped.

    manifest.json        what follows, as plain data
    00000.X.npy          dense features (n_i, p), or
    00000.values.npy     of CSR rows: values, indices (from 0, ascending in a row) and indptr
    00000.y.npy          (n_i,) class numbers (int64), or real targets of the features' type
    00000.weight.npy     (n_i,) sample weights, of mean 1 over all shards, if there are any

The manifest names ``format``, ``name``, ``rows``, ``n_features``, ``sparse``, ``dtype``,
``weighted``, ``classes`` (null, or their dtype and values) and ``shards``: the rows of each and,
for each of its files, the size in bytes and the CRC-32 of the array. No file holds a pickle.

A directory is written beside its place and renamed when it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from scipy import sparse

from hemiola.data.formats import Raw
from hemiola.data.join import stacked
from hemiola.errors import DataError
from hemiola.types import Array

FORMAT = "hemiola-shards-1"
MANIFEST = "manifest.json"
SHARD_BYTES = 1 << 26
_MOST_STORED = 2**31 - 1  # so that indices are 32 bits wide


@dataclass(frozen=True)
class Schema:
    """What all shards have in common. ``classes`` (C,) are None for real targets."""

    name: str
    n_features: int
    sparse: bool
    dtype: np.dtype[Any]
    classes: Array | None
    weighted: bool = False

    def document(self) -> dict[str, Any]:
        classes = self.classes
        return {
            "format": FORMAT,
            "name": self.name,
            "n_features": self.n_features,
            "sparse": self.sparse,
            "dtype": self.dtype.name,
            "weighted": self.weighted,
            "classes": None
            if classes is None
            else {"dtype": classes.dtype.str, "values": classes.tolist()},
        }


class ShardWriter:
    """Collects blocks of samples and writes a shard whenever there is enough of them.

    ``rows`` of every shard, or of each one; as many as fill 64 MB if None. Use it in a ``with``
    statement: the directory appears when that ends well, and nothing is left behind when it does
    not.

    >>> import tempfile, numpy as np
    >>> schema = Schema("two", 1, False, np.dtype("float64"), np.array([0, 1]))
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with ShardWriter(Path(place) / "two", schema) as writer:
    ...         writer.add(Raw(np.array([[1.0], [2.0]]), np.array([0, 1])))
    ...     sorted(path.name for path in (Path(place) / "two").iterdir())
    ['00000.X.npy', '00000.y.npy', 'manifest.json']
    """

    def __init__(
        self, directory: Path, schema: Schema, rows: int | Sequence[int] | None = None
    ) -> None:
        self.directory = directory
        self.schema = schema
        self.rows = rows
        self._blocks: list[Raw] = []
        self._shards: list[dict[str, Any]] = []
        self._temporary = Path()

    def __enter__(self) -> ShardWriter:
        check_place(self.directory)
        try:
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            made = tempfile.mkdtemp(prefix=f".{self.directory.name}.", dir=self.directory.parent)
        except OSError as error:
            raise cannot_write(self.directory, error) from error
        self._temporary = Path(made)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def add(self, block: Raw) -> None:
        """Take in samples: X as the schema says, y as class numbers or real targets."""
        while (room := self._room(block)) < len(block.y):
            self._blocks.append(_cut(block, 0, room))
            self._flush()
            block = _cut(block, room, len(block.y))
        self._blocks.append(block)

    def _room(self, block: Raw) -> int:
        """How many rows of a block the present shard can take: at least one if it is empty."""
        held = sum(len(b.y) for b in self._blocks)
        if self.rows is not None:
            rows = self.rows if isinstance(self.rows, int) else self.rows[len(self._shards)]
            most = rows - held
        else:
            left = SHARD_BYTES - sum(map(_bytes, self._blocks))
            most = max(int(held == 0), left * len(block.y) // max(1, _bytes(block)))
        if not self.schema.sparse:
            return most
        left = _MOST_STORED - sum(b.X.nnz for b in self._blocks)
        return min(most, int(np.searchsorted(block.X.indptr, left, side="right")) - 1)

    def _flush(self) -> None:
        blocks, self._blocks = [block for block in self._blocks if len(block.y)], []
        if not blocks:
            return
        schema, number = self.schema, len(self._shards)
        y = np.concatenate([block.y for block in blocks])
        arrays: dict[str, Array] = {
            "y": y.astype(schema.dtype if schema.classes is None else np.int64, copy=False)
        }
        if schema.weighted:
            weight = [np.asarray(block.weight) for block in blocks]
            arrays["weight"] = np.concatenate(weight).astype(schema.dtype, copy=False)
        if schema.sparse:
            X = stacked([("", block) for block in blocks], schema.n_features)
            arrays |= {"values": X.data, "indices": X.indices, "indptr": X.indptr}
        else:
            arrays["X"] = np.concatenate([block.X for block in blocks])
        for key in {"X", "values"} & set(arrays):
            arrays[key] = arrays[key].astype(schema.dtype, copy=False)
        files = {key: self._save(f"{number:05d}.{key}.npy", a) for key, a in arrays.items()}
        self._shards.append({"rows": len(y), "files": files})

    def _save(self, name: str, array: Array) -> dict[str, Any]:
        array = np.ascontiguousarray(array)
        try:
            with open(self._temporary / name, "wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
        except OSError as error:
            raise cannot_write(self.directory, error) from error
        return {
            "file": name,
            "bytes": size,
            "crc32": zlib.crc32(array.reshape(-1).view(np.uint8).data),
        }

    def _publish(self) -> None:
        self._flush()
        rows = sum(shard["rows"] for shard in self._shards)
        if not rows:
            raise DataError(f"{self.directory}: there are no samples to write.")
        document = {**self.schema.document(), "rows": rows, "shards": self._shards}
        try:
            with open(self._temporary / MANIFEST, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(self._temporary, 0o755)
            os.replace(self._temporary, self.directory)
        except OSError as error:
            raise cannot_write(self.directory, error) from error


def check_place(directory: Path) -> None:
    """Raise :class:`DataError` where a directory of shards cannot be put."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise DataError(f"{directory} exists already; remove it or choose another name.")


def cannot_write(place: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write {place} ({error.strerror or error}); choose a place with room that you "
        "may write to."
    )


def _cut(block: Raw, first: int, last: int) -> Raw:
    weight = None if block.weight is None else block.weight[first:last]
    return Raw(block.X[first:last], block.y[first:last], weight)


def _bytes(block: Raw) -> int:
    X = block.X
    if sparse.issparse(X):
        return int(X.data.nbytes + X.indices.nbytes + X.indptr.nbytes)
    return int(X.nbytes)
