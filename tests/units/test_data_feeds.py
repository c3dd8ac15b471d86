"""Samples that arrive: in order, each once, until they end."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from scipy import sparse

import hemiola
from hemiola.algorithms.registry import build
from hemiola.contracts import Stream
from hemiola.data import BlockStream, follow
from hemiola.errors import DataError, OptionError, StreamEnded
from hemiola.objectives import logistic

RNG = np.random.default_rng(0)


def blocks(count, rows=7, p=3):
    """Two classes that a line tells apart; sample i has i in its first column."""
    for i in range(count):
        rng = np.random.default_rng(i)
        X = rng.normal(size=(rows, p))
        yield X, np.where(X[:, 0] + X[:, 1] > 0, "yes", "no")


def test_samples_come_in_order_and_once():
    stream = BlockStream(blocks(3), 3, classes=["yes", "no"], dtype="float32")
    assert isinstance(stream, Stream) and stream.n_classes == 2
    drawn = [stream.draw(RNG, size) for size in (5, 1, 9, 100)]
    assert [len(data) for data in drawn] == [5, 1, 9, 6]
    expected = np.concatenate([X for X, _ in blocks(3)]).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate([data.X for data in drawn]), expected)
    labels = np.concatenate([data.classes[data.y] for data in drawn])
    assert labels.tolist() == np.concatenate([y for _, y in blocks(3)]).tolist()
    assert {data.dtype for data in drawn} == {np.dtype("float32")}
    with pytest.raises(StreamEnded, match="ended after 21 samples"):
        stream.draw(RNG, 1)


def test_sparse_and_regression_and_empty_blocks():
    X = sparse.csr_array(np.eye(3))
    stream = BlockStream([(X, [1, 2, 3]), (X[:0], []), (X, [4, 5, 6])], 3)
    data = stream.draw(RNG, 5)
    assert data.is_sparse and data.classes is None and data.y.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (np.ones((2, 3)), "give pairs"),
        ((np.ones((2, 4)), [0, 1]), "gave 4 features, not 3"),
        ((np.ones((2, 3)), [0, 5]), "the label 5 is none of the classes 0, 1"),
        ((np.ones((2, 3)), ["a", "b"]), "the label a is none of the classes 0, 1"),
        ((np.full((2, 3), np.nan), [0, 1]), "NaN"),
        ((np.ones((2, 3)), [0]), "2 rows but 1 labels"),
    ],
)
def test_blocks_that_are_wrong(block, words):
    with pytest.raises(DataError, match=words):
        BlockStream([block], 3, classes=[0, 1]).draw(RNG, 1)


def test_options():
    for options, words in (
        ({"n_features": 0}, "at least 1"),
        ({"n_features": 1, "classes": [1]}, "two classes"),
        ({"n_features": 1, "dtype": "int8"}, "float32"),
    ):
        with pytest.raises(OptionError, match=words):
            BlockStream([], **options)
    with pytest.raises(OptionError, match="size is 0"):
        BlockStream([], 1).draw(RNG, 0)


@pytest.mark.parametrize("engine", ["serial", "threads"])
@pytest.mark.parametrize("algorithm", ["ssgd", "asgd", "model-averaging"])
def test_training_ends_with_the_stream(engine, algorithm):
    stream = BlockStream(blocks(300), 3, classes=["yes", "no"], held_out=200)
    result = hemiola.fit(
        build(algorithm, {"batch_size": 5}), logistic(1e-3), stream, engine=engine, rounds=10_000
    )
    assert result.stopped == "stream ended after 2,100 samples"
    assert result.history.last.score > 0.9
    assert result.history.last.local_steps >= 360  # of (2100 - 200) / 5 = 380
    assert result.model.predict(np.array([[2.0, 2.0, 0.0]])).tolist() == ["yes"]


def test_other_processes_cannot_have_it():
    stream = BlockStream(blocks(300), 3, classes=["yes", "no"])
    with pytest.raises(OptionError, match="arrives in one process"):
        hemiola.fit(build("ssgd", {"batch_size": 5}), "logistic", stream, engine="processes")


# Files that grow


def test_a_file_is_followed_while_it_grows(tmp_path):
    path = tmp_path / "a.svm"
    path.write_text("1 1:1\n-1 2:")

    def grow():
        with path.open("a") as file:
            for text in ("2\n", "# a note\n\n1 3:", "3\n", "-1 1:7 2:"):
                time.sleep(0.05)
                file.write(text)
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    stream = follow(path, 3, classes=[-1, 1], timeout=0.5, poll=0.01)
    data = stream.draw(RNG, 10)
    writer.join()
    assert data.X.toarray().tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 3]]
    assert data.classes[data.y].tolist() == [1, -1, 1]
    with pytest.raises(StreamEnded, match=r"a\.svm ended after 3 samples"):
        stream.draw(RNG, 1)


def test_csv_with_names_and_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b,kind\n1,2,u\n\n3,4,v\n5,6")
    data = follow(path, 2, classes=["u", "v"], timeout=0).draw(RNG, 9)
    assert data.X.tolist() == [[1, 2], [3, 4]] and data.y.tolist() == [0, 1]
    path.write_text("1,2,0.5\n3,4,1\n")
    assert follow(path, 2, timeout=0).draw(RNG, 9).y.tolist() == [0.5, 1]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.svm", "1 1:1\n1 x\n", r"a\.svm: line 2 is not LIBSVM"),
        ("a.svm", "# note\n1 1:1\n\n1 4:1\n", r"a\.svm: line 4: index 4 is not in 1\.\.3"),
        ("a.svm", "1 0:1\n", r"a\.svm: line 1: index 0 is not in 1\.\.3"),
        ("a.csv", "1,2,3,0\n1,x,3,1\n", r"a\.csv: line 2: could not convert"),
        ("a.csv", "1,2,3,0\n1,3,1\n", "differ in their number of columns"),
        ("a.csv", "1,2,0\n", "gave 2 features, not 3"),
        ("a.csv", "1,2,3,4\n", "the label 4.0 is none of the classes"),
    ],
)
def test_lines_that_are_wrong(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words):
        follow(tmp_path / name, 3, classes=[0, 1], timeout=0).draw(RNG, 9)


def test_files_that_cannot_be_followed(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        follow(tmp_path / "a.svm", 3)
    with pytest.raises(DataError, match="can be followed"):
        follow(tmp_path / "a.npz", 3)
    path = tmp_path / "a.svm"
    path.write_text("1 1:1\n" * 100)
    with pytest.raises(OptionError, match="timeout"):
        follow(path, 3, timeout=-1)
    stream = follow(path, 3, timeout=5, poll=0.01)
    assert len(stream.draw(RNG, 100)) == 100
    path.write_text("1 1:1\n")
    with pytest.raises(DataError, match="may only grow"):
        stream.draw(RNG, 1)
