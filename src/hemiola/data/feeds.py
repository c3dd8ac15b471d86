"""Samples that arrive: blocks of a generator, and the lines of a file that grows.

Unlike a distribution, what arrives is there once. Draws take it in order of asking, so a run is
repeatable only where its discipline fixes that order, and it cannot be resumed. When nothing more
comes, training ends well, with the model so far.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

import numpy as np
from scipy import sparse

from hemiola.data.dtypes import float_dtype
from hemiola.data.libsvm import check_libsvm
from hemiola.data.prepare import by_class
from hemiola.dataset import Dataset, make_dataset
from hemiola.errors import DataError, OptionError, StreamEnded
from hemiola.types import Array

_READ = 1 << 20
_SUFFIXES = {".svm": "libsvm", ".libsvm": "libsvm", ".svmlight": "libsvm", ".csv": "csv"}


@dataclass(eq=False)
class BlockStream:
    """A stream of blocks ``(X, y)`` from any iterable, such as a generator.

    ``X`` is (m, n_features), dense or sparse, with m as it comes; ``y`` (m,) holds labels out of
    ``classes``, or real targets if that is None. The first ``held_out`` samples are evaluated on,
    and are not trained on. One draw may be shorter than asked for: the last one.
    Engines with several processes cannot share what arrives in one of them.

    >>> blocks = ((np.full((3, 2), i), [0, 1, 1]) for i in range(2))
    >>> stream = BlockStream(blocks, n_features=2, classes=[0, 1])
    >>> [len(stream.draw(np.random.default_rng(0), 4)) for _ in range(2)]
    [4, 2]
    """

    blocks: Iterable[tuple[Any, Any]]
    n_features: int
    classes: Any = None
    dtype: Any = "float64"
    held_out: int = 1000
    name: str = "stream"
    _arrived: Iterator[tuple[Any, Any]] = field(init=False, repr=False)
    _rest: Dataset | None = field(default=None, init=False, repr=False)
    _taken: int = field(default=0, init=False, repr=False)
    _lock: Any = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self.dtype = float_dtype(self.dtype)
        self._arrived = iter(self.blocks)
        if self.n_features < 1 or self.held_out < 1:
            raise OptionError("n_features and held_out must be at least 1.")
        if self.classes is not None:
            self.classes = np.unique(np.asarray(self.classes))
            if len(self.classes) < 2:
                raise OptionError("give two classes or more, or None for real targets.")

    def __getstate__(self) -> NoReturn:
        raise OptionError(
            f"{self.name}: arrives in one process; use engine serial, threads or simulator."
        )

    @property
    def n_classes(self) -> int:
        return 0 if self.classes is None else len(self.classes)

    def draw(self, rng: np.random.Generator, size: int) -> Dataset:
        """The next ``size`` samples. Raises :class:`StreamEnded` when there are none, and
        :class:`DataError` for a block that is not what it should be."""
        if size < 1:
            raise OptionError(f"size is {size}; it must be at least 1.")
        with self._lock:
            taken: list[Dataset] = []
            while (missing := size - sum(map(len, taken))) > 0:
                block = self._rest if self._rest is not None else self._next()
                self._rest = None
                if block is None:
                    break
                if len(block) > missing:
                    rows = np.arange(len(block))
                    self._rest, block = block.take(rows[missing:]), block.take(rows[:missing])
                taken.append(block)
            if not taken:
                raise StreamEnded(f"{self.name} ended after {self._taken:,} samples")
            self._taken += sum(map(len, taken))
        return taken[0] if len(taken) == 1 else self._joined(taken)

    def _next(self) -> Dataset | None:
        """The next block that is not empty; None at the end."""
        for block in self._arrived:
            if not isinstance(block, tuple | list) or len(block) != 2:
                raise DataError(
                    f"{self.name} gave {type(block).__name__}; give pairs (X, y) of arrays."
                )
            X, y = block
            if np.shape(y)[0]:
                return self._checked(X, y)
        return None

    def _checked(self, X: Any, y: Any) -> Dataset:
        data = make_dataset(X, y, regression=self.classes is None, name=self.name)
        if data.n_features != self.n_features:
            raise DataError(
                f"{self.name} gave {data.n_features} features, not {self.n_features}; "
                "correct n_features, or the blocks."
            )
        X = data.X.astype(self.dtype, copy=False)
        if self.classes is None:
            return Dataset(X, data.y.astype(self.dtype), None, None, self.name)
        return Dataset(X, by_class(np.asarray(y).ravel(), self.classes, self.name), self.classes,
                       None, self.name)  # fmt: skip

    def _joined(self, blocks: Sequence[Dataset]) -> Dataset:
        kinds = {block.is_sparse for block in blocks}
        if len(kinds) > 1:
            raise DataError(f"{self.name} gave dense and sparse blocks; give blocks of one kind.")
        X: Any = [block.X for block in blocks]
        X = sparse.csr_array(sparse.vstack(X)) if True in kinds else np.concatenate(X)
        y = np.concatenate([block.y for block in blocks])
        return Dataset(X, y, self.classes, None, self.name)


def follow(
    path: str | Path,
    n_features: int,
    *,
    classes: Any = None,
    timeout: float = 10.0,
    poll: float = 0.1,
    zero_based: bool = False,
    dtype: Any = "float64",
    held_out: int = 1000,
) -> BlockStream:
    """A stream of the lines of a file that grows, like ``tail -f`` from its beginning.

    The file is LIBSVM, with indices from 1 unless ``zero_based``, or CSV with commas, its label in
    the last column; a first line of names is skipped. A line counts once its line feed is written.
    The stream ends when nothing came for ``timeout`` seconds; the file is looked at every ``poll``
    seconds. The other arguments are those of :class:`BlockStream`.
    Raises :class:`DataError`, now or from a draw, for a file that cannot be read, shrinks, or has
    a line that is not what it should be.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".svm") as file:
    ...     _ = file.write("1 1:0.5\\n0 2:2\\n1 1:1 2:")
    ...     file.flush()
    ...     lines = follow(file.name, 2, classes=[0, 1], timeout=0)
    ...     lines.draw(np.random.default_rng(0), 5).X.toarray().tolist()
    [[0.5, 0.0], [0.0, 2.0]]
    """
    place = Path(path).expanduser()
    form = _SUFFIXES.get(place.suffix.lower())
    if form is None:
        raise DataError(f"{path}: only {', '.join(_SUFFIXES)} can be followed, line by line.")
    if not place.is_file():
        raise DataError(f"{path}: there is no such file; start it before it is followed.")
    if timeout < 0 or poll <= 0:
        raise OptionError("timeout must not be negative, and poll must be positive.")
    kind = float_dtype(dtype)
    texts = _grown(place, timeout, poll)
    if form == "libsvm":
        blocks = _libsvm_blocks(place, texts, n_features, int(not zero_based), kind)
    else:
        blocks = _csv_blocks(place, texts)
    return BlockStream(blocks, n_features, classes, kind, held_out, name=str(path))


def _grown(path: Path, timeout: float, poll: float) -> Iterator[bytes]:
    """Whole lines, as they appear."""
    rest, last = b"", time.monotonic()
    with path.open("rb") as file:
        while True:
            read = file.read(_READ)
            if read:
                last = time.monotonic()
                whole, feed, rest = (rest + read).rpartition(b"\n")
                if feed:
                    yield whole + feed
                continue
            if os.fstat(file.fileno()).st_size < file.tell():
                raise DataError(f"{path}: has become shorter; a file to follow may only grow.")
            if time.monotonic() - last >= timeout:
                return
            time.sleep(poll)


def _libsvm_blocks(
    path: Path, texts: Iterator[bytes], width: int, first: int, dtype: np.dtype[Any]
) -> Iterator[tuple[Any, Array]]:
    done = 0
    for text in texts:
        X, y = check_libsvm(text, dtype, str(path), done, (first, first + width - 1))
        done += text.count(b"\n")
        csr = (X.data, X.indices - first, X.indptr)
        yield sparse.csr_array(csr, shape=(X.shape[0], width)), y


def _csv_blocks(path: Path, texts: Iterator[bytes]) -> Iterator[tuple[Array, Array]]:
    done = 0
    for text in texts:
        X, y = [], []
        for line in text.decode("utf-8", "replace").splitlines():
            done += 1
            cells = [cell.strip() for cell in line.removeprefix("\ufeff").split(",")]
            if cells == [""]:
                continue
            try:
                X.append([float(cell) for cell in cells[:-1]])
                y.append(cells[-1])
            except ValueError as error:
                if done > 1:
                    raise DataError(f"{path}: line {done}: {error}.") from error
        if len({len(row) for row in X}) > 1:
            raise DataError(f"{path}: the lines up to {done} differ in their number of columns.")
        yield np.array(X), _numbers_if_possible(np.array(y))


def _numbers_if_possible(y: Array) -> Array:
    try:
        return y.astype(np.float64)
    except ValueError:
        return y
