"""Reading data, holding some of it back, bringing it to one scale, and drawing it without end."""

from hemiola.data.catalog import builtin_names
from hemiola.data.prepare import Standardizer, split
from hemiola.data.sources import load
from hemiola.data.streams import FunctionStream, LinearStream, LogisticStream
from hemiola.data.synthetic import synthetic

__all__ = [
    "FunctionStream",
    "LinearStream",
    "LogisticStream",
    "Standardizer",
    "builtin_names",
    "load",
    "split",
    "synthetic",
]
