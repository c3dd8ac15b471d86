"""Memory that processes share: parcels, which are written once, and boxes, which are written often.

All of it lives in memory files (``memfd_create``): they have no name, so nothing can be left behind
in /dev/shm, and the kernel frees them with their last user, however that one ends. They travel as
file descriptors over local sockets.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hemiola.errors import UnsupportedError
from hemiola.job import Job
from hemiola.types import Array, Message

EMPTY, SAME, CHANGED = range(3)
"""What a box holds: no arrays; arrays laid out as before; a new layout."""

_SMALL = 4096
_ALIGNED = 64
_LENGTH = 8
_Layout = list[tuple[str, np.dtype[Any], tuple[int, ...]]]


def pack(thing: Any) -> int:
    """A new memory file with a pickle of ``thing``, its large arrays beside it. Close it."""
    buffers: list[memoryview] = []

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _SMALL:
            return True
        buffers.append(raw)
        return False

    stream = pickle.dumps(thing, protocol=5, buffer_callback=stays_inside)
    sizes = [raw.nbytes for raw in buffers]
    _, *places, end = _places([_LENGTH + len(stream), *sizes])
    table = pickle.dumps(list(zip(places, sizes, strict=True)))
    fd = _new_file("hemiola-parcel", end + _LENGTH + len(table))
    _write(fd, 0, end.to_bytes(_LENGTH, "little") + stream)
    for at, raw in zip(places, buffers, strict=True):
        _write(fd, at, raw)
    _write(fd, end, len(table).to_bytes(_LENGTH, "little") + table)
    return fd


def parcel(engine: str, job: Job, *others: Any) -> int:
    """The job as an engine's workers get it, and whatever else, in a new memory file. Close it."""
    try:
        return pack((replace(job, trace=None, timeline=None), *others))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UnsupportedError(
            f"engine {engine} cannot send this job to another process ({error}); define what it "
            "uses at the top level of a module, or use threads."
        ) from error


def unpack(fd: int) -> Any:
    """What a parcel holds; closes the file. Its large arrays are read-only views of the file."""
    view = memoryview(_map(fd, mmap.ACCESS_READ))
    end = int.from_bytes(view[:_LENGTH], "little")
    length = int.from_bytes(view[end : end + _LENGTH], "little")
    table = pickle.loads(view[end + _LENGTH : end + _LENGTH + length])
    return pickle.loads(view[_LENGTH:end], buffers=[view[at : at + size] for at, size in table])


def _places(sizes: Sequence[int]) -> list[int]:
    """Where things of these sizes begin, one after another and aligned; at last, where they end."""
    places = [0]
    for size in sizes:
        places.append(-(-(places[-1] + size) // _ALIGNED) * _ALIGNED)
    return places


def _new_file(name: str, size: int) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


def _write(fd: int, at: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        at, rest = at + written, rest[written:]


def _map(fd: int, access: int) -> mmap.mmap:
    """The whole file, mapped; closes the descriptor, the mapping has its own."""
    try:
        return mmap.mmap(fd, os.fstat(fd).st_size, access=access)
    finally:
        os.close(fd)


def _views(memory: mmap.mmap, layout: _Layout, first: int) -> dict[str, Array]:
    sizes = [dtype.itemsize * int(np.prod(shape, dtype=int)) for _, dtype, shape in layout]
    return {
        name: np.ndarray(shape, dtype, memory, first + at)
        for (name, dtype, shape), at in zip(layout, _places(sizes), strict=False)
    }


def keep_freed_memory() -> None:
    """Let malloc reuse the memory of messages instead of giving it back after each of them.

    An update of 1e5 float64 takes 180 page faults otherwise, which is half of its time. glibc
    raises its limits to the largest block that was ever freed, up to 32 MiB; this one is never
    touched.
    """
    np.empty(31 << 20, np.uint8)


class Outbox:
    """Where one process puts its messages, one at a time, for one other to read.

    A message that is laid out like the one before costs one copy of its arrays. The first, and one
    that does not fit, takes a new memory file, whose descriptor must be sent to the reader.
    """

    def __init__(self) -> None:
        self._layout: _Layout | None = None
        self._views: list[Array] = []
        self._memory: mmap.mmap | None = None

    def put(self, message: Message) -> tuple[int, int | None]:
        """Write a message; (what the box holds now, the new file to send and to close)."""
        if not message:
            return EMPTY, None
        holds, fd = SAME, None
        layout = [(name, array.dtype, array.shape) for name, array in message.items()]
        if layout != self._layout:
            holds, fd = CHANGED, self._lay_out(layout)
        for view, array in zip(self._views, message.values(), strict=True):
            view[...] = array
        return holds, fd

    def _lay_out(self, layout: _Layout) -> int | None:
        if any(dtype.hasobject for _, dtype, _ in layout):
            raise TypeError("messages are arrays of numbers, not of Python objects.")
        table = pickle.dumps(layout)
        first, size = _places([_LENGTH + len(table), sum(_room(*entry) for entry in layout)])[1:]
        fd = None
        if self._memory is None or len(self._memory) < size:
            fd = _new_file("hemiola-box", size)
            self._memory = _map(os.dup(fd), mmap.ACCESS_WRITE)
        head = _LENGTH + len(table)
        self._memory[:head] = len(table).to_bytes(_LENGTH, "little") + table
        self._views = list(_views(self._memory, layout, first).values())
        self._layout = layout
        return fd


def _room(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return _places([dtype.itemsize * int(np.prod(shape, dtype=int))])[-1]


class Inbox:
    """The reader's side of an :class:`Outbox`: the same memory, read-only."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._views: dict[str, Array] = {}

    def get(self, holds: int, fd: int | None) -> Message:
        """The message: views that are overwritten by the next one."""
        if holds == EMPTY:
            return {}
        if fd is not None:
            self._memory = _map(fd, mmap.ACCESS_READ)
        if holds == CHANGED:
            memory = self._memory
            assert memory is not None
            length = int.from_bytes(memory[:_LENGTH], "little")
            layout = pickle.loads(memory[_LENGTH : _LENGTH + length])
            self._views = _views(memory, layout, _places([_LENGTH + length])[-1])
        return dict(self._views)
