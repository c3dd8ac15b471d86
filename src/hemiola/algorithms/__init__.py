"""The classic algorithms, one file a paper, each a composition of the four modules."""

from hemiola.algorithms.asgd import asgd
from hemiola.algorithms.bmuf import bmuf
from hemiola.algorithms.easgd import eamsgd, easgd
from hemiola.algorithms.fedavg import fedavg
from hemiola.algorithms.model_averaging import model_averaging, one_shot_averaging
from hemiola.algorithms.ssgd import ssgd

__all__ = [
    "asgd",
    "bmuf",
    "eamsgd",
    "easgd",
    "fedavg",
    "model_averaging",
    "one_shot_averaging",
    "ssgd",
]
