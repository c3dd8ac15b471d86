"""The local module: what a worker does alone between two messages."""

from hemiola.local.elastic import Elastic
from hemiola.local.gradient import Gradient
from hemiola.local.local_steps import LocalSteps

__all__ = ["Elastic", "Gradient", "LocalSteps"]
