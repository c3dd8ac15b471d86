"""The server of gradient algorithms: one optimiser step for every message."""

from __future__ import annotations

from typing import ClassVar, Literal

from hemiola.algorithm import Info
from hemiola.component import component
from hemiola.contracts import LocalOptimizer
from hemiola.types import Array, Message, State, freeze, frozen

Damping = Literal["none", "inverse"]


@component
class Descend:
    """w <- optimizer.step(w, g): with SGD, w - lr g. The step count is that of server updates.

    ``damping="inverse"`` divides a gradient of staleness s by 1 + s first.
    """

    separable: ClassVar[bool] = True

    optimizer: LocalOptimizer
    damping: Damping = "none"

    def init(self, w0: Array, workers: int) -> State:
        return {"w": w0.copy(), "optimizer": self.optimizer.init(w0)}

    def pull(self, state: State, worker: int) -> Message:
        return freeze(w=state["w"])

    def push(self, state: State, up: Message, info: Info) -> State:
        g = up["g"] / (1 + info.staleness) if self.damping == "inverse" else up["g"]
        w, memory = self.optimizer.step(state["w"], g, state["optimizer"], info.step)
        return {"w": w, "optimizer": memory}

    def model(self, state: State) -> Array:
        return frozen(state["w"])
