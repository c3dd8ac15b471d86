"""Cyclades is the serial run, bit for bit, and the serial run is what the papers say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from hemiola.algorithm import SharedMemoryAlgorithm
from hemiola.algorithms import cyclades
from hemiola.algorithms.conflicts import Schedule, serial
from hemiola.dataset import make_dataset
from hemiola.errors import DataError, OptionError
from hemiola.job import Work
from hemiola.objectives import LinearObjective, logistic, squared
from hemiola.reference import pooled_optimum
from hemiola.rng import stream
from hemiola.training import fit

UPDATES = ["sgd", "svrg", "saga", "sparse-saga"]
N, D, EPOCHS, LR = 300, 600, 3, 0.3


def sparse_data(seed=0, *, regression=False, popular=0.0, weight=None, dtype=np.float64):
    """Three features a row on average, and a popular one if asked for."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D)) * (rng.random((N, D)) < 3 / D)
    X[:, 0] = rng.normal(size=N) * (rng.random(N) < popular)
    z = X @ rng.normal(size=D) + 0.3 * rng.normal(size=N) + 0.5
    y = z if regression else (z > 0).astype(int)
    table = sparse.csr_array(X.astype(dtype))
    return make_dataset(table, y, weight=weight, regression=regression)


def trained(data, objective, *, threads=1, epochs=EPOCHS, seed=3, **options):
    """The weights after some passes from a start that is no optimum, and the plan."""
    solver = cyclades(**{"lr": LR, **options}).solver
    plan = solver.prepare(Work(objective, data, threads, seed))
    state = solver.init(plan, start(data))
    for epoch in range(epochs):
        solver.epoch(plan, state, epoch)
    return solver.model(plan, state), plan


def start(data):
    w0 = np.random.default_rng(9).normal(size=data.n_features + 1).astype(data.dtype)
    w0[-1] = 0.2
    return w0


# The papers' steps, dense and written out


def slope_of(objective, z, y):
    return z - y if objective.loss == "squared" else 1 / (1 + np.exp(-z)) - y


def dense_run(data, objective, update, *, batch, hot, seed=3, epochs=EPOCHS, lr=LR):
    """Every step changes all weights at once; those of ``hot`` only at the end of a batch."""
    order = stream(seed, "cyclades").permutation(len(data))
    A = np.column_stack([data.X.toarray()[order], np.ones(len(data))])
    y = data.y[order]
    s = np.ones(len(y)) if data.weight is None else data.weight[order]
    n, d = A.shape
    hot = [*hot, d - 1] if objective.intercept else hot
    free = np.ones(d, dtype=bool)
    free[hot] = free[-1] = False
    ridge = np.full(d, objective.l2)
    ridge[-1] = 0
    moments = (A[:, hot] * s[:, None]).T @ A[:, hot] / n
    top = 1.01 * np.linalg.eigvalsh(moments)[-1] if hot else 0.0
    curvature = {"squared": 1.0, "logistic": 0.25}[objective.loss] * top + objective.l2
    steepness = (1 if update == "sgd" else 3) * lr * batch * curvature
    damp = min(1.0, 1 / steepness) if steepness else 1.0
    counts = np.maximum((A != 0).sum(axis=0), 1)
    w = start(data)
    table, mean = np.zeros(n), np.zeros(d)
    for _ in range(epochs):
        if update == "svrg":
            table = s * slope_of(objective, A @ w, y)
            mean = A.T @ table / n
        for begin in range(0, n, batch):
            change, mean_change = np.zeros(d), np.zeros(d)
            for j in range(begin, min(begin + batch, n)):
                slope = s[j] * slope_of(objective, A[j] @ w, y[j])
                g = (slope - table[j] * (update != "sgd")) * A[j]
                D = (A[j] != 0) * n / counts if update == "sparse-saga" else 1.0
                step = g + D * (mean + ridge * w)
                if "saga" in update:
                    mean = mean + free * g / n
                    mean_change += ~free * g / n
                    table[j] = slope
                w = w - lr * free * step
                change += step
            w[hot] -= damp * lr * change[hot]
            mean = mean + mean_change
    return w


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("l2", [0.0, 0.05])
@pytest.mark.parametrize("threads", [1, 2])
def test_lazy_steps_equal_dense_ones(same, update, l2, threads):
    data = sparse_data(regression=True)
    objective = LinearObjective("squared", l2, intercept=False)
    w, plan = trained(data, objective, update=update, batch_size=40, threads=threads, hot=1.0)
    assert plan.team.size == threads
    same(w, dense_run(data, objective, update, batch=40, hot=[]))


@pytest.mark.parametrize("update", UPDATES)
def test_frozen_features_make_one_damped_step_a_batch(same, update):
    data = sparse_data(popular=0.6)
    w, plan = trained(data, logistic(0.02), update=update, batch_size=25, threads=2, hot=0.3)
    assert plan.passes.of_hot.tolist() == [0, D] and plan.team.size == 2
    same(w, dense_run(data, logistic(0.02), update, batch=25, hot=[0]))


@pytest.mark.parametrize("update", UPDATES)
def test_samples_have_weights(same, update):
    weight = np.random.default_rng(4).random(N) + 0.1
    data = sparse_data(weight=weight)
    w, _ = trained(data, logistic(0.02), update=update, batch_size=25, threads=2)
    same(w, dense_run(data, logistic(0.02), update, batch=25, hot=[]))


def test_sagas_correction_is_unbiased():
    """Averaged over samples, n / n_v on the support is 1 for every feature that there is."""
    data = sparse_data()
    _, plan = trained(data, logistic(), update="sparse-saga", epochs=0)
    share = np.bincount(data.X.indices, minlength=D) / N
    there = share > 0
    np.testing.assert_allclose((plan.passes.scale[:-1] * share)[there], 1, rtol=1e-14)


# Bits


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_any_number_of_threads_and_any_batch_give_the_same_bits(update, l2):
    data = sparse_data()
    objective = LinearObjective("logistic", l2, intercept=False)
    alone, _ = trained(data, objective, update=update, batch_size=N, hot=1.0)
    for threads, batch in [(1, 1), (2, 1), (2, 50), (3, 30), (4, 40), (2, None)]:
        w, plan = trained(
            data, objective, update=update, batch_size=batch, threads=threads, hot=1.0
        )
        assert (w == alone).all(), (threads, batch)
        assert plan.team.size in (1, threads)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_with_frozen_features_the_bits_depend_on_the_batch_alone(update, dtype):
    data = sparse_data(popular=0.6, dtype=dtype)
    alone, _ = trained(data, logistic(0.01), update=update, batch_size=30)
    assert alone.dtype == dtype
    for threads in (2, 3):
        w, plan = trained(data, logistic(0.01), update=update, batch_size=30, threads=threads)
        assert (w == alone).all() and plan.team.size == threads
    other, _ = trained(data, logistic(0.01), update=update, batch_size=31)
    assert not np.array_equal(other, alone)


def test_disjoint_rows_are_balanced_perfectly():
    X = sparse.csr_array(sparse.eye_array(64))  # feature i is sample i
    data = make_dataset(X, np.arange(64) % 2)
    objective = LinearObjective("logistic", 0.0, intercept=False)
    w, plan = trained(data, objective, threads=4, batch_size=64)
    assert plan.schedule.balance == 4 and plan.schedule.largest.tolist() == [1]
    assert (w == trained(data, objective)[0]).all()


def test_hinge_loss_is_for_sgd_only():
    data = sparse_data()
    objective = LinearObjective("hinge", 0.01)
    alone, _ = trained(data, objective, batch_size=30)
    assert (trained(data, objective, batch_size=30, threads=2)[0] == alone).all()
    with pytest.raises(OptionError, match="not smooth"):
        trained(data, objective, update="svrg")


# Plans, forecasts, refusals


def test_a_plan_on_disk_serves_any_number_of_threads(tmp_path):
    data, path = sparse_data(), str(tmp_path / "plan.npz")
    first, made = trained(data, logistic(), threads=2, batch_size=40, plan=path)
    again, read = trained(data, logistic(), threads=3, plan=path)
    assert (first == again).all()
    assert read.schedule.batch == made.schedule.batch == 40
    with pytest.raises(OptionError, match="another seed"):
        trained(data, logistic(), threads=2, plan=path, seed=4)


def test_a_plan_that_does_not_pay_leads_to_the_serial_loop_aloud():
    data = sparse_data(popular=1.0)
    w, plan = trained(data, logistic(), threads=2, batch_size=50, hot=1.0)
    assert plan.team.size == 1
    (said,) = [word for word in cyclades().solver.words(plan) if "does not pay" in word]
    assert "2 threads would be 1.00 times as fast" in said
    assert (w == trained(data, logistic(), threads=1, batch_size=50, hot=1.0)[0]).all()


def test_words_tell_what_to_expect():
    _, plan = trained(sparse_data(), logistic(), threads=2, batch_size=30)
    said = cyclades().solver.words(plan)
    assert "10 batches of 30 at learning rate 0.3" in said[0]
    assert "largest component holds" in said[1]
    assert "up to 2.00 times as fast" in said[2] or "up to 1.9" in said[2]
    assert "1 weights" in said[3]


def test_what_it_cannot_do_it_says():
    dense = make_dataset(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(DataError, match="every sample touches every weight"):
        trained(dense, logistic())
    with pytest.raises(OptionError, match="cyclades handles"):
        trained(sparse_data(), LinearObjective("softmax"))


@pytest.mark.parametrize("update", UPDATES)
def test_training_comes_near_the_optimum(update):
    data = sparse_data(regression=True)
    rate = {"lr": 0.02, "decay": 0.97} if update == "sgd" else {}
    algorithm = cyclades(update, batch_size=20, **rate)
    result = fit(algorithm, squared(0.05), data, engine="threads", workers=2, rounds=100)
    loss = result.history.column("loss")
    best = pooled_optimum(squared(0.05), data)[1]
    share = (loss[-1] - best) / (loss[0] - best)
    assert share < (0.05 if update == "sgd" else 1e-6)


@pytest.mark.parametrize("update", UPDATES)
def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(tmp_path, update):
    data, algorithm = sparse_data(), cyclades(update, batch_size=40, decay=0.9)
    settings = {"engine": "threads", "workers": 2}
    whole = fit(algorithm, logistic(0.01), data, rounds=6, **settings)
    fit(algorithm, logistic(0.01), data, rounds=3, checkpoint=tmp_path, **settings)
    rest = fit(
        algorithm, logistic(0.01), data, rounds=6, checkpoint=tmp_path, resume=True, **settings
    )
    assert rest.model.sha256 == whole.model.sha256


def test_a_schedule_that_ignores_conflicts_changes_the_outcome():
    """The bits of a Cyclades run do depend on its plan being free of conflicts."""
    data = sparse_data()
    objective = LinearObjective("logistic", 0.0, intercept=False)
    solver = cyclades(lr=LR, batch_size=N, hot=1.0).solver
    plan = solver.prepare(Work(objective, data, 1, 3))
    backwards = serial(np.ones(N, dtype=np.int64), N)
    passes = solver._passes(Work(objective, data, 1, 3))
    turned = passes.laid_out(backwards.position[::-1].copy(), backwards.bounds, N)
    wrong = replace(plan, passes=turned)
    state, right = solver.init(wrong, start(data)), solver.init(plan, start(data))
    solver.epoch(wrong, state, 0)
    solver.epoch(plan, right, 0)
    assert isinstance(plan.schedule, Schedule) and not np.array_equal(state["w"], right["w"])


def test_the_recipe_is_one_of_shared_memory():
    assert isinstance(cyclades(), SharedMemoryAlgorithm)
    assert cyclades("sgd").solver.with_lr(0.3).lr == 0.3
