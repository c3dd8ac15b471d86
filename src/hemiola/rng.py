"""Counter-based random streams: the same numbers on every engine, for any order of execution.

A stream is addressed, not advanced: ``stream(seed, "batches", worker, epoch)`` gives the same
generator wherever and whenever it is asked for. Philox (Salmon et al., SC 2011) turns the address
into numbers: seed and purpose make its key, the remaining coordinates the upper words of its
counter, so two addresses never share a number.
"""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np


@cache
def _purpose(name: str) -> int:
    return zlib.crc32(name.encode())


def stream(seed: int, purpose: str, a: int = 0, b: int = 0, c: int = 0) -> np.random.Generator:
    """The generator at one address.

    ``seed`` is the run's root seed, ``purpose`` says what the numbers are for, and ``a, b, c`` are
    non-negative coordinates such as worker, epoch and step.

    >>> x = stream(0, "batches", 3, 1).integers(0, 100, 4)
    >>> bool((x == stream(0, "batches", 3, 1).integers(0, 100, 4)).all())
    True
    >>> bool((x == stream(0, "batches", 1, 3).integers(0, 100, 4)).all())
    False
    """
    key = np.array([seed, _purpose(purpose)], dtype=np.uint64)
    counter = np.array([0, a, b, c], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
