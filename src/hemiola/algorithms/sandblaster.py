"""Sandblaster L-BFGS: batch optimisation by a coordinator that moves no vectors.

Dean, Corrado, Monga, Chen, Devin, Le, Mao, Ranzato, Senior, Tucker, Yang, Ng, "Large Scale
Distributed Deep Networks", NIPS 2012, section 4.2; L-BFGS after Liu, Nocedal, "On the Limited
Memory BFGS Method for Large Scale Optimization", Mathematical Programming 1989.

    for every point to evaluate:
        cut the data into portions; hand one to any worker that is free; when none is left, hand out
        copies of those still out, and count the first answer only
    all portions in:  f, g known
        line search   accept if f(w + t d) <= f(w) + 1e-4 t g'd, else t <- t / 2
        accepted      s = t d, y = g_new - g;  keep (s, y) if s'y > 1e-10 |s| |y|
        direction     two-loop recursion over the last 10 pairs

=============  =========================================  =========
symbol         here                                       shape
=============  =========================================  =========
w, g           vectors ``w``, ``g``                       (d,)
w + t d        vector ``trial``, ``down["w"]``            (d,)
d              vector ``d``                               (d,)
s_i, y_i       vectors ``s<i>``, ``y<i>``                 (d,)
t, f           scalars of the coordinator
=============  =========================================  =========

The vectors live in slices on ``shards`` servers (:class:`Slices`), which take commands by name -
dot, axpy, scale, copy - and answer with scalars. All of :class:`Coordinator` is written in these.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from hemiola.aggregate import Sum
from hemiola.algorithm import Algorithm, Info
from hemiola.communicate import Asynchronous
from hemiola.component import component
from hemiola.local.portion import Portion
from hemiola.partition import Whole
from hemiola.types import Array, Message, State, freeze, frozen

PAPER = "Dean et al., NIPS 2012"

SUFFICIENT = 1e-4
CURVATURE = 1e-10
GRADIENT_TOLERANCE = 1e-10
SMALLEST_STEP = 1e-12


class Slices:
    """Named vectors (d,), each in consecutive slices; commands move no vector out of its slices."""

    def __init__(self, vectors: dict[str, list[Array]], shards: int) -> None:
        self._vectors = vectors
        self._shards = shards

    def put(self, name: str, vector: Array) -> None:
        self._vectors[name] = [part.copy() for part in np.array_split(vector, self._shards)]

    def get(self, name: str) -> Array:
        return np.concatenate(self._vectors[name])

    def drop(self, name: str) -> None:
        self._vectors.pop(name, None)

    def copy(self, source: str, to: str) -> None:
        self._vectors[to] = [part.copy() for part in self._vectors[source]]

    def dot(self, a: str, b: str) -> float:
        return float(sum(x @ y for x, y in self._pairs(a, b)))

    def axpy(self, scalar: float, x: str, y: str) -> None:
        """y <- y + scalar x"""
        for part, into in self._pairs(x, y):
            into += scalar * part

    def scale(self, scalar: float, x: str) -> None:
        for part in self._vectors[x]:
            part *= scalar

    def largest(self, x: str) -> float:
        """max_j |x_j|"""
        return max(float(np.abs(part).max(initial=0.0)) for part in self._vectors[x])

    def _pairs(self, a: str, b: str) -> zip[tuple[Array, Array]]:
        return zip(self._vectors[a], self._vectors[b], strict=True)


@component
class Coordinator:
    """The server: hands out portions, and drives L-BFGS by commands on slices."""

    portions: Annotated[int, Ge(1)] = 16
    shards: Annotated[int, Ge(1)] = 1
    memory: Annotated[int, Ge(1)] = 10

    def init(self, w0: Array, workers: int) -> State:
        state: dict[str, Any] = {
            "vectors": {}, "pairs": [], "next_pair": 0, "f": math.inf, "slope": 0.0, "t": 0.0,
            "evaluation": 0, "model": w0.copy(), "point": w0.copy(),
            "converged": False, "iterations": 0, "ignored": 0,
        }  # fmt: skip
        vectors = self._slices(state)
        vectors.put("w", w0)
        vectors.put("trial", w0)
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
        vectors = self._slices(state)
        vectors.put("part", up["g"])
        vectors.axpy(1.0, "part", "sum")
        state["loss"] += float(up["f"])
        state["missing"] -= 1
        if not state["missing"]:
            self._evaluated(state, vectors)
            self._begin_evaluation(state)
        return state

    def model(self, state: State) -> Array:
        return frozen(state["model"])

    def _slices(self, state: State) -> Slices:
        return Slices(state["vectors"], self.shards)

    def _begin_evaluation(self, state: State) -> None:
        """Ask for f and g at ``trial``."""
        vectors = self._slices(state)
        vectors.copy("trial", "sum")
        vectors.scale(0.0, "sum")
        state.update(
            evaluation=state["evaluation"] + 1, out=[], next_portion=0, missing=self.portions,
            loss=0.0, point=vectors.get("trial"),
        )  # fmt: skip

    def _evaluated(self, state: State, vectors: Slices) -> None:
        """Accept or shorten the step, and choose the next trial point."""
        if state["converged"]:
            return
        allowed = state["f"] + SUFFICIENT * state["t"] * state["slope"] + 1e-15 * abs(state["f"])
        if state["iterations"] == 0 or state["loss"] <= allowed:
            self._accept(state, vectors)
        else:
            state["t"] /= 2
            state["converged"] = state["t"] < SMALLEST_STEP
        vectors.copy("w", "trial")
        if not state["converged"]:
            vectors.axpy(state["t"], "d", "trial")

    def _accept(self, state: State, vectors: Slices) -> None:
        if state["iterations"]:
            self._remember(state, vectors)
        vectors.copy("trial", "w")
        vectors.copy("sum", "g")
        state.update(f=state["loss"], model=vectors.get("w"), t=1.0)
        state["iterations"] += 1
        if vectors.largest("g") <= GRADIENT_TOLERANCE:
            state["converged"] = True
            return
        self._direction(state, vectors)
        state["slope"] = vectors.dot("g", "d")
        if state["slope"] >= 0:
            self._forget(state, vectors)
            self._direction(state, vectors)
            state["slope"] = vectors.dot("g", "d")

    def _remember(self, state: State, vectors: Slices) -> None:
        """Keep s = trial - w and y = sum - g, if their curvature is positive."""
        i = str(state["next_pair"])
        for name, new, old in (("s", "trial", "w"), ("y", "sum", "g")):
            vectors.copy(new, name + i)
            vectors.axpy(-1.0, old, name + i)
        s, y = "s" + i, "y" + i
        lengths = math.sqrt(vectors.dot(s, s) * vectors.dot(y, y))
        if vectors.dot(s, y) <= CURVATURE * lengths:
            vectors.drop(s)
            vectors.drop(y)
            return
        state["pairs"].append(i)
        state["next_pair"] += 1
        if len(state["pairs"]) > self.memory:
            oldest = state["pairs"].pop(0)
            vectors.drop("s" + oldest)
            vectors.drop("y" + oldest)

    def _forget(self, state: State, vectors: Slices) -> None:
        for i in state["pairs"]:
            vectors.drop("s" + i)
            vectors.drop("y" + i)
        state["pairs"] = []

    def _direction(self, state: State, vectors: Slices) -> None:
        """d = -H g by the two-loop recursion."""
        vectors.copy("g", "d")
        pairs, a = state["pairs"], {}
        for i in reversed(pairs):
            a[i] = vectors.dot("s" + i, "d") / vectors.dot("s" + i, "y" + i)
            vectors.axpy(-a[i], "y" + i, "d")
        if pairs:
            s, y = "s" + pairs[-1], "y" + pairs[-1]
            vectors.scale(vectors.dot(s, y) / vectors.dot(y, y), "d")
        else:
            vectors.scale(1 / max(1.0, math.sqrt(vectors.dot("d", "d"))), "d")
        for i in pairs:
            b = vectors.dot("y" + i, "d") / vectors.dot("s" + i, "y" + i)
            vectors.axpy(a[i] - b, "s" + i, "d")
        vectors.scale(-1.0, "d")


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
