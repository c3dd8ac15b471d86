"""Faults on order and the policies of rounds, in virtual time: who is waited for, until when."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, model_averaging, ssgd, ssp
from hemiola.algorithms.registry import build
from hemiola.communicate import Synchronous
from hemiola.engines._executor import Arrival
from hemiola.engines._server import Server
from hemiola.engines.serial import Serial
from hemiola.engines.simulator import Constant, LogNormal, Simulator
from hemiola.errors import (
    DivergedError,
    WorkersLostError,
)
from hemiola.faults import Die, Hang, Poison, Slow, Stall
from hemiola.job import LEAVE, PULL, PUSH, Trace
from hemiola.optim import SGD
from hemiola.rng import stream
from hemiola.training import fit

K = 4
SECOND = Simulator(Constant(1.0))
ROUNDS = ssgd(SGD(0.1), MiniBatch(4))
TURNS = asgd(SGD(0.1), MiniBatch(4))


ALL, FIRST = (0, 1, 2, 3), (0, 1, 2)


# --- what befalls whom -------------------------------------------------------------------------


def test_a_slow_worker_computes_longer_from_a_piece_on(rounds):
    clocks, _, ledger = rounds([Slow(2, 3.0, at=2)], 4)
    assert clocks == [1.0, 2.0, 5.0, 8.0]
    assert ledger.waiting == 2 * 3 * 2.0


def test_slowness_is_of_computing_only_and_adds_up(rounds):
    engine = Simulator(Constant(1.0), latency=0.25)
    clocks, _, _ = rounds([Slow(2, 3.0), Slow(2, 2.0)], 2, engine)
    assert clocks == [6.5, 13.0]


def test_stalls_are_drawn_by_their_address(rounds):
    clocks, _, _ = rounds([Stall(1, 0.4, 0.5)], 12)
    stalled = [stream(0, "stall", 1, step).random() < 0.4 for step in range(12)]
    assert 0 < sum(stalled) < 12
    assert clocks == pytest.approx(np.cumsum([1.5 if s else 1.0 for s in stalled]))


def test_who_dies_is_left_out_and_taken_back(rounds):
    clocks, members, ledger = rounds([Die(3, 1, back_after=2.5)], 6)
    assert clocks == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert members == [ALL, FIRST, FIRST, FIRST, ALL, ALL]  # back at 3.5
    assert (ledger.left, ledger.joined, ledger.lost, ledger.deaths) == (1, 1, 1, [0, 0, 0, 1])
    assert (ledger.sent, ledger.in_flight) == (4 + 4 + 3 + 3 + 4 + 4, 0)


def test_a_death_happens_once_and_the_lost_piece_keeps_its_number(job_of):
    trace = Trace()
    job = job_of(TURNS, [Die(3, 1, back_after=0.0)], trace)
    with closing(SECOND.run(job)) as events:
        event = next(e for e in events if e.step == 16)
        ticks = event.snapshot()["ticks"]
    assert (event.ledger.left, event.ledger.joined) == (1, 1)
    kinds = [kind for kind, worker in zip(trace.kinds, trace.workers, strict=True) if worker == 3]
    assert kinds[:4] == [PULL, PUSH, PULL, LEAVE]
    assert ticks[3] == event.ledger.updates[3] + 1


def test_a_run_waits_for_workers_that_come_back(rounds):
    clocks, members, _ = rounds([Die(k, 1, back_after=1.25 * (k + 1)) for k in range(K)], 4)
    assert clocks == [1.0, 3.25, 4.25, 5.25]  # back at 2.25, 3.5, ...
    assert members == [ALL, (0,), (0,), (0, 1)]


@pytest.mark.parametrize("algorithm", [ROUNDS, TURNS], ids=["ssgd", "asgd"])
def test_nobody_is_left(job_of, algorithm):
    job = job_of(algorithm, [Die(k, k) for k in range(K)])
    with pytest.raises(WorkersLostError, match="all workers are gone"):
        list(SECOND.run(job))


@pytest.mark.parametrize("algorithm", [ROUNDS, ssp(1, optimizer=SGD(0.1))], ids=["ssgd", "ssp"])
def test_waiting_for_ever_is_noticed(job_of, algorithm):
    with pytest.raises(WorkersLostError, match="worker 2 will never answer"):
        list(SECOND.run(job_of(algorithm, [Hang(2, 1)])))


def test_asynchronous_workers_go_on_beside_one_that_hangs(job_of):
    with closing(SECOND.run(job_of(TURNS, [Hang(2, 1)]))) as events:
        ledger = next(e for e in events if e.step == 31).ledger
    assert ledger.updates == [10, 10, 1, 10]
    assert (ledger.lost, ledger.left, ledger.in_flight) == (0, 0, 4)


def test_a_poisoned_message_is_dropped_counted_and_the_rest_reweighted(rounds, job_of):
    clocks, members, ledger = rounds([Poison(1, 1, until=3)], 4)
    assert clocks == [1.0, 2.0, 3.0, 4.0]
    assert members == [ALL, (0, 2, 3), (0, 2, 3), ALL]
    assert (ledger.refused, ledger.sent, ledger.updates) == (2, 16, [4, 2, 4, 4])
    averaging = model_averaging(2, SGD(0.1), batch=MiniBatch(4))
    with closing(SECOND.run(job_of(averaging, [Poison(1)]))) as events:
        poisoned = next(events).server["w"]
    with closing(SECOND.run(job_of(averaging, [Die(1, 0)]))) as events:
        np.testing.assert_array_equal(poisoned, next(events).server["w"])


def test_a_round_without_an_answer_is_repeated(rounds):
    clocks, members, ledger = rounds([Poison(k, 1, until=3) for k in range(K)], 2)
    assert (clocks, members) == ([1.0, 4.0], [ALL, ALL])
    assert (ledger.refused, ledger.sent) == (8, 16)


def test_but_not_for_ever(rounds):
    with pytest.raises(DivergedError, match="the last 101 messages held NaN"):
        rounds([Poison(k, 1) for k in range(K)], 2)


# --- backups -----------------------------------------------------------------------------------


def test_a_round_with_backups_ends_with_the_fastest(rounds):
    slow = [Slow(k, k + 1.0) for k in range(K)]
    for backups in range(K):
        clocks, members, _ = rounds(slow, 1, backups=backups)
        assert (clocks, members) == ([K - backups], [ALL[: K - backups]])
    assert rounds(slow, 1, backups=9)[:2] == ([1.0], [(0,)])


def test_late_messages_are_thrown_away_and_their_senders_come_back(rounds):
    clocks, members, ledger = rounds([Slow(3, 2.25)], 8, backups=1)
    assert clocks == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]  # never of the slow one
    assert members == [FIRST] * 8
    # it works from 0 to 2.25, 3 to 5.25, 6 to 8.25
    assert (ledger.late, ledger.sent, ledger.in_flight) == (2, 3 * 8 + 3, 1)
    assert ledger.local_steps == 3 * 8 + 2
    assert ledger.waiting == pytest.approx(0.75 + 0.75)


def test_who_is_gone_or_at_work_counts_among_the_backups(rounds):
    _, members, _ = rounds([Slow(3, 100.0), Slow(2, 1.5)], 4, backups=1)
    assert members == [FIRST] * 4
    clocks, members, _ = rounds([Die(3, 1), Slow(2, 1.5)], 4, backups=1)
    assert clocks == [1.0, 2.0, 3.5, 5.0]  # worker 2 is late once, and then has no one behind it
    assert members == [(0, 1, 3), (0, 1), FIRST, FIRST]


def test_a_straggler_that_dies_late_is_gone(rounds):
    clocks, members, ledger = rounds([Slow(3, 1.5), Die(3, 1)], 4, backups=1)
    assert (clocks, members) == ([1.0, 2.0, 3.0, 4.0], [FIRST] * 4)
    assert (ledger.late, ledger.lost, ledger.left, ledger.in_flight) == (1, 1, 1, 0)


# --- timeout -----------------------------------------------------------------------------------


def test_a_round_ends_with_the_timeout(rounds):
    clocks, members, ledger = rounds([Slow(3, 2.25)], 4, timeout=1.5)
    assert clocks == [1.5, 2.5, 4.0, 5.0]  # worker 3 is at work from 0 and from 2.5 on
    assert members == [FIRST] * 4
    assert (ledger.late, ledger.in_flight) == (2, 0)
    assert ledger.waiting == pytest.approx(2 * (3 * 0.5 + 0.25))


def test_an_answer_at_the_timeout_is_in_time(rounds):
    clocks, members, _ = rounds([Slow(3, 1.5)], 2, timeout=1.5)
    assert (clocks, members) == ([1.5, 3.0], [ALL] * 2)


def test_a_timeout_that_nobody_keeps_ends_with_the_first_answer(rounds):
    slow = [Slow(k, 3.0 + k) for k in range(K)]
    clocks, members, ledger = rounds(slow, 3, timeout=1.0)
    assert clocks == [3.0, 6.0, 9.0]
    assert members == [(0,)] * 3
    assert ledger.late == 4  # at 4, 5 and 6, and at 8: worker 1 was asked again at 4


def test_with_a_timeout_nobody_waits_for_who_hangs(rounds):
    clocks, members, ledger = rounds([Hang(3, 1)], 4, timeout=2.5)
    assert clocks == [1.0, 3.5, 4.5, 5.5]
    assert members == [ALL, FIRST, FIRST, FIRST]
    assert ledger.in_flight == 1


def test_when_all_members_hang_the_others_are_asked(rounds):
    chosen = Synchronous(participation=0.5).members(0, K, 0)
    others = tuple(sorted(set(range(K)) - set(chosen)))
    clocks, members, _ = rounds([Hang(k, 0) for k in chosen], 2, timeout=2.5, participation=0.5)
    assert clocks[0] == 2.5 + 1.0
    assert members[0] == others[:1]
    assert set(members[1]) <= set(others)


def test_late_workers_may_end_the_run(rounds):
    with pytest.raises(
        WorkersLostError, match=r"workers 1, 3 did not answer to round 2 within 2 s"
    ):
        rounds([Slow(1, 9.0, at=2), Hang(3, 2)], 4, timeout=2.0, late="raise")


# --- numbers -----------------------------------------------------------------------------------


def test_the_server_takes_every_answer_once(job_of):
    class Mute:
        start = set_state = lambda self, *_: None
        now = lambda self: 0.0  # noqa: E731

    server = Server(job_of(TURNS), Mute(), None)
    up = {"g": np.zeros(4), "weight": np.array(1.0)}
    server.send(2)
    for worker, tick in ((2, 1), (1, 0)):
        with pytest.raises(AssertionError, match=f"worker {worker} answered task {tick}"):
            server.receive(Arrival(worker, up, 1, 0.0, 0.0, tick))
    server.receive(Arrival(2, up, 1, 0.0, 0.0, 0))
    with pytest.raises(AssertionError, match="worker 2 answered task 0"):
        server.receive(Arrival(2, up, 1, 0.0, 0.0, 0))


@pytest.mark.parametrize("algorithm", [ROUNDS, TURNS], ids=["ssgd", "asgd"])
def test_faults_that_do_not_happen_change_nothing(job_of, algorithm):
    never = (Die(0, 10**6), Hang(1, 10**6), Poison(2, 10**6), Slow(3, 1.0), Stall(0, 0.0, 1.0))
    engine, found = Simulator(LogNormal(1e-3, 1.0), latency=1e-3), []
    for faults in ((), never):
        with closing(engine.run(job_of(algorithm, faults))) as events:
            found.append([(e.clock, e.workers, e.server["w"].tolist()) for e in islice(events, 20)])
    assert found[0] == found[1]


def test_policies_that_are_not_needed_change_nothing(two_classes):
    policies = ({}, {"timeout": 1e3}, {"on_loss": "raise"}, {"timeout": 1e3, "late": "raise"})
    shas = set()
    for policy in policies:
        for engine in ("serial", "threads", "simulator"):
            chosen = build("bmuf", policy)
            result = fit(chosen, "logistic", two_classes(60), rounds=6, engine=engine)
            shas.add(result.model.sha256)
    assert len(shas) == 1


def test_serial_turns_know_no_timeout_but_backups(job_of):
    for policies, members in (({"timeout": 1e-9}, ALL), ({"backups": 1}, FIRST)):
        with closing(Serial().run(job_of(ROUNDS, **policies))) as events:
            assert tuple(next(events).workers) == members
