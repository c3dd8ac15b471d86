"""AdaDelay: the paper's server, step by step, and how its steps depend on delay and time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import adadelay, asgd
from hemiola.algorithms.adadelay import DelayAdaptive
from hemiola.objectives import logistic
from hemiola.optim import SGD, Adagrad

BATCH = MiniBatch(4)


@pytest.mark.parametrize("form", ["coordinate", "scalar"])
def test_adadelay_is_its_pseudo_code(two_classes, traced, transcribed, same, apart, form):
    a0, L, c = 0.8, 1.5, 0.6
    job, model = traced(adadelay(form, a0, L, c, BATCH), two_classes(), 80)

    def run(shift: int) -> Any:
        box = {"x": job.w0.copy(), "acc": np.zeros(job.w0.size), "t": 0}

        def update(k, g, delay):
            box["t"] += 1
            t, tau = box["t"], delay + shift
            if form == "scalar":
                alpha = a0 / (L + c * np.sqrt(t + tau))
            else:
                box["acc"] = box["acc"] + t / (t + tau) * g**2
                alpha = a0 / (L + np.sqrt(box["acc"] / t) * np.sqrt(t + tau))
            box["x"] = box["x"] - alpha * g

        transcribed(job, lambda k: box["x"], update)
        return box["x"]

    same(model, run(0))
    assert apart(model, run(1)) > 1e-6  # an off-by-one staleness would be seen


def test_adadelay_without_delay_is_adagrad_with_an_offset(two_classes, traced, same):
    data = two_classes()
    _, model = traced(adadelay("coordinate", 0.8, 1.5, batch=BATCH), data, 60, workers=1)
    _, plain = traced(asgd(Adagrad(0.8, eps=1.5), batch=BATCH), data, 60, workers=1)
    same(model, plain)


def test_scalar_adadelay_without_delay_is_sgd_with_a_rate_that_falls_like_one_over_root_t(
    two_classes, traced, same
):
    job, model = traced(adadelay("scalar", 0.8, 1.5, 0.6, BATCH), two_classes(), 60, workers=1)
    w = job.w0
    for t in range(1, 61):
        g = job.objective.grad(w, job.source.batch(0, t - 1, BATCH))
        w = w - 0.8 / (1.5 + 0.6 * np.sqrt(t)) * g
    same(model, w)


def test_scalar_adadelay_with_c_zero_is_asgd_with_rate_one_over_l_exactly(two_classes, traced):
    data = two_classes()
    _, model = traced(adadelay("scalar", 1.0, 2.5, 0.0, BATCH), data, 60)
    _, plain = traced(asgd(SGD(1 / 2.5), batch=BATCH), data, 60)
    assert (model == plain).all()


def test_adadelay_keeps_one_sum_of_squares_as_asynchronous_adagrad_does(two_classes, run):
    data = two_classes()
    ours, theirs = (
        run(algorithm, logistic(), data, workers=7, updates=20).servers[-1]
        for algorithm in (adadelay(lr=0.1, batch=BATCH), asgd(Adagrad(0.1), batch=BATCH))
    )
    assert ours.keys() == {"w", "acc"}
    assert theirs["optimizer"].keys() == {"s"}
    assert ours["acc"].shape == theirs["optimizer"]["s"].shape == ours["w"].shape


@pytest.mark.parametrize("form", ["coordinate", "scalar"])
def test_the_step_of_adadelay_falls_with_the_delay_at_a_fixed_time(info, form):
    rule = DelayAdaptive(1.0, form=form)
    moves = []
    for staleness in (0, 1, 5, 50):
        state = {"w": np.zeros(1), "acc": np.full(1, 3.0)}
        step = info(staleness, 9)
        moves.append(-float(rule.push(state, {"g": np.ones(1)}, step)["w"][0]))
    assert moves == sorted(moves, reverse=True) and len(set(moves)) == 4


@pytest.mark.parametrize("form", ["coordinate", "scalar"])
def test_the_steps_of_adadelay_are_not_monotone_in_time(info, form):
    rule = DelayAdaptive(1.0, form=form)
    state, places = {"w": np.zeros(1), "acc": np.full(1, 3.0)}, [0.0]
    for step, staleness in ((9, 50), (10, 0)):
        state = rule.push(state, {"g": np.ones(1)}, info(staleness, step))
        places.append(float(state["w"][0]))
    first, second = -np.diff(places)
    assert second > first
