"""Asynchronous consensus ADMM: partial barrier and bounded delay.

Zhang, Kwok, "Asynchronous Distributed ADMM for Consensus Optimization", ICML 2014.

    minimise  sum_k (n_k/n) f_k(x_k) + r(z)   subject to  x_k = z

    server:    wait until at least S workers have answered, and everyone whom the last tau - 1
               updates went without;  with the latest (h_k, u_k) of all workers
                   z <- argmin_z r(z) + rho/2 |z - sum_k (n_k/n) (h_k + u_k)|^2
               send z to those that have answered, and to nobody else
    worker k:  as in :mod:`hemiola.algorithms.admm`, with the z that it was sent

=========  =======================================  =========
symbol     here                                     shape
=========  =======================================  =========
S          ``communicate.barrier``
tau        ``communicate.max_delay``
h_k + u_k  server state ``v[k]``, the latest        (d,)
z          server state ``w``, the model            (d,)
z_k        server state ``answered[k]``             (d,)
=========  =======================================  =========

With S = K, or tau = 1, this is synchronous ADMM, bit for bit. Here as there, worker k's share of
rho is n_k/n. rho is fixed: the paper proves convergence for a constant one.

The paper leaves the stopping rule open. Worker k solved its problem for the consensus z_k that it
was sent, so its gradient plus its dual variable is rho (z_k - z) away from zero: the dual residual
is the weighted root mean square of these; the primal one is that of the gaps that workers reported
last. In synchronous rounds both are those of :mod:`hemiola.algorithms.admm`.

A worker that goes away leaves its last message behind, which goes on counting.
"""

from __future__ import annotations

import math
from dataclasses import field, replace
from typing import Annotated, Self

import numpy as np
from annotated_types import Ge, Gt

from hemiola.aggregate import Stopping, WeightedMean
from hemiola.aggregate.consensus import Seen, distance, known, reached, tolerance
from hemiola.algorithm import Algorithm, Info
from hemiola.communicate import Asynchronous
from hemiola.component import component
from hemiola.contracts import Partition
from hemiola.local import Auto, ProximalStep
from hemiola.local.solvers import LocalSolver
from hemiola.partition import ShuffleSplit
from hemiola.penalty import Penalty
from hemiola.types import Array, Message, State, freeze, frozen

PAPER = "Zhang, Kwok, ICML 2014"

SQUARES = ("gap", "x", "u")
MEAN = WeightedMean()


@component
class AsyncConsensus:
    """z from the latest message of every worker; it is renewed when the first of those that have
    answered reads, so all that go on together read the same."""

    rho: Annotated[float, Gt(0)] = 0.1
    stopping: Stopping = field(default_factory=Stopping)
    penalty: Penalty | None = None

    def with_penalty(self, penalty: Penalty) -> Self:
        return replace(self, penalty=penalty)

    def init(self, w0: Array, workers: int) -> State:
        known(self.penalty)
        z = w0.copy()
        return {
            "w": z, "fresh": False, "measures": {}, "moved": 0.0,
            "v": [z] * workers, "weight": [0.0] * workers, "messages": [0] * workers,
            "squares": [[0.0] * len(SQUARES)] * workers,
            "read": [z] * workers, "answered": [z] * workers,
        }  # fmt: skip

    def pull(self, state: State, worker: int) -> Message:
        if state["fresh"]:
            state.update(self._renewed(state))
        state["read"][worker] = state["w"]
        numbers = {"rho": self.rho, "tolerance": tolerance(state["measures"])}
        return freeze(w=state["w"], **{name: np.array(x) for name, x in numbers.items()})

    def push(self, state: State, up: Message, info: Info) -> State:
        worker = info.sender
        state["v"][worker] = up["v"].copy()
        state["weight"][worker] = info.weight
        state["squares"][worker] = [float(up[name]) for name in SQUARES]
        state["messages"][worker] += 1
        state["answered"][worker] = state["read"][worker]
        return {**state, "fresh": True}

    def model(self, state: State) -> Array:
        """z from all that is known, whether anybody has read it or not."""
        return frozen(self._current(state)["w"])

    def measures(self, state: State) -> dict[str, float]:
        """The residuals before the last renewal, what they may be, and rho."""
        return dict(self._current(state)["measures"])

    def ended(self, state: State) -> str | None:
        return reached(state["measures"])

    def _current(self, state: State) -> State:
        return self._renewed(state) if state["fresh"] else state

    def _renewed(self, state: State) -> State:
        """A new z, and the residuals of the one before, if all workers have reported on one."""
        joined = _joined(state)
        measures = state["measures"]
        if min(state["messages"]) > 1:
            squares = {name: float(joined[name]) for name in SQUARES}
            seen = Seen.of(squares, state["moved"], state["w"], self.rho)
            measures = self.stopping.measure(seen, state["w"], self.rho)
        z = known(self.penalty).prox(joined["v"], self.rho)
        total = sum(state["weight"])
        pairs = zip(state["weight"], state["answered"], strict=True)
        away = sum(weight / total * distance(z, then) ** 2 for weight, then in pairs)
        moved = self.rho * math.sqrt(away)
        return {"w": z, "fresh": False, "measures": measures, "moved": moved}


def _joined(state: State) -> dict[str, Array]:
    """The weighted means of the latest messages of all who have sent any, added in rank order."""
    total = sum(state["weight"])
    joined: dict[str, Array] = {}
    for v, weight, squares in zip(state["v"], state["weight"], state["squares"], strict=True):
        if not weight:
            continue
        numbers = {name: np.array(x) for name, x in zip(SQUARES, squares, strict=True)}
        one = MEAN.lift({"v": v, **numbers}, weight / total)
        joined = MEAN.merge(joined, one) if joined else one
    return joined


def admm_async(
    rho: float = 0.1,
    relax: float = 1.6,
    barrier: Annotated[int, Ge(1)] = 2,
    max_delay: Annotated[int, Ge(1)] | None = 10,
    solver: LocalSolver = Auto(),
    tolerance: float | None = None,
    stopping: Stopping = Stopping(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Asynchronous ADMM: nobody waits for more than ``barrier`` workers, or for much newer news.

    ``barrier`` is the paper's S, ``max_delay`` its tau; None: no bound.

    >>> admm_async(barrier=3).communicate
    Asynchronous(max_lead=None, fetch_every=1, barrier=3, max_delay=10)
    """
    return Algorithm(
        name="admm-async",
        partition=partition,
        local=ProximalStep(solver, relax, tolerance),
        communicate=Asynchronous(barrier=barrier, max_delay=max_delay),
        reduce=WeightedMean(),
        aggregate=AsyncConsensus(rho, stopping),
    )
