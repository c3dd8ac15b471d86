"""The compiled LIBSVM reader against a slow one that is obviously right, on good and bad files."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import random
import re
import struct

import numpy as np
import pytest
from sklearn.datasets import load_svmlight_file

from hemiola.data import libsvm, load
from hemiola.data.formats import Request
from hemiola.data.join import joined
from hemiola.data.lines import LARGEST
from hemiola.data.numbers import BAD, GOOD, HARD, number
from hemiola.errors import DataError

NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
PAIR = re.compile(rb"([0-9]+):(.*)", re.DOTALL)
ASK = Request("it.svm", np.dtype(np.float64))


# The slow reader


class Wrong(Exception):
    """A line that is not LIBSVM."""


def real(text: bytes) -> float:
    if not NUMBER.fullmatch(text) or math.isinf(float(text)):
        raise Wrong
    return float(text)


def slow_line(line: bytes) -> tuple[float, list[tuple[int, float]]] | None:
    tokens = line.split(b"#")[0].split()
    if not tokens:
        return None
    label, row = real(tokens[0]), []
    for token in tokens[1:]:
        if not row and re.fullmatch(rb"qid:[0-9]+", token):
            continue
        pair = PAIR.fullmatch(token)
        if pair is None:
            raise Wrong
        index, value = int(pair[1]), real(pair[2])
        if index > LARGEST or (row and index <= row[-1][0]):
            raise Wrong
        row.append((index, value))
    return label, row


def slow(text: bytes) -> list[tuple[float, list[tuple[int, float]]]] | int:
    """The rows, or the number of the first line that is wrong."""
    rows = []
    for number_, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            row = slow_line(line)
        except Wrong:
            return number_
        if row is not None:
            rows.append(row)
    return rows


def fast(text: bytes) -> list[tuple[float, list[tuple[int, float]]]] | int:
    try:
        blocks = list(libsvm.read_libsvm(io.BytesIO(text), ASK))
    except DataError as error:
        found = re.match(r"it\.svm: line (\d+)[ :]", str(error))
        assert found is not None and "\n" not in str(error), str(error)
        return int(found[1])
    rows = []
    for block in blocks:
        X, y = block.X, block.y.tolist()
        for i, label in enumerate(y):
            a, b = X.indptr[i], X.indptr[i + 1]
            rows.append((label, list(zip(X.indices[a:b].tolist(), X.data[a:b].tolist()))))  # noqa: B905
    return rows


def bits(rows):
    """For comparison: -0.0 is not 0.0."""
    if isinstance(rows, int):
        return rows
    return [(struct.pack("d", y), [(i, struct.pack("d", v)) for i, v in row]) for y, row in rows]


# Numbers


def parsed(text: str) -> tuple[float, int, int]:
    return number(np.frombuffer(text.encode() + b"\n", np.uint8), 0)


def some_number(rng: random.Random) -> str:
    kind = rng.randrange(7)
    if kind == 0:
        return repr(struct.unpack("d", rng.randbytes(8))[0])
    if kind == 1:
        return f"{rng.gauss(0, 1):.17g}"
    if kind == 2:
        return f"{rng.getrandbits(30)}.{rng.getrandbits(20)}e{rng.randrange(-340, 320)}"
    if kind == 3:
        return f"{rng.getrandbits(63)}E{rng.randrange(-30, 30)}"
    if kind == 4:
        return f"+{rng.random():.3f}"
    if kind == 5:
        return f"0.0000{rng.getrandbits(60)}"
    return str(((1 << 53) + 2 * rng.getrandbits(50) + 1) << rng.randrange(10))  # half-way


def test_numbers_are_those_of_python():
    rng = random.Random(5)
    hard = 0
    for _ in range(30_000):
        text = some_number(rng)
        if "n" in text:
            continue
        value, end, state = parsed(text)
        assert end == len(text)
        if state == HARD:
            hard += 1
            continue
        assert state == GOOD
        assert struct.pack("d", value) == struct.pack("d", float(text)), text
    assert hard < 600


@pytest.mark.parametrize(
    "text", ["0", "-0", "00", "1.", ".5", "1e5", "1E+5", "0e999999999", "9007199254740993", "-0.0"]
)
def test_numbers_of_every_form(text):
    value, end, state = parsed(text)
    assert (struct.pack("d", value), end, state) == (struct.pack("d", float(text)), len(text), GOOD)


@pytest.mark.parametrize("text", ["", "-", ".", "e5", "1e", "1e+", "x", "+-1", "-.", ".e1"])
def test_what_is_no_number(text):
    assert parsed(text)[2] == BAD


# Files


def some_file(rng: random.Random) -> bytes:
    lines = []
    for _ in range(rng.randrange(1, 6)):
        indices = sorted(rng.sample(range(rng.randrange(2), 60), rng.randrange(0, 5)))
        pairs = [f"{i}:{some_number(rng)}" for i in indices]
        head = [rng.choice(["1", "-1", "+1", "0.5", "3"])]
        if rng.random() < 0.2:
            head.append(f"qid:{rng.randrange(9)}")
        line = rng.choice([" ", "  ", "\t"]).join([*head, *pairs])
        lines.append(line + rng.choice(["", "", " ", " # note 1:2", "#"]))
        if rng.random() < 0.2:
            lines.append(rng.choice(["", "# 1:1", " \t"]))
    text = rng.choice(["\n", "\n", "\r\n"]).join(lines) + rng.choice(["\n", "", "\r\n"])
    return (rng.choice(["", "", "", "\ufeff"]) + text).encode()


PIECES = [
    b":", b" ", b"\n", b"#", b"-", b"+", b".", b"e", b"E9999", b"nan", b"inf", b"qid:", b"qid:1 ",
    b"\0", b"\r", b"\t", b",", b"99999999999", b"2147483646:1", b"2147483647:1", b"0", b"1:1 1:1",
    b" 0:1", b"\xff", b"1e400", b"1e-400", b"_", b"0x1p3", b"123456789012345678901234567890",
]  # fmt: skip


def mutated(text: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            text = text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
        elif kind == 1:
            text = text[:at] + text[at + rng.randrange(1, 9) :]
        elif kind == 2:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif kind == 3:
            text = text[:at]
        else:
            other = rng.randrange(len(text) + 1)
            text = text[:at] + text[other : other + 9] + text[at:]
    return text


def test_ten_thousand_mutated_files():
    rng = random.Random(2024)
    faults = 0
    for i in range(10_000):
        text = mutated(some_file(rng), rng)
        expected = slow(text)
        assert bits(fast(text)) == bits(expected), (i, text)
        faults += isinstance(expected, int)
    assert 2_000 < faults < 8_000


def test_blocks_of_every_size_give_the_same(monkeypatch):
    rng = random.Random(7)
    files = [some_file(rng).removeprefix(b"\xef\xbb\xbf") + b"\n" for _ in range(40)]
    text = b"".join(file for file in files if not isinstance(slow(file), int))
    whole = fast(text)
    assert len(whole) > 50
    assert bits(whole) == bits(slow(text))
    broken = text + b"1 3:1 x\n1 1:1\n"
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(libsvm, "_BLOCK", size)
        assert fast(text) == whole
        assert fast(broken) == slow(broken) == text.count(b"\n") + 1


def test_as_scikit_learn_reads_it(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        f"{rng.integers(-1, 2)} "
        + " ".join(f"{j}:{rng.normal():.12g}" for j in sorted(rng.choice(500, 9, replace=False)))
        for _ in range(400)
    ]
    path = tmp_path / "a.svm"
    path.write_text("\n".join(lines))
    for dtype in ("float64", "float32"):
        theirs, y = load_svmlight_file(str(path), dtype=dtype, zero_based="auto")
        ours = load(path, dtype=dtype)
        assert ours.X.shape == theirs.shape and (theirs != ours.X).nnz == 0
        assert ours.classes[ours.y].tolist() == y.tolist()
        assert ours.X.dtype == dtype and ours.X.indices.dtype == np.int32


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1 -3:1", "line 2: the index of '-3:1' is negative; indices start at 0 or 1"),
        ("1 2147483647:1", "line 2: the index of '2147483647:1' is too large; the largest is"),
        ("1 99999999999999999999:1", "is too large"),
        ("1 2:1 2:1", "line 2: feature indices must ascend, found '2:1'"),
        ("1 1:inf", "line 2: '1:inf' is NaN or infinite"),
        ("1 1:1e999", "line 2: '1:1e999' is NaN or infinite"),
        ("1 1:-NaN", "line 2: '1:-NaN' is NaN or infinite"),
        ("nan 1:1", "line 2: 'nan' is NaN or infinite"),
        ("1 1:", "expected index:value, found '1:'"),
        ("1 :1", "expected index:value, found ':1'"),
        ("1 -", "expected index:value, found '-'"),
        ("1 1:1_0", "expected index:value, found '1:1_0'"),
        ("1 1:1:1", "expected index:value, found '1:1:1'"),
        ("1 qid:x 1:1", "expected qid:number, found 'qid:x'"),
        ("1 1:1 qid:1", "expected index:value, found 'qid:1'"),
        ("1\0 1:1", "expected a numeric label, found '1\\x00'"),
        ("a" * 99, "found '" + "a" * 30 + "'..."),
    ],
)
def test_faults_name_file_line_and_token(tmp_path, line, words):
    path = tmp_path / "a.svm"
    path.write_text(f"1 1:1\n{line}\n-1 2:1\n")
    with pytest.raises(DataError) as caught:
        load(path)
    assert words in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(("ending", "library"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma)])
def test_compressed_with_crlf_and_bom(tmp_path, ending, library):
    path = tmp_path / f"a.svm{ending}"
    path.write_bytes(library.compress(b"\xef\xbb\xbf+1\t1:1e0   3:2\r\n-1 qid:4 2:.5\r\n\r\n"))
    data = load(path)
    assert data.X.toarray().tolist() == [[1, 0, 2], [0, 0.5, 0]]
    assert data.classes.tolist() == [-1, 1]


# Parts


def put(path, text):
    path.write_text(text)
    return path


def test_parts_are_one_data_set(tmp_path):
    first = put(tmp_path / "part-2.svm", "1 1:1\n-1 2:2\n")
    second = put(tmp_path / "part-10.svm", "-1 5:3\n")
    put(tmp_path / "part-11.svm", "")  # empty parts are left out of a directory
    expected = [[1, 0, 0, 0, 0], [0, 2, 0, 0, 0], [0, 0, 0, 0, 3]]
    for source in (tmp_path, [first, second], [str(first), str(tmp_path / "*-10.svm")]):
        data = load(source)
        assert data.X.toarray().tolist() == expected
        assert data.classes[data.y].tolist() == [1, -1, -1]
    assert load(str(tmp_path / "part-?.svm"), n_features=7).X.shape == (2, 7)
    assert load([first, second]).name == "part-2.svm and 1 more"


def test_one_zero_makes_all_parts_start_at_zero(tmp_path):
    put(tmp_path / "a1.svm", "1 1:1\n")
    put(tmp_path / "a2.svm", "0 0:2\n")
    assert load(tmp_path).X.toarray().tolist() == [[0, 1], [2, 0]]


def test_faults_of_parts(tmp_path):
    put(tmp_path / "a1.svm", "1 1:1\n")
    put(tmp_path / "a2.svm", "1 1:1\n1 x\n")
    with pytest.raises(DataError, match=r"a2\.svm: line 2 is not LIBSVM"):
        load(tmp_path)
    with pytest.raises(DataError, match="no file matches"):
        load(str(tmp_path / "*.csv"))
    with pytest.raises(DataError, match="the list of files is empty"):
        load([])
    put(tmp_path / "b1.csv", "1,2,0\n3,4,1\n")
    put(tmp_path / "b2.csv", "1,0\n3,1\n")
    put(tmp_path / "b3.csv", "1,2,u\n3,4,v\n")
    with pytest.raises(DataError, match=r"b2\.csv: has 1 features, but .*b1\.csv has 2 features"):
        load([tmp_path / "b1.csv", tmp_path / "b2.csv"])
    with pytest.raises(DataError, match=r"b3\.csv: has text as labels, but"):
        load([tmp_path / "b1.csv", tmp_path / "b3.csv"])
    with pytest.raises(DataError, match=r"b1\.csv: is dense, but .*a1\.svm is sparse"):
        load([tmp_path / "a1.svm", tmp_path / "b1.csv"])


def test_joining_empties_the_list():
    blocks = [("a", raw) for raw in libsvm.read_libsvm(io.BytesIO(b"1 1:1\n"), ASK)] * 2
    assert joined(blocks, "a").X.shape == (2, 1) and not blocks
