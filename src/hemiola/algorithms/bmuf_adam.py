"""BMUF-Adam: block momentum over Adam, with its moments carried ahead.

Chen, Ding, Huo, "Parallelizing Adam Optimizer with Blockwise Model-Update Filtering", ICASSP 2020.

    each worker i:  tau Adam steps from start, with moments m_i, v_i and the common step count k
    server:         mean, m, v = means of the models and the moments;  k <- k + tau
                    delta <- eta delta + zeta (mean - start);   W <- W + delta
                    rho   <- eta rho + zeta tau,  a = eta rho   steps that the look-ahead is worth
                    start <- W + eta delta
                    m_init <- beta1^tau (beta1^a - 1) / (1 - beta1^tau) m_init
                              + (1 - beta1^(tau + a)) / (1 - beta1^tau) m
                    v_init <- the same with beta2 and v
                    k <- k + a                                  no whole number any more

=========  =====================================  =========
symbol     here                                   shape
=========  =====================================  =========
theta_i    ``up["w"]``                            (d,)
m_i, v_i   ``up["optimizer/m"]``, ``.../v``       (d,)
k          ``up["optimizer/k"]``, ``down[...]``   ()
start      ``down["w"]``                          (d,)
m_init     ``down["optimizer/m"]``                (d,)
delta      server state ``block``: delta          (d,)
rho        server state ``rho``
tau        what k grew by in the block
=========  =====================================  =========

If the block's mean gradient g were constant, its moments would be m = beta^tau m_init + (1 -
beta^tau) g; solving for g and doing a more steps gives the two factors. Here they are evaluated in
this order, which cannot make v negative by rounding. The paper has zeta = 1, where mean - start and
the mean's change since the last block give the same delta; delta and rho are scaled alike by
another zeta. eta = 1 - 1/K by default, so that a block of tau parallel steps counts as K tau in the
long run.
"""

from __future__ import annotations

from dataclasses import field
from math import expm1, log
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Interval

from hemiola.aggregate import BlockMomentum, WeightedMean
from hemiola.algorithm import Algorithm, Info, MiniBatch
from hemiola.communicate import Synchronous
from hemiola.component import component
from hemiola.contracts import Partition
from hemiola.errors import OptionError
from hemiola.local import LocalSteps
from hemiola.local.local_steps import PREFIX
from hemiola.optim import Adam, AdamW
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, Message, State, freeze

PAPER = "Chen et al., ICASSP 2020"
M, V, K = PREFIX + "m", PREFIX + "v", PREFIX + "k"


@component
class MomentsAhead:
    """``block`` for the models; Adam's averaged moments and step count follow the look-ahead."""

    separable: ClassVar[bool] = True

    block: BlockMomentum = field(default_factory=BlockMomentum)
    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Interval(ge=0, lt=1)] = 0.999

    def init(self, w0: Array, workers: int) -> State:
        return {"block": self.block.init(w0, workers), "rho": 0.0}

    def pull(self, state: State, worker: int) -> Message:
        return self.block.pull(state["block"], worker)

    def push(self, state: State, up: Message, info: Info) -> State:
        start = self.block.pull(state["block"], 0)
        eta, k = self.block.momentum(info.n_workers), float(up[K])
        tau = k - float(start.get(K, 0.0))
        rho = eta * state["rho"] + self.block.zeta * tau
        a = eta * rho if self.block.nesterov else 0.0
        g = _constant(self.beta1, tau, start.get(M, 0.0), up[M])
        gg = np.maximum(_constant(self.beta2, tau, start.get(V, 0.0), up[V]), 0)
        ahead = freeze(**{
            M: up[M] + _gone(self.beta1, a) * (g - up[M]),
            V: _left(self.beta2, a) * up[V] + _gone(self.beta2, a) * gg,
            K: np.array(k + a),
        })  # fmt: skip
        return {"block": self.block.push(state["block"], {**up, **ahead}, info), "rho": rho}

    def model(self, state: State) -> Array:
        return self.block.model(state["block"])


def _constant(beta: float, tau: float, before: Array | float, after: Array) -> Array:
    """What, seen tau times, takes an exponential mean from ``before`` to ``after`` (d,)."""
    return (after - _left(beta, tau) * before) / _gone(beta, tau)


def _left(beta: float, steps: float) -> float:
    return 1 - _gone(beta, steps)


def _gone(beta: float, steps: float) -> float:
    """1 - beta^steps, exact for beta close to 1."""
    return -expm1(steps * log(beta)) if beta else float(steps > 0)


def bmuf_adam(
    steps: int = 10,
    eta: float | None = None,
    zeta: float = 1.0,
    optimizer: Adam | AdamW = Adam(),
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Adam in blocks, Nesterov block momentum across them, and moments that follow the look-ahead.

    ``eta=None`` is 1 - 1/K. Raises :class:`~hemiola.errors.OptionError` for other optimisers: their
    state may be averaged, kept or reset by ``bmuf`` with ``carry``.

    >>> bmuf_adam(optimizer=Adam(beta2=0.99)).aggregate.beta2
    0.99
    """
    if not isinstance(optimizer, Adam | AdamW):
        raise OptionError(
            f"bmuf-adam carries the moments of adam and adamw, not {type(optimizer).__name__}; "
            "use bmuf, whose carry=average, keep or reset suits any optimizer."
        )
    return Algorithm(
        name="bmuf-adam",
        partition=partition,
        local=LocalSteps(optimizer, steps=steps, carry="average", batch=batch),
        communicate=Synchronous(),
        reduce=WeightedMean(),
        aggregate=MomentsAhead(BlockMomentum(eta, zeta), optimizer.beta1, optimizer.beta2),
    )
