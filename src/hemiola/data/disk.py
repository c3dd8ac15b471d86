"""Data larger than memory: shards on disk that are mapped one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from hemiola.data.checks import touch
from hemiola.data.formats import Raw
from hemiola.data.join import stacked
from hemiola.data.manifest import Shard, read_manifest
from hemiola.data.mapped import check, mapped, verify
from hemiola.data.prepare import Standardizer
from hemiola.data.shards import Schema
from hemiola.dataset import Dataset, as_regression
from hemiola.errors import DataError, OptionError
from hemiola.rng import stream
from hemiola.types import Array

_LOOKED_INTO = 64  # shards that a sample comes from, at most


class Part(NamedTuple):
    """Consecutive rows of one shard."""

    shard: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class DiskShards:
    """Samples on disk, in parts: whole shards, or ranges of their rows.

    Build one with :func:`open_shards`. A part is a :class:`Dataset` over memory maps: nothing is
    copied, and the system gives pages back when memory is short. What a part holds is checked when
    it is first opened.

    ``standardizer`` is applied to every part, which then is a copy in memory; with ``real``,
    numeric classes are real targets; ``window`` parts are mixed in training, see
    :class:`~hemiola.partition.Streamed`.
    """

    directory: Path
    schema: Schema
    files: list[Shard]
    parts: tuple[Part, ...]
    standardizer: Standardizer | None = None
    real: bool = False
    window: int = 1
    checked: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The rows of each part."""
        return tuple(part.last - part.first for part in self.parts)

    @property
    def name(self) -> str:
        return self.schema.name

    @property
    def n_features(self) -> int:
        return self.schema.n_features

    @property
    def classes(self) -> Array | None:
        return None if self.real else self.schema.classes

    @property
    def n_classes(self) -> int:
        return 0 if self.classes is None else len(self.classes)

    @property
    def is_sparse(self) -> bool:
        return self.schema.sparse

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.schema.dtype

    @property
    def resident_bytes(self) -> int:
        """The memory that the largest part takes, besides pages of files."""
        if self.standardizer is None:
            return 0
        return max(
            (part.last - part.first) * shard.files[key].bytes // shard.rows
            for part in self.parts
            for shard in [self.files[part.shard]]
            for key in [("values" if self.is_sparse else "X")]
        )

    def part(self, number: int) -> Dataset:
        """One part. Raises :class:`DataError` when its files are damaged."""
        shard, first, last = self.parts[number]
        about = self.files[shard]
        arrays = {key: mapped(stored) for key, stored in about.files.items()}
        if shard in self.checked:
            for array in arrays.values():
                touch(array.reshape(-1).view(np.uint8))
        else:
            check(self.schema, about, arrays)
            self.checked.add(shard)
        data = self._dataset(arrays, first, last)
        return data if self.standardizer is None else self.standardizer.apply(data)

    def _dataset(self, arrays: dict[str, Array], first: int, last: int) -> Dataset:
        weight = arrays["weight"][first:last] if self.schema.weighted else None
        y = arrays["y"][first:last]
        y = y if self.schema.classes is None else y.astype(np.intp, copy=False)
        if self.is_sparse:
            indptr = arrays["indptr"]
            a, b = int(indptr[first]), int(indptr[last])
            indptr = indptr[first : last + 1] - a if first or last + 1 < len(indptr) else indptr
            X: Any = sparse.csr_array(
                (arrays["values"][a:b], arrays["indices"][a:b], indptr),
                shape=(last - first, self.n_features),
            )
        else:
            X = arrays["X"][first:last]
        data = Dataset(X, y, self.schema.classes, weight, self.name)
        return as_regression(data) if self.real else data

    def verify(self) -> None:
        """Read everything and compare it with the check sums. Raises :class:`DataError`."""
        for shard in self.files:
            for stored in shard.files.values():
                verify(stored)

    def shards(self, order: Iterable[int] | None = None) -> Iterator[Dataset]:
        """All parts, or those of these numbers, one after another.

        The next part is brought into memory by a thread while the present one is in use. Keep no
        part longer than needed, and two are held at a time.
        """
        numbers = iter(range(len(self.parts)) if order is None else order)
        with ThreadPoolExecutor(1, "hemiola-read-ahead") as reader:
            number = next(numbers, None)
            coming = None if number is None else reader.submit(self.part, number)
            while coming is not None:
                present = coming.result()
                number = next(numbers, None)
                coming = None if number is None else reader.submit(self.part, number)
                yield present
                del present

    def mean(self, function: Callable[[Dataset], float]) -> float:
        """The mean over all samples of what ``function`` says is the mean over a part's."""
        total = sum(float(function(part)) * len(part) for part in self.shards())
        return total / len(self)

    def sample(self, size: int, seed: int = 0) -> Dataset:
        """Rows in memory: all of them if there are no more than ``size``, else about so many, drawn
        without replacement from at most 64 parts."""
        if size >= len(self):
            return self._gathered(range(len(self.parts)), None)
        rng = stream(seed, "sample-of-shards")
        chosen = np.sort(rng.permutation(len(self.parts))[:_LOOKED_INTO])
        share = min(1.0, size / sum(self.sizes[i] for i in chosen))
        rows = [
            np.sort(rng.permutation(self.sizes[i])[: max(1, round(share * self.sizes[i]))])
            for i in chosen
        ]
        return self._gathered(chosen.tolist(), rows)

    def load(self) -> Dataset:
        """Everything as one :class:`Dataset`: mapped if it is one part, else copied into memory.

        Raises :class:`DataError` when there is not memory enough.
        """
        if len(self.parts) == 1:
            return self.part(0)
        needed = sum(stored.bytes for shard in self.files for stored in shard.files.values())
        if needed > _available():
            raise DataError(
                f"{self.directory}: needs {needed / 1e9:.1f} GB of memory, more than there is; "
                "train from disk with hemiola.open_shards, or `hemiola train`."
            )
        return self._gathered(range(len(self.parts)), None)

    def _gathered(self, numbers: Iterable[int], rows: list[Array] | None) -> Dataset:
        """These parts below each other in memory, or these rows of each."""
        numbers = list(numbers)
        taken = [
            part if rows is None else part.take(rows[i])
            for i, part in enumerate(self.shards(numbers))
        ]
        y = np.concatenate([part.y for part in taken])
        weight = None
        if self.schema.weighted:
            weight = np.concatenate([part.weight for part in taken])
            weight = weight / weight.mean()
        if self.is_sparse:
            X = stacked([("", Raw(part.X, part.y)) for part in taken], self.n_features)
        else:
            X = np.concatenate([part.X for part in taken])
        return Dataset(X, y, taken[0].classes, weight, self.name)

    def cut(self, least: int) -> DiskShards:
        """The same samples in at least ``least`` parts: itself, or with every part cut into ranges.

        Raises :class:`DataError` when there are not so many samples.
        """
        if len(self) < least:
            raise DataError(
                f"{least} workers for {len(self)} samples: each worker needs at "
                f"least one, so use at most {len(self)} workers."
            )
        parts = list(self.parts)
        while len(parts) < least:  # halve the largest
            i = max(range(len(parts)), key=lambda k: parts[k].last - parts[k].first)
            shard, first, last = parts[i]
            middle = (first + last + 1) // 2
            parts[i : i + 1] = [Part(shard, first, middle), Part(shard, middle, last)]
        return replace(self, parts=tuple(parts))

    def split(self, test_size: float = 0.2) -> tuple[DiskShards, DiskShards]:
        """(train, test): the last rows of every part are held out.

        Rows that were sorted should be shuffled before they are converted.
        Raises :class:`DataError` when one of them would be empty.
        """
        if not 0.0 < test_size < 1.0:
            raise DataError(
                f"test_size is {test_size}; it must lie between 0 and 1, for example 0.2."
            )
        train, test = [], []
        for shard, first, last in self.parts:
            middle = last - int(np.ceil(test_size * (last - first)))
            train.append(Part(shard, first, middle))
            test.append(Part(shard, middle, last))
        train = [part for part in train if part.last > part.first]
        if not train:
            raise DataError(f"{self.name}: test_size={test_size} leaves no training samples.")
        return replace(self, parts=tuple(train)), replace(self, parts=tuple(test))

    def standardized(self) -> DiskShards:
        """On one scale, fitted in one pass over all samples; see :class:`Standardizer`."""
        plain = replace(self, standardizer=None)
        return replace(self, standardizer=Standardizer.fit_parts(plain.shards()))

    def as_regression(self) -> DiskShards:
        """With real targets, for squared loss. Raises :class:`DataError` for labels of text."""
        if self.classes is None:
            return self
        as_regression(
            Dataset(np.empty((0, 0)), np.empty(0, np.intp), self.classes, None, self.name)
        )
        return replace(self, real=True)


def open_shards(directory: str | Path, window: int = 1) -> DiskShards:
    """Open a directory that ``hemiola convert`` wrote, of any size.

    Pass it to :func:`hemiola.fit` as ``data``, or go through :meth:`DiskShards.shards`. In training
    rows are shuffled within a shard, and mini-batches within ``window`` shards of a worker.
    Raises :class:`DataError` when the directory is not one of shards, or not complete.

    >>> import tempfile
    >>> from hemiola.data import convert
    >>> with tempfile.TemporaryDirectory() as place:
    ...     convert("iris", f"{place}/iris", shards=3)
    ...     data = open_shards(f"{place}/iris")
    ...     data.sizes, [len(part) for part in data.shards()]
    ((50, 50, 50), [50, 50, 50])
    """
    if window < 1:
        raise OptionError(f"window is {window}; it must be at least 1.")
    place = Path(directory).expanduser()
    if not place.is_dir():
        raise DataError(f"{directory}: is not a directory; make shards with `hemiola convert`.")
    schema, files = read_manifest(place)
    parts = tuple(Part(i, 0, shard.rows) for i, shard in enumerate(files))
    return DiskShards(place, schema, files, parts, window=window)


def _available() -> int:
    """Bytes of memory that are free or can be freed."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(x.split()[1]) << 10 for x in file if x.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError) as error:
        raise OptionError("it is unknown how much memory there is.") from error
