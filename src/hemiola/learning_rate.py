"""A learning rate that works, for those who give none.

The base rate is 1 / L(b), where L(b) is the smoothness of the mean loss of a mini-batch of b
samples: b = infinity gives the smoothness constant L of the whole objective, b = 1 that of a single
average sample, and between them (Gower et al., "SGD: General Analysis and Improved Rates", ICML
2019, with the mean in place of the maximum)

    L(b) = (1 - 1/b) L + (1/b) mean_i L_i.

For a linear model L = c lambda_max(X'X / n) + l2 and L_i = c |x_i|^2 + l2, c the loss's curvature.

Each optimiser makes its own rate of the base (``with_lr``): momentum divides by its long-run gain,
adaptive rules ignore it. Servers that step on stale gradients multiply it by
sin(pi / (2 (2 s + 1))) with staleness s = K - 1, which keeps them where serial SGD at 1/L is, at
half the limit of stability; those that divide by 1 + s themselves need no such factor. Parts that
step on another loss than the objective - proximal workers, servers that step on changes of models -
say what base that has (``base_inside``).
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from hemiola.algorithm import Algorithm, AnyAlgorithm, MiniBatch, SharedMemoryAlgorithm
from hemiola.communicate import Synchronous
from hemiola.contracts import Objective, Source
from hemiola.dataset import Dataset
from hemiola.errors import OptionError
from hemiola.rng import stream
from hemiola.types import Array

_SAMPLE = 10_000
_ITERATIONS = 50
_MARGIN = 1.05  # the power method approaches the largest eigenvalue from below


@runtime_checkable
class OtherLoss(Protocol):
    """A part of an algorithm whose optimisers step on something else than the objective."""

    def base_inside(self, base: float) -> float:
        """The base rate for the optimisers inside, where that of the objective is ``base``."""
        ...


@runtime_checkable
class Smooth(Protocol):
    """An objective with a bound on its curvature."""

    l2: float

    @property
    def curvature(self) -> float: ...


def with_learning_rate(
    algorithm: AnyAlgorithm, objective: Objective, data: Dataset, source: Source, workers: int
) -> AnyAlgorithm:
    """The algorithm with every ``lr=None`` filled in from the data; as it is if there is none.

    Raises :class:`OptionError` when the objective has no estimate.
    """
    if not _lacks_rate(algorithm):
        return algorithm
    if not isinstance(objective, Smooth):
        raise OptionError(
            f"{algorithm.name}: give a learning rate (lr); there is no estimate for "
            f"{type(objective).__name__}."
        )
    base = base_rate(objective, data, _batch_size(algorithm, source, workers))
    if isinstance(algorithm, Algorithm) and _steps_on_stale_gradients(algorithm):
        base *= _stale_share(algorithm, workers)
    inside = getattr(algorithm.communicate, "inside", None)
    if inside is not None and isinstance(
        algorithm, Algorithm
    ):  # the server adds changes of models, whose curvature is at most 1
        server = _fill(algorithm.aggregate, _stale_share(algorithm, workers))
        algorithm = replace(algorithm, aggregate=server)
    filled = _fill(algorithm, base)
    assert isinstance(filled, Algorithm | SharedMemoryAlgorithm)
    return filled


def base_rate(objective: Smooth, data: Dataset, batch_size: float) -> float:
    """1 / L(b), estimated on at most 10,000 samples.

    >>> from hemiola.objectives import squared
    >>> from hemiola.dataset import make_dataset
    >>> data = make_dataset([[3.0], [-3.0]], [0.0, 1.0], regression=True)
    >>> round(1 / base_rate(squared(), data, math.inf) / 1.05, 3)
    9.0
    """
    if len(data) > _SAMPLE:
        rows = stream(0, "smoothness").choice(len(data), _SAMPLE, replace=False)
        data = data.take(np.sort(rows))
    mean = _mean_square(data)
    top = 0.0 if batch_size == 1 else min(_largest_eigenvalue(data), mean / _MARGIN)
    L = objective.curvature * ((1 - 1 / batch_size) * top * _MARGIN + mean / batch_size)
    return 1.0 / (L + objective.l2)


def _mean_square(data: Dataset) -> float:
    """mean |x|^2, intercept included."""
    X = data.X
    squares = X.multiply(X).sum(axis=1) if data.is_sparse else np.square(X).sum(axis=1)
    return float((_weights(data) * (np.asarray(squares).ravel() + 1)).mean())


def _largest_eigenvalue(data: Dataset) -> float:
    """Of X'X/n, intercept included, by the power method."""
    X, n, s = data.X, len(data), _weights(data)
    v = stream(0, "power").standard_normal(data.n_features + 1)
    top = 0.0
    for _ in range(_ITERATIONS):
        v /= np.linalg.norm(v)
        z: Array = s * (X @ v[:-1] + v[-1])
        v = np.append(X.T @ z, z.sum()) / n
        top = float(np.linalg.norm(v))
    return top


def _weights(data: Dataset) -> Array:
    return np.ones(len(data)) if data.weight is None else data.weight


def _batch_size(algorithm: AnyAlgorithm, source: Source, workers: int) -> float:
    """The samples behind one step: a mini-batch, times the workers if gradients are joined."""
    if isinstance(algorithm, SharedMemoryAlgorithm):
        return 1.0
    local = algorithm.local
    batch: MiniBatch = getattr(local, "batch", MiniBatch())
    n = source.samples(0)
    if batch.size is None:
        return math.inf
    count = batch.count(n) if n > 1 else max(1.0, float(batch.size))
    joined = not hasattr(local, "optimizer")
    group = workers / _senders(algorithm, workers)
    return count * (group if joined and not hasattr(local, "lr") else 1)


def _senders(algorithm: Algorithm, workers: int) -> int:
    """Who the server hears from: all together, groups, or every worker alone."""
    discipline = algorithm.communicate
    if isinstance(discipline, Synchronous):
        return 1
    groups = getattr(discipline, "groups", None)
    return workers if groups is None else len(groups)


def _stale_share(algorithm: Algorithm, workers: int) -> float:
    """How much smaller the best step is on gradients that are as stale as these."""
    return math.sin(math.pi / (2 * (2 * _gradients_in_flight(algorithm, workers) + 1)))


def _gradients_in_flight(algorithm: Algorithm, workers: int) -> int:
    """K - 1; more where a message holds several gradients, or not each is followed by a read."""
    inside = getattr(algorithm.communicate, "inside", None)
    held = 1 if inside is not None else getattr(algorithm.local, "steps", 1)
    senders = _senders(algorithm, workers)
    return int(held * (algorithm.communicate.fetch_every * senders - 1))


def _steps_on_stale_gradients(algorithm: Algorithm) -> bool:
    if isinstance(algorithm.communicate, Synchronous):
        return False
    server = getattr(algorithm.aggregate, "aggregate", algorithm.aggregate)  # of Sharded: its rule
    damped = getattr(server, "damping", "none") != "none"
    own_models = hasattr(algorithm.local, "lr")  # elastic workers step on gradients of their own
    inside = getattr(algorithm.communicate, "inside", None) is not None
    return not damped and not own_models and not inside


def _lacks_rate(part: Any) -> bool:
    if not is_dataclass(part) or isinstance(part, type):
        return False
    if hasattr(part, "with_lr") and getattr(part, "lr", 0.0) is None:
        return True
    return any(_lacks_rate(getattr(part, field.name)) for field in fields(part))


def _fill(part: Any, base: float) -> Any:
    if not is_dataclass(part) or isinstance(part, type):
        return part
    if hasattr(part, "with_lr") and getattr(part, "lr", 0.0) is None:
        return part.with_lr(base)
    base = part.base_inside(base) if isinstance(part, OtherLoss) else base
    inside = {f.name: getattr(part, f.name) for f in fields(part)}
    changed = {
        name: value for name, old in inside.items() if (value := _fill(old, base)) is not old
    }
    return replace(part, **changed) if changed else part
