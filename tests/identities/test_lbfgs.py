"""L-BFGS in rounds is BFGS on the pooled data, as if features were standardised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hemiola.algorithm import Info, Task
from hemiola.algorithms import lbfgs
from hemiola.algorithms.lbfgs import FullGradient, QuasiNewton, preconditioned
from hemiola.dataset import Batch, Dataset
from hemiola.errors import OptionError
from hemiola.objectives import hinge, logistic, softmax, squared
from hemiola.partition import Contiguous, Shards, ShuffleSplit
from hemiola.reference import pooled_optimum


def bfgs(f, gradient, w, B, rounds):
    """BFGS by matrices, H (d, d) built anew from all pairs in every iteration: the model after each
    evaluation."""
    value, G, pairs, models = f(w), gradient(w), [], [w]
    while len(models) < rounds:
        H = B.copy()
        if pairs:
            s, y = pairs[-1]
            H *= (s @ y) / (y @ B @ y)
        for s, y in pairs:
            V = np.eye(len(w)) - np.outer(s, y) / (s @ y)
            H = V @ H @ V.T + np.outer(s, s) / (s @ y)
        d, t = -H @ G, 1.0
        while f(w + t * d) > value + 1e-4 * t * (G @ d):
            models.append(w)
            t /= 2
        s = t * d
        pairs.append((s, gradient(w + s) - G))
        w, value, G = w + s, f(w + s), gradient(w + s)
        models.append(w)
    return models[:rounds]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("csr", [False, True])
def test_rounds_are_bfgs_on_the_pooled_data(two_classes, run, workers, csr):
    """Shards of different sizes: means must be weighted."""
    data, objective = two_classes(61, 6, csr=csr), logistic(0.01)
    ran = run(lbfgs(memory=50, tolerance=0), objective, data, workers=workers, updates=14)
    X = np.asarray(data.X.todense() if csr else data.X)
    T = np.eye(7)
    T[-1, :-1] = -X.mean(axis=0)
    B = T @ np.diag(1 / np.append(0.25 * X.var(axis=0) + 0.01, 0.25)) @ T.T
    expected = bfgs(
        lambda w: objective.value(w, Batch(data)), lambda w: objective.grad(w, Batch(data)),
        ran.w0, B, 14,
    )  # fmt: skip
    for ours, theirs in zip(ran.models, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)


def test_the_first_rounds_of_a_short_memory_are_those_of_a_long_one_and_later_ones_are_not(
    two_classes, run
):
    data, objective = two_classes(80, 8), logistic(0.001)
    short, long = (
        run(lbfgs(memory=m), objective, data, workers=3, updates=12).models for m in (3, 50)
    )
    evaluations = 5  # the start, and steps from no, one, two and three pairs
    assert all((a == b).all() for a, b in zip(short[:evaluations], long, strict=False))
    assert (short[-1] != long[-1]).any()


@pytest.mark.parametrize("objective", [logistic(0.0), softmax(0.0)], ids=str)
def test_units_and_origins_of_features_do_not_matter(two_classes, run, objective):
    """Without a penalty: w_j falls by what x_j grows, and the intercept takes back the shift."""
    data = two_classes(80, 5)
    units, origins = 10.0 ** np.arange(-2, 3), np.arange(-2.0, 3.0)
    other = Dataset(data.X * units + origins, data.y, data.classes, name="moved")
    ours, theirs = (
        run(lbfgs(), objective, part, workers=3, updates=9,
            w0=np.zeros(objective.init(part, np.random.default_rng(0)).size)).models[-1]
        for part in (data, other)
    )  # fmt: skip
    moved = theirs.reshape(6, -1).copy()
    moved[-1] += origins @ moved[:-1]
    moved[:-1] *= units[:, None]
    np.testing.assert_allclose(moved.ravel(), ours, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("objective", [logistic(0.01), squared(0.01), softmax(0.01)], ids=str)
def test_it_reaches_the_pooled_optimum_and_says_so(two_classes, line, run, objective):
    data = line(90, 6) if objective.loss == "squared" else two_classes(90, 6)
    algorithm = lbfgs(tolerance=1e-9)
    ran = run(algorithm, objective, data, workers=4, updates=60)
    _, best = pooled_optimum(objective, data)
    assert objective.value(ran.models[-1], Batch(data)) - best < 1e-12
    said = algorithm.aggregate.ended(ran.servers[-1])
    assert said is not None
    assert "the gradient is small enough" in said
    largest = np.abs(objective.grad(ran.models[-1], Batch(data))).max()
    measured = algorithm.aggregate.measures(ran.servers[-1])["gradient"]
    np.testing.assert_allclose(measured, largest, rtol=1e-3, atol=1e-13)


@pytest.mark.parametrize("csr", [False, True])
@pytest.mark.parametrize("weight", [False, True])
@pytest.mark.parametrize("objective", [logistic(0.1), squared(0.1), softmax(0.1)], ids=str)
def test_curvatures_bound_the_hessian(two_classes, line, objective, csr, weight):
    """So far as they know it; they are it where the second derivative is at its largest."""
    data = line(50, 4, csr=csr) if objective.loss == "squared" else two_classes(50, 4, csr=csr)
    if weight:
        s = np.random.default_rng(5).uniform(0.5, 2.0, len(data))
        data = Dataset(data.X, data.y, data.classes, weight=s, name="weighted")
    batch = Batch(data, np.arange(3, 40))
    w0 = objective.init(data, np.random.default_rng(0))
    C = w0.size // 5
    ridge = np.append(np.full(4 * C, 0.1), np.zeros(C)).reshape(5, C)
    c, e = objective.curvatures(w0, batch)
    for scale in (0.0, 0.3, 3.0):
        w = w0 + scale * np.random.default_rng(1).normal(size=w0.size)
        H = objective.hessian(w, batch).matrix().reshape(5, C, 5, C)
        diagonal = np.einsum("jcjc->jc", H) + ridge
        assert (c >= diagonal * (1 - 1e-12)).all()
        if objective.loss == "squared" or (objective.loss == "logistic" and not scale):
            np.testing.assert_allclose(c, diagonal, rtol=1e-12)
            np.testing.assert_allclose(e[:-1, 0], H[:-1, 0, -1, 0], rtol=1e-12)
            assert not e[-1].any()


def test_without_an_intercept_nothing_couples(two_classes):
    data = two_classes(20, 3)
    objective = replace(logistic(0.1), intercept=False)
    c, e = objective.curvatures(np.zeros(4), Batch(data))
    assert not e.any()
    assert c[-1] == 0
    found = preconditioned(np.stack([c, e]), np.ones(4))
    np.testing.assert_allclose(found, np.append(1 / c[:-1, 0], 1.0))


def test_a_constant_feature_does_no_harm(two_classes, run):
    """It is the intercept once more, and nothing is left of its variance."""
    data = two_classes(80, 4)
    X = np.column_stack([data.X, np.full(80, 7.0)])
    objective, constant = logistic(0.0), Dataset(X, data.y, data.classes, name="constant")
    ran = run(lbfgs(), objective, constant, workers=3, updates=25)
    _, best = pooled_optimum(objective, data)
    assert objective.value(ran.models[-1], Batch(constant)) - best < 1e-9


def test_a_worker_that_is_lost_makes_the_search_begin_anew():
    """f was 1; without the second worker it is 5, which is no reason to halve steps for ever."""
    rule = QuasiNewton(tolerance=0)
    state = rule.init(np.zeros(2), 2)

    def told(g, f, workers):
        up = {"g": np.array(g), "f": np.array(f), "weight": np.array(1.0)}
        return rule.push(state, up, Info(0, workers, 1.0, 0, 2))

    told([1.0, 0.0], 2.0, (0, 1))
    told([0.5, 0.5], 1.0, (0, 1))
    assert len(state["pairs"]) == 1
    trial = state["point"]
    told([0.1, 0.1], 5.0, (0,))
    assert (state["model"] == trial).all()
    assert (state["f"], state["t"], state["pairs"]) == (5.0, 1.0, [])
    told([0.0, 0.0], 6.0, (0,))
    assert (state["model"] == trial).all()
    assert state["t"] == 0.5


def test_a_value_that_is_not_finite_halves_the_step(line):
    data = line(20, 2)
    source = Shards(data, ShuffleSplit(), 1, seed=0)
    task = Task(0, 0, 1, 0, squared(0.0), source)
    down = {"w": np.full(3, 1e200), "asks": np.array(False)}
    with np.errstate(over="ignore", invalid="ignore"):
        _, up = FullGradient().work({"t": 0}, down, task)
    assert up["f"] == 1e300
    assert not up["g"].any()
    rule = QuasiNewton()
    state = rule.init(np.zeros(3), 1)
    info = Info(0, (0,), 1.0, 0, 1)
    state = rule.push(state, {"g": np.ones(3), "f": np.array(1.0)}, info)
    whole = state["point"]
    state = rule.push(state, up, info)
    np.testing.assert_array_equal(state["point"], whole / 2)


def test_hinge_loss_is_refused(two_classes, run):
    with pytest.raises(
        OptionError, match="not smooth, so L-BFGS cannot minimise it; use cocoa or admm"
    ):
        run(lbfgs(), hinge(0.1), two_classes(), workers=2, updates=1)


def test_labels_dealt_by_class_do_not_matter(two_classes, run):
    """The shards' optima are far apart; batch gradients do not care."""
    data, objective = two_classes(80, 5), logistic(0.01)
    order = np.argsort(data.y, kind="stable")
    by_class = Dataset(data.X[order], data.y[order], data.classes, name="sorted")
    one = run(lbfgs(), objective, by_class, workers=1, updates=12).models[-1]
    four = run(lbfgs(partition=Contiguous()), objective, by_class, workers=4, updates=12).models[-1]
    np.testing.assert_allclose(four, one, rtol=1e-7, atol=1e-10)
