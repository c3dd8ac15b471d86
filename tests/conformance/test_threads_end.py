"""However a run ends, its threads end with it."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pytest

from hemiola.callbacks import Callback
from hemiola.engines import engine_class
from hemiola.engines.threads import Threads
from hemiola.objectives import logistic
from hemiola.training import fit


class Broken(RuntimeError):
    pass


@dataclass
class FailsAt:
    """A local that fails in one worker's n-th task."""

    inner: Any
    worker: int
    step: int

    def init(self, w0):
        return self.inner.init(w0)

    def work(self, state, down, task):
        if (task.worker, task.step) == (self.worker, self.step):
            raise Broken(f"worker {task.worker}, task {task.step}")
        return self.inner.work(state, down, task)


class FailingCallback(Callback):
    def on_update(self, event):
        raise Broken("the caller failed")


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def worker_threads():
    return [t for t in threading.enumerate() if t.name.startswith("hemiola-worker-")]


def test_closing_ends_all_threads(any_recipe, algorithm, two_classes, run):
    chosen = algorithm(any_recipe, lr=0.1)
    job = run(chosen, logistic(0.01), two_classes(), workers=5, updates=1).job
    events = Threads().run(job)
    for _ in islice(events, 3):
        assert len(worker_threads()) == 5
    events.close()
    assert not worker_threads()


def test_dropping_the_iterator_ends_all_threads(any_recipe, algorithm, two_classes, run):
    chosen = algorithm(any_recipe, lr=0.1)
    job = run(chosen, logistic(0.01), two_classes(), workers=3, updates=1).job
    events = Threads().run(job)
    next(events)
    del events
    assert not worker_threads()


@pytest.mark.parametrize("engine", ["serial", "threads", "simulator"])
@pytest.mark.parametrize(("worker", "step"), [(0, 0), (2, 0), (1, 3)])
def test_an_exception_in_a_worker_reaches_the_caller(
    any_recipe, algorithm, two_classes, run, engine, worker, step
):
    chosen = algorithm(any_recipe, lr=0.1)
    if any_recipe == "fedavg":
        chosen = algorithm(any_recipe, lr=0.1, participation=1.0)
    broken = replace(chosen, local=FailsAt(chosen.local, worker, step))
    with pytest.raises(Broken, match=f"worker {worker}, task {step}"):
        run(
            broken,
            logistic(0.01),
            two_classes(),
            workers=4,
            updates=400,
            engine=engine_class(engine)(),
        )
    assert not worker_threads()


def test_an_exception_in_the_caller_ends_all_threads(any_recipe, algorithm, two_classes):
    with pytest.raises(Broken, match="the caller failed"):
        fit(
            algorithm(any_recipe),
            "logistic",
            two_classes(),
            engine="threads",
            callbacks=[FailingCallback()],
        )
    assert not worker_threads()


def test_a_finished_run_leaves_no_thread(any_recipe, algorithm, two_classes):
    fit(algorithm(any_recipe), "logistic", two_classes(), engine="threads", rounds=3, workers=6)
    assert not worker_threads()


def test_the_switch_interval_is_given_back(algorithm, two_classes):
    before = sys.getswitchinterval()
    fit(algorithm("asgd"), "logistic", two_classes(), engine="threads", rounds=3)
    assert sys.getswitchinterval() == before
