"""Engine ``simulator``: real updates on virtual time. Deterministic; thousands of workers.

An event heap orders what the workers hand in; ties go to the lower rank. A piece of work takes

    2 latency + (bytes down + bytes up) / bandwidth + compute time of its local steps

with the latency and the bandwidth of the worker's link to the server. Where the server's own link
is limited, a message down also takes bytes / server_bandwidth before it leaves, and a message up
after it arrived; each direction carries one message at a time, in order. The server itself takes no
time. A worker computes on the message that it read, wherever the server is by then: gradients are
as stale as they would be on a cluster of that timing. A worker that dies is
known to be gone at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import field
from heapq import heappop, heappush
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Interval
from pydantic import AllowInfNan

from hemiola.algorithm import Task
from hemiola.communicate import Asynchronous, Grouped, Synchronous
from hemiola.component import component
from hemiola.engines._compute import (
    ComputeTime,
    Constant,
    Equal,
    Factors,
    LogNormal,
    LogNormalSpeed,
    PerWorker,
    Speed,
    Stragglers,
    Uniform,
)
from hemiola.engines._drive import drive
from hemiola.engines._executor import Arrival, Change, Workers
from hemiola.engines._faults import Fate
from hemiola.engines._network import Flat, Link, Links, Network, Tiers
from hemiola.errors import OptionError
from hemiola.job import Event, Job
from hemiola.rng import stream
from hemiola.types import Message, State, nbytes

__all__ = [
    "ComputeTime", "Constant", "Equal", "Factors", "Flat", "Link", "Links", "LogNormal",
    "LogNormalSpeed", "Network", "PerWorker", "Simulator", "Speed", "Stragglers", "Tiers",
    "Uniform",
]  # fmt: skip


@component
class Simulator:
    """Virtual time. ``compute`` is the time of a local step, ``latency`` in seconds a message,
    ``bandwidth`` in bytes a second and worker. The first ``slow_share`` of the workers compute
    ``slow_factor`` times slower than the others; ``speed`` draws a factor for every worker once.
    ``network`` replaces latency and bandwidth where links differ, and ``server_bandwidth`` limits
    all messages together, in each direction."""

    name: ClassVar[str] = "simulator"
    supports: ClassVar[frozenset[type]] = frozenset({Synchronous, Asynchronous, Grouped})

    compute: ComputeTime | PerWorker = field(default_factory=Constant)
    latency: Annotated[float, Ge(0)] = 0.0
    bandwidth: Annotated[float, Gt(0), AllowInfNan(True)] = math.inf
    slow_share: Annotated[float, Interval(ge=0, le=1)] = 0.0
    slow_factor: Annotated[float, Ge(1)] = 1.0
    speed: Speed = field(default_factory=Equal)
    network: Network | None = None
    server_bandwidth: Annotated[float, Gt(0), AllowInfNan(True)] = math.inf

    def __post_init__(self) -> None:
        if self.network is not None and (self.latency or math.isfinite(self.bandwidth)):
            raise OptionError(
                "Simulator: latency and bandwidth are those of the network; give them to the "
                "network instead, for example network.latency."
            )

    def run(self, job: Job, resume: State | None = None) -> Iterator[Event]:
        return drive(job, _Executor(job, self), resume)

    def wires(self) -> Network:
        """The network, given or flat.

        >>> Simulator(latency=0.5).wires()
        Flat(latency=0.5, bandwidth=inf)
        """
        return self.network or Flat(self.latency, self.bandwidth)

    def factors(self, workers: int, seed: int) -> list[float]:
        """How much longer each worker computes than ``compute`` says.

        >>> Simulator(slow_share=0.5, slow_factor=3, speed=Factors((1, 2))).factors(4, 0)
        [3.0, 6.0, 1.0, 2.0]
        """
        slow = round(self.slow_share * workers)
        return [
            self.speed.factor(stream(seed, "speed", k), k) * (self.slow_factor if k < slow else 1.0)
            for k in range(workers)
        ]


class _Cluster:
    """What is drawn once: every worker's distribution of compute time, speed and link."""

    def __init__(self, job: Job, model: Simulator) -> None:
        network, compute = model.wires(), model.compute
        self._seed = job.seed
        self._factors = model.factors(job.workers, job.seed)
        self._links = [network.link(k) for k in range(job.workers)]
        self._computes: list[ComputeTime] = [
            compute.of(k) if isinstance(compute, PerWorker) else compute for k in range(job.workers)
        ]

    def duration(self, task: Task, payload: int, steps: int) -> tuple[float, float]:
        """Virtual seconds (on the worker's link and computing, of computing)."""
        worker = task.worker
        latency, bandwidth = self._links[worker]
        rng = stream(self._seed, "compute", worker, task.step)
        compute = self._computes[worker].seconds(rng, steps) * self._factors[worker]
        return 2 * latency + payload / bandwidth + compute, compute


class _Executor:
    def __init__(self, job: Job, model: Simulator) -> None:
        self._workers = Workers(job)
        self._cluster = _Cluster(job, model)
        self._bandwidth = model.server_bandwidth
        self._fate = Fate(job)
        self._now = self._out = self._in = 0.0  # the server's link is free from then on
        self._heap: list[tuple[float, int, int, Arrival | Change]] = []
        self._pushed = 0

    def start(self, down: Message, task: Task) -> None:
        worker, lot = task.worker, self._fate.of(task.worker, task.step)
        if lot.dies:
            self._die(worker, lot.back_after)
        if lot.dies or lot.hangs:
            return
        up, steps, _ = self._workers.work(down, task)
        sent, size = nbytes(down), nbytes(up)
        self._out = max(self._now, self._out) + sent / self._bandwidth
        duration, computed = self._cluster.duration(task, sent + size, steps)
        end = self._out + (duration + lot.delay(computed))
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
        when = self._heard(*self._heap[0]) if self._heap else math.inf
        if math.isinf(when) or (until is not None and when > until):
            self._now = self._now if until is None else max(self._now, until)
            return None
        *_, happening = heappop(self._heap)
        self._now = max(self._now, when)
        if isinstance(happening, Change):
            return happening
        self._in = when
        return happening._replace(finished=when)

    def _heard(self, when: float, worker: int, order: int, happening: Arrival | Change) -> float:
        """When the server has it: a message waits for the server's link and takes its time."""
        if isinstance(happening, Change):
            return when
        return max(when, self._in) + nbytes(happening.up) / self._bandwidth

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

    def memory(self) -> dict[str, float]:
        """When the server's link will be free, in each direction."""
        return {"out": self._out, "in": self._in}

    def recall(self, memory: dict[str, float]) -> None:
        self._out, self._in = memory["out"], memory["in"]

    def now(self) -> float:
        return self._now

    def pause(self) -> None:
        """Virtual time does not pass outside."""

    def resume(self) -> None:
        """See :meth:`pause`."""
