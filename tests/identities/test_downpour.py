"""Downpour SGD: the paper's client and server, step by step, and what is pushed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import downpour, ssgd
from hemiola.engines.simulator import LogNormal, Simulator
from hemiola.errors import OptionError
from hemiola.job import PULL
from hemiola.objectives import logistic
from hemiola.optim import SGD, Adagrad

LR, BATCH, K = 0.3, MiniBatch(4), 4
UNEVEN = Simulator(LogNormal(1e-3, 0.9), slow_share=0.25, slow_factor=3.0)


@pytest.mark.parametrize(("n_push", "n_fetch"), [(1, 1), (1, 3), (2, 2), (2, 6)])
def test_downpour_is_its_pseudo_code(two_classes, traced, same, n_push, n_fetch):
    alpha, g0 = 0.2, 0.5
    algorithm = downpour(n_push, n_fetch, Adagrad(g0, initial=0.1), alpha, BATCH)
    job, model = traced(algorithm, two_classes(), 60)
    w, S = job.w0.copy(), np.full(job.w0.size, 0.1)
    params, step, acc = {}, [0] * K, {}
    for kind, k in zip(job.trace.kinds, job.trace.workers, strict=True):
        if kind == PULL:
            if step[k] % n_fetch == 0:
                params[k] = w.copy()
            acc[k] = np.zeros_like(w)
            for _ in range(n_push):
                g = job.objective.grad(params[k], job.source.batch(k, step[k], BATCH))
                acc[k] += g
                params[k] = params[k] - alpha * g
                step[k] += 1
        else:
            S = S + acc[k] ** 2
            w = w - g0 / (np.sqrt(S) + 1e-10) * acc[k]
    same(model, w)


def test_one_downpour_replica_with_a_plain_server_is_sgd_exactly(two_classes, traced):
    data = two_classes()
    algorithm = downpour(1, 1, SGD(LR), 0.7, BATCH)
    _, model = traced(algorithm, data, 40, workers=1)
    _, plain = traced(ssgd(SGD(LR), BATCH), data, 40, workers=1)
    assert (model == plain).all()


def test_what_downpour_pushes_is_what_it_computed(two_classes, traced, same):
    """With unit steps at the server, w falls by exactly the sum of all gradients."""
    job, model = traced(downpour(2, 4, SGD(1.0), 1e-3, BATCH), two_classes(), 50)
    total, params, step, acc = np.zeros_like(job.w0), {}, [0] * K, {}
    w = job.w0.copy()
    for kind, k in zip(job.trace.kinds, job.trace.workers, strict=True):
        if kind == PULL:
            if step[k] % 4 == 0:
                params[k] = w.copy()
            acc[k] = np.zeros_like(w)
            for _ in range(2):
                g = job.objective.grad(params[k], job.source.batch(k, step[k], BATCH))
                acc[k] += g
                params[k] = params[k] - 1e-3 * g
                step[k] += 1
        else:
            total += acc[k]
            w = w - acc[k]
    same(job.w0 - model, total)


@dataclass
class Summing:
    """Logistic loss that adds up the gradients it is asked for."""

    total: Any = 0.0

    def grad(self, w, batch):
        g = logistic(0.1).grad(w, batch)
        self.total = self.total + g
        return g

    def __getattr__(self, name):
        return getattr(logistic(0.1), name)


@pytest.mark.parametrize(("n_push", "n_fetch"), [(1, 1), (2, 4), (3, 3)])
def test_every_gradient_that_downpour_computes_is_pushed_once(
    two_classes, run, same, n_push, n_fetch
):
    """What the server took, by its unit steps, and what is on its way to it."""
    objective, algorithm = Summing(), downpour(n_push, n_fetch, SGD(1.0), 1e-3, BATCH)
    ran = run(algorithm, objective, two_classes(), workers=K, updates=50, engine=UNEVEN,
              w0=np.full(4, 0.1))  # fmt: skip
    on_the_way = sum(arrival["up"]["g"] for arrival in ran.snapshot["pending"])
    same(ran.w0 - ran.last + on_the_way, objective.total)


def test_downpour_refuses_a_fetch_between_pushes_by_name():
    with pytest.raises(OptionError, match=r"n_fetch = 3 must be a multiple of n_push = 2"):
        downpour(2, 3)
