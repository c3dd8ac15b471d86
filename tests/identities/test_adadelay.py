"""AdaDelay: the paper's server, step by step, and how its steps depend on delay and time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import adadelay, asgd
from hemiola.algorithms.adadelay import DelayAdaptive
from hemiola.optim import Adagrad

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


@pytest.mark.parametrize("form", ["coordinate", "scalar"])
def test_the_step_of_adadelay_falls_with_the_delay_at_a_fixed_time(info, form):
    rule = DelayAdaptive(1.0, form=form)
    moves = []
    for staleness in (0, 1, 5, 50):
        state = {"w": np.zeros(1), "acc": np.full(1, 3.0)}
        step = info(staleness, 9)
        moves.append(-float(rule.push(state, {"g": np.ones(1)}, step)["w"][0]))
    assert moves == sorted(moves, reverse=True) and len(set(moves)) == 4


def test_the_steps_of_adadelay_are_not_monotone_in_time(info):
    rule = DelayAdaptive(1.0, form="scalar")
    sizes = [
        -float(rule.push(rule.init(np.zeros(1), 1), {"g": np.ones(1)}, info(s, step))["w"][0])
        for step, s in ((0, 50), (1, 0))
    ]
    assert sizes[1] > sizes[0]
