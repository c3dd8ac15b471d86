"""Losses and gradients against plain NumPy, finite differences and each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.special import log_softmax

from hemiola.dataset import Batch, make_dataset
from hemiola.errors import DataError, OptionError
from hemiola.objectives import LinearObjective, hinge, logistic, softmax, squared
from hemiola.reference import pooled_optimum

LOSSES = ["logistic", "softmax", "squared", "hinge"]
N, P, C = 40, 6, 3


def make(loss, *, csr=False, dtype=np.float64, weighted=False, seed=0):
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(N, P)) * (rng.random((N, P)) < 0.6)).astype(dtype)
    targets = {"softmax": C, "squared": 0}.get(loss, 2)
    y = rng.integers(0, targets, N) if targets else rng.normal(size=N)
    weight = rng.random(N) + 0.1 if weighted else None
    X = sparse.csr_array(X) if csr else X
    return make_dataset(X, y, weight=weight, regression=not targets)


def point(loss, dtype=np.float64, seed=1):
    d = (P + 1) * (C if loss == "softmax" else 1)
    return np.random.default_rng(seed).normal(size=d).astype(dtype)


def rows_of(name):
    rng = np.random.default_rng(3)
    return {
        "all": None,
        "some": rng.choice(N, 13, replace=False),
        "repeated": rng.integers(0, N, 25),
        "one": np.array([4]),
    }[name]


def by_definition(loss, w, data, rows, l2):
    """The mean loss plus l2/2 |features' weights|^2, one row at a time."""
    X = data.X.toarray() if data.is_sparse else data.X
    W = w.reshape(P + 1, -1)
    total = 0.0
    rows = range(N) if rows is None else rows
    for i in rows:
        z = X[i] @ W[:-1] + W[-1]
        if loss == "softmax":
            term = -log_softmax(z)[data.y[i]]
        elif loss == "logistic":
            term = np.logaddexp(0, z[0]) - data.y[i] * z[0]
        elif loss == "squared":
            term = 0.5 * (z[0] - data.y[i]) ** 2
        else:
            term = max(0.0, 1 - (2 * data.y[i] - 1) * z[0])
        total += term * (1.0 if data.weight is None else data.weight[i])
    return total / len(rows) + 0.5 * l2 * np.square(W[:-1]).sum()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("which", ["all", "some", "repeated", "one"])
def test_the_value_is_the_mean_loss_plus_the_penalty(loss, csr, weighted, which):
    data, rows = make(loss, csr=csr, weighted=weighted), rows_of(which)
    for l2 in (0.0, 0.3):
        w = point(loss)
        found = LinearObjective(loss, l2).value(w, Batch(data, rows))
        assert found == pytest.approx(by_definition(loss, w, data, rows, l2), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "through the origin"])
@pytest.mark.parametrize("which", ["all", "some", "repeated", "one"])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_the_gradient_is_the_central_difference(loss, csr, weighted, intercept, which, l2):
    data, w, eps = make(loss, csr=csr, weighted=weighted), point(loss), 1e-6
    objective, batch = LinearObjective(loss, l2, intercept), Batch(data, rows_of(which))
    outputs = C if loss == "softmax" else 1
    expected = []
    for step in np.eye(len(w)) * eps:
        rise = objective.value(w + step, batch) - objective.value(w - step, batch)
        expected.append(rise / (2 * eps))
    if not intercept:
        expected[-outputs:] = [0.0] * outputs
    np.testing.assert_allclose(objective.grad(w, batch), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_single_precision_is_close_to_double(loss, csr, weighted):
    single = make(loss, csr=csr, weighted=weighted, dtype=np.float32)
    double = make(loss, csr=csr, weighted=weighted)
    objective = LinearObjective(loss, 0.3)
    w = point(loss, np.float32)
    g = objective.grad(w, Batch(single))
    assert g.dtype == w.dtype == np.float32
    np.testing.assert_allclose(
        g, objective.grad(w.astype(float), Batch(double)), rtol=2e-5, atol=2e-6
    )
    assert objective.value(w, Batch(single)) == pytest.approx(
        objective.value(w.astype(float), Batch(double)), rel=1e-5
    )
    assert objective.init(single, np.random.default_rng(0)).dtype == np.float32


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("which", ["all", "some", "repeated"])
def test_sparse_and_dense_data_agree(loss, which):
    objective, w = LinearObjective(loss, 0.2), point(loss)
    dense, csr = (Batch(make(loss, csr=csr), rows_of(which)) for csr in (False, True))
    np.testing.assert_allclose(
        objective.grad(w, dense), objective.grad(w, csr), rtol=1e-13, atol=1e-14
    )
    assert objective.value(w, dense) == pytest.approx(objective.value(w, csr), rel=1e-13)
    np.testing.assert_array_equal(
        objective.predict(w, dense.data.X).round(12), objective.predict(w, csr.data.X).round(12)
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_an_empty_batch_has_only_the_penalty(loss, csr):
    data, w = make(loss, csr=csr), point(loss)
    empty = Batch(data, np.empty(0, dtype=np.intp))
    W = w.reshape(P + 1, -1)
    g = LinearObjective(loss, 0.3).grad(w, empty).reshape(P + 1, -1)
    np.testing.assert_allclose(g[:-1], 0.3 * W[:-1])
    assert (g[-1] == 0).all()
    assert LinearObjective(loss).grad(w, empty).tolist() == [0.0] * len(w)
    value = LinearObjective(loss, 0.3).value(w, empty)
    assert value == pytest.approx(0.15 * np.square(W[:-1]).sum())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_scores_of_ten_thousand_neither_overflow_nor_lose_the_gradient(loss, csr, dtype, sign):
    X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=dtype)
    X = sparse.csr_array(X) if csr else X
    y = [0.0, 1.0, 1.0]
    data = make_dataset(X, y, regression=loss == "squared")
    outputs = 2 if loss == "softmax" else 1
    W = np.zeros((3, outputs), dtype=dtype)
    W[:2, -1] = sign * 1e4
    w, objective = W.ravel(), LinearObjective(loss)
    g, value = objective.grad(w, Batch(data)), objective.value(w, Batch(data))
    assert np.isfinite(g).all() and np.isfinite(value)
    if loss in ("logistic", "softmax"):  # |slope| is 0 or 1, the loss is 0 or |score|
        wrong = [1e4] if sign > 0 else [1e4, 2e4]
        assert value == pytest.approx(sum(wrong) / 3, rel=1e-6)
        slopes = [1.0, 0.0, 0.0] if sign > 0 else [0.0, -1.0, -1.0]
        expected = (X.T @ np.array(slopes)) / 3
        np.testing.assert_allclose(g.reshape(3, outputs)[:2, -1], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_a_model_that_is_not_finite_has_no_finite_loss(loss, csr):
    w = point(loss)
    w[0] = np.nan
    data = make(loss, csr=csr)
    assert not np.isfinite(LinearObjective(loss).value(w, Batch(data)))
    assert not np.isfinite(LinearObjective(loss).grad(w, Batch(data))).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_new_arrays_and_inputs_are_left_alone(loss):
    data, w = make(loss), point(loss)
    w.setflags(write=False)
    data.X.setflags(write=False)
    objective = LinearObjective(loss, 0.1)
    one, other = objective.grad(w, Batch(data)), objective.grad(w, Batch(data))
    assert one is not other and not np.shares_memory(one, other)
    assert one.flags.writeable
    assert (one == other).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_weights_count_as_repeated_samples(loss, csr):
    plain = make(loss, csr=csr)
    times = np.random.default_rng(4).integers(1, 4, N)
    weighted = make_dataset(plain.X, plain.y, weight=times, regression=loss == "squared")
    repeated = Batch(plain, np.repeat(np.arange(N), times))
    objective, w = LinearObjective(loss, 0.1), point(loss)
    np.testing.assert_allclose(
        objective.grad(w, Batch(weighted)), objective.grad(w, repeated), rtol=1e-12, atol=1e-13
    )
    assert objective.value(w, Batch(weighted)) == pytest.approx(objective.value(w, repeated))


def test_the_hinge_is_flat_at_its_kink():
    data = make_dataset([[1.0], [-1.0]], [1, 0])
    assert hinge().grad(np.array([1.0, 0.0]), Batch(data)).tolist() == [0.0, 0.0]
    assert hinge().grad(np.array([0.5, 0.0]), Batch(data)).tolist() == [-1.0, 0.0]


def test_softmax_of_two_classes_is_logistic():
    data = make("logistic")
    w = point("logistic")
    W = np.column_stack([np.zeros_like(w), w]).ravel()
    assert softmax().value(W, Batch(data)) == pytest.approx(logistic().value(w, Batch(data)))
    G = softmax().grad(W, Batch(data)).reshape(-1, 2)
    np.testing.assert_allclose(G[:, 1], logistic().grad(w, Batch(data)), rtol=1e-12)
    np.testing.assert_array_equal(softmax().predict(W, data.X), logistic().predict(w, data.X))


@pytest.mark.parametrize("loss", LOSSES)
def test_predictions_are_classes_or_numbers(loss):
    data, w = make(loss), point(loss)
    found = LinearObjective(loss).predict(w, data.X)
    z = data.X @ w.reshape(P + 1, -1)[:-1] + w.reshape(P + 1, -1)[-1]
    expected = {"softmax": z.argmax(axis=1), "squared": z[:, 0]}.get(loss, z[:, 0] > 0)
    np.testing.assert_allclose(found, expected)
    assert found.shape == (N,)
    assert found.dtype.kind == ("f" if loss == "squared" else "i")


@pytest.mark.parametrize("loss", LOSSES)
def test_the_starting_point_is_zero_and_as_long_as_the_gradient(loss):
    data = make(loss)
    w = LinearObjective(loss).init(data, np.random.default_rng(0))
    assert not w.any() and w.shape == point(loss).shape
    assert LinearObjective(loss).grad(w, Batch(data)).shape == w.shape


def test_the_intercept_is_never_penalised():
    data, w = make("logistic"), point("logistic")
    moved = w.copy()
    moved[-1] += 5.0
    empty = Batch(data, np.empty(0, dtype=np.intp))
    assert logistic(0.5).value(w, empty) == logistic(0.5).value(moved, empty)


@pytest.mark.parametrize("loss", ["logistic", "softmax", "squared"])
def test_the_curvature_bounds_the_second_derivative(loss):
    """|g(w) - g(v)| <= curvature * lambda_max(X'X/n) |w - v|"""
    data, objective = make(loss), LinearObjective(loss)
    X = np.column_stack([data.X, np.ones(N)])
    bound = objective.curvature * np.linalg.eigvalsh(X.T @ X / N)[-1]
    for seed in range(20):
        w, v = point(loss, seed=seed), point(loss, seed=seed + 100)
        change = objective.grad(w, Batch(data)) - objective.grad(v, Batch(data))
        assert np.linalg.norm(change) <= bound * np.linalg.norm(w - v) * (1 + 1e-12)


def test_the_pooled_optimum_has_no_gradient():
    for loss in ("logistic", "softmax", "squared"):
        data, objective = make(loss), LinearObjective(loss, 0.1)
        w, value = pooled_optimum(objective, data)
        assert np.abs(objective.grad(w, Batch(data))).max() < 1e-6
        assert value == pytest.approx(objective.value(w, Batch(data)))


@pytest.mark.parametrize(
    ("objective", "y", "regression", "message"),
    [
        (logistic(), [0.5, 1.5, 2.5], True, "logistic loss needs classes, .* use squared loss"),
        (softmax(), [0.5, 1.5, 2.5], True, "softmax loss needs classes"),
        (hinge(), [0.5, 1.5, 2.5], True, "hinge loss needs classes"),
        (logistic(), ["yes", "yes", "yes"], False, "all labels are yes; a classifier needs at"),
        (softmax(), [1, 1, 1], False, "all labels are 1; a classifier needs at least two classes"),
        (logistic(), [0, 1, 2], False, "tells two classes apart, the data have 3; use softmax"),
        (hinge(), [0, 1, 2], False, "hinge loss tells two classes apart, the data have 3"),
        (squared(), ["a", "b", "c"], False, "squared loss needs numbers as targets"),
    ],
)
def test_targets_that_do_not_fit_are_refused_in_words(objective, y, regression, message):
    data = make_dataset(np.eye(3), y, regression=regression, name="flowers")
    with pytest.raises(DataError, match="flowers: .*" + message):
        objective.check(data)


def test_targets_that_fit_are_accepted():
    logistic().check(make("logistic"))
    hinge().check(make("hinge"))
    softmax().check(make("softmax"))
    softmax().check(make("logistic"))
    squared().check(make("squared"))


def test_nonsense_is_refused():
    with pytest.raises(OptionError, match="loss"):
        LinearObjective("cubic")
    with pytest.raises(OptionError, match="l2 should be greater than or equal to 0"):
        LinearObjective("hinge", -1.0)


def test_large_batches_are_cut_without_changing_the_result():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20_000, 2)), rng.integers(0, 3, 20_000)
    dense, csr = make_dataset(X, y), make_dataset(sparse.csr_array(X), y)
    w = rng.normal(size=9)
    assert softmax().value(w, Batch(dense)) == pytest.approx(softmax().value(w, Batch(csr)))
    np.testing.assert_allclose(
        softmax().grad(w, Batch(dense)), softmax().grad(w, Batch(csr)), rtol=1e-11, atol=1e-14
    )
