"""Sandblaster L-BFGS: batch optimisation by a coordinator that moves no vectors.

Dean, Corrado, Monga, Chen, Devin, Le, Mao, Ranzato, Senior, Tucker, Yang, Ng, "Large Scale
Distributed Deep Networks", NIPS 2012, section 4.2; L-BFGS after Liu, Nocedal, "On the Limited
Memory BFGS Method for Large Scale Optimization", Mathematical Programming 1989.

    for every point to evaluate:
        cut the data into portions; hand one to any worker that is free; when none is left, hand out
        copies of those still out, and count the first answer only
    all portions in:  f, g known; the line search accepts the step, or shortens it
        accepted      a new direction from the last 10 steps and changes of g

=============  =========================================  =========
symbol         here                                       shape
=============  =========================================  =========
w, g           vectors ``w``, ``g``                       (d,)
w + t d        vector ``trial``, ``down["w"]``            (d,)
d              vector ``d``                               (d,)
t, f           scalars of the coordinator
=============  =========================================  =========

The vectors live in slices on ``shards`` servers, which take commands by name - dot, axpy, scale,
copy - and answer with scalars; L-BFGS is written in these (:mod:`hemiola.optim.quasi_newton`).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from hemiola.aggregate import Sum
from hemiola.algorithm import Algorithm, Info
from hemiola.communicate import Asynchronous
from hemiola.component import component
from hemiola.local.portion import Portion
from hemiola.optim.quasi_newton import Search
from hemiola.partition import Whole
from hemiola.types import Array, Message, State, freeze, frozen

PAPER = "Dean et al., NIPS 2012"

GRADIENT_TOLERANCE = 1e-10


@component
class Coordinator:
    """The server: hands out portions, and drives L-BFGS by commands on slices."""

    portions: Annotated[int, Ge(1)] = 16
    shards: Annotated[int, Ge(1)] = 1
    memory: Annotated[int, Ge(1)] = 10

    def init(self, w0: Array, workers: int) -> State:
        state = {**Search.begin(w0, self.shards), "evaluation": 0, "ignored": 0}
        self._begin_evaluation(state)
        return state

    def pull(self, state: State, worker: int) -> Message:
        """The point to evaluate and a portion: a new one, or a copy of the one out longest."""
        out = state["out"]
        if state["next_portion"] < self.portions:
            portion = state["next_portion"]
            state["next_portion"] += 1
        else:
            portion = out.pop(0)
        out.append(portion)
        numbers = {"portion": portion, "portions": self.portions, "evaluation": state["evaluation"]}
        return freeze(w=state["point"], **{name: np.array(n) for name, n in numbers.items()})

    def push(self, state: State, up: Message, info: Info) -> State:
        portion = int(up["portion"])
        if int(up["evaluation"]) != state["evaluation"] or portion not in state["out"]:
            state["ignored"] += 1  # a copy that lost the race
            return state
        state["out"].remove(portion)
        search = self._search(state)
        search.vectors.put("part", up["g"])
        search.vectors.axpy(1.0, "part", "sum")
        state["loss"] += float(up["f"])
        state["missing"] -= 1
        if not state["missing"]:
            search.told(state["loss"])
            self._begin_evaluation(state)
        return state

    def model(self, state: State) -> Array:
        return frozen(state["model"])

    def _search(self, state: State) -> Search:
        return Search(state, self.memory, self.shards, GRADIENT_TOLERANCE)

    def _begin_evaluation(self, state: State) -> None:
        """Ask for f and g at ``trial``."""
        vectors = self._search(state).vectors
        vectors.copy("trial", "sum")
        vectors.scale(0.0, "sum")
        state.update(
            evaluation=state["evaluation"] + 1, out=[], next_portion=0, missing=self.portions,
            loss=0.0, point=vectors.get("trial"),
        )  # fmt: skip


def sandblaster(portions: int = 16, shards: int = 1, memory: int = 10) -> Algorithm:
    """Sandblaster L-BFGS: the batch gradient in portions, to whichever worker is free.

    ``portions`` should be several times the number of workers; ``shards`` slices hold the vectors.

    >>> sandblaster(portions=8).aggregate.portions
    8
    """
    return Algorithm(
        name="sandblaster",
        partition=Whole(),
        local=Portion(),
        communicate=Asynchronous(),
        reduce=Sum(),
        aggregate=Coordinator(portions, shards, memory),
    )
