"""Matrix completion as an objective, and reading ratings."""

from __future__ import annotations

import lzma

import numpy as np
import pytest

from hemiola.algorithms.registry import build
from hemiola.data import read_ratings
from hemiola.dataset import Batch, make_dataset
from hemiola.describe import describe
from hemiola.errors import DataError
from hemiola.objectives import MatrixFactorization, factorization
from hemiola.result import Result
from hemiola.training import fit


def ratings(n=200, users=12, items=15, seed=0):
    rng = np.random.default_rng(seed)
    pairs = np.column_stack([rng.integers(0, users, n), rng.integers(0, items, n)])
    pairs[0] = users - 1, items - 1
    L, R = rng.normal(size=(users, 2)), rng.normal(size=(items, 2))
    z = 3 + (L[pairs[:, 0]] * R[pairs[:, 1]]).sum(axis=1) + 0.1 * rng.normal(size=n)
    return make_dataset(pairs, z, regression=True, name="ratings")


def start(objective, data, seed=1):
    w = objective.init(data, np.random.default_rng(seed))
    return w + 0.1 * np.random.default_rng(seed).normal(size=w.size)


@pytest.mark.parametrize("rows", [None, np.array([3, 5, 3, 9])])
def test_the_gradient_matches_finite_differences(rows):
    data = ratings()
    objective = factorization(data, rank=3, l2=0.3)
    w, batch, h = start(objective, data), Batch(data, rows), 1e-6
    slopes = [
        (objective.value(w + h * e, batch) - objective.value(w - h * e, batch)) / (2 * h)
        for e in np.eye(w.size)
    ]
    np.testing.assert_allclose(objective.grad(w, batch), slopes, atol=1e-8)


def test_the_value_is_its_formula():
    data = ratings(5)
    objective = MatrixFactorization(12, 15, 2, 0.3, 3.0)
    w = start(objective, data)
    L, R = objective.factors(w)
    total = 0.0
    for (u, v), z in zip(data.X.astype(int), data.y, strict=True):
        e = 3.0 + L[u, :2] @ R[v, :2] + L[u, 2] + R[v, 2] - z
        total += 0.5 * e**2 + 0.15 * (L[u] @ L[u] + R[v] @ R[v])
    assert objective.value(w, Batch(data)) == pytest.approx(total / 5, rel=1e-12)


def test_an_empty_batch_adds_nothing():
    data = ratings()
    objective = factorization(data)
    w, nothing = start(objective, data), Batch(data, np.empty(0, dtype=int))
    assert objective.value(w, nothing) == 0 and not objective.grad(w, nothing).any()


def test_the_start_is_small_seeded_and_without_biases():
    data = ratings()
    objective = factorization(data, rank=9)
    w = objective.init(data, np.random.default_rng(0))
    assert (w == objective.init(data, np.random.default_rng(0))).all()
    L, R = objective.factors(w)
    assert not L[:, -1].any() and not R[:, -1].any()
    assert 0.05 < (L[:, :-1] @ R[:, :-1].T).std() < 0.2
    assert objective.predict(w, data.X).std() < 0.3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ssgd", {"lr": 3.0}),
        ("asgd", {"lr": 1.0}),
        ("model-averaging", {"lr": 3.0, "steps": 5}),
        ("bmuf", {"lr": 1.0, "steps": 5}),
    ],
)
@pytest.mark.parametrize("engine", ["serial", "threads"])
def test_it_trains_with_algorithms_of_four_modules(name, options, engine):
    data = ratings(600)
    objective = factorization(data, rank=2, l2=1e-3)
    result = fit(
        build(name, options), objective, data, engine=engine, workers=2, rounds=200, eval_every=200
    )
    assert result.history.metric == "r2"
    assert result.history.last.score > 0.5


def test_a_model_comes_back_from_disk(tmp_path):
    data = ratings()
    objective = factorization(data, rank=2)
    result = fit(build("ssgd", {"lr": 1.0}), objective, data, rounds=3)
    result.save(tmp_path / "model.npz")
    again = Result.load(tmp_path / "model.npz")
    assert describe(again.model.objective) == describe(objective)
    assert (again.model.predict(data.X) == result.model.predict(data.X)).all()


@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        ([[0.0, 1.0, 2.0]], {}, "two columns"),
        ([[0.0, 15.0]], {}, "items below 15"),
        ([[12.0, 1.0]], {}, "users must be whole numbers below 12"),
        ([[-1.0, 1.0]], {}, "below 12"),
        ([[0.5, 1.0]], {}, "whole numbers"),
        ([[0.0, 1.0]], {"weight": [2.0]}, "no sample weights"),
        ([[0.0, 1.0]], {"regression": False}, "real targets"),
    ],
)
def test_what_are_no_ratings_is_refused(X, options, message):
    data = make_dataset(X, [1.0], **{"regression": True, **options})
    with pytest.raises(DataError, match=message):
        MatrixFactorization(12, 15).check(data)


def test_factors_need_pairs():
    with pytest.raises(DataError, match="two columns"):
        factorization(make_dataset([[1.0]], [1.0], regression=True))


TABLE = b"userId,movieId,rating,timestamp\n7,300,4.5,1\n7,20,3.0,2\n2,300,0.5,3\n"


@pytest.mark.parametrize(("suffix", "pack"), [("csv", bytes), ("csv.xz", lzma.compress)])
def test_ratings_are_read_and_numbered(tmp_path, suffix, pack):
    path = tmp_path / f"ratings.{suffix}"
    path.write_bytes(pack(TABLE))
    data, users, items = read_ratings(path, np.float32)
    assert users.tolist() == [2, 7] and items.tolist() == [20, 300]
    assert data.X.tolist() == [[1, 1], [1, 0], [0, 1]] and data.y.tolist() == [4.5, 3.0, 0.5]
    assert data.dtype == np.float32 and data.classes is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n", "expected rows of user, item and rating"),
        (b"user,item,rating\n", "expected rows"),
        (b"u,v,z\n1,2,good\n", "no ratings"),
        (b"", "no table of ratings"),
    ],
)
def test_what_is_no_table_of_ratings_is_refused(tmp_path, content, message):
    path = tmp_path / "ratings.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_ratings(path)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_ratings(tmp_path / "nowhere.csv")
