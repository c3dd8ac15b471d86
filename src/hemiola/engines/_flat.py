"""Messages and failures as bytes, for wires that carry nothing else. Nothing here is pickled."""

from __future__ import annotations

import json
import traceback

import numpy as np

from hemiola import errors
from hemiola.errors import HemiolaError
from hemiola.types import Array, Message, freeze

_ALIGNED = 64


def layout_of(message: Message) -> bytes:
    """Names, types and shapes of a message's arrays.

    >>> layout_of({"w": np.zeros((2, 3))})
    b'[["w", "<f8", [2, 3]]]'
    """
    table = [[name, array.dtype.str, list(array.shape)] for name, array in message.items()]
    return json.dumps(table).encode()


def flatten(message: Message) -> Array:
    """The arrays' bytes one after another, aligned, uint8."""
    flat = np.zeros(_end([array.nbytes for array in message.values()]), np.uint8)
    at = 0
    for array in message.values():
        flat[at : at + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        at = _end([at + array.nbytes])
    return flat


def unflatten(layout: bytes, flat: Array) -> Message:
    """The message of this layout in these bytes: read-only views.

    >>> message = {"t": np.array(3), "w": np.arange(2.0)}
    >>> unflatten(layout_of(message), flatten(message))["w"]
    array([0., 1.])
    """
    found, at = {}, 0
    for name, dtype, shape in json.loads(layout):
        size = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=int))
        found[name] = flat[at : at + size].view(dtype).reshape(shape)
        at = _end([at + size])
    return freeze(**found)


def blank(layout: bytes, value: float) -> Message:
    """A message of this layout with one number everywhere, which takes no memory; whole numbers
    are 0."""
    return freeze(**{
        name: np.broadcast_to(np.array(value if dtype[1] == "f" else 0, dtype), shape)
        for name, dtype, shape in json.loads(layout)
    })  # fmt: skip


def _end(sizes: list[int]) -> int:
    """Where arrays of these sizes end, each padded."""
    return sum(-(-size // _ALIGNED) * _ALIGNED for size in sizes)


def report(error: BaseException) -> bytes:
    """An exception for another process."""
    what = "".join(traceback.format_exception_only(error)).strip()
    where = "".join(traceback.format_exception(error))
    kind = type(error).__name__ if isinstance(error, HemiolaError) else ""
    return json.dumps([kind, str(error) if kind else what, where]).encode()


def raised(content: bytes, where: str) -> Exception:
    """The exception to raise for a report: one that a user can remedy is of the same type."""
    kind, what, trace = json.loads(content)
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, HemiolaError):
        error: Exception = known(what)
        error.add_note(f"in {where}:\n{trace}")
        return error
    return RuntimeError(f"{where} failed: {what}\n\n{trace}")
