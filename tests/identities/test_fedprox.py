"""FedProx against its pseudo-code and FedAvg."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import fedavg, fedprox
from hemiola.objectives import logistic
from hemiola.optim import SGD, Adam
from hemiola.partition import Dirichlet, ShuffleSplit
from hemiola.reference import pooled_optimum

LR, CLIENTS, ROUNDS = 0.3, 5, 8
BATCH = MiniBatch(5)


def learn(run, two_classes, algorithm, clients=CLIENTS, rounds=ROUNDS):
    return run(algorithm, logistic(0.01), two_classes(55), workers=clients, updates=rounds)


@pytest.mark.parametrize("optimizer", [SGD(LR), Adam(0.05)])
@pytest.mark.parametrize("partition", [ShuffleSplit(), Dirichlet(0.4)])
def test_without_a_spring_it_is_fedavg_bit_for_bit(run, two_classes, optimizer, partition):
    options = {"optimizer": optimizer, "batch": BATCH, "partition": partition}
    ours = learn(run, two_classes, fedprox(0.0, 0.6, 2, **options))
    theirs = learn(run, two_classes, fedavg(0.6, 2, **options))
    np.testing.assert_array_equal(ours.models, theirs.models)


def as_published(result, data, gradient, mu, epochs, *, anchor="received"):
    """Sampled clients, n_k-weighted; the spring goes to the received model."""
    source, w, seen = result.job.source, result.w0, [0] * CLIENTS
    for members in result.workers:
        models = []
        for k in members:
            mine, steps = w, epochs * -(-source.samples(k) // BATCH.size)
            for t in range(seen[k], seen[k] + steps):
                g = gradient(mine, data, source.batch(k, t, BATCH).rows, 0.01)
                center = w if anchor == "received" else result.w0
                mine = mine - LR * (g + mu * (mine - center))
            seen[k] += steps
            models.append(mine)
        sizes = np.array([source.samples(k) for k in members], dtype=float)
        w = sizes / sizes.sum() @ np.array(models)
    return w


@pytest.mark.parametrize("mu", [0.1, 1.0, 3.0])
@pytest.mark.parametrize(("participation", "epochs"), [(0.6, 2), (1.0, 1)])
def test_fedprox_does_what_its_pseudo_code_says(
    run, two_classes, gradient, same, apart, mu, participation, epochs
):
    algorithm = fedprox(mu, participation, epochs, SGD(LR), batch=BATCH, partition=Dirichlet(0.4))
    result = learn(run, two_classes, algorithm)
    same(result.last, as_published(result, two_classes(55), gradient, mu, epochs))
    wrong = as_published(result, two_classes(55), gradient, mu, epochs, anchor="start")
    assert apart(result.last, wrong) > 1e-4


def test_a_strong_spring_holds_clients_at_the_model_in_inverse_proportion(run, two_classes):
    moved = []
    for mu in (1e3, 1e4):
        algorithm = fedprox(mu, 1.0, 20, SGD(0.5 / mu), batch=MiniBatch(None))
        result = learn(run, two_classes, algorithm, rounds=1)
        moved.append(np.linalg.norm(result.last - result.w0))
    assert moved[0] > 1e-5
    assert moved[0] / moved[1] == pytest.approx(10, rel=0.01)


def test_a_spring_does_not_move_the_optimum_of_one_client(run, two_classes):
    algorithm = fedprox(1.0, 1.0, 5, SGD(0.5), batch=MiniBatch(None))
    result = learn(run, two_classes, algorithm, clients=1, rounds=800)
    best = pooled_optimum(logistic(0.01), two_classes(55))[0]
    np.testing.assert_allclose(result.last, best, atol=1e-4)
