"""Consensus ADMM: the alternating direction method of multipliers over a global variable.

Boyd, Parikh, Chu, Peleato, Eckstein, "Distributed Optimization and Statistical Learning via the
Alternating Direction Method of Multipliers", Foundations and Trends in Machine Learning 3(1), 2010,
sections 3.3, 3.4 and 7.1.1; over-relaxation after Eckstein, Bertsekas, Mathematical Programming
1992.

    minimise  sum_k (n_k/n) f_k(x_k) + r(z)   subject to  x_k = z

    each worker k:  x_k <- argmin_x f_k(x) + rho/2 |x - z + u_k|^2
                    h_k <- a x_k + (1 - a) z
    server:         z   <- argmin_z r(z) + rho/2 |z - sum_k (n_k/n) (h_k + u_k)|^2
    each worker k:  u_k <- u_k + h_k - z

    primal residual  |r|^2 = sum_k (n_k/n) |x_k - z|^2        dual residual  |s| = rho |z - z_old|
    stop when |r| and |s| are at most sqrt(d) eps_abs + eps_rel scale
    rho <- 2 rho, u_k <- u_k / 2  if |r| is over mu times |s|; the reverse if |s| is

=========  =======================================  =========
symbol     here                                     shape
=========  =======================================  =========
x_k        worker state ``x``                       (d,)
u_k        ``v - z``, v as sent, z as received      (d,)
h_k + u_k  worker state and message ``v``           (d,)
z          ``down["w"]``, the model                 (d,)
rho        ``rho``, then ``down["rho"]``
a          ``relax``, 1: none
f_k        mean loss of the worker's shard
r          ``penalty``, filled in by ``fit``
eps_abs    ``stopping.absolute``
eps_rel    ``stopping.relative``
mu         ``balance.ratio``
=========  =======================================  =========

Scaling. The paper adds losses up and gives all workers one rho; here losses are means and worker
k's share of rho is n_k/n, like its share of the loss. So a worker needs to know nothing but its
shard, z is the mean weighted by samples, rho neither depends on K nor on n, and shards of any sizes
have the pooled optimum as their fixed point. With K equal shards of m samples, this rho is the
paper's over m. Norms are root mean squares over the workers, the paper's over sqrt(K).

A worker updates u_k when it next receives z, so one message each way is enough, and with it reports
the squares from which the server has the residuals one round later: a run ends a round after the
stopping rule holds.

After every z-update rho sum_k (n_k/n) u_k is a subgradient of r at z, whatever u_k was before: the
zero vector without a penalty. A worker that a round went on without does no lasting harm.

The paper's examples use eps_abs 1e-4 and eps_rel 1e-2, its text suggests 1e-3 or 1e-4 for the
latter; the default is 1e-3. The paper suggests to double or halve rho when one residual is 10 times
the other. Relative residuals can be held closer together, and the defaults are what was best for 8
workers on two data sets: from rho = 0.1 on, a ratio of 2 reached a loss within 1e-3 of the optimum
in 14 and 10 rounds (breast cancer, a9a), one of 10 in 17 and 20, from rho = 1 on in 24 and 27. The
cut-off after 60 rounds is ours: without one there is no proof of convergence.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated, Any

from annotated_types import Ge

from hemiola.aggregate import Balance, Consensus, Stopping, WeightedMean
from hemiola.algorithm import Algorithm, MiniBatch, Task
from hemiola.communicate import Synchronous
from hemiola.component import component
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.local import Auto, LocalSteps, ProximalStep
from hemiola.local.solvers import Augmented, LocalSolver
from hemiola.optim import SGD
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, State, freeze

PAPER = "Boyd et al., FnT ML 2010"


@component
class Steps:
    """Inexact: a few steps of any local optimiser on mini-batches, from the last solution.

    The rate should be below 2 / (L + rho), where L is the loss's smoothness. The residuals then
    stall where the noise of the mini-batches, or the number of steps, leaves them.
    """

    optimizer: LocalOptimizer = field(default_factory=SGD)
    steps: Annotated[int, Ge(1)] = 10
    batch: MiniBatch = field(default_factory=MiniBatch)

    def solve(
        self, problem: Augmented, x: Array, tolerance: float, memory: State, task: Task
    ) -> tuple[Array, State, int]:
        local = LocalSteps(self.optimizer, steps=self.steps, batch=self.batch)
        state = memory or local.init(x)
        objective: Any = problem
        state, up = local.work(state, freeze(w=x.copy()), replace(task, objective=objective))
        return up["w"].copy(), state, self.steps


def admm(
    rho: float = 0.1,
    relax: float = 1.6,
    solver: LocalSolver = Auto(),
    tolerance: float | None = None,
    balance: Balance = Balance(),
    stopping: Stopping = Stopping(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Consensus ADMM: workers solve their shards' problems, dual variables make them agree.

    The penalty, none, L2, L1 or both, is the objective's; the server applies its proximal step.
    ``tolerance=None``: workers solve their problems as exactly as the residuals deserve.

    >>> admm(rho=0.1).aggregate.rho
    0.1
    """
    return Algorithm(
        name="admm",
        partition=partition,
        local=ProximalStep(solver, relax, tolerance),
        communicate=Synchronous(),
        reduce=WeightedMean(),
        aggregate=Consensus(rho, balance, stopping),
    )
