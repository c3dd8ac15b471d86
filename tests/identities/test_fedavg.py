"""Federated averaging against gradient descent and against its pseudo-code."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import fedavg, model_averaging
from hemiola.communicate import Synchronous
from hemiola.objectives import logistic
from hemiola.optim import SGD, HeavyBall
from hemiola.partition import ByLabel, Dirichlet, RandomSampling, ShuffleSplit

LR = 0.3


@pytest.mark.parametrize("partition", [ShuffleSplit(), Dirichlet(0.3), ByLabel()])
def test_fedavg_of_all_clients_one_epoch_and_whole_shards_is_gradient_descent(
    two_classes, run, gradient, same, partition
):
    data = two_classes(53)
    algorithm = fedavg(1.0, 1, SGD(LR), batch=MiniBatch(None), partition=partition)
    result = run(algorithm, logistic(0.1), data, workers=4, updates=25)
    w = result.w0
    for r in range(25):
        w = w - LR * gradient(w, data, np.arange(53), 0.1)
        same(result.models[r], w)


def client_updates(result, data, local_sgd, epochs, batch, weigh):
    """The pseudo-code, with the clients that the run sampled; ``weigh(sizes)`` weighs them."""
    source, w, seen = result.job.source, result.w0, [0] * result.job.workers
    for members in result.workers:
        models = []
        for k in members:
            steps = epochs * -(-source.samples(k) // batch.size)
            rows = [source.batch(k, t, batch).rows for t in range(seen[k], seen[k] + steps)]
            seen[k] += steps
            models.append(local_sgd(w, data, rows, LR))
        sizes = np.array([len(source.shard(k)) for k in members], dtype=float)
        w = sum(p * model for p, model in zip(weigh(sizes), models, strict=True))
    return w


@pytest.mark.parametrize("partition", [Dirichlet(0.4), RandomSampling((4, 9, 15, 6, 21))])
@pytest.mark.parametrize(("participation", "epochs"), [(0.6, 1), (0.4, 3), (1.0, 2)])
def test_fedavg_normalises_its_weights_over_the_sampled_clients(
    two_classes, run, local_sgd, same, apart, partition, participation, epochs
):
    data, batch, n = two_classes(55), MiniBatch(5), 55
    algorithm = fedavg(participation, epochs, SGD(LR), batch=batch, partition=partition)
    result = run(algorithm, logistic(), data, workers=5, updates=8, seed=1)
    assert {len(members) for members in result.workers} == {round(5 * participation)}

    def outcome(weigh):
        return client_updates(result, data, local_sgd, epochs, batch, weigh)

    same(result.last, outcome(lambda sizes: sizes / sizes.sum()))
    assert apart(result.last, outcome(lambda sizes: np.full(len(sizes), 1 / len(sizes)))) > 1e-6
    if participation < 1:
        assert apart(result.last, outcome(lambda sizes: sizes / n)) > 1e-6


def test_fedavg_with_participation_zero_asks_one_client_a_round(two_classes, run):
    algorithm = fedavg(0.0, 1, SGD(LR), batch=MiniBatch(5))
    result = run(algorithm, logistic(), two_classes(), workers=6, updates=40)
    assert {len(members) for members in result.workers} == {1}
    assert {members[0] for members in result.workers} == set(range(6))
    assert sum(result.ledger.updates) == 40


def test_the_clients_of_a_round_are_distinct_and_all_alike_likely():
    discipline = Synchronous(participation=0.3)
    rounds = [tuple(discipline.members(r, 10, seed=4)) for r in range(2000)]
    assert all(len(set(members)) == 3 and list(members) == sorted(members) for members in rounds)
    counts = np.bincount(np.concatenate(rounds), minlength=10)
    assert np.abs(counts / 2000 - 0.3).max() < 0.05
    assert len(set(rounds)) > 100


def test_fedavg_in_which_an_epoch_is_one_step_is_model_averaging(two_classes, run):
    data = two_classes(60)
    federated = fedavg(1.0, 4, HeavyBall(0.1), batch=MiniBatch(None))
    averaging = model_averaging(4, HeavyBall(0.1), "reset", MiniBatch(None))
    one, other = (
        run(algorithm, logistic(), data, workers=4, updates=10)
        for algorithm in (federated, averaging)
    )
    assert (one.last == other.last).all()


def test_a_client_that_sits_a_round_out_keeps_its_place_in_its_epoch(two_classes, run):
    algorithm = fedavg(0.5, 1, SGD(LR), batch=MiniBatch(5))
    result = run(algorithm, logistic(), two_classes(60), workers=4, updates=9)
    states = result.snapshot["workers"]
    for k in range(4):
        taken = sum(k in members for members in result.workers)
        assert taken == result.ledger.updates[k]
        assert (0 if states[k] is None else states[k]["t"]) == 3 * taken


def test_whoever_takes_part_does_not_depend_on_what_is_learned(two_classes, run):
    chosen = [
        run(fedavg(0.5, 1, SGD(lr)), logistic(), two_classes(60), workers=6, updates=10).workers
        for lr in (0.1, 1.0)
    ]
    assert chosen[0] == chosen[1]
