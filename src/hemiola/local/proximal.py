"""Local steps that are held back by a spring to the received model."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from annotated_types import Ge

from hemiola.algorithm import MiniBatch, Task
from hemiola.component import component
from hemiola.contracts import LocalOptimizer
from hemiola.local.local_steps import LocalSteps, gradients
from hemiola.local.placed import there
from hemiola.types import Array, Message, State


@component
class Proximal:
    """``local`` on F_k(w) + mu/2 |w - centre|^2, the centre (d,) being the received model.

    Every gradient becomes g + mu (w - centre); all else is as in ``local``.
    """

    local: LocalSteps
    mu: Annotated[float, Ge(0)] = 0.1

    @property
    def optimizer(self) -> LocalOptimizer:
        return self.local.optimizer

    @property
    def batch(self) -> MiniBatch:
        return self.local.batch

    def init(self, w0: Array) -> State:
        return self.local.init(w0)

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        return self.toward(down["w"], state, down, task)

    def toward(
        self, center: Array, state: State, down: Message, task: Task
    ) -> tuple[State, Message]:
        """The same from ``down["w"]`` (d,), where the centre (d,) is another model."""
        gradient, center = gradients(task, self.local.batch), there(task.objective, center)

        def held(w: Any, t: int) -> Any:
            return gradient.at(w, t) + self.mu * (w - center)

        return self.local.work_on(replace(gradient, at=held), state, down, task)

    def base_inside(self, base: float) -> float:
        """The spring adds mu to the curvature 1 / base that a step may rely on.

        >>> from hemiola.optim import SGD
        >>> Proximal(LocalSteps(SGD(), steps=1), mu=1.0).base_inside(0.5)
        0.3333333333333333
        """
        return base / (1 + base * self.mu)
