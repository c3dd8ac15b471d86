"""Streams: the same distribution for all, a fresh sample for each."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from hemiola.contracts import Stream
from hemiola.data import FunctionStream, LinearStream, LogisticStream
from hemiola.errors import DataError, OptionError
from hemiola.rng import stream


def ones(rng, size):
    """A module-level function, so that it can be pickled: one class only."""
    return rng.normal(size=(size, 3)), np.ones(size)


STREAMS = [
    LogisticStream(n_features=3),
    LogisticStream(n_features=3, dtype="float32"),
    LinearStream(n_features=3),
    LinearStream(n_features=3, dtype="float32"),
    FunctionStream(ones, n_features=3, n_classes=2),
    FunctionStream(ones, n_features=3, dtype="float32"),
]


@pytest.mark.parametrize(
    "source",
    STREAMS,
    ids=lambda source: f"{type(source).__name__}-{source.n_classes}-{source.dtype}",
)
def test_contract(source):
    assert isinstance(source, Stream)
    data = source.draw(stream(3, "online"), 7)
    assert data.X.shape == (7, source.n_features) and data.y.shape == (7,)
    assert data.dtype == source.dtype
    assert data.n_classes == source.n_classes
    assert data.y.dtype == (np.intp if source.n_classes else source.dtype)
    again = pickle.loads(pickle.dumps(source)).draw(stream(3, "online"), 7)
    np.testing.assert_array_equal(data.X, again.X)
    np.testing.assert_array_equal(data.y, again.y)
    other = source.draw(stream(3, "online", 1), 7)
    assert not np.isin(data.X, other.X).any()


@pytest.mark.parametrize(
    "source",
    STREAMS,
    ids=lambda source: f"{type(source).__name__}-{source.n_classes}-{source.dtype}",
)
@pytest.mark.parametrize("size", [0, -1])
def test_size(source, size):
    with pytest.raises(OptionError, match=r"size is .*; it must be at least 1"):
        source.draw(stream(0, "online"), size)


def test_classes_are_stable_in_small_draws():
    source, seen = LogisticStream(), set()
    for step in range(20):
        data = source.draw(stream(0, "online", 0, step), 1)
        assert data.classes.tolist() == [0, 1]
        seen.add(int(data.y[0]))
    assert seen == {0, 1}
    data = FunctionStream(ones, n_features=3, n_classes=4).draw(stream(0, "online"), 5)
    assert data.classes.tolist() == [0, 1, 2, 3]
    assert data.y.tolist() == [1] * 5


def test_logistic_model_is_what_it_says():
    source = LogisticStream(n_features=4, seed=5)
    data = source.draw(stream(0, "online"), 200_000)
    fit = LogisticRegression(C=np.inf).fit(data.X, data.y)
    np.testing.assert_allclose(fit.coef_[0], source.weights, atol=0.05)
    np.testing.assert_allclose(fit.intercept_[0], source.bias, atol=0.05)
    np.testing.assert_allclose(data.X.mean(axis=0), 0.0, atol=0.01)
    np.testing.assert_allclose(np.cov(data.X.T), np.eye(4), atol=0.02)


def test_linear_model_is_what_it_says():
    source = LinearStream(n_features=4, noise=0.2)
    data = source.draw(stream(0, "online"), 50_000)
    residual = data.y - data.X @ source.weights - source.bias
    assert residual.std() == pytest.approx(0.2, rel=0.02)
    assert residual.mean() == pytest.approx(0.0, abs=0.01)


def test_seed_and_signal():
    assert (LogisticStream(seed=0).weights != LogisticStream(seed=1).weights).all()
    lengths = [np.linalg.norm(LogisticStream(n_features=2000, signal=s).weights) for s in (1, 4)]
    np.testing.assert_allclose(lengths, [1.0, 4.0], rtol=0.05)
    assert LogisticStream() == LogisticStream(dtype=np.float64)


def test_both_types_see_the_same_samples():
    one, two = (LogisticStream(dtype=d).draw(stream(0, "online"), 100) for d in ("f4", "f8"))
    np.testing.assert_array_equal(one.X, two.X.astype(np.float32))
    np.testing.assert_array_equal(one.y, two.y)


def test_function_may_return_sparse():
    def sparse_ones(rng, size):
        return sparse.coo_array(rng.integers(0, 2, (size, 3))), [0] * size

    data = FunctionStream(sparse_ones, 3, 2, "float32").draw(stream(0, "online"), 9)
    assert isinstance(data.X, sparse.csr_array)
    assert data.dtype == np.float32


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        (np.ones((4, 3)), "return a pair"),
        ((np.ones((4, 2)), np.ones(4)), "return one row for each"),
        ((np.ones((5, 3)), np.ones(5)), "return one row for each"),
        ((np.ones((4, 3)), np.ones(5)), "4 rows but 5 labels"),
        ((np.full((4, 3), np.nan), np.ones(4)), "NaN"),
        ((np.ones((4, 3)), [0, 1, 2, 1]), "outside 0..1"),
        ((np.ones((4, 3)), [0, 1, -1, 1]), "outside 0..1"),
        ((np.ones((4, 3)), [0, 1, 0.5, 1]), "outside 0..1"),
        ((np.ones((4, 3)), list("abab")), "needs numbers"),
    ],
)
def test_function_that_misbehaves(drawn, words):
    def bad(rng, size):
        return drawn

    with pytest.raises(DataError) as caught:
        FunctionStream(bad, n_features=3, n_classes=2).draw(stream(0, "online"), 4)
    assert words in str(caught.value)
    assert "stream 'bad'" in str(caught.value)


def test_errors_in_the_function_are_its_own():
    def broken(rng, size):
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        FunctionStream(broken, 3).draw(stream(0, "online"), 1)


def test_options():
    with pytest.raises(OptionError, match="n_features is 0"):
        LogisticStream(n_features=0)
    with pytest.raises(OptionError, match="choose 'float32' or 'float64'"):
        LinearStream(dtype="int8")
    with pytest.raises(OptionError, match="use 0 for regression"):
        FunctionStream(ones, 3, n_classes=1)
