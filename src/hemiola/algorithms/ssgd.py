"""Synchronous SGD.

The oldest data-parallel algorithm; as stated in Dekel, Gilad-Bachrach, Shamir, Xiao, "Optimal
Distributed Online Prediction Using Mini-Batches", JMLR 2012, and Chen, Pan, Monga, Bengio,
Jozefowicz, "Revisiting Distributed Synchronous SGD", arXiv 1604.00981.

    each worker k:  I_k = a mini-batch of its shard,  g_k = mean over I_k of the gradients at w
    server:         w <- w - lr * sum_k |I_k| g_k / B,    B = sum_k |I_k|

=========  ===============================  =========
symbol     here                             shape
=========  ===============================  =========
w          ``down["w"]``                    (d,)
g_k        ``up["g"]``                      (d,)
|I_k|      ``up["weight"]``                 ()
lr         ``optimizer.lr``
=========  ===============================  =========

The division is by B, not by b K: unequal and empty batches count as what they are.
"""

from __future__ import annotations

from hemiola.aggregate import Descend, WeightedMean
from hemiola.algorithm import Algorithm, MiniBatch
from hemiola.communicate import Synchronous
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.local import Gradient
from hemiola.optim import SGD
from hemiola.partition import ShuffleSplit

PAPER = "Dekel et al., JMLR 2012"


def ssgd(
    optimizer: LocalOptimizer = SGD(),
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Synchronous SGD: one step on the mean gradient of all workers.

    ``optimizer`` is the server's: with heavy-ball it has one buffer, as K averaged local ones have.

    >>> ssgd().aggregate.optimizer
    SGD(lr=None, schedule=Constant())
    """
    return Algorithm(
        name="ssgd",
        partition=partition,
        local=Gradient(batch),
        communicate=Synchronous(),
        reduce=WeightedMean(),
        aggregate=Descend(optimizer),
    )
