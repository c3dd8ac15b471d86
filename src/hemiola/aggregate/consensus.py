"""The server of consensus ADMM: the penalty's proximal step on the mean of the messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Annotated, NamedTuple, Self

import numpy as np
from annotated_types import Ge, Gt

from hemiola.algorithm import Info
from hemiola.component import component
from hemiola.errors import OptionError
from hemiola.penalty import Penalty
from hemiola.types import Array, Message, State, freeze, frozen

FIRST_TOLERANCE, SHARE, LEAST = 1e-4, 0.1, 1e-13


class Seen(NamedTuple):
    """The residuals of a round and the scales that they are compared to."""

    primal: float
    dual: float
    primal_scale: float
    dual_scale: float

    @classmethod
    def of(cls, squares: Mapping[str, float], dual: float, z: Array, rho: float) -> Seen:
        """From mean squares over the workers: ``gap`` of x - z, ``x`` and ``u``."""
        size = max(math.sqrt(squares["x"]), float(np.linalg.norm(z)))
        return cls(math.sqrt(squares["gap"]), dual, size, rho * math.sqrt(squares["u"]))


@component
class Stopping:
    """Stop when both residuals are small enough (Boyd et al., section 3.3.1).

        |r| <= sqrt(d) absolute + relative max(|x|, |z|)
        |s| <= sqrt(d) absolute + relative rho |u|

    |x|, |u| and |r| are root mean squares over the workers, weighted by samples, so that nothing
    depends on their number; with equal shards they are the paper's over sqrt(K).
    """

    absolute: Annotated[float, Ge(0)] = 1e-4
    relative: Annotated[float, Ge(0)] = 1e-3

    def allowed(self, scale: float, d: int) -> float:
        """The size that a residual of ``d`` entries and this scale may have."""
        return math.sqrt(d) * self.absolute + self.relative * scale

    def measure(self, seen: Seen, z: Array, rho: float) -> dict[str, float]:
        """The residuals, what they may be, and rho."""
        return {
            "primal": seen.primal,
            "dual": seen.dual,
            "primal_allowed": self.allowed(seen.primal_scale, z.size),
            "dual_allowed": self.allowed(seen.dual_scale, z.size),
            "rho": rho,
        }


def reached(measures: dict[str, float]) -> str | None:
    """A sentence if both residuals are as small as allowed."""
    if not measures or measures["primal"] > measures["primal_allowed"]:
        return None
    if measures["dual"] > measures["dual_allowed"]:
        return None
    return (
        f"the residuals are small enough: primal {measures['primal']:.2g}, "
        f"dual {measures['dual']:.2g}"
    )


def tolerance(measures: dict[str, float]) -> float:
    """How exactly workers shall solve: their gradients' norm, well below both residuals."""
    if not measures:
        return FIRST_TOLERANCE
    return max(LEAST, SHARE * min(measures["rho"] * measures["primal"], measures["dual"]))


@component
class Balance:
    """Residual balancing in the first ``rounds``: rho is doubled while the primal residual is more
    than ``ratio`` times the dual one, and halved in the opposite case (section 3.4.1).

    The residuals are compared relative to their scales, |r| / max(|x|, |z|) and |s| / (rho |u|), as
    Wohlberg, "ADMM Penalty Parameter Selection by Residual Balancing", arXiv 1704.06209, 2017,
    advises: so the choice does not depend on the units of w and of the loss.
    """

    rounds: Annotated[int, Ge(0)] = 60
    ratio: Annotated[float, Gt(1)] = 2.0
    factor: Annotated[float, Gt(1)] = 2.0

    def next(self, rho: float, seen: Seen) -> float:
        """rho for the next round.

        >>> Balance().next(1.0, Seen(0.5, 0.001, 1.0, 1.0))
        2.0
        """
        primal = seen.primal * seen.dual_scale  # ratios, without dividing by what may be 0
        dual = seen.dual * seen.primal_scale
        if primal > self.ratio * dual:
            return rho * self.factor
        return rho / self.factor if dual > self.ratio * primal else rho


@component
class Consensus:
    """z <- argmin_z r(z) + rho/2 |z - mean_k v_k|^2, the mean weighted by samples.

    ``rho``       the first rho, in units of the mean loss;
    ``balance``   how it changes; ``balance.rounds=0`` leaves it as it is;
    ``stopping``  when the run ends;
    ``penalty``   r; filled in from the objective by :func:`hemiola.penalty.with_penalty`.
    """

    rho: Annotated[float, Gt(0)] = 0.1
    balance: Balance = field(default_factory=Balance)
    stopping: Stopping = field(default_factory=Stopping)
    penalty: Penalty | None = None

    def with_penalty(self, penalty: Penalty) -> Self:
        return replace(self, penalty=penalty)

    def init(self, w0: Array, workers: int) -> State:
        known(self.penalty)
        return {"w": w0.copy(), "rho": self.rho, "round": 0, "moved": 0.0, "measures": {}}

    def pull(self, state: State, worker: int) -> Message:
        numbers = {"rho": state["rho"], "tolerance": tolerance(state["measures"])}
        return freeze(w=state["w"], **{name: np.array(x) for name, x in numbers.items()})

    def push(self, state: State, up: Message, info: Info) -> State:
        z, rho, measures = state["w"], state["rho"], state["measures"]
        following = rho
        if state["round"]:
            squares = {name: float(up[name]) for name in ("gap", "x", "u")}
            seen = Seen.of(squares, state["moved"], z, state["used"])
            measures = self.stopping.measure(seen, z, state["used"])
            if state["round"] < self.balance.rounds:
                following = self.balance.next(rho, seen)
        consensus = known(self.penalty).prox(up["v"], rho)
        return {
            "w": consensus, "rho": following, "used": rho, "moved": rho * distance(consensus, z),
            "round": state["round"] + 1, "measures": measures,
        }  # fmt: skip

    def model(self, state: State) -> Array:
        return frozen(state["w"])

    def measures(self, state: State) -> dict[str, float]:
        """The residuals of the round before the last one, what they may be, and their rho."""
        return dict(state["measures"])

    def ended(self, state: State) -> str | None:
        return reached(state["measures"])


def known(penalty: Penalty | None) -> Penalty:
    """The penalty; raises :class:`OptionError` if nobody has filled it in."""
    if penalty is None:
        raise OptionError(
            "the server does not know the penalty yet: train with hemiola.fit, or fill it in with "
            "hemiola.penalty.with_penalty(algorithm, objective, data)."
        )
    return penalty


def distance(a: Array, b: Array) -> float:
    """|a - b|"""
    return float(np.linalg.norm((a - b).astype(np.float64)))
