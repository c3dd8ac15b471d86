"""DiLoCo against its pseudo-code, model averaging and Nesterov block momentum."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import bmuf, diloco, model_averaging
from hemiola.objectives import logistic
from hemiola.optim import SGD, AdamW, Nesterov

STEPS, WORKERS, ROUNDS = 3, 4, 8
BATCH = MiniBatch(4)
INNER = AdamW(0.05, 0.1, 0.8, 0.95)


def learn(run, two_classes, algorithm):
    return run(algorithm, logistic(0.01), two_classes(64), workers=WORKERS, updates=ROUNDS)


def adamw(w, state, g):
    """AdamW as in its paper, with its own step count."""
    m, v, k = state
    k, w = k + 1, w - INNER.lr * INNER.decay * w
    m = INNER.beta1 * m + (1 - INNER.beta1) * g
    v = INNER.beta2 * v + (1 - INNER.beta2) * g * g
    m_hat, v_hat = m / (1 - INNER.beta1**k), v / (1 - INNER.beta2**k)
    return w - INNER.lr * m_hat / (np.sqrt(v_hat) + INNER.eps), (m, v, k)


def as_published(result, gradient, data, lr, mu, *, inner="kept"):
    """Algorithm 1; ``inner`` may also be ``averaged``, which is a mistake."""
    theta, buffer, models = result.w0, np.zeros(4), []
    states = [(np.zeros(4), np.zeros(4), 0)] * WORKERS
    for n in range(ROUNDS):
        mine = []
        for k in range(WORKERS):
            w = theta
            for t in range(n * STEPS, (n + 1) * STEPS):
                rows = result.job.source.batch(k, t, BATCH).rows
                w, states[k] = adamw(w, states[k], gradient(w, data, rows, 0.01))
            mine.append(w)
        if inner == "averaged":
            m, v = (np.mean([state[i] for state in states], axis=0) for i in (0, 1))
            states = [(m, v, states[0][2])] * WORKERS
        outer = np.mean([theta - w for w in mine], axis=0)
        buffer = mu * buffer + outer
        theta = theta - lr * (outer + mu * buffer)
        models.append(theta)
    return models


@pytest.mark.parametrize(("lr", "mu"), [(0.7, 0.9), (0.3, 0.5), (1.0, 0.0)])
def test_diloco_does_what_its_pseudo_code_says(run, two_classes, gradient, same, lr, mu):
    result = learn(run, two_classes, diloco(STEPS, Nesterov(lr, mu), INNER, BATCH))
    same(result.models, as_published(result, gradient, two_classes(64), lr, mu))


def test_averaging_the_inner_state_would_be_noticed(run, two_classes, gradient, apart):
    result = learn(run, two_classes, diloco(STEPS, Nesterov(0.7, 0.9), INNER, BATCH))
    wrong = as_published(result, gradient, two_classes(64), 0.7, 0.9, inner="averaged")
    assert apart(result.last, wrong[-1]) > 1e-4


@pytest.mark.parametrize("server", [SGD(1.0), Nesterov(1.0, 0.0)])
@pytest.mark.parametrize("inner", [INNER, SGD(0.3)])
def test_with_outer_rate_one_and_no_momentum_it_is_model_averaging(
    run, two_classes, same, server, inner
):
    ours = learn(run, two_classes, diloco(STEPS, server, inner, BATCH))
    theirs = learn(run, two_classes, model_averaging(STEPS, inner, "keep", BATCH))
    same(ours.models, theirs.models)


@pytest.mark.parametrize(("lr", "mu"), [(0.7, 0.9), (1.0, 0.75)])
def test_its_models_are_where_nesterov_block_momentum_starts_its_blocks(
    run, two_classes, same, lr, mu
):
    ours = learn(run, two_classes, diloco(STEPS, Nesterov(lr, mu), INNER, BATCH))
    blocks = learn(run, two_classes, bmuf(STEPS, mu, lr, True, INNER, "keep", BATCH))
    same(ours.models, [server["down"]["w"] for server in blocks.servers])


def test_the_inner_state_stays_with_its_worker(run, two_classes, apart):
    result = learn(run, two_classes, diloco(STEPS, optimizer=INNER, batch=BATCH))
    first, second = (state["optimizer"] for state in result.snapshot["workers"][:2])
    assert apart(first["m"], second["m"]) > 1e-4
    assert first["k"] == second["k"] == STEPS * ROUNDS
    messages, d = ROUNDS * WORKERS, 4
    assert result.ledger.bytes_up == messages * 8 * (d + 1)  # the model and its weight
    assert result.ledger.bytes_down == messages * 8 * d


def test_the_defaults_are_the_papers():
    assert diloco().aggregate.optimizer == Nesterov(0.7, 0.9)
    assert isinstance(diloco().local.optimizer, AdamW)
