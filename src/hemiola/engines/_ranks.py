"""Processes that talk by torch.distributed: where they meet, their groups, and starting them.

Groups are made directly, not by ``init_process_group``, so a program's own use of torch.distributed
is left alone, and one group that dies takes no other with it.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.reduction import DupFd
from threading import Thread
from time import monotonic
from typing import Any

import torch
import torch.distributed as dist

from hemiola.engines._crew import GUARD
from hemiola.engines._fork_server import fork_server
from hemiola.errors import OptionError, UnsupportedError, WorkersLostError

_LOCAL = ("127.0.0.1", "localhost", "::1")
_GRACE = 5.0
"""Seconds that a process may take to end by itself."""

_BEGIN = 60.0
"""Seconds that a process has at least to begin: it imports PyTorch, beside others that do."""

_LOOK = 0.02
"""Seconds between two looks at who has come."""

NEVER = 30 * 24 * 3600.0
"""Seconds: longer than any run is idle."""


@dataclass(frozen=True)
class Place:
    """Where ranks meet: the address of a store, and what this run's keys begin with."""

    host: str
    port: int
    prefix: str = "hemiola"

    def store(self, timeout: float) -> Any:
        """A connection of one's own: a store waits with all who share a connection."""
        seconds = timedelta(seconds=timeout)
        store = dist.TCPStore(self.host, self.port, is_master=False, timeout=seconds)
        return dist.PrefixStore(self.prefix, store)

    def group(self, name: str, rank: int, size: int, timeout: float) -> Any:
        """The group of this name on the CPU; waits for its other members to come."""
        options = dist.ProcessGroupGloo._Options()
        options._timeout = timedelta(seconds=timeout)
        options._devices = [_device(self.host)]
        store = dist.PrefixStore(name, self.store(timeout))
        store.set(_here(rank), "")
        return dist.ProcessGroupGloo(store, rank, size, options)

    def gpu_group(self, name: str, rank: int, size: int, timeout: float) -> Any:
        """The same on GPUs."""
        if not torch.cuda.is_available() or not dist.is_nccl_available():
            raise OptionError("backend nccl needs a GPU and a PyTorch with NCCL; use gloo.")
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timedelta(seconds=timeout)
        store = dist.PrefixStore(name, self.store(timeout))
        store.set(_here(rank), "")
        return dist.ProcessGroupNCCL(store, rank, size, options)


def _here(rank: int) -> str:
    """A key that says that a rank has come so far as to join a group."""
    return f"rank {rank} is here"


def _device(host: str) -> Any:
    interface = os.environ.get("GLOO_SOCKET_IFNAME")
    if interface:
        return dist.ProcessGroupGloo.create_device(interface=interface)
    if host in _LOCAL:
        return dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")
    return dist.ProcessGroupGloo.create_default_device()


@dataclass(frozen=True)
class Seat:
    """Which of how many ranks this process is, as whoever started it says."""

    place: Place
    rank: int
    size: int
    local_rank: int


def seat_of(environment: Mapping[str, str]) -> Seat | None:
    """This process's seat, if it was started by torchrun or in its way; None: it stands alone.

    Ranks that are started again meet at another place than those before them.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        host, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        attempt = int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
    except (KeyError, ValueError) as error:
        raise UnsupportedError(
            f"RANK and WORLD_SIZE are set, but the rest of what torchrun sets is not ({error}); "
            "start with torchrun, or unset them."
        ) from error
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and rank == 0:
        _host_store(port, size)
    place = Place(host, port, f"hemiola/{attempt}")
    run = place.store(60.0).add(f"runs of rank {rank}", 1)
    local = int(environment.get("LOCAL_RANK", rank))
    return Seat(Place(host, port, f"hemiola/{attempt}/{run}"), rank, size, local)


@cache
def _host_store(port: int, size: int) -> Any:
    """The store of ranks that nobody else keeps one for, as long as this process lives."""
    return dist.TCPStore("0.0.0.0", port, size, is_master=True, wait_for_workers=False)


def open_store(host: str = "127.0.0.1") -> tuple[Place, Any]:
    """A store in this process, at a free port, under the name by which others know this host; for
    processes of this machine only if that is a local one."""
    listening = socket.create_server(("127.0.0.1" if host in _LOCAL else "", 0))
    port = listening.getsockname()[1]
    store = dist.TCPStore(
        host, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach(),
    )  # fmt: skip
    return Place(host, port), store


def wait_for_member(
    place: Place, group: str, member: int, timeout: float, is_gone: Callable[[float], bool]
) -> bool:
    """Wait for a group's so-many-th member to come; False if it does not. ``is_gone`` says, within
    so many seconds, whether it never will."""
    store = dist.PrefixStore(group, place.store(timeout))
    until = monotonic() + max(timeout, _BEGIN)
    while not store.check([_here(member)]):
        if is_gone(_LOOK) or monotonic() > until:
            return False
    return True


class Launcher:
    """The processes that this one has started, and the store where all meet.

    ``parcel`` is a memory file with the job: every process gets it.
    """

    def __init__(self, parcel: int) -> None:
        self._context = fork_server()
        self._parcel = parcel
        self.place, self._store = open_store()
        self._alive, self._held = os.pipe()  # closed with this process, whatever ends it
        self._processes: dict[int, Any] = {}

    def start(self, rank: int, target: Callable[..., None], *arguments: Any) -> None:
        """Start a process; ``target`` gets the parcel, the place and the arguments."""
        given = (target, _Fd(self._parcel), _Fd(self._alive), self.place, arguments)
        name = f"hemiola-rank-{rank}"
        process = self._context.Process(target=_begin, args=given, name=name, daemon=True)
        process.start()
        self._processes[rank] = process

    def wait_for(self, rank: int, group: str, member: int, timeout: float) -> None:
        """Wait for a process to come to a group, as its so-many-th member.

        Raises :class:`WorkersLostError` when it has ended instead, or takes too long.
        """
        process = self._processes[rank]

        def is_gone(seconds: float) -> bool:
            return bool(wait([process.sentinel], seconds))

        if not wait_for_member(self.place, group, member, timeout, is_gone):
            raise WorkersLostError(f"rank {rank} was gone before it began; {GUARD}")

    def kill(self, rank: int) -> None:
        """End a process at once, and wait for that."""
        if rank in self._processes:
            process = self._processes.pop(rank)
            process.kill()
            process.join()

    def fallen(self, seconds: float) -> str:
        """Which ranks have ended, and how; waits for one, but not longer than that."""
        until = monotonic() + seconds
        wait([p.sentinel for p in self._processes.values()], seconds)
        found = []
        for rank, process in self._processes.items():
            process.join(max(0.0, min(0.05, until - monotonic())))
            if (code := process.exitcode) is not None:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                found.append(f"rank {rank} ended by {how}")
        return ", ".join(found)

    def close(self) -> None:
        """Wait a little for the processes to end, and kill who does not; free port and files."""
        until = monotonic() + _GRACE
        for process in self._processes.values():
            process.join(max(0.0, until - monotonic()))
        for rank in list(self._processes):
            self.kill(rank)
        for fd in (self._parcel, self._alive, self._held):
            os.close(fd)
        self._store = None


class _Fd:
    """A file that travels with a process's arguments, where it arrives as a number."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> Any:
        return _detach, (DupFd(self._fd),)


def _detach(sent: Any) -> int:
    fd: int = sent.detach()
    return fd


def _begin(
    target: Callable[..., None], parcel: int, alive: int, place: Place, arguments: tuple[Any, ...]
) -> None:
    """What a started process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it
    Thread(target=_end_with, args=(alive,), name="hemiola-watch", daemon=True).start()
    target(parcel, place, *arguments)


def _end_with(alive: int) -> None:
    """Go at once when who started this process is gone."""
    with suppress(OSError):
        os.read(alive, 1)
    os._exit(1)
