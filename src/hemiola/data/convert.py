"""From one format to another, in blocks: memory does not grow with the data, except for NPZ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hemiola.data.catalog import builtin_arrays, builtin_names
from hemiola.data.disk import open_shards
from hemiola.data.dtypes import float_dtype
from hemiola.data.files import OPENERS, Source, find, read
from hemiola.data.formats import Raw, Request
from hemiola.data.manifest import is_shards
from hemiola.data.shards import ShardWriter, check_place
from hemiola.data.survey import Survey
from hemiola.data.writers import WRITERS
from hemiola.errors import OptionError

Progress = Callable[[str, int, int | None], None]
"""Told what is being done, the rows so far, and the rows in all if they are known."""


def convert(
    source: Source,
    target: str | Path,
    *,
    shards: int | None = None,
    rows_per_shard: int | None = None,
    dtype: Any = "float64",
    label: str | int | None = None,
    regression: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write data in another format.

    ``source``          what :func:`hemiola.load` reads, or a directory of shards;
    ``target``          a file .svm, .csv or .parquet (each also .gz, .bz2, .xz), or .npz; or a
                        directory, without an extension or with .shards, which must not exist;
    ``shards``          how many shards to write, of equal size;
    ``rows_per_shard``  or how many rows each gets; by default as many as fill 64 MB;
    ``dtype``           type of the features: float64 or float32;
    ``label``           CSV and Parquet: name or number of the label column;
    ``regression``      targets are real numbers, not classes;
    ``progress``        called after every block.

    The source is read twice, once to learn what is in it. Order and labels stay. Indices of LIBSVM
    lines start at 1 unless one of them is 0.
    Raises :class:`DataError` and :class:`OptionError`; nothing is left behind then.

    >>> import tempfile
    >>> from hemiola.data import load
    >>> with tempfile.TemporaryDirectory() as place:
    ...     convert("iris", f"{place}/iris.svm")
    ...     convert(f"{place}/iris.svm", f"{place}/iris", shards=2)
    ...     load(f"{place}/iris").X.shape
    (150, 4)
    """
    place = Path(target).expanduser()
    into = _extension(place)
    if into is None:
        check_place(place)
    elif shards is not None or rows_per_shard is not None:
        raise OptionError(f"{place}: only a directory has shards; leave out the extension.")
    if shards is not None and rows_per_shard is not None:
        raise OptionError("shards and rows per shard both say how to cut; give one of them.")
    for name, number in (("shards", shards), ("rows_per_shard", rows_per_shard)):
        if number is not None and number < 1:
            raise OptionError(f"{name} is {number}; it must be at least 1.")
    feed = _Feed(source, Request(str(source), float_dtype(dtype), label), regression)
    survey = Survey(feed.ask.name, into is None and not regression, regression)
    for block in feed.blocks():
        survey.see(block)
        _tell(progress, "reading", survey.rows, None)
    survey.check()
    cuts: Any = rows_per_shard
    if shards is not None:
        if shards > survey.rows:
            raise OptionError(f"{shards} shards for {survey.rows} samples; ask for fewer.")
        cuts = np.diff(np.arange(shards + 1) * survey.rows // shards).tolist()
    writer: Any
    if into is None:
        name = place.name.removesuffix(".shards")
        writer = ShardWriter(place, survey.schema(name, feed.ask.dtype), cuts)
    else:
        writer = WRITERS[into](place, survey.width)
    done = 0
    with writer:
        for block in feed.blocks():
            ready = survey.ready(block, feed.ask.dtype)
            writer.add(ready)
            done += len(ready.y)
            _tell(progress, "writing", done, survey.rows)


def _tell(progress: Progress | None, what: str, done: int, total: int | None) -> None:
    if progress is not None:
        progress(what, done, total)


def _extension(target: Path) -> str | None:
    """The format to write; None for shards."""
    suffix = target.suffix.lower()
    if suffix in OPENERS:
        suffix = target.with_suffix("").suffix.lower()
        if suffix in (".npz", ".parquet"):
            raise OptionError(f"{target}: {suffix} is compressed as it is; leave the ending out.")
    if suffix in WRITERS:
        return suffix
    if suffix in ("", ".shards") and target.suffix.lower() not in OPENERS:
        return None
    raise OptionError(
        f"{target}: cannot write {target.suffix!r}; writable are {', '.join(WRITERS)}, and "
        "directories of shards, which have no extension."
    )


@dataclass
class _Feed:
    """Blocks of a source, as often as they are asked for."""

    source: Source
    ask: Request
    regression: bool

    def blocks(self) -> Iterator[Raw]:
        source, ask = self.source, self.ask
        if isinstance(source, str) and source in builtin_names():
            ask.no_label("a built-in data set")
            yield Raw(*builtin_arrays(source))
        elif isinstance(source, str | Path) and is_shards(source):
            ask.no_label("a directory of shards")
            for part in open_shards(source).shards():
                y = part.y if part.classes is None else part.classes[part.y]
                yield Raw(part.X, y, part.weight)
        else:
            for path in find(source)[1]:
                yield from read(path, replace(ask, name=str(path)), streaming=True)
