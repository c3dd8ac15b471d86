"""Ditto: personal models beside the global one.

Li, Hu, Beirami, Smith, "Ditto: Fair and Robust Federated Learning Through Personalization",
ICML 2021, algorithm 1.

    each round:  S = m distinct clients, which receive w
                 each k in S:  w_k = LocalTrain(w)
                               s times:  v_k <- v_k - gamma (g_k(v_k) + lambda (v_k - w))
                 w <- sum_{k in S} n_k w_k / sum_{k in S} n_k

=========  ==================================  =========
symbol     here                                shape
=========  ==================================  =========
w          ``down["w"]``, as received          (d,)
w_k        ``up["w"]``                         (d,)
v_k        worker state ``v``                  (d,)
lambda     ``lam``
gamma      ``optimizer.lr``
s          ``personal_epochs`` times the batches of an epoch
=========  ==================================  =========

The server never hears of v_k, so w is FedAvg's whatever lambda is. v_k starts at w_0, is kept
between rounds, untouched in those that its client sits out, and comes back with the result
(``Result.personal``). A client that dies loses it and starts again from w, and from the first of
its mini-batches. lambda = 0 is local training, a large lambda the global model; gamma (lambda + L)
must stay below 2, which the estimated rate sees to. The paper's lambda is 0.1 to 2.
"""

from __future__ import annotations

from hemiola.aggregate import Average, WeightedMean
from hemiola.algorithm import Algorithm, MiniBatch, Task
from hemiola.communicate import Synchronous
from hemiola.component import component
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.local import LocalSteps, Proximal
from hemiola.local.local_steps import Carry
from hemiola.optim import SGD
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, Message, State

PAPER = "Li et al., ICML 2021"


@component
class Personalized:
    """up = what ``local`` sends. Beside it ``personal`` trains a model v (d,), never sent."""

    local: LocalSteps
    personal: Proximal

    @property
    def optimizer(self) -> LocalOptimizer:
        return self.local.optimizer

    @property
    def batch(self) -> MiniBatch:
        return self.local.batch

    def init(self, w0: Array) -> State:
        own = {"v": w0.copy(), "own": self.personal.init(w0)}
        return {"t": 0, "shared": self.local.init(w0), **own}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        before = state["shared"]["t"] + state["own"]["t"]
        state["shared"], up = self.local.work(state["shared"], down, task)
        v = {"w": state["v"]}
        state["own"], kept = self.personal.toward(down["w"], state["own"], v, task)
        state["v"] = kept["w"]
        state["t"] += state["shared"]["t"] + state["own"]["t"] - before
        return state, up

    def own_model(self, state: State) -> Array:
        """v (d,)."""
        v: Array = state["v"]
        return v


def ditto(
    lam: float = 1.0,
    participation: float = 1.0,
    epochs: int = 1,
    personal_epochs: int = 1,
    optimizer: LocalOptimizer = SGD(),
    carry: Carry = "reset",
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Federated averaging, and beside it a model for every client, tied to the global one.

    Both are trained by ``optimizer`` on mini-batches of the client's shard.

    >>> ditto(lam=0.1).local.personal.mu
    0.1
    """
    carried: Carry = "reset" if carry == "reset" else "keep"
    own = LocalSteps(optimizer, epochs=personal_epochs, carry=carried, batch=batch)
    return Algorithm(
        name="ditto",
        partition=partition,
        local=Personalized(
            LocalSteps(optimizer, epochs=epochs, carry=carry, batch=batch), Proximal(own, lam)
        ),
        communicate=Synchronous(participation),
        reduce=WeightedMean(),
        aggregate=Average(),
    )
