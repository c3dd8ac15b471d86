"""The loops that all engines share: of rounds, of groups, and without rounds.

An engine is an *executor* (:mod:`hemiola.engines._executor`): it keeps the workers' states, starts
their pieces of work and hands over pieces that are done. Everything else - who takes part, who must
wait, in which order messages are reduced, what the server is told, what is counted, what a snapshot
holds - is in the loops and their server once, so that engines cannot differ in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from hemiola.communicate import Grouped, Synchronous
from hemiola.engines._asynchronous import asynchronous
from hemiola.engines._executor import Executor
from hemiola.engines._groups import grouped
from hemiola.engines._rounds import synchronous
from hemiola.job import Event, Job
from hemiola.types import State


def drive(job: Job, executor: Executor, resume: State | None) -> Iterator[Event]:
    """Run the algorithm's discipline on an executor."""
    if isinstance(job.algorithm.communicate, Synchronous):
        return synchronous(job, executor, resume)
    if isinstance(job.algorithm.communicate, Grouped):
        return grouped(job, executor, resume)
    return asynchronous(job, executor, resume)
