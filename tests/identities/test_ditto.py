"""Ditto: the global model is FedAvg's, and what its personal models are."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola import Result
from hemiola.algorithm import MiniBatch
from hemiola.algorithms import ditto, fedavg
from hemiola.errors import OptionError
from hemiola.faults import Die
from hemiola.objectives import logistic, squared
from hemiola.optim import SGD, Adam
from hemiola.partition import Contiguous, Dirichlet
from hemiola.training import fit

LR, CLIENTS, ROUNDS = 0.2, 5, 7
BATCH, WHOLE = MiniBatch(5), MiniBatch(None)


def learn(run, two_classes, algorithm, rounds=ROUNDS):
    return run(algorithm, logistic(0.01), two_classes(55), workers=CLIENTS, updates=rounds)


def own_models(result):
    """v of every client, None of those that never took part."""
    states = result.snapshot["workers"]
    return [None if state is None else state["v"] for state in states]


@pytest.mark.parametrize("lam", [0.0, 0.1, 1.0, 4.0])
@pytest.mark.parametrize("optimizer", [SGD(LR), Adam(0.05)])
def test_the_global_models_are_those_of_fedavg_for_every_lambda(run, two_classes, optimizer, lam):
    options = {"optimizer": optimizer, "batch": BATCH, "partition": Dirichlet(0.4)}
    ours = learn(run, two_classes, ditto(lam, 0.6, 2, 3, **options))
    theirs = learn(run, two_classes, fedavg(0.6, 2, **options))
    np.testing.assert_array_equal(ours.models, theirs.models)


def as_published(result, data, gradient, lam, *, anchor="received", kept=True):
    """All clients; ``anchor="updated"`` and ``kept=False`` are well-known mistakes."""
    source, w, epoch = result.job.source, result.w0, 3
    mine = [result.w0] * CLIENTS

    def at(v, k, t):
        return gradient(v, data, source.batch(k, t, BATCH).rows, 0.01)

    for n in range(ROUNDS):
        models = []
        for k in range(CLIENTS):
            v = w
            for t in range(n * epoch, (n + 1) * epoch):
                v = v - LR * at(v, k, t)
            models.append(v)
            center = w if anchor == "received" else v
            v = mine[k] if kept else w
            for t in range(n * epoch, (n + 1) * epoch):
                v = v - LR * (at(v, k, t) + lam * (v - center))
            mine[k] = v
        w = np.mean(models, axis=0)
    return mine


@pytest.mark.parametrize("lam", [0.1, 1.0])
def test_ditto_does_what_its_pseudo_code_says(run, two_classes, gradient, same, apart, lam):
    data = two_classes(55)
    result = learn(run, two_classes, ditto(lam, optimizer=SGD(LR), batch=BATCH))
    same(own_models(result), as_published(result, data, gradient, lam))
    for mistake in ({"anchor": "updated"}, {"kept": False}):
        wrong = as_published(result, data, gradient, lam, **mistake)
        assert apart(own_models(result), wrong) > 1e-4


def test_without_a_spring_personal_models_are_local_training(run, two_classes, local_sgd, same):
    data = two_classes(55)
    result = learn(run, two_classes, ditto(0.0, 0.6, 1, 2, SGD(LR), batch=BATCH))
    for k, v in enumerate(own_models(result)):
        steps = 2 * 3 * sum(k in members for members in result.workers)
        rows = [result.job.source.batch(k, t, BATCH).rows for t in range(steps)]
        same(v, local_sgd(result.w0, data, rows, LR, 0.01))


def test_a_strong_spring_holds_personal_models_at_the_global_one_in_inverse_proportion(
    run, two_classes
):
    gaps = []
    for lam in (1e2, 1e3, 1e4):
        algorithm = ditto(lam, 1.0, 1, 20, SGD(0.5 / lam), batch=WHOLE)
        result = learn(run, two_classes, algorithm, rounds=3)
        received = result.models[-2]
        gaps.append(max(np.linalg.norm(v - received) for v in own_models(result)))
    assert gaps[0] > 1e-4
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.05)
    assert gaps[1] / gaps[2] == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("lam", [0.3, 2.0])
def test_on_quadratics_a_personal_model_lies_between_its_own_optimum_and_the_global_one(
    run, line, lam
):
    """v_k* = (H + lambda I)^-1 (H u_k + lambda w)."""
    data = line(60)
    algorithm = ditto(lam, 1.0, 1, 1, SGD(0.2), batch=WHOLE, partition=Contiguous())
    result = run(algorithm, squared(), data, workers=3, updates=1500)
    w, X = result.last, np.column_stack([data.X, np.ones(60)])
    for k, v in enumerate(own_models(result)):
        rows = result.job.source.shard(k)
        H = X[rows].T @ X[rows] / len(rows)
        u = np.linalg.lstsq(X[rows], data.y[rows], rcond=None)[0]
        expected = np.linalg.solve(H + lam * np.eye(4), H @ u + lam * w)
        np.testing.assert_allclose(v, expected, rtol=1e-9, atol=1e-9)
        assert np.linalg.norm(v - u) > 1e-3 and np.linalg.norm(v - w) > 1e-3


def test_personal_models_of_clients_that_sit_out_are_unchanged(run, two_classes):
    algorithm = ditto(1.0, 0.4, optimizer=SGD(LR), batch=BATCH)
    before: list = [None] * CLIENTS
    for n in range(1, ROUNDS + 1):
        result = learn(run, two_classes, algorithm, rounds=n)
        now = own_models(result)
        for k in range(CLIENTS):
            if k in result.workers[-1]:
                assert before[k] is None or (now[k] != before[k]).any()
            else:
                assert now[k] is before[k] is None or (now[k] == before[k]).all()
        before = now


def test_personal_models_are_never_sent(run, two_classes):
    ours = learn(run, two_classes, ditto(optimizer=SGD(LR), batch=BATCH)).ledger
    theirs = learn(run, two_classes, fedavg(optimizer=SGD(LR), batch=BATCH)).ledger
    assert (ours.bytes_up, ours.bytes_down) == (theirs.bytes_up, theirs.bytes_down)
    assert ours.local_steps == 2 * theirs.local_steps


# What comes back with the result


@pytest.fixture
def trained(two_classes):
    """(rounds=, **options) -> the result of training with few of five clients a round."""

    def train(rounds=4, algorithm=None, **options):
        algorithm = algorithm or ditto(1.0, 0.4, optimizer=SGD(LR), batch=BATCH)
        given = {"workers": CLIENTS, "rounds": rounds, "seed": 1} | options
        return fit(algorithm, "logistic", two_classes(55), **given)

    return train


@pytest.mark.parametrize("engine", ["threads", "simulator", "processes"])
def test_personal_models_come_back_with_the_result_from_every_engine(trained, engine):
    reference = trained()
    assert reference.personal.shape == (CLIENTS, 4)
    assert len({v.tobytes() for v in reference.personal}) > 2
    np.testing.assert_array_equal(trained(engine=engine).personal, reference.personal)


def test_a_client_that_never_took_part_has_the_starting_point(trained):
    w0 = np.array([0.1, 0.2, 0.3, 0.4])
    personal = trained(1, w0=w0).personal
    assert sum((v == w0).all() for v in personal) == CLIENTS - 2


def test_a_resumed_run_has_the_personal_models_of_one_that_never_stopped(trained, tmp_path):
    whole = trained(6)
    trained(3, checkpoint=tmp_path)
    again = trained(6, checkpoint=tmp_path, resume=True)
    finished = trained(6, checkpoint=tmp_path, resume=True)
    for other in (again, finished):
        np.testing.assert_array_equal(other.personal, whole.personal)


def test_personal_models_are_saved_and_predict(trained, two_classes, tmp_path):
    result, X = trained(), two_classes(55).X
    result.save(tmp_path / "model.npz")
    loaded = Result.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.personal, result.personal)
    for k in range(CLIENTS):
        model = loaded.personal_model(k)
        np.testing.assert_array_equal(model.weights, result.personal[k])
        expected = (X @ result.personal[k][:-1] + result.personal[k][-1] > 0).astype(int)
        np.testing.assert_array_equal(model.predict(X), expected)


def test_a_client_that_dies_starts_again_and_its_steps_are_counted(trained):
    algorithm = ditto(0.0, optimizer=SGD(LR), batch=BATCH)
    whole = trained(6, algorithm, engine="simulator")
    broken = trained(6, algorithm, engine="simulator", faults=[Die(1, 3, back_after=0.0)])
    steps = [record.local_steps for record in broken.history.records]
    assert steps == sorted(steps)
    assert whole.history.last.local_steps - steps[-1] == 6  # a piece was lost with its worker
    alike = [(whole.personal[k] == broken.personal[k]).all() for k in range(CLIENTS)]
    assert alike == [True, False, True, True, True]


def test_other_algorithms_have_no_personal_models(trained, tmp_path):
    result = trained(algorithm=fedavg(optimizer=SGD(LR), batch=BATCH))
    assert result.personal is None
    result.save(tmp_path / "model.npz")
    assert Result.load(tmp_path / "model.npz").personal is None
    with pytest.raises(OptionError, match="no personal model of worker 0: this result has 0"):
        result.personal_model(0)
