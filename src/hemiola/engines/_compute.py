"""How long a simulated worker computes: distributions of a step's time, and of workers' speeds."""

from __future__ import annotations

import math
import re
from dataclasses import field
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from annotated_types import Ge, Gt, Interval
from pydantic import BeforeValidator

from hemiola.component import component
from hemiola.errors import OptionError


def _split(given: Any) -> Any:
    """``1:1:5`` or ``1,1,5`` as three values."""
    return re.split(r"[\s,:]+", given.strip()) if isinstance(given, str) else given


Positive = Annotated[tuple[Annotated[float, Gt(0)], ...], BeforeValidator(_split)]
NotNegative = Annotated[tuple[Annotated[float, Ge(0)], ...], BeforeValidator(_split)]


@runtime_checkable
class ComputeTime(Protocol):
    """How long local steps take."""

    def seconds(self, rng: np.random.Generator, steps: int) -> float:
        """A draw of the time of ``steps`` steps of one worker."""
        ...


@component
class Constant:
    """Every step takes ``mean`` seconds."""

    mean: Annotated[float, Gt(0)] = 1e-3

    def seconds(self, rng: np.random.Generator, steps: int) -> float:
        return self.mean * steps


@component
class Uniform:
    """Every step takes between ``low`` and ``high`` seconds."""

    low: Annotated[float, Ge(0)] = 5e-4
    high: Annotated[float, Gt(0)] = 1.5e-3

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise OptionError(f"Uniform: low = {self.low} is above high = {self.high}.")

    def seconds(self, rng: np.random.Generator, steps: int) -> float:
        return float(rng.uniform(self.low, self.high, steps).sum())


@component
class LogNormal:
    """Every step takes a log-normal time of this ``mean``; ``sigma`` is the sd of its logarithm."""

    mean: Annotated[float, Gt(0)] = 1e-3
    sigma: Annotated[float, Ge(0)] = 0.5

    def seconds(self, rng: np.random.Generator, steps: int) -> float:
        mu = math.log(self.mean) - self.sigma**2 / 2
        return float(rng.lognormal(mu, self.sigma, steps).sum())


@component
class Stragglers:
    """A mixture: a step takes ``mean`` seconds, or with ``probability`` ``slowdown`` times that."""

    mean: Annotated[float, Gt(0)] = 1e-3
    probability: Annotated[float, Interval(ge=0, le=1)] = 0.1
    slowdown: Annotated[float, Ge(1)] = 5.0

    def seconds(self, rng: np.random.Generator, steps: int) -> float:
        slow = rng.binomial(steps, self.probability)
        return self.mean * (steps + (self.slowdown - 1) * float(slow))


@component
class PerWorker:
    """Log-normal times, of each worker its own: ``mean[k]`` and ``sigma[k]`` of worker k.

    More workers than entries begin again with the first.

    >>> PerWorker((1.0, 2.0), (0.1, 0.2)).of(3)
    LogNormal(mean=2.0, sigma=0.2)
    """

    mean: Positive = field(default=(1e-3,))
    sigma: NotNegative = field(default=(0.5,))

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.sigma):
            raise OptionError(
                f"PerWorker: {len(self.mean)} means and {len(self.sigma)} sigmas; give one of "
                "each a worker."
            )

    def of(self, worker: int) -> LogNormal:
        """The distribution of one worker."""
        at = worker % len(self.mean)
        return LogNormal(self.mean[at], self.sigma[at])


@runtime_checkable
class Speed(Protocol):
    """How much longer than others a worker computes, in all that it does."""

    def factor(self, rng: np.random.Generator, worker: int) -> float:
        """Of one worker; ``rng`` is this worker's own."""
        ...


@component
class Equal:
    """All workers are alike."""

    def factor(self, rng: np.random.Generator, worker: int) -> float:
        return 1.0


@component
class LogNormalSpeed:
    """Every worker's steps take a constant times as long: log-normal of median 1.

    ``sigma`` is the sd of its logarithm.
    """

    sigma: Annotated[float, Ge(0)] = 0.5

    def factor(self, rng: np.random.Generator, worker: int) -> float:
        return math.exp(self.sigma * rng.standard_normal())


@component
class Factors:
    """Worker k's steps take ``factors[k]`` times as long; after the last, the first comes again.

    >>> Factors("1,1,5,5").factors
    (1.0, 1.0, 5.0, 5.0)
    """

    factors: Positive = field(default=(1.0,))

    def __post_init__(self) -> None:
        if not self.factors:
            raise OptionError("Factors: give at least one factor, for example 1,1,5,5.")

    def factor(self, rng: np.random.Generator, worker: int) -> float:
        return self.factors[worker % len(self.factors)]
