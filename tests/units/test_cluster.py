"""Clusters to simulate: networks in tiers, the server's own link, workers of different speed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, model_averaging, ssp
from hemiola.engines.simulator import (
    Constant,
    Equal,
    Factors,
    Flat,
    Links,
    LogNormal,
    LogNormalSpeed,
    PerWorker,
    Simulator,
    Tiers,
)
from hemiola.errors import OptionError
from hemiola.objectives import logistic
from hemiola.optim import SGD
from hemiola.types import copy_state

BATCH = MiniBatch(4)
ASGD = asgd(SGD(0.1), BATCH)
AVERAGING = model_averaging(3, SGD(0.1), batch=BATCH)
DOWN, UP = 32, 40  # bytes of a message: four numbers, and a weight
TIERS = Tiers(
    rack=2, site=2,
    rack_latency=0.25, rack_bandwidth=64.0,
    site_latency=1.0, site_bandwidth=32.0,
    wide_latency=4.0, wide_bandwidth=16.0,
)  # fmt: skip


@pytest.fixture
def go(two_classes, run):
    """(algorithm, engine, workers, updates) -> a run whose messages are DOWN and UP bytes long."""

    def start(algorithm, engine, workers, updates, **more):
        return run(
            algorithm, logistic(), two_classes(), workers=workers, updates=updates, engine=engine,
            **more,
        )  # fmt: skip

    return start


# The network


def test_a_worker_is_in_the_tier_that_its_messages_cross():
    found = [TIERS.tiers[TIERS.tier(worker)] for worker in range(8)]
    assert found == ["rack", "rack", "site", "site", "wide", "wide", "wide", "wide"]
    assert TIERS.link(1) == (0.25, 64.0)
    assert TIERS.link(3) == (1.0, 32.0)
    assert TIERS.link(7) == (4.0, 16.0)
    assert Flat(0.5, 10.0).link(3) == (0.5, 10.0)
    assert [Links((0.1, 0.2)).link(k).latency for k in range(3)] == [0.1, 0.2, 0.1]


def test_a_round_takes_as_long_as_its_farthest_worker(go):
    engine = Simulator(Constant(1.0), network=TIERS)
    near, middle, far = (
        3.0 + 2 * latency + (DOWN + UP) / bandwidth
        for latency, bandwidth in ((0.25, 64.0), (1.0, 32.0), (4.0, 16.0))
    )
    assert go(AVERAGING, engine, 2, 2).clocks == [near, 2 * near]
    assert go(AVERAGING, engine, 4, 2).clocks == [middle, 2 * middle]
    result = go(AVERAGING, engine, 6, 2)
    assert result.clocks == [far, 2 * far]
    assert result.ledger.waiting == 2 * (2 * (far - near) + 2 * (far - middle))


def test_an_asynchronous_worker_hears_of_the_server_as_often_as_its_link_allows(go):
    engine = Simulator(Constant(1.0), network=TIERS)
    each = [
        1.0 + 2 * link.latency + (DOWN + UP) / link.bandwidth for link in map(TIERS.link, range(6))
    ]
    assert each == [2.625, 2.625, 5.25, 5.25, 13.5, 13.5]
    result = go(ASGD, engine, 6, 20)
    ends = sorted((n * each[k], k) for k in range(6) for n in range(1, 30))[:20]
    assert [k for _, k in ends] == [who[0] for who in result.workers]
    assert result.clocks == pytest.approx([end for end, _ in ends], rel=1e-12)


def test_bytes_are_counted_by_link(go):
    result = go(ASGD, Simulator(Constant(1.0), network=TIERS), 6, 20)
    ledger = result.ledger
    assert sum(ledger.links) == ledger.bytes_up + ledger.bytes_down
    for worker, done in enumerate(ledger.updates):
        assert ledger.links[worker] == done * UP + (done + 1) * DOWN


def test_a_flat_network_is_latency_and_bandwidth(go):
    plain = Simulator(LogNormal(), latency=0.25, bandwidth=100.0)
    named = Simulator(LogNormal(), network=Flat(0.25, 100.0))
    assert go(ASGD, plain, 3, 20).clocks == go(ASGD, named, 3, 20).clocks


# The server's own link


def test_messages_queue_at_the_servers_link_in_each_direction(go):
    engine = Simulator(Constant(1.0), server_bandwidth=8.0)  # 4 s down, 5 s up
    result = go(ASGD, engine, 3, 5)
    # down: 0-4, 4-8, 8-12; computed at 5, 9, 13; up: 5-10, 10-15, 15-20
    # again: down 10-14, 15-19, 20-24; computed at 15, 20, 25; up: 20-25, 25-30
    assert result.clocks == [10.0, 15.0, 20.0, 25.0, 30.0]
    assert [who[0] for who in result.workers] == [0, 1, 2, 0, 1]


def test_a_round_pays_for_every_message_at_the_servers_link(go):
    result = go(AVERAGING, Simulator(Constant(1.0), latency=0.5, server_bandwidth=8.0), 4, 2)
    arrived = [4.0 * (k + 1) + 3.0 + 1.0 for k in range(4)]
    end = 0.0
    for at in arrived:
        end = max(end, at) + 5.0
    assert result.clocks == [end, 2 * end]


@pytest.mark.parametrize("algorithm", [ASGD, AVERAGING], ids=lambda a: a.name)
def test_a_run_resumes_exactly_while_messages_queue(go, algorithm):
    engine = Simulator(
        LogNormal(1.0), network=TIERS, speed=LogNormalSpeed(0.4), server_bandwidth=20.0
    )
    whole, part = (go(algorithm, engine, 5, updates) for updates in (40, 15))
    events = engine.run(part.job, copy_state(part.snapshot))
    again = [next(events) for _ in range(25)]
    assert [event.clock for event in again] == whole.clocks[15:]
    assert [tuple(event.workers) for event in again] == whole.workers[15:]
    assert again[-1].ledger == whole.ledger


# Speed


def test_factors_stretch_the_compute_time_of_each_worker(go):
    engine = Simulator(Constant(1.0), latency=0.5, speed=Factors((1, 1, 5)))
    assert go(AVERAGING, engine, 2, 1).clocks == [4.0]
    assert go(AVERAGING, engine, 3, 1).clocks == [16.0]
    assert engine.factors(5, seed=0) == [1.0, 1.0, 5.0, 1.0, 1.0]
    assert Simulator().factors(3, seed=0) == [1.0] * 3


def test_speeds_are_drawn_once_for_every_worker(go):
    engine = Simulator(Constant(1.0), speed=LogNormalSpeed(0.5))
    factors = engine.factors(4, seed=3)
    assert factors == engine.factors(9, seed=3)[:4] != engine.factors(4, seed=4)
    result = go(ASGD, engine, 4, 60, seed=3)
    for worker, factor in enumerate(factors):
        times = [
            c for c, who in zip(result.clocks, result.workers, strict=True) if who == (worker,)
        ]
        np.testing.assert_allclose(np.diff([0.0, *times]), factor, rtol=1e-9)


def test_speeds_have_the_spread_they_name():
    logs = np.log(Simulator(speed=LogNormalSpeed(0.7)).factors(4000, seed=0))
    assert logs.mean() == pytest.approx(0.0, abs=0.03)
    assert logs.std() == pytest.approx(0.7, rel=0.03)


def test_each_worker_may_have_a_distribution_of_its_own(go):
    engine = Simulator(PerWorker((1.0, 3.5), (0.0, 0.0)))
    result = go(ASGD, engine, 4, 8)
    assert [who[0] for who in result.workers] == [0, 2, 0, 2, 0, 2, 1, 3]
    assert result.clocks == pytest.approx([1, 1, 2, 2, 3, 3, 3.5, 3.5])


# What must not change


def test_parked_workers_go_on_as_soon_as_they_may(go):
    """A bounded lead on uneven workers: reads by the rule, and nobody is forgotten."""
    engine = Simulator(LogNormal(1.0, 1.0), speed=Factors((1, 2, 3, 10)))
    result = go(ssp(2, optimizer=SGD(0.1), batch=BATCH), engine, 4, 200)
    done = np.zeros(4, int)
    for (worker,) in result.workers:
        done[worker] += 1
        assert done[worker] - done.min() <= 3
    assert len(result.ledger.lead) == 3
    assert done.max() - done.min() <= 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Simulator(latency=1.0, network=Flat()), "give them to the network instead"),
        (lambda: Simulator(bandwidth=1.0, network=TIERS), "give them to the network instead"),
        (lambda: Simulator(server_bandwidth=0.0), "server_bandwidth should be greater than 0"),
        (lambda: Simulator(network="fast"), "network"),
        (lambda: Simulator(speed="fast"), "speed"),
        (lambda: Tiers(rack=0), "rack should be greater than or equal to 1"),
        (lambda: Tiers(wide_latency=-1), "wide_latency should be greater than or equal to 0"),
        (lambda: LogNormalSpeed(-1.0), "sigma should be greater than or equal to 0"),
        (lambda: Factors((1, -1)), "factors should be greater than 0"),
        (lambda: Factors(()), "at least one factor"),
        (lambda: Factors("1,fast"), "valid number"),
        (lambda: Links(()), "at least one latency"),
        (lambda: PerWorker((1.0,), (0.1, 0.2)), "1 means and 2 sigmas"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_defaults_are_equal_workers_and_no_limit():
    engine = Simulator()
    assert engine.speed == Equal() and math.isinf(engine.server_bandwidth)
    assert engine.wires() == Flat()
