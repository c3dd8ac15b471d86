"""The adaptive server optimisers of FedOpt: no bias correction, tau outside the root.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan, "Adaptive Federated Optimization",
ICLR 2021, algorithm 2. With g the negated change of a round:

    m <- beta1 m + (1 - beta1) g
    v <- v + g*g                                            FedAdagrad
    v <- v - (1 - beta2) g*g sign(v - g*g)                  FedYogi
    v <- beta2 v + (1 - beta2) g*g                          FedAdam
    w <- w - lr m / (sqrt(v) + tau)

v starts at tau^2, the least that the paper allows. The paper's beta1 is 0.9, for Adagrad 0; its
beta2 is 0.99, its tau 1e-3. Rates were searched; 10^-1.5, rounded, is the default here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Self

import numpy as np
from annotated_types import Gt, Interval

from hemiola.component import component
from hemiola.errors import OptionError
from hemiola.optim.elementwise import sign, sqrt
from hemiola.types import Array, State

RATE = 0.03
"""Steps do not scale with the gradient, so the rate does not depend on the data."""


@component
class FedAdam:
    """m and v are exponential means.

    >>> FedAdam(lr=1.0, beta1=0, beta2=0, tau=1).step(np.zeros(1), np.ones(1), {"m": np.zeros(1),
    ...     "v": np.ones(1)}, t=0)[0]
    array([-0.5])
    """

    lr: Annotated[float, Gt(0)] | None = None
    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    tau: Annotated[float, Gt(0)] = 1e-3

    def init(self, w: Array) -> State:
        return _init(self, w)

    def step(self, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
        return _step(self, w, g, state, lambda v, s: v - (1 - self.beta2) * (v - s))

    def with_lr(self, base: float) -> Self:
        return replace(self, lr=RATE)


@component
class FedYogi:
    """v moves by a share of g*g, towards it."""

    lr: Annotated[float, Gt(0)] | None = None
    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    tau: Annotated[float, Gt(0)] = 1e-3

    def init(self, w: Array) -> State:
        return _init(self, w)

    def step(self, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
        return _step(self, w, g, state, lambda v, s: v - (1 - self.beta2) * s * sign(v - s))

    def with_lr(self, base: float) -> Self:
        return replace(self, lr=RATE)


@component
class FedAdagrad:
    """v is the sum of all g*g."""

    lr: Annotated[float, Gt(0)] | None = None
    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    tau: Annotated[float, Gt(0)] = 1e-3

    def init(self, w: Array) -> State:
        return _init(self, w)

    def step(self, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
        return _step(self, w, g, state, lambda v, s: v + s)

    def with_lr(self, base: float) -> Self:
        return replace(self, lr=RATE)


_Rule = FedAdam | FedYogi | FedAdagrad


def _init(rule: _Rule, w: Array) -> State:
    return {"m": np.zeros_like(w), "v": np.full_like(w, rule.tau**2)}


def _step(
    rule: _Rule, w: Array, g: Array, state: State, second: Callable[[Array, Array], Array]
) -> tuple[Array, State]:
    """``second(v, g*g)`` is the new v."""
    if rule.lr is None:
        raise OptionError(f"{type(rule).__name__}: lr is not set; hemiola.fit fills it in.")
    m = rule.beta1 * state["m"] + (1 - rule.beta1) * g
    v = second(state["v"], g * g)
    return w - rule.lr * m / (sqrt(v) + rule.tau), {"m": m, "v": v}
