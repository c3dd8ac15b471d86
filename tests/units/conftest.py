"""Jobs of four workers to which something happens."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import ssgd
from hemiola.engines.simulator import Constant, Simulator
from hemiola.job import Job
from hemiola.objectives import logistic
from hemiola.optim import SGD
from hemiola.partition import Shards

K = 4
SECOND = Simulator(Constant(1.0))
ROUNDS = ssgd(SGD(0.1), MiniBatch(4))


@pytest.fixture
def job_of(two_classes):
    """(algorithm, faults, **policies) -> a job of four workers."""

    def make(algorithm, faults=(), trace=None, **policies):
        if policies:
            communicate = replace(algorithm.communicate, **policies)
            algorithm = replace(algorithm, communicate=communicate)
        source = Shards(two_classes(60), algorithm.partition, K, 0)
        w0 = np.random.default_rng(5).normal(size=4)
        return Job(algorithm, logistic(0.01), source, K, 0, w0, trace, faults=tuple(faults))

    return make


@pytest.fixture
def rounds(job_of):
    """(faults, count, **policies) -> when each round ended, who was in it, and the ledger."""

    def go(faults, count, engine=SECOND, **policies):
        job = job_of(ROUNDS, faults, **policies)
        with closing(engine.run(job)) as events:
            found = [(e.clock, tuple(e.workers), e.ledger) for e in islice(events, count)]
        clocks, members, ledgers = zip(*found, strict=True)
        return list(clocks), list(members), ledgers[-1]

    return go
