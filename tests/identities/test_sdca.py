"""SDCA against its paper: closed forms, w = w(α), a gap that bounds, and the optimum."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import xlogy
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVC

from hemiola.algorithms.registry import build
from hemiola.algorithms.sdca import DualAscent, _rebuild, sdca, values
from hemiola.dataset import Batch, Dataset, make_dataset
from hemiola.errors import OptionError
from hemiola.job import Work
from hemiola.kernels import _dual
from hemiola.kernels.damping import matrix
from hemiola.kernels.sdca import LOSSES, Dual
from hemiola.objectives import LinearObjective
from hemiola.training import fit


def data_for(loss, two_classes, line, n=60, p=3, **options):
    return line(n, p, **options) if loss == "squared" else two_classes(n, p, **options)


def solved(data, objective, threads=1, epochs=1, **options):
    """The solver's plan and state after so many passes."""
    solver = DualAscent(**options)
    plan = solver.prepare(Work(objective, data, threads, 0))
    state = solver.init(plan, np.zeros(data.n_features + 1, data.dtype))
    for epoch in range(epochs):
        solver.epoch(plan, state, epoch)
    return solver, plan, state


def worth(loss, t):
    """-φ*(-α) for α = y t."""
    return t if loss == "hinge" else -xlogy(t, t) - xlogy(1 - t, 1 - t)


# Steps


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_maximises_the_dual_in_one_coordinate(loss):
    rng = np.random.default_rng(0)
    for _ in range(200):
        z, t, q = rng.normal(scale=3), rng.random(), 10 ** rng.uniform(-3, 3)
        y = rng.normal() if loss == "squared" else rng.choice([-1.0, 1.0])
        a = rng.normal() if loss == "squared" else y * t
        found, slack = _dual.dual_step(LOSSES.index(loss), z, a, q, y)

        def cost(new, z=z, a=a, q=q, y=y):
            value = new * y - new**2 / 2 if loss == "squared" else worth(loss, y * new)
            return -(value - (new - a) * z - q * (new - a) ** 2 / 2)

        bounds = (-50.0, 50.0) if loss == "squared" else tuple(sorted((0.0, y)))
        best = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-12})
        assert bounds[0] <= found <= bounds[1]
        assert cost(found) <= best.fun + 1e-6 * (1 + abs(best.fun))
        assert slack >= 0


def test_a_row_of_nothing_gets_the_best_of_its_loss():
    assert _dual.dual_step(_dual.HINGE, 0.0, 0.0, 0.0, -1.0)[0] == -1.0
    assert _dual.dual_step(_dual.SQUARED, 0.5, 0.0, 0.0, 2.0)[0] == 1.5
    assert _dual.dual_step(_dual.LOGISTIC, 0.0, 0.0, 0.0, 1.0)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_pass_is_the_papers(loss, csr, two_classes, line, same):
    data = data_for(loss, two_classes, line, csr=csr)
    _, plan, state = solved(data, LinearObjective(loss, 0.1, intercept=False), damping=False)
    X = np.asarray(data.X.todense()) if csr else data.X
    X, y = X[plan.rows.order], plan.rows.table.y
    n, alpha, w = len(y), np.zeros(len(y)), np.zeros(X.shape[1])
    for block in plan.rows.blocks(0, 0, plan.block):
        for i in range(block * plan.block, min((block + 1) * plan.block, n)):
            q = X[i] @ X[i] / (0.1 * n)
            new, _ = _dual.dual_step(LOSSES.index(loss), X[i] @ w, alpha[i], q, y[i])
            w += (new - alpha[i]) * X[i] / (0.1 * n)
            alpha[i] = new
    same(state["alpha"], alpha)
    same(DualAscent().model(plan, state), np.append(w, 0.0))


# The gap


def optimum(objective, data):
    """min P by L-BFGS for smooth losses; for hinge loss by a run to a tiny gap of its own."""
    if objective.loss == "hinge":
        _, plan, state = solved(data, objective, epochs=3000, tolerance=None)
        return values(plan, state).dual
    start = np.zeros(data.n_features + 1)
    batch = Batch(data)
    found = minimize(
        objective.value, start, jac=objective.grad, args=(batch,), tol=1e-14, method="L-BFGS-B"
    )
    return found.fun


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gap_is_at_least_the_distance_to_the_optimum_for_any_dual_point(
    loss, intercept, weighted, two_classes, line
):
    rng = np.random.default_rng(3)
    data = data_for(loss, two_classes, line)
    if weighted:
        s = rng.uniform(0.2, 3, 60)
        data = replace(data, weight=s / s.mean())
    objective = LinearObjective(loss, 0.05, intercept)
    best = optimum(objective, data)
    y = data.y if loss == "squared" else 2.0 * data.y - 1
    dual = Dual.of(loss, data.X, y, data.weight, l2=0.05, intercept=intercept)
    for k in range(100):
        size = 10 ** rng.uniform(-3, 0)
        alpha = size * (rng.normal(size=60) if loss == "squared" else y * rng.random(60))
        alpha[rng.random(60) < 0.2] = 0
        w = np.zeros(4)
        dual.rebuild(alpha, w)
        w[-1] = intercept * rng.normal()
        near = w[:-1].copy()
        if k % 2:
            w[:-1] += 0.1 * rng.normal(size=3)
        found = dual.values(dual.sums(alpha, w), w[:-1], near)
        assert found.primal == pytest.approx(objective.value(w, Batch(data)))
        assert found.dual <= best + 1e-9
        assert found.gap >= found.primal - best - 1e-9 >= -2e-9


def test_the_bound_is_the_dual_where_the_duals_add_up_to_zero():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 2)), np.tile([1.0, -1.0], 10)
    t = np.repeat(rng.random(10), 2)  # so that y t adds up to 0
    dual = Dual.of("logistic", X, y, l2=0.3)
    w = np.append((y * t) @ X / (0.3 * 20), 0.7)
    exact = worth("logistic", t).mean() - 0.15 * w[:-1] @ w[:-1]
    assert dual.values(dual.sums(y * t, w), w[:-1]).dual == pytest.approx(exact, abs=1e-15)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gap_goes_to_zero(loss, threads, two_classes, line):
    data = data_for(loss, two_classes, line, n=300)
    gaps = []
    for epochs in (1, 10, 100, 1000):
        _, plan, state = solved(data, LinearObjective(loss, 0.02), threads, epochs, tolerance=None)
        gaps.append(values(plan, state).gap)
    assert all(after < before + 1e-12 for before, after in pairwise(gaps))
    assert -1e-14 < gaps[-1] < (1e-4 if loss == "hinge" else 1e-9)


def test_a_run_ends_with_the_gap_that_was_asked_for(two_classes):
    result = fit(sdca(1e-5), LinearObjective("logistic", 0.01), two_classes(200),
                 engine="threads", workers=1, rounds=500, eval_every=1)  # fmt: skip
    assert result.stopped.startswith("the duality gap is") and "1e-05" in result.stopped
    best = optimum(LinearObjective("logistic", 0.01), two_classes(200))
    assert result.history.last.loss <= best * (1 + 1.1e-5)
    assert result.history.records[0].gap is None, "before a plan there is no dual"
    for record in result.history.records[1:]:
        assert record.loss - best <= record.gap + 1e-12
    assert (
        result.history.last.gap <= 1e-5 * result.history.last.loss < result.history.records[-3].gap
    )
    endless = fit(sdca(None), "logistic", two_classes(), engine="threads", workers=1, rounds=7)
    assert endless.stopped == "all rounds were done"


# w = w(α)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_model_is_what_the_duals_say_after_every_pass(two_classes, csr, threads, dtype):
    data = two_classes(500, 8, csr=csr, dtype=dtype)
    objective = LinearObjective("logistic", 2e-3)
    solver, plan, state = solved(data, objective, threads, tolerance=None)
    assert plan.threads == threads and (plan.factors < 1).any()
    for epoch in range(1, 20):
        solver.epoch(plan, state, epoch)
        before = state["w"].copy()
        _rebuild(plan, state)
        np.testing.assert_allclose(before, state["w"], atol=1e-3 if dtype == np.float32 else 1e-10)


def test_many_tiers_are_merged_without_loss():
    """Ten thousand features: three tiers, and blocks enough that each is merged in a pass."""
    rng = np.random.default_rng(0)
    from scipy import sparse

    columns = (10_000 * rng.random((3000, 5)) ** 3).astype(int)
    X = sparse.csr_array((rng.normal(size=15_000), columns.ravel(), np.arange(0, 15_001, 5)),
                         shape=(3000, 10_000))  # fmt: skip
    data = make_dataset(X, rng.integers(0, 2, 3000))
    objective = LinearObjective("logistic", 1e-3)
    losses = {}
    for threads in (1, 2):
        _, plan, state = solved(data, objective, threads, epochs=12, tolerance=None)
        before = state["w"].copy()
        _rebuild(plan, state)
        np.testing.assert_allclose(before, state["w"], atol=1e-9)
        found = values(plan, state)
        losses[threads] = found.primal
        assert 1 <= state["sigma"] <= threads and found.gap < 1e-3 * found.primal
    assert losses[1] == pytest.approx(losses[2], rel=1e-3)


# The optimum


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_limit_is_scikit_learns_optimum(loss, csr, threads, two_classes, line):
    n, l2 = 200, 0.01
    data = data_for(loss, two_classes, line, n=n, p=4, csr=csr)
    s = np.random.default_rng(0).uniform(0.5, 2, n)
    data = replace(data, X=data.X if csr or loss == "hinge" else data.X + 1.5, weight=s / s.mean())
    solver, plan, state = solved(
        data, LinearObjective(loss, l2), threads, 8000 if loss == "hinge" else 1500, tolerance=None
    )
    w = solver.model(plan, state)
    if loss == "logistic":
        theirs = LogisticRegression(C=1 / (l2 * n), tol=1e-12, max_iter=10_000)
    elif loss == "squared":
        theirs = Ridge(alpha=l2 * n, tol=1e-12)
    else:
        theirs = SVC(C=1 / (l2 * n), kernel="linear", tol=1e-9)
    theirs.fit(data.X, data.y, sample_weight=data.weight)
    coef = theirs.coef_.toarray() if hasattr(theirs.coef_, "toarray") else theirs.coef_
    found = np.append(coef, theirs.intercept_)
    objective = LinearObjective(loss, l2)
    assert objective.value(w, Batch(data)) == pytest.approx(
        objective.value(found, Batch(data)), rel=1e-6
    )
    if loss != "hinge":
        np.testing.assert_allclose(w, found, atol=1e-6)


def test_centres_move_the_passes_but_not_the_limit(two_classes):
    """Features that all rows share, and a weak penalty: single steps undo each other."""
    data = two_classes(2000, 12, seed=2)
    data = replace(data, X=data.X + 1.0)
    objective = LinearObjective("logistic", 1 / 2000)
    passes = {}
    for damping in (True, False):
        result = fit(sdca(1e-3, damping), objective, data, engine="threads", workers=1, rounds=3000)
        assert result.history.last.loss <= 1.0011 * optimum(objective, data)
        passes[damping] = result.history.last.updates
    assert passes[True] < 0.5 * passes[False]


def test_sparse_rows_with_little_in_common_are_not_damped():
    rng = np.random.default_rng(0)
    from scipy import sparse

    X = sparse.random_array((400, 1000), density=0.01, rng=rng).tocsr()
    data = make_dataset(X, rng.integers(0, 2, 400))
    plan = DualAscent().prepare(Work(LinearObjective("logistic", 1 / 400), data, 1, 0))
    assert (plan.factors == 1).all()
    np.testing.assert_array_equal(matrix(plan.rows)[2].sum(), plan.rows.table.values.sum())


def test_a_start_at_the_optimum_stays_there(two_classes):
    data, objective = two_classes(200), LinearObjective("logistic", 0.01)
    options = {"engine": "threads", "workers": 1, "eval_every": 1}
    best = fit(sdca(1e-12), objective, data, rounds=2000, **options)
    again = fit(sdca(None), objective, data, rounds=1, w0=best.weights, **options)
    assert again.history.last.loss == pytest.approx(best.history.last.loss, rel=1e-10)
    np.testing.assert_allclose(again.weights, best.weights, atol=1e-5)


def test_a_resumed_run_is_the_whole_run(two_classes, tmp_path):
    options = {"engine": "threads", "workers": 1, "eval_every": 1}
    place = {"checkpoint": tmp_path, **options}
    fit(sdca(None), "logistic", two_classes(), rounds=5, **place)
    resumed = fit(sdca(None), "logistic", two_classes(), rounds=9, resume=True, **place)
    whole = fit(sdca(None), "logistic", two_classes(), rounds=9, **options)
    assert resumed.model.sha256 == whole.model.sha256


def test_a_run_whose_features_were_let_loose_resumes(tmp_path):
    data, objective = make_dataset([[2.0], [1.0]], [1, 0]), LinearObjective("hinge", 0.1)
    options = {"engine": "threads", "workers": 1, "eval_every": 10}
    assert solved(data, objective, epochs=100, tolerance=None)[2]["level"] > 0
    place = {"checkpoint": tmp_path, **options}
    fit(sdca(None), objective, data, rounds=100, **place)
    resumed = fit(sdca(None), objective, data, rounds=150, resume=True, **place)
    whole = fit(sdca(None), objective, data, rounds=150, **options)
    np.testing.assert_allclose(resumed.weights, whole.weights, rtol=1e-9)


# Edges and refusals


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_odd_data(loss, threads, two_classes, line):
    from scipy import sparse

    regression = loss == "squared"
    one = make_dataset([[2.0]], [1.0], regression=True)
    two = make_dataset([[2.0], [1.0]], [1.0, 0.0], regression=regression)
    X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.5, 0.0]])
    empty = make_dataset(sparse.csr_array(X), [1, 0, 0, 1], regression=regression)
    zero = make_dataset(sparse.csr_array((4, 2)), [1, 0, 0, 1], regression=regression)
    twice = sparse.csr_array((np.ones(6), [0, 0, 1, 1, 0, 0], [0, 2, 4, 5, 6]), shape=(4, 2))
    doubled = Dataset(twice, empty.y, empty.classes)
    for data in (*([one] if regression else []), two, empty, zero, doubled):
        objective = LinearObjective(loss, 0.1)
        _, plan, state = solved(data, objective, threads, 1500, tolerance=None)
        found = values(plan, state)
        assert math.isfinite(found.primal) and -1e-12 <= found.gap < 1e-3


def test_what_it_cannot_do_it_refuses_by_name(two_classes):
    options = {"engine": "threads", "workers": 1}
    with pytest.raises(OptionError, match="sdca needs an L2 penalty"):
        fit("sdca", LinearObjective("logistic", 0.0), two_classes(), **options)
    with pytest.raises(OptionError, match=r"sdca ascends the duals of .* softmax"):
        fit("sdca", LinearObjective("softmax", 0.1), two_classes(), **options)
    assert build("sdca", {"tolerance": "none"}) == sdca(None)
