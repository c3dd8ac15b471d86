"""A barrier stage on a DataFrame, of a session in this process or of Spark Connect.

Spark Connect has neither contexts nor jobs for its clients: how many tasks run at once is learned
from how Spark divides a range of numbers, and a run is interrupted by its tag.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.udf import UserDefinedFunction
from pyspark.util import PythonEvalType

from hemiola.engines._spark_session import Jobs, cause_of
from hemiola.engines._spark_stage import slots_of
from hemiola.errors import DataError, UnsupportedError, WorkersLostError

_SCHEMA = "content binary"
_MANY = 1 << 16  # numbers, of which every task gets some


def dealt(frame: DataFrame, workers: int | None) -> DataFrame:
    """The rows in as many partitions as are to train: so many, or as there are that run at once.

    Raises :class:`UnsupportedError` when not so many tasks run at once.
    """
    if _is_remote(frame):
        numbers = frame.sparkSession.range(_MANY).select(F.spark_partition_id().alias("task"))
        slots = numbers.distinct().count()
        if (workers or 1) > slots:
            raise UnsupportedError(
                f"Spark can run {slots} tasks at once, and {workers} workers need as many: take "
                "fewer workers (numWorkers), or a session with more cores."
            )
        return frame.repartition(workers or slots)
    spark, parts = frame.sparkSession.sparkContext, frame.rdd.getNumPartitions()
    workers = workers or min(parts, slots_of(spark, 1))
    slots_of(spark, workers)
    return frame if workers == parts else frame.repartition(workers)


def in_barrier(frame: DataFrame, task: Callable[..., Any]) -> bytes:
    """What task 0 of a barrier stage yields: each gets its partition in Arrow's batches.

    A barrier stage that is the last one is never tried again when a task is lost, so another one
    follows. Raises :class:`DataError` without rows, :class:`WorkersLostError` when Spark gives up.
    """
    try:
        rows = _rows_remote(frame, task) if _is_remote(frame) else _rows(frame, task)
    except (Py4JError, PySparkException) as error:
        raise WorkersLostError(f"Spark gave up training ({cause_of(error)})") from error
    if not rows:  # Spark has seen ahead that there is nothing to do
        raise DataError("the DataFrame has no rows to train on.")
    return bytes(rows[0][0])


def _is_remote(frame: DataFrame) -> bool:
    return not hasattr(frame, "_jdf")


def _rows(frame: DataFrame, task: Callable[..., Any]) -> list[Any]:
    """With ``frame.mapInArrow(task, schema, barrier=True)``, but without pandas, which that asks
    for."""
    kind = PythonEvalType.SQL_MAP_ARROW_ITER_UDF
    udf = UserDefinedFunction(task, _SCHEMA, evalType=kind)
    column = udf(*(frame[name] for name in frame.columns))
    found = DataFrame(frame._jdf.mapInArrow(column._jc, True, None), frame.sparkSession)
    with closing(Jobs(frame.sparkSession.sparkContext)) as jobs:
        return list(jobs.submit(found.repartition(1).collect).result())


def _rows_remote(frame: DataFrame, task: Callable[..., Any]) -> list[Any]:
    spark, tag = frame.sparkSession, f"hemiola-{uuid4().hex}"
    spark.addTag(tag)
    try:
        return list(frame.mapInArrow(task, _SCHEMA, barrier=True).repartition(1).collect())
    except KeyboardInterrupt:
        spark.interruptTag(tag)
        raise
    finally:
        spark.removeTag(tag)
