"""What each format may look like, and how its faults are reported."""

from __future__ import annotations

import bz2
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy import sparse

from hemiola.data import load
from hemiola.errors import DataError

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256))
X = np.array([[1.5, 0.0, -2.0], [0.0, 3.0, 0.25], [0.0, 0.0, 4.0], [1e-3, 7.0, 0.0]])
Y = np.array([1, 7, 1, 3])


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fault(path, error=DataError, **options) -> str:
    """The message of loading ``path``: one line that names the file."""
    with pytest.raises(error) as caught:
        load(path, **options)
    message = str(caught.value)
    assert type(caught.value) is error
    assert Path(path).name in message
    assert "\n" not in message
    assert message.endswith((".", "?")) or "known are: " in message
    assert not message.endswith(("..", "?."))
    return message


# LIBSVM


def test_libsvm_zero_based_comments_and_width(tmp_path):
    path = put(tmp_path / "a.svm", "# made by hand\n+1 0:2 2:1 # note\n-1 1:1\n-1\n")
    data = load(path, n_features=5)
    assert data.X.toarray().tolist() == [[2, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0] * 5]
    assert data.classes.tolist() == [-1, 1]
    assert data.X.indices.dtype == np.int32
    assert isinstance(data.X, sparse.csr_array)
    assert "n_features=2" in fault(path, n_features=2)


def test_fractional_labels_stay(tmp_path):
    assert load(put(tmp_path / "a.svm", "0.5 1:1\n1 1:2\n")).classes.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 1:2\nyes 1:2\n", "line 2 is not LIBSVM: expected a numeric label, found 'yes'"),
        ("1 1:2\n\n1 2\n", "line 3 is not LIBSVM: expected index:value, found '2'"),
        ("1 1:2\n1 1:two\n", "line 2 is not LIBSVM: expected index:value, found '1:two'"),
        ("1 3:1 2:1\n", "line 1: feature indices must ascend, found '2:1'"),
        ("1,2,3\n4,5,6\n", "a CSV file needs the extension .csv"),
        ("# nothing\n", "holds no samples"),
        ("1\n2\n", "no line has features"),
        ("1 1:nan\n2 1:1\n", "NaN"),
        ("To be, or not to be\n", "line 1 is not LIBSVM"),
    ],
)
def test_libsvm_faults(tmp_path, text, words):
    assert words in fault(put(tmp_path / "a.svm", text))
    assert words in fault(put(tmp_path / "a.svm.bz2", bz2.compress(text.encode())))


# CSV


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("1,2,x\n3,4,z\n", ["x", "z"]),
        ("a,b,y\n1,2,x\n3,4,z\n", ["x", "z"]),
        ("0,1,label\n1,2,x\n3,4,z\n", ["x", "z"]),
        ("0,1,2\n1,2,7\n3,4,8\n", [2, 7, 8]),
        (",b,y\n1,2,x\n3,4,z\n", ["x", "z"]),
        ("\ufeffa,b,y\n1,2,x\n3,4,z\n", ["x", "z"]),
        ('"a","b","the y"\n1,2,"x, y"\n3,4,"z"\n', ["x, y", "z"]),
        ("a;b;y\n1;2;x\n3;4;z\n", ["x", "z"]),
        ("a\tb\ty\r\n1\t2\tx\r\n3\t4\tz", ["x", "z"]),
        ("a, b, y\n1, 2, x\n3, 4, z\n\n", ["x", "z"]),
        ("a,b,y\n1,2,1.0\n3,4,2\n", [1, 2]),
        ("a,b,y\n1,2,True\n3,4,False\n", ["False", "True"]),
    ],
)
def test_csv_header_and_labels(tmp_path, text, classes):
    data = load(put(tmp_path / "a.csv", text))
    assert data.classes.tolist() == classes
    assert data.X[-2:].tolist() == [[1, 2], [3, 4]]


def test_csv_label_by_name_or_number(tmp_path):
    path = put(tmp_path / "a.csv", "kind,b,c\nu,2,3\nv,5,6\n")
    for label in ("kind", 0, "0", -3):
        data = load(path, label=label)
        assert data.classes.tolist() == ["u", "v"]
        assert data.X.tolist() == [[2, 3], [5, 6]]
    assert "did you mean 'kind'?" in fault(path, label="kint")
    assert "columns are numbered 0 to 2" in fault(path, label=3)


def test_csv_types_may_change_after_many_rows(tmp_path):
    n = 300_000
    rows = ["1,1"] * n + ["0.5,x"]
    data = load(put(tmp_path / "a.csv", "a,y\n" + "\n".join(rows)))
    assert data.X[-1, 0] == 0.5
    assert data.classes.tolist() == ["1", "x"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b,y\n1,2,x\n3,red,z\n", "column 'b' has the value 'red', which is not a number"),
        ("1,2,x\n3,red,z\n", "column 'column 1' has the value 'red'"),
        ("a,b,y\n1,,x\n3,4,z\n", "column 'b' has 1 missing value(s) of 2"),
        ("a,b,y\n1,2,\n3,4,z\n", "column 'y' has 1 missing value(s)"),
        ("a,b,y\n1,inf,x\n3,4,z\n", "NaN or infinite"),
        ("a,b,y\n1,2,x\n3,4\n", "every row needs 3 columns"),
        ("a,b,y\n", "holds no rows"),
        ("1 1:2\n1 2:3\n", "found 1 column(s)"),
        ("a,b,y\n1,2\n3,4\n", "every row needs 3 columns"),
        ("\n\n", "first line is blank"),
        ("a,b,y\n1,2,é\n".encode("latin-1"), "UTF-8"),
        (PNG, "a PNG image"),
    ],
)
def test_csv_faults(tmp_path, content, words):
    assert words in fault(put(tmp_path / "a.csv", content))


def test_csv_text_is_no_regression_target(tmp_path):
    path = put(tmp_path / "a.csv", "a,y\n1,x\n2,z\n")
    assert "regression needs numbers" in fault(path, regression=True)


# Parquet


def test_parquet_types_and_label(tmp_path):
    path = tmp_path / "a.parquet"
    kinds = pa.array(["u", "v"]).dictionary_encode()
    flags, small = pa.array([True, False]), pa.array([1, 2], pa.int8())
    parquet.write_table(pa.table({"target": kinds, "flag": flags, "small": small}), path)
    data = load(path)
    assert data.classes.tolist() == ["u", "v"]
    assert data.X.tolist() == [[1, 1], [0, 2]]
    parquet.write_table(pa.table({"a": [1, 2], "b": [3.0, 4.0]}), path)
    assert load(path).classes.tolist() == [3, 4]
    assert load(path, label="a").classes.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"name": ["p", "q"], "y": [0, 1]}, "column 'name' is of type string"),
        ({"a": [1.0, None], "y": [0, 1]}, "column 'a' has 1 missing"),
        ({"a": [1.0, 2.0], "y": [None, 1]}, "column 'y' has 1 missing"),
        ({"a": [1.0, float("nan")], "y": [0, 1]}, "NaN"),
        ({"a": pa.array([], pa.float64()), "y": pa.array([], pa.int64())}, "holds no rows"),
        ({"y": [0, 1]}, "found 1 column(s)"),
    ],
)
def test_parquet_faults(tmp_path, columns, words):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table(columns), path)
    assert words in fault(path)


# NPZ


def test_npz_sparse_and_weight(tmp_path):
    path = tmp_path / "a.npz"
    m = sparse.csr_array(X)
    csr = {"data": m.data, "indices": m.indices, "indptr": m.indptr, "shape": m.shape}
    np.savez(path, **csr, y=Y, weight=np.array([1.0, 1.0, 0.0, 2.0]))
    data = load(path, n_features=4)
    assert data.X.toarray()[:, :3].tolist() == X[[0, 1, 3]].tolist()
    assert data.weight.tolist() == [0.75, 0.75, 1.5]
    sparse.save_npz(path, m)
    with np.load(path) as archive:
        np.savez(path, **archive, y=Y.astype(str))
    assert load(path).classes.tolist() == ["1", "3", "7"]


def test_npz_beyond_float32(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=X * 1e300, y=Y)
    assert load(path).X.max() == 7e300
    assert "infinite" in fault(path, dtype="float32")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": X}, "holds the arrays X; needed are y"),
        ({"X": X, "y": np.array([1, None, 2, 3])}, "save it as numbers or text"),
        ({"X": X, "y": Y[:3]}, "4 rows but 3 labels"),
        ({"X": X[0], "y": Y}, "expected a table"),
        ({"X": X.astype(str), "y": Y}, "save them as real numbers"),
        ({"X": np.where(X > 5, np.nan, X), "y": Y}, "NaN"),
        ({"X": X, "y": Y, "weight": -Y}, "none negative"),
        (
            {"data": [1.0], "indices": [9], "indptr": [0, 1], "shape": [1, 3], "y": [1]},
            "cannot be read as NPZ",
        ),
        (
            {"data": [1.0], "indices": [0], "indptr": [0, 1], "shape": [1, 1], "y": [1]}
            | {"format": b"csc"},
            "save it as CSR",
        ),
    ],
)
def test_npz_faults(tmp_path, arrays, words):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    assert words in fault(path)
