"""Asynchronous elastic averaging: what an exchange conserves and when it is stable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice, pairwise

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


def total(saved):
    """All models and the centre. Each worker has given way by all e that it was sent."""
    return saved["server"]["w"] + np.sum([state["x"] for state in saved["workers"]], axis=0)


@dataclass(frozen=True)
class Biased:
    """beta = factor p alpha: the centre moves by that much of what the models move."""

    inner: ElasticExchange
    factor: float

    def push(self, state, up, info):
        c = state["w"]
        pushed = self.inner.push(state, up, info)
        return {**pushed, "w": c + self.factor * (pushed["w"] - c)}

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.mark.parametrize("engine", [Serial(), UNEVEN], ids=lambda e: e.name)
@pytest.mark.parametrize("factor", [1.0, 0.99, 1.5])
def test_the_sum_is_conserved_exactly_if_beta_is_p_alpha(two_classes, run, engine, factor):
    """In whole runs, of objectives without slope."""
    algorithm = easgd_async(0.3, 1, LR, BATCH)
    algorithm = replace(algorithm, aggregate=Biased(algorithm.aggregate, factor))
    ran = run(algorithm, Quadratic(0.0), two_classes(), workers=4, updates=1, engine=engine,
              w0=np.zeros(3))  # fmt: skip
    state, rng = ran.snapshot, np.random.default_rng(2)
    for pending in state["pending"]:
        state["workers"][pending["worker"]]["x"] += (step := rng.normal(size=3))
        pending["up"]["x"] = pending["up"]["x"] + step
    start, drift = total(state), []
    for event in islice(engine.run(ran.job, state), 40):
        drift.append(np.abs(total(event.snapshot()) - start).max())
    assert np.abs(event.server["w"]).max() > 1e-3, "the centre is meant to move"
    assert max(drift) < 1e-13 if factor == 1.0 else max(drift) > 1e-3


@pytest.mark.parametrize(("momentum", "period"), [(0.0, 1), (0.0, 3), (0.8, 2)])
@pytest.mark.parametrize("engine", [Serial(), UNEVEN], ids=lambda e: e.name)
def test_asynchronous_elastic_averaging_is_its_pseudo_code(
    two_classes, run, same, momentum, period, engine
):
    """In order of arrival: x sent, e = alpha (x - c), the gradient at the x sent, then x - e."""
    K, alpha, rounds = 3, 0.25, 12
    algorithm = eamsgd_async(alpha, period, momentum, LR, BATCH)
    data, objective = two_classes(), logistic(0.1)
    ran = run(algorithm, objective, data, workers=K, updates=K * rounds, engine=engine)
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
    for (k,), model in zip(ran.workers, ran.models, strict=True):
        e[k] = alpha * (x[k] - c)
        c = c + e[k]
        steps(k)
        same(model, c)


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
    ran = run(easgd_async(0.0, 2, LR, BATCH), objective, data, workers=3, updates=12, engine=UNEVEN)
    assert (ran.models[-1] == ran.w0).all()
    for k, state in enumerate(ran.snapshot["workers"]):
        x = ran.w0.copy()
        for t in range(state["t"]):
            x = x - LR * objective.grad(x, ran.job.source.batch(k, t, BATCH))
        np.testing.assert_array_equal(state["x"], x)
    assert len({state["t"] for state in ran.snapshot["workers"]}) > 1


def test_the_default_alpha_is_nine_tenths_over_the_workers(info):
    rule = ElasticExchange()
    state = rule.init(np.zeros(2), 5)
    pushed = rule.push(state, {"x": np.ones(2)}, info(0, workers=5))
    np.testing.assert_allclose(pushed["w"], 0.18, rtol=1e-15)


@pytest.mark.parametrize("gamma_h", [0.2, 0.8, 1.5])
@pytest.mark.parametrize("workers", [1, 3])
def test_round_robin_is_stable_up_to_the_published_elasticity(gamma_h, workers):
    """Stable iff 0 <= alpha <= (4 - 2 gamma h) / (4 - gamma h), whatever the number of workers."""
    limit = (4 - 2 * gamma_h) / (4 - gamma_h)

    def size(alpha):
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


def test_an_elastic_step_is_taken_once_even_if_the_next_message_is_refused():
    server = ElasticExchange(alpha=0.5)
    state = server.init(np.zeros(2), 1)
    state = server.push(state, {"x": np.ones(2)}, Info(0, (0,), 1.0, 0, 1))
    assert server.pull(state, 0)["e"].tolist() == [0.5, 0.5]
    assert server.pull(state, 0)["e"].tolist() == [0.0, 0.0]  # nothing was pushed in between
