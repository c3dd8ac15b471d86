"""FedOpt: federated averaging with an optimiser at the server (FedAdam, FedYogi, FedAdagrad).

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan, "Adaptive Federated Optimization",
ICLR 2021, algorithms 1 and 2. FedAvgM: Hsu, Qi, Brown, arXiv 1909.06335.

    each round:  each sampled client i:  x_i = E epochs of SGD from x;  Delta_i = x_i - x
                 server:  Delta = mean_i Delta_i
                          m <- beta1 m + (1 - beta1) Delta
                          v <- v + Delta^2                                       adagrad
                          v <- v - (1 - beta2) Delta^2 sign(v - Delta^2)         yogi
                          v <- beta2 v + (1 - beta2) Delta^2                     adam
                          x <- x + eta m / (sqrt(v) + tau)

==========  =====================================  =========
symbol      here                                   shape
==========  =====================================  =========
x           ``down["w"]``                          (d,)
x_i         ``up["w"]``                            (d,)
Delta       minus the gradient of ``OuterStep``    (d,)
m, v        server state ``optimizer``             (d,)
eta         ``server.lr``
tau         ``server.tau``
E           ``epochs``
==========  =====================================  =========

The rules are in :mod:`hemiola.optim.server`. ``server=momentum`` is FedAvgM: v <- beta v - Delta, x
<- x - eta v. ``server=sgd`` with rate 1 is FedAvg. Clients are weighted by their samples, as in the
paper's experiments; its algorithm 1 has the plain mean.
"""

from __future__ import annotations

from hemiola.aggregate import OuterStep, WeightedMean
from hemiola.algorithm import Algorithm, MiniBatch
from hemiola.communicate import Synchronous
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.local import LocalSteps
from hemiola.local.local_steps import Carry
from hemiola.optim import SGD, FedAdam
from hemiola.optim.server import RATE
from hemiola.partition import ShuffleSplit

PAPER = "Reddi et al., ICLR 2021"


def fedadam(
    participation: float = 1.0,
    epochs: int = 1,
    server: LocalOptimizer = FedAdam(RATE),
    optimizer: LocalOptimizer = SGD(),
    carry: Carry = "reset",
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Federated averaging whose server steps with Adam, Yogi, Adagrad or momentum.

    >>> fedadam(participation=0.1).aggregate.optimizer.tau
    0.001
    """
    return Algorithm(
        name="fedadam",
        partition=partition,
        local=LocalSteps(optimizer, epochs=epochs, carry=carry, batch=batch),
        communicate=Synchronous(participation),
        reduce=WeightedMean(),
        aggregate=OuterStep(server),
    )
