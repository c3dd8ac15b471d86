"""Many steps of a local optimiser from the received model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from hemiola.algorithm import MiniBatch, Task, weight_of
from hemiola.component import component
from hemiola.contracts import LocalOptimizer, Objective
from hemiola.errors import OptionError
from hemiola.local.fused import can_fuse, fused_steps
from hemiola.local.placed import here, there
from hemiola.types import Array, Message, State, freeze

Carry = Literal["keep", "reset", "average"]
"""What becomes of the local optimiser's state between rounds."""

PREFIX = "optimizer/"
"""What an averaged optimiser's arrays are called in messages: ``optimizer/m``, ..."""


@dataclass(frozen=True)
class Gradients:
    """``at(w, t)`` is the gradient (d,) at w on the worker's t-th mini-batch; both are where the
    ``objective`` computes (:mod:`hemiola.local.placed`)."""

    at: Callable[[Any, int], Any]
    objective: Objective


def gradients(task: Task, batch: MiniBatch) -> Gradients:
    """The gradients of the objective on the worker's own mini-batches."""
    grad, draw, worker = task.objective.grad, task.source.batch, task.worker
    return Gradients(lambda w, t: grad(w, draw(worker, t, batch)), task.objective)


def descend(
    optimizer: LocalOptimizer, state: State, w: Array, steps: int, gradient: Gradients
) -> Array:
    """The model (d,) after ``steps`` steps from w; the state's clock and memory go on."""
    objective, first = gradient.objective, state["t"]
    at, memory = there(objective, [w, state["optimizer"]])
    for t in range(first, first + steps):
        at, memory = optimizer.step(at, gradient.at(at, t), memory, t)
        state["t"] = t + 1
    w, state["optimizer"] = here(objective, [at, memory])
    return w


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
        optimizer: Any = self.optimizer
        if not (getattr(optimizer, "is_plain", False) and can_fuse(task)):
            return self.work_on(gradients(task, self.batch), state, down, task)
        state["optimizer"] = self._memory(state, down)
        steps = range(state["t"], state["t"] + self._count(task))
        w = fused_steps(down["w"], task, steps, self.batch, optimizer.rate)
        state["t"] = steps.stop
        return state, self._message(w, state, task)

    def work_on(
        self, gradient: Gradients, state: State, down: Message, task: Task
    ) -> tuple[State, Message]:
        """The same on other gradients than the objective's own."""
        state["optimizer"] = self._memory(state, down)
        w = descend(self.optimizer, state, down["w"], self._count(task), gradient)
        return state, self._message(w, state, task)

    def _message(self, w: Array, state: State, task: Task) -> Message:
        weight = weight_of(task.source.samples(task.worker))
        shared = state["optimizer"] if self.carry == "average" else {}
        extra = {PREFIX + name: np.array(value) for name, value in shared.items()}
        return freeze(w=w, weight=weight, **extra)

    def _count(self, task: Task) -> int:
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * task.source.steps_per_epoch(task.worker, self.batch)

    def _memory(self, state: State, down: Message) -> State:
        """The optimiser's state at the start of a round."""
        if self.carry == "reset":
            return self.optimizer.init(down["w"])
        received = {k.removeprefix(PREFIX): v for k, v in down.items() if k.startswith(PREFIX)}
        return {k: v.copy() for k, v in received.items()} or state["optimizer"]
