"""The local module: what a worker does alone between two messages."""

from hemiola.local.accumulate import Accumulate
from hemiola.local.dual_ascent import LocalSDCA
from hemiola.local.elastic import AsyncElastic, Elastic
from hemiola.local.gradient import Gradient
from hemiola.local.local_steps import LocalSteps
from hemiola.local.portion import Portion
from hemiola.local.proximal import Proximal
from hemiola.local.proximal_step import ProximalStep
from hemiola.local.solvers import LBFGS, Auto, Dual, Newton

__all__ = [
    "LBFGS",
    "Accumulate",
    "AsyncElastic",
    "Auto",
    "Dual",
    "Elastic",
    "Gradient",
    "LocalSDCA",
    "LocalSteps",
    "Newton",
    "Portion",
    "Proximal",
    "ProximalStep",
]
