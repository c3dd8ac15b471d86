"""Messages and failures as bytes."""

from __future__ import annotations

import json

import numpy as np

from hemiola.engines._flat import blank, flatten, layout_of, raised, report, unflatten
from hemiola.errors import DataError


def test_messages_survive_as_bytes():
    message = {
        "w": np.arange(5.0), "n": np.array(3), "a": np.zeros((2, 0, 3), np.float32),
        "i": np.arange(6, dtype=np.int32).reshape(2, 3), "f": np.arange(3, dtype=np.float32),
    }  # fmt: skip
    again = unflatten(layout_of(message), flatten(message))
    assert list(again) == list(message)
    for name, array in message.items():
        assert again[name].dtype == array.dtype and again[name].shape == array.shape
        assert (again[name] == array).all() and not again[name].flags.writeable
    empty = blank(layout_of(message), np.nan)
    assert np.isnan(empty["w"]).all() and (empty["i"] == 0).all() and empty["w"].shape == (5,)


def test_failures_keep_their_type_only_if_they_are_this_library_s():
    assert isinstance(raised(report(DataError("x")), "rank 1"), DataError)
    other = raised(report(ZeroDivisionError("y")), "rank 1")
    assert type(other) is RuntimeError and "ZeroDivisionError: y" in str(other)
    hostile = json.dumps(["difflib", "x", ""]).encode()
    assert type(raised(hostile, "rank 1")) is RuntimeError
