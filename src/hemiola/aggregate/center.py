"""The server of elastic averaging: a centre that gives way to the workers' pull."""

from __future__ import annotations

from typing import ClassVar

from hemiola.algorithm import Info
from hemiola.component import component
from hemiola.types import Array, Message, State, freeze, frozen


@component
class Center:
    """c <- c + sum of the elastic differences e_k that arrived (one, or a round's)."""

    separable: ClassVar[bool] = True

    def init(self, w0: Array, workers: int) -> State:
        return {"w": w0.copy()}

    def pull(self, state: State, worker: int) -> Message:
        return freeze(**state)

    def push(self, state: State, up: Message, info: Info) -> State:
        return {"w": state["w"] + up["e"]}

    def model(self, state: State) -> Array:
        return frozen(state["w"])
