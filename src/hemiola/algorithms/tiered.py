"""Tiered replicas: parallel SGD whose merge period depends on how frequent a feature is.

Model averaging (McDonald, Hall, Mann, NAACL 2010; Stich, ICLR 2019) with a merge period for each
tier of features, without rounds and without locks. It keeps Hogwild!'s idea - rare features seldom
meet - and avoids what makes it slow, cache lines that change owner at every update of a frequent
one; compare the replicas per socket of Zhang, Re, "DimmWitted", VLDB 2014.

    every thread k has a replica w_k, published changes S_k, and what it saw of the others, R_k.
    each of its rows:
    (1)  w_k <- one step of SGD on w_k
    every P_i rows, for the features j of tier i, and for all at the end of a pass:
    (2)  S_kj <- S_kj + a_j (w_kj - R_kj - S_kj)          publish what is new
    (3)  R_kj <- sum_{l != k} S_lj;   w_kj <- S_kj + R_kj  take in what is new
    the model:
    (4)  w = sum_k S_k                                    S_0 begins as the model

Only thread k writes S_k, so no update is lost. Where a thread moves a weight little between two
merges, the changes of all should be added up (a = 1). Where P steps take it all the way to the
optimum of this thread's rows, they must be averaged (a = 1/K), or K threads overshoot K-fold. A
quadratic of curvature h has q = exp(-η h P) of its error left after P steps, and K P steps in a row
would leave q^K; (3) leaves 1 - K a (1 - q). Both agree for

    (5)  a_j = (1 - q_j^K) / (K (1 - q_j)),   q_j = exp(-η h_j P_i),

which goes from 1 to 1/K as it must. Of the rarest tier h_j is the Hessian's diagonal, c mean_i
x_ij^2 with c the loss's curvature. Frequent features are correlated, and threads in lockstep
diverge with the diagonal; a diagonal that lies above the Hessian, c mean_i |x_ij| |x_i|_1, averages
for no need. Of all other tiers h_j is the geometric mean of the two. The scaled weights of L2 (see
:mod:`hemiola.kernels.sgd`) are what is merged; in them steps of different times simply add up.

=============  =============================================  ===========
symbol         here                                           shape
=============  =============================================  ===========
w_k            ``V``                                          (p + 1, C)
S, R_k         ``sums``, ``seen``                             (K, d), (d,)
a              ``share``                                      (d,)
P_i            ``periods``; tier i ends before ``ends[i]``    (tiers,)
=============  =============================================  ===========

Tiers come from the data: features that at least one row in 256 uses, but at most 1,000, merge every
256 rows; down to one in 4,096, and at most 8,000, every 4,096; the rest every 65,536 or less often,
so that merging takes no more than about a tenth of the time. The counts keep the frequent tiers in
a core's cache. Dense rows have one tier, merged every 64 rows: there (5) is close to model
averaging, and K threads make K times as many steps but not K times the way. The intercept belongs
to the first tier. One thread is serial SGD (:func:`hemiola.kernels.sgd.epoch`), to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from annotated_types import Ge, Gt

from hemiola.algorithm import SharedMemoryAlgorithm
from hemiola.algorithms.row_passes import (
    Passes,
    plan_passes,
    rate_of,
    step_of_intercept,
    words_on_threads,
)
from hemiola.component import component
from hemiola.errors import OptionError
from hemiola.job import Work
from hemiola.kernels import Rows, sgd
from hemiola.kernels.rows import BLOCK
from hemiola.kernels.sgd import Mean, Rule
from hemiola.types import Array

PAPER = "McDonald et al., NAACL 2010, in tiers"

Decay = Literal["inverse", "constant"]

_MOST = (1000, 8000)  # features of the first two tiers: 4 and 32 kB, the size of the first cache
_DENSE = 64
_MERGE_COST = 7  # rows' entries a merged weight should be spread over


@dataclass(frozen=True, eq=False)
class Tiers:
    """``ends`` (tiers,) in ranks and ``periods`` (tiers,) in rows of one thread."""

    ends: Array
    periods: Array

    @classmethod
    def of(cls, rows: Rows, threads: int, merge_every: int | None = None) -> Tiers:
        """By the frequency of features; ``merge_every`` replaces the first tier's period.

        >>> from hemiola.dataset import make_dataset
        >>> tiers = Tiers.of(Rows.of(make_dataset(np.eye(4), [0, 0, 1, 1]), 0), threads=2)
        >>> tiers.ends.tolist(), tiers.periods.tolist()
        ([4], [1])
        """
        n, used = len(rows), rows.used
        first = merge_every or (BLOCK if rows.is_sparse else _DENSE)
        soon = max(1, n // (16 * threads))  # in a small set merge 16 times a pass, all the same
        if not rows.is_sparse:
            return cls(np.array([used]), np.array([min(first, soon)]))
        periods = np.array([first, 16 * first, 256 * first])
        rare = int(_MERGE_COST * used * n / max(rows.entries, 1))
        ends = [
            min(most, int(np.searchsorted(-rows.counts, -n / period, side="right")))
            for most, period in zip(_MOST, periods[:2], strict=True)
        ]
        periods = np.minimum(periods, [soon, 4 * soon, 16 * soon])
        return cls(np.array([*ends, used]), np.maximum(periods, [1, 1, rare]))

    def words(self) -> str:
        """Who merges how often."""
        begins = [0, *self.ends[:-1]]
        tiers = [
            f"{end - begin:,} features every {period:,} rows"
            for begin, end, period in zip(begins, self.ends, self.periods, strict=True)
            if end > begin
        ]
        return f"Each thread merges its {', its next '.join(tiers)}."

    def of_each(self, values: Array) -> Array:
        """One value a tier as one a weight, (used + 1,); the intercept's is the first tier's."""
        return np.append(np.repeat(values, np.diff(self.ends, prepend=0)), values[0])


def share(bend: Array, threads: int) -> Array:
    """(5), given η h P.

    >>> share(np.array([0.0, 0.5, 100.0]), threads=2).round(3).tolist()
    [1.0, 0.803, 0.5]
    """
    bend = np.maximum(bend, 1e-6)
    return np.asarray(np.expm1(-threads * bend) / (threads * np.expm1(-bend)))


@component
class Tiered:
    """The solver. ``lr`` is η of the first step, estimated if None.

    ``decay``        ``inverse``: η / (1 + η λ t), λ the L2 penalty; or ``constant``;
    ``merge_every``     rows between merges of the first tier: 256, of dense data 64, if None; the
                        other tiers 16 and 256 times as many;
    ``intercept_step``  what the intercept's step falls to, over that of the weights; None: 1, but
                        on sparse rows 0.01, since the intercept is in every row;
    ``l1``              an L1 penalty by lazy truncation, on one thread; the loss that is shown
                        does not hold it;
    ``average``         give the mean of all iterates, on one thread.
    """

    lr: Annotated[float, Gt(0)] | None = None
    decay: Decay = "inverse"
    merge_every: Annotated[int, Ge(1)] | None = None
    intercept_step: Annotated[float, Gt(0)] | None = None
    l1: Annotated[float, Ge(0)] = 0.0
    average: bool = False

    def with_lr(self, base: float) -> Self:
        return replace(self, lr=base)

    def prepare(self, work: Work) -> Passes:
        if work.threads > 1 and (self.l1 or self.average):
            what = "l1" if self.l1 else "average"
            raise OptionError(f"tiered: {what} needs a single thread; use one worker.")
        plan = plan_passes(work, "tiered")
        self._rule(plan)
        if plan.threads > 1:
            plan.details = _Replicas.of(plan.rows, plan.threads, self.merge_every)
        return plan

    def init(self, plan: Passes, w0: Array) -> dict[str, Any]:
        state: dict[str, Any] = {"w": plan.rows.inside(w0)}
        if self.average:
            state |= vars(Mean.of(plan.rows))
        return state

    def epoch(self, plan: Passes, state: dict[str, Any], epoch: int) -> None:
        rule = self._rule(plan)
        if plan.threads > 1:
            _together(plan, state["w"], rule, epoch)
            return
        mean = Mean(state["sums"], state["count"]) if self.average else None
        sgd.epoch(plan.rows, state["w"], rule, plan.seed, epoch, mean)
        if mean is not None:
            state |= vars(mean)

    def model(self, plan: Passes, state: dict[str, Any]) -> Array:
        mean = Mean(state["sums"], state["count"]) if self.average else None
        return plan.rows.outside(state["w"] if mean is None else mean.value(plan.rows))

    def words(self, plan: Passes) -> list[str]:
        if plan.threads == 1:
            return []
        return [plan.details.tiers.words(), *words_on_threads(plan)]

    def _rule(self, plan: Passes) -> Rule:
        inverse, rate = self.decay == "inverse", rate_of(self.lr, "Tiered")
        intercept = step_of_intercept(plan, self.intercept_step)
        return Rule(plan.objective.loss, rate, plan.objective.l2, inverse, intercept, self.l1)


@dataclass(eq=False)
class _Replicas:
    """What threads own, of the features that some row uses and the intercept: d numbers each."""

    tiers: Tiers
    bend: Array
    V: list[Array]
    seen: list[Array]
    sums: Array
    shares: dict[float, Array]
    unused: bool | None = None

    @classmethod
    def of(cls, rows: Rows, threads: int, merge_every: int | None) -> _Replicas:
        d, dtype = (rows.used + 1) * rows.outputs, rows.dtype
        line = 64 // dtype.itemsize  # no two threads write to one cache line
        V, seen = ([np.empty(d + line, dtype)[:d] for _ in range(threads)] for _ in range(2))
        sums = np.zeros((threads, -(-d // line) * line + line), dtype)[:, :d]
        squares, reach = rows.spread()
        tiers = Tiers.of(rows, threads, merge_every)
        bend = np.sqrt(squares * reach)
        if len(tiers.ends) > 1:
            bend[tiers.ends[-2] : -1] = squares[tiers.ends[-2] : -1]
        bend = np.append(bend[: rows.used], bend[-1])
        V = [v.reshape(-1, rows.outputs) for v in V]
        return cls(tiers, bend, V, seen, sums, {})

    def shrinks_unused(self, w: Array) -> bool:
        """Whether any weight of a feature that no row uses was not 0 at the start."""
        if self.unused is None:
            C = self.V[0].shape[1]
            self.unused = bool(w[self.sums.shape[1] - C : -C].any())
        return self.unused

    def share(self, plan: Passes, rule: Rule, t: float) -> Array:
        """(5) for the rate at t or up to twice that: it is computed anew when the rate halves."""
        halvings = np.floor(np.log2(rule.rate / rule.rate_at(t)))
        rate = rule.rate / 2**halvings
        if rate not in self.shares:
            h = plan.objective.curvature * self.bend
            a = share(rate * h * self.tiers.of_each(self.tiers.periods), plan.threads)
            self.shares = {rate: np.repeat(a, plan.rows.outputs).astype(plan.rows.dtype)}
        return self.shares[rate]


def _together(plan: Passes, w: Array, rule: Rule, epoch: int) -> None:
    """One pass by all threads; changes w (d,) in place."""
    from hemiola.kernels._passes import collect, tiered_pass

    rows, own, threads = plan.rows, plan.details, plan.threads
    size = min(rule.block_size(rows, threads), int(own.tiers.periods[0]))
    C, n, d = rows.outputs, len(rows), own.sums.shape[1]
    ends, far = own.tiers.ends * C, own.sums[0].nbytes > sgd.FAR
    t = float(epoch * n)
    for blocks in rule.pieces(rows.blocks(plan.seed, epoch, size), size, threads):
        own.sums[1:] = 0
        own.sums[0, :-C], own.sums[0, -C:] = w[: d - C], w[-C:]
        pace, a = rule.pace(t, threads), own.share(plan, rule, t)
        parts = np.array_split(blocks, threads)

        def part(k: int, pace: Any = pace, a: Array = a, parts: Any = parts) -> None:
            tiered_pass(
                rows.table, rule.code, parts[k], size, n, own.V[k], pace, 0.0, far,
                k, own.seen[k], own.sums, a, ends, own.tiers.periods,
            )  # fmt: skip

        plan.team.run(part)
        done = int(np.minimum((blocks + 1) * size, n).sum() - (blocks * size).sum())
        scale = sgd.scale_after(pace, done)
        collect(own.sums, scale, w, C)
        if own.shrinks_unused(w):
            w[d - C : -C] *= scale
        t += done


def tiered(
    lr: Annotated[float, Gt(0)] | None = None,
    decay: Decay = "inverse",
    merge_every: Annotated[int, Ge(1)] | None = None,
    intercept_step: Annotated[float, Gt(0)] | None = None,
    l1: Annotated[float, Ge(0)] = 0.0,
    average: bool = False,
) -> SharedMemoryAlgorithm:
    """Parallel SGD on replicas that merge frequent features often and rare ones seldom.

    The one to take for sparse data on several cores.

    >>> tiered(lr=0.1).solver.decay
    'inverse'
    """
    solver = Tiered(lr, decay, merge_every, intercept_step, l1, average)
    return SharedMemoryAlgorithm("tiered", solver)
