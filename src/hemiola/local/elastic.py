"""The worker of elastic averaging: a model of its own, tied to the centre by a spring."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated, Self

import numpy as np
from annotated_types import Ge, Gt, Interval

from hemiola.algorithm import MiniBatch, Task, weight_of
from hemiola.component import component
from hemiola.local.fused import can_fuse, fused_steps
from hemiola.local.placed import here, there
from hemiola.types import Array, Message, State, freeze

BETA = 0.9
"""Default beta = p alpha of Zhang, Choromanska, LeCun 2015."""


@component
class Elastic:
    """up = the elastic difference e = alpha (x - centre) (d,) of the model x as the round found it.

    A round is ``period`` local steps v <- momentum v - lr g(x + momentum v), x <- x + v. Its first
    gradient is taken before the exchange, and x <- x - e follows that first step. The exchange does
    not touch v. ``alpha`` is 0.9 / K when None.
    """

    lr: Annotated[float, Gt(0)] | None = None
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    alpha: Annotated[float, Interval(ge=0, le=1)] | None = None
    period: Annotated[int, Ge(1)] = 10
    batch: MiniBatch = field(default_factory=MiniBatch)

    def init(self, w0: Array) -> State:
        return {"t": 0, "x": w0.copy(), "v": np.zeros_like(w0)}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        x = state["x"]
        alpha = BETA / task.n_workers if self.alpha is None else self.alpha
        e = alpha * (x - down["w"])
        _elastic_steps(self, state, task, e)
        return state, freeze(e=e, weight=weight_of(task.source.samples(task.worker)))

    def with_lr(self, base: float) -> Self:
        return replace(self, lr=base * (1 - self.momentum))


@component
class AsyncElastic:
    """The same worker where exchanges are asynchronous: up = its model x (d,) after a period.

    The server forms e = alpha (x - centre) the moment x arrives, adds it to the centre and sends
    it back. The worker takes its next gradient at the x that it sent; then follows x <- x - e.
    """

    lr: Annotated[float, Gt(0)] | None = None
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    period: Annotated[int, Ge(1)] = 10
    batch: MiniBatch = field(default_factory=MiniBatch)

    def init(self, w0: Array) -> State:
        return {"t": 0, "x": w0.copy(), "v": np.zeros_like(w0), "exchanged": False}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        e = down["e"] if state["exchanged"] else np.zeros_like(state["x"])
        state["exchanged"] = True
        _elastic_steps(self, state, task, e)
        weight = weight_of(task.source.samples(task.worker))
        return state, freeze(x=state["x"].copy(), weight=weight)

    def with_lr(self, base: float) -> Self:
        return replace(self, lr=base * (1 - self.momentum))


def _elastic_steps(local: Elastic | AsyncElastic, state: State, task: Task, e: Array) -> None:
    """v <- momentum v - lr g(x + momentum v), x <- x + v, ``period`` times; x <- x - e once."""
    if not local.momentum and can_fuse(task):
        _fused_elastic_steps(local, state, task, e)
        return
    x, v, e = there(task.objective, [state["x"], state["v"], e])
    for i in range(local.period):
        at = x + local.momentum * v if local.momentum else x
        g = task.objective.grad(at, task.batch(state["t"], local.batch))
        v *= local.momentum
        v -= local.lr * g
        x += v
        if i == 0:
            x -= e
        state["t"] += 1
    state["x"], state["v"] = here(task.objective, [x, v])


def _fused_elastic_steps(local: Elastic | AsyncElastic, state: State, task: Task, e: Array) -> None:
    """The same without momentum, when v is of no use."""

    def rate(t: int) -> float:
        assert local.lr is not None
        return local.lr

    first, x = state["t"], state["x"]
    state["t"] = last = first + local.period
    x[...] = fused_steps(x, task, range(first, first + 1), local.batch, rate)
    x -= e
    if local.period > 1:
        x[...] = fused_steps(x, task, range(first + 1, last), local.batch, rate)
