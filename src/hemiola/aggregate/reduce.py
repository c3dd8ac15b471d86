"""Commutative monoids over messages: a loop, an all-reduce or a tree may evaluate them.

``share`` is a message's weight over the round's total weight. It is normalised *before* anything
is multiplied: one worker then has a share of exactly 1, and its message passes unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hemiola.component import component
from hemiola.types import Array, Message


def _sum(a: dict[str, Array], b: dict[str, Array]) -> dict[str, Array]:
    for name, array in b.items():
        a[name] += array
    return a


def _content(up: Message) -> Iterator[tuple[str, Array]]:
    return ((name, array) for name, array in up.items() if name != "weight")


@component
class WeightedMean:
    """sum_k share_k x_k

    >>> import numpy as np
    >>> mean = WeightedMean()
    >>> mean.merge(mean.lift({"x": np.ones(1)}, 0.25), mean.lift({"x": np.zeros(1)}, 0.75))
    {'x': array([0.25])}
    """

    def lift(
        self, up: Message, share: float, out: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        if out is None:
            return {name: np.asarray(share * a) for name, a in _content(up)}
        for name, array in _content(up):
            np.multiply(array, share, out=out[name])
        return out

    def merge(self, a: dict[str, Array], b: dict[str, Array]) -> dict[str, Array]:
        return _sum(a, b)


@component
class Sum:
    """sum_k x_k, whatever the messages weigh."""

    def lift(
        self, up: Message, share: float, out: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        if out is None:
            return {name: array.copy() for name, array in _content(up)}
        for name, array in _content(up):
            np.copyto(out[name], array)
        return out

    def merge(self, a: dict[str, Array], b: dict[str, Array]) -> dict[str, Array]:
        return _sum(a, b)
