"""DC-ASGD: the paper's server, step by step, and the settings in which it is something simpler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, dc_asgd, ssgd
from hemiola.algorithms.dc_asgd import DelayCompensated
from hemiola.optim import SGD, HeavyBall

LR, BATCH, K = 0.3, MiniBatch(4), 4


@pytest.mark.parametrize("mean_square", ["server", "worker"])
@pytest.mark.parametrize("variant", ["c", "a"])
def test_dc_asgd_is_its_pseudo_code(
    two_classes, traced, transcribed, same, apart, variant, mean_square
):
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


def test_dc_asgd_without_lambda_is_asgd_exactly(two_classes, traced):
    data = two_classes()
    for variant in ("a", "c"):
        _, compensated = traced(dc_asgd(variant, 0.0, optimizer=SGD(LR), batch=BATCH), data, 60)
        _, plain = traced(asgd(SGD(LR), batch=BATCH), data, 60)
        assert (compensated == plain).all()


@pytest.mark.parametrize("variant", ["c", "a"])
def test_dc_asgd_of_one_worker_is_sgd_exactly(two_classes, traced, variant):
    data = two_classes()
    algorithm = dc_asgd(variant, 2.0, optimizer=SGD(LR), batch=BATCH)
    _, compensated = traced(algorithm, data, 60, workers=1)
    _, plain = traced(ssgd(SGD(LR), BATCH), data, 60, workers=1)
    assert (compensated == plain).all()


def test_the_true_diagonal_hessian_makes_a_stale_gradient_fresh_on_a_quadratic(info):
    h, rng = np.array([0.5, 2.0, 3.0]), np.random.default_rng(0)
    w, backup = rng.normal(size=3), rng.normal(size=3)
    g = h * backup
    rule = DelayCompensated(SGD(0.1), "c", 1.0)
    state = {**rule.init(w, 1), "backup": [backup]}
    compensated = rule.push(state, {"g": np.sqrt(h)}, info(0))["w"]  # lambda g^2 = h
    step = (w - compensated) / 0.1
    np.testing.assert_allclose(step - np.sqrt(h) + g, h * w, rtol=1e-12)


def test_without_delay_dc_asgd_is_sgd_exactly_whoever_sends(info):
    rng = np.random.default_rng(2)
    rule, w = DelayCompensated(SGD(LR), "a", 2.0), rng.normal(size=5)
    state = rule.init(w, K)
    for step in range(20):
        worker, g = step % K, rng.normal(size=5)
        assert (rule.pull(state, worker)["w"] == w).all()
        state = rule.push(state, {"g": g}, info(0, step, worker, K))
        w = w - LR * g
        assert (state["w"] == w).all()


def test_with_the_true_diagonal_hessian_a_delayed_run_is_the_sequential_one(info):
    """Of a quadratic. The rule is given lambda g^2 = h by g = sqrt(h), which is then made good."""
    h, lr = np.array([0.5, 2.0, 3.0]), 0.1
    rule = DelayCompensated(SGD(lr), "c", 1.0)
    sequential = np.random.default_rng(3).normal(size=3)
    state = rule.init(sequential, K)
    read = [np.array(rule.pull(state, k)["w"]) for k in range(K)]
    for step in range(30):
        k = step % K
        state = rule.push(state, {"g": np.sqrt(h)}, info(min(step, K - 1), step, k, K))
        state["w"] = state["w"] + lr * (np.sqrt(h) - h * read[k])
        read[k] = np.array(rule.pull(state, k)["w"])
        sequential = sequential - lr * h * sequential
        np.testing.assert_allclose(state["w"], sequential, rtol=1e-10)


def test_dc_asgd_compensates_a_gradient_before_its_momentum(info):
    rng = np.random.default_rng(4)
    rule, plain = DelayCompensated(HeavyBall(LR, 0.9), "c", 0.7), HeavyBall(LR, 0.9)
    w = rng.normal(size=3)
    state, memory, start = rule.init(w, 1), plain.init(w), w
    for step in range(6):  # the worker never reads again
        g = rng.normal(size=3)
        w, memory = plain.step(w, g + 0.7 * g * g * (w - start), memory, step)
        state = rule.push(state, {"g": g}, info(step, step))
        np.testing.assert_allclose(state["w"], w, rtol=1e-12)


def test_dc_asgd_a_scales_its_correction_like_the_gradient(info):
    rng = np.random.default_rng(1)
    w, backup, g = rng.normal(size=(3, 5))
    rule = DelayCompensated(SGD(1.0), "a", 2.0, m0=0.0)

    def correction(scale: float) -> Any:
        state = {**rule.init(w, 1), "backup": [backup]}
        return w - rule.push(state, {"g": scale * g}, info(0))["w"] - scale * g

    np.testing.assert_allclose(correction(1e3), 1e3 * correction(1.0), rtol=1e-4)
    assert (DelayCompensated(SGD(1.0)).init(w, 1)["w"] == w).all()


def test_dc_asgd_corrects_nothing_where_the_gradient_is_zero(info):
    rule = DelayCompensated(SGD(1.0), "a")
    state = {**rule.init(np.ones(2), 1), "backup": [np.zeros(2)]}
    w = rule.push(state, {"g": np.array([0.0, 1.0])}, info(3))["w"]
    assert w[0] == 1.0 and w[1] != 0.0
