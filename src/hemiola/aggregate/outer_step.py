"""A server that takes what a round changed for a gradient and hands it to an optimiser."""

from __future__ import annotations

from typing import ClassVar

from hemiola.algorithm import Info
from hemiola.component import component
from hemiola.contracts import LocalOptimizer
from hemiola.types import Array, Message, State, freeze, frozen


@component
class OuterStep:
    """w <- optimizer.step(w, w - mean of the workers' models): ServerOpt, OuterOpt.

    SGD with rate 1 is model averaging, heavy-ball classic block momentum, Nesterov the outer step
    of DiLoCo. The step count is that of rounds. Other averaged arrays are sent back as they are.
    """

    separable: ClassVar[bool] = True

    optimizer: LocalOptimizer

    def init(self, w0: Array, workers: int) -> State:
        return {"down": {"w": w0.copy()}, "optimizer": self.optimizer.init(w0)}

    def pull(self, state: State, worker: int) -> Message:
        return freeze(**state["down"])

    def push(self, state: State, up: Message, info: Info) -> State:
        w = state["down"]["w"]
        w, memory = self.optimizer.step(w, w - up["w"], state["optimizer"], info.step)
        return {"down": {**up, "w": w}, "optimizer": memory}

    def model(self, state: State) -> Array:
        return frozen(state["down"]["w"])

    def base_inside(self, base: float) -> float:
        """Changes of models are gradients of a loss of curvature 1, whatever the data are."""
        return 1.0
