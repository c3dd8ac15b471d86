"""Nests of arrays on disk: one NPZ file, written atomically, read without pickle.

The file holds the arrays as members ``0``, ``1``, ... and a JSON text ``tree`` in which
``{"$array": i}`` stands for member i. NPZ members carry check sums, so damage is noticed.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from hemiola.errors import CheckpointError, DataError
from hemiola.types import Array

_REFERENCE = "$array"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: readers see the old file or the new one, never a part.

    Raises :class:`DataError` when the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({error.strerror or error}); choose a place you may write to."
        ) from error


def save_nest(path: Path, nest: Any) -> None:
    """Write a nest of dicts, lists, arrays, numbers and text."""
    write_atomically(path, nest_to_bytes(nest))


def nest_to_bytes(nest: Any) -> bytes:
    """What :func:`save_nest` writes.

    >>> nest_from_bytes(nest_to_bytes({"t": 3, "w": np.zeros(2)}))
    {'t': 3, 'w': array([0., 0.])}
    """
    arrays: list[Array] = []
    tree = json.dumps(_flatten(nest, arrays))
    buffer = io.BytesIO()
    members = {str(i): array for i, array in enumerate(arrays)}
    np.savez(buffer, tree=np.array(tree), **members)  # type: ignore[arg-type]
    return buffer.getvalue()


def nest_from_bytes(content: bytes) -> Any:
    """The inverse of :func:`nest_to_bytes`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return _restore(json.loads(str(file["tree"])), file)


def load_nest(path: Path) -> Any:
    """Read what :func:`save_nest` wrote. Raises :class:`CheckpointError` for anything else."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return _restore(json.loads(str(file["tree"])), file)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file; check the path.") from None
    except PermissionError:
        raise CheckpointError(f"{path}: no permission to read it.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError,
            zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        raise CheckpointError(
            f"{path} is damaged or was not written by hemiola; use another copy or start anew."
        ) from error


def _flatten(nest: Any, arrays: list[Array]) -> Any:
    if isinstance(nest, np.ndarray):
        if nest.dtype.hasobject:
            raise DataError("arrays of Python objects cannot be stored; make them numbers or text.")
        arrays.append(nest)
        return {_REFERENCE: len(arrays) - 1}
    if isinstance(nest, dict):
        return {str(key): _flatten(value, arrays) for key, value in nest.items()}
    if isinstance(nest, list | tuple):
        return [_flatten(value, arrays) for value in nest]
    if isinstance(nest, np.generic):
        return nest.item()
    return nest


def _restore(tree: Any, members: Any) -> Any:
    if isinstance(tree, dict):
        if _REFERENCE in tree:
            return members[str(tree[_REFERENCE])]
        return {key: _restore(value, members) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_restore(value, members) for value in tree]
    return tree
