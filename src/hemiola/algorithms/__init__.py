"""The classic algorithms, one file a paper, each a composition of the four modules."""

from hemiola.algorithms.adadelay import adadelay
from hemiola.algorithms.adaptive_revision import adaptive_revision
from hemiola.algorithms.admm import admm
from hemiola.algorithms.admm_async import admm_async
from hemiola.algorithms.admm_sharing import admm_sharing
from hemiola.algorithms.asgd import asgd
from hemiola.algorithms.bmuf import bmuf
from hemiola.algorithms.bmuf_adam import bmuf_adam
from hemiola.algorithms.cocoa import cocoa
from hemiola.algorithms.cyclades import cyclades
from hemiola.algorithms.dc_asgd import dc_asgd
from hemiola.algorithms.diloco import diloco
from hemiola.algorithms.distbelief import distbelief
from hemiola.algorithms.ditto import ditto
from hemiola.algorithms.downpour import downpour
from hemiola.algorithms.easgd import eamsgd, easgd
from hemiola.algorithms.easgd_async import eamsgd_async, easgd_async
from hemiola.algorithms.fedadam import fedadam
from hemiola.algorithms.fedavg import fedavg
from hemiola.algorithms.fedprox import fedprox
from hemiola.algorithms.hogwild import hogwild
from hemiola.algorithms.lbfgs import lbfgs
from hemiola.algorithms.model_averaging import model_averaging, one_shot_averaging
from hemiola.algorithms.post_local_sgd import post_local_sgd
from hemiola.algorithms.sandblaster import sandblaster
from hemiola.algorithms.sdca import sdca
from hemiola.algorithms.slowmo import slowmo
from hemiola.algorithms.ssgd import ssgd
from hemiola.algorithms.ssp import ssp
from hemiola.algorithms.stratified import stratified
from hemiola.algorithms.streaming_diloco import streaming_diloco
from hemiola.algorithms.tiered import tiered

__all__ = [
    "adadelay",
    "adaptive_revision",
    "admm",
    "admm_async",
    "admm_sharing",
    "asgd",
    "bmuf",
    "bmuf_adam",
    "cocoa",
    "cyclades",
    "dc_asgd",
    "diloco",
    "distbelief",
    "ditto",
    "downpour",
    "eamsgd",
    "eamsgd_async",
    "easgd",
    "easgd_async",
    "fedadam",
    "fedavg",
    "fedprox",
    "hogwild",
    "lbfgs",
    "model_averaging",
    "one_shot_averaging",
    "post_local_sgd",
    "sandblaster",
    "sdca",
    "slowmo",
    "ssgd",
    "ssp",
    "stratified",
    "streaming_diloco",
    "tiered",
]
