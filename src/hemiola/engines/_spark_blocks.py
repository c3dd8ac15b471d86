"""What a partition's tasks are given of a job, once: what its workers need, and no other rows."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from pyspark.cloudpickle import dumps

from hemiola.contracts import Divisible
from hemiola.errors import OptionError, UnsupportedError
from hemiola.job import Job


class Block:
    """The job as one partition's tasks see it, unpickled once in each process that asks."""

    def __init__(self, job: Job) -> None:
        self._pickled = dumps(job, protocol=5)

    @cached_property
    def job(self) -> Job:
        job: Job = pickle.loads(self._pickled)
        self._pickled = b""
        return job


def block_of(job: Job, workers: Sequence[int]) -> Block:
    """What these workers need, and of the data, where it can be divided, only their rows."""
    source = job.source.only(workers) if isinstance(job.source, Divisible) else job.source
    try:
        return Block(replace(job, source=source, trace=None, timeline=None, tell=None))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UnsupportedError(
            f"engine spark cannot send this job to another process ({error}); use threads."
        ) from error


def check_partitions(size: int, job: Job) -> None:
    """Raise :class:`OptionError` when a partition would have no worker."""
    if size > job.workers:
        raise OptionError(
            f"{size} partitions for {job.workers} workers: each needs at least one; "
            f"train with {size} workers or more, or fewer partitions."
        )


def partition_of(worker: int, size: int, job: Job) -> int:
    """Which of so many partitions a worker belongs to: they are dealt in blocks."""
    return worker * size // job.workers


def blocks_of(job: Job, size: int) -> Iterator[Block]:
    """The blocks of so many partitions, in order."""
    for number in range(size):
        yield block_of(job, [k for k in range(job.workers) if partition_of(k, size, job) == number])
