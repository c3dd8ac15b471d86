"""Stratified block SGD for matrix factorisation: threads that share no row and no column.

Gemulla, Nijkamp, Haas, Sismanis, "Large-scale matrix factorization with distributed stochastic
gradient descent", KDD 2011 (DSGD).

    cut users and items into d parts each: the ratings fall into d x d blocks
    a stratum: d blocks without a common user or item, block (i, (i + s) mod d) for i = 0..d-1
    for each pass:  eps = step size
        for each stratum s, in random order:
            in parallel for its blocks:  SGD at eps on the block's ratings
            barrier

=========  =====================================  ==================
symbol     here                                   shape
=========  =====================================  ==================
d          ``blocks``; the paper: P or more
Z^{ij}     ratings of user part i, item part j
S          (i + s) mod d, cyclic as in section 4
W, H       users' and items' rows of ``w``        (users + items, r + 1)
eps        ``lr decay^pass``
=========  =====================================  ==================

Inside a block ratings are visited in one random order, drawn once. Blocks of a stratum are in no
conflict, so a pass gives the same bits on any number of threads up to d. The paper cuts at random;
here parts are balanced by their number of ratings. Its step size is a "bold driver", raised while
the loss falls; here it shrinks by a factor a pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Interval

from hemiola.algorithm import SharedMemoryAlgorithm
from hemiola.algorithms.factor_passes import FactorPasses
from hemiola.component import component
from hemiola.errors import OptionError
from hemiola.job import Work
from hemiola.kernels.components import allocate
from hemiola.objectives import MatrixFactorization
from hemiola.rng import stream
from hemiola.team import Team
from hemiola.types import Array

PAPER = "Gemulla et al., KDD 2011"


@dataclass(frozen=True, eq=False)
class Plan:
    """Ratings by stratum, thread and block; ``ratings`` (d, d) in each block (i, j)."""

    passes: FactorPasses
    bounds: Array
    ratings: Array
    team: Team
    seed: int

    @property
    def balance(self) -> float:
        """The speed-up over one thread if threads were all that counts."""
        loads = np.diff(self.bounds).reshape(len(self.ratings), self.team.size)
        return float(loads.sum() / max(loads.max(axis=1).sum(), 1))


@component
class Stratified:
    """``blocks`` is d, at least the number of threads; at rate ``lr`` times ``decay`` a pass."""

    lr: Annotated[float, Gt(0)] = 0.02
    decay: Annotated[float, Interval(gt=0, le=1)] = 0.95
    blocks: Annotated[int, Ge(1)] = 8

    def prepare(self, work: Work) -> Plan:
        if not isinstance(work.objective, MatrixFactorization):
            raise OptionError(
                "stratified is for matrix factorisation (hemiola.objectives.factorization, on the "
                "command line --objective factorization); for linear models use tiered or sdca."
            )
        if self.blocks < work.threads:
            raise OptionError(
                f"{work.threads} threads need as many blocks, not {self.blocks}; give blocks="
                f"{work.threads} or more."
            )
        order = stream(work.seed, "stratified").permutation(len(work.data))
        passes = FactorPasses.of(work, order)
        d, team = self.blocks, Team(work.threads)
        i, j = parts(passes.users, d)[passes.users], parts(passes.items, d)[passes.items]
        stratum, thread = (j - i) % d, i % work.threads
        key = (stratum * work.threads + thread) * d + i
        narrow = key.astype(np.uint16) if d * d * work.threads < 2**16 else key  # a radix sort
        position = np.argsort(narrow, kind="stable")
        lists = np.bincount(stratum * work.threads + thread, minlength=d * work.threads)
        bounds = np.append(0, np.cumsum(lists))
        ratings = np.bincount(i * d + j, minlength=d * d).reshape(d, d)
        return Plan(passes.laid_out(position, bounds, 0), bounds, ratings, team, work.seed)

    def init(self, plan: Plan, w0: Array) -> dict[str, Any]:
        return plan.passes.init(w0)

    def epoch(self, plan: Plan, state: dict[str, Any], epoch: int) -> None:
        order = stream(plan.seed, "strata", epoch).permutation(self.blocks)
        plan.passes.run(state, plan.bounds, self.lr * self.decay**epoch, plan.team, order)

    def model(self, plan: Plan, state: dict[str, Any]) -> Array:
        w: Array = state["w"]
        return w.copy()

    def words(self, plan: Plan) -> list[str]:
        said = [f"Stratified: {self.blocks} strata of {self.blocks} blocks a pass."]
        if plan.team.size > 1:
            said.append(
                f"{plan.team.size} threads can be up to {plan.balance:.2f} times as fast as one."
            )
        return said


def parts(numbers: Array, count: int) -> Array:
    """The part of each user (or item), so that all parts hold about equally many ratings: those
    with most first, each to the lightest part.

    >>> parts(np.array([0, 0, 0, 1, 2, 2]), 2).tolist()
    [0, 1, 1]
    """
    chosen: Array = allocate(np.bincount(numbers), count)[0]
    return chosen


def stratified(lr: float = 0.02, decay: float = 0.95, blocks: int = 8) -> SharedMemoryAlgorithm:
    """Stratified block SGD (DSGD) for matrix factorisation, on threads that share no row.

    >>> stratified(blocks=4).solver.blocks
    4
    """
    return SharedMemoryAlgorithm("stratified", Stratified(lr, decay, blocks))
