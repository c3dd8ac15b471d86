"""Federated averaging.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-Efficient Learning of Deep Networks
from Decentralized Data", AISTATS 2017.

    each round:  m = max(round(C K), 1);  S = m distinct clients, uniformly
                 each k in S:  w_k = E epochs of mini-batch SGD on its n_k samples, from w
                 w <- sum_{k in S} n_k w_k / sum_{k in S} n_k

=========  ==============================  =========
symbol     here                            shape
=========  ==============================  =========
K          ``workers`` of the run
C          ``participation``
E          ``epochs``
B          ``batch.size``, None: the whole shard
n_k        ``up["weight"]``                ()
w_k        ``up["w"]``                     (d,)
=========  ==============================  =========

The published box sums n_k/n over all K clients; taken literally with C < 1 that would shrink the
model every round. The weights here are normalised over the sampled clients. C = 1, E = 1, B = None
is gradient descent.
"""

from __future__ import annotations

from hemiola.aggregate import Average, WeightedMean
from hemiola.algorithm import Algorithm, MiniBatch
from hemiola.communicate import Synchronous
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.local import LocalSteps
from hemiola.local.local_steps import Carry
from hemiola.optim import SGD
from hemiola.partition import ShuffleSplit

PAPER = "McMahan et al., AISTATS 2017"


def fedavg(
    participation: float = 1.0,
    epochs: int = 1,
    optimizer: LocalOptimizer = SGD(),
    carry: Carry = "reset",
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Federated averaging of sampled clients, weighted by their sample counts.

    The paper's C = 0.1, E = 5, B = 10 are meant for hundreds of clients; the defaults here suit a
    handful: all clients, one epoch.

    >>> fedavg(participation=0.1, epochs=5).communicate.participation
    0.1
    """
    return Algorithm(
        name="fedavg",
        partition=partition,
        local=LocalSteps(optimizer, epochs=epochs, carry=carry, batch=batch),
        communicate=Synchronous(participation),
        reduce=WeightedMean(),
        aggregate=Average(),
    )
