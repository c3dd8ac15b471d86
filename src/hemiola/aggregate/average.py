"""The server of model averaging: the reduced model is the new model."""

from __future__ import annotations

from typing import ClassVar

from hemiola.algorithm import Info
from hemiola.component import component
from hemiola.types import Array, Message, State, freeze, frozen


@component
class Average:
    """w <- the mean of the workers' models; whatever else they sent is averaged and sent back."""

    separable: ClassVar[bool] = True

    def init(self, w0: Array, workers: int) -> State:
        return {"w": w0.copy()}

    def pull(self, state: State, worker: int) -> Message:
        return freeze(**state)

    def push(self, state: State, up: Message, info: Info) -> State:
        return dict(up)

    def model(self, state: State) -> Array:
        return frozen(state["w"])
