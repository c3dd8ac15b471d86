"""What engines count, tell the server and hand over, whatever the algorithm is."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from time import perf_counter
from typing import ClassVar

import numpy as np
import pytest

from hemiola import engines
from hemiola.aggregate import Average, WeightedMean
from hemiola.algorithm import Algorithm
from hemiola.communicate import Asynchronous, Synchronous
from hemiola.component import component
from hemiola.engines._executor import refuse_unsupported
from hemiola.engines.serial import Serial
from hemiola.engines.simulator import Constant, Simulator
from hemiola.engines.threads import Threads
from hemiola.errors import CheckpointError, DivergedError, OptionError, UnsupportedError
from hemiola.job import PUSH, Trace
from hemiola.objectives import squared
from hemiola.partition import ShuffleSplit
from hemiola.training import fit
from hemiola.types import freeze

ENGINES = [Serial(), Threads(), Simulator()]
D = 4


@dataclass
class Steps:
    """Worker k sends k + 1 everywhere, after 2 steps; messages of 8 D + 8 bytes."""

    tasks: list[tuple[int, int]] = field(default_factory=list)

    def init(self, w0):
        return {"t": 0, "seen": []}

    def work(self, state, down, task):
        self.tasks.append((task.worker, task.step))
        state["t"] += 2
        state["seen"].append(down["w"].copy())
        return state, freeze(w=np.full(D, task.worker + 1.0), weight=np.array(task.worker + 1.0))


@dataclass
class Told:
    """An aggregate that remembers what it was told."""

    infos: list = field(default_factory=list)
    ups: list = field(default_factory=list)

    def init(self, w0, workers):
        return Average().init(w0, workers)

    def pull(self, state, worker):
        return Average().pull(state, worker)

    def push(self, state, up, info):
        self.infos.append(info)
        self.ups.append(np.array(up["w"]))
        return Average().push(state, {"w": up["w"].copy()}, info)

    def model(self, state):
        return state["w"]


def algorithm(discipline):
    return Algorithm("test", ShuffleSplit(), Steps(), discipline, WeightedMean(), Told())


@pytest.fixture
def go(line, run):
    """(discipline, engine, workers, updates) -> algorithm and run."""

    def start(discipline, engine, workers=3, updates=5, seed=0):
        chosen = algorithm(discipline)
        return chosen, run(
            chosen,
            squared(),
            line(30, D - 1),
            workers=workers,
            updates=updates,
            engine=engine,
            seed=seed,
        )

    return start


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_a_round_is_two_messages_a_member(go, engine):
    _, result = go(Synchronous(), engine)
    ledger = result.ledger
    assert (ledger.messages, ledger.local_steps) == (2 * 3 * 5, 2 * 3 * 5)
    assert ledger.bytes_down == 3 * 5 * 8 * D
    assert ledger.bytes_up == 3 * 5 * (8 * D + 8)
    assert ledger.updates == [5, 5, 5]
    assert ledger.staleness == [5]


@pytest.mark.parametrize("engine", [Serial(), Simulator()], ids=lambda e: e.name)
def test_an_asynchronous_update_is_one_message_each_way(go, engine):
    _, result = go(Asynchronous(), engine, updates=7)
    ledger = result.ledger
    assert ledger.bytes_up == 7 * (8 * D + 8)
    assert ledger.bytes_down == (3 + 7) * 8 * D  # everyone's first model as well
    assert ledger.messages == 7 + 3 + 7
    assert ledger.local_steps == 14
    assert ledger.updates == [3, 2, 2]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_the_server_is_told_about_rounds(go, engine):
    chosen, result = go(Synchronous(0.67), engine, updates=6)
    for step, info in enumerate(chosen.aggregate.infos):
        assert info.step == step
        assert tuple(info.workers) == result.workers[step]
        assert info.weight == sum(k + 1 for k in info.workers)
        assert (info.staleness, info.n_workers) == (0, 3)
    assert len(set(result.workers)) > 1


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_the_members_messages_are_joined_by_weight(go, engine):
    chosen, result = go(Synchronous(0.67), engine, updates=6)
    for members, up in zip(result.workers, chosen.aggregate.ups, strict=True):
        values = np.array(members) + 1.0
        np.testing.assert_allclose(up, np.average(values, weights=values))


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_the_server_is_told_about_single_messages(go, engine):
    chosen, result = go(Asynchronous(), engine, updates=9)
    for step, info in enumerate(chosen.aggregate.infos):
        assert (info.step, info.n_workers) == (step, 3)
        assert tuple(info.workers) == result.workers[step]
        assert info.weight == info.workers[0] + 1
        assert info.staleness == result.staleness[step]
        assert (chosen.aggregate.ups[step] == info.workers[0] + 1).all()


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_tasks_are_numbered_by_round_or_by_the_workers_own_count(go, engine):
    chosen, _ = go(Synchronous(), engine, updates=4)
    assert sorted(chosen.local.tasks) == [(k, r) for k in range(3) for r in range(4)]
    chosen, result = go(Asynchronous(), engine, updates=8)
    for k in range(3):
        steps = [step for worker, step in chosen.local.tasks if worker == k]
        assert steps == list(range(len(steps)))
        assert len(steps) >= result.ledger.updates[k]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_all_members_of_a_round_start_from_one_model(go, engine):
    _, result = go(Synchronous(), engine, updates=4)
    seen = [state["seen"] for state in result.snapshot["workers"]]
    expected = [result.w0, *result.models[:-1]]
    for worker in seen:
        np.testing.assert_array_equal(worker, expected)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_a_worker_that_never_took_part_has_no_state(go, engine):
    _, result = go(Synchronous(0.0), engine, workers=6, updates=2)
    states = result.snapshot["workers"]
    took_part = {members[0] for members in result.workers}
    assert {k for k, state in enumerate(states) if state is not None} == took_part


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
@pytest.mark.parametrize("discipline", [Synchronous(), Asynchronous()], ids=str)
def test_events_count_updates_and_time_goes_on(go, engine, discipline):
    chosen = algorithm(discipline)
    _, result = go(discipline, engine)
    job = replace(result.job, algorithm=chosen)
    with closing(engine.run(job)) as events:
        found = [(event.step, event.clock) for event in islice(events, 8)]
    assert [step for step, _ in found] == list(range(1, 9))
    clocks = [clock for _, clock in found]
    assert clocks == sorted(clocks) and clocks[0] >= 0


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
@pytest.mark.parametrize("discipline", [Synchronous(), Asynchronous()], ids=str)
def test_a_resumed_clock_and_ledger_go_on(go, engine, discipline):
    _, result = go(discipline, engine)
    saved = result.snapshot
    with closing(engine.run(result.job, saved)) as events:
        event = next(events)
        assert event.step == saved["step"] + 1
        assert event.clock >= saved["clock"]
        assert sum(event.ledger.updates) > sum(saved["ledger"]["updates"])
        assert event.ledger.bytes_up > saved["ledger"]["bytes_up"]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_a_snapshot_holds_all_that_a_run_consists_of(go, engine):
    everything = {"step", "clock", "server", "ledger", "read", "local_steps", "ticks", "away",
                  "workers", "pending", "trace", "begun", "executor", "at_work"}  # fmt: skip
    _, result = go(Synchronous(), engine)
    assert result.snapshot.keys() == everything
    assert (result.snapshot["pending"], result.snapshot["ticks"]) == ([], [5, 5, 5])
    assert result.snapshot["at_work"] == []
    _, result = go(Asynchronous(), engine)
    saved = result.snapshot
    assert saved.keys() == everything | {"parked"}
    assert sorted(arrival["worker"] for arrival in saved["pending"]) == [0, 1, 2]
    assert saved["at_work"] == [0, 1, 2]
    assert saved["ticks"] == result.ledger.updates
    assert saved["local_steps"] == [2 * ticks for ticks in saved["ticks"]]
    assert [state["t"] for state in saved["workers"]] == [2 * (n + 1) for n in saved["ticks"]]
    assert (saved["away"], saved["parked"], saved["trace"]) == ([], {}, None)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_a_worker_reads_before_every_nth_piece_of_work_only(line, run, engine):
    chosen = replace(algorithm(Asynchronous(fetch_every=3)), local=Reads())
    run(chosen, squared(), line(30, D - 1), workers=2, updates=14, engine=engine)
    assert {read for _, step, read in chosen.local.reads if step % 3 == 0} == {True}
    assert {read for _, step, read in chosen.local.reads if step % 3} == {False}


@dataclass
class Reads:
    """Notes which pieces of work began with a model."""

    reads: list[tuple[int, int, bool]] = field(default_factory=list)

    def init(self, w0):
        return {"t": 0}

    def work(self, state, down, task):
        self.reads.append((task.worker, task.step, "w" in down))
        state["t"] += 1
        return state, freeze(w=np.zeros(D), weight=np.array(1.0))


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_message_that_is_not_finite_is_refused_and_counted(line, run, engine, value):
    chosen = replace(algorithm(Asynchronous(max_lead=2)), local=Spoils(value=value, every=2))
    trace = Trace()
    result = run(
        chosen, squared(), line(30, D - 1), workers=3, updates=20, engine=engine, trace=trace
    )
    assert all(np.isfinite(model).all() for model in result.models)
    assert [info.step for info in chosen.aggregate.infos] == list(range(20))
    assert result.ledger.refused > 0
    assert result.ledger.bytes_up == (20 + result.ledger.refused) * (8 * D + 8)
    assert list(trace.kinds).count(PUSH) == 20 + result.ledger.refused


@dataclass
class Spoils(Steps):
    """The last worker's every ``every``-th message is of no use."""

    value: float = 0.0
    every: int = 1

    def work(self, state, down, task):
        state, up = super().work(state, down, task)
        if task.worker == task.n_workers - 1 and task.step % self.every == 0:
            up = freeze(**{**up, "w": np.full(D, self.value)})
        return state, up


@pytest.mark.parametrize("engine", [Serial(), Simulator()], ids=lambda e: e.name)
def test_nothing_but_useless_messages_ends_the_run(line, run, engine):
    chosen = replace(algorithm(Asynchronous()), local=Spoils(value=np.nan))
    with pytest.raises(DivergedError, match="the last 101 messages held NaN or infinite values"):
        run(chosen, squared(), line(30, D - 1), workers=1, updates=1, engine=engine)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
@pytest.mark.parametrize("discipline", [Synchronous(), Asynchronous()], ids=str)
def test_a_trace_goes_on_after_a_resume(line, run, engine, discipline):
    trace = Trace()
    result = run(
        algorithm(discipline), squared(), line(30, D - 1), workers=3, updates=4, engine=engine,
        trace=trace,
    )  # fmt: skip
    saved = result.snapshot["trace"]
    noted = len(saved["kinds"])
    assert list(saved["kinds"]).count(PUSH) == sum(result.ledger.updates)
    again = replace(result.job, trace=Trace())
    with closing(engine.run(again, result.snapshot)) as events:
        next(events)
        assert list(again.trace.kinds)[:noted] == saved["kinds"].tolist()
        assert list(again.trace.workers)[:noted] == saved["workers"].tolist()
        assert list(again.trace.seconds)[:noted] == saved["seconds"].tolist()
        assert len(again.trace.kinds) > noted
        assert list(again.trace.seconds) == sorted(again.trace.seconds)


def test_a_run_without_a_trace_cannot_be_resumed_with_one(go):
    _, result = go(Asynchronous(), Serial())
    with pytest.raises(CheckpointError, match="without a trace"):
        next(Serial().run(replace(result.job, trace=Trace()), result.snapshot))


def spin(seconds):
    """Be busy for so long; returns how long it was."""
    start = perf_counter()
    while perf_counter() - start < seconds:
        pass
    return perf_counter() - start


@pytest.mark.parametrize("engine", [Serial(), Threads()], ids=lambda e: e.name)
def test_the_callers_time_is_not_counted(go, engine):
    _, result = go(Synchronous(), engine)
    with closing(engine.run(result.job)) as events:
        clock, busy, counted = next(events).clock, [], []
        for event in islice(events, 4):
            counted.append(event.clock - clock)
            busy.append(spin(0.05))
            clock = event.clock
    assert min(counted[1:]) < 0.5 * min(busy)


@dataclass
class Busy(Steps):
    """A worker that takes its time."""

    def work(self, state, down, task):
        spin(2e-3)
        return super().work(state, down, task)


def test_taking_turns_is_not_waiting(go):
    _, result = go(Asynchronous(), Serial())
    job = replace(result.job, algorithm=replace(algorithm(Asynchronous()), local=Busy()))
    for event in islice(Serial().run(job), 20):
        waited, clock = event.ledger.waiting, event.clock
    assert waited < 0.5 * clock


def test_engines_are_found_by_name():
    for name in engines.names():
        engine = engines.engine_class(name)()
        assert engine.name == name
        assert Synchronous in engine.supports
    assert {"serial", "threads", "simulator"} <= set(engines.names())


def test_an_unknown_engine_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match="no engine 'thread'; did you mean 'threads'"):
        engines.engine_class("thread")
    with pytest.raises(OptionError, match=r"no engine 'xyz'; known are: .*serial, simulator"):
        engines.engine_class("xyz")


def test_an_engine_without_the_discipline_refuses_by_name(go):
    @component
    class RoundsOnly:
        name: ClassVar[str] = "rounds-only"
        supports: ClassVar[frozenset[type]] = frozenset({Synchronous})

        def run(self, job, resume=None):
            refuse_unsupported(job, self.name, self.supports, "serial or simulator")
            return Serial().run(job, resume)

    _, result = go(Asynchronous(), Serial())
    with pytest.raises(
        UnsupportedError,
        match="rounds-only has no asynchronous discipline, which test needs; use serial or",
    ):
        RoundsOnly().run(result.job)
    _, result = go(Synchronous(), Serial())
    assert next(RoundsOnly().run(result.job)).step == 1


def test_engines_refuse_unknown_options():
    with pytest.raises(OptionError, match="Simulator: there is no option 'lag'"):
        Simulator(lag=1.0)
    with pytest.raises(OptionError, match="Serial"):
        Serial(workers=3)


def test_one_shot_averaging_is_one_round_however_many_are_asked_for(two_classes):
    result = fit("one-shot-averaging", "logistic", two_classes(), rounds=50)
    assert result.history.last.rounds == 1
    assert result.history.last.messages == 2 * 4


def test_threads_never_exceed_the_workers(go):
    _, result = go(Synchronous(), Threads(), workers=7, updates=3)
    assert result.ledger.updates == [3] * 7


def test_simulated_time_is_no_wall_time(go):
    _, result = go(Synchronous(), Simulator(Constant(1e6)), updates=3)
    assert result.clocks == [2e6, 4e6, 6e6]
