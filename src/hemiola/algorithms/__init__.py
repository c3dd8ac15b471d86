"""The classic algorithms, one file a paper, each a composition of the four modules."""

from hemiola.algorithms.adadelay import adadelay
from hemiola.algorithms.adaptive_revision import adaptive_revision
from hemiola.algorithms.admm import admm
from hemiola.algorithms.admm_async import admm_async
from hemiola.algorithms.admm_sharing import admm_sharing
from hemiola.algorithms.asgd import asgd
from hemiola.algorithms.bmuf import bmuf
from hemiola.algorithms.cyclades import cyclades
from hemiola.algorithms.dc_asgd import dc_asgd
from hemiola.algorithms.downpour import downpour
from hemiola.algorithms.easgd import eamsgd, easgd
from hemiola.algorithms.easgd_async import eamsgd_async, easgd_async
from hemiola.algorithms.fedavg import fedavg
from hemiola.algorithms.model_averaging import model_averaging, one_shot_averaging
from hemiola.algorithms.sandblaster import sandblaster
from hemiola.algorithms.ssgd import ssgd
from hemiola.algorithms.ssp import ssp
from hemiola.algorithms.stratified import stratified

__all__ = [
    "adadelay",
    "adaptive_revision",
    "admm",
    "admm_async",
    "admm_sharing",
    "asgd",
    "bmuf",
    "cyclades",
    "dc_asgd",
    "downpour",
    "eamsgd",
    "eamsgd_async",
    "easgd",
    "easgd_async",
    "fedavg",
    "model_averaging",
    "one_shot_averaging",
    "sandblaster",
    "ssgd",
    "ssp",
    "stratified",
]
