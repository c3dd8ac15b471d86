"""Stale synchronous parallel: who may read when, what a reader sees, and what no lead means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, ssgd, ssp
from hemiola.optim import SGD

LR, BATCH, K = 0.3, MiniBatch(4), 4


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
