"""Engine ``spark``: algorithms on Apache Spark, on this machine or on a cluster, in two modes.

*Mode rounds*: every round is one job. Workers are dealt to partitions in blocks; a partition's rows
- one NumPy array or CSR matrix - reach the processes that work on it once and stay there. Its
workers' states and the model come with the job, and their messages and new states go back, so a
round is a pure function of the one before it: what is lost with an executor is computed again, to
the same bits. The driver adds the messages in rank order, by the same loop as every other engine,
so the result has the bits of ``serial`` whatever the number of partitions. No round refers to an
earlier one: there is no lineage that could grow. Spark moves nothing between jobs, so only
*synchronous* algorithms run in rounds. What Spark cannot repair by itself ends the run, or takes it
back to its last checkpoint (``on_loss="restart"``).

*Mode barrier*: the run is one job, whose tasks are all there at once and talk by torch.distributed
(gloo), which takes milliseconds where a job takes a tenth of a second. A *synchronous* run is a
barrier stage; its tasks and the driver are ranks as on engine ``torchrun``, each with the rows of
its partition alone. A task that is lost ends the run, or takes it back to its last checkpoint, with
a new stage. *Asynchronous* and grouped algorithms have their server in the driver and a task for
every worker; one that is lost leaves the run, until Spark has started it again.

A session that is active is used, and left open. Otherwise one is started and ended with the run;
if no Java is installed, with the one that comes with the extra. On a cluster, hemiola must be
installed on every host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt

from hemiola.communicate import Asynchronous, Grouped, Synchronous
from hemiola.component import component
from hemiola.engines._drive import drive
from hemiola.engines._executor import refuse_unsupported
from hemiola.engines._faults import refuse_faults
from hemiola.engines._interpreter import switching_often
from hemiola.errors import OptionError
from hemiola.extras import require
from hemiola.job import Event, Job
from hemiola.types import State


@contextmanager
def session(master: str | None = None, conf: Sequence[str] = ()) -> Iterator[Any]:
    """A ``SparkContext`` for several runs: the active one, or one that ends with the block.

    Raises :class:`~hemiola.errors.MissingExtraError` without the extra,
    :class:`~hemiola.errors.OptionError` for settings that are none or come too late, and
    :class:`~hemiola.errors.UnsupportedError` when Spark does not start.
    """
    require("pyspark", "spark")
    from hemiola.engines._spark_session import context

    with context(master, conf) as spark:
        yield spark


@component
class Spark:
    """Jobs of Apache Spark; needs the extra ``spark``, and mode barrier the extra ``torch``.

    ``master``      where Spark runs, as Spark names it, such as ``local[2]`` or
                    ``spark://host:7077``; None: the active session's, or all cores here;
    ``partitions``  tasks a round; None: as many as run at once, and no more than workers;
    ``conf``        settings of a session started here, such as ``spark.driver.memory=4g``,
                    separated by commas;
    ``mode``        ``rounds``: a job a round; ``barrier``: one job for the run, which needs all
                    tasks at once; ``auto``: rounds for synchronous algorithms, else barrier;
    ``reduce``      how a round's messages are joined in mode barrier: by an all-reduce (``sum``),
                    or in rank order to the bits of ``serial`` (``ordered``);
    ``timeout``     seconds that a task is waited for in mode barrier.

    >>> from hemiola.algorithms.registry import build
    >>> Spark(mode="rounds").chosen(build("bmuf")), Spark().chosen(build("asgd"))
    ('rounds', 'barrier')
    """

    name: ClassVar[str] = "spark"
    supports: ClassVar[frozenset[type]] = frozenset({Synchronous, Asynchronous, Grouped})

    master: str | None = None
    partitions: Annotated[int, Ge(1)] | None = None
    conf: tuple[str, ...] = ()
    mode: Literal["auto", "rounds", "barrier"] = "auto"
    reduce: Literal["sum", "ordered"] = "sum"
    timeout: Annotated[float, Gt(0)] = 300.0

    def chosen(self, algorithm: Any) -> str:
        """The mode in which an algorithm runs."""
        if self.mode != "auto":
            return self.mode
        return "rounds" if isinstance(algorithm.communicate, Synchronous) else "barrier"

    def run(self, job: Job, resume: State | None = None) -> Iterator[Event]:
        mode = self.chosen(job.algorithm)
        name, supports, others = self.name, self.supports, "threads"
        if mode == "rounds":
            name, supports = f"{self.name} in mode rounds", frozenset({Synchronous})
            others = "mode=barrier, or engine serial, threads, processes, simulator or torchrun"
        refuse_unsupported(job, name, supports, others)
        refuse_faults(job, self.name)
        require("pyspark", "spark")
        if mode == "rounds":
            return self._rounds(job, resume)
        require("torch", "torch")
        if isinstance(job.algorithm.communicate, Synchronous):
            return self._barrier(job, resume)
        if self.partitions not in (None, job.workers):
            raise OptionError(
                f"an asynchronous run has a task for every worker, here {job.workers}: leave out "
                "partitions."
            )
        return self._star(job, resume and {**resume, "afresh": True})

    def _rounds(self, job: Job, resume: State | None) -> Iterator[Event]:
        from hemiola.engines._spark_rounds import Rounds

        with (
            session(self.master, self.conf) as spark,
            closing(Rounds(job, spark, self.partitions)) as executor,
        ):
            yield from drive(job, executor, resume)

    def _barrier(self, job: Job, resume: State | None) -> Iterator[Event]:
        from hemiola.engines import _spark_stage as stages
        from hemiola.engines._replicated import lead

        with session(self.master, self.conf) as spark:
            size = stages.size_of(job, spark, self.partitions)
            with closing(stages.Stage(job, spark, size, self.timeout)) as stage:
                yield from lead(job, resume, stage.ranks(job, resume, self.reduce == "ordered"))

    def _star(self, job: Job, resume: State | None) -> Iterator[Event]:
        from hemiola.engines import _spark_stage as stages

        with session(self.master, self.conf) as spark:
            stages.slots_of(spark, job.workers)
            with (
                closing(stages.Stage(job, spark, job.workers, self.timeout)) as stage,
                closing(stage.server(job)) as server,
                switching_often(),
            ):
                server.open()
                yield from drive(job, server, resume)
