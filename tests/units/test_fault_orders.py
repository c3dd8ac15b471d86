"""Faults and policies as they are ordered, refused, recorded, and told."""

from __future__ import annotations

import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import ssgd
from hemiola.algorithms.registry import build
from hemiola.communicate import Synchronous
from hemiola.engines._faults import SPARED, Fate
from hemiola.engines.simulator import Constant, Simulator
from hemiola.errors import (
    OptionError,
    UnsupportedError,
)
from hemiola.faults import Die, Hang, Poison, Slow, Stall, parse_fault
from hemiola.history import History
from hemiola.job import Ledger
from hemiola.optim import SGD
from hemiola.replay import replay
from hemiola.trace import load_trace
from hemiola.training import fit

SECOND = Simulator(Constant(1.0))
ROUNDS = ssgd(SGD(0.1), MiniBatch(4))
EVERYTHING = (
    Slow(0, 2.5, 3), Stall(1, 0.5, 0.75), Die(2, 2, 3.2), Hang(3, 7), Poison(1, 4, 6),
)  # fmt: skip


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
