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
    ``gap``         the duality gap: ``loss`` is no further than this above the least there is; None
                    of algorithms that have none
    ``measures``    what the algorithm says of itself, such as ADMM's residuals
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
    gap: float | None = None
    measures: dict[str, float] = field(default_factory=dict)


@dataclass
class History:
    """The records of a run, and its final counts.

    ``metric`` names the records' score. ``staleness[s]`` counts updates that were s versions old,
    ``lead[s]`` reads by workers s pieces of work ahead of the slowest, ``worker_updates[k]`` the
    updates by worker k. ``refused`` messages were not finite; ``left`` and ``joined`` count workers
    that went away and came back, ``deaths[k]`` how often worker k went away. Of the ``sent`` pieces
    of work, ``late`` came too late and ``lost`` went with their workers. ``restarts``: how often
    the run went back to its last checkpoint, and forgot what had happened since.

    ``groups`` are the books of groups of workers, one for each group that there was: its
    ``members``, ``since`` and ``until`` when, how many ``updates`` it made, on how many
    ``samples``, the sum of their ``staleness``, and what the time model expected. ``links[k]`` are
    the bytes to and from worker k, ``times[k]`` sums over its pieces of work
    (:class:`~hemiola.job.Ledger`).

    ``undone[i]`` is the share of what pass i over shared memory meant to change and races undid, if
    that was counted.
    """

    metric: str = "accuracy"
    records: list[Record] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    lead: list[int] = field(default_factory=list)
    worker_updates: list[int] = field(default_factory=list)
    refused: int = 0
    left: int = 0
    joined: int = 0
    sent: int = 0
    late: int = 0
    lost: int = 0
    restarts: int = 0
    deaths: list[int] = field(default_factory=list)
    undone: list[float] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    times: list[list[float]] = field(default_factory=list)

    def measured(self, name: str) -> tuple[Array, Array]:
        """The rounds and values of one of the ``measures``, where there is one, (m,) each.

        >>> [x.tolist() for x in History().measured("primal")]
        [[], []]
        """
        found = [(r.rounds, r.measures[name]) for r in self.records if name in r.measures]
        rounds, values = zip(*found, strict=True) if found else ((), ())
        return np.array(rounds), np.array(values)

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

    def seconds_to(self, loss: float) -> float | None:
        """When an evaluation first saw a training loss as low as this; None: never.

        >>> History().seconds_to(0.5) is None
        True
        """
        found = (record.seconds for record in self.records if record.loss <= loss)
        return next(found, None)

    def waiting_share(self) -> float:
        """The part of the workers' time that they spent waiting."""
        available = self.last.seconds * max(len(self.worker_updates), 1)
        return self.last.waiting / available if available else 0.0

    def take(self, ledger: Ledger, now: float) -> None:
        """Copy the counts that stand in no record."""
        self.staleness, self.lead = list(ledger.staleness), list(ledger.lead)
        self.worker_updates = list(ledger.updates)
        self.groups = [{"until": now, **group} for group in ledger.groups]
        self.undone = list(ledger.undone)
        self.refused, self.left, self.joined = ledger.refused, ledger.left, ledger.joined
        self.links, self.times = list(ledger.links), [list(sums) for sums in ledger.times]
        self.sent, self.late, self.lost = ledger.sent, ledger.late, ledger.lost
        self.deaths = list(ledger.deaths)

    def incidents(self) -> str:
        """What went wrong and was dealt with, in a sentence; nothing if nothing did.

        >>> History(worker_updates=[9] * 8, deaths=[1, 2], left=3, joined=1, late=3).incidents()
        '2 of 8 workers died, 3 times in all, and 1 came back; 3 late messages were dropped.'
        >>> History(late=1, refused=5).incidents()
        '1 late message was dropped, 5 that were not finite were refused.'
        """
        parts = (self._deaths_in_words(), self._drops_in_words(), self._restarts_in_words())
        sentence = "; ".join(filter(None, parts))
        return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""

    def _deaths_in_words(self) -> str:
        if not self.left:
            return ""
        died = sum(count > 0 for count in self.deaths) or self.left
        often = f", {self.left} times in all" if self.left > died else ""
        back = f" and {self.joined} came back" if self.joined else ""
        comma = "," if often and back else ""
        return f"{died} of {len(self.worker_updates)} workers died{often}{comma}{back}"

    def _drops_in_words(self) -> str:
        late = f"{_number(self.late, 'late message')} dropped" if self.late else ""
        more = "" if late else " message" if self.refused == 1 else " messages"
        were = "was" if self.refused == 1 else "were"
        wrong = f"{self.refused:,}{more} that {were} not finite {were} refused"
        return ", ".join(filter(None, (late, wrong if self.refused else "")))

    def _restarts_in_words(self) -> str:
        if not self.restarts:
            return ""
        times = "once" if self.restarts == 1 else f"{self.restarts} times"
        return f"the run went back to its last checkpoint {times}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the inverse of :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> History:
        records = [Record(**record) for record in plain["records"]]
        return cls(**{**plain, "records": records})


def record_of(
    event: Event, rounds: float, values: Sequence[float], measures: dict[str, float]
) -> Record:
    """A record of an event, its (loss, eval_loss, score) and the algorithm's own figures."""
    loss, eval_loss, score = values
    ledger: Ledger = event.ledger
    return Record(
        rounds, event.step, ledger.local_steps, event.clock, loss, eval_loss, score,
        ledger.bytes_up, ledger.bytes_down, ledger.messages, ledger.waiting, event.gap(), measures,
    )  # fmt: skip


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{' was' if count == 1 else 's were'}"


FIELDS = tuple(entry.name for entry in fields(Record))
