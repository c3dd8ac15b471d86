"""PyTorch's data sets as data of this library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from hemiola.data.feeds import BlockStream
from hemiola.dataset import Dataset, make_dataset
from hemiola.errors import DataError
from hemiola.types import Array

_BLOCK = 256


def from_torch(
    data: Any, classes: Any = None, *, regression: bool = False, name: str = "data"
) -> Dataset | BlockStream:
    """A ``torch.utils.data.Dataset`` of pairs (sample, target), read once into memory; of an
    ``IterableDataset`` a stream, whose samples are trained on as they come.

    A sample is a tensor or an array of any shape, and becomes a row: give the objective its
    ``shape``. A stream has labels out of ``classes``, or real targets if that is None.

    Raises :class:`~hemiola.errors.DataError` for what is not made of such pairs.

    >>> pairs = torch.utils.data.TensorDataset(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 1]))
    >>> from_torch(pairs).X.shape
    (3, 4)
    """
    if isinstance(data, IterableDataset):
        return _stream(data, classes, name)
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise DataError(f"{name}: {type(data).__name__} is no torch.utils.data.Dataset.")
    X, y = _joined([_pair(data[i], name) for i in range(len(data))], name)
    return make_dataset(X, y, regression=regression, name=name)


def _stream(data: Any, classes: Any, name: str) -> BlockStream:
    first = next(iter(data), None)
    if first is None:
        raise DataError(f"{name}: the data set is empty.")
    x, _ = _pair(first, name)
    return BlockStream(_blocks(data, name), x.size, classes, x.dtype.name, name=name)


def _blocks(data: Any, name: str) -> Iterator[tuple[Array, Array]]:
    pairs: list[tuple[Array, Any]] = []
    for item in data:
        pairs.append(_pair(item, name))
        if len(pairs) == _BLOCK:
            yield _joined(pairs, name)
            pairs = []
    if pairs:
        yield _joined(pairs, name)


def _pair(item: Any, name: str) -> tuple[Array, Any]:
    """A sample (p,) of float32 or float64, and its target."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(
            f"{name} gave {type(item).__name__}; its items must be pairs of a sample and a target."
        )
    x = np.asarray(item[0].detach().cpu() if torch.is_tensor(item[0]) else item[0]).ravel()
    y = item[1].item() if torch.is_tensor(item[1]) else item[1]
    return x if x.dtype == np.float64 else x.astype(np.float32), y


def _joined(pairs: list[tuple[Array, Any]], name: str) -> tuple[Array, Array]:
    if not pairs:
        raise DataError(f"{name}: the data set is empty.")
    if len({x.shape for x, _ in pairs}) > 1:
        raise DataError(f"{name}: its samples have different shapes; make them alike.")
    return np.stack([x for x, _ in pairs]), np.array([y for _, y in pairs])
