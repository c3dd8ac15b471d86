"""Shards on disk: written whole or not at all, checked before use, streamed in a known order."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

import hemiola
from hemiola.contracts import Sharded
from hemiola.data import Standardizer, convert, load, open_shards
from hemiola.data.formats import Raw
from hemiola.data.shards import Schema, ShardWriter
from hemiola.dataset import Batch
from hemiola.errors import DataError, OptionError
from hemiola.objectives import softmax


def dense(data):
    return data.X.toarray() if data.is_sparse else data.X


def write(place, data, rows=None):
    schema = Schema("them", data.n_features, data.is_sparse, data.dtype, data.classes)
    with ShardWriter(place, replace_weight(schema, data), rows) as writer:
        writer.add(Raw(data.X, data.y, data.weight))
    return open_shards(place)


def replace_weight(schema, data):
    return replace(schema, weighted=data.weight is not None)


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(103, 5)) * (rng.random((103, 5)) < 0.5)
    y = rng.integers(0, 3, 103)
    weight = rng.random(103) + 0.5
    return {
        "dense": hemiola.make_dataset(X, y),
        "sparse": hemiola.make_dataset(sparse.csr_array(X), y.astype(str)),
        "float32": hemiola.make_dataset(X.astype(np.float32), y == 1),
        "regression": hemiola.make_dataset(X, rng.normal(size=103), regression=True),
        "weighted": hemiola.make_dataset(sparse.csr_array(X), y, weight=weight),
    }


KINDS = ("dense", "sparse", "float32", "regression", "weighted")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [None, 10, 103, 1000, [100, 1, 2]])
def test_what_is_written_is_read(tmp_path, sets, kind, rows):
    data = sets[kind]
    shards = write(tmp_path / "a", data, rows)
    shards.verify()
    assert len(shards) == 103 and isinstance(shards, Sharded)
    assert sum(shards.sizes) == 103 and min(shards.sizes) > 0
    parts = list(shards.shards())
    assert [len(part) for part in parts] == list(shards.sizes)
    assert all(part.dtype == data.dtype and part.is_sparse == data.is_sparse for part in parts)
    for whole in (shards.load(), shards.sample(1000)):
        np.testing.assert_array_equal(dense(whole), dense(data))
        np.testing.assert_array_equal(whole.y, data.y)
        assert whole.y.dtype == data.y.dtype
        if data.classes is None:
            assert whole.classes is None
        else:
            assert whole.classes.tolist() == data.classes.tolist()
        if data.weight is not None:
            np.testing.assert_allclose(whole.weight, data.weight, rtol=1e-12)


def test_blocks_are_cut_and_joined(tmp_path, sets):
    data = sets["sparse"]
    schema = Schema("them", 5, True, data.dtype, data.classes)
    with ShardWriter(tmp_path / "a", schema, 10) as writer:
        for first in range(0, 103, 7):
            writer.add(Raw(data.X[first : first + 7], data.y[first : first + 7]))
    shards = open_shards(tmp_path / "a")
    assert shards.sizes == (*[10] * 10, 3)
    np.testing.assert_array_equal(dense(shards.load()), dense(data))


def test_nothing_is_left_of_what_failed(tmp_path, sets):
    data = sets["dense"]
    schema = Schema("them", 5, False, data.dtype, data.classes)
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "a", schema, 10) as writer:
        writer.add(Raw(data.X, data.y))
        raise KeyboardInterrupt
    with pytest.raises(DataError, match="no samples"), ShardWriter(tmp_path / "a", schema):
        pass
    assert not list(tmp_path.iterdir())
    write(tmp_path / "a", data)
    with pytest.raises(DataError, match="exists already"):
        write(tmp_path / "a", data)


def test_parts_are_mapped_and_writing_to_them_changes_no_file(tmp_path, sets):
    shards = write(tmp_path / "a", sets["dense"])
    part = shards.part(0)
    assert not part.X.flags.owndata
    part.X[:] = 7
    np.testing.assert_array_equal(dense(shards.part(0)), dense(sets["dense"]))


# Damage


def broken(place, words, shards=None):
    with pytest.raises(DataError) as caught:
        opened = shards or open_shards(place)
        list(opened.shards())
    message = str(caught.value)
    assert words in message and str(place) in message and "\n" not in message


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_files_that_are_cut_or_missing(tmp_path, sets, kind):
    place = tmp_path / "a"
    shards = write(place, sets[kind], 50)
    for path in sorted(place.glob("*.npy")):
        whole = path.read_bytes()
        path.write_bytes(whole[:-8])
        broken(place, "copy the directory again")
        broken(place, "has changed its size", shards)
        path.unlink()
        broken(place, "is missing")
        path.write_bytes(whole)
    list(open_shards(place).shards())


def test_every_damaged_byte_of_a_header_is_noticed_or_harmless(tmp_path, sets):
    place = tmp_path / "a"
    write(place, sets["sparse"])
    for path in sorted(place.glob("*.npy")):
        whole = path.read_bytes()
        for at in range(0, 128, 3):
            path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
            try:
                (part,) = open_shards(place).shards()
            except DataError as error:
                assert path.name in str(error)
            else:
                np.testing.assert_array_equal(dense(part), dense(sets["sparse"]))
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("kind", "key", "value", "words"),
    [
        ("dense", "X", np.nan, "NaN or infinite"),
        ("dense", "X", np.inf, "NaN or infinite"),
        ("dense", "y", 3, "numbers of no class"),
        ("dense", "y", -1, "numbers of no class"),
        ("regression", "y", np.nan, "NaN or infinite"),
        ("sparse", "indices", 5, "no matrix of finite numbers"),
        ("sparse", "indices", -1, "no matrix of finite numbers"),
        ("sparse", "indptr", 10**6, "no matrix of finite numbers"),
        ("sparse", "indptr", -1, "no matrix of finite numbers"),
        ("sparse", "values", np.nan, "no matrix of finite numbers"),
        ("weighted", "weight", 0, "not positive"),
        ("weighted", "weight", np.nan, "not positive"),
    ],
)
def test_contents_that_would_crash_a_kernel(tmp_path, sets, kind, key, value, words):
    place = tmp_path / "a"
    shards = write(place, sets[kind])
    array = np.load(place / f"00000.{key}.npy", mmap_mode="r+")
    array.reshape(-1)[len(array) // 2] = value
    array.flush()
    broken(place, words)
    with pytest.raises(DataError, match="the check sum is wrong"):
        shards.verify()


def change(document, path, value):
    *way, last = path
    for key in way:
        document = document[key]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], "hemiola-shards-2"),
        (["rows"], 5),
        (["n_features"], 0),
        (["n_features"], "5"),
        (["dtype"], "int8"),
        (["dtype"], "object"),
        (["sparse"], 1),
        (["sparse"], False),
        (["weighted"], True),
        (["classes"], {"dtype": "O", "values": [1]}),
        (["classes"], {"dtype": "<i8", "values": [1, 0, 2]}),
        (["classes"], {"dtype": "<i8", "values": []}),
        (["classes"], 3),
        (["shards"], []),
        (["shards"], None),
        (["shards", 0, "rows"], -1),
        (["shards", 0, "files"], {}),
        (["shards", 0, "files", "y", "file"], "../a/00000.y.npy"),
        (["shards", 0, "files", "y", "bytes"], None),
        (["shards", 0, "files", "y", "crc32"], "x"),
    ],
)
def test_manifests_that_make_no_sense(tmp_path, sets, path, value):
    place = tmp_path / "a"
    write(place, sets["sparse"])
    document = json.loads((place / "manifest.json").read_text())
    change(document, path, value)
    (place / "manifest.json").write_text(json.dumps(document))
    broken(place, "convert the data again")


def test_what_is_no_directory_of_shards(tmp_path):
    with pytest.raises(DataError, match="hemiola convert"):
        open_shards(tmp_path)
    with pytest.raises(DataError, match="is not a directory"):
        open_shards(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        open_shards(tmp_path)
    with pytest.raises(OptionError, match="window is 0"):
        open_shards(tmp_path, window=0)


# Views


def test_load_knows_shards(tmp_path, sets):
    write(tmp_path / "a", sets["sparse"], 40)
    data = load(tmp_path / "a", dtype="float32", n_features=9)
    assert data.X.shape == (103, 9) and data.dtype == np.float32 and data.name == "them"
    assert load(tmp_path / "a", regression=False).classes.tolist() == ["0", "1", "2"]
    with pytest.raises(DataError, match="squared loss needs numbers"):
        load(tmp_path / "a", regression=True)
    with pytest.raises(OptionError, match="leave label out"):
        load(tmp_path / "a", label="y")
    write(tmp_path / "b", sets["dense"], 40)
    assert load(tmp_path / "b", regression=True).y.tolist() == sets["dense"].y.tolist()


def test_too_large_to_load(tmp_path, sets, monkeypatch):
    shards = write(tmp_path / "a", sets["dense"], 40)
    monkeypatch.setattr("hemiola.data.disk._available", lambda: 1000)
    with pytest.raises(DataError, match=r"memory, more than there is; train from disk"):
        shards.load()


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_scale_and_mean_are_those_of_all(tmp_path, sets, kind):
    data = sets[kind]
    shards = write(tmp_path / "a", data, 10)
    scaled = shards.standardized()
    expected = Standardizer.fit(data).apply(data)
    np.testing.assert_allclose(dense(scaled.load()), dense(expected), atol=1e-12)
    assert scaled.resident_bytes > 0 == shards.resident_bytes
    w = np.linspace(-1, 1, 18)
    objective = softmax()
    mean = shards.mean(lambda part: objective.value(w, Batch(part)))
    assert mean == pytest.approx(objective.value(w, Batch(data)), rel=1e-12)


def test_split_and_sample(tmp_path, sets):
    shards = write(tmp_path / "a", sets["dense"], 10)
    train, test = shards.split(0.2)
    assert len(train) + len(test) == 103 and len(test) == 2 * 10 + 1
    both = np.concatenate([dense(train.load()), dense(test.load())])
    assert len(np.unique(both, axis=0)) == len(np.unique(dense(sets["dense"]), axis=0))
    sample = shards.sample(50, seed=3)
    assert 40 <= len(sample) <= 60
    np.testing.assert_array_equal(sample.X, shards.sample(50, seed=3).X)
    with pytest.raises(DataError, match="must lie between 0 and 1"):
        shards.split(1.0)
    with pytest.raises(DataError, match="no training samples"):
        write(tmp_path / "b", sets["dense"], 1).split(0.5)


def test_cutting(tmp_path, sets):
    shards = write(tmp_path / "a", sets["sparse"], 60)
    assert shards.cut(2) is not None and shards.cut(2).sizes == (60, 43)
    for least in (3, 7, 103):
        pieces = shards.cut(least)
        assert len(pieces.parts) == least and min(pieces.sizes) >= 1
        np.testing.assert_array_equal(
            np.concatenate([dense(part) for part in pieces.shards()]), dense(sets["sparse"])
        )
    with pytest.raises(DataError, match="104 workers for 103 samples"):
        shards.cut(104)


def test_convert_to_shards_of_equal_size(tmp_path):
    convert("iris", tmp_path / "a", shards=7)
    sizes = open_shards(tmp_path / "a").sizes
    assert len(sizes) == 7 and max(sizes) - min(sizes) <= 1
