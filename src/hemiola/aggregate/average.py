"""The server of model averaging: the reduced model is the new model."""

from __future__ import annotations

from hemiola.algorithm import Info
from hemiola.component import component
from hemiola.types import Array, Message, State, freeze


@component
class Average:
    """w <- the mean of the workers' models; whatever else they sent is averaged and sent back."""

    def init(self, w0: Array, workers: int) -> tuple[State, Message]:
        down = freeze(w=w0.copy())
        return dict(down), down

    def update(self, state: State, up: Message, info: Info) -> tuple[State, Message]:
        down = freeze(**up)
        return dict(down), down

    def model(self, state: State) -> Array:
        return state["w"]
