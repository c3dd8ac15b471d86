"""What the server and its worker processes say to each other: packets over a local socket.

A packet has a fixed size and arrives whole or not at all; payload stays in shared memory. The death
of either side is an end-of-file for the other.
"""

from __future__ import annotations

import array
import socket
import struct
from typing import NamedTuple

READY, WORK, DONE, ASK, STATE, SET, STOP, FAILED = range(8)
"""Kinds of packets.

From the server: WORK on what the box holds, ASK for the state, SET the state, STOP.
From a worker: READY to work, DONE with the answer in its box, its STATE, or FAILED by an exception.
"""

_FORM = struct.Struct("<BBqqdd")
_ONE = array.array("i", [0]).itemsize
_SPACE = socket.CMSG_SPACE(_ONE)


class Packet(NamedTuple):
    """``task`` is a task's number, ``steps`` what it took, ``seconds`` the machine's clock,
    ``spent`` seconds of computing, ``fd`` a memory file."""

    kind: int
    holds: int = 0
    task: int = 0
    steps: int = 0
    seconds: float = 0.0
    spent: float = 0.0
    fd: int | None = None

    @property
    def file(self) -> int:
        """``fd``, which is there."""
        assert self.fd is not None
        return self.fd


class GoneError(Exception):
    """There is nobody at the other end."""


class Wire:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.fileno = end.fileno
        self.close = end.close

    def send(self, packet: Packet) -> None:
        """Raises :class:`GoneError`; leaves the packet's file open."""
        data = _FORM.pack(*packet[:6])
        try:
            if packet.fd is None:
                self._end.send(data)
            else:
                socket.send_fds(self._end, [data], [packet.fd])
        except ConnectionError as error:
            raise GoneError from error

    def receive(self, wait: bool = True) -> Packet | None:
        """The next packet, or None if there is none and ``wait`` is false."""
        flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
        try:
            data, extra, _, _ = self._end.recvmsg(_FORM.size, _SPACE, flags)
        except BlockingIOError:
            return None
        except ConnectionError as error:
            raise GoneError from error
        if not data:
            raise GoneError
        fd = array.array("i", extra[0][2][:_ONE])[0] if extra else None
        kind, holds, task, steps, seconds, spent = _FORM.unpack(data)
        return Packet(kind, holds, task, steps, seconds, spent, fd)
