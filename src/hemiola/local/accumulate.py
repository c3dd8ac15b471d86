"""Several local steps whose gradients are summed: the client of Downpour SGD."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

import numpy as np
from annotated_types import Ge

from hemiola.algorithm import MiniBatch, Task, weight_of
from hemiola.component import component
from hemiola.contracts import LocalOptimizer
from hemiola.local.placed import here, there
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
        objective, samples = task.objective, 0
        start = down["w"] if down else state["w"]
        none = np.zeros_like(start)
        w, none, total, memory = there(objective, [start, none, none.copy(), state["optimizer"]])
        for t in range(state["t"], state["t"] + self.steps):
            batch = task.batch(t, self.batch)
            g = objective.grad(w, batch) if len(batch) else none
            total += g
            samples += len(batch)
            w, memory = self.optimizer.step(w, g, memory, t)
        state["t"] += self.steps
        state["w"], state["optimizer"], g = here(objective, [w, memory, total])
        return state, freeze(g=g, weight=weight_of(samples))
