"""Asynchronous elastic averaging: what an exchange conserves and when it is stable."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from hemiola.algorithm import Info, MiniBatch
from hemiola.algorithms import eamsgd_async, easgd_async
from hemiola.algorithms.easgd_async import ElasticExchange
from hemiola.engines.serial import Serial
from hemiola.engines.simulator import LogNormal, Simulator
from hemiola.local import AsyncElastic
from hemiola.objectives import logistic

LR, BATCH = 0.3, MiniBatch(4)
UNEVEN = Simulator(LogNormal(1e-3, 0.9))


@dataclass(frozen=True)
class Quadratic:
    """h/2 |w|^2: no data needed."""

    h: float

    def grad(self, w, batch):
        return self.h * w


def exchanges(alpha, curvature, lr, order, workers, momentum=0.0, period=1):
    """Drive worker and server by hand: the models, the centre and every e, after each exchange."""
    rng = np.random.default_rng(0)
    local, server = AsyncElastic(lr, momentum, period), ElasticExchange(alpha)
    objective = Quadratic(curvature)

    class Task:
        n_workers = workers
        source = type("S", (), {"samples": staticmethod(lambda k: 1)})

        def __init__(self, worker):
            self.worker, self.objective = worker, objective

        def batch(self, t, mini_batch):
            return None

    states = [local.init(rng.normal(size=3)) for _ in range(workers)]
    center = server.init(rng.normal(size=3), workers)
    for step, k in enumerate(order):
        states[k], up = local.work(states[k], server.pull(center, k), Task(k))
        center = server.push(center, up, Info(step, (k,), 1.0, 0, workers))
        yield states, center


def test_without_gradients_an_exchange_conserves_the_sum_of_all_models():
    workers = 4
    order = np.random.default_rng(1).integers(0, workers, 60)
    sums = []
    for states, center in exchanges(0.3, 0.0, 1.0, order, workers):
        waiting = sum(center["e"][k] for k in range(workers))  # answers not yet subtracted
        sums.append(sum(s["x"] for s in states) + center["w"] - waiting)
    taken = set()
    start = next(i for i in range(len(order)) if (taken.add(order[i]) or len(taken) == workers))
    drift = np.abs(np.array(sums[start:]) - sums[start]).max()
    assert drift < 1e-12


@pytest.mark.parametrize(("momentum", "period"), [(0.0, 1), (0.0, 3), (0.8, 2)])
def test_asynchronous_elastic_averaging_is_its_pseudo_code(
    two_classes, run, same, momentum, period
):
    """In turns: x sent, e = alpha (x - c), the gradient at the x sent, then x - e."""
    K, alpha, rounds = 3, 0.25, 12
    algorithm = eamsgd_async(alpha, period, momentum, LR, BATCH)
    data, objective = two_classes(), logistic(0.1)
    ran = run(algorithm, objective, data, workers=K, updates=K * rounds, engine=Serial())
    c = ran.w0.copy()
    x, v = [c.copy() for _ in range(K)], [np.zeros_like(c) for _ in range(K)]
    e, t = [np.zeros_like(c) for _ in range(K)], [0] * K

    def steps(k):
        for i in range(period):
            batch = ran.job.source.batch(k, t[k], BATCH)
            v[k] = momentum * v[k] - LR * objective.grad(x[k] + momentum * v[k], batch)
            x[k] = x[k] + v[k]
            if i == 0:
                x[k] = x[k] - e[k]
            t[k] += 1

    for k in range(K):
        steps(k)
    for i in range(K * rounds):
        k = i % K
        e[k] = alpha * (x[k] - c)
        c = c + e[k]
        steps(k)
        same(ran.models[i], c)


def test_eamsgd_without_momentum_is_easgd_exactly(two_classes, run):
    data, objective = two_classes(), logistic(0.1)
    both = [
        run(algorithm, objective, data, workers=3, updates=40, engine=UNEVEN).models[-1]
        for algorithm in (
            easgd_async(0.2, 2, LR, BATCH), eamsgd_async(0.2, 2, 0.0, LR, BATCH))
    ]  # fmt: skip
    assert (both[0] == both[1]).all()


def test_without_elasticity_the_centre_stays_and_workers_are_alone(two_classes, run):
    data, objective = two_classes(), logistic(0.1)
    ran = run(easgd_async(0.0, 2, LR, BATCH), objective, data, workers=3, updates=12)
    assert (ran.models[-1] == ran.w0).all()


@pytest.mark.parametrize("gamma_h", [0.2, 0.8, 1.5])
@pytest.mark.parametrize("workers", [1, 3])
def test_round_robin_is_stable_up_to_the_published_elasticity(gamma_h, workers):
    """Stable iff 0 <= alpha <= (4 - 2 gamma h) / (4 - gamma h), whatever the number of workers."""
    limit = (4 - 2 * gamma_h) / (4 - gamma_h)

    def size(alpha):
        if alpha > 1:  # beyond the range of the option: drive the map itself
            M = np.array([[1 - gamma_h - alpha, alpha], [alpha, 1 - alpha]])
            return np.abs(np.linalg.eigvals(M)).max() ** 400
        order = [i % workers for i in range(400 * workers)]
        *_, (states, center) = exchanges(alpha, gamma_h, 1.0, order, workers)
        return max(np.abs(center["w"]).max(), *(np.abs(s["x"]).max() for s in states))

    assert size(0.97 * limit) < 1e-1
    assert size(1.03 * limit) > 1e1


def test_one_worker_and_the_centre_are_a_map_of_two_numbers():
    gamma_h, alpha = 0.6, 0.35
    M = np.array([[1 - gamma_h - alpha, alpha], [alpha, 1 - alpha]])
    seen = []
    for states, center in exchanges(alpha, gamma_h, 1.0, [0] * 12, 1):
        seen.append((states[0]["x"] + 0.0, center["w"], center["e"][0]))
    for (x, c, e), (_, c_next, _) in pairwise(seen):
        # after a push the worker still has to take its gradient step and subtract e
        stepped = M @ np.array([x, c - e])
        np.testing.assert_allclose((stepped[0] - c) * alpha + c, c_next, rtol=1e-10, atol=1e-12)
