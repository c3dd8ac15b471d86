"""Arrays of shards as memory maps, and what must hold of them before a kernel may read them."""

from __future__ import annotations

import zlib
from typing import NoReturn

import numpy as np

from hemiola.data.checks import sound_csr, sound_dense
from hemiola.data.manifest import Shard, Stored
from hemiola.data.shards import Schema
from hemiola.errors import DataError
from hemiola.types import Array


def mapped(stored: Stored) -> Array:
    """An array of a file. It is private: nothing that is written to it reaches the file."""
    try:
        if stored.path.stat().st_size != stored.bytes:
            raise DataError(f"{stored.path}: has changed its size; open the directory again.")
        try:
            array: Array = np.load(stored.path, mmap_mode="c", allow_pickle=False)
        except ValueError as error:
            if "empty" not in str(error):
                raise
            array = np.load(stored.path, allow_pickle=False)  # nothing cannot be mapped
    except OSError as error:
        raise DataError(f"{stored.path}: cannot be read ({error.strerror or error}).") from error
    except DataError:
        raise
    except Exception as error:  # NumPy parses the header with tools that raise anything
        raise DataError(f"{stored.path}: is damaged ({error}); convert the data again.") from error
    return np.asarray(array)


def verify(stored: Stored) -> None:
    """Raise :class:`DataError` when the check sum of an array is wrong."""
    data = np.ascontiguousarray(mapped(stored)).reshape(-1).view(np.uint8)
    if zlib.crc32(data.data) != stored.crc32:
        raise DataError(f"{stored.path}: the check sum is wrong; copy or convert the data again.")


def check(schema: Schema, shard: Shard, arrays: dict[str, Array]) -> None:
    """Raise :class:`DataError` unless the arrays are what the (sound) manifest says they are."""
    target = schema.dtype if schema.classes is None else np.dtype(np.int64)
    kinds = {"indices": np.dtype(np.int32), "indptr": np.dtype(np.int32), "y": target}
    stored = len(arrays["indices"]) if schema.sparse and arrays["indices"].ndim == 1 else 0
    shapes = {"X": (shard.rows, schema.n_features), "indptr": (shard.rows + 1,)}
    shapes |= {"indices": (stored,), "values": (stored,)}
    for key, array in arrays.items():
        kind, shape = kinds.get(key, schema.dtype), shapes.get(key, (shard.rows,))
        if array.dtype != kind or array.shape != shape or not array.flags.c_contiguous:
            _damaged(shard, key, f"is {array.dtype} of shape {array.shape}")
    if not schema.sparse:
        if not sound_dense(arrays["X"]):
            _damaged(shard, "X", "holds NaN or infinite values")
    elif not sound_csr(arrays["values"], arrays["indices"], arrays["indptr"], schema.n_features):
        _damaged(shard, "indices", "and its fellows are no matrix of finite numbers")
    _check_targets(schema, shard, arrays)


def _check_targets(schema: Schema, shard: Shard, arrays: dict[str, Array]) -> None:
    y = arrays["y"]
    if schema.classes is None:
        if not np.isfinite(y).all():
            _damaged(shard, "y", "holds NaN or infinite values")
    elif y.min() < 0 or y.max() >= len(schema.classes):
        _damaged(shard, "y", "holds numbers of no class")
    if schema.weighted:
        weight = arrays["weight"]
        if not np.isfinite(weight).all() or weight.min() <= 0:
            _damaged(shard, "weight", "holds weights that are not positive")


def _damaged(shard: Shard, key: str, what: str) -> NoReturn:
    raise DataError(f"{shard.files[key].path}: {what}; the shard is damaged, convert again.")
