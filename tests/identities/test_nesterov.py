"""The two forms of Nesterov's momentum are one method seen from two points."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import eamsgd, model_averaging, ssgd
from hemiola.objectives import logistic
from hemiola.optim import Nesterov

LR, BATCH = 0.2, MiniBatch(6)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_nesterov_iterates_are_the_look_ahead_points(two_classes, run, gradient, same, momentum):
    data = two_classes()
    result = run(ssgd(Nesterov(LR, momentum), BATCH), logistic(), data, workers=1, updates=40)
    x, v = result.w0, np.zeros_like(result.w0)
    for t in range(40):
        g = gradient(x + momentum * v, data, result.job.source.batch(0, t, BATCH).rows)
        v = momentum * v - LR * g
        x = x + v
        same(result.models[t], x + momentum * v)


def test_a_worker_without_springs_sees_nesterov_sgd_from_the_other_point(two_classes, run, same):
    data, momentum = two_classes(), 0.9
    elastic = run(eamsgd(0.0, 3, momentum, LR, BATCH), logistic(), data, workers=1, updates=10)
    plain = run(
        model_averaging(3, Nesterov(LR, momentum), "keep", BATCH),
        logistic(),
        data,
        workers=1,
        updates=10,
    )
    state = elastic.snapshot["workers"][0]
    same(plain.last, state["x"] + momentum * state["v"])
