"""The two kinds of values that leave a function: messages and states.

A *message* is a dict of named arrays: the only thing that crosses a wire. It is frozen before it
is sent, so that an in-place write into a received message raises instead of corrupting a peer.
A *state* is a nest (dicts and lists) of arrays and numbers: the only thing that is checkpointed.
It has one owner and may be changed in place by that owner alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Message = Mapping[str, Array]
State = Any


def freeze(**arrays: Array) -> Message:
    """A message of these arrays, each made read-only. The sender gives up the right to write.

    >>> m = freeze(w=np.zeros(2))
    >>> m["w"][0] = 1.0
    Traceback (most recent call last):
        ...
    ValueError: assignment destination is read-only
    """
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def frozen(array: Array) -> Array:
    """The array itself, made read-only."""
    array.setflags(write=False)
    return array


def nbytes(message: Message) -> int:
    """The payload of a message in bytes."""
    return sum(array.nbytes for array in message.values())


def copy_state(state: State) -> State:
    """A deep copy of a nest, with writable arrays."""
    if isinstance(state, np.ndarray):
        return state.copy()
    if isinstance(state, Mapping):
        return {key: copy_state(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [copy_state(value) for value in state]
    return state
