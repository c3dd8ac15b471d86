"""Asynchronous SGD on a parameter server.

Dean et al., "Large Scale Distributed Deep Networks", NIPS 2012, for networks; the analysis of delay
goes back to Bertsekas, Tsitsiklis, "Parallel and Distributed Computation", 1989.

    worker k:  pull (w, version);  g = mean gradient over a mini-batch of its shard;  push g
    server:    on push:  staleness = version - version read;  w <- w - lr g;  version <- version + 1

=========  ====================  =========
symbol     here                  shape
=========  ====================  =========
w          ``down["w"]``         (d,)
g          ``up["g"]``           (d,)
version    ``info.step``
staleness  ``info.staleness``
=========  ====================  =========

``damping="inverse"`` is the staleness-aware step lr / (1 + staleness), after Zhang, Gupta, Lian,
Liu, "Staleness-aware Async-SGD for Distributed Deep Learning", IJCAI 2016.

The same local and aggregate parts as SSGD; only the discipline differs. On a quadratic of curvature
h, constant staleness s is stable iff lr h < 2 sin(pi / (2 (2 s + 1))).
"""

from __future__ import annotations

from hemiola.aggregate import Descend, WeightedMean
from hemiola.aggregate.descend import Damping
from hemiola.algorithm import Algorithm, MiniBatch
from hemiola.communicate import Asynchronous
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.local import Gradient
from hemiola.optim import SGD
from hemiola.partition import ShuffleSplit

PAPER = "Dean et al., NIPS 2012"


def asgd(
    optimizer: LocalOptimizer = SGD(),
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
    damping: Damping = "none",
) -> Algorithm:
    """Asynchronous SGD: every gradient is applied when it arrives.

    ``damping="inverse"`` divides the step by 1 + staleness.

    >>> from hemiola.algorithms.ssgd import ssgd
    >>> asgd().local == ssgd().local and asgd().aggregate == ssgd().aggregate
    True
    """
    return Algorithm(
        name="asgd",
        partition=partition,
        local=Gradient(batch),
        communicate=Asynchronous(),
        reduce=WeightedMean(),
        aggregate=Descend(optimizer, damping),
    )
