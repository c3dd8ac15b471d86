"""Stale synchronous parallel: who may read when, what a reader sees, and what no lead means.

``clock[k]`` counts worker k's *completed* clocks. The update of its current clock has the stamp
``clock[k]``; after CLOCK the stamps 0, ..., clock[k] - 1 are out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from hemiola.aggregate import Sharded
from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, ssgd, ssp
from hemiola.engines._drive import drive
from hemiola.engines._executor import Change
from hemiola.engines.serial import Serial, _Executor
from hemiola.engines.simulator import LogNormal, Simulator, Stragglers
from hemiola.engines.threads import Threads
from hemiola.job import LEAVE, PULL, PUSH, Trace
from hemiola.local import Gradient
from hemiola.objectives import logistic
from hemiola.optim import SGD

LR, BATCH, K = 0.3, MiniBatch(4), 4
UNEVEN = Simulator(LogNormal(1e-3, 0.9), slow_share=0.25, slow_factor=3.0)
CLOCKS = 40


def bsp(job: Any, clocks: int, lr: float) -> Any:
    """Synchronous SGD on the per-clock batches, updates of a clock added in rank order."""
    w = job.w0
    for t in range(clocks):
        steps = [lr * job.objective.grad(w, job.source.batch(k, t, BATCH)) for k in range(K)]
        for step in steps:
            w = w - step
    return w


def test_ssp_with_strict_views_and_no_lead_is_bulk_synchronous_exactly(two_classes, traced):
    job, model = traced(ssp(0, "strict", SGD(LR), BATCH), two_classes(), 20 * K)
    assert (model == bsp(job, 20, LR)).all()


class Sleepy(Gradient):
    """Computes as the others do, after a nap."""

    def work(self, state, down, task):
        time.sleep(np.random.default_rng([task.worker, task.step]).exponential(1e-3))
        return super().work(state, down, task)


TIMINGS = [
    Serial(),
    Simulator(LogNormal(1e-3, 2.0)),
    Simulator(Stragglers(1e-3, 0.2, 20.0), latency=1e-4),
    Threads(),
]


@pytest.mark.parametrize("engine", TIMINGS, ids=str)
def test_sleeping_changes_the_timing_but_never_a_strict_run_without_a_lead(
    two_classes, traced, engine
):
    algorithm = replace(ssp(0, "strict", SGD(LR), BATCH), local=Sleepy(BATCH))
    job, model = traced(algorithm, two_classes(), 15 * K, engine=engine)
    assert (model == bsp(job, 15, LR)).all()


def test_ssp_with_strict_views_and_no_lead_is_ssgd_with_k_times_the_step(two_classes, traced, same):
    data = two_classes()
    _, model = traced(ssp(0, "strict", SGD(LR), BATCH), data, 20 * K)
    _, sync = traced(ssgd(SGD(K * LR), BATCH), data, 20)
    same(model, sync)


def test_ssp_with_plain_views_and_no_lead_adds_the_same_updates_in_another_order(
    two_classes, traced, same
):
    """This server lets all readers of a clock go at once, so none sees a faster one's update."""
    job, model = traced(ssp(0, "plain", SGD(LR), BATCH), two_classes(), 20 * K)
    same(model, bsp(job, 20, LR))


def test_with_a_lead_plain_views_show_updates_that_strict_ones_hide(two_classes, traced, apart):
    data = two_classes()
    _, plain = traced(ssp(2, "plain", SGD(LR), BATCH), data, 79)
    _, strict = traced(ssp(2, "strict", SGD(LR), BATCH), data, 79)
    assert apart(plain, strict) > 1e-6


@pytest.mark.parametrize("s", [0, 1, 3])
@pytest.mark.parametrize("view", ["plain", "strict"])
def test_ssp_is_its_pseudo_code(two_classes, traced, transcribed, same, view, s):
    algorithm = ssp(s, view, SGD(LR), BATCH)
    job, model = traced(algorithm, two_classes(), 80)
    clock, done = [0] * K, []  # done: (clock, worker, update)

    def visible(k):
        low = min(clock)
        if view == "plain":
            return [u for _, _, u in done]
        own = [(c, j, u) for c, j, u in done if c < low or j == k]
        return [u for _, _, u in own]

    def read(k):
        assert clock[k] - min(clock) <= s  # the gap at every READ
        seen = visible(k)
        return job.w0 - np.sum(seen, axis=0) if seen else job.w0

    def update(k, g, delay):
        done.append((clock[k], k, LR * g))
        clock[k] += 1
        assert max(clock) - min(clock) <= s + 1  # just after a CLOCK

    transcribed(job, read, update)
    low = min(clock)
    counted = [u for c, _, u in done if view == "plain" or c < low]
    same(model, job.w0 - np.sum(counted, axis=0))


@pytest.mark.parametrize("s", [0, 2])
@pytest.mark.parametrize("view", ["plain", "strict"])
def test_ssp_of_one_worker_is_sgd_exactly(two_classes, traced, view, s):
    data = two_classes()
    _, model = traced(ssp(s, view, SGD(LR), BATCH), data, 40, workers=1)
    _, plain = traced(ssgd(SGD(LR), BATCH), data, 40, workers=1)
    assert (model == plain).all()


def test_without_a_bound_ssp_is_asgd_exactly(two_classes, traced):
    data = two_classes()
    _, bounded = traced(ssp(10**6, "plain", SGD(LR), BATCH), data, 60)
    _, free = traced(asgd(SGD(LR), batch=BATCH), data, 60)
    assert (bounded == free).all()


@dataclass
class Stamps:
    """Worker k's update of clock c is a 1 at [k, c]: a view shows which updates it holds."""

    views: list[tuple[int, int, Any]] = field(default_factory=list)
    spoilt: tuple[int, int] | None = None

    def init(self, w0):
        return {"t": 0}

    def work(self, state, down, task):
        k, c = task.worker, task.step
        self.views.append((k, c, -down["w"].reshape(K, CLOCKS)))
        g = np.zeros((K, CLOCKS))
        g[k, c] = np.nan if (k, c) == self.spoilt else 1.0
        state["t"] += 1
        return state, {"g": g.ravel(), "weight": np.array(1.0)}


def stamped(run, data, s, view, engine, shards=1, spoilt=None):
    """What all readers saw, and who read and pushed in which order."""
    algorithm = ssp(s, view, SGD(1.0))
    server = Sharded(algorithm.aggregate, shards)
    algorithm = replace(algorithm, local=Stamps(spoilt=spoilt), aggregate=server)
    trace = Trace()
    run(algorithm, logistic(), data, workers=K, updates=80, engine=engine, trace=trace,
        w0=np.zeros(K * CLOCKS))  # fmt: skip
    return algorithm.local.views, list(zip(trace.kinds, trace.workers, strict=True))


@pytest.mark.parametrize("engine", [Serial(), UNEVEN, Threads()], ids=lambda e: e.name)
@pytest.mark.parametrize("s", [0, 1, 3])
@pytest.mark.parametrize("view", ["plain", "strict"])
def test_a_reader_sees_what_is_older_than_s_clocks_and_its_own_updates(
    two_classes, run, view, s, engine
):
    """At clock c: all stamps <= c - s - 1, perhaps some in [c - s, c + s - 1], all its own."""
    views, _ = stamped(run, two_classes(), s, view, engine)
    newest = []
    for k, c, seen in views:
        assert set(np.unique(seen)) <= {0.0, 1.0}
        assert (seen[:, : max(c - s, 0)] == 1).all()
        assert (seen[:, c + s :] == 0).all()
        assert seen[k].sum() == seen[k, :c].sum() == c
        others = np.delete(seen, k, axis=0)
        newest += [stamp - c for stamp in np.nonzero(others)[1]]
        if view == "strict":
            complete = int(others[0].sum())
            assert (others[:, :complete] == 1).all() and (others[:, complete:] == 0).all()
            assert complete <= c
    if engine is UNEVEN:
        assert max(newest) == (s - 1 if view == "plain" else -1), "the newest that may be seen"


@pytest.mark.parametrize("engine", [Serial(), UNEVEN, Threads()], ids=lambda e: e.name)
@pytest.mark.parametrize("s", [0, 1, 3])
def test_a_worker_waits_while_it_leads_by_more_than_s_and_no_longer(two_classes, run, s, engine):
    """So the gap is at most s at every READ and s + 1 after a CLOCK; the slowest never waits."""
    _, order = stamped(run, two_classes(), s, "plain", engine)
    clock, waiting, gaps = [0] * K, set(range(K)), []
    for kind, k in order:
        lead = {j: clock[j] - min(clock) for j in range(K)}
        if kind == PULL:
            assert lead[k] <= s
            waiting.discard(k)
            continue
        assert all(lead[j] > s for j in waiting)
        clock[k] += 1
        waiting.add(k)
        gaps.append(max(clock) - min(clock))
    assert max(gaps) <= s + 1
    if engine is UNEVEN:
        assert max(gaps) == s + 1, "the bound is reached where workers differ"


@dataclass(frozen=True)
class Deserted:
    """In turns; worker ``gone`` goes away after two pieces of work."""

    gone: int
    name = "deserted"

    def run(self, job, resume=None):
        executor = _Deserted(job)
        executor.gone, executor.done = self.gone, 0
        return drive(job, executor, resume)


class _Deserted(_Executor):
    def next(self):
        arrival = super().next()
        self.done += arrival.worker == self.gone
        over = arrival.worker == self.gone and self.done > 2
        return Change(self.gone, joined=False) if over else arrival


@pytest.mark.parametrize("gone", [0, K - 1])
@pytest.mark.parametrize("s", [0, 1, 3])
@pytest.mark.parametrize("view", ["plain", "strict"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_worker_that_is_gone_holds_nobody_up_and_hides_nothing(
    two_classes, run, view, s, gone, shards
):
    """Its clock counts as infinite: the others go on by their own."""
    views, order = stamped(run, two_classes(), s, view, Deserted(gone), shards)
    assert order.count((LEAVE, gone)) == 1 and order.count((PUSH, gone)) == 2
    assert all(order.count((PUSH, k)) >= 26 for k in range(K) if k != gone)
    for _, c, seen in views:
        old = np.ones((K, max(c - s, 0)))
        old[gone, 2:] = 0
        assert (seen[:, : max(c - s, 0)] == old).all()


@pytest.mark.parametrize("late", [0, K - 1])
@pytest.mark.parametrize("view", ["plain", "strict"])
def test_a_refused_message_completes_its_clock_and_hides_nothing(two_classes, run, view, late):
    views, _ = stamped(run, two_classes(), 0, view, Serial(), spoilt=(late, 2))
    for _, c, seen in views:
        old = np.ones((K, c))
        old[late, 2:3] = 0
        assert (seen[:, :c] == old).all()
