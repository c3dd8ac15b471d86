"""Model averaging against SSGD, against its local optimiser and against the pooled optimum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import model_averaging, one_shot_averaging, ssgd
from hemiola.contracts import Source
from hemiola.dataset import Batch, make_dataset
from hemiola.objectives import logistic, squared
from hemiola.optim import SGD, Adagrad, Adam, AdamW, HeavyBall, Nesterov
from hemiola.partition import Contiguous, Dirichlet, Shards, ShuffleSplit, Whole
from hemiola.reference import pooled_optimum

LR = 0.3
OPTIMIZERS = [SGD(LR), HeavyBall(0.1, 0.8), Nesterov(0.1, 0.8), Adagrad(LR), Adam(0.1), AdamW(0.1)]


@dataclass(frozen=True)
class SameForAll:
    """Every worker draws what worker 0 draws."""

    inner: Source

    def batch(self, worker, t, mini_batch):
        return self.inner.batch(0, t, mini_batch)

    def samples(self, worker):
        return self.inner.samples(0)

    def steps_per_epoch(self, worker, mini_batch):
        return self.inner.steps_per_epoch(0, mini_batch)


@dataclass(frozen=True)
class Turned:
    """The shards of another partition, given to the workers in reverse order."""

    inner: Dirichlet
    reshuffle_every: int | None = None

    def split(self, y, workers, rng):
        return self.inner.split(y, workers, rng)[::-1]


@pytest.mark.parametrize("optimizer", OPTIMIZERS[:3], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize(("n", "workers", "size"), [(64, 4, 4), (61, 7, None), (60, 1, 9)])
def test_averaging_after_every_step_of_a_linear_rule_is_ssgd(
    two_classes, run, same, optimizer, n, workers, size
):
    data, batch = two_classes(n), MiniBatch(size)
    averaged = run(
        model_averaging(1, optimizer, "keep", batch), logistic(), data, workers=workers, updates=40
    )
    summed = run(ssgd(optimizer, batch), logistic(), data, workers=workers, updates=40)
    same(averaged.models, summed.models)


@pytest.mark.parametrize("optimizer", OPTIMIZERS[3:], ids=lambda o: type(o).__name__)
def test_averaging_after_every_step_of_an_adaptive_rule_is_not_ssgd(
    two_classes, run, apart, optimizer
):
    data, batch = two_classes(64), MiniBatch(4)
    averaged = run(
        model_averaging(1, optimizer, "keep", batch), logistic(), data, workers=4, updates=20
    )
    summed = run(ssgd(optimizer, batch), logistic(), data, workers=4, updates=20)
    assert apart(averaged.last, summed.last) > 1e-6


@pytest.mark.parametrize("steps", [2, 5])
def test_averaging_after_many_steps_is_not_ssgd(two_classes, run, apart, steps):
    data, batch = two_classes(64), MiniBatch(4)
    averaged = run(
        model_averaging(steps, SGD(LR), batch=batch), logistic(), data, workers=4, updates=5
    )
    summed = run(ssgd(SGD(LR), batch), logistic(), data, workers=4, updates=5 * steps)
    assert apart(averaged.last, summed.last) > 1e-6


@pytest.mark.parametrize("carry", ["keep", "average"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("steps", [1, 3])
def test_identical_workers_are_one_worker(two_classes, run, same, optimizer, steps, carry):
    data = two_classes()
    algorithm = model_averaging(steps, optimizer, carry, MiniBatch(7))
    source = SameForAll(Shards(data, ShuffleSplit(), 1, 0))
    alone, together = (
        run(algorithm, logistic(), data, workers=workers, updates=12, source=source)
        for workers in (1, 5)
    )
    same(together.models, alone.models)


@pytest.mark.parametrize("steps", [1, 4])
def test_workers_that_all_see_everything_do_gradient_descent(
    two_classes, run, gradient, same, steps
):
    data = two_classes()
    algorithm = model_averaging(steps, SGD(LR), batch=MiniBatch(None), partition=Whole())
    result = run(algorithm, logistic(), data, workers=3, updates=6)
    w = result.w0
    for _ in range(6 * steps):
        w = w - LR * gradient(w, data, np.arange(len(data)))
    same(result.last, w)


@pytest.mark.parametrize("carry", ["keep", "average"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_one_worker_is_its_local_optimiser_exactly(two_classes, run, optimizer, carry):
    data, objective, batch = two_classes(), logistic(0.1), MiniBatch(7)
    algorithm = model_averaging(3, optimizer, carry, batch)
    result = run(algorithm, objective, data, workers=1, updates=10)
    w = result.w0.copy()
    memory = optimizer.init(w)
    for t in range(30):
        g = objective.grad(w, result.job.source.batch(0, t, batch))
        w, memory = optimizer.step(w, g, memory, t)
        if t % 3 == 2:
            assert (w == result.models[t // 3]).all()


def test_resetting_forgets_the_momentum_of_earlier_rounds(two_classes, run, apart):
    data, objective, batch = two_classes(), logistic(), MiniBatch(7)
    optimizer = HeavyBall(0.1)
    result = run(
        model_averaging(3, optimizer, "reset", batch), objective, data, workers=1, updates=8
    )
    w, kept = result.w0.copy(), result.w0.copy()
    long_memory = optimizer.init(kept)
    for t in range(24):
        if t % 3 == 0:
            memory = optimizer.init(w)
        batch_t = result.job.source.batch(0, t, batch)
        w, memory = optimizer.step(w, objective.grad(w, batch_t), memory, t)
        kept, long_memory = optimizer.step(kept, objective.grad(kept, batch_t), long_memory, t)
    assert (w == result.last).all()
    assert apart(kept, result.last) > 1e-6


def test_model_averaging_weighs_a_worker_by_its_samples(two_classes, run, local_sgd, same, apart):
    data, batch, steps = two_classes(50), MiniBatch(4), 3
    algorithm = model_averaging(steps, SGD(LR), batch=batch, partition=Dirichlet(0.5))
    result = run(algorithm, logistic(0.01), data, workers=4, updates=8)
    source = result.job.source
    sizes = [len(source.shard(k)) for k in range(4)]
    assert len(set(sizes)) > 1

    def transcription(weights):
        w = result.w0
        for r in range(8):
            times = range(r * steps, (r + 1) * steps)
            rows = [[source.batch(k, t, batch).rows for t in times] for k in range(4)]
            w = sum(p * local_sgd(w, data, rows[k], LR, 0.01) for k, p in enumerate(weights))
        return w

    same(result.last, transcription(np.array(sizes) / 50))
    assert apart(result.last, transcription(np.full(4, 0.25))) > 1e-6


def test_averaged_momentum_is_the_mean_of_the_workers_momentum(
    two_classes, run, gradient, same, apart
):
    data, batch, steps, lr, momentum = two_classes(64), MiniBatch(4), 3, 0.1, 0.8

    def transcription(source, w, average):
        buffers = [np.zeros_like(w)] * 4
        for r in range(6):
            models = []
            for k in range(4):
                x, v = w, buffers[k]
                for t in range(r * steps, (r + 1) * steps):
                    v = momentum * v + gradient(x, data, source.batch(k, t, batch).rows)
                    x = x - lr * v
                buffers[k] = v
                models.append(x)
            w = np.mean(models, axis=0)
            if average:
                buffers = [np.mean(buffers, axis=0)] * 4
        return w

    for carry in ("average", "keep"):
        algorithm = model_averaging(steps, HeavyBall(lr, momentum), carry, batch)
        result = run(algorithm, logistic(), data, workers=4, updates=6)
        same(result.last, transcription(result.job.source, result.w0, carry == "average"))
        other = transcription(result.job.source, result.w0, carry == "keep")
        assert carry == "keep" or apart(result.last, other) > 1e-6


def test_permuting_the_clients_changes_only_the_rounding(two_classes, run, same):
    data = two_classes(50)
    algorithm = model_averaging(5, SGD(LR), batch=MiniBatch(None), partition=Dirichlet(0.5))
    turned = replace(algorithm, partition=Turned(Dirichlet(0.5)))
    one, other = (
        run(chosen, logistic(), data, workers=4, updates=10) for chosen in (algorithm, turned)
    )
    assert one.job.source.samples(0) != one.job.source.samples(3)
    same(one.last, other.last)


@pytest.mark.parametrize("equal_hessians", [True, False])
def test_one_shot_averaging_is_exact_if_and_only_if_the_hessians_are_equal(run, equal_hessians):
    rng, workers = np.random.default_rng(2), 3
    blocks = [rng.normal(size=(20, 2)) for _ in range(workers)]
    X = np.concatenate([blocks[0]] * workers if equal_hessians else blocks)
    y = X @ [1.0, -2.0] + rng.normal(size=60) + np.repeat([-2.0, 0.0, 3.0], 20) * X[:, 0]
    data = make_dataset(X, y, regression=True)
    algorithm = one_shot_averaging(1500, SGD(0.3), MiniBatch(None), Contiguous())
    w = run(algorithm, squared(), data, workers=workers, updates=1).last
    best = np.linalg.lstsq(np.column_stack([X, np.ones(60)]), y, rcond=None)[0]
    np.testing.assert_allclose(pooled_optimum(squared(), data)[0], best, atol=1e-6)
    assert (np.abs(w - best).max() < 1e-10) == equal_hessians
    assert equal_hessians or np.abs(w - best).max() > 1e-3
    assert squared().value(best, Batch(data)) <= squared().value(w, Batch(data)) + 1e-12
