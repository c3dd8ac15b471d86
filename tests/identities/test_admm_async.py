"""Asynchronous ADMM: its barrier and its bounded delay, and what it shares with the synchronous."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import hemiola
from hemiola.aggregate import Balance, Stopping
from hemiola.algorithms import admm, admm_async
from hemiola.algorithms.asgd import asgd
from hemiola.communicate import Asynchronous
from hemiola.dataset import Batch
from hemiola.engines.serial import Serial
from hemiola.engines.simulator import LogNormal, Simulator
from hemiola.engines.threads import Threads
from hemiola.errors import OptionError
from hemiola.faults import Die
from hemiola.job import PULL, Trace
from hemiola.local import Newton
from hemiola.objectives import LinearObjective, logistic
from hemiola.optim import SGD
from hemiola.partition import BySpeed
from hemiola.replay import replay

EXACT = Stopping(absolute=0.0, relative=0.0)
UNEVEN = Simulator(LogNormal(1e-3, 0.9), slow_share=0.3, slow_factor=6.0)
SHARDS = BySpeed((1.0, 0.5, 0.25, 0.1))


def asynchronous(barrier, max_delay=None, **options):
    fixed = {"rho": 0.3, "tolerance": 1e-11, "stopping": EXACT, "solver": Newton()}
    return admm_async(barrier=barrier, max_delay=max_delay, **{**fixed, **options})


@pytest.mark.parametrize("engine", [Serial(), UNEVEN, Threads()], ids=lambda e: e.name)
@pytest.mark.parametrize(("barrier", "max_delay"), [(4, None), (99, None), (1, 1)])
def test_with_a_full_barrier_it_is_synchronous_admm_bit_for_bit(
    two_classes, run, engine, barrier, max_delay
):
    data, objective, K = two_classes(80, 4), LinearObjective("logistic", l2=0.03, l1=0.02), 4
    both = admm(0.3, 1.6, Newton(), 1e-11, Balance(rounds=0), EXACT, SHARDS)
    rounds = run(both, objective, data, workers=K, updates=9)
    chosen = asynchronous(barrier, max_delay, partition=SHARDS)
    ran = run(chosen, objective, data, workers=K, updates=9 * K, engine=engine)
    for t, model in enumerate(rounds.models):
        assert (ran.models[K * (t + 1) - 1] == model).all()
    seen, expected = ran.servers[-1]["measures"], rounds.servers[-1]["measures"]
    assert seen == pytest.approx(expected, rel=1e-12)


def releases(trace):
    """Who read together: the workers of each run of reads between two arrivals."""
    groups, fresh = [], True
    for kind, worker in zip(trace.kinds, trace.workers, strict=True):
        if kind == PULL and not fresh:
            groups[-1].append(worker)
        elif kind == PULL:
            groups.append([worker])
        fresh = kind != PULL
    return groups


@pytest.mark.parametrize("engine", [Serial(), UNEVEN, Threads()], ids=lambda e: e.name)
@pytest.mark.parametrize("barrier", [1, 2, 4])
@pytest.mark.parametrize("max_delay", [None, 2, 4])
def test_so_many_read_together_and_nobody_is_passed_over_too_often(
    two_classes, run, engine, barrier, max_delay
):
    trace, K = Trace(), 5
    run(asynchronous(barrier, max_delay, tolerance=1e-2), logistic(0.1), two_classes(), workers=K,
        updates=120, engine=engine, trace=trace)  # fmt: skip
    first, *groups = releases(trace)
    assert first == list(range(K))
    assert all(len(group) >= barrier for group in groups)
    delays = Counter()
    last = dict.fromkeys(range(K), 0)
    for number, group in enumerate(groups, 1):
        for worker in group:
            delays[number - last[worker]] += 1
            last[worker] = number
    if max_delay is not None:
        assert max(delays) <= max_delay
    if engine is UNEVEN:
        bound = max_delay or 5
        assert max(delays) >= bound, "the bound is reached where workers differ"
        assert any(len(group) == barrier for group in groups) or max_delay


def test_it_is_its_pseudo_code_on_uneven_workers(two_classes, run):
    """In the order of a trace: the latest messages of all, renewed at the first read after news."""
    data, objective, K, rho, a = two_classes(80, 4), logistic(0.05), 4, 0.3, 1.5
    trace = Trace()
    ran = run(asynchronous(2, 5, relax=a, partition=SHARDS), objective, data, workers=K,
              updates=40, engine=UNEVEN, trace=trace)  # fmt: skip
    source = ran.job.source
    n = np.array([source.samples(k) for k in range(K)], float)
    z = ran.w0.copy()
    x, u = [z.copy() for _ in range(K)], [np.zeros_like(z) for _ in range(K)]
    sent, pending, seen, news = {}, {}, [], False

    def solve(k, center):
        rows = source.shard(k)
        A, y, w = np.column_stack([data.X[rows], np.ones(len(rows))]), data.y[rows], x[k]
        for _ in range(50):
            p = 1 / (1 + np.exp(-A @ w))
            H = (A.T * (p * (1 - p))) @ A / len(y) + rho * np.eye(w.size)
            w = w - np.linalg.solve(H, A.T @ (p - y) / len(y) + rho * (w - center))
        return w

    for kind, k in zip(trace.kinds, trace.workers, strict=True):
        if kind != PULL:
            sent[k], news = pending[k], True
            continue
        if news:
            total = sum(n[j] for j in sent)
            z = sum(n[j] / total * sent[j] for j in sorted(sent))
            z[:-1] *= rho / (rho + objective.l2)
            seen.append(z)
            news = False
        u[k] = pending[k] - z if k in pending else u[k]
        x[k] = solve(k, z - u[k])
        pending[k] = a * x[k] + (1 - a) * z + u[k]
    read = [ran.w0, *(server["w"] for server in ran.servers)]
    models = [new for old, new in pairwise(read) if (new != old).any()]
    assert len(models) > 10
    for ours, theirs in zip(models, seen, strict=False):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("engine", ["serial", UNEVEN, "threads"], ids=str)
@pytest.mark.parametrize(("barrier", "max_delay"), [(1, None), (2, 5)])
def test_the_limit_is_the_pooled_optimum(two_classes, engine, barrier, max_delay):
    data, objective = two_classes(80, 4), LinearObjective("logistic", l2=0.05, l1=0.02)
    chosen = asynchronous(barrier, max_delay, partition=SHARDS, tolerance=None)
    found = hemiola.fit(chosen, objective, data, rounds=250, engine=engine, eval_every=100)
    slope = objective.grad(found.weights, Batch(data))
    features = found.weights[:-1]
    distance = np.where(
        features == 0,
        np.maximum(np.abs(slope[:-1]) - objective.l1, 0),
        np.abs(slope[:-1] + objective.l1 * np.sign(features)),
    )
    assert max(distance.max(), abs(slope[-1])) < 1e-7


def test_it_stops_by_itself_near_the_optimum(two_classes):
    data, objective = two_classes(80, 4), logistic(0.05)
    chosen = replace(admm_async(rho=0.3, stopping=Stopping(1e-7, 1e-6)))
    result = hemiola.fit(chosen, objective, data, rounds=1000, engine=UNEVEN, eval_every=1)
    assert "residuals are small enough" in result.stopped
    assert np.abs(objective.grad(result.weights, Batch(data))).max() < 1e-5


def test_a_recorded_run_is_repeated_to_the_bit(two_classes, tmp_path):
    from hemiola.trace import load_trace

    data, path = two_classes(80, 4), tmp_path / "run.trace"
    chosen = asynchronous(2, 4)
    for engine in (UNEVEN, "threads"):
        result = hemiola.fit(chosen, logistic(0.05), data, rounds=12, engine=engine, trace=path)
        assert replay(load_trace(path), data).model.sha256 == result.model.sha256


@pytest.mark.parametrize("engine", ["serial", UNEVEN], ids=str)
def test_a_run_with_a_barrier_resumes_bit_for_bit(two_classes, tmp_path, engine):
    data, chosen = two_classes(80, 4), asynchronous(3, 3)
    options = {"workers": 5, "engine": engine, "eval_every": 1}
    whole = hemiola.fit(chosen, "logistic", data, rounds=12, **options)
    place = tmp_path / str(engine)[:6]
    hemiola.fit(chosen, "logistic", data, rounds=5, checkpoint=place, **options)
    again = hemiola.fit(
        chosen, "logistic", data, rounds=12, checkpoint=place, resume=True, **options
    )
    assert again.model.sha256 == whole.model.sha256
    assert again.history.staleness == whole.history.staleness


def test_the_dead_hold_nobody_up_and_those_that_come_back_read_at_once(two_classes):
    data = two_classes(80, 4)
    faults = [Die(worker=1, at=3), Die(worker=2, at=4, back_after=0.02)]
    result = hemiola.fit(
        asynchronous(4, 3), logistic(0.05), data, engine=UNEVEN, rounds=60, faults=faults
    )
    history = result.history
    assert history.left == 2 and history.joined == 1
    assert min(history.worker_updates) < 5 and history.last.updates == 240


def test_a_barrier_serves_any_asynchronous_rule(two_classes, run):
    """ASGD behind a full barrier: K gradients at one model, added one after another."""
    data, K = two_classes(), 3
    chosen = replace(asgd(SGD(0.1)), communicate=Asynchronous(barrier=K))
    ran = run(chosen, logistic(0.1), data, workers=K, updates=4 * K, engine=UNEVEN)
    assert ran.staleness == [0, 1, 2] * 4


def test_what_does_not_go_together_is_refused():
    for wrong in ({"max_lead": 1}, {"fetch_every": 2}):
        with pytest.raises(OptionError, match="leave one of them out"):
            Asynchronous(barrier=2, **wrong)
        with pytest.raises(OptionError, match="leave one of them out"):
            Asynchronous(max_delay=2, **wrong)
    for wrong in ({"barrier": 0}, {"max_delay": 0}):
        with pytest.raises(OptionError, match="greater than or equal to 1"):
            admm_async(**wrong)
