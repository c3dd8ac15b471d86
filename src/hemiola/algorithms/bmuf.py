"""Blockwise model-update filtering.

Chen, Huo, "Scalable Training of Deep Learning Machines by Incremental Block Training with
Intra-Block Parallel Optimization and Blockwise Model-Update Filtering", ICASSP 2016.

    each worker k:  w_k = M local steps from start
    server:         G = mean_k w_k - start
                    delta <- eta delta + zeta G
                    W     <- W + delta                 the model
                    start <- W                         classic block momentum
                    start <- W + eta delta             Nesterov block momentum

=========  =================================  =========
symbol     here                               shape
=========  =================================  =========
w_k        ``up["w"]``                        (d,)
start      ``down["w"]``                      (d,)
W          ``aggregate.model(state)``         (d,)
delta      server state ``delta``             (d,)
eta        ``eta``, block momentum
zeta       ``zeta``, block learning rate
=========  =================================  =========

An average divides each worker's contribution by K and block momentum multiplies it by
zeta / (1 - eta) in the long run; asking for unit weight gives eta = 1 - 1/K at zeta = 1, the
default. W and start are kept apart: G is measured from start, W is what is evaluated. (Several
public codes keep start only, as start <- start + (1 + eta) delta, which is another filter.)
"""

from __future__ import annotations

from hemiola.aggregate import BlockMomentum, WeightedMean
from hemiola.algorithm import Algorithm, MiniBatch
from hemiola.communicate import Synchronous
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.local import LocalSteps
from hemiola.local.local_steps import Carry
from hemiola.optim import SGD
from hemiola.partition import ShuffleSplit

PAPER = "Chen, Huo, ICASSP 2016"


def bmuf(
    steps: int = 10,
    eta: float | None = None,
    zeta: float = 1.0,
    nesterov: bool = True,
    optimizer: LocalOptimizer = SGD(),
    carry: Carry = "reset",
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Model averaging with momentum on what a block of local steps changed.

    ``eta=None`` is the paper's rule 1 - 1/K. ``nesterov=False`` is classic block momentum.

    >>> bmuf(eta=0.9).aggregate
    BlockMomentum(eta=0.9, zeta=1.0, nesterov=True)
    """
    return Algorithm(
        name="bmuf",
        partition=partition,
        local=LocalSteps(optimizer, steps=steps, carry=carry, batch=batch),
        communicate=Synchronous(),
        reduce=WeightedMean(),
        aggregate=BlockMomentum(eta, zeta, nesterov),
    )
