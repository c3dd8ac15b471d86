"""AdaptiveRevision: the paper's server, step by step, and what its rates add up to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from hemiola.algorithm import Info, MiniBatch
from hemiola.algorithms import adaptive_revision, asgd
from hemiola.algorithms.adaptive_revision import Revise
from hemiola.engines.simulator import LogNormal, Simulator
from hemiola.objectives import logistic
from hemiola.optim import Adagrad

BATCH = MiniBatch(4)
UNEVEN = Simulator(LogNormal(1e-3, 0.9), slow_share=0.25, slow_factor=3.0)


@dataclass
class Recording:
    """An aggregate that remembers every gradient."""

    inner: Revise
    gradients: list[Any] = field(default_factory=list)

    def push(self, state, up, info):
        self.gradients.append(np.array(up["g"]))
        return self.inner.push(state, up, info)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def test_adaptive_revision_is_its_pseudo_code(two_classes, traced, transcribed, same, apart):
    eta0 = 0.4
    job, model = traced(adaptive_revision(eta0, BATCH), two_classes(), 80)

    def run(sign: float) -> Any:
        d = job.w0.size
        box = {"x": job.w0.copy(), "gbar": np.zeros(d), "z": np.ones(d), "zp": np.ones(d)}
        seen: dict[int, Any] = {}

        def read(k):
            seen[k] = box["gbar"].copy()
            return box["x"]

        def update(k, g, delay):
            back = box["gbar"] - seen[k]
            old = eta0 / np.sqrt(box["zp"])
            box["z"] = box["z"] + g * g + 2 * g * back
            box["zp"] = np.maximum(box["zp"], box["z"])
            eta = eta0 / np.sqrt(box["zp"])
            box["x"] = box["x"] - eta * g
            box["x"] = box["x"] + sign * (old - eta) * back
            box["gbar"] = box["gbar"] + g

        transcribed(job, read, update)
        return box["x"]

    same(model, run(1.0))
    assert apart(model, run(-1.0)) > 1e-6


def feed(rule: Any, state: Any, gradients: Any, workers: Any) -> Any:
    for step, (g, k) in enumerate(zip(gradients, workers, strict=True)):
        state = rule.push(state, {"g": g}, Info(step, (k,), 1.0, 0, len(set(workers))))
    return state


def test_adaptive_revision_without_delay_is_adagrad_from_one(two_classes, traced, same):
    data = two_classes()
    _, revised = traced(adaptive_revision(0.4, BATCH), data, 60, workers=1)
    _, plain = traced(asgd(Adagrad(0.4, initial=1.0, eps=0.0), batch=BATCH), data, 60, workers=1)
    same(revised, plain)


def test_gradients_of_one_snapshot_and_sign_collapse_to_one_adagrad_step_on_their_sum(same):
    rng, k = np.random.default_rng(2), 5
    gradients = np.abs(rng.normal(size=(k, 4))) * np.array([1, -1, 1, -1])
    rule = Revise(0.3)
    state = rule.init(np.zeros(4), k)
    for worker in range(k):
        rule.pull(state, worker)
    state = feed(rule, state, gradients, range(k))
    total = gradients.sum(axis=0)
    same(state["w"], -0.3 * total / np.sqrt(1 + total**2))
    same(state["z"], 1 + total**2)


def test_gradients_of_one_snapshot_and_any_sign_move_by_the_last_rate_times_their_sum(same):
    gradients = np.random.default_rng(3).normal(size=(6, 5))
    rule = Revise(0.3)
    state = rule.init(np.zeros(5), 6)
    for worker in range(6):
        rule.pull(state, worker)
    state = feed(rule, state, gradients, range(6))
    same(state["w"], -0.3 * gradients.sum(axis=0) / np.sqrt(state["z_max"]))


def test_z_max_is_never_below_z_or_one_never_falls_and_gbar_is_the_sum_of_all_gradients(
    two_classes, run, same
):
    recording = Recording(Revise(0.4))
    algorithm = replace(adaptive_revision(0.4, BATCH), aggregate=recording)
    ran = run(algorithm, logistic(0.1), two_classes(), workers=6, updates=120, engine=UNEVEN)
    z, z_max = ([state[name] for state in ran.servers] for name in ("z", "z_max"))
    assert all((low <= high).all() for low, high in zip(z, z_max, strict=True))
    assert (z_max[0] >= 1).all()
    assert all((late >= early).all() for early, late in pairwise(z_max))
    assert any((late < early).any() for early, late in pairwise(z)), "z itself is meant to fall"
    same([state["gbar"] for state in ran.servers], np.cumsum(recording.gradients, axis=0))


def test_gbar_does_not_lose_small_gradients_in_single_precision(info):
    rule = Revise(0.3)
    state = rule.init(np.zeros(1, np.float32), 1)
    for step, g in enumerate((1.0, 2.0**-40, -1.0)):
        state = rule.push(state, {"g": np.array([g], np.float32)}, info(0, step))
    assert state["gbar"] == 2.0**-40
    assert state["w"].dtype == np.float32


def test_z_may_fall_below_zero_but_z_max_never_falls_and_gbar_is_the_sum(info, same):
    rule = Revise(1.0)
    state = rule.init(np.zeros(1), 3)
    rule.pull(state, 0), rule.pull(state, 1)
    history = []
    for worker, g in ((0, 1.0), (1, -2.0), (2, 1.0)):
        state = rule.push(state, {"g": np.array([g])}, info(0, worker=worker, workers=3))
        if worker == 0:
            rule.pull(state, 2)
        history.append((float(state["z"][0]), float(state["z_max"][0])))
    assert [z for z, _ in history] == [2.0, 2.0, -1.0]
    assert [z for _, z in history] == [2.0, 2.0, 2.0]
    same(state["gbar"], [0.0])
