"""Slow momentum.

Wang, Tantia, Ballas, Rabbat, "SlowMo: Improving Communication-Efficient Distributed SGD with Slow
Momentum", ICLR 2020, algorithm 1.

    each worker i:  x_i = tau steps of the base optimiser from x, at rate gamma_t
    server:         u <- beta u + (x - mean_i x_i) / gamma_t
                    x <- x - alpha gamma_t u

=========  ===================================  =========
symbol     here                                 shape
=========  ===================================  =========
x          ``down["w"]``                        (d,)
x_i        ``up["w"]``                          (d,)
u          server state ``u``, times the rate   (d,)
gamma_t    the base optimiser's rate
alpha      ``alpha``, slow learning rate
beta       ``beta``, slow momentum
tau        ``steps``
=========  ===================================  =========

Only ratios of rates matter: u is kept in units of ``optimizer.lr``, and gamma_t is the factor of
its schedule at the round's first step. (A schedule may decay inside a round, which the paper's may
not.) At a constant rate this is classic block momentum. ``carry`` is what the paper calls
maintaining, resetting and averaging the base optimiser's buffers. The base is local SGD; the paper
has others, which gossip. beta grows with the workers: 0.2, 0.5, 0.6 for 4, 8, 16 nodes there.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Interval

from hemiola.aggregate import WeightedMean
from hemiola.algorithm import Algorithm, Info, MiniBatch
from hemiola.communicate import Synchronous
from hemiola.component import component
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.local import LocalSteps
from hemiola.local.local_steps import Carry
from hemiola.optim import SGD, Constant, Schedule
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, Message, State, freeze, frozen

PAPER = "Wang et al., ICLR 2020"


@component
class SlowMomentum:
    """u <- beta u + G / s;  w <- w - alpha s u, with G the round's change and s = schedule(t)."""

    separable: ClassVar[bool] = True

    beta: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    alpha: Annotated[float, Gt(0)] = 1.0
    steps: Annotated[int, Ge(1)] = 10
    schedule: Schedule = field(default_factory=Constant)

    def init(self, w0: Array, workers: int) -> State:
        return {"down": {"w": w0.copy()}, "u": np.zeros_like(w0)}

    def pull(self, state: State, worker: int) -> Message:
        return freeze(**state["down"])

    def push(self, state: State, up: Message, info: Info) -> State:
        rate, w, u = self.schedule(info.step * self.steps), state["down"]["w"], state["u"]
        if rate > 0:  # else nobody moved
            u = self.beta * u + (w - up["w"]) / rate
        return {"down": {**up, "w": w - self.alpha * rate * u}, "u": u}

    def model(self, state: State) -> Array:
        return frozen(state["down"]["w"])


def slowmo(
    steps: int = 10,
    beta: float = 0.5,
    alpha: float = 1.0,
    optimizer: LocalOptimizer = SGD(),
    carry: Carry = "keep",
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Local SGD with slow momentum on what a round changed, in units of the learning rate.

    >>> slowmo(beta=0.2).aggregate.beta
    0.2
    """
    schedule = getattr(optimizer, "schedule", Constant())
    return Algorithm(
        name="slowmo",
        partition=partition,
        local=LocalSteps(optimizer, steps=steps, carry=carry, batch=batch),
        communicate=Synchronous(),
        reduce=WeightedMean(),
        aggregate=SlowMomentum(beta, alpha, steps, schedule),
    )
