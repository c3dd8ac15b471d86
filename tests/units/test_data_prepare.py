"""Splitting and standardising, against scikit-learn and by their definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from hemiola.data import Standardizer, load, split
from hemiola.dataset import make_dataset
from hemiola.errors import DataError


def example(n=200, p=6, as_sparse=False, dtype=np.float64):
    rng = np.random.default_rng(1)
    X = rng.normal(5.0, 3.0, (n, p)) * (rng.random((n, p)) < 0.4)
    X[:, 2] = 0.1
    X[:, 3] = 0.0
    X = X.astype(dtype)
    return make_dataset(sparse.csr_array(X) if as_sparse else X, rng.integers(0, 2, n))


def test_split_is_the_well_known_one():
    train, test = split(load("breast_cancer"), test_size=0.3, seed=0)
    assert (len(train), len(test)) == (398, 171)
    assert int(test.y.sum()) == 108


@pytest.mark.parametrize("as_sparse", [False, True])
@pytest.mark.parametrize("seed", [0, 7])
def test_split_equals_sklearn(as_sparse, seed):
    data = example(as_sparse=as_sparse)
    train, test = split(data, 0.25, seed)
    parts = train_test_split(data.X, data.y, test_size=0.25, random_state=seed)
    dense = [part.toarray() if sparse.issparse(part) else part for part in parts[:2]]
    for mine, X, y in zip((train, test), dense, parts[2:], strict=True):
        np.testing.assert_array_equal(mine.X.toarray() if as_sparse else mine.X, X)
        np.testing.assert_array_equal(mine.y, y)
        assert mine.is_sparse == as_sparse
        assert mine.classes is data.classes


def test_split_is_disjoint_and_reproducible():
    data = make_dataset(np.arange(50.0)[:, None], np.arange(50.0), regression=True)
    train, test = split(data)
    assert sorted([*train.y, *test.y]) == list(range(50))
    assert split(data)[1].y.tolist() == test.y.tolist()
    assert split(data, seed=1)[1].y.tolist() != test.y.tolist()


def test_split_keeps_weights_at_mean_one():
    data = example()
    data = make_dataset(data.X, data.y, weight=np.linspace(1, 9, len(data)))
    for part in split(data):
        assert part.weight.shape == (len(part),)
        assert part.weight.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("size", [0, 1, -0.1, 1.5, 10, float("nan")])
def test_split_size(size):
    with pytest.raises(DataError, match="must lie between 0 and 1, for example"):
        split(example(), size)


def test_split_that_leaves_nothing():
    with pytest.raises(DataError, match="choose a smaller test_size or more data"):
        split(make_dataset([[1.0]], [0.0], regression=True), 0.5)
    with pytest.raises(DataError, match="leaves no training samples of 3"):
        split(make_dataset([[1.0]] * 3, [0.0] * 3, regression=True), 0.9)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_split_seed(seed):
    with pytest.raises(DataError, match="seed of a split"):
        split(example(), seed=seed)


def test_split_without_a_class():
    data = make_dataset(np.eye(20), ["common"] * 19 + ["rare"])
    outcomes = set()
    for seed in range(20):
        try:
            train, _ = split(data, 0.5, seed)
            assert set(train.y) == {0, 1}
            outcomes.add("fine")
        except DataError as error:
            assert "no sample of class rare; choose another seed" in str(error)
            outcomes.add("refused")
    assert outcomes == {"fine", "refused"}


def test_split_accepts_a_class_that_the_data_never_had():
    data = replace(example(), classes=np.arange(3))
    assert split(data)[0].n_classes == 3


@pytest.mark.parametrize("as_sparse", [False, True])
def test_standardizer_equals_sklearn(as_sparse):
    data = example(as_sparse=as_sparse)
    reference = StandardScaler(with_mean=not as_sparse).fit(data.X)
    mine = Standardizer.fit(data)
    np.testing.assert_allclose(mine.scale, reference.scale_, rtol=1e-12)
    assert mine.scale[2] == mine.scale[3] == 1.0
    assert (mine.mean is None) == as_sparse
    scaled, expected = mine.apply(data).X, reference.transform(data.X)
    if as_sparse:
        scaled, expected = scaled.toarray(), expected.toarray()
    np.testing.assert_allclose(scaled, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("as_sparse", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standardizer_keeps_type_and_input(as_sparse, dtype):
    data = example(as_sparse=as_sparse, dtype=dtype)
    before = data.X.copy()
    after = Standardizer.fit(data).apply(data)
    assert after.dtype == dtype
    assert after.is_sparse == as_sparse
    assert after.y is data.y and after.classes is data.classes
    changed = before != data.X
    assert not (changed.nnz if as_sparse else changed.any())
    if not as_sparse:
        assert after.X.flags.c_contiguous


def test_standardizer_in_float32_far_from_zero():
    X = (1e4 + np.random.default_rng(0).normal(size=(5000, 2))).astype(np.float32)
    data = make_dataset(X, np.zeros(5000))
    scaled = Standardizer.fit(data).apply(data).X
    np.testing.assert_allclose(scaled.mean(axis=0, dtype=float), 0.0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0, dtype=float), 1.0, atol=1e-5)


def test_standardizer_on_new_features():
    data = example()
    mine = Standardizer.fit(data)
    row = mine.apply_features([[1, 2, 3, 4, 5, 6]])
    np.testing.assert_allclose(row, (np.arange(1.0, 7) - mine.mean)[None] / mine.scale)
    only_scale = Standardizer(None, mine.scale)
    np.testing.assert_allclose(only_scale.apply_features(data.X), data.X / mine.scale)
    for other in (sparse.csc_matrix, sparse.coo_array):
        scaled = only_scale.apply_features(other(data.X))
        assert isinstance(scaled, sparse.csr_array)
        np.testing.assert_allclose(scaled.toarray(), data.X / mine.scale)


@pytest.mark.parametrize("X", [np.ones((3, 5)), np.ones(6), sparse.csr_array((3, 7))])
def test_standardizer_needs_the_same_columns(X):
    with pytest.raises(DataError, match="use the same columns as in training"):
        Standardizer.fit(example()).apply_features(X)


def test_standardizer_cannot_centre_sparse_features():
    with pytest.raises(DataError, match="cannot be centred"):
        Standardizer.fit(example()).apply(example(as_sparse=True))
