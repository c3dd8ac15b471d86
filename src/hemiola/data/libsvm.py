"""The reader of LIBSVM files: blocks of whole lines, parsed by several threads, in order.

Defined behaviour: indices of a line must ascend, so an index that occurs twice is an error; ``qid``
is accepted and ignored; blank lines and comments are no samples; a line of a label alone is a
sample without features. Indices are as in the file: whether they start at 0 or at 1 is for
:func:`hemiola.data.join.joined` to find out, which sees all files.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from scipy import sparse

from hemiola.data import lines
from hemiola.data.formats import Raw, Request
from hemiola.errors import DataError
from hemiola.types import Array

_BLOCK = 1 << 22  # bytes of text that one thread parses at a time
_THREADS = max(1, min(4, os.cpu_count() or 1))
_BOM = b"\xef\xbb\xbf"
_NOT_FINITE = re.compile(rb"[^:]*:?[+-]?(nan|inf(inity)?)", re.IGNORECASE)
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class Fault(NamedTuple):
    """What is wrong, and where its token begins in the text."""

    code: int
    at: int


class Parsed(NamedTuple):
    """One text: its samples, how many lines it has, and the first fault."""

    raw: Raw
    lines: int
    fault: Fault | None


def read_libsvm(file: BinaryIO, ask: Request) -> Iterator[Raw]:
    """Blocks of samples: lines of ``label index:value ...``."""
    ask.no_label("LIBSVM")
    done = 0
    for text, parsed in _in_order(file, ask.dtype):
        if parsed.fault is not None:
            number = done + 1 + text.count(b"\n", 0, parsed.fault.at)
            raise DataError(f"{ask.name}: {_words(number, text, parsed.fault)}.")
        done += parsed.lines
        yield parsed.raw


def _in_order(file: BinaryIO, dtype: np.dtype[Any]) -> Iterator[tuple[bytes, Parsed]]:
    """Texts and what they hold, while later ones are being read and parsed."""
    pending: deque[tuple[bytes, Future[Parsed]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for text in texts(file, _BLOCK):
            pending.append((text, pool.submit(parse, text, dtype)))
            while len(pending) > _THREADS:
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()


def texts(file: BinaryIO, block: int) -> Iterator[bytes]:
    """Pieces of a file that end with a line; a line feed is added to the last one if it lacks it.

    >>> import io
    >>> list(texts(io.BytesIO(b"1 1:1\\n0 2:1\\n1"), block=8))
    [b'1 1:1\\n', b'0 2:1\\n', b'1\\n']
    """
    rest: list[bytes] = []
    start = True
    while read := file.read(block):
        if start:
            read, start = read.removeprefix(_BOM), False
        end = read.rfind(b"\n") + 1
        if end:
            yield b"".join([*rest, read[:end]])
            rest = []
        if end < len(read):
            rest.append(read[end:])
    if rest:
        yield b"".join([*rest, b"\n"])


def parse(text: bytes, dtype: np.dtype[Any]) -> Parsed:
    """The samples of whole lines. ``X`` has the indices of the text, whatever they start at."""
    data = np.frombuffer(text, np.uint8)
    n, most = lines.count(data)
    y, values = np.empty(n), np.empty(most, dtype)
    indices, indptr = np.empty(most, np.int32), np.empty(n + 1, np.int64)
    hard = np.empty((n + most, 2), np.int64)
    code, at, rows, stored, hards, lowest, highest = lines.parse(
        data, y, values, indices, indptr, hard
    )
    fault = _settle(text, hard[:hards], y, values) or (Fault(code, at) if code else None)
    csr = (_used(values, stored), _used(indices, stored), indptr[: rows + 1])
    X = sparse.csr_array(csr, shape=(rows, highest + 1))
    return Parsed(Raw(X, y[:rows], lowest=lowest), n, fault)


def check_libsvm(
    text: bytes, dtype: np.dtype[Any], name: str, lines_before: int, within: tuple[int, int]
) -> tuple[Any, Array]:
    """Features and labels of whole lines, all of whose indices lie ``within`` two bounds."""
    parsed = parse(text, dtype)
    if parsed.fault is not None:
        number = lines_before + 1 + text.count(b"\n", 0, parsed.fault.at)
        raise DataError(f"{name}: {_words(number, text, parsed.fault)}.")
    X, least, most = parsed.raw.X, *within
    outside = np.flatnonzero((X.indices < least) | (X.indices > most))
    if len(outside):
        row = int(np.searchsorted(X.indptr, outside[0], side="right")) - 1
        samples = [i for i, line in enumerate(text.split(b"\n")) if line.split(b"#")[0].strip()]
        raise DataError(
            f"{name}: line {lines_before + 1 + samples[row]}: index {X.indices[outside[0]]} is not "
            f"in {least}..{most}; correct n_features or zero_based."
        )
    return X, parsed.raw.y


def _used(values: Array, count: int) -> Array:
    """The part in use; a copy where it is small, as commented text may hold many colons."""
    return values[:count].copy() if count < len(values) // 2 else values[:count]


def _settle(text: bytes, hard: Array, y: Array, values: Array) -> Fault | None:
    """Put the hard numbers where they belong; the first that is too large for a double."""
    for at, place in hard.tolist():
        begin = at if place < 0 else text.index(b":", at) + 1
        found = _NUMBER.match(text, begin)
        assert found is not None
        value = float(found[0])
        if np.isinf(value):
            return Fault(lines.LABEL if place < 0 else lines.PAIR, at)
        if place < 0:
            y[-1 - place] = value
        else:
            values[place] = value
    return None


def _words(number: int, text: bytes, fault: Fault) -> str:
    """The fault in line ``number``, in words, without a full stop."""
    token = re.split(rb"[\s#]", text[fault.at : fault.at + 5000], maxsplit=1)[0]
    shown, code = _show(token), fault.code
    if code in (lines.LABEL, lines.PAIR) and _is_infinite(token):
        return f"line {number}: {shown} is NaN or infinite; remove or repair that line"
    if code == lines.NEGATIVE and re.match(rb"-\d+:", token):
        return f"line {number}: the index of {shown} is negative; indices start at 0 or 1"
    if code == lines.HUGE:
        return f"line {number}: the index of {shown} is too large; the largest is {lines.LARGEST}"
    if code == lines.ORDER:
        return f"line {number}: feature indices must ascend, found {shown}"
    what = {lines.LABEL: "a numeric label", lines.QID: "qid:number"}.get(code, "index:value")
    hint = "; a CSV file needs the extension .csv" if b"," in token else ""
    return f"line {number} is not LIBSVM: expected {what}, found {shown}{hint}"


def _is_infinite(token: bytes) -> bool:
    if _NOT_FINITE.fullmatch(token):
        return True
    number = token.rpartition(b":")[2]
    return bool(_NUMBER.fullmatch(number)) and np.isinf(float(number))


def _show(token: bytes) -> str:
    text = ascii(token[:30].decode("latin-1"))
    return f"{text}..." if len(token) > 30 else text
