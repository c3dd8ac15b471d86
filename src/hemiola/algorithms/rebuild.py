"""From settings as plain data back to the algorithm: the inverse of ``describe``.

Only components of this library are built, by name, and each checks its own fields: a description
from a stranger can at worst be refused.
"""

from __future__ import annotations

from typing import Any

from hemiola import (
    aggregate,
    algorithm,
    communicate,
    grouping,
    local,
    objectives,
    optim,
    partition,
    penalty,
)
from hemiola.algorithms.adadelay import DelayAdaptive
from hemiola.algorithms.adaptive_revision import Revise
from hemiola.algorithms.admm import Steps
from hemiola.algorithms.admm_async import AsyncConsensus
from hemiola.algorithms.admm_sharing import Assemble, Block
from hemiola.algorithms.bmuf_adam import MomentsAhead
from hemiola.algorithms.cyclades import Cyclades
from hemiola.algorithms.dc_asgd import DelayCompensated
from hemiola.algorithms.distbelief import Replica
from hemiola.algorithms.ditto import Personalized
from hemiola.algorithms.easgd_async import ElasticExchange
from hemiola.algorithms.hogwild import Hogwild
from hemiola.algorithms.lbfgs import FullGradient, QuasiNewton
from hemiola.algorithms.post_local_sgd import PostLocal
from hemiola.algorithms.sandblaster import Coordinator
from hemiola.algorithms.slowmo import SlowMomentum
from hemiola.algorithms.ssp import CompleteClocks
from hemiola.algorithms.stratified import Stratified
from hemiola.algorithms.streaming_diloco import Fragments, FragmentServer, FragmentSteps
from hemiola.algorithms.tiered import Tiered
from hemiola.errors import CheckpointError

_PACKAGES = (aggregate, local, optim, partition)
_OTHERS: tuple[type, ...] = (
    algorithm.Algorithm,
    algorithm.MiniBatch,
    algorithm.SharedMemoryAlgorithm,
    communicate.Asynchronous,
    communicate.Grouped,
    communicate.Rounds,
    communicate.SharedMemory,
    grouping.ByKMeans,
    grouping.ByRatio,
    grouping.Measured,
    communicate.Synchronous,
    objectives.LinearObjective,
    objectives.MatrixFactorization,
    penalty.Penalty,
    Assemble,
    AsyncConsensus,
    Block,
    CompleteClocks,
    Coordinator,
    Cyclades,
    DelayAdaptive,
    DelayCompensated,
    ElasticExchange,
    Hogwild,
    FragmentServer,
    FragmentSteps,
    Fragments,
    FullGradient,
    MomentsAhead,
    Personalized,
    PostLocal,
    QuasiNewton,
    Replica,
    Revise,
    SlowMomentum,
    Steps,
    Stratified,
    Tiered,
)


def _known() -> dict[str, type]:
    exported = [getattr(package, name) for package in _PACKAGES for name in package.__all__]
    return {cls.__name__: cls for cls in (*_OTHERS, *exported) if isinstance(cls, type)}


def rebuild(description: Any) -> Any:
    """The component, or algorithm, that :func:`hemiola.describe.describe` described.

    Raises :class:`CheckpointError` for types that are not this library's.

    >>> from hemiola.describe import describe
    >>> from hemiola.algorithms.registry import build
    >>> rebuild(describe(build("bmuf"))) == build("bmuf")
    True
    """
    return _build(description, _known())


def _build(thing: Any, known: dict[str, type]) -> Any:
    if isinstance(thing, list):
        return tuple(_build(item, known) for item in thing)
    if not isinstance(thing, dict):
        return thing
    fields = {key: _build(value, known) for key, value in thing.items() if key != "type"}
    cls = known.get(thing.get("type", ""))
    if cls is None:
        raise CheckpointError(f"no component {thing.get('type')!r} is known to this version.")
    try:
        return cls(**fields)
    except TypeError as error:
        raise CheckpointError(f"{cls.__name__} cannot be built from the file: {error}.") from error
