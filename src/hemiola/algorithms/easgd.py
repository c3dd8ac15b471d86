"""Elastic averaging SGD, synchronous, without and with momentum (EASGD, EAMSGD).

Zhang, Choromanska, LeCun, "Deep Learning with Elastic Averaging SGD", NIPS 2015.

    each worker i, every tau steps:  e_i = alpha (x_i - c)            with the old x_i and the old c
    its steps:                       v_i <- delta v_i - lr g(x_i + delta v_i);  x_i <- x_i + v_i
                                     and once, after the first of them:  x_i <- x_i - e_i
    server:                          c <- c + sum_i e_i = (1 - beta) c + beta mean_i x_i

=========  ==============================  =========
symbol     here                            shape
=========  ==============================  =========
x_i, v_i   worker state ``x``, ``v``       (d,)
c          ``down["w"]``, the centre       (d,)
e_i        ``up["e"]``                     (d,)
alpha      ``alpha``
beta       p alpha: elastic symmetry
tau        ``period``
delta      ``momentum``, 0 for EASGD
=========  ==============================  =========

Worker and centre exchange the same e_i, so sum_i x_i + c is conserved by the exchange. The paper's
rule is beta = 0.9, so alpha = 0.9 / p. The model is the centre.
"""

from __future__ import annotations

from hemiola.aggregate import Center, Sum
from hemiola.algorithm import Algorithm, MiniBatch
from hemiola.communicate import Synchronous
from hemiola.contracts import Partition
from hemiola.local import Elastic
from hemiola.partition import ShuffleSplit

PAPER = "Zhang et al., NIPS 2015"


def easgd(
    alpha: float | None = None,
    period: int = 10,
    lr: float | None = None,
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Elastic averaging: workers keep models of their own, tied to a centre by springs.

    ``alpha=None`` is the paper's rule 0.9 / K.

    >>> easgd(period=5).local.period
    5
    """
    return _elastic("easgd", Elastic(lr, 0.0, alpha, period, batch), partition)


def eamsgd(
    alpha: float | None = None,
    period: int = 10,
    momentum: float = 0.9,
    lr: float | None = None,
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Elastic averaging with Nesterov momentum in the workers.

    The paper's networks use momentum 0.99; small problems are better served by 0.9.

    >>> eamsgd().local.momentum
    0.9
    """
    return _elastic("eamsgd", Elastic(lr, momentum, alpha, period, batch), partition)


def _elastic(name: str, local: Elastic, partition: Partition) -> Algorithm:
    return Algorithm(
        name=name,
        partition=partition,
        local=local,
        communicate=Synchronous(),
        reduce=Sum(),
        aggregate=Center(),
    )
