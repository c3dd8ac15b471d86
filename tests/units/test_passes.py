"""Compiled passes against the same steps in plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from hemiola.dataset import Dataset, make_dataset
from hemiola.errors import OptionError
from hemiola.kernels import Rows, sgd
from hemiola.kernels.sgd import Mean, Rule

LOSSES = ("logistic", "hinge", "squared", "softmax")


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def make(rng):
    def _make(loss="logistic", csr=True, weighted=False, n=70, p=9, dtype=np.float64):
        X = rng.standard_normal((n, p)) * (rng.random((n, p)) < 0.4)
        X[::9] = 0  # empty rows
        X = X.astype(dtype)
        y = rng.standard_normal(n) if loss == "squared" else rng.integers(
            0, 3 if loss == "softmax" else 2, n
        )  # fmt: skip
        weight = rng.random(n) + 0.2 if weighted else None
        return make_dataset(
            sparse.csr_array(X) if csr else X, y, weight=weight, regression=loss == "squared"
        )

    return _make


def slopes(loss, z, y):
    if loss == "softmax":
        e = np.exp(z - z.max())
        return e / e.sum() - (np.arange(len(z)) == y)
    if loss == "squared":
        return z - y
    sign = 2 * y - 1
    return -sign / (1 + np.exp(sign * z)) if loss == "logistic" else -sign * (sign * z < 1)


def plain(data, w, rule, order, t=0, iterates=None):
    """SGD row by row on w (d,), in the objective's layout."""
    X = data.X.toarray() if data.is_sparse else data.X
    W = w.reshape(X.shape[1] + 1, -1).copy()
    for i in order:
        x = X[i]
        r = slopes(rule.loss, x @ W[:-1] + W[-1], data.y[i])
        r = r * (1 if data.weight is None else data.weight[i])
        rate = rule.rate / (1 + rule.rate * rule.l2 * (t + 1)) if rule.inverse else rule.rate
        W[:-1] = (1 - rate * rule.l2) * W[:-1] - rate * np.outer(x, r)
        W[:-1] = np.sign(W[:-1]) * np.maximum(np.abs(W[:-1]) - rate * rule.l1, 0)
        if rule.intercept:
            W[-1] -= min(rate, max(rule.intercept * rate, 20 / (t + 1))) * r
        t += 1
        if iterates is not None:
            iterates.append(W.copy().ravel())
    return W.ravel()


def visited(rows, rule, seed, number):
    """The samples in the order of a pass."""
    size = rule.block_size(rows)
    blocks = rows.blocks(seed, number, size)
    return np.concatenate([rows.order[b * size : (b + 1) * size] for b in blocks])


def passes(data, rule, number=2, mean=None):
    rows = Rows.of(data, 5, rule.loss)
    start = np.linspace(-1, 1, (data.n_features + 1) * rows.outputs)
    w, expected, iterates = rows.inside(start), start.astype(data.dtype), []
    for e in range(number):
        sgd.epoch(rows, w, rule, seed=3, number=e, mean=mean)
        order = visited(rows, rule, 3, e)
        assert sorted(order) == list(range(len(data)))
        expected = plain(data, expected, rule, order, e * len(data), iterates)
    return rows, rows.outside(w), expected, np.mean(iterates, axis=0)


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_pass_is_sgd(make, loss, csr, weighted):
    data = make(loss, csr, weighted)
    for rule in (Rule(loss, 0.1, 0.05), Rule(loss, 0.3, 0.05, False, 0.3), Rule(loss, 0.1)):
        _, w, expected, _ = passes(data, rule)
        np.testing.assert_allclose(w, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("loss", LOSSES)
def test_lazy_truncation_is_truncation_in_every_step(make, loss, csr):
    data = make(loss, csr, weighted=True)
    for inverse in (True, False):
        rule = Rule(loss, 0.1, 0.05, inverse, l1=0.02)
        _, w, expected, _ = passes(data, rule)
        np.testing.assert_allclose(w, expected, rtol=1e-12, atol=1e-12)
        assert (w == 0).sum() == (expected == 0).sum()


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_mean_is_that_of_all_iterates(make, loss, csr):
    data = make(loss, csr)
    for inverse in (True, False):
        rule = Rule(loss, 0.1, 0.05, inverse)
        mean = Mean.of(Rows.of(data, 5, loss))
        rows, w, expected, average = passes(data, rule, mean=mean)
        np.testing.assert_allclose(w, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(
            rows.outside(mean.value(rows)), average, rtol=1e-12, atol=1e-12
        )  # fmt: skip


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("loss", LOSSES)
def test_single_precision_is_close(make, loss, csr):
    _, w, expected, _ = passes(make(loss, csr, dtype=np.float32), Rule(loss, 0.1, 0.05))
    assert w.dtype == np.float32
    np.testing.assert_allclose(w, expected, rtol=1e-4, atol=1e-5)


def test_without_an_intercept_none_moves(make):
    _, w, expected, _ = passes(make(), Rule("logistic", 0.1, 0.01, intercept=0.0))
    np.testing.assert_allclose(w, expected, rtol=1e-12, atol=1e-12)
    assert w[-1] == 1


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (40, 1)])
@pytest.mark.parametrize("loss", LOSSES)
def test_tiny_data(rng, loss, csr, shape):
    X = rng.standard_normal(shape)
    y = rng.standard_normal(shape[0]) if loss == "squared" else np.arange(shape[0]) % 2
    classes = None if loss == "squared" else np.array([0, 1])
    data = Dataset(sparse.csr_array(X) if csr else X, y, classes)
    for rule in (Rule(loss, 0.1, 0.1), Rule(loss, 0.1, 0.1, l1=0.02)):
        _, w, expected, _ = passes(data, rule)
        np.testing.assert_allclose(w, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_feature_named_twice_in_a_row_counts_twice(loss):
    values, columns = [1.0, 2.0, 1.0, -1.0, 3.0], [1, 0, 1, 0, 0]
    twice = sparse.csr_array((values, columns, [0, 3, 5]), shape=(2, 2))
    y, classes = np.array([1, 0]), None if loss == "squared" else np.array([0, 1])
    for rule in (Rule(loss, 0.3, 0.1), Rule(loss, 0.3, l1=0.02)):
        _, w, expected, _ = passes(Dataset(twice, y, classes), rule)
        np.testing.assert_allclose(w, expected, rtol=1e-12, atol=1e-12)
    assert twice.nnz == 5, "the caller's matrix stays as it is"
    counts = Rows.of(Dataset(twice, y, classes), 0, loss).counts
    assert counts.tolist() == [2, 1], "how many rows use a feature"


def test_strong_shrinkage_does_not_overflow(make):
    data = make(n=70)
    for dtype in (np.float32, np.float64):
        rule = Rule("logistic", 1.0, 0.9, inverse=False)
        _, w, expected, _ = passes(make(dtype=dtype), rule)
        np.testing.assert_allclose(w, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(OptionError, match="signs"):
        Rule("logistic", 2.0, 0.5, inverse=False)
    with pytest.raises(OptionError, match="either l1 or averaging"):
        rows = Rows.of(data, 0)
        sgd.epoch(rows, np.zeros(10), Rule("logistic", 1.0, l1=1.0), 0, mean=Mean.of(rows))


def test_numbers_that_are_not_stay_visible(make):
    rows = Rows.of(make(dtype=np.float32), 0)
    w = np.full(10, np.nan, np.float32)
    sgd.epoch(rows, w, Rule("logistic", 0.1), 0)
    assert np.isnan(w).any()


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_rows_are_the_samples_in_another_order(make, csr):
    data = make(csr=csr, weighted=True)
    rows = Rows.of(data, 1)
    w = np.arange(10.0)
    assert (rows.outside(rows.inside(w)) == w).all()
    assert (np.diff(rows.counts) <= 0).all()
    X = np.abs(data.X.toarray() if csr else data.X)
    X = np.column_stack([X, np.ones(len(X))]) * np.sqrt(data.weight)[:, None]
    bare = X / np.sqrt(data.weight)[:, None]
    squares, reach = rows.spread()
    np.testing.assert_allclose(rows.outside(squares), np.square(X).mean(axis=0))
    expected = (X * np.sqrt(data.weight)[:, None] * bare.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(rows.outside(reach), expected)
