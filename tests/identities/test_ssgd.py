"""Synchronous SGD is SGD on the workers' joined batches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, ssgd
from hemiola.objectives import logistic
from hemiola.optim import SGD, Adam, HeavyBall
from hemiola.partition import Contiguous

LR = 0.3


def sgd_on_joined_batches(run, data, batch, gradient, l2, updates):
    source, workers, w = run.job.source, run.job.workers, run.w0
    models = []
    for t in range(updates):
        rows = np.concatenate([source.batch(k, t, batch).rows for k in range(workers)])
        w = w - LR * gradient(w, data, rows, l2)
        models.append(w)
    return models


@dataclass(frozen=True)
class Dealt:
    """Contiguous shards, given to the workers in another order."""

    order: tuple[int, ...]
    reshuffle_every: int | None = None

    def split(self, y, workers, rng):
        shards = Contiguous().split(y, workers, rng)
        return [shards[k] for k in self.order]


@pytest.mark.parametrize("workers", [1, 2, 4, 7])
@pytest.mark.parametrize("size", [1, 5, None])
def test_ssgd_is_sgd_on_the_concatenated_batches(two_classes, run, gradient, same, workers, size):
    data, batch = two_classes(62), MiniBatch(size)
    algorithm = ssgd(SGD(LR), batch)
    result = run(algorithm, logistic(0.05), data, workers=workers, updates=25)
    sizes = {len(result.job.source.batch(k, t, batch)) for k in range(workers) for t in range(25)}
    assert size != 5 or len(sizes) > 1, "the last batch of an epoch is meant to be short"
    same(result.models, sgd_on_joined_batches(result, data, batch, gradient, 0.05, 25))


def test_ssgd_divides_by_the_samples_that_were_drawn(two_classes, run, gradient, same, apart):
    data, batch = two_classes(62), MiniBatch(0.1, "bernoulli")
    result = run(ssgd(SGD(LR), batch), logistic(), data, workers=4, updates=40, seed=3)
    drawn = [[len(result.job.source.batch(k, t, batch)) for k in range(4)] for t in range(40)]
    assert min(map(min, drawn)) == 0, "some batch is meant to be empty"
    assert all(map(sum, drawn))
    same(result.models, sgd_on_joined_batches(result, data, batch, gradient, 0.0, 40))

    w = result.w0
    for t in range(40):  # the mean of the workers' means is another thing
        rows = [result.job.source.batch(k, t, batch).rows for k in range(4)]
        w = w - LR * sum(gradient(w, data, r) for r in rows if len(r)) / 4
    assert apart(w, result.last) > 1e-6


@pytest.mark.parametrize("optimizer", [SGD(LR), HeavyBall(LR), Adam(LR)])
@pytest.mark.parametrize("draw", ["shuffled", "replacement", "bernoulli"])
def test_ssgd_of_one_worker_is_sgd_exactly(two_classes, run, optimizer, draw):
    data, objective, batch = two_classes(), logistic(0.1), MiniBatch(0.2, draw)
    result = run(ssgd(optimizer, batch), objective, data, workers=1, updates=30)
    w = result.w0.copy()
    memory = optimizer.init(w)
    for t in range(30):
        g = objective.grad(w, result.job.source.batch(0, t, batch))
        w, memory = optimizer.step(w, g, memory, t)
        assert (w == result.models[t]).all()


def test_ssgd_of_one_worker_is_asgd_of_one_worker_even_when_it_draws_no_sample(two_classes, run):
    data, batch = two_classes(), MiniBatch(0.02, "bernoulli")
    synchronous, asynchronous = (
        run(make(SGD(LR), batch=batch), logistic(0.1), data, workers=1, updates=20)
        for make in (ssgd, asgd)
    )
    drawn = [len(synchronous.job.source.batch(0, t, batch)) for t in range(20)]
    assert 0 in drawn and max(drawn) > 0
    assert (synchronous.last == asynchronous.last).all()


def test_relabelling_the_workers_changes_only_the_rounding(two_classes, run, same):
    data = two_classes(61)
    algorithm = ssgd(SGD(LR), MiniBatch(None))
    models = [
        run(
            replace(algorithm, partition=Dealt(order)), logistic(), data, workers=4, updates=30
        ).last
        for order in [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)]
    ]
    same(models[1], models[0])
    same(models[2], models[0])


@pytest.mark.parametrize("workers", [3, 7])
def test_gradients_are_added_in_rank_order_exactly(two_classes, run, workers):
    data, objective, batch = two_classes(62), logistic(0.05), MiniBatch(5)
    result = run(ssgd(SGD(LR), batch), objective, data, workers=workers, updates=20)
    w = result.w0
    for t in range(20):
        batches = [result.job.source.batch(k, t, batch) for k in range(workers)]
        drawn = sum(map(len, batches))
        g = np.zeros_like(w)
        for one in batches:
            g = g + len(one) / drawn * objective.grad(w, one)
        w = w - LR * g
        assert (w == result.models[t]).all()


@pytest.mark.parametrize("workers", [2, 5])
def test_ssgd_on_whole_shards_is_gradient_descent(two_classes, run, gradient, same, workers):
    data = two_classes(61)
    result = run(ssgd(SGD(LR), MiniBatch(None)), logistic(), data, workers=workers, updates=20)
    w = result.w0
    for _ in range(20):
        w = w - LR * gradient(w, data, np.arange(61))
    same(result.last, w)
