"""The penalty on the weights of a linear model, for algorithms whose server applies it.

Most algorithms step along gradients and leave the penalty to the objective. Those that split the
objective, as ADMM does, give the loss to the workers and the penalty to the server.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Annotated, Any, Protocol, Self, runtime_checkable

import numpy as np
from annotated_types import Ge

from hemiola.algorithm import Algorithm, AnyAlgorithm
from hemiola.component import component
from hemiola.contracts import Objective
from hemiola.dataset import Dataset
from hemiola.errors import OptionError
from hemiola.types import Array


@component
class Penalty:
    """r(w) = l1 |w|_1 + l2/2 |w|^2 over all coordinates but the last ``free``, the intercepts.

    >>> Penalty(l1=1.0).prox(np.array([3.0, -0.2, 0.2]), rho=2.0).tolist()
    [2.5, -0.0, 0.2]
    """

    l1: Annotated[float, Ge(0)] = 0.0
    l2: Annotated[float, Ge(0)] = 0.0
    free: Annotated[int, Ge(0)] = 1

    def value(self, w: Array) -> float:
        """r(w)."""
        features = w[: w.size - self.free]
        ridge = 0.5 * self.l2 * float(np.square(features).sum())
        return ridge + (self.l1 * float(np.abs(features).sum()) if self.l1 else 0.0)

    def prox(self, c: Array, rho: float) -> Array:
        """argmin_z r(z) + rho/2 |z - c|^2, a new (d,) array of c's type."""
        z = c.copy()
        features = z[: z.size - self.free]
        if self.l1:
            size = np.maximum(np.abs(features) - self.l1 / rho, 0.0)
            features[:] = np.copysign(size, features)
        if self.l2:
            features *= rho / (rho + self.l2)
        return z


@runtime_checkable
class Penalised(Protocol):
    """An objective whose loss and penalty can be told apart."""

    def penalty(self, data: Dataset) -> Penalty:
        """The penalty on weights for data of this kind."""
        ...

    def without_penalty(self) -> Objective:
        """The loss alone."""
        ...


@runtime_checkable
class Proximal(Protocol):
    """A part of an algorithm that applies the penalty by itself, once it is told which."""

    penalty: Penalty | None

    def with_penalty(self, penalty: Penalty) -> Self: ...


def with_penalty(algorithm: AnyAlgorithm, objective: Objective, data: Dataset) -> AnyAlgorithm:
    """The algorithm with the objective's penalty where it needs it; as it is if nowhere.

    Raises :class:`OptionError` for an objective that cannot be split into loss and penalty, and for
    an L1 penalty where no part of the algorithm has a proximal step.
    """
    if not isinstance(algorithm, Algorithm) or not _is_proximal(algorithm):
        if getattr(objective, "l1", 0.0):
            raise OptionError(
                f"{algorithm.name} follows gradients, and an L1 penalty has none at zero; use "
                "l1=0, or admm, which has a proximal step."
            )
        return algorithm
    if not isinstance(objective, Penalised):
        raise OptionError(
            f"{algorithm.name} splits the objective into loss and penalty; it has no way to split "
            f"{type(objective).__name__}. Use a linear objective."
        )
    return _fill(algorithm, objective.penalty(data))


def _is_proximal(algorithm: Algorithm) -> bool:
    parts = (getattr(algorithm, "local", None), algorithm.aggregate)
    return any(isinstance(part, Proximal) for part in parts)


def _fill(algorithm: Any, penalty: Penalty) -> Any:
    parts = {field.name: getattr(algorithm, field.name) for field in fields(algorithm)}
    told = {
        name: part.with_penalty(penalty)
        for name, part in parts.items()
        if is_dataclass(part) and isinstance(part, Proximal)
    }
    return replace(algorithm, **told)
