"""The worker of consensus ADMM: its loss, drawn to the consensus by a dual variable."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Interval

from hemiola.algorithm import Task, weight_of
from hemiola.component import component
from hemiola.local.solvers import Augmented, Auto, LocalSolver
from hemiola.types import Array, Message, State, freeze


@component
class ProximalStep:
    """up = ``v`` (d,): the relaxed local solution plus the scaled dual variable.

        u <- v - z;   x <- argmin_x f(x) + rho/2 |x - z + u|^2;   v <- a x + (1 - a) z + u

    z is the consensus that was received, f the mean loss of the shard, a ``relax``. When rho has
    changed, u is scaled so that rho u stays. The message also holds the squares |x - z|^2, |x|^2
    and |u|^2 at the beginning of the work, from which the server computes the residuals of the
    round before.

    ``tolerance``: the norm of the gradient at which the solver may stop; None: a tenth of what the
    server finds in the smaller residual, so that early rounds are cheap and late ones exact.
    """

    solver: LocalSolver = field(default_factory=Auto)
    relax: Annotated[float, Interval(gt=0, lt=2)] = 1.6
    tolerance: Annotated[float, Ge(0)] | None = None

    def init(self, w0: Array) -> State:
        return {"t": 0, "x": w0.copy(), "v": w0.copy(), "rho": 0.0, "memory": {}}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        z, rho = down["w"], float(down["rho"])
        u = state["v"] - z if state["rho"] else np.zeros_like(z)
        squares = {"gap": _square(state["x"] - z), "x": _square(state["x"]), "u": _square(u)}
        if state["rho"] not in (0.0, rho):
            u *= state["rho"] / rho
        objective: Any = task.objective
        q = (z - u).astype(np.float64)
        problem = Augmented(objective.without_penalty(), q, rho)
        tolerance = float(down["tolerance"]) if self.tolerance is None else self.tolerance
        start = state["x"].astype(np.float64)
        x, memory, count = self.solver.solve(problem, start, tolerance, state["memory"], task)
        x = x.astype(z.dtype)
        v = self.relax * x + (1 - self.relax) * z + u
        state.update(t=state["t"] + count, x=x, v=v, rho=rho, memory=memory)
        weight = weight_of(task.source.samples(task.worker))
        return state, freeze(v=v.copy(), weight=weight, **squares)


def _square(x: Array) -> Array:
    """|x|^2, shape ()."""
    x = x.astype(np.float64)
    return np.array(x @ x)
