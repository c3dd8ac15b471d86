"""Post-local SGD lies between synchronous SGD and local SGD."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import model_averaging, post_local_sgd, ssgd
from hemiola.objectives import logistic
from hemiola.optim import SGD, Adam, HeavyBall, Nesterov, Step

STEPS, WORKERS, ROUNDS = 4, 4, 12
BATCH = MiniBatch(4)
LINEAR = [SGD(0.3), HeavyBall(0.1, 0.8), Nesterov(0.1, 0.8)]


def learn(run, two_classes, algorithm):
    return run(algorithm, logistic(0.01), two_classes(64), workers=WORKERS, updates=ROUNDS)


@pytest.mark.parametrize("optimizer", LINEAR, ids=lambda o: type(o).__name__)
def test_without_a_switch_it_is_synchronous_sgd(run, two_classes, same, optimizer):
    ours = learn(run, two_classes, post_local_sgd(STEPS, None, optimizer, batch=BATCH))
    same(ours.models, learn(run, two_classes, ssgd(optimizer, BATCH)).models)


@pytest.mark.parametrize("carry", ["keep", "reset", "average"])
@pytest.mark.parametrize("optimizer", [*LINEAR, Adam(0.05)], ids=lambda o: type(o).__name__)
def test_switched_at_once_it_is_local_sgd(run, two_classes, optimizer, carry):
    ours = learn(run, two_classes, post_local_sgd(STEPS, 0, optimizer, carry, BATCH))
    theirs = learn(run, two_classes, model_averaging(STEPS, optimizer, carry, BATCH))
    np.testing.assert_array_equal(ours.models, theirs.models)


def as_published(result, gradient, switch):
    """H = 1 before ``switch`` local steps, then STEPS; every worker's heavy-ball buffer goes on."""
    source, w, t, models = result.job.source, result.w0, 0, []
    buffers = [np.zeros_like(w)] * WORKERS
    for _ in range(ROUNDS):
        H = 1 if t < switch else STEPS
        mine = [w] * WORKERS
        for s in range(t, t + H):
            for k in range(WORKERS):
                g = gradient(mine[k], source.batch(k, s, BATCH).rows)
                buffers[k] = 0.8 * buffers[k] + g
                mine[k] = mine[k] - 0.1 * 0.5 ** (s // 5) * buffers[k]
        t, w = t + H, np.mean(mine, axis=0)
        models.append(w)
    return models


@pytest.mark.parametrize("switch", [0, 1, 5, ROUNDS])
def test_the_switch_comes_after_so_many_steps_and_memories_go_on(
    run, two_classes, gradient, same, apart, switch
):
    data, rule = two_classes(64), HeavyBall(0.1, 0.8, Step(every=5, factor=0.5))
    result = learn(run, two_classes, post_local_sgd(STEPS, switch, rule, batch=BATCH))

    def at(w, rows):
        return gradient(w, data, rows, 0.01)

    same(result.models, as_published(result, at, switch))
    if switch < ROUNDS:
        assert apart(result.models, as_published(result, at, switch + 1)) > 1e-6


def test_a_round_is_one_step_before_the_switch_and_many_after_it(run, two_classes):
    for switch, steps in ((None, ROUNDS), (0, STEPS * ROUNDS), (3, 3 + STEPS * (ROUNDS - 3))):
        result = learn(run, two_classes, post_local_sgd(STEPS, switch, SGD(0.1), batch=BATCH))
        assert result.ledger.local_steps == WORKERS * steps
