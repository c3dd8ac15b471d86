"""A round as one job of Spark, and what a task of it does."""

from __future__ import annotations

import gc
import pickle
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, NamedTuple

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from threadpoolctl import threadpool_limits

from hemiola.algorithm import Task
from hemiola.communicate import Synchronous
from hemiola.engines._clock import WallClock
from hemiola.engines._executor import Arrival, Change, Workers
from hemiola.engines._flat import raised, report
from hemiola.engines._spark_blocks import blocks_of, check_partitions, partition_of
from hemiola.engines._spark_session import Jobs, cause_of
from hemiola.errors import RestartError, WorkersLostError
from hemiola.job import Job
from hemiola.types import Message, State, freeze


class Piece(NamedTuple):
    """A piece of work to do. ``state`` is a pickle, None at the start."""

    worker: int
    step: int
    state: bytes | None


class Answer(NamedTuple):
    """A piece of work done; ``failure`` is what else became of it."""

    worker: int
    step: int
    up: dict[str, Any]
    steps: int
    computed: float
    state: bytes
    failure: bytes = b""


def perform(blocks: list[Any], downs: dict[int, Message], orders: Iterator[bytes]) -> Iterator[Any]:
    """A task: the answers to each partition's pieces of work, a pure function of its arguments."""
    for order in orders:
        number, pieces = pickle.loads(order)
        for piece in pieces:
            yield pickle.dumps(_answer(blocks[number], downs[piece.worker], piece), protocol=5)


def _answer(block: Any, down: Message, piece: Piece) -> Answer:
    worker, step, state = piece
    try:
        job = block.value.job
        _settle()
        workers = Workers(job)
        workers.states[worker] = None if state is None else pickle.loads(state)
        up, steps, computed = workers.work(freeze(**down), job.task(worker, step))
        left = pickle.dumps(workers.states[worker], protocol=5)
    except Exception as error:  # raised by the driver: trying again would not help
        return Answer(worker, step, {}, 0, 0.0, b"", report(error))
    return Answer(worker, step, dict(up), steps, computed, left)


@cache
def _settle() -> None:
    """Once a process has loaded what the job needs: one thread, and garbage is not looked for among
    what stays. Spark collects it after every task."""
    threadpool_limits(1)
    gc.freeze()


class Rounds:
    """The executor: keeps the workers' states, and sends each with its next piece of work."""

    def __init__(self, job: Job, spark: SparkContext, partitions: int | None) -> None:
        self._job = job
        self._spark = spark
        self._jobs = Jobs(spark)
        self._size = partitions or min(spark.defaultParallelism, job.workers)
        check_partitions(self._size, job)
        self._states: list[bytes | None] = [None] * job.workers
        self._asked: list[tuple[Task, Message]] = []
        self._done: deque[Arrival | Change] = deque()
        self._begun = [0] * job.workers
        self._clock = WallClock()
        self.now = self._clock.now
        self.pause = self._clock.pause
        self.resume = self._clock.resume
        self._blocks: list[Any] = []
        try:
            for block in blocks_of(job, self._size):
                self._blocks.append(spark.broadcast(block))
        except BaseException:
            self.close()
            raise

    def start(self, down: Message, task: Task) -> None:
        self._asked.append((task, down))
        self._begun[task.worker] = task.step + 1

    def next(self, until: float | None = None) -> Arrival | Change | None:
        if not self._done and self._asked:
            self._perform()
        return self._done.popleft() if self._done else None

    def _perform(self) -> None:
        """One job: all pieces of work that were asked for."""
        asked, self._asked = self._asked, []
        answers = [pickle.loads(answer) for answer in self._collected(asked)]
        failed = next((answer for answer in answers if answer.failure), None)
        if failed is not None:
            raise raised(failed.failure, f"worker {failed.worker}")
        now = self.now()
        for answer in answers:
            self._states[answer.worker] = answer.state
            up = freeze(**answer.up)
            self._done.append(
                Arrival(answer.worker, up, answer.steps, now, answer.computed, answer.step)
            )

    def _collected(self, asked: list[tuple[Task, Message]]) -> list[bytes]:
        orders: dict[int, list[Piece]] = {}
        for task, _ in asked:
            piece = Piece(task.worker, task.step, self._states[task.worker])
            orders.setdefault(partition_of(task.worker, self._size, self._job), []).append(piece)
        downs = {task.worker: down for task, down in asked}
        parcels = [pickle.dumps(order, protocol=5) for order in orders.items()]
        work = partial(perform, self._blocks, downs)
        try:
            return self._jobs.submit(self._done_by_spark, parcels, work).result()
        except (Py4JError, PySparkException) as error:
            raise self._lost(error) from error

    def _done_by_spark(self, parcels: list[bytes], work: Any) -> list[bytes]:
        done: list[bytes] = (
            self._spark.parallelize(parcels, len(parcels)).mapPartitions(work).collect()
        )
        return done

    def _lost(self, error: Exception) -> WorkersLostError:
        what = f"Spark gave up a round ({cause_of(error)})"
        discipline = self._job.algorithm.communicate
        if isinstance(discipline, Synchronous) and discipline.on_loss == "restart":
            return RestartError(what, self._begun)
        return WorkersLostError(
            f"{what}; more attempts are allowed by -e conf=spark.task.maxFailures=8, or go back to "
            "a checkpoint with on_loss=restart."
        )

    def set_state(self, worker: int, state: State) -> None:
        self._states[worker] = pickle.dumps(state, protocol=5)

    def states(self) -> list[State]:
        return [None if state is None else pickle.loads(state) for state in self._states]

    def pending(self) -> Sequence[Arrival | Change]:
        return list(self._done)

    def restore(self, pending: Sequence[Arrival | Change], clock: float) -> None:
        self._done.extend(pending)
        self._clock.set(clock)

    def close(self) -> None:
        """Stop what is running, and free the blocks, also in a session that goes on."""
        self._jobs.close()
        with suppress(Py4JError, PySparkException, OSError):
            for block in self._blocks:
                block.destroy()
