"""Losses that end a run, or take it back to its checkpoint; what a resumed run knows of faults."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, model_averaging, ssgd, ssp
from hemiola.algorithms.registry import build
from hemiola.engines.serial import Serial
from hemiola.engines.simulator import Constant, LogNormal, Simulator
from hemiola.errors import (
    DivergedError,
    OptionError,
    RestartError,
    WorkersLostError,
)
from hemiola.faults import Die, Hang, Poison, Slow, Stall, not_yet
from hemiola.history import History
from hemiola.optim import SGD
from hemiola.training import fit

K = 4
SECOND = Simulator(Constant(1.0))
ROUNDS = ssgd(SGD(0.1), MiniBatch(4))
TURNS = asgd(SGD(0.1), MiniBatch(4))
EVERYTHING = (
    Slow(0, 2.5, 3), Stall(1, 0.5, 0.75), Die(2, 2, 3.2), Hang(3, 7), Poison(1, 4, 6),
)  # fmt: skip


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
