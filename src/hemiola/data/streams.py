"""Data without end: every draw is a fresh sample of one distribution, and nothing is used twice.

The distribution is fixed by the stream's own ``seed``, the sample by the generator that is handed
to :meth:`Stream.draw`. Workers that draw with generators of different addresses
(:func:`hemiola.rng.stream`) see independent samples of the same distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hemiola.data.dtypes import float_dtype
from hemiola.dataset import Dataset, make_dataset
from hemiola.errors import DataError, OptionError
from hemiola.rng import stream
from hemiola.types import Array


@dataclass(frozen=True)
class _LinearModel:
    """Standard normal features and a fixed linear function of them."""

    n_features: int = 20
    seed: int = 0
    dtype: Any = "float64"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", float_dtype(self.dtype))
        _check_positive(self.n_features, "n_features")

    @cached_property
    def bias(self) -> float:
        """The true intercept b*."""
        return float(stream(self.seed, "stream-model", 1).normal(scale=0.5))

    def _direction(self, length: float) -> Array:
        """A random vector (n_features,) of expected length ``length``."""
        scale = length / np.sqrt(self.n_features)
        return stream(self.seed, "stream-model").normal(scale=scale, size=self.n_features)

    def _features(self, rng: np.random.Generator, size: int) -> Array:
        """(size, n_features) in double precision, so that both dtypes see the same samples."""
        _check_positive(size, "size")
        return rng.standard_normal((size, self.n_features))


@dataclass(frozen=True)
class LogisticStream(_LinearModel):
    """Two classes from a logistic model: x ~ N(0, I), y ~ Bernoulli(sigmoid(x.w* + b*)).

    ``signal`` is the typical length of w*: the larger it is, the easier the classes are to tell
    apart. ``weights`` (n_features,) and ``bias`` are w* and b*.
    :meth:`draw` raises :class:`OptionError` for a size below one.

    >>> data = LogisticStream(n_features=3).draw(stream(0, "online"), 5)
    >>> data.X.shape, data.classes.tolist()
    ((5, 3), [0, 1])
    """

    signal: float = 3.0

    @property
    def n_classes(self) -> int:
        return 2

    @cached_property
    def weights(self) -> Array:
        """The true weights w*, (n_features,)."""
        return self._direction(self.signal)

    def draw(self, rng: np.random.Generator, size: int) -> Dataset:
        """``size`` fresh samples, their classes numbered 0 and 1."""
        X = self._features(rng, size)
        positive = 1.0 / (1.0 + np.exp(-(X @ self.weights + self.bias)))
        y = (rng.random(size) < positive).astype(np.intp)
        return Dataset(X.astype(self.dtype, copy=False), y, np.arange(2), None, "logistic stream")


@dataclass(frozen=True)
class LinearStream(_LinearModel):
    """Regression from a linear model: x ~ N(0, I), y = x.w* + b* + noise * N(0, 1).

    ``weights`` (n_features,) and ``bias`` are w* and b*; w* has about unit length.
    :meth:`draw` raises :class:`OptionError` for a size below one.

    >>> data = LinearStream(n_features=3, noise=0.0).draw(stream(0, "online"), 5)
    >>> data.X.shape, data.y.shape, data.classes
    ((5, 3), (5,), None)
    """

    noise: float = 0.1

    @property
    def n_classes(self) -> int:
        return 0

    @cached_property
    def weights(self) -> Array:
        """The true weights w*, (n_features,)."""
        return self._direction(1.0)

    def draw(self, rng: np.random.Generator, size: int) -> Dataset:
        """``size`` fresh samples with real targets."""
        X = self._features(rng, size)
        y = X @ self.weights + self.bias + self.noise * rng.standard_normal(size)
        dtype = self.dtype
        return Dataset(X.astype(dtype, copy=False), y.astype(dtype), None, None, "linear stream")


@dataclass(frozen=True)
class FunctionStream:
    """A stream of your own: ``function(rng, size)`` returns ``(X, y)``.

    ``X`` is (size, n_features), dense or sparse; ``y`` is (size,): class numbers 0..n_classes-1, or
    real targets when ``n_classes`` is 0. Take all randomness from ``rng``. For engines with several
    processes the function must be picklable, that is defined at the top level of a module.
    :meth:`draw` raises :class:`DataError` when the function returns anything else, and
    :class:`OptionError` for a size below one.

    >>> def coin(rng, size):
    ...     y = rng.integers(0, 2, size)
    ...     return rng.normal(y[:, None], 1.0, (size, 4)), y
    >>> FunctionStream(coin, n_features=4, n_classes=2).draw(stream(0, "online"), 6).X.shape
    (6, 4)
    """

    function: Callable[[np.random.Generator, int], tuple[Any, Any]]
    n_features: int
    n_classes: int = 0
    dtype: Any = "float64"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", float_dtype(self.dtype))
        _check_positive(self.n_features, "n_features")
        if self.n_classes != 0 and self.n_classes < 2:
            raise OptionError(
                f"n_classes is {self.n_classes}; use 0 for regression and 2 or more for classes."
            )

    def draw(self, rng: np.random.Generator, size: int) -> Dataset:
        """``size`` fresh samples from the function, checked."""
        _check_positive(size, "size")
        name = f"stream {getattr(self.function, '__name__', 'function')!r}"
        drawn = self.function(rng, size)
        if not isinstance(drawn, tuple | list) or len(drawn) != 2:
            raise DataError(f"{name} returned {type(drawn).__name__}; return a pair (X, y).")
        data = make_dataset(*drawn, regression=True, name=name)
        y = np.asarray(drawn[1], dtype=np.float64).ravel()
        if data.X.shape != (size, self.n_features):
            raise DataError(
                f"{name} returned features of shape {data.X.shape}, not "
                f"{(size, self.n_features)}; return one row for each of the samples asked for."
            )
        X = data.X.astype(self.dtype, copy=False)
        if self.n_classes == 0:
            return Dataset(X, y.astype(self.dtype), None, None, name)
        if ((y != np.floor(y)) | (y < 0) | (y >= self.n_classes)).any():
            raise DataError(
                f"{name} returned class numbers outside 0..{self.n_classes - 1}; "
                "return whole numbers below n_classes."
            )
        return Dataset(X, y.astype(np.intp), np.arange(self.n_classes), None, name)


def _check_positive(number: int, name: str) -> None:
    if number < 1:
        raise OptionError(f"{name} is {number}; it must be at least 1.")
