"""Downpour SGD.

Dean, Corrado, Monga, Chen, Devin, Le, Mao, Ranzato, Senior, Tucker, Yang, Ng, "Large Scale
Distributed Deep Networks", NIPS 2012, section 4.1.

    client:  if n_fetch divides step:  params <- fetch
             g = gradient(params, the next mini-batch);  acc <- acc + g;  params <- params - alpha g
             if n_push divides step:  push acc;  acc <- 0
    server:  S <- S + acc^2;  w <- w - (g0 / sqrt(S)) acc                    (Adagrad)

=========  ==================================  =========
symbol     here                                shape
=========  ==================================  =========
params     worker state ``w``                  (d,)
acc        ``up["g"]``                         (d,)
alpha      ``lr`` of the local SGD
n_push     ``n_push``: ``local.steps``
n_fetch    ``n_fetch``: n_push times ``communicate.fetch_every``
S          server state of Adagrad             (d,)
g0         ``optimizer.lr``
=========  ==================================  =========

A fetch comes between a push and the next gradient, so n_fetch must be a multiple of n_push. The
paper's experiments use n_fetch = n_push = 1. S starts at 0 there, so that a coordinate's first step
has size g0 whatever its gradient; a small constant under the root keeps it finite.
"""

from __future__ import annotations

from hemiola.aggregate import Descend, WeightedMean
from hemiola.algorithm import Algorithm, MiniBatch
from hemiola.communicate import Asynchronous
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.errors import OptionError
from hemiola.local import Accumulate
from hemiola.optim import SGD, Adagrad
from hemiola.partition import ShuffleSplit

PAPER = "Dean et al., NIPS 2012"


def downpour(
    n_push: int = 1,
    n_fetch: int = 1,
    optimizer: LocalOptimizer = Adagrad(),
    lr: float | None = None,
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Downpour SGD: replicas push summed gradients to an Adagrad server and fetch now and then.

    ``optimizer`` is the server's, ``lr`` the rate of the replicas' own steps between fetches.
    Raises :class:`~hemiola.errors.OptionError` unless n_fetch is a multiple of n_push.

    >>> downpour(n_push=2, n_fetch=6).communicate.fetch_every
    3
    """
    n_push, n_fetch = int(n_push), int(n_fetch)
    if n_push < 1 or n_fetch < 1 or n_fetch % n_push:
        raise OptionError(
            f"downpour: n_fetch = {n_fetch} must be a multiple of n_push = {n_push}, both at "
            "least 1, as a fetch comes right after a push."
        )
    return Algorithm(
        name="downpour",
        partition=partition,
        local=Accumulate(SGD(lr), n_push, batch),
        communicate=Asynchronous(fetch_every=n_fetch // n_push),
        reduce=WeightedMean(),
        aggregate=Descend(optimizer),
    )
