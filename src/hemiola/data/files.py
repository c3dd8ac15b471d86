"""From words to files, and from files to blocks of samples."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from hemiola.data.catalog import builtin_names
from hemiola.data.formats import Raw, Request, read_npz
from hemiola.data.libsvm import read_libsvm
from hemiola.data.parquet import parquet_blocks, read_parquet
from hemiola.data.tables import csv_blocks, read_csv
from hemiola.errors import DataError, HemiolaError, nearest

Reader = Callable[[BinaryIO, Request], Iterator[Raw]]
Source = str | Path | Sequence[str | Path]


class Format(NamedTuple):
    """How a format is read: as fast as can be, or in blocks where memory is short."""

    name: str
    whole: Reader
    blocks: Reader


def _at_once(read: Callable[[BinaryIO, Request], Raw]) -> Reader:
    def blocks(file: BinaryIO, ask: Request) -> Iterator[Raw]:
        yield read(file, ask)

    return blocks


_LIBSVM = Format("LIBSVM", read_libsvm, read_libsvm)
_NPZ = _at_once(read_npz)
_FORMATS = {
    ".svm": _LIBSVM,
    ".libsvm": _LIBSVM,
    ".svmlight": _LIBSVM,
    ".txt": _LIBSVM,
    ".csv": Format("CSV", _at_once(read_csv), csv_blocks),
    ".parquet": Format("Parquet", _at_once(read_parquet), parquet_blocks),
    ".npz": Format("NPZ", _NPZ, _NPZ),
}
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_READABLE = f"{', '.join(_FORMATS)}, each also with {', '.join(OPENERS)}"
_CHUNK = 1 << 20
_MAGIC = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP or NPZ archive",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "gzip-compressed",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"\x93NUMPY": "a single NumPy array (.npy)",
}


def find(source: Source) -> tuple[str, list[Path]]:
    """The name of the data, and the regular files that ``source`` means: at least one, none empty.

    Several files come from a list, from a pattern such as ``part-*.svm``, or from a directory.
    """
    if not isinstance(source, str | Path):
        paths = [path for one in source for path in find(one)[1]]
        if not paths:
            raise DataError("the list of files is empty; name at least one file.")
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        return paths[0].name + more, paths
    found = _matches(source)
    if found is not None:
        return str(Path(source).name), [_regular(path) for path in found]
    path = _locate(source)
    if not path.is_dir():
        return path.name, [_regular(path)]
    paths = [_regular(path) for path in _parts(path)]
    return (paths[0].name if len(paths) == 1 else path.name), paths


def _matches(source: str | Path) -> list[Path] | None:
    """What a pattern matches; None if it is no pattern. Numbers sort as numbers."""
    text = str(source)
    if not re.search(r"[*?[]", text) or "\0" in text or Path(text).exists():
        return None
    found = sorted((Path(match) for match in glob(str(Path(text).expanduser()))), key=_natural)
    if not found:
        raise DataError(f"{text}: no file matches; check the pattern (now in {Path.cwd()}).")
    return found


def _natural(path: Path) -> list[tuple[int, str]]:
    pieces = re.split(r"(\d+)", str(path))
    return [(int(piece), "") if piece.isdecimal() else (0, piece) for piece in pieces]


def _locate(source: str | Path) -> Path:
    """The path that ``source`` means; there is something."""
    try:
        path = Path(source).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(_missing(str(source))) from error
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{str(source)!r} cannot be opened ({why}); check the path.") from error
    return path


def _regular(path: Path) -> Path:
    status = _locate(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: is not a regular file; save the data to a file first.")
    if status.st_size == 0:
        raise DataError(f"{path}: the file is empty; give a file with data.")
    return path


def _missing(source: str) -> str:
    plain = not Path(source).suffix and Path(source).name == source
    if plain:
        hint = nearest(source, builtin_names())
        return f"there is neither a file nor a built-in data set named {source!r}; {hint}"
    return f"{source}: there is no such file; check the path (now in {Path.cwd()})."


def _parts(directory: Path) -> list[Path]:
    """The one file of a known format, test sets and .txt files aside, or the parts of one: files
    whose names differ in numbers only. Empty parts are left out."""
    found = [
        path
        for path in sorted(directory.iterdir(), key=_natural)
        if _extension(path) in _FORMATS and _extension(path) != ".txt" and ".t." not in path.name
    ]
    if len({re.sub(r"\d+", "0", path.name) for path in found}) == 1:
        return [path for path in found if path.stat().st_size > 0] or found
    names = ", ".join(path.name for path in found[:5]) or "none"
    raise DataError(
        f"{directory}: is a directory with {len(found)} data files ({names}); name one file."
    )


def _extension(path: Path) -> str:
    """The extension of the format, without that of a compression."""
    inner = path.with_suffix("") if path.suffix.lower() in OPENERS else path
    return inner.suffix.lower()


def format_of(path: Path) -> Format:
    """By the extension. Raises :class:`DataError` for an unknown one."""
    if _extension(path) not in _FORMATS:
        raise DataError(
            f"{path}: the extension {_extension(path)!r} is unknown; readable are {_READABLE}."
        )
    return _FORMATS[_extension(path)]


def read(path: Path, ask: Request, streaming: bool = False) -> Iterator[Raw]:
    """The samples of one file; in blocks that need little memory, if ``streaming``.

    Raises :class:`DataError` for all that may be wrong with a file.
    """
    form = format_of(path)
    opener = OPENERS.get(path.suffix.lower(), open)
    with _explained(path, form.name), opener(path, "rb") as file:
        if not file.read(1):
            raise DataError(f"{path}: the file is empty once decompressed; give one with data.")
        file.seek(0)
        reader = form.blocks if streaming else form.whole
        try:
            yield from reader(cast(BinaryIO, file), ask)
        except DataError:  # damage to the compression, noticed at its end, explains any fault
            while not file.closed and file.read(_CHUNK):
                pass
            raise


@contextmanager
def _explained(path: Path, kind: str) -> Iterator[None]:
    """Turn what the libraries raise on damaged files, which may be anything, into one sentence."""
    try:
        yield
    except HemiolaError as error:
        if not (real := _looks_like(path)):
            raise
        raise type(error)(f"{error} The file is in fact {real}.") from error
    except PermissionError as error:
        raise DataError(f"{path}: permission denied; make the file readable.") from error
    except EOFError as error:
        raise DataError(f"{path}: the file ends too early; copy or download it again.") from error
    except MemoryError as error:
        raise DataError(f"{path}: does not fit into memory; try float32 or fewer rows.") from error
    except Exception as error:
        real = _looks_like(path)
        why = f"it is {real}" if real else (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path}: cannot be read as {kind} ({why.rstrip('.')}); "
            "repair the file, or give it the extension of its real format."
        ) from error


def _looks_like(path: Path) -> str | None:
    """What the first bytes say a file is, if that is not what its extension says."""
    expected = {
        ".gz": "gzip-compressed",
        ".bz2": "bzip2-compressed",
        ".xz": "xz-compressed",
        ".npz": "a ZIP or NPZ archive",
        ".parquet": "a Parquet file",
    }.get(path.suffix.lower())
    with path.open("rb") as file:
        start = file.read(8)
    real = next((what for magic, what in _MAGIC.items() if start.startswith(magic)), None)
    return None if real == expected else real
