"""One mini-batch gradient at the server's model."""

from __future__ import annotations

from dataclasses import field

import numpy as np

from hemiola.algorithm import MiniBatch, Task, weight_of
from hemiola.component import component
from hemiola.types import Array, Message, State, freeze


@component
class Gradient:
    """up = the mean gradient ``g`` (d,) over a mini-batch; it weighs the samples in it.

    An empty mini-batch has no gradient: neither a data term nor the penalty's.
    """

    batch: MiniBatch = field(default_factory=MiniBatch)

    def init(self, w0: Array) -> State:
        return {"t": 0}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        batch = task.batch(state["t"], self.batch)
        w = down["w"]
        g = task.objective.grad(w, batch) if len(batch) else np.zeros_like(w)
        state["t"] += 1
        return state, freeze(g=g, weight=weight_of(len(batch)))
