"""Epochs in rounds: how long a run must be to pass over the data so many times."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from hemiola.algorithm import Algorithm, AnyAlgorithm, SharedMemoryAlgorithm
from hemiola.algorithms.lbfgs import FullGradient
from hemiola.algorithms.streaming_diloco import FragmentSteps
from hemiola.communicate import Synchronous
from hemiola.contracts import Source
from hemiola.errors import OptionError
from hemiola.local import Accumulate, AsyncElastic, Elastic, Gradient, LocalSDCA, LocalSteps


def rounds_for(algorithm: AnyAlgorithm, source: Source, workers: int, epochs: float) -> int:
    """The least number of rounds in which ``workers`` pass ``epochs`` times over their samples.

    A round is one mini-batch a worker, or the ``steps``, ``epochs`` or ``period`` of the local
    module. The worker with the most mini-batches counts. With partial participation a worker takes
    part in its share of the rounds only. An algorithm of one round has one, whatever is asked for.

    Raises :class:`~hemiola.errors.OptionError` for ``epochs`` that are not a positive number and
    for local modules of unknown length.

    >>> from hemiola.algorithms.registry import build
    >>> from hemiola.dataset import make_dataset
    >>> from hemiola.partition import Shards
    >>> data = make_dataset([[0.0]] * 80, [0, 1] * 40)
    >>> algorithm = build("model-averaging", {"steps": 2, "batch_size": 5})
    >>> rounds_for(algorithm, Shards(data, algorithm.partition, 4, seed=0), 4, epochs=3)
    6
    """
    if not _is_positive(epochs):
        raise OptionError(f"epochs must be a positive number, not {epochs!r}.")
    if isinstance(algorithm, SharedMemoryAlgorithm):
        return _ceil(epochs)
    passes = _passes(algorithm, source, workers)
    discipline = algorithm.communicate
    if not isinstance(discipline, Synchronous):
        return _ceil(epochs / passes)
    share = len(discipline.members(0, workers, seed=0)) / workers
    rounds = _ceil(epochs / (passes * share))
    return min(rounds, discipline.rounds or rounds)


def _is_positive(x: Any) -> bool:
    return isinstance(x, Real) and 0 < float(x) < math.inf


def _passes(algorithm: Algorithm, source: Source, workers: int) -> float:
    """How much of its shard a worker goes through in one round, at least."""
    local: Any = getattr(algorithm.local, "local", algorithm.local)  # of one that wraps another
    if isinstance(local, LocalSDCA):
        return local.epochs
    if isinstance(local, FullGradient):
        return 1.0
    if isinstance(local, LocalSteps) and local.epochs is not None:
        return local.epochs
    if isinstance(local, Gradient):
        steps = 1
    elif isinstance(local, Elastic | AsyncElastic):
        steps = local.period
    elif isinstance(local, Accumulate | LocalSteps | FragmentSteps):
        steps = local.steps or 1
    else:
        raise OptionError(
            f"{algorithm.name}: it is unknown how long an epoch of {type(local).__name__} is; "
            "give the number of rounds."
        )
    return steps / max(source.steps_per_epoch(k, local.batch) for k in range(workers))


def _ceil(x: float) -> int:
    """Up to the next whole number, but not for the sake of a rounding error."""
    return max(1, math.ceil(x - 1e-9))
