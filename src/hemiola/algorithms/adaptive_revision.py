"""AdaptiveRevision: Adagrad that revises the rates of gradients that arrived meanwhile.

McMahan, Streeter, "Delay-Tolerant Algorithms for Asynchronous Distributed Online Learning", NIPS
2014, algorithm 3.

    READ    the worker gets x; the server remembers gbar as gbar_read
    UPDATE  g_bck = gbar - gbar_read              gradients applied since the read
            eta_old = eta0 / sqrt(z')
            z  <- z + g^2 + 2 g g_bck
            z' <- max(z', z)
            eta = eta0 / sqrt(z')
            x  <- x - eta g + (eta_old - eta) g_bck
            gbar <- gbar + g

==========  ==================================  ==============
symbol      here                                shape
==========  ==================================  ==============
x           server state ``w``                  (d,)
gbar        server state ``gbar``               (d,)
gbar_read   server state ``read[k]``            K times (d,)
z, z'       server state ``z``, ``z_max``       (d,)
eta0        ``lr``
==========  ==================================  ==============

z may fall, even below zero; z' never does, and only z' enters a root. Both start at 1. The server
keeps the snapshots of gbar: they cost no traffic and, as gbar is replaced and never written to, no
copy either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Self

import numpy as np
from annotated_types import Gt

from hemiola.aggregate import WeightedMean
from hemiola.algorithm import Algorithm, Info, MiniBatch
from hemiola.communicate import Asynchronous
from hemiola.component import component
from hemiola.contracts import Partition
from hemiola.local import Gradient
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, Message, State, freeze, frozen

PAPER = "McMahan, Streeter, NIPS 2014"


@component
class Revise:
    """The server of AdaptiveRevision."""

    separable: ClassVar[bool] = True

    lr: Annotated[float, Gt(0)] | None = None

    def init(self, w0: Array, workers: int) -> State:
        gbar = np.zeros_like(w0, dtype=np.float64)  # only differences matter: keep them exact
        ones = np.ones_like(w0)
        return {"w": w0.copy(), "gbar": gbar, "read": [gbar] * workers, "z": ones, "z_max": ones}

    def pull(self, state: State, worker: int) -> Message:
        state["read"][worker] = state["gbar"]
        return freeze(w=state["w"])

    def push(self, state: State, up: Message, info: Info) -> State:
        worker = info.sender
        g, w = up["g"], state["w"]
        g_bck = (state["gbar"] - state["read"][worker]).astype(w.dtype, copy=False)
        eta_old = self.lr / np.sqrt(state["z_max"])
        z = state["z"] + g * g + 2 * g * g_bck
        z_max = np.maximum(state["z_max"], z)
        eta = self.lr / np.sqrt(z_max)
        return {
            "w": w - eta * g + (eta_old - eta) * g_bck,
            "gbar": state["gbar"] + g,
            "read": state["read"],
            "z": z,
            "z_max": z_max,
        }

    def model(self, state: State) -> Array:
        return frozen(state["w"])

    def with_lr(self, base: float) -> Self:
        """Steps hardly scale with the gradient, so the rate does not depend on the data: 0.3."""
        return replace(self, lr=0.3)


def adaptive_revision(
    lr: float | None = None,
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """AdaptiveRevision: Adagrad rates that account for gradients in flight.

    ``lr`` is the paper's eta0, found there by a grid.

    >>> adaptive_revision(lr=0.5).aggregate
    Revise(lr=0.5)
    """
    return Algorithm(
        name="adaptive-revision",
        partition=partition,
        local=Gradient(batch),
        communicate=Asynchronous(),
        reduce=WeightedMean(),
        aggregate=Revise(lr),
    )
