"""The algorithms' building blocks once more, in plain NumPy and without the library.

A run on uneven workers leaves a trace: who read and whose gradient arrived, in order. The
transcription of a paper follows the same order with its own server, snapshots and gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest

from hemiola.algorithm import Algorithm, Info
from hemiola.dataset import make_dataset
from hemiola.engines.simulator import LogNormal, Simulator
from hemiola.job import PULL, Job, Trace
from hemiola.objectives import logistic
from hemiola.partition import Shards

UNEVEN = Simulator(LogNormal(1e-3, 0.9), slow_share=0.25, slow_factor=3.0)


def _logistic_gradient(w, data, rows, l2=0.0):
    X, y = data.X[rows], data.y[rows]
    residual = 1.0 / (1.0 + np.exp(-(X @ w[:-1] + w[-1]))) - y
    return np.append(X.T @ residual / len(y) + l2 * w[:-1], residual.mean())


def _local_sgd(w, data, batches, lr, l2=0.0):
    w = w.copy()
    for rows in batches:
        w = w - lr * _logistic_gradient(w, data, rows, l2)
    return w


def _traced(
    algorithm: Algorithm, data: Any, updates: int, workers: int = 4, engine: Any = UNEVEN
) -> tuple[Job, Any]:
    source = Shards(data, algorithm.partition, workers, seed=3)
    objective = logistic(0.1)
    w0 = np.full(data.n_features + 1, 0.1)
    job = Job(algorithm, objective, source, workers, 3, w0, Trace())
    with closing(engine.run(job)) as events:
        (last,) = islice(events, updates - 1, updates)
        return job, algorithm.aggregate.model(last.server)


def _transcribed(
    job: Job, read: Callable[[int], Any], update: Callable[[int, Any, int], None]
) -> None:
    snapshots, versions, steps, version = {}, {}, [0] * job.workers, 0
    for kind, k in zip(job.trace.kinds, job.trace.workers, strict=True):
        if kind == PULL:
            snapshots[k], versions[k] = np.array(read(k)), version
            continue
        batch = job.source.batch(k, steps[k], job.algorithm.local.batch)
        steps[k] += 1
        update(k, job.objective.grad(snapshots[k], batch), version - versions[k])
        version += 1


def _info(staleness: int, step: int = 0, worker: int = 0, workers: int = 1) -> Info:
    return Info(step, (worker,), 1.0, staleness, workers)


@pytest.fixture(scope="session")
def traced():
    """(algorithm, data, updates, workers=, engine=) -> a run's job with its trace, the model."""
    return _traced


@pytest.fixture(scope="session")
def transcribed():
    """(job, read, update): follow the trace. ``read(k)`` gives a model, ``update(k, g, delay)``
    takes a gradient."""
    return _transcribed


@pytest.fixture(scope="session")
def info():
    """(staleness, step=, worker=, workers=) -> what the server is told about one gradient."""
    return _info


@pytest.fixture(scope="session")
def gradient():
    """(w, data, rows, l2) -> the gradient of the mean logistic loss over these rows."""
    return _logistic_gradient


@pytest.fixture(scope="session")
def local_sgd():
    """(w, data, batches, lr, l2) -> the model after one SGD step a batch."""
    return _local_sgd


@pytest.fixture(scope="session")
def same():
    """Equal but for rounding."""
    return partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="session")
def apart():
    """The largest difference of two arrays."""
    return lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max())


def _ends(workers):
    """Real ends of gloo groups, one a thread, that find each other in this process."""
    from datetime import timedelta

    import torch.distributed as dist

    from hemiola.objectives._exchange import Exchange

    store = dist.HashStore()

    def end(rank):
        if workers == 1:
            return Exchange()
        options = dist.ProcessGroupGloo._Options()
        options._timeout = timedelta(seconds=120)
        options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        return Exchange(dist.ProcessGroupGloo(store, rank, workers, options))

    return end


@pytest.fixture(scope="session")
def parallel():
    """(workers, work) -> what ``work(exchange)`` returns on each of so many threads."""
    torch = pytest.importorskip("torch")

    def run(workers, work):
        torch.set_num_threads(1)
        end = _ends(workers)
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(lambda k=k: work(end(k))) for k in range(workers)]
            return [future.result() for future in futures]

    return run


def _three_classes(n=90, p=3):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, p))
    return make_dataset(X, (X @ rng.normal(size=(p, 3)) + rng.normal(size=(n, 3))).argmax(axis=1))


@pytest.fixture
def problems(two_classes, line):
    """Data by loss."""
    return {
        "logistic": two_classes(80, 4),
        "squared": line(80, 4),
        "softmax": _three_classes(),
        "hinge": two_classes(80, 4),
    }
