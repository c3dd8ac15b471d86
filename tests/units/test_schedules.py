"""Learning-rate schedules: factors that depend on a count of steps and on nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, model_averaging, ssgd
from hemiola.errors import OptionError
from hemiola.objectives import logistic
from hemiola.optim import SGD, Constant, Cosine, InverseSqrt, Step, WarmUp

SCHEDULES = [
    Constant(),
    Step(3, 0.5),
    InverseSqrt(10.0),
    Cosine(20, 0.1),
    WarmUp(5),
    WarmUp(5, Cosine(10)),
]


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [
        (Constant(), lambda t: 1.0),
        (Step(7, 0.3), lambda t: 0.3 ** (t // 7)),
        (InverseSqrt(4.0), lambda t: (1 + t / 4) ** -0.5),
        (Cosine(40), lambda t: 0.5 * (1 + math.cos(math.pi * min(t, 40) / 40))),
        (Cosine(40, 0.2), lambda t: 0.2 + 0.4 * (1 + math.cos(math.pi * min(t, 40) / 40))),
        (WarmUp(10), lambda t: min((t + 1) / 10, 1.0)),
        (WarmUp(10, Step(5, 0.5)), lambda t: (t + 1) / 10 if t < 10 else 0.5 ** ((t - 10) // 5)),
    ],
)
def test_schedules_follow_their_formulas(schedule, factor):
    for t in range(60):
        assert schedule(t) == pytest.approx(factor(t), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_factors_are_between_zero_and_one(schedule):
    factors = [schedule(t) for t in range(1000)]
    assert all(isinstance(factor, float) and 0 <= factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1.0)


def test_warming_up_is_continuous_and_starts_above_zero():
    factors = [WarmUp(4)(t) for t in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_cosine_ends_at_its_floor_and_stays_there():
    assert [Cosine(10, 0.25)(t) for t in (10, 11, 10**9)] == [0.25] * 3


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_local_optimisers_clock_runs_on_across_rounds(two_classes, run, schedule):
    """Rounds of 3 and rounds of 1 steps read the same clock."""
    data, batch = two_classes(), MiniBatch(6)
    three, one = (
        run(
            model_averaging(steps, SGD(0.3, schedule), batch=batch),
            logistic(),
            data,
            workers=1,
            updates=24 // steps,
        )
        for steps in (3, 1)
    )
    assert (three.last == one.last).all()


@pytest.mark.parametrize("make", [ssgd, asgd])
def test_a_servers_clock_counts_its_updates(two_classes, run, make):
    data, objective, batch = two_classes(), logistic(), MiniBatch(None)
    schedule = Step(5, 0.5)
    result = run(make(SGD(0.3, schedule), batch), objective, data, workers=3, updates=20)
    moves = np.linalg.norm(np.diff([result.w0, *result.models], axis=0), axis=1)
    plain = run(make(SGD(0.3), batch), objective, data, workers=3, updates=20)
    usual = np.linalg.norm(np.diff([plain.w0, *plain.models], axis=0), axis=1)
    assert moves[:5] == pytest.approx(usual[:5])
    assert moves[5] / usual[5] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Step(0), "every should be greater than or equal to 1"),
        (lambda: Step(5, 0.0), "greater than 0"),
        (lambda: InverseSqrt(0.0), "t0 should be greater than 0"),
        (lambda: Cosine(10, 2.0), "less than or equal to 1"),
        (lambda: WarmUp(then=3), "then should be callable"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_any_function_of_the_step_is_a_schedule(two_classes, run):
    data, batch = two_classes(), MiniBatch(None)
    halves = run(ssgd(SGD(0.4, lambda t: 0.5), batch), logistic(), data, workers=2, updates=5)
    plain = run(ssgd(SGD(0.2), batch), logistic(), data, workers=2, updates=5)
    assert (halves.last == plain.last).all()
