"""What the tests of Spark train on. Tasks import this file, too."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
from scipy import sparse

from hemiola.algorithms.registry import RECIPES, build
from hemiola.communicate import Synchronous
from hemiola.component import component
from hemiola.dataset import make_dataset
from hemiola.errors import DataError
from hemiola.objectives import LinearObjective
from hemiola.training import fit

SMALL = {
    "model-averaging": {"steps": 3, "optimizer": "adam", "carry": "keep"},
    "one-shot-averaging": {"steps": 12},
    "fedavg": {"participation": 0.5, "epochs": 2},
    "fedprox": {"participation": 0.5},
    "bmuf": {"steps": 3},
    "diloco": {"steps": 3},
    "streaming-diloco": {"steps": 9, "fragments": 3, "delay": 1},
    "easgd": {"period": 3},
    "eamsgd": {"period": 3},
}
SYNCHRONOUS = [n for n in RECIPES if isinstance(build(n).communicate, Synchronous)]
OTHERS = [n for n in RECIPES if n not in SYNCHRONOUS]


def algorithm(name, **options):
    return build(name, {**SMALL.get(name, {}), **options})


def data(*, csr=False, dtype=np.float64, classes=2, n=203):
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(n, 5)) * (rng.random((n, 5)) < 0.7)).astype(dtype)
    scores = X @ rng.normal(size=(5, classes)) + rng.normal(size=(n, classes))
    return make_dataset(sparse.csr_array(X) if csr else X, scores.argmax(axis=1))


def trained(name, engine, *, objective="logistic", on=None, **options):
    chosen = algorithm(name) if isinstance(name, str) else name
    options = {"workers": 4, "rounds": 3} | options
    return fit(chosen, objective, data() if on is None else on, engine=engine, **options)


def bits(*args, **options):
    return trained(*args, **options).model.sha256


@component
class Mortal(LinearObjective):
    """The process that computes a certain gradient is killed, so many times in all."""

    graves: str = ""
    deaths: int = 1
    driver: int = 0

    def grad(self, w, batch):
        if os.getpid() != self.driver and batch.address[1:] == (2, 4):
            for i in range(self.deaths):
                with suppress(FileExistsError):
                    (Path(self.graves) / str(i)).touch(exist_ok=False)
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().grad(w, batch)


def mortal(place, deaths):
    """Logistic loss that has so many of its processes killed."""
    return Mortal(l2=0.01, graves=str(place), deaths=deaths, driver=os.getpid())


@component
class Failing(LinearObjective):
    """Says no to its fourth batch."""

    graves: str = ""

    def grad(self, w, batch):
        if batch.address is not None and batch.address[2] == 3:
            (Path(self.graves) / uuid4().hex).touch()
            raise DataError("these samples are no good.")
        return super().grad(w, batch)
