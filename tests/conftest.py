"""Small problems and short runs that many tests share."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import forkserver
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from hemiola.dataset import make_dataset
from hemiola.engines.serial import Serial
from hemiola.job import Job
from hemiola.partition import Shards
from hemiola.penalty import Penalised, with_penalty
from hemiola.types import copy_state


@dataclass
class Run:
    """What a short run left behind: entry i of each list belongs to update i."""

    job: Job
    models: list[Any] = field(default_factory=list)
    servers: list[Any] = field(default_factory=list)
    workers: list[Any] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    clocks: list[float] = field(default_factory=list)
    ledger: Any = None
    snapshot: Any = None

    @property
    def w0(self):
        return self.job.w0

    @property
    def last(self):
        return self.models[-1]


def _two_classes(n=60, p=3, *, seed=1, csr=False, dtype=np.float64, weight=None):
    """Overlapping classes: no separating plane, so that every gradient stays alive."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.8)
    y = (X @ rng.normal(size=p) + rng.normal(size=n) > 0).astype(int)
    y[:2] = 0, 1
    X = X.astype(dtype)
    return make_dataset(sparse.csr_array(X) if csr else X, y, weight=weight, name="two classes")


def _line(n=60, p=3, *, seed=1, csr=False, dtype=np.float64):
    """Noisy linear targets."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)).astype(dtype)
    y = X @ rng.normal(size=p) + 0.5 + 0.3 * rng.normal(size=n)
    return make_dataset(sparse.csr_array(X) if csr else X, y, regression=True, name="line")


def _run(
    algorithm,
    objective,
    data,
    *,
    workers,
    updates,
    seed=0,
    engine=None,
    source=None,
    w0=None,
    trace=None,
):
    """``updates`` updates of the server from a start that is not an optimum."""
    if isinstance(objective, Penalised):
        algorithm = with_penalty(algorithm, objective, data)
    source = source or Shards(data, algorithm.partition, workers, seed)
    if w0 is None:
        zeros = objective.init(data, np.random.default_rng(0))
        w0 = np.random.default_rng(5).normal(size=zeros.size).astype(zeros.dtype)
    run = Run(Job(algorithm, objective, source, workers, seed, w0, trace))
    with closing((engine or Serial()).run(run.job)) as events:
        for event in islice(events, updates):
            run.models.append(algorithm.aggregate.model(event.server).copy())
            run.servers.append(copy_state(event.server))
            run.workers.append(tuple(event.workers))
            run.staleness.append(event.staleness)
            run.clocks.append(event.clock)
        run.ledger, run.snapshot = event.ledger, event.snapshot()
    return run


@pytest.fixture(scope="session")
def two_classes():
    """(n, p, seed=, csr=, dtype=, weight=) -> a data set of two classes."""
    return _two_classes


@pytest.fixture(scope="session")
def line():
    """(n, p, seed=, csr=, dtype=) -> a data set of real targets."""
    return _line


@pytest.fixture(scope="session")
def run():
    """(algorithm, objective, data, workers=, updates=, ...) -> what the run left behind."""
    return _run


@pytest.fixture(scope="module")
def fresh_fork_server():
    """Let the first run of a module start the process that others are forked from, so that it has
    imported what this module needs, as PyTorch, and not what another one did."""
    forkserver._forkserver._stop()
