"""Delay-compensated asynchronous SGD, with constant and with adaptive lambda.

Zheng, Meng, Wang, Chen, Yu, Ma, Liu, "Asynchronous Stochastic Gradient Descent with Delay
Compensation", ICML 2017, algorithms 1 and 2.

    PULL(m)      backup[m] = w;  the worker gets w
    PUSH(m, g)   -c:  lambda = lambda0
                 -a:  MS <- m0 MS + (1 - m0) g^2;   lambda = lambda0 / sqrt(MS + eps)
                 w <- w - lr (g + lambda g^2 (w - backup[m]))

==========  =====================================  =============
symbol      here                                   shape
==========  =====================================  =============
w           server state ``w``                     (d,)
backup[m]   server state ``backup[m]``             K times (d,)
MS          server state ``ms``, one or K times    (d,)
lambda0     ``lambda0``: 0.04 for -c, 2 for -a
m0          ``m0``, 0.95
eps         1e-7
==========  =====================================  =============

The term is a first-order correction with the Hessian approximated by lambda diag(g g'). MS takes in
the current g before it is used. The paper's box has one MS; its authors' server keeps one for every
worker: ``mean_square`` says which. As w is replaced and never written to, a backup is a reference.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Interval

from hemiola.aggregate import WeightedMean
from hemiola.algorithm import Algorithm, Info, MiniBatch
from hemiola.communicate import Asynchronous
from hemiola.component import component
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.local import Gradient
from hemiola.optim import SGD
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, Message, State, freeze, frozen

PAPER = "Zheng et al., ICML 2017"
EPS = 1e-7
LAMBDA0 = {"c": 0.04, "a": 2.0}

Variant = Literal["a", "c"]
Owner = Literal["server", "worker"]


@component
class DelayCompensated:
    """Compensate the gradient for what happened since its worker read, then step."""

    separable: ClassVar[bool] = True

    optimizer: LocalOptimizer
    variant: Variant = "a"
    lambda0: Annotated[float, Ge(0)] | None = None
    m0: Annotated[float, Interval(ge=0, lt=1)] = 0.95
    mean_square: Owner = "server"

    def init(self, w0: Array, workers: int) -> State:
        w = w0.copy()
        owners = workers if self.mean_square == "worker" else 1
        squares = [np.zeros_like(w0) for _ in range(owners)] if self.variant == "a" else []
        memory = self.optimizer.init(w0)
        return {"w": w, "backup": [w] * workers, "ms": squares, "optimizer": memory}

    def pull(self, state: State, worker: int) -> Message:
        state["backup"][worker] = state["w"]
        return freeze(w=state["w"])

    def push(self, state: State, up: Message, info: Info) -> State:
        worker = info.sender
        g, w = up["g"], state["w"]
        squares = g * g
        drift = w - state["backup"][worker]
        compensated = g + self._lambda(state, squares, worker) * squares * drift
        w, memory = self.optimizer.step(w, compensated, state["optimizer"], info.step)
        return {**state, "w": w, "optimizer": memory}

    def _lambda(self, state: State, squares: Array, worker: int) -> Array | float:
        lambda0 = LAMBDA0[self.variant] if self.lambda0 is None else self.lambda0
        if self.variant == "c":
            return lambda0
        ms = state["ms"][worker if self.mean_square == "worker" else 0]
        ms *= self.m0
        ms += (1 - self.m0) * squares
        rate: Array = lambda0 / np.sqrt(ms + EPS)
        return rate

    def model(self, state: State) -> Array:
        return frozen(state["w"])


def dc_asgd(
    variant: Variant = "a",
    lambda0: float | None = None,
    m0: float = 0.95,
    mean_square: Owner = "server",
    optimizer: LocalOptimizer = SGD(),
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Delay-compensated asynchronous SGD.

    ``lambda0=None``: 2 for variant ``a`` (adaptive), 0.04 for ``c`` (constant).

    >>> dc_asgd(variant="c").aggregate.variant
    'c'
    """
    return Algorithm(
        name="dc-asgd",
        partition=partition,
        local=Gradient(batch),
        communicate=Asynchronous(),
        reduce=WeightedMean(),
        aggregate=DelayCompensated(optimizer, variant, lambda0, m0, mean_square),
    )
