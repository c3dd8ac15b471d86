"""Files are written whole or not at all, and read without trusting them."""

from __future__ import annotations

import io
import json
import os
import pickle

import numpy as np
import pytest

from hemiola.errors import CheckpointError, DataError, HemiolaError
from hemiola.storage import load_nest, save_nest, write_atomically

NEST = {
    "numbers": [1, 2.5, -0.0, float("inf"), True, None],
    "text": "naïve — ≤",
    "arrays": {
        "double": np.linspace(0, 1, 7),
        "single": np.ones((2, 3), np.float32),
        "whole": np.arange(5),
        "scalar": np.array(3.5),
        "empty": np.empty(0),
        "labels": np.array(["no", "yes"]),
        "truths": np.array([True, False]),
    },
    "deep": [{"a": [np.zeros(2), {"b": np.int64(3)}]}],
}


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def test_what_is_saved_can_be_loaded(tmp_path):
    path = tmp_path / "nest.npz"
    save_nest(path, NEST)
    assert same(NEST, load_nest(path))
    assert load_nest(path)["deep"][0]["a"][1]["b"] == 3


def test_every_bit_of_a_number_survives(tmp_path):
    rng = np.random.default_rng(0)
    array = np.r_[rng.normal(size=50) * 10.0 ** rng.integers(-300, 300, 50), np.nan, -0.0, np.inf]
    numbers = array[:50].tolist()
    save_nest(tmp_path / "x", {"array": array, "numbers": numbers})
    loaded = load_nest(tmp_path / "x")
    assert loaded["array"].tobytes() == array.tobytes()
    assert loaded["numbers"] == numbers


def test_loaded_arrays_may_be_written_to(tmp_path):
    frozen = np.zeros(3)
    frozen.setflags(write=False)
    save_nest(tmp_path / "x", {"w": frozen})
    assert load_nest(tmp_path / "x")["w"].flags.writeable


def test_tuples_become_lists(tmp_path):
    save_nest(tmp_path / "x", {"best": (1.0, np.ones(2))})
    loss, weights = load_nest(tmp_path / "x")["best"]
    assert (loss, weights.tolist()) == (1.0, [1.0, 1.0])


def test_folders_are_made_and_nothing_but_the_file_is_left(tmp_path):
    path = tmp_path / "deep" / "er" / "file"
    for content in (b"one", b"two"):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("step", ["replace", "fsync", "chmod"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step, error):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(os, step, fail)
    expected = DataError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    if expected is DataError:
        assert f"cannot write {path} (No space left on device)" in str(caught.value)


def test_the_content_is_complete_before_it_is_seen(tmp_path, monkeypatch):
    path, seen, replace = tmp_path / "file", [], os.replace

    def look(temporary, target):
        with open(temporary, "rb") as file:
            seen.append(file.read())
        replace(temporary, target)

    monkeypatch.setattr(os, "replace", look)
    write_atomically(path, b"x" * 100_000)
    assert seen == [b"x" * 100_000]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(DataError, match=r"cannot write .* choose a place"):
            write_atomically(path, b"content")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


class Harmful:
    """Unpickling this would be noticed."""

    opened: bool = False

    def __reduce__(self):
        return (setattr, (Harmful, "opened", True))


def test_nothing_is_ever_unpickled(tmp_path):
    objects = np.array([Harmful(), None], dtype=object)
    hidden = tmp_path / "hidden.npz"
    np.savez(hidden, allow_pickle=True, tree=np.array(json.dumps({"$array": 0})), **{"0": objects})
    plain = tmp_path / "plain"
    plain.write_bytes(pickle.dumps(Harmful()))
    array = tmp_path / "array.npy"
    np.save(array, objects, allow_pickle=True)
    for path in (hidden, plain, array):
        with pytest.raises(CheckpointError):
            load_nest(path)
    assert not Harmful.opened


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    """An array of objects would need pickle: it is refused on writing, not on reading."""
    with pytest.raises((HemiolaError, ValueError, TypeError)):
        save_nest(tmp_path / "x", {"labels": np.array(["no", "yes"], dtype=object)})
    assert os.listdir(tmp_path) == []


def test_missing_files_and_folders_are_told_apart_from_damage(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file; check the path"):
        load_nest(tmp_path / "nowhere")
    with pytest.raises(CheckpointError):
        load_nest(tmp_path)


def npz(**members):
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"PK\x03\x04" + b"\0" * 100,
        b"\x93NUMPY\x01\x00",
        npz(other=np.zeros(3)),
        npz(tree=np.array("{not json")),
        npz(tree=np.array(json.dumps({"$array": 0}))),
        npz(tree=np.array(json.dumps({"$array": [1]}))),
    ],
    ids=["empty", "text", "zip header", "npy header", "no tree", "no json", "no member", "odd"],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "file.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"file\.npz"):
        load_nest(path)


def test_a_plain_array_file_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(CheckpointError, match="damaged or was not written by hemiola"):
        load_nest(tmp_path / "a.npy")


def test_a_truncated_file_is_always_noticed(tmp_path):
    path = tmp_path / "file.npz"
    save_nest(path, NEST)
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            load_nest(path)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_damaged_byte_is_noticed_or_does_not_matter(tmp_path, mask):
    path = tmp_path / "file.npz"
    save_nest(path, {"a": np.arange(20.0), "b": [1, 2, {"c": np.ones(3)}], "d": "text"})
    content, intact = path.read_bytes(), load_nest(path)
    unexpected = {}
    for i in range(len(content)):
        damaged = bytearray(content)
        damaged[i] ^= mask
        path.write_bytes(bytes(damaged))
        try:
            if not same(intact, load_nest(path)):
                unexpected[i] = "read as something else"
        except CheckpointError:
            pass
        except Exception as error:
            unexpected[i] = f"{type(error).__name__}: {error}"
    assert unexpected == {}
