"""Disciplines of communication: when messages move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Interval

from hemiola.component import component
from hemiola.rng import stream


@component
class Synchronous:
    """Rounds: the members start from one message and the server waits for all of them.

    ``participation`` is FedAvg's C: max(round(C K), 1) distinct workers take part in a round.
    ``rounds`` limits how often messages move at all; one-shot averaging has ``rounds=1``.
    """

    participation: Annotated[float, Interval(ge=0, le=1)] = 1.0
    rounds: Annotated[int, Ge(1)] | None = None

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


@component
class Asynchronous:
    """Each message is applied when it arrives, and only its sender gets the new model.

    ``max_lead`` bounds how many pieces of work a worker may be ahead of the slowest before it must
    wait (SSP's s); None: it never waits. ``fetch_every``: a worker reads the model before every
    n-th piece of work only.
    """

    max_lead: Annotated[int, Ge(0)] | None = None
    fetch_every: Annotated[int, Ge(1)] = 1


Discipline = Synchronous | Asynchronous
