"""Several local steps whose gradients are summed: the client of Downpour SGD."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

import numpy as np
from annotated_types import Ge

from hemiola.algorithm import MiniBatch, Task, weight_of
from hemiola.component import component
from hemiola.contracts import LocalOptimizer
from hemiola.types import Array, Message, State, freeze


@component
class Accumulate:
    """up = the sum ``g`` (d,) of the gradients of ``steps`` local steps since the last message.

    The local optimiser keeps the replica moving between reads. A message without a model leaves it
    where it is.
    """

    optimizer: LocalOptimizer
    steps: Annotated[int, Ge(1)] = 1
    batch: MiniBatch = field(default_factory=MiniBatch)

    def init(self, w0: Array) -> State:
        return {"t": 0, "w": w0.copy(), "optimizer": self.optimizer.init(w0)}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        w = down["w"] if down else state["w"]
        total, samples = np.zeros_like(w), 0
        for t in range(state["t"], state["t"] + self.steps):
            batch = task.batch(t, self.batch)
            g = task.objective.grad(w, batch) if len(batch) else np.zeros_like(w)
            total += g
            samples += len(batch)
            w, state["optimizer"] = self.optimizer.step(w, g, state["optimizer"], t)
        state["t"] += self.steps
        state["w"] = w
        return state, freeze(g=total, weight=weight_of(samples))
