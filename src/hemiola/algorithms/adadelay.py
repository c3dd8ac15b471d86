"""AdaDelay: steps that depend on the delay actually observed.

Sra, Yu, Li, Smola, "AdaDelay: Delay Adaptive Distributed Stochastic Optimization", AISTATS 2016.

    update t = 1, 2, ... with staleness tau and gradient g:
    scalar       alpha = alpha0 / (L + c sqrt(t + tau))
    coordinate   acc_j <- acc_j + t / (t + tau) g_j^2;    c_j = sqrt(acc_j / t)
                 alpha_j = alpha0 / (L + c_j sqrt(t + tau))
    x <- x - alpha g

=========  =============================  =========
symbol     here                           shape
=========  =============================  =========
x          server state ``w``             (d,)
acc        server state ``acc``           (d,)
t          ``info.step + 1``
tau        ``info.staleness``
alpha0     ``lr``
L          ``offset``
c          ``c``, scalar form only
=========  =============================  =========

The sum includes the current gradient; t counts server updates, not epochs. The paper's scalar form
has alpha0 = 1. Steps fall with tau at fixed t but are not monotone in t.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from annotated_types import Ge, Gt

from hemiola.aggregate import WeightedMean
from hemiola.algorithm import Algorithm, Info, MiniBatch
from hemiola.communicate import Asynchronous
from hemiola.component import component
from hemiola.contracts import Partition
from hemiola.errors import OptionError
from hemiola.local import Gradient
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, Message, State, freeze, frozen

PAPER = "Sra et al., AISTATS 2016"

Form = Literal["coordinate", "scalar"]


@component
class DelayAdaptive:
    """x <- x - alpha(t, tau) g, with alpha a vector or a number."""

    separable: ClassVar[bool] = True

    lr: Annotated[float, Gt(0)] | None = None
    offset: Annotated[float, Gt(0)] = 1.0
    c: Annotated[float, Ge(0)] = 1.0
    form: Form = "coordinate"

    def init(self, w0: Array, workers: int) -> State:
        return {"w": w0.copy(), "acc": np.zeros_like(w0)}

    def pull(self, state: State, worker: int) -> Message:
        return freeze(w=state["w"])

    def push(self, state: State, up: Message, info: Info) -> State:
        if self.lr is None:
            raise OptionError("adadelay: lr is not set; hemiola.fit fills it in.")
        t, tau, g = info.step + 1, info.staleness, up["g"]
        root = math.sqrt(t + tau)
        if self.form == "scalar":
            return {**state, "w": state["w"] - self.lr / (self.offset + self.c * root) * g}
        acc = state["acc"]
        acc += t / (t + tau) * g * g
        alpha = self.lr / (self.offset + np.sqrt(acc / t) * root)
        return {"w": state["w"] - alpha * g, "acc": acc}

    def model(self, state: State) -> Array:
        return frozen(state["w"])

    def with_lr(self, base: float) -> Self:
        """Per coordinate, steps hardly scale with the gradient: 1. The scalar form starts at
        ``base``."""
        start = base * (self.offset + self.c) if self.form == "scalar" else 1.0
        return replace(self, lr=start)


def adadelay(
    form: Form = "coordinate",
    lr: float | None = None,
    offset: float = 1.0,
    c: float = 1.0,
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """AdaDelay: stale gradients get smaller steps, by their own delay.

    ``lr`` is the paper's alpha0, found there by a grid over [1e-4, 1]; ``offset`` its L.

    >>> adadelay(form="scalar", c=0.5).aggregate.c
    0.5
    """
    return Algorithm(
        name="adadelay",
        partition=partition,
        local=Gradient(batch),
        communicate=Asynchronous(),
        reduce=WeightedMean(),
        aggregate=DelayAdaptive(lr, offset, c, form),
    )
