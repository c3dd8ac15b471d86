"""Measuring, before a run, how long the workers compute and how long their messages take."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hemiola.algorithm import Algorithm, Info
from hemiola.communicate import Asynchronous, Grouped
from hemiola.contracts import Aggregate, Engine
from hemiola.errors import WorkersLostError
from hemiola.grouping import Groups, Measured, Samples, measured
from hemiola.job import Job, Timeline
from hemiola.types import Array, Message, State

_MOST = 50  # pieces of work by a fast worker for each one of a slow worker


@dataclass(frozen=True)
class Still:
    """A server that hands out its model and applies nothing."""

    aggregate: Aggregate

    def init(self, w0: Array, workers: int) -> State:
        return self.aggregate.init(w0, workers)

    def pull(self, state: State, worker: int) -> Message:
        return self.aggregate.pull(state, worker)

    def push(self, state: State, up: Message, info: Info) -> State:
        return state

    def model(self, state: State) -> Array:
        return self.aggregate.model(state)


def measure(job: Job, engine: Engine, pieces: int) -> Samples:
    """Seconds of computing and of messages of each worker: arrays (m_k, 2), m_k >= ``pieces``
    unless a worker is more than 50 times slower than the others.

    Everybody works alone and nothing is learned. The first piece of each worker warms up.
    """
    timeline = Timeline()
    algorithm = replace(
        job.algorithm, communicate=Asynchronous(), aggregate=Still(_read_from(job.algorithm))
    )
    job = replace(job, algorithm=algorithm, timeline=timeline, trace=None)
    seen, missing = [0] * job.workers, job.workers
    with closing(engine.run(job)) as events:  # type: ignore[type-var]
        for event in events:
            (worker,) = event.workers
            seen[worker] += 1
            missing -= seen[worker] == pieces + 2
            if not missing or event.step >= _MOST * pieces * job.workers:
                break
    return _by_worker(timeline, job.workers)


def _read_from(algorithm: Algorithm) -> Aggregate:
    """The server whose model the workers read."""
    inside: Any = getattr(algorithm.communicate, "inside", None)
    return algorithm.aggregate if inside is None else inside.aggregate


def _by_worker(timeline: Timeline, workers: int) -> Samples:
    who = np.array(timeline.workers)
    begun, computed = np.array(timeline.begun), np.array(timeline.computed)
    return [_pieces(begun[who == k], computed[who == k]) for k in range(workers)]


def _pieces(begun: Array, computed: Array) -> Array:
    """From one beginning to the next, as the server's time belongs to a message; not the first."""
    if len(begun) < 3:
        raise WorkersLostError("a worker did nothing while speeds were measured; is it alive?")
    seconds = np.diff(begun)[1:]
    return np.column_stack([computed[1:-1], np.maximum(seconds - computed[1:-1], 0.0)])


def measured_groups(job: Job, engine: Engine) -> tuple[Groups, Measured]:
    """Measure, and put the workers together as the job's algorithm asks for.

    Workers that take turns (engine ``serial``) are equally fast, whatever the clock says: one seed
    gives one result.
    """
    discipline = job.algorithm.communicate
    assert isinstance(discipline, Grouped)
    samples = measure(job, engine, discipline.calibrate)
    if engine.name == "serial":
        samples = [np.concatenate(samples)] * job.workers
    groups = discipline.rule.groups(samples)
    return groups, measured(samples, groups)
