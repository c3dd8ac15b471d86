"""FedProx: federated averaging with a proximal term.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks",
MLSys 2020, algorithm 2.

    each round:  S = m distinct clients
                 each k in S:  w_k ~ argmin_w F_k(w) + mu/2 |w - w_t|^2, by E epochs of SGD from w_t
                 w_{t+1} = sum_{k in S} n_k w_k / sum_{k in S} n_k

=========  ================================  =========
symbol     here                              shape
=========  ================================  =========
w_t        ``down["w"]``                     (d,)
w_k        ``up["w"]``                       (d,)
mu         ``mu``
E          ``epochs``
K          round(``participation`` workers)
=========  ================================  =========

The paper draws clients in proportion to n_k and takes the plain mean; here they are drawn uniformly
and weighted by n_k, as in FedAvg, which mu = 0 is. The paper searched mu in 0.001, 0.01, 0.1, 1.
That slow clients may do less work - its other half - is up to the rounds' policies here: a late
answer is dropped.
"""

from __future__ import annotations

from hemiola.aggregate import Average, WeightedMean
from hemiola.algorithm import Algorithm, MiniBatch
from hemiola.communicate import Synchronous
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.local import LocalSteps, Proximal
from hemiola.local.local_steps import Carry
from hemiola.optim import SGD
from hemiola.partition import ShuffleSplit

PAPER = "Li et al., MLSys 2020"


def fedprox(
    mu: float = 0.1,
    participation: float = 1.0,
    epochs: int = 1,
    optimizer: LocalOptimizer = SGD(),
    carry: Carry = "reset",
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Federated averaging of clients that a spring holds back to the round's model.

    >>> fedprox(mu=1.0).local.mu
    1.0
    """
    return Algorithm(
        name="fedprox",
        partition=partition,
        local=Proximal(LocalSteps(optimizer, epochs=epochs, carry=carry, batch=batch), mu),
        communicate=Synchronous(participation),
        reduce=WeightedMean(),
        aggregate=Average(),
    )
