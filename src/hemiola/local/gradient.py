"""One mini-batch gradient at the server's model."""

from __future__ import annotations

from dataclasses import field

from hemiola.algorithm import MiniBatch, Task, weight_of
from hemiola.component import component
from hemiola.types import Array, Message, State, freeze


@component
class Gradient:
    """up = the mean gradient ``g`` (d,) over a mini-batch; it weighs the samples in it."""

    batch: MiniBatch = field(default_factory=MiniBatch)

    def init(self, w0: Array) -> State:
        return {"t": 0}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        batch = task.batch(state["t"], self.batch)
        g = task.objective.grad(down["w"], batch)
        state["t"] += 1
        return state, freeze(g=g, weight=weight_of(len(batch)))
