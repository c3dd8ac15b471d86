"""Two hundred random schedules of faults on real threads and processes.

Whatever happens, a run does not hang, loses no update and applies none twice, and ends either with
the updates that were asked for or with the error of its own policy.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections import Counter
from contextlib import closing, contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from hemiola.algorithms.registry import build
from hemiola.communicate import Synchronous
from hemiola.dataset import make_dataset
from hemiola.engines.processes import Processes
from hemiola.engines.serial import Serial
from hemiola.engines.threads import Threads
from hemiola.errors import DivergedError, WorkersLostError
from hemiola.faults import Die, Hang, Poison, Slow, Stall
from hemiola.job import JOIN, LEAVE, PULL, PUSH, Job, Trace
from hemiola.objectives import logistic
from hemiola.partition import Shards
from hemiola.training import fit

WORKERS = {"threads": 4, "processes": 3}
HARD_LIMIT = 30
ALGORITHMS = {
    "asgd": {"lr": 0.1},
    "ssp": {"lr": 0.1, "s": 1},
    "ssgd": {"lr": 0.1},
    "model-averaging": {"lr": 0.1, "steps": 2},
}
ENGINES = {"threads": Threads(), "processes": Processes(timeout=0.6)}
SCHEDULES = [("threads", seed) for seed in range(120)]
if sys.platform == "linux":
    SCHEDULES += [("processes", seed) for seed in range(80)]


def data():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(80, 3))
    return make_dataset(X, (X @ rng.normal(size=3) + rng.normal(size=80) > 0).astype(int))


DATA = data()


@dataclass(frozen=True)
class Counting:
    """A server that remembers what it was told. Workers get the plain one: they need not import
    this module."""

    inner: Any
    infos: list[Any] = field(default_factory=list)

    def __reduce__(self):
        return copy, (self.inner,)

    def init(self, w0, workers):
        return self.inner.init(w0, workers)

    def pull(self, state, worker):
        return self.inner.pull(state, worker)

    def push(self, state, up, info):
        assert all(np.isfinite(array).all() for array in up.values())
        self.infos.append(info)
        return self.inner.push(state, up, info)

    def model(self, state):
        return self.inner.model(state)


@dataclass(frozen=True)
class Case:
    """One schedule: what runs, what befalls it, and whether it must get through."""

    algorithm: Any
    faults: tuple[Any, ...]
    updates: int = 0
    workers: int = 4

    @property
    def policy(self):
        return self.algorithm.communicate

    @property
    def synchronous(self):
        return isinstance(self.policy, Synchronous)

    def spared(self):
        """The workers that go on for ever and tell no rubbish."""
        return set(range(self.workers)) - {
            fault.worker
            for fault in self.faults
            if isinstance(fault, Hang)
            or (isinstance(fault, Die) and fault.back_after is None)
            or (isinstance(fault, Poison) and fault.until is None)
        }

    def hangs(self):
        return any(isinstance(fault, Hang) for fault in self.faults)

    def babbles(self):
        return any(isinstance(fault, Poison) and fault.until is None for fault in self.faults)

    def must_get_through(self, engine):
        """Policies forgive everything, and somebody is left who can do the work."""
        waits = self.hangs() and engine == "threads"  # where no process is killed
        if not self.spared():
            return False
        if not self.synchronous:  # a quick worker may send a hundred NaN while the others stall
            return not (waits and self.policy.max_lead is not None) and not self.babbles()
        policy = self.policy
        patient = policy.timeout is None or policy.late == "drop"
        return policy.on_loss == "drop" and patient and (policy.timeout is not None or not waits)


def some_faults(rng, engine):
    late = 0.004 if engine == "threads" else 0.02
    for _ in range(rng.integers(1, 5)):
        worker, at = int(rng.integers(WORKERS[engine])), int(rng.integers(7))
        yield {
            "die": Die(worker, at),
            "return": Die(worker, at, float(rng.choice([0.0, late]))),
            "hang": Hang(worker, at),
            "poison": Poison(worker, at, [None, at + 1, at + 4][rng.integers(3)]),
            "slow": Slow(worker, float(rng.uniform(1, 20)), at),
            "stall": Stall(worker, float(rng.random()), late),
        }[rng.choice(["die", "return", "hang", "poison", "slow", "stall"])]


def some_policy(rng, engine):
    return {
        "timeout": [None, 0.01 if engine == "threads" else 0.05][rng.integers(2)],
        "late": str(rng.choice(["drop", "drop", "raise"])),
        "backups": int(rng.choice([0, 0, 1, 2, 5])),
        "on_loss": str(rng.choice(["drop", "drop", "raise", "restart"])),
    }


def some_case(engine, seed):
    rng = np.random.default_rng([seed, engine == "processes"])
    name = str(rng.choice(list(ALGORITHMS)))
    made = build(name, ALGORITHMS[name])
    workers = WORKERS[engine]
    updates = 15 * workers
    if isinstance(made.communicate, Synchronous):
        updates = 15
        made = replace(made, communicate=Synchronous(**some_policy(rng, engine)))
    faults = list(some_faults(rng, engine))
    if rng.random() < 0.5:  # so slow that who died is back in time
        faults += [Stall(worker, 0.5, 0.003) for worker in range(workers)]
    return Case(made, tuple(faults), updates, workers)


@contextmanager
def hard_limit(seconds):
    def stop(number, frame):
        raise TimeoutError(f"nothing has happened for {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def nobody_is_left_behind():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    assert not multiprocessing.active_children()


def job_of(case):
    made = replace(case.algorithm, aggregate=Counting(case.algorithm.aggregate))
    source = Shards(DATA, made.partition, case.workers, 0)
    return Job(
        made, logistic(0.01), source, case.workers, 0, np.ones(4), Trace(), faults=case.faults
    )


@pytest.mark.parametrize(("engine", "seed"), SCHEDULES)
def test_whatever_happens(engine, seed, tmp_path):
    case = some_case(engine, seed)
    with hard_limit(HARD_LIMIT):
        if case.synchronous and case.policy.on_loss == "restart":
            check_with_restarts(case, engine, tmp_path)
        else:
            check(case, engine)


def check(case, engine):
    job = job_of(case)
    event = None
    try:
        with closing(ENGINES[engine].run(job)) as events:
            for event in events:
                check_event(event, job)
                if event.step == case.updates:
                    break
    except (WorkersLostError, DivergedError) as error:
        assert not case.must_get_through(engine), error
        assert len(job.algorithm.aggregate.infos) == (0 if event is None else event.step)
        return
    check_books(event.ledger, job)


def check_event(event, job):
    infos = job.algorithm.aggregate.infos
    assert event.step == len(infos) == infos[-1].step + 1
    counts = [sum(k in info.workers for info in infos) for k in range(job.workers)]
    assert event.ledger.updates == counts
    check_books(event.ledger, job)


def check_books(ledger, job):
    """The ledger against the trace, which is kept elsewhere."""
    count, open_, away = Counter(job.trace.kinds), set(), set()
    lost = 0
    for kind, worker in zip(job.trace.kinds, job.trace.workers, strict=True):
        if kind == PULL:
            assert worker not in open_ and worker not in away
            open_.add(worker)
        elif kind == PUSH:
            open_.remove(worker)
        elif kind == LEAVE:
            lost += worker in open_
            open_.discard(worker)
            away.add(worker)
        else:
            away.remove(worker)
    applied = sum(ledger.updates)
    assert count[PULL] == ledger.sent
    assert count[PUSH] == applied + ledger.refused + ledger.late
    assert (count[LEAVE], count[JOIN], lost) == (ledger.left, ledger.joined, ledger.lost)
    assert ledger.sent == applied + ledger.refused + ledger.late + ledger.lost + len(open_)
    assert ledger.in_flight == len(open_)
    assert sum(ledger.deaths) == ledger.left


def check_with_restarts(case, engine, place):
    start = {"rounds": case.updates, "workers": case.workers, "w0": np.ones(4), "eval_every": 2}
    try:
        result = fit(
            case.algorithm, logistic(0.01), DATA, engine=ENGINES[engine], faults=case.faults,
            checkpoint=place, **start,
        )  # fmt: skip
    except (WorkersLostError, DivergedError):
        assert case.faults
        return
    history = result.history
    assert history.last.updates == case.updates
    assert history.restarts <= 3
    done = sum(history.worker_updates) + history.refused + history.late + history.lost
    assert 0 <= history.sent - done <= case.workers
    if case.policy.timeout is None and case.policy.backups == 0:
        undisturbed = fit(case.algorithm, logistic(0.01), DATA, checkpoint=place / "x", **start)
        assert result.model.sha256 == undisturbed.model.sha256


def test_the_schedules_hold_everything():
    cases = [some_case(*schedule) for schedule in SCHEDULES]
    assert {type(fault) for case in cases for fault in case.faults} == {
        Die, Hang, Poison, Slow, Stall
    }  # fmt: skip
    assert {case.algorithm.name for case in cases} == set(ALGORITHMS)
    policies = [case.policy for case in cases if case.synchronous]
    for name, values in {"late": 2, "on_loss": 3, "timeout": 2, "backups": 4}.items():
        assert len({getattr(policy, name) for policy in policies} - {0.05}) == values
    assert sum(case.must_get_through(schedule[0]) for case, schedule in zip(
        cases, SCHEDULES, strict=True)) > 80  # fmt: skip


# --- one thing at a time -----------------------------------------------------------------------


def events_until(engine, case, wanted, limit=100_000):
    """The events up to the first one that is wanted."""
    job = job_of(case)
    with hard_limit(HARD_LIMIT), closing(engine.run(job)) as events:
        for event in events:
            check_books(event.ledger, job)
            if wanted(event):
                return event
            assert event.step < limit
    raise AssertionError


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["asgd", "ssgd"])
def test_who_died_comes_back(engine, name):
    slow = tuple(Stall(worker, 1.0, 0.005) for worker in range(4))
    case = Case(build(name, {"lr": 0.1}), (*slow, Die(1, 2, 0.02)))
    back = events_until(ENGINES[engine], case, lambda event: event.ledger.joined == 1)
    assert (back.ledger.left, back.ledger.lost) == (1, 1)
    again = events_until(ENGINES[engine], case, lambda event: event.ledger.updates[1] > 4)
    assert again.ledger.left == again.ledger.joined == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_waits_for_its_only_worker_to_come_back(engine):
    made = build("ssgd", {"lr": 0.1})
    source = Shards(DATA, made.partition, 1, 0)
    job = Job(made, logistic(0.01), source, 1, 0, np.ones(4), faults=(Die(0, 1, 0.05),))
    with hard_limit(HARD_LIMIT), closing(ENGINES[engine].run(job)) as events:
        steps = [next(events).step for _ in range(4)]
    assert steps == [1, 2, 3, 4]


@pytest.mark.parametrize("engine", ENGINES)
def test_nobody_waits_for_a_hung_worker_with_a_timeout(engine):
    case = Case(build("ssgd", {"lr": 0.1, "timeout": 1.0}), (Hang(2, 3),))
    engine = {"threads": Threads(), "processes": Processes()}[engine]
    event = events_until(engine, case, lambda event: event.step == 20)
    assert (event.ledger.updates, event.ledger.in_flight) == ([20, 20, 3, 20], 1)


def test_a_process_that_hangs_is_killed_without_a_timeout_of_the_round():
    case = Case(build("ssgd", {"lr": 0.1}), (Hang(2, 3),))
    event = events_until(ENGINES["processes"], case, lambda event: event.step == 6)
    assert (event.ledger.left, event.ledger.lost) == (1, 1)


@pytest.mark.parametrize("name", ["ssgd", "ssp"])
def test_threads_say_so_when_only_hung_workers_are_left(name):
    case = Case(build(name, {"lr": 0.1}), (Hang(2, 3),))
    with pytest.raises(WorkersLostError, match="worker 2 will never answer"):
        events_until(Threads(), case, lambda event: False)


@pytest.mark.parametrize("first", ENGINES)
@pytest.mark.parametrize("second", ["serial", *ENGINES])
def test_a_snapshot_with_late_and_dead_workers_is_resumed_anywhere(first, second):
    made = build("ssgd", {"lr": 0.1, "timeout": 0.05, "backups": 1})
    faults = (Stall(0, 1.0, 0.2), Hang(1, 2), Die(2, 3))
    job = replace(job_of(Case(made, faults)), trace=None)
    with hard_limit(HARD_LIMIT), closing(ENGINES[first].run(job)) as events:
        found = (event.snapshot() for event in events if event.step >= 8)
        hung = (saved for saved in found if saved["ticks"][1] == 2)  # worker 1, with its third
        saved = next(saved for saved in hung if {0, 1} <= {*saved["at_work"]})
    engine = {**ENGINES, "serial": Serial()}[second]
    job = replace(job, faults=() if second == "serial" else job.faults)
    with hard_limit(HARD_LIMIT), closing(engine.run(job, saved)) as events:
        later = (event for event in events if event.step >= saved["step"] + 6)
        event = next(event for event in later if event.ledger.late > saved["ledger"]["late"])
    before, after = saved["ledger"], event.ledger
    assert 0 <= after.in_flight <= 4
    assert sum(after.updates) > sum(before["updates"])
    if second == "processes":  # who hung is there again
        assert after.joined > before["joined"]
