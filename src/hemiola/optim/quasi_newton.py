"""L-BFGS that is told f and g at one point after another, in commands on sliced vectors.

Liu, Nocedal, "On the Limited Memory BFGS Method for Large Scale Optimization", Mathematical
Programming 1989. B is a preconditioner, symmetric and positive, or none:

    line search   accept if f(w + t d) <= f(w) + 1e-4 t g'd, else t <- t / 2
    accepted      s = t d, y = g_new - g;  keep (s, y) if s'y > 1e-10 |s| |y|
    direction     two-loop recursion over the last pairs, between whose loops
                  r <- (s'y / y'By) B r, of the newest pair; without pairs B r;
                  without B, r <- (s'y / y'y) r, or r / max(1, |r|)

Vectors by name: ``w``, ``g`` at w; ``d``; ``trial`` = w + t d, the point to evaluate; ``sum``, the
gradient there; ``s0``, ``y0``, ... All have shape (d,).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hemiola.types import Array, State

SUFFICIENT = 1e-4
CURVATURE = 1e-10
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


class Search:
    """The method's next point, from what it has seen; all that it knows lies in ``state``.

    ``memory`` pairs are kept; the search has converged when no entry of the gradient is larger than
    ``tolerance``, or when no step helps. ``precondition`` maps r (d,) to a new B r (d,); it takes
    whole vectors, out of their slices.

    >>> state = Search.begin(np.zeros(1), shards=1)
    >>> search = Search(state, memory=10, shards=1, tolerance=1e-10)
    >>> while not state["converged"]:
    ...     x = search.vectors.get("trial")
    ...     search.vectors.put("sum", 2 * (x - 3))
    ...     search.told(float(np.square(x - 3).sum()))
    >>> state["model"], state["iterations"]
    (array([3.]), 3)
    """

    def __init__(
        self, state: State, memory: int, shards: int, tolerance: float,
        precondition: Callable[[Array], Array] | None = None,
    ) -> None:  # fmt: skip
        self.vectors = Slices(state["vectors"], shards)
        self._state = state
        self._memory = memory
        self._tolerance = tolerance
        self._precondition = precondition

    @staticmethod
    def begin(w0: Array, shards: int) -> dict[str, Any]:
        """The state before the first evaluation, which is at w0 (d,)."""
        state: dict[str, Any] = {
            "vectors": {}, "pairs": [], "next_pair": 0, "f": math.inf, "slope": 0.0, "t": 0.0,
            "model": w0.copy(), "converged": False, "iterations": 0,
        }  # fmt: skip
        vectors = Slices(state["vectors"], shards)
        vectors.put("w", w0)
        vectors.put("trial", w0)
        return state

    def told(self, f: float) -> None:
        """Take in f and the gradient, which is in ``sum``, at ``trial``; choose the next trial."""
        state, vectors = self._state, self.vectors
        if state["converged"]:
            return
        allowed = state["f"] + SUFFICIENT * state["t"] * state["slope"] + 1e-15 * abs(state["f"])
        if state["f"] == math.inf or f <= allowed:
            self._accept(f)
        else:
            state["t"] /= 2
            state["converged"] = state["t"] < SMALLEST_STEP
        vectors.copy("w", "trial")
        if not state["converged"]:
            vectors.axpy(state["t"], "d", "trial")

    def forget(self) -> None:
        """f is another function from now on: accept the next point, whatever it is worth."""
        self._drop_pairs()
        self._state.update(f=math.inf, converged=False)

    def _accept(self, f: float) -> None:
        state, vectors = self._state, self.vectors
        if state["f"] < math.inf:
            self._remember()
        vectors.copy("trial", "w")
        vectors.copy("sum", "g")
        state.update(f=f, model=vectors.get("w"), t=1.0)
        state["iterations"] += 1
        if vectors.largest("g") <= self._tolerance:
            state["converged"] = True
            return
        self._direction()
        state["slope"] = vectors.dot("g", "d")
        if state["slope"] >= 0:
            self._drop_pairs()
            self._direction()
            state["slope"] = vectors.dot("g", "d")

    def _remember(self) -> None:
        """Keep s = trial - w and y = sum - g, if their curvature is positive."""
        state, vectors = self._state, self.vectors
        i = str(state["next_pair"])
        for name, new, old in (("s", "trial", "w"), ("y", "sum", "g")):
            vectors.copy(new, name + i)
            vectors.axpy(-1.0, old, name + i)
        s, y = "s" + i, "y" + i
        lengths = math.sqrt(vectors.dot(s, s) * vectors.dot(y, y))
        if vectors.dot(s, y) <= CURVATURE * lengths:
            self._drop(i)
            return
        state["pairs"].append(i)
        state["next_pair"] += 1
        if len(state["pairs"]) > self._memory:
            self._drop(state["pairs"].pop(0))

    def _drop_pairs(self) -> None:
        for i in self._state["pairs"]:
            self._drop(i)
        self._state["pairs"] = []

    def _drop(self, i: str) -> None:
        self.vectors.drop("s" + i)
        self.vectors.drop("y" + i)

    def _direction(self) -> None:
        """d = -H g by the two-loop recursion."""
        vectors, pairs, a = self.vectors, self._state["pairs"], {}
        vectors.copy("g", "d")
        for i in reversed(pairs):
            a[i] = vectors.dot("s" + i, "d") / vectors.dot("s" + i, "y" + i)
            vectors.axpy(-a[i], "y" + i, "d")
        self._scale()
        for i in pairs:
            b = vectors.dot("y" + i, "d") / vectors.dot("s" + i, "y" + i)
            vectors.axpy(a[i] - b, "s" + i, "d")
        vectors.scale(-1.0, "d")

    def _scale(self) -> None:
        """What stands between the two loops."""
        vectors, pairs = self.vectors, self._state["pairs"]
        if self._precondition is not None:
            vectors.put("d", self._precondition(vectors.get("d")))
        if pairs:
            s, y = "s" + pairs[-1], "y" + pairs[-1]
            vectors.scale(vectors.dot(s, y) / self._square(y), "d")
        elif self._precondition is None:
            vectors.scale(1 / max(1.0, math.sqrt(vectors.dot("d", "d"))), "d")

    def _square(self, y: str) -> float:
        """y'By"""
        if self._precondition is None:
            return self.vectors.dot(y, y)
        whole = self.vectors.get(y)
        return float(whole @ self._precondition(whole))
