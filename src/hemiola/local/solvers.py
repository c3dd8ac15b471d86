"""How a worker solves its part of a split problem: min_x f(x) + rho/2 |x - q|^2.

f is the mean loss of the worker's shard, without a penalty. A solver starts from the worker's last
solution and stops when the gradient's norm is at most ``tolerance``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from annotated_types import Ge
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg

from hemiola.algorithm import MiniBatch, Task
from hemiola.component import component
from hemiola.contracts import Objective
from hemiola.dataset import Batch
from hemiola.errors import OptionError
from hemiola.types import Array, State

SUFFICIENT, SHORTER = 0.1, 0.5
"""Backtracking's alpha and beta, as in Boyd's examples."""

SMALLEST_STEP = 1e-8
ROUND_OFF = 1e-15
SETTLED = 1e-13
"""Newton's steps of this relative size are rounding errors."""

WHOLE = MiniBatch(None)


@dataclass(frozen=True)
class Augmented:
    """f(x) + rho/2 |x - q|^2, an objective of its own; q has shape (d,)."""

    loss: Any
    q: Array
    rho: float

    def value(self, x: Array, batch: Batch) -> float:
        return float(self.loss.value(x, batch) + 0.5 * self.rho * np.square(x - self.q).sum())

    def grad(self, x: Array, batch: Batch) -> Array:
        gradient: Array = self.loss.grad(x, batch)
        return gradient + self.rho * (x - self.q)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # pickle asks before there is a loss
            raise AttributeError(name)
        if name == "sgd":  # the loss's fused steps know nothing of rho
            raise AttributeError(name)
        return getattr(self.loss, name)


@runtime_checkable
class LocalSolver(Protocol):
    """Solves a worker's proximal problem, exactly or not."""

    def solve(
        self, problem: Augmented, x: Array, tolerance: float, memory: State, task: Task
    ) -> tuple[Array, State, int]:
        """A new x (d,) in double precision from the last one, what to remember for the next round
        (a dict of arrays and numbers), and the gradients that were computed."""
        ...


def whole_shard(task: Task) -> Batch:
    """All samples of the worker's shard. Raises :class:`OptionError` if it is not at hand."""
    batch = task.batch(0, WHOLE)
    if len(batch) < task.source.samples(task.worker):
        raise OptionError(
            "this solver needs a worker's whole shard in memory (hemiola.load); for shards on disk "
            "use solver=local-steps."
        )
    return batch


@component
class Newton:
    """Damped Newton: up to ``direct`` parameters by factorisation, beyond by conjugate gradients.

    At most ``iterations`` of them. Not for hinge loss.
    """

    iterations: Annotated[int, Ge(1)] = 50
    direct: Annotated[int, Ge(0)] = 500

    def solve(
        self, problem: Augmented, x: Array, tolerance: float, memory: State, task: Task
    ) -> tuple[Array, State, int]:
        batch = whole_shard(task)
        f, gradients = problem.value(x, batch), 0
        for _ in range(self.iterations):
            g = problem.grad(x, batch)
            gradients += 1
            size = float(np.linalg.norm(g))
            if size <= tolerance:
                break
            step = self._direction(problem, x, g, size, batch)
            if float(np.linalg.norm(step)) <= SETTLED * (1 + float(np.linalg.norm(x))):
                break
            moved = _backtrack(problem, x, f, step, float(g @ step), batch)
            if moved is None:
                break
            x, f = moved
        return x, memory, gradients

    def _direction(
        self, problem: Augmented, x: Array, g: Array, size: float, batch: Batch
    ) -> Array:
        """- (H + rho I)^-1 g."""
        hessian, d = problem.hessian(x, batch), x.size
        if d <= self.direct:
            H = hessian.matrix()
            H[np.diag_indices(d)] += problem.rho
            return -np.linalg.solve(H, g)
        product = LinearOperator((d, d), matvec=lambda v: hessian.dot(v) + problem.rho * v,
                                 dtype=g.dtype)  # fmt: skip
        step: Array = cg(product, -g, rtol=min(0.1, size), maxiter=d)[0]
        return step


def _backtrack(
    problem: Augmented, x: Array, f: float, step: Array, slope: float, batch: Batch
) -> tuple[Array, float] | None:
    """The first of x + step, x + step/2, ... that is low enough, and its value; None if none is."""
    t = 1.0
    while t >= SMALLEST_STEP:
        there = x + t * step
        value = problem.value(there, batch)
        if value <= f + SUFFICIENT * t * slope + ROUND_OFF * abs(f):
            return there, value
        t *= SHORTER
    return None


@component
class LBFGS:
    """L-BFGS with ``memory`` pairs, at most ``iterations`` of it, by SciPy. Not for hinge loss."""

    iterations: Annotated[int, Ge(1)] = 500
    memory: Annotated[int, Ge(1)] = 10

    def solve(
        self, problem: Augmented, x: Array, tolerance: float, memory: State, task: Task
    ) -> tuple[Array, State, int]:
        refuse_hinge(problem, "solver=auto or solver=dual")
        batch = whole_shard(task)
        found = minimize(
            lambda w: (problem.value(w, batch), problem.grad(w, batch)), x, jac=True,
            method="L-BFGS-B",
            options={"maxcor": self.memory, "maxiter": self.iterations, "ftol": 0.0,
                     "maxfun": 2 * self.iterations, "gtol": tolerance / np.sqrt(x.size)},
        )  # fmt: skip
        return found.x, memory, int(found.nfev)


@component
class Dual:
    """Hinge loss: its dual, a quadratic in a box, by SciPy's L-BFGS-B; at most ``iterations``.

        x(a) = q + A'a / rho,   max_a  sum_i y_i a_i - a'A q - |A'a|^2 / (2 rho),
        0 <= y_i a_i <= s_i / n_k

    A holds the shard's rows (x_i, 1), y_i is 1 or -1, s_i a sample's weight. a is remembered.
    """

    iterations: Annotated[int, Ge(1)] = 2000

    def solve(
        self, problem: Augmented, x: Array, tolerance: float, memory: State, task: Task
    ) -> tuple[Array, State, int]:
        if getattr(problem.loss, "loss", "") != "hinge":
            raise OptionError("solver=dual is for hinge loss; use solver=newton or solver=lbfgs.")
        data, rows, _ = whole_shard(task)
        assert rows is not None
        X, n = data.X[rows], len(rows)
        sign = 2.0 * data.y[rows] - 1
        weight = np.ones(n) if data.weight is None else data.weight[rows].astype(np.float64)
        upper = weight / n

        def point(b: Array) -> Array:
            a = sign * b
            back = np.append(X.T @ a, a.sum() if problem.intercept else 0.0)
            return problem.q + back / problem.rho

        def value_and_gradient(b: Array) -> tuple[float, Array]:
            w = point(b)
            margin = sign * problem.scores(w, X)
            moved = w - problem.q
            rest = float(b @ margin) - 0.5 * problem.rho * float(moved @ moved)
            return rest - float(b.sum()), margin - 1

        found = minimize(
            value_and_gradient, memory.get("dual", np.zeros(n)), jac=True, method="L-BFGS-B",
            bounds=np.column_stack([np.zeros(n), upper]),
            options={"maxiter": self.iterations, "maxfun": 2 * self.iterations, "ftol": 0.0,
                     "gtol": tolerance, "maxcor": 20},
        )  # fmt: skip
        return point(found.x), {"dual": found.x}, int(found.nfev)


@component
class Auto:
    """By the loss and the number of parameters: ``dual``, ``newton`` or, if there are many,
    ``lbfgs``."""

    newton_up_to: Annotated[int, Ge(0)] = 500

    def solve(
        self, problem: Augmented, x: Array, tolerance: float, memory: State, task: Task
    ) -> tuple[Array, State, int]:
        return self._choose(problem, x.size).solve(problem, x, tolerance, memory, task)

    def _choose(self, problem: Augmented, d: int) -> LocalSolver:
        if getattr(problem.loss, "loss", "") == "hinge":
            return Dual()
        return Newton() if d <= self.newton_up_to else LBFGS()


def refuse_hinge(problem: Objective | Augmented, instead: str) -> None:
    """Raise :class:`OptionError` where L-BFGS would meet hinge loss, and say what to use."""
    loss = getattr(problem, "loss", "")
    if getattr(loss, "loss", loss) == "hinge":
        raise OptionError(f"hinge loss is not smooth, so L-BFGS cannot minimise it; use {instead}.")
