"""Virtual time: durations, waiting and the order of arrival."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, fedavg, model_averaging, ssgd
from hemiola.engines.simulator import Constant, LogNormal, Simulator, Stragglers, Uniform
from hemiola.errors import OptionError
from hemiola.objectives import logistic
from hemiola.optim import SGD
from hemiola.rng import stream

BATCH = MiniBatch(4)


def averaging(steps):
    return model_averaging(steps, SGD(0.1), batch=BATCH)


@dataclass(frozen=True)
class Script:
    """The n-th draw of anybody takes as long as the script says."""

    seconds_each: tuple[float, ...]

    def seconds(self, rng, steps):
        return self.seconds_each[int(rng.integers(len(self.seconds_each)))] * steps


def durations(engine, seed, workers, rounds, steps):
    """What each worker's task takes, by the documented formula, without messages."""
    table = np.empty((rounds, workers))
    for r in range(rounds):
        for k in range(workers):
            factor = engine.slow_factor if k < round(engine.slow_share * workers) else 1.0
            drawn = engine.compute.seconds(stream(seed, "compute", k, r), steps)
            table[r, k] = 2 * engine.latency + drawn * factor
    return table


def test_a_round_takes_its_compute_time(two_classes, run):
    result = run(
        averaging(5),
        logistic(),
        two_classes(),
        workers=3,
        updates=4,
        engine=Simulator(Constant(2.0)),
    )
    assert result.clocks == [10.0, 20.0, 30.0, 40.0]
    assert result.ledger.waiting == 0.0


def test_latency_is_paid_twice_and_bytes_at_the_wires_speed(two_classes, run):
    engine = Simulator(Constant(1.0), latency=0.25, bandwidth=100.0)
    result = run(averaging(3), logistic(), two_classes(), workers=2, updates=2, engine=engine)
    size = 8 * result.w0.size
    each = 3.0 + 0.5 + (size + size + 8) / 100
    assert result.clocks == pytest.approx([each, 2 * each], rel=1e-12)


def test_an_asynchronous_worker_takes_as_long_as_a_synchronous_one(two_classes, run):
    engine = Simulator(Constant(1.0), latency=0.25, bandwidth=100.0)
    result = run(
        asgd(SGD(0.1), BATCH), logistic(), two_classes(), workers=2, updates=6, engine=engine
    )
    size = 8 * result.w0.size
    each = 1.0 + 0.5 + (size + size + 8) / 100
    assert result.clocks == pytest.approx([each, each, 2 * each, 2 * each, 3 * each, 3 * each])
    assert result.ledger.waiting == pytest.approx(0.0)


def test_a_round_ends_with_its_slowest_worker_and_the_others_wait(two_classes, run):
    engine = Simulator(Constant(1.0), slow_share=0.25, slow_factor=4.0)
    result = run(averaging(2), logistic(), two_classes(), workers=4, updates=3, engine=engine)
    assert result.clocks == [8.0, 16.0, 24.0]
    assert result.ledger.waiting == 3 * 3 * (8.0 - 2.0)


@pytest.mark.parametrize(
    "compute", [Uniform(0.5, 2.0), LogNormal(1.0, 0.7), Stragglers(1.0, 0.3, 6.0)], ids=str
)
def test_rounds_last_as_long_as_their_longest_draw(two_classes, run, compute):
    engine = Simulator(compute, latency=0.1, slow_share=0.5, slow_factor=1.7)
    result = run(
        averaging(3), logistic(), two_classes(), workers=4, updates=6, engine=engine, seed=5
    )
    table = durations(engine, 5, 4, 6, 3)
    assert result.clocks == pytest.approx(np.cumsum(table.max(axis=1)), rel=1e-12)
    waiting = (table.max(axis=1, keepdims=True) - table).sum()
    assert result.ledger.waiting == pytest.approx(waiting, rel=1e-9)


def test_only_the_members_of_a_round_take_time(two_classes, run):
    engine = Simulator(Constant(1.0), slow_share=0.25, slow_factor=10.0)
    algorithm = fedavg(0.25, 1, SGD(0.1), batch=MiniBatch(None))
    result = run(algorithm, logistic(), two_classes(), workers=4, updates=20, engine=engine)
    expected = [10.0 if members == (0,) else 1.0 for members in result.workers]
    assert np.diff([0.0, *result.clocks]) == pytest.approx(expected)
    assert {1.0, 10.0} == set(expected)
    assert result.ledger.waiting == 0.0


def test_asynchronous_messages_arrive_in_the_order_of_their_times(two_classes, run):
    engine = Simulator(LogNormal(1.0, 1.0), latency=0.1, slow_share=0.3, slow_factor=2.0)
    result = run(
        asgd(SGD(0.1), BATCH),
        logistic(),
        two_classes(),
        workers=5,
        updates=80,
        engine=engine,
        seed=2,
    )
    table = durations(engine, 2, 5, 80, 1)
    ends = sorted((end, k) for k in range(5) for end in np.cumsum(table[:, k]))[:80]
    assert [k for _, k in ends] == [who[0] for who in result.workers]
    assert result.clocks == pytest.approx([end for end, _ in ends], rel=1e-12)


def test_ties_go_to_the_lower_rank(two_classes, run):
    engine = Simulator(Constant(1.0), slow_share=0.5, slow_factor=2.0)
    result = run(
        asgd(SGD(0.1), BATCH), logistic(), two_classes(), workers=4, updates=12, engine=engine
    )
    assert [who[0] for who in result.workers] == [2, 3, 0, 1, 2, 3, 2, 3, 0, 1, 2, 3]


def test_the_same_seed_gives_the_same_times_and_another_seed_others(two_classes, run):
    engine = Simulator(LogNormal(1.0, 0.5))
    clocks = [
        run(
            averaging(2), logistic(), two_classes(), workers=3, updates=5, engine=engine, seed=seed
        ).clocks
        for seed in (1, 1, 2)
    ]
    assert clocks[0] == clocks[1] != clocks[2]


def test_the_times_do_not_depend_on_the_number_of_workers(two_classes, run):
    engine = Simulator(LogNormal(1.0, 0.5))
    few, many = (durations(engine, 3, workers, 4, 2) for workers in (2, 6))
    np.testing.assert_array_equal(few, many[:, :2])


@pytest.mark.parametrize(
    ("compute", "mean"),
    [
        (Constant(0.5), 0.5),
        (Uniform(0.2, 0.6), 0.4),
        (LogNormal(0.5, 0.8), 0.5),
        (Stragglers(0.5, 0.1, 5.0), 0.5 * 1.4),
    ],
)
def test_compute_times_have_the_mean_they_name(compute, mean):
    drawn = [compute.seconds(stream(0, "compute", 0, i), 10) / 10 for i in range(3000)]
    assert np.mean(drawn) == pytest.approx(mean, rel=0.03)
    assert min(drawn) > 0


def test_stragglers_take_the_time_or_a_multiple_of_it():
    compute = Stragglers(1.0, 0.25, 5.0)
    drawn = [compute.seconds(stream(0, "compute", 0, i), 1) for i in range(2000)]
    assert set(drawn) == {1.0, 5.0}
    assert np.mean([d == 5.0 for d in drawn]) == pytest.approx(0.25, abs=0.03)


def test_a_scripted_time_is_a_compute_time(two_classes, run):
    engine = Simulator(Script((1.0, 3.0)))
    result = run(averaging(1), logistic(), two_classes(), workers=3, updates=30, engine=engine)
    assert set(np.diff([0.0, *result.clocks])) == {1.0, 3.0}


def test_the_slow_share_is_rounded_to_whole_workers(two_classes, run):
    for share, slow in ((0.0, 0), (0.3, 1), (0.5, 2), (1.0, 4)):
        engine = Simulator(Constant(1.0), slow_share=share, slow_factor=100.0)
        result = run(
            asgd(SGD(0.1), BATCH), logistic(), two_classes(), workers=4, updates=90, engine=engine
        )
        quick = [k for k in range(4) if result.ledger.updates[k] > 20]
        assert quick == (list(range(slow, 4)) if slow < 4 else [0, 1, 2, 3])


@pytest.mark.parametrize("make", [ssgd, asgd])
def test_a_thousand_workers_run(two_classes, run, make):
    result = run(
        make(SGD(0.1), MiniBatch(1)),
        logistic(),
        two_classes(1500),
        workers=1000,
        updates=3 if make is ssgd else 2500,
        engine=Simulator(LogNormal(1e-3, 0.3), latency=1e-3),
    )
    assert len(result.ledger.updates) == 1000
    assert min(result.ledger.updates) >= 1
    if make is asgd:
        assert np.average(
            range(len(result.ledger.staleness)), weights=result.ledger.staleness
        ) == pytest.approx(999, rel=0.35)


def test_virtual_time_resumes_exactly(two_classes, run):
    engine = Simulator(LogNormal(1.0, 0.5), latency=0.1)
    for algorithm in (averaging(2), asgd(SGD(0.1), BATCH)):
        whole = run(algorithm, logistic(), two_classes(), workers=3, updates=12, engine=engine)
        part = run(algorithm, logistic(), two_classes(), workers=3, updates=5, engine=engine)
        events = engine.run(part.job, part.snapshot)
        clocks = [next(events).clock for _ in range(7)]
        assert clocks == whole.clocks[5:]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(2.0, 1.0), "Uniform: low = 2.0 is above high = 1.0"),
        (lambda: Constant(0.0), "mean should be greater than 0"),
        (lambda: Stragglers(probability=2.0), "probability should be less than or equal to 1"),
        (lambda: Stragglers(slowdown=0.5), "slowdown should be greater than or equal to 1"),
        (lambda: Simulator(latency=-1.0), "latency should be greater than or equal to 0"),
        (lambda: Simulator(bandwidth=0.0), "bandwidth should be greater than 0"),
        (lambda: Simulator(slow_share=1.5), "slow_share should be less than or equal to 1"),
        (lambda: Simulator(slow_factor=0.5), "slow_factor should be greater than or equal to 1"),
        (lambda: Simulator("fast"), "compute"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_defaults_are_a_free_wire_and_equal_workers():
    engine = Simulator()
    assert (engine.latency, engine.bandwidth) == (0.0, math.inf)
    assert replace(engine, slow_factor=2.0).slow_share == 0.0
