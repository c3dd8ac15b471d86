"""Stochastic dual coordinate ascent (SDCA) on threads that share memory.

Shalev-Shwartz, Zhang, "Stochastic Dual Coordinate Ascent Methods for Regularized Loss
Minimization", JMLR 2013. The equations, the table of symbols, the treatment of the intercept and of
the duality gap are in :mod:`hemiola.kernels.sdca`. A pass over the data:

    for all samples i, in random blocks:  α_i += δ_i,  w += δ_i s_i x_i / (λ n)             (5), (3)
    centres, of the intercept and of damped features, move to where these are               (4), (6)
    P(w, b) - D(α) <= tolerance P(w, b):  stop

There is no learning rate, steps are exact, and the gap says how far the optimum can be: for convex
losses with L2 this is the first algorithm to try.

**Several threads** each have a replica of w, and a dual variable has one owner in a pass. A thread
publishes the sum of what it has added to w, and takes in what the others have published: for the
thousand most frequent features every 256 rows, for the next 7000 every 4096, for the rest every
65,536. Nothing is locked and nothing is lost. After a pass the replicas are joined, and w is again
what α says.

Changes Δ_t made at the same time add up, so a thread acts as if its own counted σ times, with σ
from 1 to T (Ma et al., "Adding vs. Averaging in Distributed Primal-Dual Optimization", ICML 2015).
What is needed, σ = |sum_t Δ_t|^2 / sum_t |Δ_t|^2, is estimated at the merges of a pass, rather too
high, and used in the next one; it falls by half the way. The first pass has the safe value T.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt

from hemiola.algorithm import SharedMemoryAlgorithm
from hemiola.component import component
from hemiola.job import Work
from hemiola.kernels.damping import damped, loosened, matrix
from hemiola.kernels.rows import Rows
from hemiola.kernels.sdca import START, Dual, Share, Values, check, recentred
from hemiola.team import Team
from hemiola.types import Array

PAPER = "Shalev-Shwartz, Zhang, JMLR 2013"

BLOCK = 64
"""Rows of a block."""

TIERS = ((1 << 10, 256), (1 << 13, 4096), (1 << 62, 65536))
"""Ranks below which features are merged every so many rows."""

_MERGES = 16  # of the most frequent features, in a pass, at least
_REBUILD = 32  # passes after which w is summed up anew, against rounding
_SLOW = 0.5  # the gap over what it was so many passes ago
_GUESS = 0.1  # the gap after a first pass, over the slack that was met during it


@dataclass(frozen=True, eq=False)
class Plan:
    """Data laid out, their dual, and room for the threads' sums (T, p + 1) each.

    ``factors`` (p,) are c_j, all 1 where nothing is damped. They double, up to 1, with ``level``.
    """

    rows: Rows
    dual: Dual
    factors: Array
    team: Team
    seed: int
    block: int
    most: float
    sums: Array
    seen: Array
    level: list[int] = field(default_factory=lambda: [0])

    @property
    def threads(self) -> int:
        return self.team.size

    def c2(self, state: dict[str, Any]) -> float:
        return float(state["pull"] * self.most)


@component
class DualAscent:
    """SDCA. The run ends when the duality gap is at most ``tolerance`` times the objective; None:
    never.

    To end the run, the gap is computed after passes that met little slack. ``damping``: centres for
    features too, where rows have so much in common that single steps would undo each other; False
    is the paper's algorithm.

    The state: α (n,), v = w / c (p + 1,) in the order of the rows laid out, its centres (p,), and
    what the next pass needs to know.
    """

    tolerance: Annotated[float, Gt(0)] | None = 1e-3
    damping: bool = True

    def prepare(self, work: Work) -> Plan:
        objective: Any = work.objective
        check(objective, "sdca")
        rows = Rows.of(work.data, work.seed, objective.loss)
        strength = objective.l2 * len(rows)
        factors, lengths = damped(rows, objective.curvature, strength, self.damping)
        dual = Dual.of(
            objective.loss, matrix(rows), rows.table.y, rows.table.s,
            l2=objective.l2, intercept=objective.intercept, lengths=lengths,
        )  # fmt: skip
        block = rows.block_size(BLOCK)
        team = Team(min(work.threads, -(-len(rows) // block)))
        most = float(dual.norms.mean()) or 1.0
        sums, seen = (np.zeros((team.size, rows.n_features + 1), rows.dtype) for _ in range(2))
        return Plan(rows, dual, factors, team, work.seed, block, most, sums, seen)

    def init(self, plan: Plan, w0: Array) -> dict[str, Any]:
        w = plan.rows.inside(w0)
        w[:-1] /= plan.factors
        alpha = plan.dual.start(w)
        state: dict[str, Any] = {
            "alpha": alpha, "w": w, "centers": np.zeros_like(w), "before": 0.0,
            "pull": START if plan.dual.intercept else 0.0, "sigma": float(plan.threads),
            "per_slack": _GUESS, "primal": np.inf, "level": 0, "earlier": np.inf,
        }  # fmt: skip
        total = plan.dual.rebuild(alpha, w)
        state["centers"][:-1] = w[:-1] / plan.factors**2 - w[:-1]
        w[:-1] /= plan.factors**2
        state["centers"][-1] = w[-1] - plan.c2(state) * total
        return state

    def epoch(self, plan: Plan, state: dict[str, Any], epoch: int) -> str | None:
        _set_level(plan, state["level"])
        if epoch:
            _recentre(plan, state)
        blocks = plan.rows.blocks(plan.seed, epoch, plan.block)
        ascend = _alone if plan.threads == 1 else _together
        met = ascend(plan, state, blocks)
        if (epoch + 1) % _REBUILD == 0:
            _rebuild(plan, state)
            _loosen_if_slow(plan, state)
        return self._stop(plan, state, met)

    def _stop(self, plan: Plan, state: dict[str, Any], met: float) -> str | None:
        """Compute the gap if it may be small enough; again, on a w without rounding, if it is."""
        if self.tolerance is None:
            return None
        if met * state["per_slack"] > 2 * self.tolerance * state["primal"]:
            return None
        gap = _measure(plan, state)
        state["per_slack"] = max(gap / met, 0.01) if met > 0 else 1.0
        if gap <= self.tolerance * state["primal"]:
            _rebuild(plan, state)
            gap = _measure(plan, state)
        if gap > self.tolerance * state["primal"]:
            return None
        share = max(gap, 0.0) / state["primal"] if state["primal"] else 0.0
        return f"the duality gap is {share:.1e} of the objective, at most {self.tolerance:g}"

    def model(self, plan: Plan, state: dict[str, Any]) -> Array:
        w = state["w"].copy()
        w[:-1] *= plan.factors
        return plan.rows.outside(w)

    def gap(self, plan: Plan, state: dict[str, Any]) -> float:
        return values(plan, state).gap

    def words(self, plan: Plan) -> list[str]:
        found = []
        if self.tolerance is not None:
            found.append(
                f"The run ends when the duality gap is {self.tolerance:g} of the objective."
            )
        if (share := float((plan.factors < 1).mean())) > 0:
            found.append(f"The penalty is weak and rows have much in common: {share:.0%} of the "
                         "features are damped.")  # fmt: skip
        return found


def values(plan: Plan, state: dict[str, Any]) -> Values:
    """The objective and its lower bound, by all threads."""
    alpha, v, n, threads = state["alpha"], state["w"], len(plan.rows), plan.threads
    parts = plan.team.run(
        lambda k: plan.dual.sums(alpha, v, k * n // threads, (k + 1) * n // threads)
    )
    near = (v - state["centers"])[:-1] / plan.factors
    return plan.dual.values(sum(parts[1:], parts[0]), v[:-1] * plan.factors, near)


def _measure(plan: Plan, state: dict[str, Any]) -> float:
    found = values(plan, state)
    state["primal"] = found.primal
    return found.gap


def _rebuild(plan: Plan, state: dict[str, Any]) -> None:
    """w from α, without the rounding errors of the past; the intercept stays, its centre gives."""
    total = plan.dual.rebuild(state["alpha"], state["w"])
    state["w"][:-1] += state["centers"][:-1]
    state["centers"][-1] = state["w"][-1] - plan.c2(state) * total


def _set_level(plan: Plan, level: int) -> None:
    """Damp as little as after so many doublings of the factors."""
    if level == plan.level[0]:
        return
    assert level > plan.level[0], "a plan is not damped again"
    loosened(plan.rows, plan.factors, 2.0 ** (level - plan.level[0]))
    plan.dual.measure()
    plan.level[0] = level


def _loosen_if_slow(plan: Plan, state: dict[str, Any]) -> None:
    """Where centres move too slowly, or in circles, let features move further; w stays."""
    gap, before = _measure(plan, state), plan.factors.copy()
    if gap > _SLOW * state["earlier"] and (before < 1).any():
        state["level"] += 1
        _set_level(plan, state["level"])
        ratio, v = plan.factors / before, state["w"]
        moves = (v - state["centers"])[:-1] * ratio
        v[:-1] /= ratio
        state["centers"][:-1] = v[:-1] - moves
    state["earlier"] = gap


def _recentre(plan: Plan, state: dict[str, Any]) -> None:
    """(6) for the features and (4) for the intercept, whose c^2 changes."""
    v, centers, squared = state["w"], state["centers"], plan.factors**2
    moves = v - centers
    centers[:-1] = (1 - squared) * v[:-1]
    v[:-1] = centers[:-1] + moves[:-1]
    if plan.dual.intercept:
        move = float(moves[-1])
        centers[-1] = v[-1]
        v[-1], state["pull"] = recentred(float(v[-1]), move, state["before"], state["pull"])
        state["before"] = move


def _alone(plan: Plan, state: dict[str, Any], blocks: Array) -> float:
    return plan.dual.ascend(state["alpha"], state["w"], blocks, plan.block, plan.c2(state))


def _together(plan: Plan, state: dict[str, Any], blocks: Array) -> float:
    """Every thread takes its share of the blocks; then the replicas are joined."""
    plan.sums[:] = 0
    (tiers, periods), c2, sigma, threads = (
        _tiers(plan),
        plan.c2(state),
        state["sigma"],
        plan.threads,
    )
    parts = np.array_split(blocks, threads)

    def work(me: int) -> tuple[float, Array]:
        share = Share(state["w"], plan.sums, plan.seen, me, tiers, periods, np.zeros(2))
        w = share.replica()
        met = plan.dual.ascend(state["alpha"], w, parts[me], plan.block, c2, sigma, share)
        return met, share.cross

    found = plan.team.run(work)
    state["w"] += plan.sums.sum(axis=0)
    crossed, own = (sum(cross[i] for _, cross in found) for i in (0, 1))
    needed = 1 + 2 * crossed / own if own > 0 else 1.0
    state["sigma"] = float(min(max(needed, 0.5 * (state["sigma"] + needed), 1.0), threads))
    return sum(met for met, _ in found)


def _tiers(plan: Plan) -> tuple[Array, Array]:
    """Where tiers of features begin and end, and their periods in blocks."""
    p = plan.rows.n_features
    ends = [min(end, p) for end, _ in TIERS]
    used = [k for k, end in enumerate(ends) if k == 0 or end > ends[k - 1]]
    few = len(plan.rows) // (_MERGES * plan.threads)
    rows = [min(TIERS[k][1], few) if k == 0 else TIERS[k][1] for k in used]
    periods = [max(1, count // plan.block) for count in rows]
    return np.array([0, *(ends[k] for k in used)]), np.array(periods)


def sdca(
    tolerance: Annotated[float, Gt(0)] | None = 1e-3, damping: bool = True
) -> SharedMemoryAlgorithm:
    """Dual coordinate ascent: exact steps, no learning rate, stops at a duality gap.

    For convex losses with L2: logistic, squared, hinge. The gap stands in the history's records; a
    run ends when it is at most ``tolerance`` times the objective.

    >>> sdca().solver.tolerance
    0.001
    """
    return SharedMemoryAlgorithm("sdca", DualAscent(tolerance, damping))
