"""The interpreter lock, where a server shares its process with threads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SWITCH_INTERVAL = 1e-4
"""Seconds. At Python's default of 5 ms the server waits that long for the interpreter lock."""


@contextmanager
def switching_often() -> Iterator[None]:
    """Let threads take turns more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
