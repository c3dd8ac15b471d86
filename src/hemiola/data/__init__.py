"""Reading and converting data, holding some back, bringing them to one scale, streams."""

from hemiola.data.catalog import builtin_names
from hemiola.data.convert import convert
from hemiola.data.disk import DiskShards, open_shards
from hemiola.data.feeds import BlockStream, follow
from hemiola.data.prepare import Standardizer, split
from hemiola.data.ratings import Ratings, read_ratings
from hemiola.data.sources import load
from hemiola.data.streams import FunctionStream, LinearStream, LogisticStream
from hemiola.data.synthetic import synthetic

__all__ = [
    "BlockStream",
    "DiskShards",
    "FunctionStream",
    "LinearStream",
    "LogisticStream",
    "Ratings",
    "Standardizer",
    "builtin_names",
    "convert",
    "follow",
    "load",
    "open_shards",
    "read_ratings",
    "split",
    "synthetic",
]
