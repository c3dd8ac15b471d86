"""DistBelief: replicas that are split over machines, and a server in shards.

Dean, Corrado, Monga, Chen, Devin, Le, Mao, Ranzato, Senior, Tucker, Yang, Ng, "Large Scale
Distributed Deep Networks", NIPS 2012, sections 3 and 4.

    replica:  machine p has the units (features) of its part of the model and computes them;
              activations go once to each other machine, their gradients come back
    driver:   Downpour SGD (section 4.1) or Sandblaster L-BFGS (section 4.2) takes a replica for one
              worker, and knows nothing of its machines
    server:   shard s has the s-th slice of w, with its own Adagrad

===================  =================================================
symbol               here
===================  =================================================
model replicas       workers
machines a replica   ``partitions``
shards               ``shards`` servers, :class:`~hemiola.aggregate.Sharded`
n_push, n_fetch      as in :mod:`hemiola.algorithms.downpour`
===================  =================================================

With one partition it is Downpour, bit for bit; with more, but for rounding. A replica's machines
are parts of its worker's process, which take turns: they show what is computed and sent where, and
save neither time nor memory. Over ranks that work at the same time, a network is split by
:mod:`hemiola.objectives.one_weird_trick` and :mod:`hemiola.objectives.pipeline`. In the paper each
machine talks only to the shards that hold its parameters; here its worker sends their gradients as
one message, of as many bytes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from annotated_types import Ge

from hemiola.aggregate import Sharded
from hemiola.algorithm import Algorithm, MiniBatch, Task
from hemiola.algorithms.downpour import downpour
from hemiola.component import component
from hemiola.contracts import Local, LocalOptimizer, Objective, Partition
from hemiola.errors import OptionError
from hemiola.local import Accumulate, Gradient, LocalSteps, Portion
from hemiola.objectives.partitioned import partitioned
from hemiola.optim import Adagrad
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, Message, State

PAPER = "Dean et al., NIPS 2012"


@component
class Replica:
    """A worker whose model is split over ``partitions`` machines; ``local`` is what it does.

    Raises :class:`~hemiola.errors.OptionError` for a ``local`` that does more than to follow the
    objective's gradients.
    """

    local: Local
    partitions: Annotated[int, Ge(1)] = 2

    def __post_init__(self) -> None:
        if not isinstance(self.local, Accumulate | Gradient | LocalSteps | Portion):
            raise OptionError(
                f"{type(self.local).__name__} cannot be split over machines; workers that only "
                "follow gradients can, as those of downpour, asgd and sandblaster."
            )
        object.__setattr__(self, "_made", None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}

    @property
    def optimizer(self) -> Any:
        """The local part's, if it has one; likewise its mini-batch and its number of steps."""
        return getattr(self.local, "optimizer")  # noqa: B009

    @property
    def batch(self) -> Any:
        return getattr(self.local, "batch")  # noqa: B009

    @property
    def steps(self) -> Any:
        return getattr(self.local, "steps")  # noqa: B009

    def init(self, w0: Array) -> State:
        return self.local.init(w0)

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        return self.local.work(state, down, replace(task, objective=self._over(task.objective)))

    def _over(self, objective: Objective) -> Objective:
        """The objective over the machines, made once a run."""
        made: tuple[Objective, Objective] | None = self._made  # type: ignore[attr-defined]
        if made is None or made[0] is not objective:
            made = objective, partitioned(objective, self.partitions)
            object.__setattr__(self, "_made", made)
        return made[1]


def over_machines(algorithm: Algorithm, partitions: int) -> Algorithm:
    """An algorithm whose workers are replicas of so many machines each.

    >>> from hemiola.algorithms import sandblaster
    >>> over_machines(sandblaster(shards=3), 2).local
    Replica(local=Portion(), partitions=2)
    """
    return replace(algorithm, local=Replica(algorithm.local, partitions))


def distbelief(
    partitions: int = 2,
    shards: int = 2,
    n_push: int = 1,
    n_fetch: int = 1,
    optimizer: LocalOptimizer = Adagrad(),
    lr: float | None = None,
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """DistBelief: Downpour SGD whose replicas are split over machines, against servers in shards.

    ``partitions`` machines a replica, ``shards`` servers; the rest as for ``downpour``.
    :func:`over_machines` makes the same of any algorithm, such as ``sandblaster``.

    >>> distbelief(partitions=4).local.partitions
    4
    """
    inner = downpour(n_push, n_fetch, optimizer, lr, batch, partition)
    made = replace(inner, name="distbelief", aggregate=Sharded(inner.aggregate, shards))
    return over_machines(made, partitions)
