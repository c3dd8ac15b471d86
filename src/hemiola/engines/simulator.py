"""Engine ``simulator``: real updates on virtual time. Deterministic; thousands of workers.

An event heap orders what the workers hand in; ties go to the lower rank. A piece of work takes

    2 latency + (bytes down + bytes up) / bandwidth + compute time of its local steps

and the server takes none. A worker computes on the message that it read, wherever the server is by
then: gradients are as stale as they would be on a cluster of that timing. A worker that dies is
known to be gone at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import field
from heapq import heappop, heappush
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import numpy as np
from annotated_types import Ge, Gt, Interval
from pydantic import AllowInfNan

from hemiola.algorithm import Task
from hemiola.communicate import Asynchronous, Synchronous
from hemiola.component import component
from hemiola.engines._drive import Arrival, Change, Workers, drive
from hemiola.engines._faults import Fate
from hemiola.errors import OptionError
from hemiola.job import Event, Job
from hemiola.rng import stream
from hemiola.types import Message, State, nbytes


@runtime_checkable
class ComputeTime(Protocol):
    """How long local steps take."""

    def seconds(self, rng: np.random.Generator, steps: int) -> float:
        """A draw of the time of ``steps`` steps of one worker."""
        ...


@component
class Constant:
    """Every step takes ``mean`` seconds."""

    mean: Annotated[float, Gt(0)] = 1e-3

    def seconds(self, rng: np.random.Generator, steps: int) -> float:
        return self.mean * steps


@component
class Uniform:
    """Every step takes between ``low`` and ``high`` seconds."""

    low: Annotated[float, Ge(0)] = 5e-4
    high: Annotated[float, Gt(0)] = 1.5e-3

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise OptionError(f"Uniform: low = {self.low} is above high = {self.high}.")

    def seconds(self, rng: np.random.Generator, steps: int) -> float:
        return float(rng.uniform(self.low, self.high, steps).sum())


@component
class LogNormal:
    """Every step takes a log-normal time of this ``mean``; ``sigma`` is the sd of its logarithm."""

    mean: Annotated[float, Gt(0)] = 1e-3
    sigma: Annotated[float, Ge(0)] = 0.5

    def seconds(self, rng: np.random.Generator, steps: int) -> float:
        mu = math.log(self.mean) - self.sigma**2 / 2
        return float(rng.lognormal(mu, self.sigma, steps).sum())


@component
class Stragglers:
    """A mixture: a step takes ``mean`` seconds, or with ``probability`` ``slowdown`` times that."""

    mean: Annotated[float, Gt(0)] = 1e-3
    probability: Annotated[float, Interval(ge=0, le=1)] = 0.1
    slowdown: Annotated[float, Ge(1)] = 5.0

    def seconds(self, rng: np.random.Generator, steps: int) -> float:
        slow = rng.binomial(steps, self.probability)
        return self.mean * (steps + (self.slowdown - 1) * float(slow))


@component
class Simulator:
    """Virtual time. ``compute`` is the time of a local step, ``latency`` in seconds a message,
    ``bandwidth`` in bytes a second and worker. The first ``slow_share`` of the workers compute
    ``slow_factor`` times slower than the others."""

    name: ClassVar[str] = "simulator"
    supports: ClassVar[frozenset[type]] = frozenset({Synchronous, Asynchronous})

    compute: ComputeTime = field(default_factory=Constant)
    latency: Annotated[float, Ge(0)] = 0.0
    bandwidth: Annotated[float, Gt(0), AllowInfNan(True)] = math.inf
    slow_share: Annotated[float, Interval(ge=0, le=1)] = 0.0
    slow_factor: Annotated[float, Ge(1)] = 1.0

    def run(self, job: Job, resume: State | None = None) -> Iterator[Event]:
        return drive(job, _Executor(job, self), resume)

    def duration(self, job: Job, task: Task, payload: int, steps: int) -> tuple[float, float]:
        """Virtual seconds (from sending a message down to having its answer, of computing)."""
        rng = stream(job.seed, "compute", task.worker, task.step)
        slow = task.worker < round(self.slow_share * job.workers)
        compute = self.compute.seconds(rng, steps) * (self.slow_factor if slow else 1.0)
        return 2 * self.latency + payload / self.bandwidth + compute, compute


class _Executor:
    def __init__(self, job: Job, model: Simulator) -> None:
        self._job = job
        self._workers = Workers(job)
        self._model = model
        self._fate = Fate(job)
        self._now = 0.0
        self._heap: list[tuple[float, int, int, Arrival | Change]] = []
        self._pushed = 0

    def start(self, down: Message, task: Task) -> None:
        worker, lot = task.worker, self._fate.of(task.worker, task.step)
        if lot.dies:
            self._die(worker, lot.back_after)
        if lot.dies or lot.hangs:
            return
        up, steps, _ = self._workers.work(down, task)
        payload = nbytes(down) + nbytes(up)
        duration, computed = self._model.duration(self._job, task, payload, steps)
        end = self._now + (duration + lot.delay(computed))
        computed = lot.compute(computed)
        self._push(end, Arrival(worker, lot.spoil(up), steps, end, computed, task.step))

    def _die(self, worker: int, back_after: float | None) -> None:
        self._workers.states[worker] = None
        self._push(self._now, Change(worker, False, self._now))
        if back_after is not None:
            back = self._now + back_after
            self._push(back, Change(worker, True, back))

    def _push(self, when: float, happening: Arrival | Change) -> None:
        """Ties go to the lower rank, and then to what was said first."""
        heappush(self._heap, (when, happening.worker, self._pushed, happening))
        self._pushed += 1

    def next(self, until: float | None = None) -> Arrival | Change | None:
        if not self._heap or (until is not None and self._heap[0][0] > until):
            self._now = self._now if until is None else max(self._now, until)
            return None
        when, _, _, happening = heappop(self._heap)
        self._now = max(self._now, when)
        return happening

    def set_state(self, worker: int, state: State) -> None:
        self._workers.states[worker] = state

    def states(self) -> list[State]:
        return self._workers.states

    def pending(self) -> Sequence[Arrival | Change]:
        return [happening for *_, happening in sorted(self._heap, key=lambda item: item[:3])]

    def restore(self, pending: Sequence[Arrival | Change], clock: float) -> None:
        for happening in pending:
            when = happening.finished if isinstance(happening, Arrival) else happening.when
            self._push(when, happening)
        self._now = clock

    def now(self) -> float:
        return self._now

    def pause(self) -> None:
        """Virtual time does not pass outside."""

    def resume(self) -> None:
        """See :meth:`pause`."""
