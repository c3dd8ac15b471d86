"""The worker processes as their server sees them: starting, talking to and ending them."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import socket
from collections import deque
from contextlib import suppress
from math import inf
from time import perf_counter
from typing import Any

from hemiola.engines import _wire
from hemiola.engines._faults import earliest
from hemiola.engines._shared import Inbox, Outbox
from hemiola.engines._wire import GoneError, Packet, Wire
from hemiola.engines._worker import serve
from hemiola.errors import WorkersLostError
from hemiola.types import Message

_PRELOAD = [
    "__main__",
    "hemiola.algorithms.registry",
    "hemiola.engines._warm",
    "hemiola.engines._worker",
    "hemiola.partition",
    "scipy.sparse",
]
_GRACE = 1.0
"""Seconds that a worker may take to finish its piece of work at the end of a run."""

_CHECKS = 4
"""A worker has hung when so many checks in a row, a part of the time limit apart, see no progress.
Time in which nobody checks, as when the whole program is stopped, does not count."""

GUARD = (
    "worker processes import the main script, so training must not begin on import: "
    "put it under  if __name__ == '__main__':"
)


class Member:
    """One worker process, its wire and its two boxes."""

    def __init__(self, rank: int, context: Any) -> None:
        self.rank = rank
        self.inbox, self.outbox = Inbox(), Outbox()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.wire = Wire(ours)
        self.strikes, self.seen = 0, -1
        self.process = context.Process(
            target=serve, args=(theirs, rank), name=f"hemiola-worker-{rank}", daemon=True
        )
        with theirs:
            self.process.start()
        self.pidfd = os.pidfd_open(self.process.pid)
        self.files = (ours.fileno(), self.pidfd)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def dismiss(self) -> None:
        """Forget a process that has ended."""
        self.wire.close()
        os.close(self.pidfd)
        self.process.join()
        self.process.close()

    def used(self) -> int:
        """Processor time so far, in ticks of the kernel; 0 when it is gone."""
        try:
            with open(f"/proc/{self.process.pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return 0
        return int(fields[11]) + int(fields[12])


class Crew:
    """The worker processes that are alive, and what is heard from them.

    ``timeout``: seconds without any progress, in a worker that owes an answer, that end it.
    ``objective``: its module, imported once for all workers if it is one of this library.
    """

    def __init__(self, timeout: float | None, objective: str) -> None:
        self._context = multiprocessing.get_context("forkserver")
        own = [objective] if objective.startswith("hemiola.") else []
        self._context.set_forkserver_preload([*_PRELOAD, *own])
        self._members: dict[int, Member] = {}
        self._at: dict[int, Member] = {}  # by number of file
        self._epoll = select.epoll()
        self._ready: deque[int] = deque()
        self._interval = None if timeout is None else timeout / _CHECKS
        self._check_at = perf_counter() + (self._interval or inf)
        self.owing: set[int] = set()

    def __contains__(self, rank: int) -> bool:
        return rank in self._members

    def spawn(self, rank: int, job: int) -> None:
        """Start a process and hand it the job, a parcel that stays open."""
        try:
            member = Member(rank, self._context)
        except (EOFError, OSError) as error:
            raise WorkersLostError(f"worker {rank} could not start ({error!r}); {GUARD}") from error
        self._members[rank] = member
        for fd in member.files:
            self._at[fd] = member
            self._epoll.register(fd, select.EPOLLIN)
        self._ready.clear()  # numbers of files are used again
        self.send(rank, Packet(_wire.SET, fd=job), owes=True)

    def put(self, rank: int, message: Message) -> tuple[int, int | None]:
        """Write to a worker's box: see :meth:`Outbox.put`."""
        return self._members[rank].outbox.put(message)

    def get(self, rank: int, packet: Packet) -> Message:
        """What a worker's box holds."""
        return self._members[rank].inbox.get(packet.holds, packet.fd)

    def send(self, rank: int, packet: Packet, owes: bool = False) -> None:
        """To one that is gone, nothing is sent: :meth:`take` tells. ``owes``: expect an answer."""
        if owes:
            self._members[rank].strikes = 0
            self.owing.add(rank)
        with suppress(GoneError):
            self._members[rank].wire.send(packet)

    def take(self, seconds: float | None = None) -> tuple[int, Packet | None] | None:
        """Wait for the next packet; None in its place tells, once, that a worker is gone.

        None: nothing was heard for so long.
        """
        until = None if seconds is None else perf_counter() + max(seconds, 0.0)
        while True:
            if not self._ready:
                rest = None if until is None else max(until - perf_counter(), 0.0)
                self._ready.extend(fd for fd, _ in self._epoll.poll(earliest(rest, self._interval)))
                if perf_counter() >= self._check_at:
                    self._check()
                if not self._ready and until is not None and perf_counter() >= until:
                    return None
                continue
            fd = self._ready.popleft()
            member = self._at[fd]
            try:
                packet = member.wire.receive(wait=False)
            except GoneError:
                return self._dismiss(member), None
            if packet is not None:
                self.owing.discard(member.rank)
                return member.rank, packet
            if fd == member.pidfd:  # ended, but a process that it started holds the wire
                return self._dismiss(member), None

    def kill(self, rank: int) -> None:
        """End a process that would not end by itself, which :meth:`take` then notices."""
        if rank in self._members:
            self._members[rank].kill()

    def _dismiss(self, member: Member) -> int:
        """Forget a member that is gone, or as good as gone."""
        member.kill()
        for fd in member.files:
            self._epoll.unregister(fd)
            del self._at[fd]
        self._ready.clear()
        del self._members[member.rank]
        self.owing.discard(member.rank)
        member.dismiss()
        return member.rank

    def _check(self) -> None:
        """Kill the workers that have hung, which :meth:`take` then notices."""
        assert self._interval is not None
        self._check_at = perf_counter() + self._interval
        for rank in self.owing - {self._at[fd].rank for fd in self._ready}:
            member = self._members[rank]
            used = member.used()
            member.strikes = member.strikes + 1 if used == member.seen else 0
            member.seen = used
            if member.strikes >= _CHECKS:
                member.kill()

    def close(self) -> None:
        """End all processes; those that do not end by themselves are killed."""
        for rank in self._members:
            self.send(rank, Packet(_wire.STOP))
        deadline = perf_counter() + _GRACE
        for member in self._members.values():
            wait_for(member.pidfd, deadline - perf_counter())
            member.kill()
        for member in self._members.values():
            member.dismiss()
        self._members.clear()
        self._epoll.close()


def wait_for(pidfd: int, seconds: float) -> None:
    """Wait until a process has ended, but not longer than that."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(max(0.0, 1000 * seconds))
