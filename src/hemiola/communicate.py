"""Disciplines of communication: when messages move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from hemiola.component import component
from hemiola.contracts import Aggregate
from hemiola.errors import OptionError
from hemiola.grouping import ByRatio, Grouping, Groups, Measured
from hemiola.rng import stream


@component
class Synchronous:
    """Rounds: the members start from one message and the server waits for all of them.

    ``participation`` is FedAvg's C: max(round(C K), 1) distinct workers take part in a round.
    ``rounds`` limits how often messages move at all; one-shot averaging has ``rounds=1``.

    How long a round waits, and for whom:

    ``timeout``   seconds from the beginning of a round after which it waits no longer; None: it
                  waits for everybody. A round in which nobody has answered by then also asks the
                  workers that are free, and ends with the first answer.
    ``late``      who has not answered by then is dropped from the round (``drop``), or ends the run
                  (``raise``).
    ``backups``   c: a round of K + c members ends with the first K answers. Members that are still
                  at work for an earlier round, or gone, count among the c.
    ``on_loss``   a worker that dies is left out (``drop``), ends the run (``raise``), or takes the
                  run back to its last checkpoint, with all workers (``restart``).
    ``restarts``  so many times at most.

    Who is not waited for goes on with its work. Its message is thrown away and counted when it
    comes, and only then may it take part in a round again. A message that is not finite is no
    answer: with ``on_loss="drop"`` it is dropped and counted, and a round that has no other is
    repeated; else it ends the run. The weights of the messages that make up a round are normalised
    over these, so a mean stays a mean; sums of elastic differences have fewer terms.
    """

    participation: Annotated[float, Interval(ge=0, le=1)] = 1.0
    rounds: Annotated[int, Ge(1)] | None = None
    timeout: Annotated[float, Gt(0)] | None = None
    late: Literal["drop", "raise"] = "drop"
    backups: Annotated[int, Ge(0)] = 0
    on_loss: Literal["drop", "raise", "restart"] = "drop"
    restarts: Annotated[int, Ge(0)] = 3

    @property
    def fetch_every(self) -> int:
        """Every round begins with a read."""
        return 1

    def members(self, step: int, workers: int, seed: int) -> Sequence[int]:
        """Who takes part in round ``step``, in rank order.

        >>> len(Synchronous(participation=0.1).members(0, workers=100, seed=0))
        10
        """
        m = max(round(self.participation * workers), 1)
        if m >= workers:
            return range(workers)
        chosen = stream(seed, "participation", step).choice(workers, size=m, replace=False)
        return sorted(int(k) for k in chosen)

    def enough(self, members: int) -> int:
        """How many answers end a round of so many members.

        >>> Synchronous(backups=2).enough(10), Synchronous(backups=2).enough(1)
        (8, 1)
        """
        return max(members - self.backups, 1)


@component
class Asynchronous:
    """Each message is applied when it arrives, and only its sender gets the new model.

    ``max_lead`` bounds how many pieces of work a worker may be ahead of the slowest before it must
    wait (SSP's s); None: it never waits. ``fetch_every``: a worker reads the model before every
    n-th piece of work only.

    ``barrier``: workers that have answered read the next model together, as soon as so many are
    there, or all if there are fewer. ``max_delay``: while they wait for a worker that would else
    be passed over for the n-th time in a row; 1: nobody ever is, None: anybody may be.
    """

    max_lead: Annotated[int, Ge(0)] | None = None
    fetch_every: Annotated[int, Ge(1)] = 1
    barrier: Annotated[int, Ge(1)] = 1
    max_delay: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        together = self.barrier > 1 or self.max_delay is not None
        if together and (self.max_lead is not None or self.fetch_every > 1):
            raise OptionError(
                "a barrier and a bounded delay go with neither a bounded lead (max_lead) nor with "
                "reading less often (fetch_every); leave one of them out."
            )


POLICIES = ("timeout", "late", "backups", "on_loss", "restarts")
"""The fields of :class:`Synchronous` that say how long rounds wait, and for whom."""


@component
class Rounds:
    """What a group does between two exchanges with the server: ``rounds`` rounds on its own.

    ``aggregate`` is a server of the group's own that begins each exchange at the model that the
    group read, as in local training; the group then sends what it changed.
    """

    aggregate: Aggregate
    rounds: Annotated[int, Ge(1)] = 1


@component
class Grouped:
    """Synchronous inside groups of similar speed, asynchronous across them.

    ``groups``     who works together; None: everyone alone at first, until each worker's time is
                   known from ``calibrate`` pieces of work;
    ``rule``       puts workers of similar speed together;
    ``drift``      regroup when a worker's time has changed by this share; None: never;
    ``scale``      ``linear``: a message counts by the samples behind it, 1 for a group of mean
                   size; ``equal``: each counts 1;
    ``max_lead``   rounds that a group may be ahead of the slowest; None: any;
    ``inside``     rounds of the group's own; None: one piece of work of each member, joined, goes
                   to the server as it is;
    ``measured``   what ``groups`` were made of.
    """

    groups: Groups | None = None
    rule: Grouping = field(default_factory=ByRatio)
    calibrate: Annotated[int, Ge(2)] = 20
    drift: Annotated[float, Gt(0)] | None = 0.2
    scale: Literal["linear", "equal"] = "linear"
    max_lead: Annotated[int, Ge(0)] | None = None
    inside: Rounds | None = None
    measured: Measured | None = None

    def __post_init__(self) -> None:
        members = [worker for group in self.groups or () for worker in group]
        if self.groups is not None and sorted(members) != list(range(len(members))):
            raise OptionError(f"groups must name every worker 0, 1, ... once, not {self.groups!r}.")

    @property
    def fetch_every(self) -> int:
        """Every round begins with a read."""
        return 1


@component
class SharedMemory:
    """No messages at all: threads of one process work on one model in place."""


Discipline = Synchronous | Asynchronous | Grouped
