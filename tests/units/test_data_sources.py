"""Every format is read back as it was written; every fault is named with its remedy."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.datasets import dump_svmlight_file

from hemiola.data import builtin_names, load
from hemiola.data.catalog import REGRESSION
from hemiola.errors import DataError, OptionError

COMPRESSIONS = {"": None, ".gz": gzip, ".bz2": bz2, ".xz": lzma}
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256))
X = np.array([[1.5, 0.0, -2.0], [0.0, 3.0, 0.25], [0.0, 0.0, 4.0], [1e-3, 7.0, 0.0]])
Y = np.array([1, 7, 1, 3])


def write_svm(path):
    dump_svmlight_file(X, Y, str(path), zero_based=False)


def write_csv(path):
    np.savetxt(path, np.column_stack([X, Y]), delimiter=",", header="a,b,c,y", comments="")


def write_parquet(path):
    table = pa.table({"a": X[:, 0], "y": Y, "b": X[:, 1], "c": X[:, 2]})
    parquet.write_table(table, path)


def write_npz(path):
    np.savez(path, X=X, y=Y)


WRITERS = {
    ".svm": write_svm,
    ".libsvm": write_svm,
    ".svmlight": write_svm,
    ".txt": write_svm,
    ".csv": write_csv,
    ".parquet": write_parquet,
    ".npz": write_npz,
}


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


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("extension", WRITERS)
def test_round_trip(tmp_path, extension, compression):
    plain = tmp_path / f"data{extension}"
    WRITERS[extension](plain)
    path = plain
    if compression:
        path = tmp_path / f"data{extension}{compression}"
        path.write_bytes(COMPRESSIONS[compression].compress(plain.read_bytes()))
    data = load(path)
    dense = data.X.toarray() if data.is_sparse else data.X
    np.testing.assert_array_equal(dense, X)
    assert data.classes.tolist() == [1, 3, 7]
    assert str(data.classes.tolist()) == "[1, 3, 7]"
    np.testing.assert_array_equal(data.classes[data.y], Y)
    assert data.name == path.name
    assert data.dtype == np.float64


@pytest.mark.parametrize("extension", WRITERS)
def test_float32_and_regression(tmp_path, extension):
    path = tmp_path / f"data{extension}"
    WRITERS[extension](path)
    data = load(path, dtype="float32", regression=True)
    assert data.dtype == data.y.dtype == np.float32
    assert data.classes is None
    assert data.y.tolist() == [1.0, 7.0, 1.0, 3.0]
    dense = data.X.toarray() if data.is_sparse else data.X
    np.testing.assert_array_equal(dense, X.astype(np.float32))


@pytest.mark.parametrize("name", builtin_names())
def test_builtin(name):
    data = load(name)
    again = load(name, dtype=np.float32)
    assert data.name == name
    assert (data.classes is None) == (name in REGRESSION)
    assert data.is_sparse == (name == "synthetic_sparse")
    assert again.dtype == np.float32
    if not data.is_sparse:
        np.testing.assert_array_equal(data.X.astype(np.float32), again.X)
    np.testing.assert_allclose(data.y, again.y, rtol=1e-6)


def test_builtin_shapes_and_power_law():
    assert load("synthetic").X.shape == (10_000, 50)
    data = load("synthetic_sparse")
    assert data.X.shape == (20_000, 5_000)
    rows_with = np.bincount(data.X.indices, minlength=5_000)
    assert rows_with[0] > 0.9 * len(data)
    assert rows_with[-1000:].mean() < 0.01 * len(data)
    assert 0.45 < data.y.mean() < 0.55
    np.testing.assert_allclose(data.X.multiply(data.X).sum(axis=1), 1.0)


def test_builtin_name_wins_and_takes_no_label():
    assert load("iris", n_features=4).n_features == 4
    with pytest.raises(OptionError, match="leave label out"):
        load("iris", label="y")
    with pytest.raises(DataError, match=r"iris: has 4 features, not n_features=5"):
        load("iris", n_features=5)


def test_label_is_for_tables_only(tmp_path):
    write_svm(tmp_path / "a.svm")
    write_npz(tmp_path / "a.npz")
    assert "CSV and Parquet only" in fault(tmp_path / "a.svm", OptionError, label=0)
    assert "CSV and Parquet only" in fault(tmp_path / "a.npz", OptionError, label="y")


@pytest.mark.parametrize("extension", WRITERS)
def test_empty(tmp_path, extension):
    assert "the file is empty" in fault(put(tmp_path / f"a{extension}", b""))
    path = put(tmp_path / f"a{extension}.gz", gzip.compress(b"", mtime=0))
    assert "empty once decompressed" in fault(path)


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("extension", [".svm", ".csv"])
def test_damaged_compression(tmp_path, extension, compression):
    rng = np.random.default_rng(0)
    if extension == ".csv":
        lines = [",".join(map(str, row)) for row in rng.random((3000, 4))]
    else:
        lines = [f"1 1:{a} 2:{b}" for a, b in rng.random((3000, 2))]
    whole = COMPRESSIONS[compression].compress("\n".join(lines).encode())
    path = tmp_path / f"a{extension}{compression}"
    assert "ends too early" in fault(put(path, whole[: len(whole) * 3 // 4]))
    middle = len(whole) // 2
    assert "cannot be read" in fault(
        put(path, whole[:middle] + b"garbage" * 9 + whole[middle + 63 :])
    )
    assert "cannot be read" in fault(put(path, "\n".join(lines)))
    assert "PNG image" in fault(put(path, PNG))


@pytest.mark.parametrize("extension", WRITERS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PNG, "PNG image"),
        (gzip.compress(b"1 1:1\n", mtime=0), "gzip"),
        ("Hello, world\nand so on\n", ""),
    ],
)
def test_other_format(tmp_path, extension, content, words):
    message = fault(put(tmp_path / f"a{extension}", content))
    assert words in message
    assert "pickle" not in message


@pytest.mark.parametrize("extension", [".parquet", ".npz"])
def test_damaged_binary(tmp_path, extension):
    path = tmp_path / f"a{extension}"
    WRITERS[extension](path)
    whole = path.read_bytes()
    for end in (3, 50, len(whole) // 2, len(whole) - 1):
        fault(put(path, whole[:end]))
    for start in range(4, len(whole) - 8, 37):  # any damage is either harmless or a DataError
        put(path, whole[:start] + b"\xff" * 8 + whole[start + 8 :])
        try:
            load(path)
        except DataError as error:
            assert path.name in str(error)


def test_missing_file(tmp_path):
    assert "did you mean 'breast_cancer'?" in fault("brest_cancer")
    assert "known are" in fault("xyzzy")
    assert "no such file; check the path" in fault(tmp_path / "a.svm")
    assert "no such file" in fault("nowhere.csv")
    inside = put(tmp_path / "plain.svm", "1 1:1\n") / "a.svm"
    assert "no such file" in fault(inside)


def test_unknown_extension(tmp_path):
    message = fault(put(tmp_path / "a.xlsx", b"x"))
    assert "'.xlsx' is unknown" in message and ".parquet" in message
    assert "unknown" in fault(put(tmp_path / "noextension", b"x"))


def test_unusable_paths(tmp_path):
    assert "check the path" in fault("x" * 5000 + ".svm")
    with pytest.raises(DataError, match="check the path"):
        load("a\0.svm")
    os.mkfifo(tmp_path / "a.svm")
    assert "not a regular file" in fault(tmp_path / "a.svm")


def test_permission(tmp_path, monkeypatch):
    path = put(tmp_path / "a.svm", "1 1:1\n")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("hemiola.data.sources.open", refuse, raising=False)
    assert "permission denied; make the file readable" in fault(path)
    monkeypatch.undo()
    monkeypatch.setattr(Path, "stat", refuse)
    assert "(Permission denied)" in fault(path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_permission_for_real(tmp_path):
    path = put(tmp_path / "a.svm", "1 1:1\n")
    path.chmod(0)
    assert "permission denied" in fault(path)


def test_directory(tmp_path):
    assert "0 data files (none)" in fault(tmp_path)
    put(tmp_path / "README.txt", "read me")
    put(tmp_path / "a.t.svm", "1 1:1\n")
    write_svm(tmp_path / "a.svm")
    assert load(tmp_path).name == "a.svm"
    write_csv(tmp_path / "b.csv")
    assert "2 data files (a.svm, b.csv); name one file" in fault(tmp_path)


def test_home_and_case(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_csv(tmp_path / "A.CSV")
    assert len(load("~/A.CSV")) == 4


@pytest.mark.parametrize("dtype", ["int32", "float16", "nonsense", None, complex])
def test_dtype(dtype):
    with pytest.raises(OptionError, match="choose 'float32' or 'float64'"):
        load("iris", dtype=dtype)


def test_one_class_is_read(tmp_path):
    assert load(put(tmp_path / "a.svm", "1 1:1\n1 1:2\n")).classes.tolist() == [1]


@pytest.fixture
def shared():
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "a9a").is_dir():
        pytest.skip("the public data sets are not here")
    return folder


def test_real_libsvm(shared):
    train = load(shared / "a9a", dtype="float32")
    test = load(shared / "a9a" / "a9a.t.svm.bz2", n_features=123)
    assert train.X.shape == (32561, 123) and train.X.nnz == 451592
    assert test.X.shape == (16281, 123)
    assert train.classes.tolist() == test.classes.tolist() == [-1, 1]


def test_real_csv(shared):
    data = load(shared / "covtype100k" / "covtype.100k.csv.xz")
    assert data.X.shape == (100_000, 54)
    assert data.classes.tolist() == [1, 2, 3, 4, 5, 6, 7]
