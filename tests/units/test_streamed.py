"""Mini-batches from shards on disk: every sample once an epoch, the same in any order of asking."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

import hemiola
from hemiola.algorithm import MiniBatch
from hemiola.contracts import Source
from hemiola.data import Standardizer, load, open_shards
from hemiola.data.formats import Raw
from hemiola.data.shards import Schema, ShardWriter
from hemiola.errors import DataError, OptionError
from hemiola.partition import Streamed


def write(place, data, rows):
    schema = Schema("them", data.n_features, data.is_sparse, data.dtype, data.classes)
    with ShardWriter(place, schema, rows) as writer:
        writer.add(Raw(data.X, data.y))
    return open_shards(place)


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(103, 5)) * (rng.random((103, 5)) < 0.5)
    y = rng.integers(0, 3, 103)
    return {
        "dense": hemiola.make_dataset(X, y),
        "sparse": hemiola.make_dataset(sparse.csr_array(X), y.astype(str)),
    }


@pytest.fixture
def numbered(tmp_path):
    """103 samples that tell their own numbers, in shards of 10."""
    data = hemiola.make_dataset(np.arange(103.0)[:, None] + 1, np.arange(103) % 2)
    return write(tmp_path / "numbered", data, 10)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("size", [4, 0.5, None, 1])
def test_an_epoch_sees_every_sample_once(numbered, window, size):
    shards = numbered
    source, batch = Streamed(replace(shards, window=window), 3, seed=1), MiniBatch(size)
    assert isinstance(source, Source)
    assert sum(source.samples(k) for k in range(3)) == 103
    orders = []
    for epoch in (0, 1, 5):
        seen, order = [], []
        for k in range(3):
            steps = source.steps_per_epoch(k, batch)
            for t in range(epoch * steps, (epoch + 1) * steps):
                drawn = source.batch(k, t, batch)
                order.append((drawn.data.X[drawn.rows].ravel() - 1).astype(int).tolist())
                seen += order[-1]
        assert sorted(seen) == list(range(103))
        orders.append(order)
    assert orders[0] != orders[1] != orders[2]


def test_a_batch_is_a_function_of_seed_worker_and_step(numbered):
    shards = numbered
    shards = replace(shards, window=2)
    source, batch = Streamed(shards, 3, seed=1), MiniBatch(4)
    first = {
        (k, t): source.batch(k, t, batch).data.X[source.batch(k, t, batch).rows].ravel().tolist()
        for k in range(3)
        for t in range(30)
    }
    copy = pickle.loads(pickle.dumps(source))
    for (k, t), rows in reversed(first.items()):
        drawn = copy.batch(k, t, batch)
        assert drawn.data.X[drawn.rows].ravel().tolist() == rows
    other = Streamed(shards, 3, seed=2).batch(0, 0, batch)
    assert other.data.X[other.rows].ravel().tolist() != first[0, 0]


@pytest.mark.parametrize("draw", ["replacement", "bernoulli"])
def test_other_draws(numbered, draw):
    shards = numbered
    source, batch = Streamed(shards, 2, seed=0), MiniBatch(4, draw)
    sizes = [len(source.batch(0, t, batch)) for t in range(60)]
    assert set(sizes) <= {3, 4} if draw == "replacement" else len(set(sizes)) > 3
    again = Streamed(shards, 2, seed=0).batch(0, 7, batch).rows
    np.testing.assert_array_equal(source.batch(0, 7, batch).rows, again)


def test_few_parts_are_open_at_a_time(numbered, monkeypatch):
    shards = numbered
    monkeypatch.setattr("hemiola.partition.disk._OPEN", 2)
    source, batch = Streamed(shards, 3, seed=1), MiniBatch(4)
    reference = Streamed(shards, 3, seed=1)
    monkeypatch.setattr("hemiola.partition.disk._OPEN", 128)
    for t in range(12):
        for k in range(3):
            np.testing.assert_array_equal(
                source.batch(k, t, batch).rows, reference.batch(k, t, batch).rows
            )
            assert len(source._open) <= 2


def test_more_workers_than_shards(numbered):
    shards = numbered
    source = Streamed(shards, 40, seed=0)
    assert min(source.samples(k) for k in range(40)) >= 1
    with pytest.raises(DataError, match="at most 103 workers"):
        Streamed(shards, 104, seed=0)


def test_a_damaged_shard_ends_training(numbered):
    shards = numbered
    array = np.load(shards.directory / "00010.X.npy", mmap_mode="r+")
    array[0] = np.nan
    array.flush()
    with pytest.raises(DataError, match=r"00010\.X\.npy: holds NaN"):
        hemiola.fit("ssgd", "logistic", shards, rounds=40)


# Training


@pytest.mark.parametrize("algorithm", ["ssgd", "model-averaging", "asgd", "fedavg", "easgd"])
def test_it_learns_like_data_in_memory(tmp_path, algorithm):
    data = load("breast_cancer")
    data = Standardizer.fit(data).apply(data)
    shards = write(tmp_path / "a", data, 50)
    ours = hemiola.fit(algorithm, "logistic", shards, rounds=60)
    theirs = hemiola.fit(algorithm, "logistic", data, rounds=60)
    assert ours.history.last.score > theirs.history.last.score - 0.02
    assert ours.history.last.score > 0.95


def test_engines_agree_and_runs_resume(tmp_path, sets):
    shards = write(tmp_path / "a", sets["sparse"], 10)
    runs = {
        engine: hemiola.fit("bmuf", "softmax", shards, rounds=12, engine=engine)
        for engine in ("serial", "threads", "simulator")
    }
    assert len({run.model.sha256 for run in runs.values()}) == 1
    place = tmp_path / "kept"
    hemiola.fit("bmuf", "softmax", shards, rounds=5, checkpoint=place)
    resumed = hemiola.fit("bmuf", "softmax", shards, rounds=12, checkpoint=place, resume=True)
    assert resumed.model.sha256 == runs["serial"].model.sha256


def test_regression_from_classes_and_what_is_refused(tmp_path, sets):
    shards = write(tmp_path / "a", sets["dense"], 30)
    result = hemiola.fit("ssgd", "squared", shards, rounds=3)
    assert result.history.metric == "r2" and result.model.classes is None
    with pytest.raises(OptionError, match="Whole needs data in memory"):
        hemiola.fit("sandblaster", "softmax", shards)


@pytest.mark.parametrize("name", ["hogwild", "tiered", "sdca", "cyclades", "cocoa"])
def test_what_needs_all_rows_at_once_refuses_shards_and_says_what_to_do(tmp_path, name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(103, 5)) * (rng.random((103, 5)) < 0.5)
    data = hemiola.make_dataset(sparse.csr_array(X), np.arange(103) % 2)
    shards = write(tmp_path / "a", data, 10)
    with pytest.raises(OptionError, match=rf"^{name} .* load them .*open_shards.* or use model-av"):
        hemiola.fit(name, "logistic", shards, workers=2, rounds=2)
    result = hemiola.fit(name, "logistic", shards.load(), workers=2, rounds=2)
    assert result.history.last.rounds == 2


def test_cocoa_trains_from_disk_if_each_worker_has_one_shard(tmp_path):
    data = hemiola.make_dataset(np.random.default_rng(0).normal(size=(90, 3)), np.arange(90) % 2)
    shards = write(tmp_path / "a", data, 45)
    result = hemiola.fit("cocoa", "logistic", shards, workers=2, rounds=300)
    best = hemiola.fit("sdca", "logistic", shards.load(), workers=1, rounds=300)
    assert result.history.last.loss == pytest.approx(best.history.last.loss, rel=2e-3)
