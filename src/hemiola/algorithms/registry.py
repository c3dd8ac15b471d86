"""Algorithms by name and options as text: what the command line and the estimators build from.

An option addresses a parameter of the recipe or, by a dot, a field of one of its components:
``steps=5``, ``optimizer=adam``, ``optimizer.lr=0.01``, ``partition=dirichlet``,
``partition.alpha=0.3``. Common fields have short names: ``lr``, ``momentum``, ``schedule``,
``batch_size`` and ``draw``. Algorithms of four modules have ``shards``: so many servers with a
slice of w each. Every synchronous one has the policies of
:class:`~hemiola.communicate.Synchronous`, such as ``timeout`` and ``on_loss``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hemiola import aggregate, grouping, local, optim, partition
from hemiola.aggregate import Sharded
from hemiola.algorithm import Algorithm, MiniBatch
from hemiola.algorithms.adadelay import PAPER as ADADELAY
from hemiola.algorithms.adadelay import adadelay
from hemiola.algorithms.adaptive_revision import PAPER as REVISION
from hemiola.algorithms.adaptive_revision import adaptive_revision
from hemiola.algorithms.admm import PAPER as ADMM
from hemiola.algorithms.admm import Steps, admm
from hemiola.algorithms.admm_async import PAPER as ADMM_ASYNC
from hemiola.algorithms.admm_async import admm_async
from hemiola.algorithms.admm_sharing import PAPER as ADMM_SHARING
from hemiola.algorithms.admm_sharing import admm_sharing
from hemiola.algorithms.asgd import PAPER as ASGD
from hemiola.algorithms.asgd import asgd
from hemiola.algorithms.bmuf import PAPER as BMUF
from hemiola.algorithms.bmuf import bmuf
from hemiola.algorithms.bmuf_adam import PAPER as BMUF_ADAM
from hemiola.algorithms.bmuf_adam import bmuf_adam
from hemiola.algorithms.cocoa import PAPER as COCOA
from hemiola.algorithms.cocoa import cocoa
from hemiola.algorithms.cyclades import PAPER as CYCLADES
from hemiola.algorithms.cyclades import cyclades
from hemiola.algorithms.dc_asgd import PAPER as DC_ASGD
from hemiola.algorithms.dc_asgd import dc_asgd
from hemiola.algorithms.diloco import PAPER as DILOCO
from hemiola.algorithms.diloco import diloco
from hemiola.algorithms.distbelief import PAPER as DISTBELIEF
from hemiola.algorithms.distbelief import distbelief
from hemiola.algorithms.ditto import PAPER as DITTO
from hemiola.algorithms.ditto import ditto
from hemiola.algorithms.downpour import PAPER as DOWNPOUR
from hemiola.algorithms.downpour import downpour
from hemiola.algorithms.easgd import PAPER as EASGD
from hemiola.algorithms.easgd import eamsgd, easgd
from hemiola.algorithms.easgd_async import PAPER as EASGD_ASYNC
from hemiola.algorithms.easgd_async import eamsgd_async, easgd_async
from hemiola.algorithms.fedadam import PAPER as FEDADAM
from hemiola.algorithms.fedadam import fedadam
from hemiola.algorithms.fedavg import PAPER as FEDAVG
from hemiola.algorithms.fedavg import fedavg
from hemiola.algorithms.fedprox import PAPER as FEDPROX
from hemiola.algorithms.fedprox import fedprox
from hemiola.algorithms.hogwild import PAPER as HOGWILD
from hemiola.algorithms.hogwild import hogwild
from hemiola.algorithms.hybrid import PAPER as HYBRID
from hemiola.algorithms.hybrid import hybrid
from hemiola.algorithms.lbfgs import PAPER as LBFGS
from hemiola.algorithms.lbfgs import lbfgs
from hemiola.algorithms.model_averaging import ONE_SHOT_PAPER as ONE_SHOT
from hemiola.algorithms.model_averaging import PAPER as AVERAGING
from hemiola.algorithms.model_averaging import model_averaging, one_shot_averaging
from hemiola.algorithms.post_local_sgd import PAPER as POST_LOCAL
from hemiola.algorithms.post_local_sgd import post_local_sgd
from hemiola.algorithms.sandblaster import PAPER as SANDBLASTER
from hemiola.algorithms.sandblaster import sandblaster
from hemiola.algorithms.sdca import PAPER as SDCA
from hemiola.algorithms.sdca import sdca
from hemiola.algorithms.slowmo import PAPER as SLOWMO
from hemiola.algorithms.slowmo import slowmo
from hemiola.algorithms.ssgd import PAPER as SSGD
from hemiola.algorithms.ssgd import ssgd
from hemiola.algorithms.ssp import PAPER as SSP
from hemiola.algorithms.ssp import ssp
from hemiola.algorithms.stratified import PAPER as STRATIFIED
from hemiola.algorithms.stratified import stratified
from hemiola.algorithms.streaming_diloco import PAPER as STREAMING
from hemiola.algorithms.streaming_diloco import streaming_diloco
from hemiola.algorithms.tiered import PAPER as TIERED
from hemiola.algorithms.tiered import tiered
from hemiola.communicate import POLICIES, Synchronous
from hemiola.errors import OptionError, nearest
from hemiola.options import arguments, unknown_option


@dataclass(frozen=True)
class Recipe:
    """A named way to build an algorithm with its defaults."""

    name: str
    make: Callable[..., Any]
    paper: str

    @property
    def summary(self) -> str:
        """The first sentence of the recipe's documentation."""
        return (inspect.getdoc(self.make) or "").splitlines()[0].rstrip(".")

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.make).parameters

    @property
    def general(self) -> tuple[str, ...]:
        """The options beside its parameters: :data:`SHARDS`, and the policies of rounds. Threads
        that share memory have no servers, and so neither.

        >>> recipe("asgd").general, recipe("ssgd").general[:3], recipe("tiered").general
        (('shards',), ('shards', 'timeout', 'late'), ())
        """
        algorithm = self.make()
        if not isinstance(algorithm, Algorithm):
            return ()
        synchronous = isinstance(algorithm.communicate, Synchronous)
        known = (SHARDS, *POLICIES) if synchronous else (SHARDS,)
        return tuple(name for name in known if name not in self.parameters)


_ALL = (
    Recipe("ssgd", ssgd, SSGD),
    Recipe("model-averaging", model_averaging, AVERAGING),
    Recipe("one-shot-averaging", one_shot_averaging, ONE_SHOT),
    Recipe("fedavg", fedavg, FEDAVG),
    Recipe("fedprox", fedprox, FEDPROX),
    Recipe("fedadam", fedadam, FEDADAM),
    Recipe("ditto", ditto, DITTO),
    Recipe("bmuf", bmuf, BMUF),
    Recipe("bmuf-adam", bmuf_adam, BMUF_ADAM),
    Recipe("slowmo", slowmo, SLOWMO),
    Recipe("post-local-sgd", post_local_sgd, POST_LOCAL),
    Recipe("diloco", diloco, DILOCO),
    Recipe("streaming-diloco", streaming_diloco, STREAMING),
    Recipe("easgd", easgd, EASGD),
    Recipe("eamsgd", eamsgd, EASGD),
    Recipe("admm", admm, ADMM),
    Recipe("admm-sharing", admm_sharing, ADMM_SHARING),
    Recipe("asgd", asgd, ASGD),
    Recipe("ssp", ssp, SSP),
    Recipe("admm-async", admm_async, ADMM_ASYNC),
    Recipe("easgd-async", easgd_async, EASGD_ASYNC),
    Recipe("eamsgd-async", eamsgd_async, EASGD_ASYNC),
    Recipe("adadelay", adadelay, ADADELAY),
    Recipe("adaptive-revision", adaptive_revision, REVISION),
    Recipe("dc-asgd", dc_asgd, DC_ASGD),
    Recipe("downpour", downpour, DOWNPOUR),
    Recipe("sandblaster", sandblaster, SANDBLASTER),
    Recipe("distbelief", distbelief, DISTBELIEF),
    Recipe("cocoa", cocoa, COCOA),
    Recipe("lbfgs", lbfgs, LBFGS),
    Recipe("hybrid", hybrid, HYBRID),
)
RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""Algorithms of four modules."""

_SHARED = (
    Recipe("hogwild", hogwild, HOGWILD),
    Recipe("tiered", tiered, TIERED),
    Recipe("sdca", sdca, SDCA),
    Recipe("cyclades", cyclades, CYCLADES),
    Recipe("stratified", stratified, STRATIFIED),
)
SHARED: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _SHARED}
"""Algorithms whose threads share memory."""

SHARDS = "shards"
"""An option of algorithms of four modules: so many servers, each with a slice of w."""

COMPONENTS: Mapping[str, Mapping[str, type]] = {
    "optimizer": {
        "sgd": optim.SGD,
        "heavy-ball": optim.HeavyBall,
        "nesterov": optim.Nesterov,
        "adagrad": optim.Adagrad,
        "adam": optim.Adam,
        "adamw": optim.AdamW,
    },
    "server": {
        "sgd": optim.SGD,
        "momentum": optim.HeavyBall,
        "nesterov": optim.Nesterov,
        "adam": optim.FedAdam,
        "yogi": optim.FedYogi,
        "adagrad": optim.FedAdagrad,
    },
    "schedule": {
        "constant": optim.Constant,
        "step": optim.Step,
        "inverse-sqrt": optim.InverseSqrt,
        "cosine": optim.Cosine,
        "warm-up": optim.WarmUp,
    },
    "partition": {
        "shuffle-split": partition.ShuffleSplit,
        "random-sampling": partition.RandomSampling,
        "contiguous": partition.Contiguous,
        "by-label": partition.ByLabel,
        "dirichlet": partition.Dirichlet,
        "whole": partition.Whole,
        "by-speed": partition.BySpeed,
    },
    "solver": {
        "auto": local.Auto,
        "newton": local.Newton,
        "lbfgs": local.LBFGS,
        "dual": local.Dual,
        "local-steps": Steps,
    },
    "balance": {"residuals": aggregate.Balance},
    "stopping": {"residuals": aggregate.Stopping},
    "grouping": {"ratio": grouping.ByRatio, "k-means": grouping.ByKMeans},
    "batch": {"mini-batch": MiniBatch},
}

SHORT_NAMES: Mapping[str, str] = {
    "lr": "optimizer.lr",
    "momentum": "optimizer.momentum",
    "schedule": "optimizer.schedule",
    "batch_size": "batch.size",
    "draw": "batch.draw",
}


def recipe(name: str) -> Recipe:
    """The recipe of this name; raises :class:`OptionError` with the nearest match."""
    known = {**RECIPES, **SHARED}
    if name not in known:
        raise OptionError(f"there is no algorithm {name!r}; {nearest(name, known)}")
    return known[name]


def build(name: str, options: Mapping[str, Any] | None = None) -> Algorithm:
    """An algorithm by name, with options given as text or as values.

    >>> build("bmuf", {"steps": "5", "optimizer": "adam", "lr": 0.01}).local.optimizer.lr
    0.01
    >>> build("bmuf", {"etta": 0.5})
    Traceback (most recent call last):
        ...
    hemiola.errors.OptionError: bmuf has no option 'etta'; did you mean 'eta'?
    """
    chosen = recipe(name)
    defaults = {key: parameter.default for key, parameter in chosen.parameters.items()}
    paths = {path_of(chosen, key): value for key, value in (options or {}).items()}
    parts = {key: _part(key, default, paths) for key, default in defaults.items()
             if isinstance(default, Algorithm)}  # fmt: skip
    extra = {key: paths.pop(key) for key in list(paths) if key.split(".")[0] in chosen.general}
    algorithm = chosen.make(**parts, **arguments(paths, defaults, COMPONENTS))
    general = arguments(extra, dict.fromkeys(chosen.general), {})
    shards = general.pop(SHARDS, None)
    if general:
        algorithm = replace(algorithm, communicate=replace(algorithm.communicate, **general))
    if shards is None:
        return algorithm
    return replace(algorithm, aggregate=Sharded(algorithm.aggregate, shards))


def _part(key: str, default: Algorithm, paths: dict[str, Any]) -> Algorithm:
    """The algorithm inside another one: takes its options, ``inner=bmuf``, ``inner.steps=5``, out
    of ``paths``."""
    named = paths.pop(key, None)
    inside = [path for path in paths if path.startswith(f"{key}.")]
    options = {path.removeprefix(f"{key}."): paths.pop(path) for path in inside}
    if isinstance(named, Algorithm):
        if options:
            raise OptionError(f"{key} is an algorithm already; leave out {inside[0]}.")
        return named
    if named is None and not options:
        return default
    name = named or default.name
    batch = getattr(default.local, "batch", None)
    if batch is not None and "batch" in recipe(name).parameters:
        options = {"batch": batch, **options}
    return build(name, options)


def path_of(chosen: Recipe, key: str) -> str:
    """The full path of an option: ``lr`` may stand for ``optimizer.lr``.

    Raises :class:`OptionError` with the nearest match when the recipe has no such option.
    """
    parameters = chosen.parameters
    head = key.split(".")[0]
    path = _full(head, parameters) + key[len(head) :] if _is_short(head, parameters) else key
    if path.split(".")[0] not in (*parameters, *chosen.general):
        known = {
            *parameters,
            *chosen.general,
            *(s for s in SHORT_NAMES if _is_short(s, parameters)),
        }
        raise unknown_option(chosen.name, key, known)
    return path


def _full(head: str, parameters: Mapping[str, Any]) -> str:
    """What a short name stands for: of an algorithm of algorithms, an option of one of them."""
    if SHORT_NAMES[head].split(".")[0] in parameters:
        return SHORT_NAMES[head]
    return f"inner.{head}" if SHORT_NAMES[head].startswith("batch") else f"outer.{head}"


def _is_short(head: str, parameters: Mapping[str, Any]) -> bool:
    return (
        head in SHORT_NAMES
        and head not in parameters
        and _full(head, parameters).split(".")[0] in parameters
    )
