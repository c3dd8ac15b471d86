"""How fast grouped workers are, and when that asks for other groups."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from hemiola.communicate import Grouped
from hemiola.engines._executor import Arrival
from hemiola.grouping import Groups, expect, forecast, in_order, typical
from hemiola.types import Array


class Speeds:
    """How long the workers' latest pieces of work took, and when that asks for other groups."""

    def __init__(self, discipline: Grouped, workers: int) -> None:
        self._discipline = discipline
        self._latest: list[deque[tuple[float, float]]] = [
            deque(maxlen=discipline.calibrate) for _ in range(workers)
        ]
        self._skip = [1] * workers  # the first piece of work warms up
        self._weight = [0.0] * workers
        self._total, self._heard = 0.0, 0  # of the weights, and how many there are
        self._known: set[int] = set()
        known = discipline.measured
        # typical seconds when the groups were made
        self._basis: Array | None = None if known is None else known.seconds
        self._groups: Groups = ()
        self._fresh = True  # the groups are those that were measured before the run
        self._proposed: Groups | None = None
        self._unseen = 0

    def note(self, arrival: Arrival, seconds: float) -> None:
        """Take in a piece of work that took so long, with its messages and the server's time."""
        worker = arrival.worker
        weight = float(arrival.up["weight"])
        self._heard += not self._weight[worker] and weight > 0
        self._total += weight - self._weight[worker]
        self._weight[worker] = weight
        self._unseen += 1
        if self._skip[worker]:
            self._skip[worker] -= 1
            return
        exchange = max(seconds - arrival.computed, 0.0)
        latest = self._latest[worker]
        latest.append((arrival.computed, exchange))
        if len(latest) == latest.maxlen:
            self._known.add(worker)

    def share(self, arrivals: list[Arrival], groups: int) -> float:
        """The samples behind some messages over those behind a group's of mean size."""
        weight = sum(float(arrival.up["weight"]) for arrival in arrivals)
        if not weight:
            return 1.0
        return weight * self._heard * groups / (self._total * len(self._weight))

    def regroup(self, away: set[int]) -> Groups | None:
        """Other groups, when the first calibration is over or speeds have drifted."""
        if len(self._known) + len(away - self._known) < len(self._latest):
            return None
        if self._unseen < self._discipline.calibrate * len(self._latest):
            return None
        self._unseen = 0
        samples = self._samples()
        now, before = typical(samples), self._basis
        if before is None:
            self._basis = now
            if self._discipline.groups is not None:
                return None
        elif not self._drifted(before.sum(axis=1), now.sum(axis=1)):
            self._proposed = None
            return None
        groups = self._discipline.rule.groups(samples)
        if before is not None and groups != self._proposed:
            self._proposed = groups  # it takes two looks, so that no passing disturbance counts
            return None
        self._basis, self._proposed = now, None
        return groups if groups != self._groups else None

    def _drifted(self, before: Array, now: Array) -> bool:
        drift = self._discipline.drift
        return drift is not None and bool((np.abs(now - before) > drift * before).any())

    def _samples(self) -> list[Array]:
        return [np.array(latest or [(1e-9, 0.0)]) for latest in self._latest]

    def settle(self, groups: Groups) -> list[tuple[float, float]] | None:
        """Keep these groups; what the time model expects of each: (seconds, staleness)."""
        self._groups, self._fresh = groups, not self._groups
        if self._basis is None:
            return None
        known = self._discipline.measured
        if known is not None and self._fresh:
            expected = expect(known.rounds, [1.0] * len(groups))
        else:
            expected = forecast(self._samples(), groups)
        return list(zip(expected.seconds, expected.staleness, strict=True))

    def snapshot(self) -> dict[str, Any]:
        return {
            "latest": [np.array(latest).reshape(-1, 2) for latest in self._latest],
            "skip": list(self._skip), "weight": list(self._weight), "basis": self._basis,
            "total": self._total,
            "groups": [list(group) for group in self._groups], "unseen": self._unseen,
            "proposed": [list(group) for group in self._proposed or ()],
        }  # fmt: skip

    def restore(self, saved: dict[str, Any]) -> None:
        for worker, latest in enumerate(saved["latest"]):
            self._latest[worker].extend((float(a), float(c)) for a, c in latest)
            if len(latest) == self._discipline.calibrate:
                self._known.add(worker)
        self._skip, self._weight = list(saved["skip"]), list(saved["weight"])
        self._total, self._heard = saved["total"], sum(w > 0 for w in self._weight)
        self._basis, self._unseen = saved["basis"], int(saved["unseen"])
        self._groups = in_order(saved["groups"])
        self._proposed = in_order(saved["proposed"]) or None
