"""A part of a batch gradient, as told by a coordinator."""

from __future__ import annotations

import numpy as np

from hemiola.algorithm import MiniBatch, Task, weight_of
from hemiola.component import component
from hemiola.dataset import Batch
from hemiola.types import Array, Message, State, freeze

_WHOLE = MiniBatch(None)


@component
class Portion:
    """up = this portion's share of the mean gradient ``g`` (d,) and of the mean loss ``f``.

    ``down`` says which portion of how many; the shard is cut into consecutive ones. Summed over all
    portions the messages give the gradient and the value on the whole shard.
    """

    def init(self, w0: Array) -> State:
        return {"t": 0}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        data, rows, _ = task.batch(0, _WHOLE)
        assert rows is not None
        portion, portions = int(down["portion"]), int(down["portions"])
        n = len(rows)
        batch = Batch(data, rows[portion * n // portions : (portion + 1) * n // portions])
        share = len(batch) / n
        g = share * task.objective.grad(down["w"], batch)
        f = np.array(share * task.objective.value(down["w"], batch))
        state["t"] += 1
        which = {"portion": down["portion"], "evaluation": down["evaluation"]}
        return state, freeze(g=g, f=f, weight=weight_of(len(batch)), **which)
