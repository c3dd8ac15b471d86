"""Many steps in one compiled call are the same steps one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from hemiola.algorithm import MiniBatch
from hemiola.algorithms.registry import build
from hemiola.contracts import FusedObjective
from hemiola.dataset import Batch, Dataset, make_dataset
from hemiola.engines import engine_class
from hemiola.objectives import LinearObjective
from hemiola.optim import SGD, HeavyBall
from hemiola.partition import Shards, ShuffleSplit

LOSSES = ("logistic", "hinge", "squared", "softmax")
BATCHES = ([3, 7, 7, 1], [], [0], list(range(20)), [5, 4])


def problem(loss, csr, *, weighted=False, n=40, p=6, dtype=np.float64):
    rng = np.random.default_rng(2)
    X = (rng.standard_normal((n, p)) * (rng.random((n, p)) < 0.5)).astype(dtype)
    X[::7] = 0
    classes = 3 if loss == "softmax" else 2
    y = rng.standard_normal(n) if loss == "squared" else np.arange(n) % classes
    weight = rng.random(n) + 0.2 if weighted else None
    X = sparse.csr_array(X) if csr else X
    return make_dataset(X, y, weight=weight, regression=loss == "squared")


def one_by_one(objective, w, data, batches, rates):
    for rows, rate in zip(batches, rates, strict=True):
        w = w - rate * objective.grad(w, Batch(data, np.array(rows, dtype=np.intp)))
    return w


def fused(objective, w, data, batches, rates):
    rows = np.concatenate([np.array(b, dtype=np.intp) for b in batches])
    return objective.sgd(w, data, rows, np.cumsum([len(b) for b in batches]), np.array(rates))


def start(objective, data):
    zeros = objective.init(data, np.random.default_rng(0))
    return np.linspace(-1, 1, zeros.size).astype(zeros.dtype)


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("loss", LOSSES)
def test_fused_steps_are_single_steps(loss, csr, weighted):
    data = problem(loss, csr, weighted=weighted)
    for l2 in (0.0, 0.3):
        for intercept in (True, False):
            objective = LinearObjective(loss, l2, intercept)
            w = start(objective, data)
            before = w.copy()
            for rates in ([0.1] * 5, [0.5, 1 / 0.3, 0.2, 8.0, 0.1]):  # one step shrinks to 0
                expected = one_by_one(objective, w, data, BATCHES, rates)
                found = fused(objective, w, data, BATCHES, rates)
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
            assert (w == before).all(), "the received model stays as it is"


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("loss", LOSSES)
def test_in_single_precision_too(loss, csr):
    data = problem(loss, csr, dtype=np.float32)
    objective = LinearObjective(loss, 0.3)
    w = start(objective, data)
    found = fused(objective, w, data, BATCHES, [0.1] * 5)
    assert found.dtype == np.float32
    expected = one_by_one(objective, w, data, BATCHES, [np.float32(0.1)] * 5)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 1), (2, 5), (30, 1)])
@pytest.mark.parametrize("loss", LOSSES)
def test_tiny_data(loss, csr, shape):
    X = np.linspace(-1, 2, shape[0] * shape[1]).reshape(shape)
    y = np.arange(shape[0]) % 2
    data = Dataset(sparse.csr_array(X) if csr else X, y, np.array([0, 1]))
    for l2 in (0.0, 0.1):
        objective = LinearObjective(loss, l2)
        w = start(objective, data)
        last = shape[0] - 1
        batches, rates = [[0], [last, last, 0]], [0.3, 0.2]
        expected = one_by_one(objective, w, data, batches, rates)
        found = fused(objective, w, data, batches, rates)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_feature_named_twice_in_a_row():
    X = sparse.csr_array(([1.0, 2.0, 1.0, 4.0], [1, 0, 1, 0], [0, 3, 4]), shape=(2, 2))
    data = Dataset(X, np.array([1, 0]), np.array([0, 1]))
    for loss in LOSSES:
        objective = LinearObjective(loss, 0.1)
        w = start(objective, data)
        expected = one_by_one(objective, w, data, [[0, 1], [0]], [0.3, 0.3])
        found = fused(objective, w, data, [[0, 1], [0]], [0.3, 0.3])
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_many_steps_of_strong_shrinkage_stay_exact():
    data = problem("logistic", csr=True)
    objective = LinearObjective("logistic", 1.0)
    w, batches, rates = start(objective, data), [[i % 40] for i in range(400)], [0.9] * 400
    np.testing.assert_allclose(
        fused(objective, w, data, batches, rates),
        one_by_one(objective, w, data, batches, rates),
        rtol=1e-12,
        atol=1e-12,
    )


def test_divergence_stays_visible():
    data = problem("squared", csr=True)
    objective = LinearObjective("squared", 0.1)
    with np.errstate(over="ignore", invalid="ignore"):
        w = fused(
            objective, start(objective, data), data, [[i % 40] for i in range(900)], [1e9] * 900
        )
    assert not np.isfinite(w).all()


@pytest.mark.parametrize("draw", ["shuffled", "replacement", "bernoulli"])
def test_all_batches_at_once_are_the_batches_one_by_one(draw):
    data = problem("logistic", csr=False)
    for reshuffle in (None, 2):
        shards = Shards(data, ShuffleSplit(reshuffle), 3, seed=1)
        for size in (4, None, 0.3):
            mini_batch = MiniBatch(size, draw)
            rows, ends = shards.batches(1, range(3, 17), mini_batch)
            parts = np.split(rows, ends[:-1])
            assert ends[-1] == len(rows)
            for t, part in zip(range(3, 17), parts, strict=True):
                assert (part == shards.batch(1, t, mini_batch).rows).all()


class Plain:
    """The objective without its fused steps."""

    def __init__(self, objective):
        self._objective = objective

    def __getattr__(self, name):
        if name == "sgd":
            raise AttributeError(name)
        return getattr(self._objective, name)


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("model-averaging", {"steps": 4}),
        ("model-averaging", {"steps": 4, "schedule": "inverse-sqrt"}),
        ("model-averaging", {"steps": 3, "draw": "bernoulli", "carry": "average"}),
        ("bmuf", {"steps": 3}),
        ("fedavg", {"epochs": 2}),
        ("easgd", {"period": 3}),
        ("easgd", {"period": 1}),
        ("easgd-async", {"period": 3}),
    ],
)
def test_algorithms_do_not_depend_on_it(run, two_classes, name, options, csr):
    data = two_classes(40, csr=csr)
    algorithm = build(name, {**options, "lr": 0.2})
    objective = LinearObjective("logistic", 0.1)
    assert isinstance(objective, FusedObjective)
    runs = [run(algorithm, o, data, workers=3, updates=6) for o in (objective, Plain(objective))]
    for one, other in zip(runs[0].models, runs[1].models, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
        assert csr or (one == other).all(), "dense: to the bit"
    assert runs[0].ledger.local_steps == runs[1].ledger.local_steps


def test_all_engines_give_the_same_bits(run, two_classes):
    algorithm, objective = (
        build("model-averaging", {"steps": 4, "lr": 0.2}),
        LinearObjective(l2=0.1),
    )
    data = two_classes(40, csr=True)
    engines = [engine_class(name)() for name in ("serial", "threads", "simulator")]
    models = [run(algorithm, objective, data, workers=3, updates=5, engine=e).last for e in engines]
    assert all((model == models[0]).all() for model in models)


def test_other_optimisers_go_step_by_step():
    assert SGD(0.1).is_plain
    assert not getattr(HeavyBall(0.1), "is_plain", False)
