"""``hemiola convert``: every format into every other, and training on what comes out."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy import sparse
from typer.testing import CliRunner

import hemiola
from hemiola.cli.app import app
from hemiola.data import convert, load, open_shards
from hemiola.errors import DataError, OptionError

FORMATS = (".svm", ".svm.gz", ".csv", ".parquet", ".npz", "", ".shards")


def dense(data):
    return data.X.toarray() if data.is_sparse else data.X


def same(a, b):
    np.testing.assert_array_equal(dense(a), dense(b))
    assert a.classes.tolist() == b.classes.tolist()
    np.testing.assert_array_equal(a.y, b.y)


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4)) * (rng.random((90, 4)) < 0.7)
    X[0] = 1 / 3, 1e-300, 1e300, -7  # what must survive
    return hemiola.make_dataset(X, rng.integers(-1, 2, 90))


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_every_format_into_every_other(tmp_path, data, kind):
    start = tmp_path / f"{kind}.npz"
    y = data.classes[data.y]
    if kind == "dense":
        np.savez(start, X=data.X, y=y)
    else:
        X = sparse.csr_array(data.X)
        names = ("data", "indices", "indptr", "shape")
        np.savez(start, **{name: getattr(X, name) for name in names}, y=y)
    for one, two in itertools.product(FORMATS, FORMATS):
        first, second = tmp_path / f"{kind}1{one}", tmp_path / f"{kind}1to{len(two)}{two}"
        if not first.exists():
            convert(start, first)
        if second.exists():
            continue
        convert(first, second)
        same(load(second), data)


def test_float32_survives_as_text(tmp_path, data):
    small = hemiola.make_dataset(np.float32(np.clip(data.X, -9, 9)), data.classes[data.y])
    np.savez(tmp_path / "a.npz", X=small.X, y=data.classes[data.y])
    for target in ("a.svm", "a.csv", "a.parquet", "a"):
        convert(tmp_path / "a.npz", tmp_path / target, dtype="float32")
        same(load(tmp_path / target, dtype="float32"), small)


def test_text_labels_and_weights(tmp_path, data):
    y = np.array(["u", "v"])[np.arange(90) % 2]
    weight = np.arange(90.0)  # the first sample has none
    np.savez(tmp_path / "a.npz", X=data.X, y=y, weight=weight)
    expected = load(tmp_path / "a.npz")
    for target in ("b.parquet", "b", "b2.npz"):
        convert(tmp_path / "a.npz", tmp_path / target)
        found = load(tmp_path / target)
        same(found, expected)
        np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-12)
    with pytest.raises(DataError, match="no place for sample weights"):
        convert(tmp_path / "a.npz", tmp_path / "b.csv")
    np.savez(tmp_path / "a.npz", X=data.X, y=y)
    convert(tmp_path / "a.npz", tmp_path / "b.csv")
    assert load(tmp_path / "b.csv").classes.tolist() == ["u", "v"]
    convert(tmp_path / "b.csv", tmp_path / "c")
    assert load(tmp_path / "c").classes.tolist() == ["u", "v"]
    with pytest.raises(DataError, match="numbers as labels, not text such as"):
        convert(tmp_path / "b.csv", tmp_path / "b.svm")
    assert not (tmp_path / "b.svm").exists()


def test_regression(tmp_path):
    convert("diabetes", tmp_path / "a.csv")
    convert(tmp_path / "a.csv", tmp_path / "a", regression=True, shards=2)
    shards = open_shards(tmp_path / "a")
    assert shards.classes is None
    np.testing.assert_array_equal(shards.load().y, load("diabetes").y)
    assert hemiola.fit("ssgd", "squared", shards, rounds=3).history.metric == "r2"
    with pytest.raises(DataError, match="regression needs numbers"):
        (tmp_path / "t.csv").write_text("1,a\n2,b\n")
        convert(tmp_path / "t.csv", tmp_path / "t", regression=True)


def test_libsvm_in_parts(tmp_path):
    (tmp_path / "p1.svm").write_text("1 3:1\n-1 1:2\n")
    (tmp_path / "p2.svm").write_text("# nothing but a note\n")
    (tmp_path / "p3.svm").write_text("1 7:3\n")
    convert(str(tmp_path / "p*.svm"), tmp_path / "a", rows_per_shard=2)
    same(load(tmp_path / "a"), load(tmp_path))
    assert open_shards(tmp_path / "a").sizes == (2, 1)
    (tmp_path / "p3.svm").write_text("1 7:3\n1 x\n")
    with pytest.raises(DataError, match=r"p3\.svm: line 2"):
        convert(str(tmp_path / "p*.svm"), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_what_cannot_be_converted(tmp_path):
    for words, options in {
        "cannot write '.xlsx'": {"target": "a.xlsx"},
        "compressed as it is": {"target": "a.npz.gz"},
        "give one of them": {"target": "a", "shards": 2, "rows_per_shard": 3},
        "only a directory has shards": {"target": "a.csv", "shards": 2},
        "shards is 0": {"target": "a", "shards": 0},
        "151 shards for 150 samples": {"target": "a", "shards": 151},
        "choose 'float32' or": {"target": "a", "dtype": "int8"},
    }.items():
        target = tmp_path / str(options.pop("target"))
        with pytest.raises(OptionError, match=words):
            convert("iris", target, **options)
    with pytest.raises(DataError, match="CSV has a column for each of the 20,000 features"):
        np.savez(
            tmp_path / "w.npz", data=[1.0], indices=[0], indptr=[0, 1], shape=[1, 20_000], y=[1]
        )
        convert(tmp_path / "w.npz", tmp_path / "w.csv")
    (tmp_path / "big.csv").write_text("1e300,1\n2,0\n")
    with pytest.raises(DataError, match=r"big\.csv.*(too large for float32|NaN or infinite)"):
        convert(tmp_path / "big.csv", tmp_path / "big", dtype="float32")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.csv", "w.npz"]


def test_memory_does_not_grow_with_the_data(tmp_path):
    line = " ".join(f"{j}:0.{j}" for j in range(1, 200))
    (tmp_path / "a.svm").write_text("".join(f"{i % 2} {line}\n" for i in range(60_000)))
    tracemalloc.start()
    convert(tmp_path / "a.svm", tmp_path / "a", rows_per_shard=1000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(open_shards(tmp_path / "a")) == 60_000
    assert most < 110e6  # the file has 108 MB, its arrays 144 MB; the blocks in flight about 70 MB


# Parquet


def table(path, **columns):
    parquet.write_table(pa.table(columns), path)
    return path


def test_parquet_vectors(tmp_path):
    vectors = pa.array([[1.0, 2.0], [3.0, 4.0]])
    fixed = pa.FixedSizeListArray.from_arrays(pa.array([5, 6, 7, 8], pa.int8()), 2)
    path = table(tmp_path / "a.parquet", a=vectors, b=[9, 10], c=fixed, label=[0, 1])
    assert load(path).X.tolist() == [[1, 2, 9, 5, 6], [3, 4, 10, 7, 8]]
    convert(path, tmp_path / "a")
    assert load(tmp_path / "a").X.tolist() == load(path).X.tolist()


def test_parquet_sparse(tmp_path):
    indices, values = [[0, 4], [], [2]], [[1.0, 2.0], [], [3.0]]
    two = table(tmp_path / "a.parquet", indices=indices, values=values, label=[0, 1, 0])
    rows = [{"indices": i, "values": v} for i, v in zip(indices, values, strict=True)]
    one = table(tmp_path / "b.parquet", features=rows, label=[0, 1, 0])
    spark = [{"type": 0, "size": 6, **row} for row in rows]
    wide = table(tmp_path / "c.parquet", features=spark, label=[0, 1, 0])
    expected = [[1, 0, 0, 0, 2], [0] * 5, [0, 0, 3, 0, 0]]
    for path in (two, one):
        data = load(path)
        assert data.is_sparse and data.X.toarray().tolist() == expected
        convert(path, tmp_path / path.stem)
        same(load(tmp_path / path.stem), data)
    assert load(wide).X.shape == (3, 6)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": [[1.0], [1.0, 2.0]]}, "vectors of 1 and of 2 numbers"),
        ({"a": [[], []]}, "lists of null"),
        ({"a": pa.array([[], []], pa.list_(pa.float64()))}, "vectors without numbers"),
        ({"a": [[1.0], None]}, "column 'a' has 1 missing"),
        ({"a": [[1.0], [None]]}, "column 'a' has 1 missing"),
        ({"a": [["x"], ["y"]]}, "lists must hold numbers"),
        ({"a": [[[1.0]], [[2.0]]]}, "lists must hold numbers"),
        ({"indices": [[0], [1, 2]], "values": [[1.0], [1.0]]}, "row 1 has 2 indices but 1 values"),
        ({"indices": [[0], [-1]], "values": [[1.0], [1.0]]}, "row 1 has index -1, not in 0.."),
        ({"indices": [[0], [2**40]], "values": [[1.0], [1.0]]}, "row 1 has index 1099511627776"),
        ({"indices": [[0.5], [1]], "values": [[1.0], [1.0]]}, "no whole numbers"),
        ({"indices": [[0], [1]], "values": [[1.0], [1.0]], "b": [1, 2]}, "stands beside sparse"),
        ({"indices": [[0], [1]], "values": [[1.0], [float("nan")]]}, "NaN"),
    ],
)
def test_parquet_faults(tmp_path, columns, words):
    path = table(tmp_path / "a.parquet", **columns, label=[0, 1])
    for attempt in (lambda: load(path), lambda: convert(path, tmp_path / "a")):
        with pytest.raises(DataError) as caught:
            attempt()
        assert words in str(caught.value) and "a.parquet" in str(caught.value)
    assert not (tmp_path / "a").exists()


# The command line


def test_convert_train_and_predict(tmp_path):
    shards = tmp_path / "cancer"
    assert "569 samples" in run("convert", "breast_cancer", shards, "--rows-per-shard", 60)
    model, report = tmp_path / "m.npz", tmp_path / "r.json"
    run(
        "train", shards, "--algorithm", "model-averaging", "--rounds", 30,
        "--save", model, "--json", report,
    )  # fmt: skip
    document = json.loads(report.read_text())
    assert document["data"]["train"] + document["data"]["test"] == 569
    assert document["data"]["standardized"] and document["final"]["accuracy"] > 0.93
    assert "accuracy 0.9" in run("predict", model, "breast_cancer")
    assert "accuracy 0.9" in run("predict", model, shards)
    words = run(
        "train", shards, "--algorithm", "asgd", "--epochs", 2, "--test-data", shards, "--raw"
    )
    assert "569 test" in words
    assert "bmuf" in run("compare", shards, "--algorithms", "bmuf", "--rounds", 3)


def test_errors_are_one_sentence(tmp_path):
    shards = tmp_path / "a"
    run("convert", "iris", shards)
    assert "exists already" in run("convert", "iris", shards, code=2)
    assert "leave out --label" in run(
        "train", shards, "--algorithm", "ssgd", "--label", "y", code=2
    )
    assert "hemiola: " in run("train", shards, "--algorithm", "sandblaster", code=2)
    assert "4 features, the training data 4" not in run(
        "train", shards, "--algorithm", "ssgd", "--test-data", "wine", code=2
    )
    assert "Write data in another format" in run("convert", "--help")
    assert "larger than memory" in run("data")


def test_a_pipe_shows_no_bar(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hemiola", "convert", "iris", str(tmp_path / "a")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "150 samples" in done.stdout and done.stderr == ""
