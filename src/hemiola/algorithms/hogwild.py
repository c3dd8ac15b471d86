"""Hogwild!: threads that update one shared vector without any lock.

Niu, Recht, Re, Wright, "Hogwild!: A Lock-Free Approach to Parallelizing Stochastic Gradient
Descent", NIPS 2011.

    each thread, all the time:
    (1)  e uniform from E;  read x_e;  G = |E| grad f_e(x_e)              (non-zero on e only)
    (2)  for v in e:  x_v <- x_v - γ G_v                                  (no lock)
    after every pass, when all threads are done:
    (3)  γ <- β γ
    with the penalty of a sample on its own features only:
    (4)  λ/2 |x|^2 = (1/|E|) sum_e  (|E| λ/2) sum_{u in e} x_u^2 / d_u
    how sparse E is:
    (5)  Ω = max_e |e|;   Δ = max_v |{e : v in e}| / |E|;   ρ = max_e |{ê : ê and e meet}| / |E|

=========  ==========================================  =========
symbol     here                                        shape
=========  ==========================================  =========
x          ``state["w"]``                              (d,)
E, e       ``plan.rows``, the features of one row
γ          ``lr`` times ``beta`` to the passes done
β          ``beta``
λ          the objective's ``l2``
d_u        ``plan.rows.counts``                        (p,)
Ω, Δ, ρ    :func:`hemiola.kernels.conflicts.sparsity`
=========  ==========================================  =========

f_e is the loss of one sample, so that G is the gradient of one term of the mean, and a pass visits
every sample once: blocks of rows in random order, dealt to the threads. A read-modify-write of a
coordinate may be overtaken by another thread's, whose update is then lost; ``count_lost`` adds up
what every thread meant to change and compares it with what has changed. One thread is serial SGD
(:func:`hemiola.kernels.sgd.epoch`), to the bit, with L2 by scaling in place of (4). In (4) a step
shrinks x_u by max(1 - γ |E| λ / d_u, 0), so that the penalty of a rare feature turns no sign.

What costs time on today's processors is not lost updates but cache lines that change owner: on
features that most samples use, several threads are slower than one. The words before a run predict
that from the data. An intercept is used by every sample; so are the features of dense data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Self

import numpy as np
from annotated_types import Gt, Interval

from hemiola.algorithm import SharedMemoryAlgorithm
from hemiola.algorithms.row_passes import (
    Passes,
    plan_passes,
    rate_of,
    step_of_intercept,
    words_on_threads,
)
from hemiola.component import component
from hemiola.job import Work
from hemiola.kernels import sgd
from hemiola.kernels.conflicts import contested_share, racing_speedup, sparsity
from hemiola.kernels.sgd import Rule
from hemiola.types import Array

PAPER = "Niu et al., NIPS 2011"

_ROUNDING = 1e-9  # of a coordinate: differences below are not lost updates


@component
class Hogwild:
    """The solver. ``lr`` is γ of the first pass, estimated if None; ``beta`` its decay a pass. The
    intercept's step falls to ``intercept_step`` times that of the weights; None: 1, but on sparse
    rows 0.01, since the intercept is in every row.

    ``count_lost`` finds out how much the races lose, at twice the time of a pass: the state's
    ``"lost"`` is the L1 norm of what the last pass lost over that of what it meant to change.
    """

    lr: Annotated[float, Gt(0)] | None = None
    beta: Annotated[float, Interval(gt=0, le=1)] = 0.9
    intercept_step: Annotated[float, Gt(0)] | None = None
    count_lost: bool = False

    def with_lr(self, base: float) -> Self:
        return replace(self, lr=base)

    def prepare(self, work: Work) -> Passes:
        plan = plan_passes(work, "hogwild")
        self._rule(plan, 0)
        plan.details = pull_of(plan)
        return plan

    def init(self, plan: Passes, w0: Array) -> dict[str, Any]:
        return {"w": plan.rows.inside(w0)}

    def epoch(self, plan: Passes, state: dict[str, Any], epoch: int) -> None:
        rule = self._rule(plan, epoch)
        if plan.threads == 1:
            sgd.epoch(plan.rows, state["w"], rule, plan.seed, epoch)
            state |= {"lost": 0.0} if self.count_lost else {}
            return
        before = state["w"].copy() if self.count_lost else None
        told = _race(plan, state["w"], rule, epoch, self.count_lost)
        if before is not None:
            state["lost"] = lost_share(before, state["w"], told)

    def model(self, plan: Passes, state: dict[str, Any]) -> Array:
        return plan.rows.outside(state["w"])

    def words(self, plan: Passes) -> list[str]:
        omega, delta, rho, sampled = sparsity(plan.rows, plan.seed)
        found = "" if sampled is None else f", as found at {sampled} of them"
        words = [
            f"A sample uses at most {omega:,} features (Ω), the most frequent feature is in "
            f"{delta:.3g} of the samples (Δ), and a sample shares features with up to {rho:.3g} "
            f"of them (ρ{found})."
        ]
        speedup = racing_speedup(plan.rows, plan.threads)
        if plan.threads > 1 and speedup < 1:
            share = contested_share(plan.rows)
            words.append(
                f"Warning: {share:.0%} of all accesses are to weights that each thread keeps in "
                f"its cache and takes from the others: {plan.threads} threads are likely to be "
                f"about {speedup:.1f} times as fast as one. `tiered` avoids that."
            )
        return words + words_on_threads(plan)

    def _rule(self, plan: Passes, epoch: int) -> Rule:
        rate = rate_of(self.lr, "Hogwild") * self.beta**epoch
        intercept = step_of_intercept(plan, self.intercept_step)
        return Rule(plan.objective.loss, rate, plan.objective.l2, False, intercept)


def pull_of(plan: Passes) -> Array:
    """(4) for each use of a feature: |E| λ / d_u (p,), or nothing if λ is 0."""
    per_use = len(plan.rows) * plan.objective.l2 / np.maximum(plan.rows.counts, 1)
    return per_use.astype(plan.rows.dtype) if plan.objective.l2 else np.empty(0, plan.rows.dtype)


def _race(plan: Passes, w: Array, rule: Rule, epoch: int, count: bool) -> list[Array]:
    """(1) and (2) by all threads. What each meant to change, (p + 1, C), if ``count``."""
    rows = plan.rows
    size = rule.block_size(rows, plan.threads)
    parts = np.array_split(rows.blocks(plan.seed, epoch, size), plan.threads)
    pace = rule.pace(float(epoch * len(rows)), l2=0.0)

    def part(k: int) -> Array:
        told = np.zeros((rows.n_features + 1 if count else 0, rows.outputs))
        sgd.plain(rows, w, rule, pace, parts[k], size, plan.details, told)
        return told

    return plan.team.run(part)


def lost_share(before: Array, after: Array, told: list[Array]) -> float:
    """The L1 norm of the changes that are missing, over that of all that were meant.

    >>> lost_share(np.array([0.0, 1.0]), np.array([1.0, 2.0]), [np.ones(2), np.array([1.0, 0.0])])
    0.3333333333333333
    """
    meant = np.sum([part.ravel() for part in told], axis=0)
    net = after.astype(np.float64) - before
    missing = np.abs(meant - net)
    size = np.abs(before) + np.abs(after)
    missing[missing <= _ROUNDING * (size + np.abs(meant))] = 0
    return float(missing.sum() / max(np.abs(meant).sum(), np.finfo(np.float64).tiny))


def hogwild(
    lr: Annotated[float, Gt(0)] | None = None,
    beta: Annotated[float, Interval(gt=0, le=1)] = 0.9,
    intercept_step: Annotated[float, Gt(0)] | None = None,
    count_lost: bool = False,
) -> SharedMemoryAlgorithm:
    """Hogwild!: threads update one shared vector without locks.

    The step is constant within a pass and falls by ``beta`` after each, as in the paper's
    experiments.

    >>> hogwild(lr=0.1).solver
    Hogwild(lr=0.1, beta=0.9, intercept_step=None, count_lost=False)
    """
    return SharedMemoryAlgorithm("hogwild", Hogwild(lr, beta, intercept_step, count_lost))
