"""Reading data, holding some of it back, bringing it to one scale, and drawing it without end."""

from hemiola.data.catalog import builtin_names
from hemiola.data.prepare import Standardizer, split
from hemiola.data.ratings import Ratings, read_ratings
from hemiola.data.sources import load
from hemiola.data.streams import FunctionStream, LinearStream, LogisticStream

__all__ = [
    "FunctionStream",
    "LinearStream",
    "LogisticStream",
    "Ratings",
    "Standardizer",
    "builtin_names",
    "load",
    "read_ratings",
    "split",
]
