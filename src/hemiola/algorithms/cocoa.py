"""CoCoA and CoCoA+: dual coordinate ascent on every worker's samples, synchronous.

Jaggi et al., "Communication-Efficient Distributed Dual Coordinate Ascent", NIPS 2014; Ma et al.,
"Adding vs. Averaging in Distributed Primal-Dual Optimization", ICML 2015.

    each worker k:  H coordinate steps on  max over Δα_[k] of                                    (1)
                      -(1/n) sum_{i in P_k} φ_i*(-α_i - Δα_i) - w·Δw_k λ - (λ σ'/2) |Δw_k|^2,
                    Δw_k = (1/(λ n)) sum_{i in P_k} Δα_i x_i
                    α_[k] <- α_[k] + γ Δα_[k],    w_k = (1/(λ n)) sum_{i in P_k} α_i x_i
    server:         w <- sum_k w_k,  that is  w + γ sum_k Δw_k                                   (2)

    adding       γ = 1,    σ' = K        averaging    γ = 1/K,  σ' = 1

=========  ===============================  =========
symbol     here                             shape
=========  ===============================  =========
w          ``down["w"]``                    (d,)
w_k        ``up["w"]``                      (d,)
α_[k]      worker state ``alpha``           (n_k,)
σ'         ``sigma``
γ          ``combine``
H          ``epochs`` n_k
=========  ===============================  =========

The papers send Δw_k. Here w_k is sent, which costs the same, adds up to the same, and heals: a
message that is lost, and a worker that comes back without its α_[k], leave no wrong remainder in w.
With σ' as above the dual never falls in a round. With one worker both are SDCA. Losses, coordinate
steps and the intercept, which is the server's, are those of :mod:`hemiola.kernels.sdca`.

Partition: any that deals once, as α belongs to samples. Local: coordinate steps. Communication:
synchronous, everybody in every round. Aggregation: the sum.
"""

from __future__ import annotations

from typing import Literal

from hemiola.aggregate import DualSum, Sum
from hemiola.algorithm import Algorithm
from hemiola.communicate import Synchronous
from hemiola.contracts import Partition
from hemiola.errors import OptionError
from hemiola.local import LocalSDCA
from hemiola.partition import ShuffleSplit

PAPER = "Ma et al., ICML 2015"


def cocoa(
    combine: Literal["add", "average"] = "add",
    epochs: float = 1.0,
    sigma: float | None = None,
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """CoCoA+: exact coordinate steps on the dual of every shard, joined safely.

    ``sigma=None`` is the papers' rule: K when adding, 1 when averaging. For logistic, squared and
    hinge loss with L2.

    >>> cocoa(epochs=2).local.epochs
    2.0
    """
    if partition.reshuffle_every is not None:
        raise OptionError(
            "cocoa's workers keep a dual variable for every sample of theirs, so samples are dealt "
            "once: leave out the global reshuffle."
        )
    return Algorithm(
        name="cocoa",
        partition=partition,
        local=LocalSDCA(epochs, combine, sigma),
        communicate=Synchronous(),
        reduce=Sum(),
        aggregate=DualSum(),
    )
