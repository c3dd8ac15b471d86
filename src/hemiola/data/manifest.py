"""Reading and checking the manifest of ``hemiola-shards-1``; nothing in it is trusted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hemiola.data.lines import LARGEST
from hemiola.data.shards import FORMAT, MANIFEST, Schema
from hemiola.errors import DataError
from hemiola.types import Array


@dataclass(frozen=True)
class Stored:
    """One array on disk: its file, the size of that, and the CRC-32 of the array."""

    path: Path
    bytes: int
    crc32: int


@dataclass(frozen=True)
class Shard:
    """One shard: how many rows, and its arrays by key."""

    rows: int
    files: dict[str, Stored]


def is_shards(path: str | Path) -> bool:
    """Whether a path is that of a directory of shards."""
    try:
        return (Path(path).expanduser() / MANIFEST).is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def read_manifest(directory: Path) -> tuple[Schema, list[Shard]]:
    """What a directory of shards holds. The files must be there and have their sizes.

    Raises :class:`DataError` for anything else.
    """
    path = directory / MANIFEST
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{directory}: holds no {MANIFEST}; make shards with `hemiola convert`."
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is damaged ({error}); convert the data again.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f"{path}: is not of the format {FORMAT}; convert the data again.")
    try:
        schema = _schema(document)
        shards = [_shard(directory, entry, schema) for entry in document["shards"]]
        if not shards or sum(shard.rows for shard in shards) != document["rows"]:
            raise ValueError("the rows of the shards do not sum up")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path}: is damaged ({type(error).__name__}: {error}); convert the data again."
        ) from error
    for shard in shards:
        for stored in shard.files.values():
            _check_size(stored)
    return schema, shards


def _schema(document: dict[str, Any]) -> Schema:
    dtype = np.dtype(document["dtype"])
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"features of type {dtype}")
    n_features = _whole(document["n_features"], 1, LARGEST + 1)
    classes = None
    if document["classes"] is not None:
        classes = _classes(document["classes"]["values"], document["classes"]["dtype"])
    sparse, weighted = document["sparse"], document["weighted"]
    if not isinstance(sparse, bool) or not isinstance(weighted, bool):
        raise ValueError("sparse and weighted must be true or false")
    return Schema(str(document["name"]), n_features, sparse, dtype, classes, weighted)


def _classes(values: Any, dtype: Any) -> Array:
    kind = np.dtype(dtype)
    if kind.kind not in "biufU" or not isinstance(values, list):
        raise ValueError("classes must be numbers or text")
    classes = np.array(values, kind)
    if classes.ndim != 1 or not len(classes) or classes.tolist() != sorted(set(values)):
        raise ValueError("classes must be different and in order")
    return classes


def _shard(directory: Path, entry: dict[str, Any], schema: Schema) -> Shard:
    keys = {"values", "indices", "indptr"} if schema.sparse else {"X"}
    keys |= {"y"} | ({"weight"} if schema.weighted else set())
    if set(entry["files"]) != keys:
        raise ValueError(f"a shard has not the files {', '.join(sorted(keys))}")
    files = {}
    for key, about in entry["files"].items():
        name = about["file"]
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"the file name {name!r}")
        files[key] = Stored(
            directory / name, _whole(about["bytes"], 0), _whole(about["crc32"], 0, 2**32 - 1)
        )
    return Shard(_whole(entry["rows"], 1), files)


def _whole(number: Any, least: int, most: float = math.inf) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise ValueError(f"{number!r} is not a whole number from {least} to {most}")
    return number


def _check_size(stored: Stored) -> None:
    try:
        size = stored.path.stat().st_size
    except OSError as error:
        raise DataError(
            f"{stored.path}: is missing ({error.strerror or error}); copy the directory again."
        ) from error
    if size != stored.bytes:
        raise DataError(
            f"{stored.path}: has {size:,} bytes instead of {stored.bytes:,}; "
            "copy the directory again."
        )
