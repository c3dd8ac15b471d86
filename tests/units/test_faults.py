"""Faults on order and the policies of rounds, in virtual time: who is waited for, until when."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, model_averaging, ssgd, ssp
from hemiola.algorithms.registry import build
from hemiola.communicate import Synchronous
from hemiola.engines._executor import Arrival
from hemiola.engines._faults import SPARED, Fate
from hemiola.engines._server import Server
from hemiola.engines.serial import Serial
from hemiola.engines.simulator import Constant, LogNormal, Simulator
from hemiola.errors import (
    DivergedError,
    OptionError,
    RestartError,
    UnsupportedError,
    WorkersLostError,
)
from hemiola.faults import Die, Hang, Poison, Slow, Stall, not_yet, parse_fault
from hemiola.history import History
from hemiola.job import LEAVE, PULL, PUSH, Job, Ledger, Trace
from hemiola.objectives import logistic
from hemiola.optim import SGD
from hemiola.partition import Shards
from hemiola.replay import replay
from hemiola.rng import stream
from hemiola.trace import load_trace
from hemiola.training import fit

K = 4
SECOND = Simulator(Constant(1.0))
ROUNDS = ssgd(SGD(0.1), MiniBatch(4))
TURNS = asgd(SGD(0.1), MiniBatch(4))
EVERYTHING = (
    Slow(0, 2.5, 3), Stall(1, 0.5, 0.75), Die(2, 2, 3.2), Hang(3, 7), Poison(1, 4, 6),
)  # fmt: skip


@pytest.fixture
def job_of(two_classes):
    """(algorithm, faults, **policies) -> a job of four workers."""

    def make(algorithm, faults=(), trace=None, **policies):
        if policies:
            communicate = replace(algorithm.communicate, **policies)
            algorithm = replace(algorithm, communicate=communicate)
        source = Shards(two_classes(60), algorithm.partition, K, 0)
        w0 = np.random.default_rng(5).normal(size=4)
        return Job(algorithm, logistic(0.01), source, K, 0, w0, trace, faults=tuple(faults))

    return make


@pytest.fixture
def rounds(job_of):
    """(faults, count, **policies) -> when each round ended, who was in it, and the ledger."""

    def go(faults, count, engine=SECOND, **policies):
        job = job_of(ROUNDS, faults, **policies)
        with closing(engine.run(job)) as events:
            found = [(e.clock, tuple(e.workers), e.ledger) for e in islice(events, count)]
        clocks, members, ledgers = zip(*found, strict=True)
        return list(clocks), list(members), ledgers[-1]

    return go


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


# --- losses ------------------------------------------------------------------------------------


def test_a_death_may_end_the_run(rounds):
    with pytest.raises(WorkersLostError, match="worker 2 died in round 1") as caught:
        rounds([Die(2, 1)], 4, on_loss="raise")
    assert not isinstance(caught.value, RestartError)


def test_a_wrong_message_may_end_the_run(rounds):
    for on_loss in ("raise", "restart"):
        with pytest.raises(WorkersLostError, match="worker 2 to round 1 held NaN or infinite"):
            rounds([Poison(2, 1)], 4, on_loss=on_loss)
        with pytest.raises(DivergedError, match="diverged: the answer of workers 0, 1, 2, 3"):
            rounds([Poison(k, 1) for k in range(K)], 4, on_loss=on_loss)


def test_engines_tell_what_had_begun_when_a_restart_is_due(rounds):
    with pytest.raises(RestartError, match="worker 2 died in round 1") as caught:
        rounds([Die(2, 1), Slow(3, 9.0)], 4, on_loss="restart", backups=1)
    assert caught.value.begun == (2, 2, 2, 1)
    faults = (Die(2, 1), Die(2, 2), Hang(0, 1), Slow(2, 2.0), Poison(0, 1))
    assert not_yet(faults, caught.value.begun) == (Die(2, 2), Slow(2, 2.0), Poison(0, 1))


@pytest.fixture
def trained(two_classes, tmp_path):
    """(faults, **options) -> the result of 12 rounds that are kept every 2nd one."""

    def go(faults=(), place=tmp_path / "kept", rounds=12, resume=False, **policies):
        algorithm = build("ssgd", {"lr": 0.1, **policies})
        return fit(
            algorithm, "logistic", two_classes(60), engine=SECOND, workers=K, rounds=rounds,
            eval_every=2, checkpoint=place, faults=faults, resume=resume,
        )  # fmt: skip

    return go


@pytest.mark.parametrize("at", [0, 1, 5, 11])
def test_a_restarted_run_is_the_undisturbed_one_to_the_bit(trained, tmp_path, at):
    calm = trained(place=tmp_path / "calm")
    shaken = trained([Die(2, at), Die(1, at), Die(3, 8)], on_loss="restart")
    assert shaken.model.sha256 == calm.model.sha256
    assert [record.loss for record in shaken.history.records] == [
        record.loss for record in calm.history.records
    ]
    assert shaken.history.restarts == 2
    assert shaken.history.sent == calm.history.sent == 12 * K
    assert "went back to its last checkpoint" in shaken.history.incidents()


def test_restarts_are_bounded(trained):
    deaths = [Die(k, at) for k in range(2) for at in (3, 5)]
    assert trained(deaths, on_loss="restart", restarts=4).history.restarts <= 4
    with pytest.raises(WorkersLostError, match="restarted once already; allow more") as caught:
        trained(deaths, on_loss="restart", restarts=1)
    assert not isinstance(caught.value, RestartError)
    assert caught.value.result.history.last.rounds == 4
    with pytest.raises(WorkersLostError, match="worker 0 died in round 0"):
        trained([Die(0, 0)], on_loss="restart", restarts=0)


def test_a_restart_does_not_take_an_older_runs_checkpoint(trained, tmp_path):
    trained(rounds=12)
    shaken = trained([Die(1, 1)], on_loss="restart")
    assert [record.rounds for record in shaken.history.records] == list(range(0, 13, 2))


def test_a_restarted_run_has_all_its_workers(trained):
    """Also those that had died, unnoticed, when the checkpoint was written."""
    shaken = trained([Die(3, 1), Die(0, 6)], on_loss="restart", backups=1)
    assert (shaken.history.last.updates, shaken.history.restarts) == (12, 2)


def test_a_restart_needs_a_checkpoint(two_classes):
    with pytest.raises(OptionError, match="name a directory for it with checkpoint"):
        fit(build("ssgd", {"on_loss": "restart"}), "logistic", two_classes(60))


def test_a_run_that_ended_with_a_loss_can_be_resumed_without_the_dead(trained):
    with pytest.raises(WorkersLostError) as caught:
        trained([Die(2, 7)], on_loss="raise")
    assert caught.value.result.history.last.rounds == 6
    history = trained([Die(2, 7)], resume=True).history
    assert (history.last.rounds, history.left) == (12, 1)


# --- resuming ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, 12))
@pytest.mark.parametrize(
    ("algorithm", "policies"),
    [
        (ROUNDS, {"timeout": 1.5}),
        (ROUNDS, {"backups": 1, "timeout": 9.0}),
        (ROUNDS, {"timeout": 0.5, "participation": 0.5}),
        (model_averaging(2, SGD(0.1), batch=MiniBatch(4)), {"timeout": 2.6, "backups": 2}),
        (TURNS, {}),
        (ssp(4, optimizer=SGD(0.1)), {}),
    ],
    ids=str,
)
def test_late_dead_and_hung_workers_resume_to_the_bit(job_of, algorithm, policies, cut):
    engine = Simulator(LogNormal(1.0, 0.2))

    def go(count, resume=None):
        found = []
        job = job_of(algorithm, EVERYTHING, **policies)
        with closing(engine.run(job, resume)) as events:
            for event in islice(events, count):
                books = {**vars(event.ledger), "updates": list(event.ledger.updates)}
                found.append((event.step, event.clock, event.workers, event.server["w"], books))
            return found, event.snapshot()

    whole, _ = go(14)
    first, snapshot = go(cut)
    rest, _ = go(14 - cut, snapshot)
    for ours, theirs in zip([*first, *rest], whole, strict=True):
        assert ours[:3] == theirs[:3]
        np.testing.assert_array_equal(ours[3], theirs[3])
    assert rest[-1][4] == whole[-1][4]


def test_checkpoints_from_before_pieces_were_counted_are_read(job_of):
    for algorithm, at_work in ((ROUNDS, 0), (TURNS, K)):
        job = job_of(algorithm)
        with closing(Serial().run(job)) as events:
            old = [next(events) for _ in range(6)][-1].snapshot()
        with closing(Serial().run(job, old)) as events:
            expected = [next(events).server["w"] for _ in range(5)]
        del old["at_work"]
        for name in ("sent", "late", "lost", "deaths"):
            del old["ledger"][name]
        for arrival in old["pending"]:
            del arrival["tick"]
        with closing(Serial().run(job, old)) as events:
            found = [next(events) for _ in range(5)]
        np.testing.assert_array_equal([e.server["w"] for e in found][-1], expected[-1])
        assert found[-1].ledger.in_flight == at_work


def test_histories_from_before_are_read():
    plain = History(refused=2).to_dict()
    for name in ("sent", "late", "lost", "deaths", "restarts"):
        del plain[name]
    assert History.from_dict(plain) == History(refused=2)


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


# --- orders ------------------------------------------------------------------------------------


def test_a_fate_is_a_function_of_the_job(job_of):
    fate = Fate(job_of(ROUNDS, EVERYTHING))
    assert fate.of(0, 2) == SPARED
    assert fate.of(0, 3).factor == 2.5
    assert (fate.of(2, 2).dies, fate.of(2, 2).back_after, fate.of(2, 3)) == (True, 3.2, SPARED)
    assert fate.of(3, 7).hangs
    assert [fate.of(1, step).poisoned for step in (3, 4, 5, 6)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("slow:worker=1,factor=3", Slow(1, 3.0)),
        ("stall: worker=0, probability=0.5, seconds=2", Stall(0, 0.5, 2.0)),
        ("die:worker=1,at=20,back_after=none", Die(1, 20)),
        ("hang:worker=3,at=0", Hang(3, 0)),
        ("poison:worker=3,at=2,until=5", Poison(3, 2, 5)),
    ],
)
def test_faults_as_text(text, fault):
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dye:worker=1", "there is no fault 'dye'; did you mean 'die'"),
        ("die:wroker=1,at=2", "fault die has no option 'wroker'; did you mean 'worker'"),
        ("die:at=2", "fault die needs worker: write die:worker="),
        ("die", "fault die needs worker and at"),
        ("die:worker=1,at=x", "Die: at should be a valid integer"),
        ("die:worker=-1,at=2", "Die: worker should be greater than or equal to 0"),
        ("die:worker", "'worker' is no option; write it as key=value"),
        ("slow:worker=1,factor=0.5", "Slow: factor should be greater than or equal to 1"),
    ],
)
def test_faults_that_make_no_sense(text, message):
    with pytest.raises(OptionError, match=message):
        parse_fault(text)


def test_faults_of_workers_that_are_not_there(two_classes):
    with pytest.raises(OptionError, match="a fault names worker 4, but there are 4"):
        fit("ssgd", "logistic", two_classes(60), engine=SECOND, faults=[Hang(4, 0)])
    with pytest.raises(OptionError, match=r"faults are those of hemiola.faults, not 'die'"):
        fit("ssgd", "logistic", two_classes(60), engine=SECOND, faults=["die"])


def test_engines_that_inject_no_faults_refuse_by_name(two_classes):
    with pytest.raises(UnsupportedError, match="engine serial injects no faults; use simulator, t"):
        fit("ssgd", "logistic", two_classes(60), faults=[Hang(1, 0)])


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"timeout": 0}, "timeout should be greater than 0"),
        ({"late": "never"}, "late should be 'drop' or 'raise'"),
        ({"backups": -1}, "backups should be greater"),
        ({"on_loss": "weep"}, "on_loss should be 'drop', 'raise' or 'restart'"),
        ({"restarts": -1}, "restarts should be greater"),
    ],
)
def test_policies_that_make_no_sense(policies, message):
    with pytest.raises(OptionError, match=message):
        build("ssgd", policies)


def test_policies_are_options_of_every_synchronous_algorithm():
    made = build("fedavg", {"timeout": "2.5", "late": "raise", "backups": "1", "shards": "2"})
    assert made.communicate == Synchronous(timeout=2.5, late="raise", backups=1)
    assert build("ssgd", {"timeout": "none"}) == build("ssgd")
    with pytest.raises(OptionError, match="asgd has no option 'backups'"):
        build("asgd", {"backups": 1})
    with pytest.raises(OptionError, match="ssgd has no option 'timeot'; did you mean 'timeout'"):
        build("ssgd", {"timeot": 1})
    with pytest.raises(OptionError, match="timeout is a plain value"):
        build("ssgd", {"timeout.x": 1})


# --- traces and words --------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["threads", SECOND], ids=str)
def test_a_run_with_deaths_is_replayed_to_the_bit(two_classes, tmp_path, engine):
    faults = [Die(2, 2, 1e-3), Hang(3, 4), Stall(0, 0.5, 1e-3)]
    options = {"engine": engine, "faults": faults, "trace": tmp_path / "t", "rounds": 10}
    result = fit("asgd", "logistic", two_classes(60), **options)
    assert result.history.left == 1
    recorded = load_trace(tmp_path / "t")
    assert replay(recorded, two_classes(60)).model.sha256 == result.model.sha256
    with pytest.raises(OptionError, match="leave out the trace, or the poison"):
        fit("asgd", "logistic", two_classes(60), **{**options, "faults": [Poison(1)]})


def test_nothing_to_tell():
    assert History().incidents() == ""
    assert Ledger().in_flight == 0


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (
            {"left": 2, "joined": 1, "deaths": [1, 0, 1], "late": 3, "refused": 5},
            "2 of 8 workers died and 1 came back; 3 late messages were dropped, "
            "5 that were not finite were refused.",
        ),
        ({"left": 1, "deaths": [1]}, "1 of 8 workers died."),
        ({"left": 4, "deaths": [4]}, "1 of 8 workers died, 4 times in all."),
        ({"refused": 1}, "1 message that was not finite was refused."),
        ({"refused": 1200}, "1,200 messages that were not finite were refused."),
        (
            {"late": 2, "refused": 1},
            "2 late messages were dropped, 1 that was not finite was refused.",
        ),
        ({"restarts": 1}, "The run went back to its last checkpoint once."),
        (
            {"restarts": 2, "late": 1},
            "1 late message was dropped; the run went back to its last checkpoint 2 times.",
        ),
    ],
)
def test_incidents_in_words(counts, words):
    assert History(worker_updates=[1] * 8, **counts).incidents() == words
