"""A run as one job of Spark: tasks that are all there at once, and talk by torch.distributed.

In rounds the tasks and this process are ranks that keep the server's state
(:mod:`hemiola.engines._replicated`); this one, rank 0, has no workers, but sees every update. Else
this process is the server in the middle (:mod:`hemiola.engines._star`), with a task a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from time import monotonic, sleep
from typing import Any, NamedTuple

import torch
from py4j.protocol import Py4JError
from pyspark import SparkContext, TaskContext
from pyspark.errors import PySparkException

from hemiola.engines import _replicated as ranks
from hemiola.engines import _star as star
from hemiola.engines._ranks import Place, open_store, wait_for_member
from hemiola.engines._ring import ring_of
from hemiola.engines._spark_blocks import blocks_of, check_partitions
from hemiola.engines._spark_session import Jobs, cause_of
from hemiola.errors import UnsupportedError, WorkersLostError
from hemiola.job import Job
from hemiola.types import State

_PATIENCE = 30.0
"""Seconds that a cluster's executors may take to come."""


def size_of(job: Job, spark: SparkContext, partitions: int | None) -> int:
    """The partitions of a synchronous run: as many as run at once, if it is not said."""
    if partitions is not None:
        check_partitions(partitions, job)
    return min(slots_of(spark, partitions or 1), partitions or job.workers)


def slots_of(spark: SparkContext, wanted: int) -> int:
    """How many tasks can run at once; waits for so many a while, where executors come by and by.

    Raises :class:`UnsupportedError` when there are fewer.
    """
    java = spark._jsc.sc()
    profile = java.resourceProfileManager().defaultResourceProfile()
    until = monotonic() + (0.0 if spark.master.startswith("local[") else _PATIENCE)
    while (found := int(java.maxNumConcurrentTasks(profile))) < wanted and monotonic() < until:
        sleep(0.2)
    if found < wanted:
        raise UnsupportedError(
            f"Spark at {spark.master} can run {found} tasks at once, and mode barrier needs "
            f"{wanted}: take a master with {wanted} cores, fewer partitions or workers, or, for "
            "synchronous algorithms, mode=rounds."
        )
    return found


class Meeting(NamedTuple):
    """Where the tasks of a run meet this process, and how: ``timeout`` in seconds."""

    place: Place
    size: int
    timeout: float
    fixed: bool = False


class Stage:
    """The one job of a run, which goes on in a thread, and what it needs."""

    def __init__(self, job: Job, spark: SparkContext, size: int, timeout: float) -> None:
        self._jobs = Jobs(spark)
        local = spark.master.startswith("local[")
        host = "127.0.0.1" if local else spark.getConf().get("spark.driver.host", "127.0.0.1")
        assert host is not None
        self._place, self._store = open_store(host)
        self._size = size
        self._timeout = timeout
        self._sent: list[Any] = []
        self._done: Any = None
        try:
            for block in blocks_of(job, size):
                self._sent.append(spark.broadcast(block))
        except BaseException:
            self.close()
            raise

    def ranks(self, job: Job, resume: State | None, fixed: bool) -> ranks.Replicated:
        """Start a barrier stage of ranks, and wait for all; the executor of this process's."""
        meeting = Meeting(self._place, self._size, self._timeout, fixed)

        def run() -> None:
            numbers = self._jobs.spark.parallelize(range(self._size), self._size).barrier()
            numbers.mapPartitions(partial(take_part, self._sent, meeting, resume)).collect()

        self._done = self._jobs.submit(run)
        for rank in range(1, self._size + 1):
            self.wait_for(rank, "ring", rank, self._timeout)
        ring = ring_of(self._place, 0, self._size + 1, 0, "gloo", self._timeout)
        return ranks.Replicated(job, ring, fixed, self, idle=1)

    def server(self, job: Job) -> star.Server:
        """Start a task for every worker; the executor in the middle."""
        meeting = Meeting(self._place, self._size, self._timeout)

        def run() -> None:
            numbers = self._jobs.spark.parallelize(range(self._size), self._size)
            numbers.mapPartitions(partial(work, self._sent, meeting)).collect()

        self._done = self._jobs.submit(run)
        return star.Server(job, self._place, star.Options(self._timeout, True), self)

    def is_over(self, seconds: float) -> bool:
        """Whether the job has ended; waits for that, but not longer."""
        return bool(wait([self._done], seconds).done)

    def fallen(self, seconds: float) -> str:
        """What became of the job, if it has ended."""
        if not self.is_over(seconds):
            return ""
        error = self._done.exception()
        return "its tasks have ended" if error is None else f"Spark gave up ({cause_of(error)})"

    def start(self, rank: int, target: Callable[..., None], *arguments: Any) -> None:
        """Nothing: Spark starts tasks, and those again that were lost."""

    def wait_for(self, rank: int, group: str, member: int, timeout: float) -> None:
        """Wait for a task to come to a group, as its so-many-th member.

        Raises :class:`WorkersLostError` when the job has ended, or the task takes too long.
        """
        if not wait_for_member(self._place, group, member, timeout, self.is_over):
            why = self.fallen(0.0) or f"not within {timeout:g} seconds"
            raise WorkersLostError(
                f"task {rank - 1} did not come: {why}; see Spark's log of its executors."
            )

    def kill(self, rank: int) -> None:
        """Nothing: a task ends by itself when its line is cut."""

    def close(self) -> None:
        self._jobs.close()
        self._store = None
        with suppress(Py4JError, PySparkException, OSError):
            for block in self._sent:
                block.destroy()


def take_part(
    blocks: list[Any], meeting: Meeting, resume: State | None, numbers: Iterator[int]
) -> Iterator[Any]:
    """A task of a synchronous run: a rank, which nobody looks at."""
    torch.set_num_threads(1)
    for number in numbers:
        job = blocks[number].value.job
        place, size, timeout, fixed = meeting
        ring = ring_of(place, number + 1, size + 1, 0, "gloo", timeout)
        ranks.follow(job, resume, ranks.Replicated(job, ring, fixed, idle=1))
    return iter(())


def work(blocks: list[Any], meeting: Meeting, numbers: Iterator[int]) -> Iterator[Any]:
    """A task of an asynchronous run: a worker, in as many lives as Spark gives it."""
    context = TaskContext.get()
    assert context is not None
    for number in numbers:
        job = blocks[number].value.job
        star.work(job, meeting.place, number, context.attemptNumber(), meeting.timeout)
    return iter(())
