"""What runs in a worker process of engine ``processes``.

The process holds a socket and no lock, and ends with its server: at once when that one is killed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from functools import partial
from threading import Thread
from time import perf_counter, sleep
from typing import NamedTuple

from threadpoolctl import threadpool_limits

from hemiola.engines import _wire
from hemiola.engines._executor import Workers
from hemiola.engines._faults import Fate
from hemiola.engines._shared import Inbox, Outbox, keep_freed_memory, pack, unpack
from hemiola.engines._wire import GoneError, Packet, Wire
from hemiola.errors import HemiolaError
from hemiola.types import copy_state


class Failure(NamedTuple):
    """An exception as a worker reports it; ``error`` itself only if it is the user's to remedy."""

    what: str
    where: str
    error: HemiolaError | None


def serve(end: socket.socket, rank: int) -> None:
    """Work for the server at the other end until it says stop or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server
    Thread(target=_end_with, args=(end.fileno(),), name="hemiola-watch", daemon=True).start()
    keep_freed_memory()
    wire = Wire(end)
    try:
        _work(wire, rank)
    except GoneError:
        pass
    except BaseException as error:  # handed to the server, which raises it
        with suppress(GoneError):
            _post(wire, Packet(_wire.FAILED, fd=_report(error)))


def _work(wire: Wire, rank: int) -> None:
    workers, inbox, outbox = None, Inbox(), Outbox()
    while True:
        packet = wire.receive()
        assert packet is not None
        if packet.kind == _wire.STOP:
            return
        if workers is None:
            (job,) = unpack(packet.file)
            workers, fate = Workers(job), Fate(job)
            threadpool_limits(1)  # the libraries that the job needs are loaded by now
            _post(wire, Packet(_wire.READY))
        elif packet.kind == _wire.WORK:
            down = inbox.get(packet.holds, packet.fd)
            lot = fate.of(rank, packet.task)
            if lot.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            while lot.hangs:
                signal.pause()
            work = partial(workers.work, down, job.task(rank, packet.task))
            up, steps, spent = lot.suffer(work, sleep)
            holds, fd = outbox.put(up)
            _post(wire, Packet(_wire.DONE, holds, packet.task, steps, perf_counter(), spent, fd))
        elif packet.kind == _wire.SET:
            workers.states[rank] = copy_state(unpack(packet.file))
        else:
            _post(wire, Packet(_wire.STATE, fd=pack(workers.states[rank])))


def _post(wire: Wire, packet: Packet) -> None:
    wire.send(packet)
    if packet.fd is not None:
        os.close(packet.fd)


def _report(error: BaseException) -> int:
    what = "".join(traceback.format_exception_only(error)).strip()
    where = "".join(traceback.format_exception(error))
    if isinstance(error, HemiolaError):
        with suppress(Exception):  # what cannot be pickled goes as text
            return pack(Failure(what, where, error))
    return pack(Failure(what, where, None))


def _end_with(end: int) -> None:
    """Wait for the server to go, and go at once: a piece of work may take long."""
    poll = select.poll()
    poll.register(end, 0)
    while not any(what & (select.POLLHUP | select.POLLERR) for _, what in poll.poll()):
        pass
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(1)
