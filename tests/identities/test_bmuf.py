"""Block momentum against model averaging, outer Nesterov (DiLoCo), SlowMo and its equations."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.aggregate import BlockMomentum
from hemiola.algorithm import Info, MiniBatch
from hemiola.algorithms import bmuf, model_averaging
from hemiola.objectives import logistic
from hemiola.optim import SGD, Adam
from hemiola.types import freeze

LR, STEPS, WORKERS, BLOCKS = 0.3, 3, 4, 12
BATCH = MiniBatch(4)


@pytest.fixture
def blocks(two_classes, run, local_sgd):
    """(eta, zeta, nesterov) -> the run and the function (start, n) -> mean of the local models."""
    data = two_classes(64)

    def make(eta, zeta, nesterov):
        algorithm = bmuf(STEPS, eta, zeta, nesterov, SGD(LR), batch=BATCH)
        result = run(algorithm, logistic(0.01), data, workers=WORKERS, updates=BLOCKS)

        def mean(start, n):
            times = range(n * STEPS, (n + 1) * STEPS)
            source = result.job.source
            return np.mean(
                [
                    local_sgd(
                        start, data, [source.batch(k, t, BATCH).rows for t in times], LR, 0.01
                    )
                    for k in range(WORKERS)
                ],
                axis=0,
            )

        return result, mean

    return make


def as_published(w, mean, eta, zeta, nesterov, *, measure_from="start"):
    """W and start after every block; ``measure_from="W"`` is a well-known mistake."""
    start, delta, models, starts = w, np.zeros_like(w), [], []
    for n in range(BLOCKS):
        G = mean(start, n) - (start if measure_from == "start" else w)
        delta = eta * delta + zeta * G
        w = w + delta
        start = w + eta * delta if nesterov else w
        models.append(w)
        starts.append(start)
    return models, starts


def look_ahead_point_only(w, mean, eta, zeta):
    """start <- start + (1 + eta) delta: the filter that several public codes apply."""
    start, delta, starts = w, np.zeros_like(w), []
    for n in range(BLOCKS):
        delta = eta * delta + zeta * (mean(start, n) - start)
        start = start + (1 + eta) * delta
        starts.append(start)
    return starts


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("eta", "zeta"), [(0.75, 1.0), (0.9, 0.1), (0.5, 0.7), (0.0, 0.5)])
def test_bmuf_does_what_its_equations_say(blocks, same, eta, zeta, nesterov):
    result, mean = blocks(eta, zeta, nesterov)
    models, starts = as_published(result.w0, mean, eta, zeta, nesterov)
    same(result.models, models)
    same([server["down"]["w"] for server in result.servers], starts)


def test_a_change_measured_from_the_model_instead_of_the_start_is_noticed(blocks, apart):
    result, mean = blocks(0.75, 0.5, True)
    wrong, _ = as_published(result.w0, mean, 0.75, 0.5, True, measure_from="W")
    assert apart(result.models, wrong) > 1e-6


def test_keeping_the_look_ahead_point_only_is_noticed(blocks, apart):
    result, mean = blocks(0.75, 1.0, True)
    starts = [server["down"]["w"] for server in result.servers]
    assert apart(starts, look_ahead_point_only(result.w0, mean, 0.75, 1.0)) > 1e-6


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("optimizer", [SGD(LR), Adam(0.1)])
@pytest.mark.parametrize("carry", ["keep", "reset", "average"])
def test_bmuf_without_momentum_is_model_averaging(
    two_classes, run, same, nesterov, optimizer, carry
):
    data = two_classes(50)
    filtered = bmuf(STEPS, 0.0, 1.0, nesterov, optimizer, carry, BATCH)
    averaged = model_averaging(STEPS, optimizer, carry, BATCH)
    one, other = (
        run(algorithm, logistic(), data, workers=3, updates=BLOCKS)
        for algorithm in (filtered, averaged)
    )
    same(one.models, other.models)


@pytest.mark.parametrize(("eta", "zeta"), [(0.9, 0.7), (0.75, 1.0), (0.3, 1.4)])
def test_nesterov_block_momentum_starts_its_blocks_where_nesterov_sgd_on_changes_does(
    blocks, same, eta, zeta
):
    """The outer step of DiLoCo: buf <- m buf + D; theta <- theta - lr (D + m buf)."""
    result, mean = blocks(eta, zeta, True)
    theta, buffer = result.w0, np.zeros_like(result.w0)
    for n in range(BLOCKS):
        D = theta - mean(theta, n)
        buffer = eta * buffer + D
        theta = theta - zeta * (D + eta * buffer)
        same(result.servers[n]["down"]["w"], theta)


def test_diloco_with_unit_rate_and_no_momentum_is_model_averaging(blocks, same):
    result, mean = blocks(0.0, 1.0, True)
    theta = result.w0
    for n in range(BLOCKS):
        theta = theta - 1.0 * (theta - mean(theta, n))
        same(result.models[n], theta)


@pytest.mark.parametrize(("beta", "alpha"), [(0.5, 1.0), (0.8, 0.6)])
def test_classic_block_momentum_is_slowmo_at_a_constant_rate(blocks, same, beta, alpha):
    result, mean = blocks(beta, alpha, False)
    x, u = result.w0, np.zeros_like(result.w0)
    for n in range(BLOCKS):
        u = beta * u + (x - mean(x, n)) / LR
        x = x - alpha * LR * u
        same(result.models[n], x)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("eta", "zeta"), [(0.75, 1.0), (0.9, 0.1), (0.5, 0.7)])
def test_one_block_moves_the_model_by_its_change_over_one_minus_momentum(eta, zeta, nesterov):
    aggregate = BlockMomentum(eta, zeta, nesterov)
    state = aggregate.init(np.array([2.0, -1.0]), workers=4)
    G = np.array([1.0, 3.0])
    for n in range(400):
        up = {"w": aggregate.pull(state, 0)["w"] + (G if n == 0 else 0.0)}
        state = aggregate.push(state, up, Info(n, range(4), 4.0, 0, 4))
    moved = aggregate.model(state) - [2.0, -1.0]
    np.testing.assert_allclose(moved, zeta / (1 - eta) * G, rtol=1e-12)
    assert np.abs(moved - (1 + eta) * zeta / (1 - eta) * G).max() > 0.1  # not 7 G but 4 G


def test_with_unit_block_rate_the_model_is_the_mean_of_every_block(blocks, same):
    result, mean = blocks(0.75, 1.0, True)
    start = result.w0
    for n in range(BLOCKS):
        same(result.models[n], mean(start, n))
        start = result.servers[n]["down"]["w"]


@pytest.mark.parametrize("nesterov", [True, False])
def test_the_changes_of_all_blocks_add_up(blocks, same, nesterov):
    result, _ = blocks(0.75, 0.6, nesterov)
    same(result.last - result.w0, np.sum([server["delta"] for server in result.servers], axis=0))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_default_momentum_gives_every_worker_unit_weight(two_classes, run, workers):
    data = two_classes(64)
    default, explicit = (
        run(
            bmuf(STEPS, eta, 1.0, optimizer=SGD(LR), batch=BATCH),
            logistic(),
            data,
            workers=workers,
            updates=6,
        )
        for eta in (None, 1 - 1 / workers)
    )
    assert (default.last == explicit.last).all()


def test_one_worker_without_momentum_is_its_local_optimiser(two_classes, run, local_sgd, same):
    data = two_classes(64)
    result = run(
        bmuf(STEPS, 0.0, 1.0, optimizer=SGD(LR), batch=BATCH),
        logistic(),
        data,
        workers=1,
        updates=BLOCKS,
    )
    rows = [result.job.source.batch(0, t, BATCH).rows for t in range(BLOCKS * STEPS)]
    same(result.last, local_sgd(result.w0, data, rows, LR))


def test_block_momentum_keeps_the_model_apart_from_the_start(blocks, apart):
    result, _ = blocks(0.75, 1.0, True)
    assert apart(result.last, result.servers[-1]["down"]["w"]) > 1e-6
    aggregate = BlockMomentum(0.5)
    down = aggregate.pull(aggregate.init(np.zeros(2), 2), 0)
    assert down.keys() == freeze(w=np.zeros(2)).keys()
