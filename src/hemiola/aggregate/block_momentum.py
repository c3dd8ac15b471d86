"""The server of blockwise model-update filtering: momentum on what a round changed."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Interval

from hemiola.algorithm import Info
from hemiola.component import component
from hemiola.types import Array, Message, State, freeze, frozen


@component
class BlockMomentum:
    """G = mean - start;  delta <- eta delta + zeta G;  W <- W + delta;  start <- W (+ eta delta).

    ``eta`` is the block momentum, 1 - 1/K when None; ``zeta`` the block learning rate. With
    ``nesterov`` the workers start the next block at the look-ahead point W + eta delta, which is
    kept apart from W: W is the model to evaluate. Other averaged arrays are sent back as they are.
    """

    separable: ClassVar[bool] = True

    eta: Annotated[float, Interval(ge=0, lt=1)] | None = None
    zeta: Annotated[float, Gt(0)] = 1.0
    nesterov: bool = True

    def init(self, w0: Array, workers: int) -> State:
        return {"w": w0.copy(), "down": {"w": w0.copy()}, "delta": np.zeros_like(w0)}

    def pull(self, state: State, worker: int) -> Message:
        return freeze(**state["down"])

    def push(self, state: State, up: Message, info: Info) -> State:
        eta = self.momentum(info.n_workers)
        delta = state["delta"]
        delta *= eta
        delta += self.zeta * (up["w"] - state["down"]["w"])
        w = state["w"] + delta
        start = w + eta * delta if self.nesterov else w
        return {"w": w, "down": {**up, "w": start}, "delta": delta}

    def momentum(self, workers: int) -> float:
        """eta for so many workers."""
        return 1 - 1 / workers if self.eta is None else self.eta

    def model(self, state: State) -> Array:
        return frozen(state["w"])
