"""Model averaging, one-shot and iterative (local SGD).

McDonald, Hall, Mann, "Distributed Training Strategies for the Structured Perceptron", NAACL 2010
(iterative parameter mixing); Zinkevich, Weimer, Smola, Li, "Parallelized Stochastic Gradient
Descent", NIPS 2010 (one-shot); Stich, "Local SGD Converges Fast and Communicates Little",
ICLR 2019.

    each worker k:  v = w;  M times: v <- v - lr g(v; a fresh mini-batch of its shard);  w_k = v
    server:         w <- sum_k (n_k / n) w_k

=========  ====================  =========
symbol     here                  shape
=========  ====================  =========
w          ``down["w"]``         (d,)
w_k        ``up["w"]``           (d,)
n_k        ``up["weight"]``      ()
M          ``steps``
=========  ====================  =========

One-shot averaging is one round of many steps. With M = 1 and SGD or heavy-ball this is SSGD.
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

PAPER = "McDonald et al., NAACL 2010"
ONE_SHOT_PAPER = "Zinkevich et al., NIPS 2010"


def model_averaging(
    steps: int = 10,
    optimizer: LocalOptimizer = SGD(),
    carry: Carry = "keep",
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Iterative model averaging: M local steps, then the mean of all models.

    >>> model_averaging(steps=5).local.steps
    5
    """
    return Algorithm(
        name="model-averaging",
        partition=partition,
        local=LocalSteps(optimizer, steps=steps, carry=carry, batch=batch),
        communicate=Synchronous(),
        reduce=WeightedMean(),
        aggregate=Average(),
    )


def one_shot_averaging(
    steps: int = 3000,
    optimizer: LocalOptimizer = SGD(),
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """One-shot averaging: workers train alone and the models are averaged once, at the end.

    >>> one_shot_averaging().communicate.rounds
    1
    """
    return Algorithm(
        name="one-shot-averaging",
        partition=partition,
        local=LocalSteps(optimizer, steps=steps, batch=batch),
        communicate=Synchronous(rounds=1),
        reduce=WeightedMean(),
        aggregate=Average(),
    )
