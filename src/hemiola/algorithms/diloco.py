"""DiLoCo: distributed low-communication training.

Douillard, Feng, Rusu, Chhaparia, Donchev, Kuncoro, Ranzato, Szlam, Shen, "DiLoCo: Distributed
Low-Communication Training of Language Models", arXiv 2311.08105, 2023, algorithm 1.

    each worker k:  theta_k = H steps of InnerOpt (AdamW) from theta
    server:         Delta = theta - mean_k theta_k                    the outer gradient
                    theta <- OuterOpt(theta, Delta)                   Nesterov:
                        buf <- mu buf + Delta;  theta <- theta - lr (Delta + mu buf)

=========  ================================  =========
symbol     here                              shape
=========  ================================  =========
theta      ``down["w"]``                     (d,)
theta_k    ``up["w"]``                       (d,)
H          ``steps``
InnerOpt   ``optimizer``
OuterOpt   ``server``
buf        server state ``optimizer``: v     (d,)
=========  ================================  =========

The paper's outer rate is 0.7 and its momentum 0.9; H = 500 there, 50 suits small problems. The
inner optimiser's state stays with its worker and is never averaged. Outer SGD with rate 1 is model
averaging. With Nesterov theta is where Nesterov block momentum starts its blocks (BMUF with eta =
mu, zeta = lr, which reports another point). Models are weighted by their shards, equal in the
paper.
"""

from __future__ import annotations

from hemiola.aggregate import OuterStep, WeightedMean
from hemiola.algorithm import Algorithm, MiniBatch
from hemiola.communicate import Synchronous
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.local import LocalSteps
from hemiola.optim import AdamW, Nesterov
from hemiola.partition import ShuffleSplit

PAPER = "Douillard et al., 2023"


def diloco(
    steps: int = 50,
    server: LocalOptimizer = Nesterov(0.7, 0.9),
    optimizer: LocalOptimizer = AdamW(),
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Many local AdamW steps, then one Nesterov step of the server on what they changed.

    >>> diloco().aggregate.optimizer.momentum
    0.9
    """
    return Algorithm(
        name="diloco",
        partition=partition,
        local=LocalSteps(optimizer, steps=steps, batch=batch),
        communicate=Synchronous(),
        reduce=WeightedMean(),
        aggregate=OuterStep(server),
    )
