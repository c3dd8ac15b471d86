"""Hybrid groups: synchronous inside, asynchronous across, and the time model."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms.registry import build
from hemiola.communicate import Asynchronous, Grouped, Synchronous
from hemiola.engines import engine_class
from hemiola.engines.replay import Replay
from hemiola.engines.serial import Serial
from hemiola.engines.simulator import Constant, Factors, LogNormal, Simulator
from hemiola.grouping import ByKMeans, ByRatio, expected_maximum, forecast
from hemiola.job import Trace
from hemiola.objectives import logistic
from hemiola.partition import ShuffleSplit

K = 4
ALONE = tuple((k,) for k in range(K))
TOGETHER = (tuple(range(K)),)
RATES = {"adaptive-revision": {"lr": 0.1}, "adadelay": {"lr": 1.0}}
OUTER = ["asgd", "dc-asgd", "adadelay", "adaptive-revision", "downpour", "ssp"]
UNEVEN = Simulator(LogNormal(1e-3, 0.8), latency=2e-4, slow_share=0.3, slow_factor=3.0)


def outer(name):
    options = RATES.get(name, {"lr": 0.1})
    if name == "downpour":
        options = {"n_push": 1, "n_fetch": 1, "lr": 0.1, "optimizer.lr": 0.1}
    return options


def hybrid(name="asgd", groups=None, **options):
    inside = {f"outer.{key}": value for key, value in outer(name).items()}
    options = {key.replace("__", "."): value for key, value in options.items()}
    return build("hybrid", {
        "outer": name, "groups": groups, "inner.batch_size": 5, "inner.lr": 0.1,
        "partition": "shuffle-split", "drift": "none", **inside, **options,
    })  # fmt: skip


def plain(name):
    return build(name, {**outer(name), "batch_size": 5})


# --- the limits ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [Serial(), UNEVEN], ids=lambda e: e.name)
@pytest.mark.parametrize("optimizer", ["sgd", "heavy-ball", "adam"])
def test_one_group_is_synchronous_sgd_bit_for_bit(two_classes, run, engine, optimizer):
    data, objective = two_classes(61), logistic(0.1)
    one = build("hybrid", {
        "groups": TOGETHER, "batch_size": 5, "partition": "shuffle-split", "drift": "none",
        "outer.optimizer": optimizer, "outer.lr": 0.1,
    })  # fmt: skip
    ours = run(one, objective, data, workers=K, updates=30, engine=engine)
    ssgd = build("ssgd", {"optimizer": optimizer, "lr": 0.1, "batch_size": 5})
    theirs = run(ssgd, objective, data, workers=K, updates=30, engine=engine)
    np.testing.assert_array_equal(ours.models, theirs.models)
    assert ours.clocks == theirs.clocks or engine.name == "serial"
    assert set(ours.staleness) == {0}


@pytest.mark.parametrize("engine", [Serial(), UNEVEN], ids=lambda e: e.name)
@pytest.mark.parametrize("name", OUTER)
def test_a_group_a_worker_is_the_asynchronous_rule_on_the_same_events(
    two_classes, run, engine, name
):
    data, objective = two_classes(60), logistic(0.1)
    alone = hybrid(name, ALONE)
    ours = run(alone, objective, data, workers=K, updates=60, engine=engine)
    theirs = run(plain(name), objective, data, workers=K, updates=60, engine=engine)
    np.testing.assert_array_equal(ours.models, theirs.models)
    assert (ours.workers, ours.staleness) == (theirs.workers, theirs.staleness)
    assert ours.clocks == theirs.clocks or engine.name == "serial"
    assert ours.ledger.bytes_up == theirs.ledger.bytes_up
    assert ours.ledger.bytes_inside == 0


def test_one_group_of_any_inner_rule_is_that_rule(two_classes, run, same):
    """A group that adds the whole change of its own rounds is that rule, restarted each time."""
    data, objective = two_classes(60), logistic(0.1)
    options = {"lr": 0.1, "steps": 3, "batch_size": 5}
    inside = {f"inner.{key}": value for key, value in options.items()}
    for rounds in (1, 4):
        ours = run(
            hybrid(groups=TOGETHER, inner="model-averaging", rounds=rounds, outer__lr=1.0,
                   **{k.replace(".", "__"): v for k, v in inside.items()}),
            objective, data, workers=K, updates=5,
        )  # fmt: skip
        theirs = run(build("model-averaging", options), objective, data, workers=K,
                     updates=5 * rounds)  # fmt: skip
        same(ours.models, theirs.models[rounds - 1 :: rounds])
        assert ours.ledger.pieces == 5 * rounds * K


def test_bmuf_inside_keeps_its_momentum_within_an_exchange_only(two_classes, run, same, apart):
    data, objective = two_classes(60), logistic(0.1)
    options = {"lr": 0.1, "steps": 2, "batch_size": 5, "eta": 0.8}
    inside = {f"inner__{key}": value for key, value in options.items()}
    ours = run(hybrid(groups=TOGETHER, inner="bmuf", rounds=3, outer__lr=1.0, **inside),
               objective, data, workers=K, updates=2)  # fmt: skip
    theirs = run(build("bmuf", options), objective, data, workers=K, updates=6)
    same(ours.models[0], theirs.models[2])
    assert apart(ours.models[1], theirs.models[5]) > 1e-6


# --- staleness and weights -------------------------------------------------------------------


@pytest.mark.parametrize("groups", [((0, 1), (2, 3)), ALONE, ((0,), (1, 2, 3))], ids=str)
def test_equal_groups_in_turn_are_g_minus_1_stale_after_warm_up(two_classes, run, groups):
    result = run(hybrid(groups=groups), logistic(0.1), two_classes(60), workers=K, updates=30,
                 engine=Simulator(Constant(1e-3)))  # fmt: skip
    assert result.staleness[: len(groups)] == list(range(len(groups)))
    assert set(result.staleness[len(groups) :]) == {len(groups) - 1}


def test_a_straggler_slows_its_own_group_only(two_classes, run):
    def clocks_of(engine, group):
        result = run(hybrid(groups=((0, 1), (2, 3))), logistic(0.1), two_classes(60), workers=K,
                     updates=40, engine=engine)  # fmt: skip
        return [c for c, workers in zip(result.clocks, result.workers, strict=True)
                if workers == group]  # fmt: skip

    even, slow = Simulator(Constant(1e-3)), Simulator(Constant(1e-3), slow_share=0.25,
                                                      slow_factor=7.0)  # fmt: skip
    others, others_beside_it = clocks_of(even, (2, 3)), clocks_of(slow, (2, 3))
    np.testing.assert_array_equal(others[:20], others_beside_it[:20])
    np.testing.assert_allclose(clocks_of(slow, (0, 1)), 7e-3 * np.arange(1, 6), rtol=1e-12)


def test_every_sample_counts_once_in_its_groups_epoch(two_classes, run):
    """The members' batches of an epoch are a partition of the samples dealt to their group."""
    data = two_classes(60)
    result = run(hybrid(groups=((0, 1), (2, 3))), logistic(0.1), data, workers=K, updates=12)
    source, batch = result.job.source, MiniBatch(5)
    steps = 60 // K // 5
    seen = [int(row) for k, t in itertools.product(range(K), range(steps))
            for row in source.batch(k, t, batch).rows]  # fmt: skip
    assert sorted(seen) == list(range(60))
    updates = [workers for workers in result.workers if workers == (0, 1)]
    assert len(updates) == 6 and result.ledger.updates == [6, 6, 6, 6]


def test_a_sample_counts_the_same_in_a_small_and_a_large_group(two_classes, run, same):
    """One update of (0,) and one of (1, 2, 3), read at the same model, add up to the step that one
    group of four would take twice as large, as the weights are 1/2 and 3/2 of a mean group's."""
    data, objective = two_classes(60), logistic(0.1)
    two = run(hybrid(groups=((0,), (1, 2, 3))), objective, data, workers=K, updates=2)
    one = run(hybrid(groups=TOGETHER), objective, data, workers=K, updates=1)
    same(two.last - two.w0, 2 * (one.last - one.w0))
    unscaled = run(hybrid(groups=((0,), (1, 2, 3)), scale="equal"), objective, data, workers=K,
                   updates=2)  # fmt: skip
    assert np.abs(unscaled.last - two.last).max() > 1e-4


def test_slow_groups_get_fewer_samples_so_that_all_pass_through_theirs_in_step(two_classes, run):
    algorithm = hybrid(groups=((0, 1), (2, 3)))
    algorithm = replace(algorithm, partition=build("hybrid").partition)
    algorithm = replace(algorithm, partition=replace(algorithm.partition, speeds=(0.2, 0.2, 1, 1)))
    result = run(algorithm, logistic(0.1), two_classes(600), workers=K, updates=120,
                 engine=Simulator(Constant(1e-3), slow_share=0.5, slow_factor=5.0))  # fmt: skip
    sizes = [result.job.source.samples(k) for k in range(K)]
    assert sum(sizes) == 600 and sizes == pytest.approx([50, 50, 250, 250], abs=1)
    epochs = 5 * np.array(result.ledger.updates) / sizes
    assert epochs.max() / epochs.min() < 1.05


def test_a_bounded_lead_holds_across_groups(two_classes, run):
    bounded = hybrid("ssp", ((0, 1), (2, 3)), outer__s=2)
    result = run(bounded, logistic(0.1), two_classes(60), workers=K, updates=60,
                 engine=Simulator(Constant(1e-3), slow_share=0.5, slow_factor=9.0))  # fmt: skip
    assert len(result.ledger.lead) - 1 == 2
    free = run(hybrid("asgd", ((0, 1), (2, 3))), logistic(0.1), two_classes(60), workers=K,
               updates=60, engine=Simulator(Constant(1e-3), slow_share=0.5, slow_factor=9.0)
               )  # fmt: skip
    assert len(free.ledger.lead) - 1 > 8


# --- the time model --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(50))
def test_the_time_model_is_within_5_percent_of_the_simulator(two_classes, run, seed):
    """Updates and samples a second, and each group's staleness, on random clusters."""
    rng = np.random.default_rng(seed)
    workers = int(rng.integers(2, 13))
    factors = np.exp(rng.normal(0, 1.0, workers)).tolist()
    spread = float(rng.choice([0.0, 0.1, 0.5]))
    engine = Simulator(
        LogNormal(1e-3, spread),
        latency=float(rng.uniform(0, 1e-3)),
        speed=Factors(tuple(factors)),
    )
    samples = [
        np.column_stack([
            np.random.default_rng(k).lognormal(np.log(1e-3 * f) - spread**2 / 2, spread, 4000),
            np.full(4000, 2 * engine.latency),
        ])
        for k, f in enumerate(factors)
    ]  # fmt: skip
    groups = ByRatio(float(rng.uniform(1.0, 3.0))).groups(samples)
    expected = forecast(samples, groups, [5.0] * workers)
    algorithm = replace(hybrid(groups=groups), partition=ShuffleSplit())
    result = run(algorithm, logistic(0.1), two_classes(100), workers=workers, updates=6000,
                 engine=engine)  # fmt: skip
    seconds = result.clocks[-1]
    assert result.ledger.pieces * 5 / seconds == pytest.approx(expected.samples, rel=0.05)
    assert 6000 / seconds == pytest.approx(expected.updates, rel=0.05)
    for book, staleness, period in zip(result.ledger.groups, expected.staleness, expected.seconds,
                                       strict=True):  # fmt: skip
        if book["updates"] > 400:
            measured = book["staleness"] / book["updates"]
            assert measured == pytest.approx(staleness, rel=0.05, abs=0.05)
            assert seconds / book["updates"] == pytest.approx(period, rel=0.05)


def test_one_group_is_as_fast_as_its_slowest_and_a_group_a_worker_as_all_together():
    times = [np.array([[t, 0.0]]) for t in (1.0, 2.0, 4.0)]
    assert forecast(times, ((0, 1, 2),)).samples == 3 / 4
    assert forecast(times, ((0,), (1,), (2,))).samples == 1 + 1 / 2 + 1 / 4
    equal = [np.array([[1.0, 0.5]])] * 5
    assert forecast(equal, tuple((k,) for k in range(5))).staleness == [4.0] * 5


def test_the_slowest_of_random_workers_is_slower_than_each():
    draws = np.random.default_rng(0).exponential(size=(3, 4000))
    assert expected_maximum(list(draws)) == pytest.approx(1 + 1 / 2 + 1 / 3, rel=0.05)


# --- clustering ------------------------------------------------------------------------------


def seconds(*times):
    return [np.array([[t, 0.01]]) for t in times]


def test_equal_speeds_are_one_group():
    assert ByRatio().groups(seconds(1, 1, 1, 1)) == TOGETHER


def test_two_separated_speeds_are_two_groups():
    times = seconds(1, 5, 1.1, 5.3, 0.9)
    assert ByRatio().groups(times) == ((0, 2, 4), (1, 3))
    assert ByKMeans(2).groups(times) == ((0, 2, 4), (1, 3))


@pytest.mark.parametrize("rule", [ByRatio(), ByKMeans(2), ByKMeans()], ids=str)
def test_grouping_does_not_depend_on_the_order_of_the_workers(rule):
    times = [1.0, 1.05, 4.0, 4.3, 4.2, 1.1]
    expected = {frozenset(times[k] for k in group) for group in rule.groups(seconds(*times))}
    for order in itertools.islice(itertools.permutations(range(6)), 0, None, 13):
        groups = rule.groups(seconds(*(times[k] for k in order)))
        assert {frozenset(times[order[k]] for k in g) for g in groups} == expected


def test_the_ratio_is_to_the_groups_fastest_so_that_nothing_chains():
    times = [1.3**i for i in range(8)]
    groups = ByRatio(1.4).groups(seconds(*times))
    assert len(groups) == 4
    assert all(max(g) - min(g) <= 1 for g in groups)


def test_ratio_1_is_a_group_a_speed_and_a_huge_one_is_one_group():
    times = seconds(1, 2, 2, 3)
    assert ByRatio(1).groups(times) == ((0,), (1, 2), (3,))
    assert ByRatio(1e9).groups(times) == TOGETHER


def test_k_means_is_on_logarithms():
    """On raw times the spread of the slow ones would split them, not the fast from the faster."""
    times = seconds(1, 1.1, 10, 11, 100, 130)
    assert ByKMeans(3).groups(times) == ((0, 1), (2, 3), (4, 5))


def test_k_means_takes_the_most_groups_that_are_not_too_stale():
    times = seconds(1, 2, 4, 8)
    assert ByKMeans(max_staleness=100).groups(times) == ALONE
    assert ByKMeans(max_staleness=0).groups(times) == TOGETHER


# --- during a run ----------------------------------------------------------------------------


def test_groups_are_made_of_measured_speeds_and_remade_when_these_drift(two_classes, run):
    algorithm = hybrid()
    engine = Simulator(LogNormal(1e-3, 0.05), slow_share=0.5, slow_factor=4.0)
    trace = Trace()
    result = run(algorithm, logistic(0.1), two_classes(60), workers=K, updates=400, engine=engine,
                 trace=trace)  # fmt: skip
    assert [b["members"] for b in result.ledger.groups] == [[0, 1], [2, 3]]
    again = run(algorithm, logistic(0.1), two_classes(60), workers=K, updates=400,
                engine=Replay(trace))  # fmt: skip
    np.testing.assert_array_equal(again.models, result.models)


@pytest.mark.parametrize("name", ["asgd", "dc-asgd", "adaptive-revision"])
@pytest.mark.parametrize("engine", ["threads", "processes"])
def test_a_run_of_real_groups_is_repeated_to_the_bit(two_classes, run, engine, name):
    trace, algorithm = Trace(), hybrid(name, ((0, 2), (1, 3)))
    result = run(algorithm, logistic(0.1), two_classes(60), workers=K, updates=60, trace=trace,
                 engine=engine_class(engine)())  # fmt: skip
    again = run(algorithm, logistic(0.1), two_classes(60), workers=K, updates=60,
                engine=Replay(trace))  # fmt: skip
    np.testing.assert_array_equal(again.models, result.models)
    assert again.staleness == result.staleness


@pytest.mark.parametrize("inside", [{}, {"inner": "bmuf", "rounds": 2}, {"outer": "easgd-async"}],
                         ids=str)  # fmt: skip
@pytest.mark.parametrize("groups", [None, ((0, 1), (2, 3))], ids=str)
@pytest.mark.parametrize("cut", [3, 90, 200])
def test_a_resumed_run_is_the_uninterrupted_one(two_classes, run, inside, groups, cut):
    if inside.get("outer"):
        algorithm = build("hybrid", {**inside, "groups": groups, "inner.lr": 0.1,
                                     "batch_size": 5, "partition": "shuffle-split"})  # fmt: skip
    else:
        algorithm = hybrid(groups=groups, **inside)
    data, objective = two_classes(60), logistic(0.1)
    whole = run(algorithm, objective, data, workers=K, updates=260, engine=UNEVEN)
    part = run(algorithm, objective, data, workers=K, updates=cut, engine=UNEVEN)
    events = UNEVEN.run(whole.job, part.snapshot)
    for i in range(cut, 260):
        event = next(events)
        np.testing.assert_array_equal(algorithm.aggregate.model(event.server), whole.models[i])
        assert event.clock == whole.clocks[i]


def test_the_disciplines_are_three():
    kinds = [type(build(n).communicate) for n in ("ssgd", "asgd", "hybrid")]
    assert kinds == [Synchronous, Asynchronous, Grouped]
