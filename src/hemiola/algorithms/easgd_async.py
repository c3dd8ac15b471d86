"""Elastic averaging SGD, asynchronous, without and with momentum.

Zhang, Choromanska, LeCun, "Deep Learning with Elastic Averaging SGD", NIPS 2015, algorithms 1, 2.

    worker i, at its local step t_i:
        if tau divides t_i:   x <- x_i
                              x_i <- x_i - alpha (x - c);   c <- c + alpha (x - c)
        v_i <- delta v_i - lr g(x + delta v_i);   x_i <- x_i + v_i

=========  ====================================  =========
symbol     here                                  shape
=========  ====================================  =========
x          ``up["x"]``, the model as sent        (d,)
c          server state ``w``, the centre        (d,)
alpha      ``alpha``, 0.9 / p if None
tau        ``local.period``
delta      ``local.momentum``, 0 for EASGD
=========  ====================================  =========

The server makes the exchange the moment x arrives and sends e = alpha (x - c) back, so both sides
move by the same e: sum_i x_i + c is conserved by every exchange. The gradient is taken at the x
that was sent, before e is subtracted. The model is the centre.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Interval

from hemiola.aggregate import Sum
from hemiola.algorithm import Algorithm, Info, MiniBatch
from hemiola.communicate import Asynchronous
from hemiola.component import component
from hemiola.contracts import Partition
from hemiola.local import AsyncElastic
from hemiola.local.elastic import BETA
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, Message, State, freeze, frozen

PAPER = "Zhang et al., NIPS 2015"


@component
class ElasticExchange:
    """e <- alpha (x - c);  c <- c + e;  e goes back to the sender."""

    separable: ClassVar[bool] = True

    alpha: Annotated[float, Interval(ge=0, le=1)] | None = None

    def init(self, w0: Array, workers: int) -> State:
        nothing = np.zeros_like(w0)
        return {"w": w0.copy(), "e": [nothing] * workers, "nothing": nothing}

    def pull(self, state: State, worker: int) -> Message:
        e, state["e"][worker] = state["e"][worker], state["nothing"]  # handed out once
        return freeze(e=e)

    def push(self, state: State, up: Message, info: Info) -> State:
        worker = info.sender
        alpha = BETA / info.n_workers if self.alpha is None else self.alpha
        e = alpha * (up["x"] - state["w"])
        state["e"][worker] = e
        return {**state, "w": state["w"] + e}

    def model(self, state: State) -> Array:
        return frozen(state["w"])


def easgd_async(
    alpha: float | None = None,
    period: int = 10,
    lr: float | None = None,
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Asynchronous elastic averaging: each worker meets the centre every ``period`` steps.

    >>> easgd_async(alpha=0.2).aggregate
    ElasticExchange(alpha=0.2)
    """
    return _elastic("easgd-async", AsyncElastic(lr, 0.0, period, batch), alpha, partition)


def eamsgd_async(
    alpha: float | None = None,
    period: int = 10,
    momentum: float = 0.9,
    lr: float | None = None,
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Asynchronous elastic averaging with Nesterov momentum in the workers.

    >>> eamsgd_async().local.momentum
    0.9
    """
    return _elastic("eamsgd-async", AsyncElastic(lr, momentum, period, batch), alpha, partition)


def _elastic(
    name: str, local: AsyncElastic, alpha: float | None, partition: Partition
) -> Algorithm:
    return Algorithm(
        name=name,
        partition=partition,
        local=local,
        communicate=Asynchronous(),
        reduce=Sum(),
        aggregate=ElasticExchange(alpha),
    )
