"""Asynchronous SGD: its delays, its bookkeeping and the delay at which it stops converging."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, ssgd
from hemiola.dataset import make_dataset
from hemiola.engines.serial import Serial
from hemiola.engines.simulator import Constant, LogNormal, Simulator
from hemiola.objectives import LinearObjective, logistic
from hemiola.optim import SGD, Adam, HeavyBall
from hemiola.partition import Whole

LR, BATCH = 0.3, MiniBatch(4)
ENGINES = [Serial(), Simulator()]
UNEVEN = Simulator(LogNormal(1e-3, 0.8), latency=2e-4, slow_share=0.3, slow_factor=3.0)


@dataclass
class Recording:
    """An aggregate that remembers every message."""

    inner: Any
    messages: list[Any] = field(default_factory=list)

    def init(self, w0, workers):
        return self.inner.init(w0, workers)

    def pull(self, state, worker):
        return self.inner.pull(state, worker)

    def push(self, state, up, info):
        self.messages.append((up, info))
        return self.inner.push(state, up, info)

    def model(self, state):
        return self.inner.model(state)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
@pytest.mark.parametrize("optimizer", [SGD(LR), HeavyBall(0.1), Adam(0.1)])
def test_asgd_of_one_worker_is_sgd_exactly(two_classes, run, engine, optimizer):
    data, objective = two_classes(), logistic(0.1)
    result = run(
        asgd(optimizer, batch=BATCH), objective, data, workers=1, updates=40, engine=engine
    )
    w = result.w0.copy()
    memory = optimizer.init(w)
    for t in range(40):
        g = objective.grad(w, result.job.source.batch(0, t, BATCH))
        w, memory = optimizer.step(w, g, memory, t)
        assert (w == result.models[t]).all()
    assert set(result.staleness) == {0}


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_asgd_of_one_worker_is_ssgd_of_one_worker(two_classes, run, engine):
    data = two_classes()
    one, other = (
        run(make(SGD(LR), batch=BATCH), logistic(), data, workers=1, updates=40, engine=engine)
        for make in (asgd, ssgd)
    )
    assert (one.last == other.last).all()


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
@pytest.mark.parametrize("workers", [1, 2, 4, 7])
def test_equal_workers_are_late_by_all_the_others(two_classes, run, engine, workers):
    result = run(
        asgd(SGD(LR), batch=BATCH),
        logistic(),
        two_classes(),
        workers=workers,
        updates=50,
        engine=engine,
    )
    assert result.staleness == [min(i, workers - 1) for i in range(50)]
    assert result.workers == [(i % workers,) for i in range(50)]


@pytest.mark.parametrize(("slow_share", "slow_factor"), [(0.25, math.sqrt(7)), (0.5, math.pi)])
def test_the_mean_delay_is_the_others_speed_times_the_own_period(
    two_classes, run, slow_share, slow_factor
):
    engine = Simulator(Constant(1.0), slow_share=slow_share, slow_factor=slow_factor)
    result = run(
        asgd(SGD(0.01), batch=BATCH),
        logistic(),
        two_classes(),
        workers=4,
        updates=4000,
        engine=engine,
    )
    slow = round(4 * slow_share)
    periods = [slow_factor] * slow + [1.0] * (4 - slow)
    late = np.array(result.staleness)[200:]
    who = np.array(result.workers)[200:, 0]
    for k in range(4):
        expected = periods[k] * sum(1 / T for r, T in enumerate(periods) if r != k)
        assert late[who == k].mean() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("engine", [*ENGINES, UNEVEN])
def test_the_model_is_the_start_minus_all_gradients_in_order_of_arrival(two_classes, run, engine):
    algorithm = asgd(SGD(LR), batch=BATCH)
    recording = Recording(algorithm.aggregate)
    result = run(
        replace(algorithm, aggregate=recording),
        logistic(),
        two_classes(),
        workers=4,
        updates=60,
        engine=engine,
    )
    w = result.w0
    for model, (up, _) in zip(result.models, recording.messages, strict=True):
        w = w - LR * up["g"]
        assert (model == w).all()
    assert [info.step for _, info in recording.messages] == list(range(60))
    assert [info.staleness for _, info in recording.messages] == result.staleness


@pytest.mark.parametrize("engine", [*ENGINES, UNEVEN])
def test_a_run_can_be_replayed_from_its_log_of_workers_and_delays(two_classes, run, engine):
    data, objective = two_classes(), logistic(0.1)
    result = run(asgd(SGD(LR), batch=BATCH), objective, data, workers=4, updates=60, engine=engine)
    versions, drawn = [result.w0], [0] * 4
    for (k,), late in zip(result.workers, result.staleness, strict=True):
        batch = result.job.source.batch(k, drawn[k], BATCH)
        drawn[k] += 1
        versions.append(versions[-1] - LR * objective.grad(versions[-1 - late], batch))
    assert all((a == b).all() for a, b in zip(result.models, versions[1:], strict=True))
    fresh = result.w0
    for k in range(4):
        fresh = fresh - LR * objective.grad(fresh, result.job.source.batch(k, 0, BATCH))
    assert np.abs(fresh - result.models[3]).max() > 1e-6, "delay is meant to matter"


@pytest.mark.parametrize("engine", [*ENGINES, UNEVEN])
def test_no_update_is_lost_or_counted_twice(two_classes, run, engine):
    result = run(
        asgd(SGD(LR), batch=BATCH), logistic(), two_classes(), workers=5, updates=73, engine=engine
    )
    ledger = result.ledger
    assert sum(ledger.updates) == sum(ledger.staleness) == ledger.local_steps == 73
    assert ledger.updates == [sum(who == (k,) for who in result.workers) for k in range(5)]
    assert ledger.staleness == np.bincount(result.staleness).tolist()


def late_quadratic(run, workers, lr, updates, engine):
    """|w| at the start and at most in the last hundred updates, of loss w^2 / 2."""
    data = make_dataset([[1.0]] * 8, [0.0] * 8, regression=True)
    algorithm = asgd(SGD(lr), batch=MiniBatch(None), partition=Whole())
    objective = LinearObjective("squared", 0.0, intercept=False)
    result = run(
        algorithm,
        objective,
        data,
        workers=workers,
        updates=updates,
        engine=engine,
        w0=np.array([1.0, 0.0]),
    )
    assert result.last[1] == 0.0
    return max(abs(w[0]) for w in result.models[-100:])


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_a_constant_delay_is_stable_up_to_its_limit(run, engine, workers):
    delay = workers - 1
    limit = 2 * math.sin(math.pi / (2 * (2 * delay + 1)))
    assert late_quadratic(run, workers, 0.98 * limit, 2500, engine) < 1e-3
    assert late_quadratic(run, workers, 1.02 * limit, 2500, engine) > 1e3
