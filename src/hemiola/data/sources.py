"""From a name or a path to a :class:`~hemiola.dataset.Dataset`."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from scipy import sparse

from hemiola.data.catalog import REGRESSION, builtin_arrays, builtin_names
from hemiola.data.dtypes import float_dtype
from hemiola.data.formats import Raw, Request, read_libsvm, read_npz
from hemiola.data.tables import read_csv, read_parquet
from hemiola.dataset import Dataset, make_dataset
from hemiola.errors import DataError, HemiolaError, nearest
from hemiola.types import Array

Reader = Callable[[BinaryIO, Request], Raw]

_FORMATS: dict[str, tuple[str, Reader]] = {
    ".svm": ("LIBSVM", read_libsvm),
    ".libsvm": ("LIBSVM", read_libsvm),
    ".svmlight": ("LIBSVM", read_libsvm),
    ".txt": ("LIBSVM", read_libsvm),
    ".csv": ("CSV", read_csv),
    ".parquet": ("Parquet", read_parquet),
    ".npz": ("NPZ", read_npz),
}
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_READABLE = f"{', '.join(_FORMATS)}, each also with {', '.join(_OPENERS)}"
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


def load(
    source: str | Path,
    *,
    regression: bool = False,
    dtype: Any = "float64",
    label: str | int | None = None,
    n_features: int | None = None,
) -> Dataset:
    """Read a data set: a built-in one by name, or a file by path.

    ``source``      one of :func:`builtin_names` (which win over files: write ``./iris`` for a file
                    of that name), or a path. The format follows the extension: LIBSVM (.svm,
                    .libsvm, .svmlight, .txt), CSV (.csv), Parquet (.parquet) or NPZ (.npz), each
                    also compressed (.gz, .bz2, .xz). A directory stands for the one data file in
                    it, test sets (``*.t.*``) and .txt files aside.
    ``regression``  targets are real numbers, not classes; always so for ``diabetes`` and
                    ``synthetic_regression``.
    ``dtype``       type of the features: float64 or float32.
    ``label``       CSV and Parquet: name or number (from 0) of the label column. By default the
                    last one; in Parquet a column ``label``, ``target`` or ``y`` comes first.
    ``n_features``  how many features the data have. Sparse data are widened to it (a LIBSVM test
                    set may lack the last features), dense data must have it.

    Returns X (n, p), sparse for LIBSVM and for CSR in NPZ, and y (n,). Class labels that are whole
    numbers become integers.
    Raises :class:`DataError` when the data cannot be found or read or are not finite, and
    :class:`OptionError` for a dtype or label that makes no sense.

    >>> data = load("iris")
    >>> data.X.shape, data.classes.tolist()
    ((150, 4), [0, 1, 2])
    """
    ask = Request(str(source), float_dtype(dtype), label)
    regression = regression or source in REGRESSION
    name, raw = _obtain(source, ask)
    with np.errstate(over="ignore"):  # make_dataset refuses what becomes infinite
        X = raw.X.astype(ask.dtype, copy=False)
    y = raw.y if regression else _whole_numbers(raw.y)
    data = make_dataset(X, y, weight=raw.weight, regression=regression, name=name)
    return data if n_features is None else replace(data, X=_widened(data.X, n_features, name))


def _obtain(source: str | Path, ask: Request) -> tuple[str, Raw]:
    """The name of the data, and the data."""
    if isinstance(source, str) and source in builtin_names():
        ask.no_label("a built-in data set")
        return source, Raw(*builtin_arrays(source))
    path = _locate(source)
    return path.name, _read(path, ask)


def _widened(X: Any, n_features: int, name: str) -> Any:
    """``X`` with exactly ``n_features`` columns."""
    found = X.shape[1]
    if sparse.issparse(X) and found < n_features:
        return sparse.csr_array((X.data, X.indices, X.indptr), shape=(X.shape[0], n_features))
    if found != n_features:
        raise DataError(
            f"{name}: has {found} features, not n_features={n_features}; "
            "correct n_features, or leave it out."
        )
    return X


def _whole_numbers(y: Array) -> Array:
    """Labels 1.0, 2.0, ... as 1, 2, ...; all others unchanged."""
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.floor(y)).all():
        return y.astype(np.int64)
    return y


def _locate(source: str | Path) -> Path:
    """The regular, non-empty file that ``source`` means."""
    try:
        path = Path(source).expanduser()
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            path = _only_file(path)
            status = path.stat()
    except DataError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(_missing(str(source))) from error
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{str(source)!r} cannot be opened ({why}); check the path.") from error
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


def _only_file(directory: Path) -> Path:
    """The one file of a known format, test sets and .txt files aside."""
    found = [
        path
        for path in sorted(directory.iterdir())
        if _format(path) in _FORMATS and _format(path) != ".txt" and ".t." not in path.name
    ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found[:5]) or "none"
    raise DataError(
        f"{directory}: is a directory with {len(found)} data files ({names}); name one file."
    )


def _format(path: Path) -> str:
    """The extension of the format, without that of a compression."""
    inner = path.with_suffix("") if path.suffix.lower() in _OPENERS else path
    return inner.suffix.lower()


def _read(path: Path, ask: Request) -> Raw:
    if _format(path) not in _FORMATS:
        raise DataError(
            f"{path}: the extension {_format(path)!r} is unknown; readable are {_READABLE}."
        )
    kind, reader = _FORMATS[_format(path)]
    opener = _OPENERS.get(path.suffix.lower(), open)
    with _explained(path, kind), opener(path, "rb") as file:
        if not file.read(1):
            raise DataError(f"{path}: the file is empty once decompressed; give one with data.")
        file.seek(0)
        try:
            return reader(cast(BinaryIO, file), ask)
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
