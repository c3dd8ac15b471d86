"""SlowMo against its pseudo-code, local SGD, block momentum and Lookahead."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import bmuf, model_averaging, slowmo
from hemiola.objectives import logistic
from hemiola.optim import SGD, Adam, Cosine, HeavyBall, InverseSqrt, Step

LR, STEPS, WORKERS, ROUNDS = 0.3, 3, 4, 12
BATCH = MiniBatch(4)
DECAY = Step(every=2 * STEPS, factor=0.5)


def learn(run, two_classes, algorithm, workers=WORKERS, rounds=ROUNDS):
    return run(algorithm, logistic(0.01), two_classes(64), workers=workers, updates=rounds)


@pytest.fixture
def mean_of(two_classes, local_sgd):
    """(run) -> the function (x, n, gamma) -> the mean of the local models of round n."""
    data = two_classes(64)

    def of(result):
        def mean(x, n, gamma):
            times, source = range(n * STEPS, (n + 1) * STEPS), result.job.source
            return np.mean([
                local_sgd(x, data, [source.batch(k, t, BATCH).rows for t in times], gamma, 0.01)
                for k in range(result.job.workers)
            ], axis=0)  # fmt: skip

        return mean

    return of


def as_published(x, mean, alpha, beta, *, divide=True):
    """Algorithm 1 with a rate that halves every second round."""
    u, models = np.zeros_like(x), []
    for n in range(ROUNDS):
        gamma = LR * 0.5 ** (n // 2)
        change = x - mean(x, n, gamma)
        u = beta * u + (change / gamma if divide else change / LR)
        x = x - alpha * gamma * u
        models.append(x)
    return models


@pytest.mark.parametrize(("beta", "alpha"), [(0.5, 1.0), (0.8, 0.6), (0.0, 0.5)])
def test_slowmo_does_what_its_pseudo_code_says_when_the_rate_decays(
    run, two_classes, mean_of, same, beta, alpha
):
    result = learn(run, two_classes, slowmo(STEPS, beta, alpha, SGD(LR, DECAY), batch=BATCH))
    same(result.models, as_published(result.w0, mean_of(result), alpha, beta))


def test_a_forgotten_division_by_the_rate_is_noticed(run, two_classes, mean_of, apart):
    result = learn(run, two_classes, slowmo(STEPS, 0.5, 1.0, SGD(LR, DECAY), batch=BATCH))
    wrong = as_published(result.w0, mean_of(result), 1.0, 0.5, divide=False)
    assert apart(result.models, wrong) > 1e-4


@pytest.mark.parametrize("carry", ["keep", "reset", "average"])
@pytest.mark.parametrize(
    "optimizer", [SGD(LR), SGD(LR, InverseSqrt(5)), HeavyBall(0.1), Adam(0.05, schedule=DECAY)]
)
def test_without_slow_momentum_at_unit_rate_it_is_local_sgd(
    run, two_classes, same, optimizer, carry
):
    ours = learn(run, two_classes, slowmo(STEPS, 0.0, 1.0, optimizer, carry, BATCH))
    theirs = learn(run, two_classes, model_averaging(STEPS, optimizer, carry, BATCH))
    same(ours.models, theirs.models)


@pytest.mark.parametrize(("beta", "alpha"), [(0.5, 1.0), (0.9, 0.3)])
@pytest.mark.parametrize("optimizer", [SGD(LR), HeavyBall(0.1)])
def test_at_a_constant_rate_it_is_classic_block_momentum(
    run, two_classes, same, optimizer, beta, alpha
):
    ours = learn(run, two_classes, slowmo(STEPS, beta, alpha, optimizer, "keep", BATCH))
    classic = bmuf(STEPS, beta, alpha, False, optimizer, "keep", BATCH)
    same(ours.models, learn(run, two_classes, classic).models)


def test_one_worker_without_slow_momentum_is_lookahead(run, two_classes, mean_of, same):
    """Zhang et al., NeurIPS 2019: slow <- slow + alpha (fast - slow)."""
    result = learn(run, two_classes, slowmo(STEPS, 0.0, 0.5, SGD(LR), batch=BATCH), workers=1)
    slow, fast_after = result.w0, mean_of(result)
    for n, model in enumerate(result.models):
        slow = slow + 0.5 * (fast_after(slow, n, LR) - slow)
        same(model, slow)


def test_a_rate_that_falls_to_zero_leaves_the_model_where_it_is(run, two_classes):
    schedule = Cosine(total=4 * STEPS)
    result = learn(run, two_classes, slowmo(STEPS, 0.9, 1.0, SGD(LR, schedule), batch=BATCH))
    assert np.isfinite(result.models).all()
    assert (result.models[-1] == result.models[5]).all()
    assert (result.models[3] != result.models[2]).any()
