"""Learning-rate schedules: factors of the base learning rate.

All of them read one clock, t = 0, 1, 2, ...: the steps taken so far by whoever owns the optimiser.
For a local optimiser that is the worker's own count of local steps, which runs on across rounds;
for a server optimiser it is the count of server updates. Neither is an epoch nor a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import field
from typing import Annotated

from annotated_types import Ge, Gt, Interval

from hemiola.component import component

Schedule = Callable[[int], float]


@component
class Constant:
    """Factor 1 at every step."""

    def __call__(self, t: int) -> float:
        return 1.0


@component
class Step:
    """Multiply by ``factor`` after every ``every`` steps.

    >>> [Step(every=2, factor=0.5)(t) for t in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    every: Annotated[int, Ge(1)] = 100
    factor: Annotated[float, Interval(gt=0, le=1)] = 0.5

    def __call__(self, t: int) -> float:
        return float(self.factor ** (t // self.every))


@component
class InverseSqrt:
    """1 / sqrt(1 + t / t0): the decay of the theory of stochastic gradient descent.

    >>> InverseSqrt(t0=1.0)(3)
    0.5
    """

    t0: Annotated[float, Gt(0)] = 100.0

    def __call__(self, t: int) -> float:
        return 1.0 / math.sqrt(1.0 + t / self.t0)


@component
class Cosine:
    """From 1 to ``floor`` along half a cosine over ``total`` steps, then ``floor``.

    >>> [round(Cosine(total=4)(t), 3) for t in (0, 2, 4, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """

    total: Annotated[int, Ge(1)] = 1000
    floor: Annotated[float, Interval(ge=0, le=1)] = 0.0

    def __call__(self, t: int) -> float:
        wave = 0.5 * (1.0 + math.cos(math.pi * min(t / self.total, 1.0)))
        return self.floor + (1.0 - self.floor) * wave


@component
class WarmUp:
    """Rise linearly over the first ``steps`` steps, then follow ``then`` from its own t = 0.

    >>> [WarmUp(steps=4)(t) for t in (0, 1, 3, 4)]
    [0.25, 0.5, 1.0, 1.0]
    """

    steps: Annotated[int, Ge(1)] = 100
    then: Schedule = field(default_factory=Constant)

    def __call__(self, t: int) -> float:
        return (t + 1) / self.steps if t < self.steps else self.then(t - self.steps)
