"""Many steps of a local optimiser from the received model."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from hemiola.algorithm import MiniBatch, Task, weight_of
from hemiola.component import component
from hemiola.contracts import LocalOptimizer
from hemiola.errors import OptionError
from hemiola.local.fused import can_fuse, fused_steps
from hemiola.types import Array, Message, State, freeze

Carry = Literal["keep", "reset", "average"]
"""What becomes of the local optimiser's state between rounds."""

_PREFIX = "optimizer/"


@component
class LocalSteps:
    """up = the model ``w`` (d,) after ``steps`` local steps, or ``epochs`` passes over the shard.

    Give one of ``steps`` and ``epochs``. The message weighs n_k, the size of the worker's shard.
    ``carry`` says what becomes of the optimiser's state between rounds: ``keep`` it with the worker
    (a worker that sits a round out finds it unchanged), ``reset`` it, or ``average`` it across the
    workers together with the model, which multiplies the traffic.
    """

    optimizer: LocalOptimizer
    steps: Annotated[int, Ge(1)] | None = None
    epochs: Annotated[int, Ge(1)] | None = None
    batch: MiniBatch = field(default_factory=MiniBatch)
    carry: Carry = "keep"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise OptionError(
                "give either the local steps or the local epochs of a round, not both."
            )

    def init(self, w0: Array) -> State:
        return {"t": 0, "optimizer": self.optimizer.init(w0)}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        w = down["w"]
        memory = self._memory(state, down, w)
        steps = range(state["t"], state["t"] + self._count(task))
        optimizer: Any = self.optimizer
        if getattr(optimizer, "is_plain", False) and can_fuse(task):
            w = fused_steps(w, task, steps, self.batch, optimizer.rate)
            state["t"] = steps.stop
        else:
            w, memory = self._one_by_one(w, memory, state, steps, task)
        state["optimizer"] = memory
        weight = weight_of(task.source.samples(task.worker))
        shared = memory if self.carry == "average" else {}
        extra = {_PREFIX + name: np.array(value) for name, value in shared.items()}
        return state, freeze(w=w, weight=weight, **extra)

    def _one_by_one(
        self, w: Array, memory: State, state: State, steps: range, task: Task
    ) -> tuple[Array, State]:
        grad, step, draw = task.objective.grad, self.optimizer.step, task.source.batch
        for t in steps:
            w, memory = step(w, grad(w, draw(task.worker, t, self.batch)), memory, t)
            state["t"] = t + 1
        return w, memory

    def _count(self, task: Task) -> int:
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * task.source.steps_per_epoch(task.worker, self.batch)

    def _memory(self, state: State, down: Message, w: Array) -> State:
        """The optimiser's state at the start of a round."""
        if self.carry == "reset":
            return self.optimizer.init(w)
        received = {k.removeprefix(_PREFIX): v for k, v in down.items() if k.startswith(_PREFIX)}
        return {k: v.copy() for k, v in received.items()} or state["optimizer"]
