"""Tables of ratings: who gave how much to what."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from hemiola.dataset import Dataset, make_dataset
from hemiola.errors import DataError
from hemiola.types import Array

_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".bz2": bz2.decompress,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
}


class Ratings(NamedTuple):
    """Ratings with users and items by number, and what the numbers stand for.

    ``data``   X (n, 2) pairs of numbers, y (n,) ratings;
    ``users``  (U,) the original name of each user; ``items``  (I,) of each item.
    """

    data: Dataset
    users: Array
    items: Array


def read_ratings(path: str | Path, dtype: DTypeLike = np.float64) -> Ratings:
    """Read a table whose first three columns are user, item and rating, as MovieLens's
    ``ratings.csv``; it may be packed (.gz, .bz2, .xz). Further columns are left out.

    Users and items are numbered from 0 in the order of their names. Raises
    :class:`~hemiola.errors.DataError` when the file cannot be read as ratings.
    """
    path = Path(path)
    user, item, rating = _columns(path)
    users, u = np.unique(user, return_inverse=True)
    items, v = np.unique(item, return_inverse=True)
    try:
        pairs, z = np.column_stack([u, v]).astype(dtype), np.asarray(rating).astype(dtype)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: the third column holds no ratings ({error}).") from error
    return Ratings(make_dataset(pairs, z, regression=True, name=path.name), users, items)


def _columns(path: Path) -> list[Any]:
    import pyarrow
    from pyarrow import csv

    try:
        content = _UNPACK.get(path.suffix, bytes)(path.read_bytes())
        table = csv.read_csv(io.BytesIO(content))
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error}).") from error
    except (pyarrow.ArrowInvalid, lzma.LZMAError, EOFError) as error:
        raise DataError(f"{path} is no table of ratings ({error}).") from error
    if table.num_columns < 3 or not table.num_rows:
        raise DataError(f"{path}: expected rows of user, item and rating.")
    return [table.column(k).to_numpy() for k in range(3)]
