"""Every algorithm on every engine: the same bits, or a refusal that names the engine."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import numpy as np
import pytest

from hemiola import engines
from hemiola.communicate import Asynchronous
from hemiola.engines.simulator import LogNormal, Simulator, Stragglers
from hemiola.engines.threads import Threads
from hemiola.errors import UnsupportedError
from hemiola.job import PULL, PUSH, Trace
from hemiola.objectives import logistic
from hemiola.partition import Dirichlet
from hemiola.training import fit

IN_PROCESS = ("serial", "threads", "simulator")
UNEVEN = Simulator(LogNormal(1e-3, 1.0), latency=1e-3, slow_share=0.4, slow_factor=7.0)
ROUNDED = "lbfgs"
"""Draws nothing, and what is dealt to whom changes the rounding of sums, if anything."""


def bits(algorithm, data, *, objective="logistic", **options):
    options = {"rounds": 6, "workers": 4} | options
    return fit(algorithm, objective, data, **options).model.sha256


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("workers", [1, 2, 4, 7])
def test_synchronous_algorithms_give_the_same_bits_on_every_engine(
    synchronous_recipe, algorithm, two_classes, workers, csr
):
    chosen, data = algorithm(synchronous_recipe), two_classes(60, csr=csr)
    found = []
    for seed in range(3):
        shas = {bits(chosen, data, engine=e, workers=workers, seed=seed) for e in IN_PROCESS}
        assert len(shas) == 1
        found += shas
    if synchronous_recipe not in (ROUNDED, "admm-sharing"):  # which deals and draws nothing
        assert len(set(found)) == 3, "another seed gives other bits"


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_the_same_bits_in_single_precision(synchronous_recipe, algorithm, two_classes, csr):
    data = two_classes(60, csr=csr, dtype=np.float32)
    chosen = algorithm(synchronous_recipe)
    assert len({bits(chosen, data, engine=engine) for engine in IN_PROCESS}) == 1
    assert fit(chosen, "logistic", data, rounds=1).weights.dtype == np.float32


@pytest.mark.parametrize("objective", ["softmax", "hinge", "squared"])
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_the_same_bits_for_every_loss(algorithm, two_classes, line, objective, csr):
    data = line(60, csr=csr) if objective == "squared" else two_classes(60, csr=csr)
    chosen = algorithm("bmuf")
    assert len({bits(chosen, data, objective=objective, engine=e) for e in IN_PROCESS}) == 1


@pytest.mark.parametrize("draw", ["shuffled", "replacement", "bernoulli"])
@pytest.mark.parametrize(
    "partition",
    ["shuffle-split", "random-sampling", "contiguous", "by-label", "dirichlet", "whole"],
)
def test_the_same_bits_for_every_way_to_deal_and_draw(algorithm, two_classes, partition, draw):
    chosen = algorithm("model-averaging", partition=partition, draw=draw)
    assert len({bits(chosen, two_classes(60), engine=engine) for engine in IN_PROCESS}) == 1


@pytest.mark.parametrize("carry", ["keep", "reset", "average"])
@pytest.mark.parametrize("optimizer", ["heavy-ball", "nesterov", "adagrad", "adam", "adamw"])
def test_the_same_bits_for_every_local_optimiser(algorithm, two_classes, optimizer, carry):
    chosen = algorithm("bmuf", optimizer=optimizer, carry=carry)
    assert len({bits(chosen, two_classes(60), engine=engine) for engine in IN_PROCESS}) == 1


@pytest.mark.parametrize(
    "engine", [UNEVEN, Simulator(Stragglers(1e-3, 0.3), bandwidth=1e4)], ids=["uneven", "wire"]
)
def test_timing_does_not_change_a_synchronous_run(
    synchronous_recipe, algorithm, two_classes, engine
):
    chosen, data = algorithm(synchronous_recipe), two_classes(60)
    assert bits(chosen, data, engine=engine) == bits(chosen, data, engine="serial")


def test_timing_changes_an_asynchronous_run(asynchronous_recipe, algorithm, two_classes):
    chosen, data = algorithm(asynchronous_recipe), two_classes(60)
    assert bits(chosen, data, engine=UNEVEN) != bits(chosen, data, engine="simulator")


def test_equal_workers_take_turns_as_the_serial_engine_does(
    asynchronous_recipe, algorithm, two_classes
):
    chosen, data = algorithm(asynchronous_recipe), two_classes(60)
    for workers in (1, 2, 4, 7):
        shas = {bits(chosen, data, engine=e, workers=workers) for e in ("serial", "simulator")}
        assert len(shas) == 1


@pytest.mark.parametrize("engine", ["serial", "simulator", UNEVEN], ids=str)
def test_the_same_seed_gives_the_same_bits(any_recipe, algorithm, two_classes, engine):
    chosen, data = algorithm(any_recipe), two_classes(60)
    first, again, other = (bits(chosen, data, engine=engine, seed=seed) for seed in (3, 3, 4))
    assert first == again
    draws = any_recipe != "sandblaster" or engine is UNEVEN  # batches, or at least timings
    if any_recipe != ROUNDED:
        assert (first != other) == (draws and any_recipe != "admm-sharing")


def test_every_engine_runs_every_algorithm_or_refuses_by_name(any_recipe, algorithm, two_classes):
    chosen = algorithm(any_recipe)
    for name in IN_PROCESS:
        engine = engines.engine_class(name)()
        if type(chosen.communicate) in engine.supports:
            assert fit(chosen, "logistic", two_classes(60), engine=engine, rounds=2).weights.size
        else:
            with pytest.raises(UnsupportedError, match=name):
                fit(chosen, "logistic", two_classes(60), engine=engine, rounds=2)


def test_every_algorithm_learns(any_recipe, algorithm, two_classes):
    chosen = algorithm(any_recipe)
    if isinstance(chosen.partition, Dirichlet):
        chosen = algorithm(any_recipe, partition="shuffle-split")
    result = fit(chosen, "logistic", two_classes(120), rounds=60, seed=1)
    losses = result.history.column("loss")
    assert losses[-1] < 0.9 * losses[0]
    assert result.history.last.score > 0.7


def test_the_ledger_is_the_same_on_every_engine(synchronous_recipe, algorithm, two_classes):
    counted = []
    for engine in IN_PROCESS:
        result = fit(
            algorithm(synchronous_recipe), "logistic", two_classes(60), engine=engine, rounds=5
        )
        last = result.history.last
        counted.append(
            (last.updates, last.local_steps, last.bytes_up, last.bytes_down, last.messages)
        )
        assert sum(result.history.worker_updates) * 2 == last.messages
    assert len(set(counted)) == 1


def test_asynchronous_threads_count_every_update_and_learn(
    asynchronous_recipe, algorithm, two_classes
):
    chosen = algorithm(asynchronous_recipe)
    every = chosen.communicate.fetch_every
    for workers in (1, 2, 5):
        result = fit(
            chosen,
            "logistic",
            two_classes(120),
            engine="threads",
            workers=workers,
            rounds=80,
        )
        history = result.history
        updates = history.last.updates
        assert updates == 80 * workers
        assert sum(history.worker_updates) == sum(history.staleness) == updates
        assert history.last.loss < 0.9 * history.records[0].loss
        assert workers > 1 or history.staleness == [updates // every] * every


def test_asynchronous_threads_never_lose_an_update(
    asynchronous_recipe, algorithm, run, two_classes
):
    chosen = algorithm(asynchronous_recipe, lr=0.1)
    assert isinstance(chosen.communicate, Asynchronous)
    data = two_classes(60)
    trace = Trace()
    result = run(
        chosen, logistic(0.01), data, workers=4, updates=200, engine=Threads(), trace=trace
    )
    assert sum(result.ledger.updates) == sum(result.ledger.staleness) == 200
    assert result.ledger.updates == [result.workers.count((k,)) for k in range(4)]
    assert result.staleness == traced_staleness(trace, chosen.communicate.fetch_every)[:200]
    assert sum(result.ledger.lead) == list(trace.kinds).count(PULL)


def traced_staleness(trace, fetch_every):
    """How old each update was, by what the trace says about who read when."""
    begun, read, found = Counter(), {}, []
    for kind, worker in zip(trace.kinds, trace.workers, strict=True):
        if kind == PUSH:
            found.append(len(found) - read[worker])
        elif begun[worker] % fetch_every == 0:
            read[worker] = len(found)
        begun[worker] += kind == PULL
    return found


@pytest.mark.parametrize("engine", [*IN_PROCESS, UNEVEN], ids=str)
@pytest.mark.parametrize("s", [0, 1, 3])
@pytest.mark.parametrize("view", ["plain", "strict"])
def test_nobody_begins_further_ahead_than_allowed(algorithm, run, two_classes, engine, s, view):
    chosen = algorithm("ssp", lr=0.1, s=s, view=view)
    engine = engines.engine_class(engine)() if isinstance(engine, str) else engine
    trace = Trace()
    result = run(
        chosen, logistic(0.01), two_classes(60), workers=4, updates=80, engine=engine, trace=trace
    )
    ticks, leads = [0] * 4, Counter()
    for kind, worker in zip(trace.kinds, trace.workers, strict=True):
        if kind == PUSH:
            ticks[worker] += 1
        else:
            leads[ticks[worker] - min(ticks)] += 1
    assert max(leads) <= s
    assert result.ledger.lead == [leads[lead] for lead in range(max(leads) + 1)]
    if engine is UNEVEN:
        assert max(leads) == s, "the bound is reached where workers differ"


def test_closing_the_iterator_twice_is_harmless(algorithm, run, two_classes):
    job = run(algorithm("ssgd", lr=0.1), logistic(0.01), two_classes(), workers=2, updates=1).job
    with closing(Threads().run(job)) as events:
        next(events)
        events.close()
