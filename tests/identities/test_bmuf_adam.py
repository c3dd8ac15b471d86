"""BMUF-Adam against its pseudo-code, against Adam, and under a constant gradient."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pytest

from hemiola.aggregate import BlockMomentum
from hemiola.algorithm import Info, MiniBatch
from hemiola.algorithms import bmuf, bmuf_adam, model_averaging
from hemiola.algorithms.bmuf_adam import K, M, MomentsAhead, V
from hemiola.engines.serial import Serial
from hemiola.errors import OptionError
from hemiola.job import Job
from hemiola.objectives import logistic
from hemiola.optim import SGD, Adam, AdamW
from hemiola.partition import Shards, Whole

STEPS, WORKERS, BLOCKS = 3, 4, 8
BATCH = MiniBatch(4)
ADAM = Adam(0.05, 0.8, 0.95)


def adam_step(rule, w, m, v, g, k):
    m = rule.beta1 * m + (1 - rule.beta1) * g
    v = rule.beta2 * v + (1 - rule.beta2) * g * g
    m_hat, v_hat = m / (1 - rule.beta1**k), v / (1 - rule.beta2**k)
    return w - rule.lr * m_hat / (rule.eps + np.sqrt(v_hat)), m, v


def as_published(
    w0, gradient, workers, blocks, eta, zeta=1.0, *, rule=ADAM, moments=True, count=True
):
    """The paper's lines, step by step; ``gradient(i, t, w)`` is worker i's.

    ``moments=False`` leaves out lines 15 and 16, ``count=False`` the shift of k. Returns what the
    server holds after every block, and (k, m, v) of the first worker after every step.
    """
    d, rho, k, t = np.zeros_like(w0), 0.0, 0.0, 0
    W, start = w0, w0
    m_init, v_init = np.zeros_like(w0), np.zeros_like(w0)
    servers, steps = [], []
    for _ in range(blocks):
        theta, ms, vs = [start] * workers, [m_init] * workers, [v_init] * workers
        for _ in range(STEPS):
            k += 1
            for i in range(workers):
                g = gradient(i, t, theta[i])
                theta[i], ms[i], vs[i] = adam_step(rule, theta[i], ms[i], vs[i], g, k)
            t += 1
            steps.append((k, ms[0], vs[0]))
        mean, m, v = (np.mean(x, axis=0) for x in (theta, ms, vs))
        d = eta * d + zeta * (mean - start)
        W = W + d
        rho = eta * rho + zeta * STEPS
        a = eta * rho
        tau, b1, b2 = STEPS, rule.beta1, rule.beta2
        if moments:
            m_init = (
                b1**tau * (b1**a - 1) / (1 - b1**tau) * m_init
                + (1 - b1 ** (tau + a)) / (1 - b1**tau) * m
            )
            v_init = (
                b2**tau * (b2**a - 1) / (1 - b2**tau) * v_init
                + (1 - b2 ** (tau + a)) / (1 - b2**tau) * v
            )
        else:
            m_init, v_init = m, v
        start = W + eta * d
        k += a if count else 0
        servers.append({"w": W, "start": start, "m": m_init, "v": v_init, "k": k, "rho": rho})
    return servers, steps


@pytest.fixture
def blocks(two_classes, run, gradient):
    """(eta, zeta, workers) -> the run, and the gradient of worker i at step t."""
    data = two_classes(64)

    def make(eta, zeta=1.0, workers=WORKERS, partition=None, optimizer=ADAM):
        given = {} if partition is None else {"partition": partition}
        algorithm = bmuf_adam(STEPS, eta, zeta, optimizer, BATCH, **given)
        result = run(algorithm, logistic(0.01), data, workers=workers, updates=BLOCKS)

        def of(i, t, w):
            return gradient(w, data, result.job.source.batch(i, t, BATCH).rows, 0.01)

        return result, of

    return make


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize(("eta", "zeta"), [(0.75, 1.0), (0.5, 0.7), (0.9, 1.3), (0.0, 1.0)])
def test_bmuf_adam_does_what_its_pseudo_code_says(blocks, same, eta, zeta, workers):
    result, gradient = blocks(eta, zeta, workers)
    servers, _ = as_published(result.w0, gradient, workers, BLOCKS, eta, zeta)
    for ours, model, theirs in zip(result.servers, result.models, servers, strict=True):
        down = ours["block"]["down"]
        same(model, theirs["w"])
        same(down["w"], theirs["start"])
        same(down[M], theirs["m"])
        same(down[V], theirs["v"])
        same(down[K], theirs["k"])
        same(ours["rho"], theirs["rho"])


def test_with_unit_block_rate_the_change_is_that_of_the_mean_model(blocks, same):
    """The paper's line 12: delta = theta_t - theta_{t - tau}, and the model is the mean."""
    result, _ = blocks(0.75)
    before = result.w0
    for model, server in zip(result.models, result.servers, strict=True):
        same(server["block"]["delta"], model - before)
        before = model


@pytest.mark.parametrize(
    "half", [{"moments": False, "count": True}, {"moments": True, "count": False}]
)
def test_half_of_the_extrapolation_is_noticed(blocks, apart, half):
    result, gradient = blocks(0.75)
    wrong, _ = as_published(result.w0, gradient, WORKERS, BLOCKS, 0.75, **half)
    assert apart(result.last, wrong[-1]["w"]) > 1e-6


@dataclass(frozen=True)
class Slope:
    """A loss g w whose gradient is the same everywhere, on every worker."""

    g: Any

    def grad(self, w, batch):
        return self.g.copy()


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("eta", [None, 0.0, 0.5, 0.9])
def test_under_a_constant_gradient_the_corrected_moments_are_g_and_its_square_at_every_step(
    two_classes, workers, eta
):
    g, data = np.array([0.3, -2.0, 1e-3, 7.0]), two_classes(64)
    algorithm = bmuf_adam(STEPS, eta, optimizer=Adam(0.05), batch=BATCH)
    source = Shards(data, algorithm.partition, workers, 0)
    job = Job(algorithm, Slope(g), source, workers, 0, np.zeros(4))
    with closing(Serial().run(job)) as events:
        for event in islice(events, 12):
            down = algorithm.aggregate.pull(event.server, 0)
            m, v, k = down[M].copy(), down[V].copy(), float(down[K])
            for _ in range(STEPS):
                check_corrected(Adam(), m, v, k, g)
                _, m, v = adam_step(Adam(0.05), g, m, v, g, k + 1)
                k += 1
            states = [state["optimizer"] for state in event.snapshot()["workers"]]
            for state in states:  # as they were at the end of the block
                check_corrected(Adam(), state["m"], state["v"], float(state["k"]), g)


def check_corrected(rule, m, v, k, g):
    np.testing.assert_allclose(m / (1 - rule.beta1**k), g, rtol=1e-12)
    np.testing.assert_allclose(v / (1 - rule.beta2**k), g * g, rtol=1e-11)


def corrected_error(eta, **half):
    g = np.array([1.0, -2.0])
    _, steps = as_published(np.zeros(2), lambda i, t, w: g, 2, BLOCKS, eta, **half)
    return max(np.abs(m / (1 - ADAM.beta1**k) - g).max() for k, m, _ in steps)


def test_doing_half_breaks_the_constant_gradient_and_doing_neither_does_not():
    assert corrected_error(0.75, moments=True, count=True) < 1e-12
    assert corrected_error(0.75, moments=False, count=False) < 1e-12
    assert corrected_error(0.75, moments=True, count=False) > 1e-2
    assert corrected_error(0.75, moments=False, count=True) > 1e-2


@pytest.mark.parametrize(("eta", "zeta", "tau"), [(0.5, 1.0, 4), (0.75, 1.0, 4), (0.5, 3.0, 2)])
def test_the_extrapolation_is_so_many_more_steps_from_any_moments_under_a_constant_gradient(
    eta, zeta, tau
):
    """The second block begins at moments of no special form; a is a whole number in the first."""
    rng = np.random.default_rng(3)
    server = MomentsAhead(BlockMomentum(eta, zeta), 0.8, 0.95)
    m0, v0, g = rng.normal(size=3), rng.uniform(1, 2, size=3), rng.normal(size=3)
    state = server.init(np.zeros(3), 2)
    state["block"]["down"] |= {M: m0, V: v0, K: np.array(7.0)}
    m, v = m0, v0
    for _ in range(tau):
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
    up = {"w": np.ones(3), M: m, V: v, K: np.array(7.0 + tau)}
    down = server.pull(server.push(state, up, Info(0, range(2), 2.0, 0, 2)), 0)
    a = eta * zeta * tau
    assert a == int(a) > 0
    for _ in range(int(a)):
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
    np.testing.assert_allclose(down[M], m, rtol=1e-13)
    np.testing.assert_allclose(down[V], v, rtol=1e-13)
    assert float(down[K]) == 7.0 + tau + a


@pytest.mark.parametrize("optimizer", [ADAM, AdamW(0.05, 0.1, 0.8, 0.95)])
def test_without_block_momentum_parameters_and_moments_are_averaged(
    two_classes, run, same, blocks, optimizer
):
    result, _ = blocks(0.0, optimizer=optimizer)
    data = two_classes(64)
    for averaged in (
        model_averaging(STEPS, optimizer, "average", BATCH),
        bmuf(STEPS, 0.0, 1.0, True, optimizer, "average", BATCH),
    ):
        other = run(averaged, logistic(0.01), data, workers=WORKERS, updates=BLOCKS)
        same(result.models, other.models)


@pytest.mark.parametrize("workers", [1, 3])
def test_without_block_momentum_one_worker_or_equal_workers_are_adam(
    two_classes, run, gradient, workers
):
    data, batch = two_classes(64), MiniBatch(None)
    algorithm = bmuf_adam(STEPS, 0.0, optimizer=ADAM, batch=batch, partition=Whole())
    result = run(algorithm, logistic(0.01), data, workers=workers, updates=BLOCKS)
    w, m, v = result.w0, np.zeros(4), np.zeros(4)
    for k in range(1, STEPS * BLOCKS + 1):
        g = gradient(w, data, np.arange(64), 0.01)
        w, m, v = adam_step(ADAM, w, m, v, g, k)
    np.testing.assert_allclose(result.last, w, rtol=1e-13, atol=1e-13)


def test_the_second_moment_is_never_negative():
    """Also where look-aheads are so long that the published factors cancel to rounding."""
    rng = np.random.default_rng(0)
    server = MomentsAhead(BlockMomentum(0.99), 0.9, 0.9)
    state = server.init(np.zeros(50), 100)
    for n in range(200):
        down = server.pull(state, 0)
        k, v = float(down.get(K, 0.0)), down.get(V, np.zeros(50))
        seen = 0.9**10 * v + rng.exponential(size=50) * (rng.random(50) < 0.1)
        up = {"w": rng.normal(size=50), M: rng.normal(size=50), V: seen, K: np.array(k + 10)}
        state = server.push(state, up, Info(n, range(100), 100.0, 0, 100))
        assert (server.pull(state, 0)[V] >= 0).all()


@pytest.mark.parametrize("zeta", [1.0, 0.6])
@pytest.mark.parametrize("eta", [0.0, 0.5, 0.75])
def test_a_change_is_worth_a_geometric_sum_of_steps(blocks, same, eta, zeta):
    result, _ = blocks(eta, zeta)
    k = 0.0
    for n, server in enumerate(result.servers, 1):
        rho = zeta * STEPS * (1 - eta**n) / (1 - eta)
        same(server["rho"], rho)
        k += STEPS + eta * rho
        same(float(server["block"]["down"][K]), k)


def test_by_default_a_block_counts_as_k_times_its_steps_in_the_long_run(two_classes, run):
    result = run(
        bmuf_adam(STEPS, optimizer=Adam(1e-3), batch=BATCH), logistic(), two_classes(64),
        workers=WORKERS, updates=120,
    )  # fmt: skip
    counts = [float(server["block"]["down"][K]) for server in result.servers[-2:]]
    assert result.servers[-1]["rho"] == pytest.approx(WORKERS * STEPS)
    assert counts[1] - counts[0] == pytest.approx(WORKERS * STEPS)


def test_all_workers_share_one_fractional_step_count(blocks):
    result, _ = blocks(0.7)
    counts = {float(state["optimizer"]["k"]) for state in result.snapshot["workers"]}
    assert len(counts) == 1 and not counts.pop().is_integer()


def test_other_optimisers_are_referred_to_bmuf():
    with pytest.raises(OptionError, match=r"not SGD; use bmuf"):
        bmuf_adam(optimizer=SGD(0.1))
