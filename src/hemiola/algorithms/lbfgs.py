"""L-BFGS in rounds: batch gradients from all workers, one step of the search at the server.

Agarwal, Chapelle, Dudik, Langford, "A Reliable Effective Terascale Linear Learning System", JMLR
2014; L-BFGS after Liu, Nocedal, Mathematical Programming 1989.

    each worker k:  f_k, g_k of its shard at w + t d
                    once, of its Hessian: the diagonal c_k, and what couples weights with
                    intercepts, e_k
    server:         f, g, c, e = means over the workers, weighted by samples
                    the line search accepts w + t d, or halves t;
                    accepted: d <- -H g, H from the last pairs and from the preconditioner B,

        B = T diag(c - e^2 / c_0)^-1 T',      T = [ I   0 ],  m = e / c_0
                                                  [ -m' 1 ]

=============  =========================================  =========
symbol         here                                       shape
=============  =========================================  =========
w + t d        ``down["w"]``                              (d,)
g_k, f_k       ``up["g"]``, ``up["f"]``                   (d,), ()
c_k, e_k       ``up["curvature"]``, when asked for        (2, p + 1, C)
=============  =========================================  =========

The paper's preconditioner is the diagonal, whose ratios it limits. With T the search is the one
that centred features of variance 1 would have, m being their means, while the data stay as they
are, and sparse; c_0 is the intercept's own entry. Linear models give a bound on their Hessian. For
other objectives (:class:`~hemiola.contracts.CurvedObjective`) H starts from a multiple of the
identity. The paper starts where a pass of averaged stochastic gradients ends; this at w0.

A worker that is lost or comes back changes f: the pairs are forgotten, and the search begins anew
where it is. Partition: any that deals once. Local: a batch gradient. Communication: synchronous,
everybody in every round. Aggregation: the search (:mod:`hemiola.optim.quasi_newton`).
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np
from annotated_types import Ge

from hemiola.aggregate import WeightedMean
from hemiola.algorithm import Algorithm, Info, Task, weight_of
from hemiola.communicate import Synchronous
from hemiola.component import component
from hemiola.contracts import CurvedObjective, Partition
from hemiola.local.solvers import refuse_hinge, whole_shard
from hemiola.optim.quasi_newton import Search
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, Message, State, freeze, frozen

PAPER = "Agarwal et al., JMLR 2014"

_LEAST = 1e-6
_WORST = np.array(1e300)


@component
class FullGradient:
    """up = the gradient ``g`` (d,) and the value ``f`` on the whole shard; if the server asks for
    it and the objective knows it, the ``curvature`` (2, p + 1, C). It weighs the shard's samples.

    A step can be too long for the value to be finite; it then counts as 1e300, so that the step is
    halved.
    """

    def init(self, w0: Array) -> State:
        return {"t": 0}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        objective, batch, w = task.objective, whole_shard(task), down["w"]
        refuse_hinge(objective, "cocoa or admm")
        f, g = objective.value(w, batch), objective.grad(w, batch)
        up = {"g": g, "f": np.array(f)} if np.isfinite(f) else {"g": np.zeros_like(w), "f": _WORST}
        if down["asks"] and isinstance(objective, CurvedObjective):
            up["curvature"] = objective.curvatures(w, batch)
        state["t"] += 1
        return state, freeze(weight=weight_of(len(batch)), **up)


@component
class QuasiNewton:
    """The server: L-BFGS of ``memory`` pairs, until no entry of the gradient is larger than
    ``tolerance``."""

    memory: Annotated[int, Ge(1)] = 10
    tolerance: Annotated[float, Ge(0)] = 1e-6

    def init(self, w0: Array, workers: int) -> State:
        return {**Search.begin(w0, 1), "point": w0.copy(), "heard": None, "curvature": None}

    def pull(self, state: State, worker: int) -> Message:
        return freeze(w=state["point"], asks=np.array(state["heard"] is None))

    def push(self, state: State, up: Message, info: Info) -> State:
        if "curvature" in up:
            state["curvature"] = up["curvature"].copy()
        search, heard = self._search(state), sorted(info.workers)
        if state["heard"] not in (None, heard):
            search.forget()
        search.vectors.put("sum", up["g"])
        search.told(float(up["f"]))
        state.update(heard=heard, point=search.vectors.get("trial"))
        return state

    def model(self, state: State) -> Array:
        return frozen(state["model"])

    def measures(self, state: State) -> dict[str, float]:
        """The gradient's largest entry at the model, and the iterations so far."""
        if not state["iterations"]:
            return {}
        largest = self._search(state).vectors.largest("g")
        return {"gradient": largest, "iterations": float(state["iterations"])}

    def ended(self, state: State) -> str | None:
        if not state["converged"] or not self.tolerance:
            return None
        largest = self.measures(state)["gradient"]
        if largest <= self.tolerance:
            return f"the gradient is small enough: no entry is above {largest:.2g}"
        return f"no step lowers the objective any more; the gradient's largest entry: {largest:.2g}"

    def _search(self, state: State) -> Search:
        curvature = state["curvature"]
        precondition = None if curvature is None else partial(preconditioned, curvature)
        return Search(state, self.memory, 1, self.tolerance, precondition)


def preconditioned(curvature: Array, r: Array) -> Array:
    """B r (d,). Where nothing bends, any factor will do: 1.

    >>> preconditioned(np.array([[[4.0], [1.0]], [[0.0], [0.0]]]), np.ones(2))
    array([0.25, 1.  ])
    """
    (c, e), R = curvature, r.reshape(curvature.shape[1:])
    m = e / np.where(c[-1] > 0, c[-1], 1)
    rest = np.maximum(c - m * e, _LEAST * c)  # of a constant feature nothing is left but rounding
    scaled = (R - m * R[-1]) / np.where(rest > 0, rest, 1)
    scaled[-1] -= (m * scaled).sum(axis=0)
    return scaled.ravel()


def lbfgs(
    memory: int = 10, tolerance: float = 1e-6, partition: Partition = ShuffleSplit()
) -> Algorithm:
    """L-BFGS in rounds: batch gradients from all workers, as if features were standardised.

    ``memory`` pairs of steps and gradients; the run ends when no entry of the gradient is larger
    than ``tolerance`` (0: never).

    >>> lbfgs(memory=5).aggregate
    QuasiNewton(memory=5, tolerance=1e-06)
    """
    return Algorithm(
        name="lbfgs",
        partition=partition,
        local=FullGradient(),
        communicate=Synchronous(),
        reduce=WeightedMean(),
        aggregate=QuasiNewton(memory, tolerance),
    )
