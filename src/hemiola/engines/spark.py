"""Engine ``spark``: rounds as jobs of Apache Spark, on this machine or on a cluster.

Every round is one job. Workers are dealt to partitions in blocks; a partition's rows - one NumPy
array or CSR matrix - reach the processes that work on it once and stay there. Its workers' states
and the model come with the job, and their messages and new states go back, so a round is a pure
function of the one before it: what is lost with an executor is computed again, to the same bits.
The driver adds the messages in rank order, by the same loop as every other engine, so the result
has the bits of ``serial`` whatever the number of partitions. No round refers to an earlier one:
there is no lineage that could grow.

Spark moves nothing between jobs, so only *synchronous* algorithms run here. Nobody is late, as on
``serial``. What Spark cannot repair by itself ends the run, or takes it back to its last checkpoint
(``on_loss="restart"``).

A session that is active is used, and left open. Otherwise one is started and ended with the run;
if no Java is installed, with the one that comes with the extra. On a cluster, hemiola must be
installed on every host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from hemiola.communicate import Synchronous
from hemiola.component import component
from hemiola.engines._drive import drive, refuse_unsupported
from hemiola.engines._faults import refuse_faults
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
    """Jobs of Apache Spark; needs the extra ``spark``.

    ``master``      where Spark runs, as Spark names it, such as ``local[2]`` or
                    ``spark://host:7077``; None: the active session's, or all cores here;
    ``partitions``  tasks a round; None: as many as run at once, and no more than workers;
    ``conf``        settings of a session started here, such as ``spark.driver.memory=4g``,
                    separated by commas.

    >>> from hemiola.algorithms.registry import build
    >>> type(build("asgd").communicate) in Spark(master="local[2]").supports
    False
    """

    name: ClassVar[str] = "spark"
    supports: ClassVar[frozenset[type]] = frozenset({Synchronous})

    master: str | None = None
    partitions: Annotated[int, Ge(1)] | None = None
    conf: tuple[str, ...] = ()

    def run(self, job: Job, resume: State | None = None) -> Iterator[Event]:
        others = "serial, threads, processes, simulator or torchrun"
        refuse_unsupported(job, self.name, self.supports, others)
        refuse_faults(job, self.name)
        require("pyspark", "spark")
        return self._rounds(job, resume)

    def _rounds(self, job: Job, resume: State | None) -> Iterator[Event]:
        from hemiola.engines._spark_rounds import Rounds

        with (
            session(self.master, self.conf) as spark,
            closing(Rounds(job, spark, self.partitions)) as executor,
        ):
            yield from drive(job, executor, resume)
