"""DC-ASGD, AdaptiveRevision, AdaDelay, SSP and Downpour against transcriptions of their papers.

A run on uneven workers leaves a trace: who read and whose gradient arrived, in order. A
transcription follows the same order with its own server, snapshots and gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
import pytest

from hemiola.algorithm import Algorithm, Info, MiniBatch
from hemiola.algorithms import adadelay, adaptive_revision, asgd, dc_asgd, downpour, ssgd, ssp
from hemiola.algorithms.adadelay import DelayAdaptive
from hemiola.algorithms.adaptive_revision import Revise
from hemiola.algorithms.dc_asgd import DelayCompensated
from hemiola.engines.simulator import LogNormal, Simulator
from hemiola.errors import OptionError
from hemiola.job import PULL, Job, Trace
from hemiola.objectives import logistic
from hemiola.optim import SGD, Adagrad
from hemiola.partition import Shards

LR, BATCH, K = 0.3, MiniBatch(4), 4
UNEVEN = Simulator(LogNormal(1e-3, 0.9), slow_share=0.25, slow_factor=3.0)


def traced(algorithm: Algorithm, data: Any, updates: int, workers: int = K) -> tuple[Job, Any]:
    """A run on uneven workers: its job with the trace, and the final model."""
    source = Shards(data, algorithm.partition, workers, seed=3)
    objective = logistic(0.1)
    w0 = np.full(data.n_features + 1, 0.1)
    job = Job(algorithm, objective, source, workers, 3, w0, Trace())
    with closing(UNEVEN.run(job)) as events:
        (last,) = islice(events, updates - 1, updates)
        return job, algorithm.aggregate.model(last.server)


def transcribed(
    job: Job, read: Callable[[int], Any], update: Callable[[int, Any, int], None]
) -> Any:
    """Follow the trace: ``read(k)`` gives a model, ``update(k, g, delay)`` takes a gradient."""
    snapshots, versions, steps, version = {}, {}, [0] * job.workers, 0
    for kind, k in zip(job.trace.kinds, job.trace.workers, strict=True):
        if kind == PULL:
            snapshots[k], versions[k] = np.array(read(k)), version
            continue
        batch = job.source.batch(k, steps[k], BATCH)
        steps[k] += 1
        update(k, job.objective.grad(snapshots[k], batch), version - versions[k])
        version += 1


@pytest.mark.parametrize("mean_square", ["server", "worker"])
@pytest.mark.parametrize("variant", ["c", "a"])
def test_dc_asgd_is_its_pseudo_code(two_classes, same, apart, variant, mean_square):
    lam, m0 = 0.7, 0.9
    algorithm = dc_asgd(variant, lam, m0, mean_square, SGD(LR), BATCH)
    job, model = traced(algorithm, two_classes(), 80)

    def run(compensate: float) -> Any:
        box = {"w": job.w0.copy(), "backup": {}, "ms": np.zeros((K, job.w0.size))}

        def read(k):
            box["backup"][k] = box["w"].copy()
            return box["w"]

        def update(k, g, delay):
            owner = k if mean_square == "worker" else 0
            rate = np.full(g.size, lam)
            if variant == "a":
                box["ms"][owner] = m0 * box["ms"][owner] + (1 - m0) * g**2
                rate = lam / np.sqrt(box["ms"][owner] + 1e-7)
            extra = compensate * rate * g * g * (box["w"] - box["backup"][k])
            box["w"] = box["w"] - LR * (g + extra)

        transcribed(job, read, update)
        return box["w"]

    same(model, run(1.0))
    assert apart(model, run(-1.0)) > 1e-5  # a flipped sign would be seen


def test_dc_asgd_without_lambda_is_asgd_exactly(two_classes):
    data = two_classes()
    for variant in ("a", "c"):
        _, compensated = traced(dc_asgd(variant, 0.0, optimizer=SGD(LR), batch=BATCH), data, 60)
        _, plain = traced(asgd(SGD(LR), batch=BATCH), data, 60)
        assert (compensated == plain).all()


def test_dc_asgd_of_one_worker_is_sgd_exactly(two_classes):
    data = two_classes()
    _, compensated = traced(dc_asgd("a", 2.0, optimizer=SGD(LR), batch=BATCH), data, 60, workers=1)
    _, plain = traced(ssgd(SGD(LR), BATCH), data, 60, workers=1)
    assert (compensated == plain).all()


def test_the_true_diagonal_hessian_makes_a_stale_gradient_fresh_on_a_quadratic():
    h, rng = np.array([0.5, 2.0, 3.0]), np.random.default_rng(0)
    w, backup = rng.normal(size=3), rng.normal(size=3)
    g = h * backup
    rule = DelayCompensated(SGD(0.1), "c", 1.0)
    state = {**rule.init(w, 1), "backup": [backup]}
    compensated = rule.push(state, {"g": np.sqrt(h)}, info(0))["w"]  # lambda g^2 = h
    step = (w - compensated) / 0.1
    np.testing.assert_allclose(step - np.sqrt(h) + g, h * w, rtol=1e-12)


def test_dc_asgd_a_scales_its_correction_like_the_gradient():
    rng = np.random.default_rng(1)
    w, backup, g = rng.normal(size=(3, 5))
    rule = DelayCompensated(SGD(1.0), "a", 2.0, m0=0.0)

    def correction(scale: float) -> Any:
        state = {**rule.init(w, 1), "backup": [backup]}
        return w - rule.push(state, {"g": scale * g}, info(0))["w"] - scale * g

    np.testing.assert_allclose(correction(1e3), 1e3 * correction(1.0), rtol=1e-4)
    assert (DelayCompensated(SGD(1.0)).init(w, 1)["w"] == w).all()


def test_dc_asgd_corrects_nothing_where_the_gradient_is_zero():
    rule = DelayCompensated(SGD(1.0), "a")
    state = {**rule.init(np.ones(2), 1), "backup": [np.zeros(2)]}
    w = rule.push(state, {"g": np.array([0.0, 1.0])}, info(3))["w"]
    assert w[0] == 1.0 and w[1] != 0.0


def info(staleness: int, step: int = 0, worker: int = 0, workers: int = 1) -> Info:
    return Info(step, (worker,), 1.0, staleness, workers)


def test_adaptive_revision_is_its_pseudo_code(two_classes, same, apart):
    eta0 = 0.4
    job, model = traced(adaptive_revision(eta0, BATCH), two_classes(), 80)

    def run(sign: float) -> Any:
        d = job.w0.size
        box = {"x": job.w0.copy(), "gbar": np.zeros(d), "z": np.ones(d), "zp": np.ones(d)}
        seen: dict[int, Any] = {}

        def read(k):
            seen[k] = box["gbar"].copy()
            return box["x"]

        def update(k, g, delay):
            back = box["gbar"] - seen[k]
            old = eta0 / np.sqrt(box["zp"])
            box["z"] = box["z"] + g * g + 2 * g * back
            box["zp"] = np.maximum(box["zp"], box["z"])
            eta = eta0 / np.sqrt(box["zp"])
            box["x"] = box["x"] - eta * g
            box["x"] = box["x"] + sign * (old - eta) * back
            box["gbar"] = box["gbar"] + g

        transcribed(job, read, update)
        return box["x"]

    same(model, run(1.0))
    assert apart(model, run(-1.0)) > 1e-6


def feed(rule: Any, state: Any, gradients: Any, workers: Any) -> Any:
    for step, (g, k) in enumerate(zip(gradients, workers, strict=True)):
        state = rule.push(state, {"g": g}, info(0, step, k, len(set(workers))))
    return state


def test_adaptive_revision_without_delay_is_adagrad_from_one(two_classes, same):
    data = two_classes()
    _, revised = traced(adaptive_revision(0.4, BATCH), data, 60, workers=1)
    _, plain = traced(asgd(Adagrad(0.4, initial=1.0, eps=0.0), batch=BATCH), data, 60, workers=1)
    same(revised, plain)


def test_gradients_of_one_snapshot_and_sign_collapse_to_one_adagrad_step_on_their_sum(same):
    rng, k = np.random.default_rng(2), 5
    gradients = np.abs(rng.normal(size=(k, 4))) * np.array([1, -1, 1, -1])
    rule = Revise(0.3)
    state = rule.init(np.zeros(4), k)
    for worker in range(k):
        rule.pull(state, worker)
    state = feed(rule, state, gradients, range(k))
    total = gradients.sum(axis=0)
    same(state["w"], -0.3 * total / np.sqrt(1 + total**2))
    same(state["z"], 1 + total**2)


def test_gradients_of_one_snapshot_and_any_sign_move_by_the_last_rate_times_their_sum(same):
    gradients = np.random.default_rng(3).normal(size=(6, 5))
    rule = Revise(0.3)
    state = rule.init(np.zeros(5), 6)
    for worker in range(6):
        rule.pull(state, worker)
    state = feed(rule, state, gradients, range(6))
    same(state["w"], -0.3 * gradients.sum(axis=0) / np.sqrt(state["z_max"]))


def test_z_may_fall_below_zero_but_z_max_never_falls_and_gbar_is_the_sum(same):
    rule = Revise(1.0)
    state = rule.init(np.zeros(1), 3)
    rule.pull(state, 0), rule.pull(state, 1)
    history = []
    for worker, g in ((0, 1.0), (1, -2.0), (2, 1.0)):
        state = rule.push(state, {"g": np.array([g])}, info(0, worker=worker, workers=3))
        if worker == 0:
            rule.pull(state, 2)
        history.append((float(state["z"][0]), float(state["z_max"][0])))
    assert [z for z, _ in history] == [2.0, 2.0, -1.0]
    assert [z for _, z in history] == [2.0, 2.0, 2.0]
    same(state["gbar"], [0.0])


@pytest.mark.parametrize("form", ["coordinate", "scalar"])
def test_adadelay_is_its_pseudo_code(two_classes, same, apart, form):
    a0, L, c = 0.8, 1.5, 0.6
    job, model = traced(adadelay(form, a0, L, c, BATCH), two_classes(), 80)

    def run(shift: int) -> Any:
        box = {"x": job.w0.copy(), "acc": np.zeros(job.w0.size), "t": 0}

        def update(k, g, delay):
            box["t"] += 1
            t, tau = box["t"], delay + shift
            if form == "scalar":
                alpha = a0 / (L + c * np.sqrt(t + tau))
            else:
                box["acc"] = box["acc"] + t / (t + tau) * g**2
                alpha = a0 / (L + np.sqrt(box["acc"] / t) * np.sqrt(t + tau))
            box["x"] = box["x"] - alpha * g

        transcribed(job, lambda k: box["x"], update)
        return box["x"]

    same(model, run(0))
    assert apart(model, run(1)) > 1e-6  # an off-by-one staleness would be seen


def test_adadelay_without_delay_is_adagrad_with_an_offset(two_classes, same):
    data = two_classes()
    _, model = traced(adadelay("coordinate", 0.8, 1.5, batch=BATCH), data, 60, workers=1)
    _, plain = traced(asgd(Adagrad(0.8, eps=1.5), batch=BATCH), data, 60, workers=1)
    same(model, plain)


@pytest.mark.parametrize("form", ["coordinate", "scalar"])
def test_the_step_of_adadelay_falls_with_the_delay_at_a_fixed_time(form):
    rule = DelayAdaptive(1.0, form=form)
    moves = []
    for staleness in (0, 1, 5, 50):
        state = {"w": np.zeros(1), "acc": np.full(1, 3.0)}
        step = Info(9, (0,), 1.0, staleness, 1)
        moves.append(-float(rule.push(state, {"g": np.ones(1)}, step)["w"][0]))
    assert moves == sorted(moves, reverse=True) and len(set(moves)) == 4


def test_the_steps_of_adadelay_are_not_monotone_in_time():
    rule = DelayAdaptive(1.0, form="scalar")
    sizes = [
        -float(rule.push(rule.init(np.zeros(1), 1), {"g": np.ones(1)}, info(s, step))["w"][0])
        for step, s in ((0, 50), (1, 0))
    ]
    assert sizes[1] > sizes[0]


def bsp(job: Job, clocks: int, lr: float) -> Any:
    """Synchronous SGD on the per-clock batches, updates of a clock added in rank order."""
    w = job.w0
    for t in range(clocks):
        steps = [lr * job.objective.grad(w, job.source.batch(k, t, BATCH)) for k in range(K)]
        for step in steps:
            w = w - step
    return w


def test_ssp_with_strict_views_and_no_lead_is_bulk_synchronous_exactly(two_classes):
    job, model = traced(ssp(0, "strict", SGD(LR), BATCH), two_classes(), 20 * K)
    assert (model == bsp(job, 20, LR)).all()


def test_ssp_with_strict_views_and_no_lead_is_ssgd_with_k_times_the_step(two_classes, same):
    data = two_classes()
    _, model = traced(ssp(0, "strict", SGD(LR), BATCH), data, 20 * K)
    _, sync = traced(ssgd(SGD(K * LR), BATCH), data, 20)
    same(model, sync)


def test_ssp_with_plain_views_and_no_lead_adds_the_same_updates_in_another_order(two_classes, same):
    """This server lets all readers of a clock go at once, so none sees a faster one's update."""
    job, model = traced(ssp(0, "plain", SGD(LR), BATCH), two_classes(), 20 * K)
    same(model, bsp(job, 20, LR))


def test_with_a_lead_plain_views_show_updates_that_strict_ones_hide(two_classes, apart):
    data = two_classes()
    _, plain = traced(ssp(2, "plain", SGD(LR), BATCH), data, 79)
    _, strict = traced(ssp(2, "strict", SGD(LR), BATCH), data, 79)
    assert apart(plain, strict) > 1e-6


@pytest.mark.parametrize("s", [0, 1, 3])
@pytest.mark.parametrize("view", ["plain", "strict"])
def test_ssp_is_its_pseudo_code(two_classes, same, view, s):
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
def test_ssp_of_one_worker_is_sgd_exactly(two_classes, view, s):
    data = two_classes()
    _, model = traced(ssp(s, view, SGD(LR), BATCH), data, 40, workers=1)
    _, plain = traced(ssgd(SGD(LR), BATCH), data, 40, workers=1)
    assert (model == plain).all()


def test_without_a_bound_ssp_is_asgd_exactly(two_classes):
    data = two_classes()
    _, bounded = traced(ssp(10**6, "plain", SGD(LR), BATCH), data, 60)
    _, free = traced(asgd(SGD(LR), batch=BATCH), data, 60)
    assert (bounded == free).all()


@pytest.mark.parametrize(("n_push", "n_fetch"), [(1, 1), (1, 3), (2, 2), (2, 6)])
def test_downpour_is_its_pseudo_code(two_classes, same, n_push, n_fetch):
    alpha, g0 = 0.2, 0.5
    algorithm = downpour(n_push, n_fetch, Adagrad(g0, initial=0.1), alpha, BATCH)
    job, model = traced(algorithm, two_classes(), 60)
    w, S = job.w0.copy(), np.full(job.w0.size, 0.1)
    params, step, acc = {}, [0] * K, {}
    for kind, k in zip(job.trace.kinds, job.trace.workers, strict=True):
        if kind == PULL:
            if step[k] % n_fetch == 0:
                params[k] = w.copy()
            acc[k] = np.zeros_like(w)
            for _ in range(n_push):
                g = job.objective.grad(params[k], job.source.batch(k, step[k], BATCH))
                acc[k] += g
                params[k] = params[k] - alpha * g
                step[k] += 1
        else:
            S = S + acc[k] ** 2
            w = w - g0 / (np.sqrt(S) + 1e-10) * acc[k]
    same(model, w)


def test_one_downpour_replica_with_a_plain_server_is_sgd_exactly(two_classes):
    data = two_classes()
    algorithm = downpour(1, 1, SGD(LR), 0.7, BATCH)
    _, model = traced(algorithm, data, 40, workers=1)
    _, plain = traced(ssgd(SGD(LR), BATCH), data, 40, workers=1)
    assert (model == plain).all()


def test_what_downpour_pushes_is_what_it_computed(two_classes, same):
    """With unit steps at the server, w falls by exactly the sum of all gradients."""
    job, model = traced(downpour(2, 4, SGD(1.0), 1e-3, BATCH), two_classes(), 50)
    total, params, step, acc = np.zeros_like(job.w0), {}, [0] * K, {}
    w = job.w0.copy()
    for kind, k in zip(job.trace.kinds, job.trace.workers, strict=True):
        if kind == PULL:
            if step[k] % 4 == 0:
                params[k] = w.copy()
            acc[k] = np.zeros_like(w)
            for _ in range(2):
                g = job.objective.grad(params[k], job.source.batch(k, step[k], BATCH))
                acc[k] += g
                params[k] = params[k] - 1e-3 * g
                step[k] += 1
        else:
            total += acc[k]
            w = w - acc[k]
    same(job.w0 - model, total)


def test_downpour_refuses_a_fetch_between_pushes_by_name():
    with pytest.raises(OptionError, match=r"n_fetch = 3 must be a multiple of n_push = 2"):
        downpour(2, 3)
