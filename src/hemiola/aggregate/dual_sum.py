"""The server of distributed dual ascent: the model is what the workers' duals add up to."""

from __future__ import annotations

import numpy as np

from hemiola.algorithm import Info
from hemiola.component import component
from hemiola.kernels.sdca import START, recentred
from hemiola.types import Array, Message, State, freeze, frozen


@component
class DualSum:
    """w <- sum_k w_k of a round's workers; the intercept b, which is w's last entry, is the
    server's own.

    b = center + pace r follows the sum r of the workers' ``residual``, which must become 0, and the
    centre then moves to b (:func:`hemiola.kernels.sdca.recentred`). ``pace`` is at most what the
    workers' ``reach`` adds up to; before the first round it is 0, and b stays as it is.
    """

    def init(self, w0: Array, workers: int) -> State:
        b = float(w0[-1])
        return {"w": w0.copy(), "b": b, "center": b, "pull": 0.0, "reach": 0.0, "before": 0.0}

    def pull(self, state: State, worker: int) -> Message:
        w = state["w"].copy()
        w[-1] = state["b"]
        return freeze(w=w, pace=np.array(state["pull"] * state["reach"]))

    def push(self, state: State, up: Message, info: Info) -> State:
        reach, r = float(up["reach"]), float(up["residual"])
        w, center, pull = up["w"].copy(), state["center"], state["pull"]
        if pull == 0.0:
            w[-1], pull, move = center, START, START * reach * r
            b = center + move
        else:
            move = pull * state["reach"] * r
            w[-1] = center + move
            b, pull = recentred(center + move, move, state["before"], pull)
        return {
            "w": w, "b": b, "center": float(w[-1]), "pull": pull, "reach": reach, "before": move,
        }  # fmt: skip

    def model(self, state: State) -> Array:
        return frozen(state["w"])
