"""The partition module: who holds which samples, and in which order they are drawn."""

from hemiola.partition.disk import Streamed
from hemiola.partition.rules import (
    ByLabel,
    BySpeed,
    Contiguous,
    Dirichlet,
    FeatureSplit,
    RandomSampling,
    ShuffleSplit,
    Whole,
)
from hemiola.partition.sources import Online, Shards

__all__ = [
    "ByLabel",
    "BySpeed",
    "Contiguous",
    "Dirichlet",
    "FeatureSplit",
    "Online",
    "RandomSampling",
    "Shards",
    "ShuffleSplit",
    "Streamed",
    "Whole",
]
