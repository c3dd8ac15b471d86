"""A server cut into slices of w, as a parameter server is spread over machines."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from hemiola.algorithm import Info
from hemiola.component import component
from hemiola.contracts import Aggregate, Clocked
from hemiola.errors import OptionError
from hemiola.types import Array, Message, State, freeze, frozen


@component
class Sharded:
    """``shards`` servers with one rule, each owning a consecutive slice of w and its own state.

    For rules that treat every coordinate alike and alone the outcome equals that of one server bit
    for bit. Raises :class:`~hemiola.errors.OptionError` for other rules.
    """

    aggregate: Aggregate
    shards: Annotated[int, Ge(1)] = 2

    def __post_init__(self) -> None:
        if not getattr(self.aggregate, "separable", False):
            raise OptionError(
                f"{type(self.aggregate).__name__} cannot be sharded: it does not treat every "
                "coordinate of w alone; leave out shards."
            )

    def init(self, w0: Array, workers: int) -> State:
        parts = [self.aggregate.init(part, workers) for part in self._cut(w0)]
        return {"size": w0.size, "parts": parts}

    def pull(self, state: State, worker: int) -> Message:
        messages = [self.aggregate.pull(part, worker) for part in state["parts"]]
        return freeze(**{name: _join([m[name] for m in messages]) for name in messages[0]})

    def push(self, state: State, up: Message, info: Info) -> State:
        size = state["size"]
        cut = {name: self._cut(a) if a.size == size else [a] * self.shards
               for name, a in up.items()}  # fmt: skip
        parts = [
            self.aggregate.push(part, {name: pieces[i] for name, pieces in cut.items()}, info)
            for i, part in enumerate(state["parts"])
        ]
        return {"size": size, "parts": parts}

    def complete(self, state: State, lowest: int) -> State:
        if not isinstance(self.aggregate, Clocked):
            return state
        parts = [self.aggregate.complete(part, lowest) for part in state["parts"]]
        return {**state, "parts": parts}

    def model(self, state: State) -> Array:
        return frozen(_join([self.aggregate.model(part) for part in state["parts"]]))

    def _cut(self, array: Array) -> list[Array]:
        return np.array_split(array, self.shards) if array.ndim else [array] * self.shards


def _join(pieces: list[Any]) -> Array:
    return np.concatenate(pieces) if pieces[0].ndim else pieces[0]
