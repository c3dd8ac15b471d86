"""Post-local SGD.

Lin, Stich, Patel, Jaggi, "Don't Use Large Mini-Batches, Use Local SGD", ICLR 2020.

    H(t) = 1 for t < t',  H for t >= t'
    each worker k:  v = w;  H(t) times: v <- v - lr g(v; a fresh mini-batch of its shard);  w_k = v
    server:         w <- sum_k (n_k / n) w_k

=========  ==============================  =========
symbol     here                            shape
=========  ==============================  =========
t          worker state ``t``, local steps
t'         ``switch``
H          ``steps``
w_k        ``up["w"]``                     (d,)
=========  ==============================  =========

Mini-batch SGD first, for speed; local SGD later, for the noise that helps generalisation. The paper
switches when the learning rate first decays: ``schedule=step`` decays after 100 steps by default,
and so does ``switch``. Never (None) is synchronous SGD, at 0 it is local SGD. The paper's
hierarchical form, which averages inside nodes more often than across, is not here.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from hemiola.aggregate import Average, WeightedMean
from hemiola.algorithm import Algorithm, MiniBatch, Task
from hemiola.communicate import Synchronous
from hemiola.component import component
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.local import LocalSteps
from hemiola.local.local_steps import Carry
from hemiola.optim import SGD
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, Message, State

PAPER = "Lin et al., ICLR 2020"


@component
class PostLocal:
    """``first`` until the worker has done ``switch`` local steps, ``then`` from there on."""

    first: LocalSteps
    then: LocalSteps
    switch: Annotated[int, Ge(0)] | None = None

    @property
    def optimizer(self) -> LocalOptimizer:
        return self.first.optimizer

    @property
    def batch(self) -> MiniBatch:
        return self.first.batch

    def init(self, w0: Array) -> State:
        return self.first.init(w0)

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        early = self.switch is None or state["t"] < self.switch
        return (self.first if early else self.then).work(state, down, task)


def post_local_sgd(
    steps: int = 16,
    switch: int | None = 100,
    optimizer: LocalOptimizer = SGD(),
    carry: Carry = "keep",
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Synchronous SGD for ``switch`` steps, then local SGD with ``steps`` steps a round.

    >>> post_local_sgd(switch=50).local.switch
    50
    """
    return Algorithm(
        name="post-local-sgd",
        partition=partition,
        local=PostLocal(
            LocalSteps(optimizer, steps=1, carry=carry, batch=batch),
            LocalSteps(optimizer, steps=steps, carry=carry, batch=batch),
            switch,
        ),
        communicate=Synchronous(),
        reduce=WeightedMean(),
        aggregate=Average(),
    )
