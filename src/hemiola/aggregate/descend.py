"""The server of gradient algorithms: one optimiser step for every message."""

from __future__ import annotations

from hemiola.algorithm import Info
from hemiola.component import component
from hemiola.contracts import LocalOptimizer
from hemiola.types import Array, Message, State, freeze


@component
class Descend:
    """w <- optimizer.step(w, g): with SGD, w - lr g. The step count is that of server updates."""

    optimizer: LocalOptimizer

    def init(self, w0: Array, workers: int) -> tuple[State, Message]:
        down = freeze(w=w0.copy())
        return {"w": down["w"], "optimizer": self.optimizer.init(w0)}, down

    def update(self, state: State, up: Message, info: Info) -> tuple[State, Message]:
        w, memory = self.optimizer.step(state["w"].copy(), up["g"], state["optimizer"], info.step)
        down = freeze(w=w)
        return {"w": w, "optimizer": memory}, down

    def model(self, state: State) -> Array:
        return state["w"]
