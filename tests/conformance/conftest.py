"""Every algorithm, small enough to be run hundreds of times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hemiola.algorithms.registry import RECIPES, build
from hemiola.communicate import Asynchronous, Synchronous
from hemiola.penalty import Penalty, Proximal

SMALL = {
    "model-averaging": {"steps": 3},
    "one-shot-averaging": {"steps": 12},
    "fedavg": {"participation": 0.6, "epochs": 2, "partition": "dirichlet"},
    "fedprox": {"participation": 0.6},
    "fedadam": {"participation": 0.6},
    "ditto": {"participation": 0.6},
    "bmuf": {"steps": 3},
    "bmuf-adam": {"steps": 3},
    "slowmo": {"steps": 3},
    "post-local-sgd": {"steps": 3, "switch": 4},
    "diloco": {"steps": 3},
    "streaming-diloco": {"steps": 9, "fragments": 3, "delay": 1},
    "easgd": {"period": 3},
    "eamsgd": {"period": 3},
    "ssp": {"s": 1},
    "easgd-async": {"period": 3},
    "eamsgd-async": {"period": 3},
    "downpour": {"n_push": 2, "n_fetch": 4},
    "sandblaster": {"portions": 3},
    "lbfgs": {"tolerance": 0},
    "distbelief": {"n_push": 2, "n_fetch": 4},
    "hybrid": {"batch_size": 8},
    "admm": {"stopping.absolute": 0, "stopping.relative": 0},
    "admm-sharing": {"stopping.absolute": 0, "stopping.relative": 0},
    "admm-async": {  # one Newton step each, so that all pieces of work are equally long
        "barrier": 1,
        "solver": "newton",
        "solver.iterations": 1,
        "stopping.absolute": 0,
        "stopping.relative": 0,
    },
}
WITHOUT_RATE = ("sandblaster", "lbfgs", "cocoa", "admm", "admm-sharing", "admm-async")
DISCIPLINE = {name: type(build(name).communicate) for name in RECIPES}


def _algorithm(name, **options):
    given = {key.replace("__", "."): value for key, value in options.items()}
    if name in WITHOUT_RATE:
        given.pop("lr", None)
    elif "lr" in given and {"lr", "optimizer"} <= RECIPES[name].parameters.keys():
        given["optimizer.lr"] = given["lr"]  # a server's rate besides the workers'
    chosen = build(name, {**SMALL.get(name, {}), **given})
    for part in ("local", "aggregate"):
        if isinstance(getattr(chosen, part), Proximal):
            chosen = replace(chosen, **{part: getattr(chosen, part).with_penalty(Penalty())})
    return chosen


@pytest.fixture(scope="session")
def algorithm():
    """(name, **options) -> the recipe with few local steps; ``__`` stands for a dot.

    ``lr`` sets all rates that the recipe has.
    """
    return _algorithm


@pytest.fixture(scope="session")
def without_rate():
    """The recipes that need no learning rate."""
    return WITHOUT_RATE


def pytest_generate_tests(metafunc):
    """``any_recipe``, ``synchronous_recipe``, ``asynchronous_recipe``: names of recipes."""
    names = {
        "any_recipe": list(RECIPES),
        "synchronous_recipe": [n for n, kind in DISCIPLINE.items() if kind is Synchronous],
        "asynchronous_recipe": [n for n, kind in DISCIPLINE.items() if kind is Asynchronous],
    }
    for argument in names.keys() & set(metafunc.fixturenames):
        metafunc.parametrize(argument, names[argument])
