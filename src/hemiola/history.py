"""What happened in a run, sampled at its evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from hemiola.job import Event, Ledger
from hemiola.types import Array


@dataclass(frozen=True)
class Record:
    """One evaluation.

    ``rounds``      synchronous rounds; of an asynchronous run, updates over the number of workers
    ``updates``     updates of the server
    ``local_steps`` gradient steps of all workers together
    ``seconds``     since the start: wall time without evaluations, or virtual time
    ``loss``        the objective on all training data
    ``eval_loss``   the objective on the evaluation data (on the training data, if there are none)
    ``score``       accuracy, or R^2 of a regression, on the same data as ``eval_loss``
    ``bytes_up``, ``bytes_down``, ``messages``   payload between the workers and one server
    ``waiting``     seconds that workers spent waiting, summed over workers
    """

    rounds: float
    updates: int
    local_steps: int
    seconds: float
    loss: float
    eval_loss: float
    score: float
    bytes_up: int
    bytes_down: int
    messages: int
    waiting: float


@dataclass
class History:
    """The records of a run, and its final counts.

    ``metric`` names the records' score. ``staleness[s]`` counts updates that were s versions old,
    ``lead[s]`` reads by workers s pieces of work ahead of the slowest, ``worker_updates[k]`` the
    updates by worker k. ``refused`` messages were not finite; ``left`` and ``joined`` count workers
    that went away and came back. ``lost[i]`` is the share of what pass i over shared memory meant
    to change and races undid, if that was counted. ``groups`` are the books of groups of workers,
    one for each group that there was: its ``members``, ``since`` and ``until`` when, how many
    ``updates`` it made, on how many ``samples``, the sum of their ``staleness``, and what the time
    model expected.
    """

    metric: str = "accuracy"
    records: list[Record] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    lead: list[int] = field(default_factory=list)
    worker_updates: list[int] = field(default_factory=list)
    refused: int = 0
    left: int = 0
    joined: int = 0
    lost: list[float] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)

    def column(self, name: str) -> Array:
        """One field of all records, (number of records,).

        >>> History().column("loss").shape
        (0,)
        """
        return np.array([getattr(record, name) for record in self.records])

    @property
    def last(self) -> Record:
        return self.records[-1]

    def mean_staleness(self) -> float:
        """The mean over all updates; 0 if there were none."""
        total = sum(self.staleness)
        return sum(s * count for s, count in enumerate(self.staleness)) / total if total else 0.0

    def waiting_share(self) -> float:
        """The part of the workers' time that they spent waiting."""
        available = self.last.seconds * max(len(self.worker_updates), 1)
        return self.last.waiting / available if available else 0.0

    def take(self, ledger: Ledger, now: float) -> None:
        """Copy the counts that stand in no record."""
        self.staleness, self.lead = list(ledger.staleness), list(ledger.lead)
        self.worker_updates = list(ledger.updates)
        self.groups = [{"until": now, **group} for group in ledger.groups]
        self.lost = list(ledger.lost)
        self.refused, self.left, self.joined = ledger.refused, ledger.left, ledger.joined

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the inverse of :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> History:
        records = [Record(**record) for record in plain["records"]]
        return cls(**{**plain, "records": records})


def record_of(event: Event, rounds: float, values: Sequence[float]) -> Record:
    """A record of an event and its (loss, eval_loss, score)."""
    loss, eval_loss, score = values
    ledger: Ledger = event.ledger
    return Record(
        rounds, event.step, ledger.local_steps, event.clock, loss, eval_loss, score,
        ledger.bytes_up, ledger.bytes_down, ledger.messages, ledger.waiting,
    )  # fmt: skip


FIELDS = tuple(entry.name for entry in fields(Record))
