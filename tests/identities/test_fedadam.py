"""FedOpt's servers against their pseudo-code, FedAvg, block momentum and gradient descent."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import bmuf, fedadam, fedavg
from hemiola.objectives import logistic
from hemiola.optim import SGD, FedAdagrad, FedAdam, FedYogi, HeavyBall
from hemiola.partition import Dirichlet

CLIENTS, ROUNDS, LR = 5, 10, 0.3
BATCH = MiniBatch(5)


def learn(run, two_classes, algorithm, clients=CLIENTS):
    return run(algorithm, logistic(0.01), two_classes(55), workers=clients, updates=ROUNDS)


@pytest.fixture
def mean_of(two_classes, local_sgd):
    """(run) -> the function (x, n, seen) -> the weighted mean of the sampled clients' models."""
    data = two_classes(55)

    def of(result):
        source = result.job.source

        def mean(x, members, seen):
            models = []
            for k in members:
                steps = -(-source.samples(k) // BATCH.size)
                rows = [source.batch(k, t, BATCH).rows for t in range(seen[k], seen[k] + steps)]
                seen[k] += steps
                models.append(local_sgd(x, data, rows, LR, 0.01))
            sizes = np.array([source.samples(k) for k in members], dtype=float)
            return sizes / sizes.sum() @ np.array(models)

        return mean

    return of


def as_published(result, mean, rule, eta, beta1, beta2, tau):
    """Algorithm 2, in the paper's signs: Delta is what the clients changed, and is added."""
    x, m, v = result.w0, np.zeros(4), np.full(4, tau**2)
    seen, models = [0] * CLIENTS, []
    for members in result.workers:
        delta = mean(x, members, seen) - x
        m = beta1 * m + (1 - beta1) * delta
        if rule == "adagrad":
            v = v + delta**2
        elif rule == "yogi":
            v = v - (1 - beta2) * delta**2 * np.sign(v - delta**2)
        else:
            v = beta2 * v + (1 - beta2) * delta**2
        x = x + eta * m / (np.sqrt(v) + tau)
        models.append(x)
    return models


SERVERS = [
    ("adam", FedAdam(0.1, 0.9, 0.99, 1e-3), (0.1, 0.9, 0.99, 1e-3)),
    ("adam", FedAdam(0.5, 0.5, 0.8, 0.3), (0.5, 0.5, 0.8, 0.3)),
    ("yogi", FedYogi(0.1, 0.9, 0.99, 1e-3), (0.1, 0.9, 0.99, 1e-3)),
    ("yogi", FedYogi(0.2, 0.3, 0.5, 0.2), (0.2, 0.3, 0.5, 0.2)),
    ("adagrad", FedAdagrad(0.1, 0.0, 1e-3), (0.1, 0.0, 0.0, 1e-3)),
    ("adagrad", FedAdagrad(0.1, 0.6, 0.1), (0.1, 0.6, 0.0, 0.1)),
]


@pytest.mark.parametrize(("rule", "server", "options"), SERVERS)
def test_fedopt_does_what_its_pseudo_code_says(
    run, two_classes, mean_of, same, apart, rule, server, options
):
    algorithm = fedadam(0.6, 1, server, SGD(LR), batch=BATCH, partition=Dirichlet(0.4))
    result = learn(run, two_classes, algorithm)
    same(result.models, as_published(result, mean_of(result), rule, *options))
    other = {"adam": "yogi", "yogi": "adagrad", "adagrad": "adam"}[rule]
    assert apart(result.models, as_published(result, mean_of(result), other, *options)) > 1e-4


def test_a_server_with_momentum_is_fedavgm(run, two_classes, mean_of, same):
    server = HeavyBall(0.5, 0.8)
    algorithm = fedadam(0.6, 1, server, SGD(LR), batch=BATCH, partition=Dirichlet(0.4))
    result = learn(run, two_classes, algorithm)
    mean, x, v, seen = mean_of(result), result.w0, np.zeros(4), [0] * CLIENTS
    for members, model in zip(result.workers, result.models, strict=True):
        v = 0.8 * v + (x - mean(x, members, seen))
        x = x - 0.5 * v
        same(model, x)


def test_plain_sgd_of_rate_one_at_the_server_is_fedavg(run, two_classes, same):
    options = {"batch": BATCH, "partition": Dirichlet(0.4)}
    ours = learn(run, two_classes, fedadam(0.6, 2, SGD(1.0), SGD(LR), **options))
    same(ours.models, learn(run, two_classes, fedavg(0.6, 2, SGD(LR), **options)).models)


def test_momentum_at_the_server_is_classic_block_momentum(run, two_classes, same):
    data_of_one_epoch = 11 // 5 + 1
    ours = learn(run, two_classes, fedadam(1.0, 1, HeavyBall(0.5, 0.8), SGD(LR), batch=BATCH))
    blocks = bmuf(data_of_one_epoch, 0.8, 0.5, False, SGD(LR), "reset", BATCH)
    same(ours.models, learn(run, two_classes, blocks).models)


def test_one_client_with_whole_batches_descends_at_the_product_of_both_rates(
    run, two_classes, gradient, same
):
    algorithm = fedadam(1.0, 1, SGD(0.5), SGD(LR), batch=MiniBatch(None))
    result = learn(run, two_classes, algorithm, clients=1)
    w = result.w0
    for model in result.models:
        w = w - 0.5 * LR * gradient(w, two_classes(55), np.arange(55), 0.01)
        same(model, w)


@pytest.mark.parametrize("server", [FedAdam(0.1), FedYogi(0.1), FedAdagrad(0.1)])
def test_the_second_moment_starts_at_the_least_that_the_paper_allows(server):
    state = server.init(np.zeros(2))
    np.testing.assert_array_equal(state["v"], np.full(2, server.tau**2))
    still, _ = server.step(np.ones(2), np.zeros(2), state, 0)
    np.testing.assert_array_equal(still, np.ones(2))
