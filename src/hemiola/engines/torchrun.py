"""Engine ``torchrun``: processes that talk by torch.distributed, on one host or on several.

Started by torchrun, ``torchrun --nproc-per-node 4 -m hemiola train ... --engine torchrun``, the
ranks are there; started alone, as any other engine, this process is rank 0 and starts the others on
this host itself. gloo on CPUs, NCCL on GPUs (for the sums of synchronous rounds; messages of
asynchronous ones lie on the host).

*Synchronous* algorithms have no server process: every rank keeps the server's state and applies
every update. ``reduce="sum"`` adds the round's messages by one all-reduce, which is quick and adds
in an order of its own: equal to ``serial`` but for rounding. ``reduce="ordered"`` has all ranks
swap the messages and add them up in rank order: the bits of ``serial``, for K/2 times the traffic.
Workers are dealt to ranks in blocks. Nobody is late, as on ``serial``. A rank that dies ends the
run, or takes it back to its last checkpoint (``on_loss="restart"``; under torchrun
``--max-restarts N``, which goes on from the checkpoint by itself).

*Asynchronous* and grouped algorithms have their server in rank 0, and worker k in rank k + 1. Each
worker has a group of two with the server, so one that dies, or does not answer within ``timeout``,
leaves the run, which goes on with the others.

All ranks run the same program. The loss is evaluated, and callbacks are called, in every rank that
torchrun has started; files are written in rank 0. In an asynchronous run the other ranks have the
starting point as their result.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt

from hemiola.communicate import Asynchronous, Grouped, Synchronous
from hemiola.component import component
from hemiola.engines._drive import drive
from hemiola.engines._fork_server import fork_server
from hemiola.engines._interpreter import switching_often
from hemiola.engines._shared import keep_freed_memory, parcel
from hemiola.errors import OptionError, StreamEnded, UnsupportedError
from hemiola.extras import require
from hemiola.faults import Die, Hang
from hemiola.job import Event, Job
from hemiola.types import State


@component
class Torchrun:
    """Processes that talk by torch.distributed; needs the extra ``torch``.

    ``reduce``   how a round's messages are joined: by an all-reduce (``sum``), or in rank order to
                 the bits of ``serial`` (``ordered``);
    ``ranks``    processes that a synchronous run starts itself; None: one a worker;
    ``timeout``  seconds that a rank is waited for;
    ``backend``  ``gloo`` on CPUs, ``nccl`` on GPUs;
    ``rejoin``   an asynchronous worker that died is replaced by a fresh one.
    """

    name: ClassVar[str] = "torchrun"
    supports: ClassVar[frozenset[type]] = frozenset({Synchronous, Asynchronous, Grouped})

    reduce: Literal["sum", "ordered"] = "sum"
    ranks: Annotated[int, Ge(1)] | None = None
    timeout: Annotated[float, Gt(0)] = 300.0
    backend: Literal["gloo", "nccl"] = "gloo"
    rejoin: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return os.environ.get("RANK", "0") == "0"

    @property
    def restarted(self) -> bool:
        """Whether torchrun has started all ranks again, after one had ended."""
        return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"

    def run(self, job: Job, resume: State | None = None) -> Iterator[Event]:
        if sys.platform != "linux":
            raise UnsupportedError("engine torchrun needs Linux; use threads.")
        require("torch", "torch")
        if "RANK" not in os.environ:
            fork_server()  # imports PyTorch while this process does
        from hemiola.engines._ranks import seat_of

        keep_freed_memory()
        seat = seat_of(os.environ)
        if isinstance(job.algorithm.communicate, Synchronous):
            return self._replicated(job, resume, seat)
        return self._star(job, resume and {**resume, "afresh": True}, seat)

    def _replicated(self, job: Job, resume: State | None, seat: Any) -> Iterator[Event]:
        from hemiola.engines import _replicated as rounds
        from hemiola.engines._ranks import Launcher
        from hemiola.engines._ring import ring_of

        size = (self.ranks or job.workers) if seat is None else seat.size
        if size > job.workers:
            raise OptionError(
                f"{size} ranks for {job.workers} workers: each rank needs at least one; train with "
                f"{size} workers or more."
            )
        if seat is None:
            _spare_this_process(job, size)
        launcher = Launcher(parcel("torchrun", job, resume)) if seat is None else None
        try:
            if launcher is not None:
                options = rounds.Options(self.reduce == "ordered", self.timeout, self.backend)
                for rank in range(1, size):
                    launcher.start(rank, rounds.take_part, rank, size, options)
                for rank in range(1, size):
                    launcher.wait_for(rank, "ring", rank, self.timeout)
            place = seat.place if launcher is None else launcher.place
            rank, local = (0, 0) if seat is None else (seat.rank, seat.local_rank)
            ring = ring_of(place, rank, size, local, self.backend, self.timeout)
            executor = rounds.Replicated(job, ring, self.reduce == "ordered", launcher)
            yield from rounds.lead(job, resume, executor)
        finally:
            if launcher is not None:
                launcher.close()

    def _star(self, job: Job, resume: State | None, seat: Any) -> Iterator[Event]:
        from hemiola.engines import _star as star
        from hemiola.engines._ranks import Launcher

        if self.backend != "gloo" or self.ranks is not None:
            raise OptionError(
                "backend=nccl and ranks are for synchronous algorithms; an asynchronous one has a "
                "rank for every worker and one for the server, and messages on the host."
            )
        if seat is not None and seat.size != job.workers + 1:
            raise OptionError(
                f"{job.workers} asynchronous workers and their server need {job.workers + 1} ranks,"
                f" not {seat.size}; start with torchrun --nproc-per-node {job.workers + 1}, or "
                f"train with {seat.size - 1} workers."
            )
        if seat is not None and seat.rank > 0:
            star.work(job, seat.place, seat.rank - 1, 0, self.timeout)
            raise StreamEnded("this rank has worked for the server in rank 0")
        launcher = Launcher(parcel("torchrun", job)) if seat is None else None
        place = seat.place if launcher is None else launcher.place
        server = star.Server(job, place, star.Options(self.timeout, self.rejoin), launcher)
        try:
            with switching_often():
                server.open()
                yield from drive(job, server, resume)
        finally:
            server.close()
            if launcher is not None:
                launcher.close()


def _spare_this_process(job: Job, size: int) -> None:
    """Refuse faults that would end the process of whoever ordered them."""
    for fault in job.faults:
        if isinstance(fault, Die | Hang) and fault.worker * size // job.workers == 0:
            raise OptionError(
                f"worker {fault.worker} is part of this process, which must not die or hang; "
                "choose another worker, or start with torchrun."
            )
