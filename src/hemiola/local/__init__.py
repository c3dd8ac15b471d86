"""The local module: what a worker does alone between two messages."""

from hemiola.local.accumulate import Accumulate
from hemiola.local.dual_ascent import LocalSDCA
from hemiola.local.elastic import AsyncElastic, Elastic
from hemiola.local.gradient import Gradient
from hemiola.local.local_steps import LocalSteps
from hemiola.local.portion import Portion
from hemiola.local.proximal import Proximal

__all__ = [
    "Accumulate",
    "AsyncElastic",
    "Elastic",
    "Gradient",
    "LocalSDCA",
    "LocalSteps",
    "Portion",
    "Proximal",
]
