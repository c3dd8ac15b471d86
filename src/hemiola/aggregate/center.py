"""The server of elastic averaging: a centre that gives way to the workers' pull."""

from __future__ import annotations

from hemiola.algorithm import Info
from hemiola.component import component
from hemiola.types import Array, Message, State, freeze


@component
class Center:
    """c <- c + sum of the elastic differences e_k that arrived (one, or a round's)."""

    def init(self, w0: Array, workers: int) -> tuple[State, Message]:
        down = freeze(w=w0.copy())
        return dict(down), down

    def update(self, state: State, up: Message, info: Info) -> tuple[State, Message]:
        down = freeze(w=state["w"] + up["e"])
        return dict(down), down

    def model(self, state: State) -> Array:
        return state["w"]
