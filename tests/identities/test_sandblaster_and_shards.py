"""Sandblaster is single-machine L-BFGS, and a sharded server is the whole server."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.aggregate import Average, BlockMomentum, Center, Descend, OuterStep, Sharded
from hemiola.algorithm import Info
from hemiola.algorithms import sandblaster
from hemiola.algorithms.adadelay import DelayAdaptive
from hemiola.algorithms.adaptive_revision import Revise
from hemiola.algorithms.bmuf_adam import K, M, MomentsAhead, V
from hemiola.algorithms.dc_asgd import DelayCompensated
from hemiola.algorithms.easgd_async import ElasticExchange
from hemiola.algorithms.registry import RECIPES, build
from hemiola.algorithms.sandblaster import Coordinator
from hemiola.algorithms.slowmo import SlowMomentum
from hemiola.algorithms.ssp import CompleteClocks
from hemiola.dataset import Batch
from hemiola.engines.simulator import LogNormal, Simulator
from hemiola.errors import OptionError
from hemiola.objectives import logistic
from hemiola.optim import SGD, Adagrad, Adam, FedYogi, InverseSqrt, Nesterov
from hemiola.optim.quasi_newton import Slices
from hemiola.reference import pooled_optimum

UNEVEN = Simulator(LogNormal(1e-3, 1.0), slow_share=0.3, slow_factor=8.0)


def lbfgs(f, gradient, w, iterations, memory=10):
    """L-BFGS with backtracking, in dense vectors: the iterates and the evaluations they took."""
    G, value, pairs, iterates, evaluations = gradient(w), f(w), [], [w], [1]
    for _ in range(iterations):
        q, a = G.copy(), []
        for s, y in reversed(pairs):
            a.append(s @ q / (s @ y))
            q = q - a[-1] * y
        q = q * (pairs[-1][0] @ pairs[-1][1] / (pairs[-1][1] @ pairs[-1][1]) if pairs
                 else 1 / max(1.0, np.linalg.norm(q)))  # fmt: skip
        for (s, y), a_i in zip(pairs, reversed(a), strict=True):
            q = q + s * (a_i - y @ q / (s @ y))
        d, t, tried = -q, 1.0, 1
        while f(w + t * d) > value + 1e-4 * t * (G @ d) + 1e-15 * abs(value):
            t, tried = t / 2, tried + 1
        s, y = t * d, gradient(w + t * d) - G
        if s @ y > 1e-10 * np.linalg.norm(s) * np.linalg.norm(y):
            pairs = [*pairs, (s, y)][-memory:]
        w, value, G = w + s, f(w + s), gradient(w + s)
        iterates.append(w)
        evaluations.append(tried)
    return iterates, evaluations


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("portions", [1, 7])
@pytest.mark.parametrize("workers", [1, 5])
def test_sandblaster_is_single_machine_lbfgs_for_any_portions(
    two_classes, run, portions, workers, shards
):
    """Five uneven workers get copies of portions that are still out; each counts once."""
    data, objective = two_classes(), logistic(0.05)
    whole, iterations = Batch(data), 8
    ran = run(sandblaster(portions, shards), objective, data, workers=workers,
              updates=1, engine=UNEVEN)  # fmt: skip
    iterates, evaluations = lbfgs(
        lambda w: objective.value(w, whole), lambda w: objective.grad(w, whole),
        ran.w0, iterations,
    )  # fmt: skip
    ran = run(sandblaster(portions, shards), objective, data, workers=workers,
              updates=20 * sum(evaluations) * portions * workers // max(workers - 1, 1),
              engine=UNEVEN)  # fmt: skip
    reached = {state["iterations"]: state["model"] for state in ran.servers}
    for i, expected in enumerate(iterates):
        np.testing.assert_allclose(reached[i + 1], expected, rtol=1e-8, atol=1e-10)
    assert (ran.servers[-1]["ignored"] > 0) == (workers > 1)


def test_sandblaster_reaches_the_pooled_optimum(two_classes, run):
    data, objective = two_classes(), logistic(0.05)
    ran = run(sandblaster(8), objective, data, workers=3, updates=800)
    _, best = pooled_optimum(objective, data)
    assert objective.value(ran.models[-1], Batch(data)) - best < 1e-12
    assert ran.servers[-1]["converged"]


def test_lbfgs_ends_a_quadratic_of_d_dimensions_in_few_iterations(line, run):
    """Squared loss: with backtracking instead of exact line search, a few more than d + 1."""
    from hemiola.objectives import squared

    data = line(60, 4)
    ran = run(sandblaster(3), squared(0.1), data, workers=2, updates=240)
    G = squared(0.1).grad(ran.models[-1], Batch(data))
    assert np.abs(G).max() < 1e-8
    assert ran.servers[-1]["iterations"] < 25


def test_dot_products_of_slices_are_those_of_whole_vectors():
    a, b = np.random.default_rng(0).normal(size=(2, 101))
    for shards in (1, 2, 7):
        slices = Slices({}, shards)
        slices.put("a", a)
        slices.put("b", b)
        np.testing.assert_allclose(slices.dot("a", "b"), a @ b, rtol=1e-12)
        slices.axpy(2.0, "a", "b")
        np.testing.assert_array_equal(slices.get("b"), b + 2.0 * a)
        assert slices.largest("a") == np.abs(a).max()


SEPARABLE = [
    Descend(SGD(0.1)),
    Descend(Adagrad(0.1), "inverse"),
    Descend(Adam(0.01)),
    DelayCompensated(SGD(0.1), "a", mean_square="worker"),
    ElasticExchange(0.2),
    CompleteClocks(SGD(0.1)),
    DelayAdaptive(0.1),
    DelayAdaptive(0.1, form="scalar"),
    Revise(0.1),
    Center(),
    Average(),
    BlockMomentum(0.5),
    OuterStep(Nesterov(0.7)),
    OuterStep(FedYogi(0.1)),
    SlowMomentum(0.5, schedule=InverseSqrt()),
    MomentsAhead(BlockMomentum(0.5)),
]


def test_every_rule_that_can_be_sharded_is_tested_here():
    rules = [build(name).aggregate for name in RECIPES]
    separable = {type(rule) for rule in rules if getattr(rule, "separable", False)}
    assert separable <= {type(rule) for rule in SEPARABLE}


@pytest.mark.parametrize("shards", [2, 3, 7])
@pytest.mark.parametrize("rule", SEPARABLE, ids=lambda r: type(r).__name__)
def test_a_sharded_server_is_the_whole_server_bit_for_bit(rule, shards):
    rng = np.random.default_rng(0)
    w0 = rng.normal(size=23)
    sharded = Sharded(rule, shards)
    one, many = rule.init(w0, 3), sharded.init(w0, 3)
    for step in range(30):
        k = step % 3
        up = {name: rng.normal(size=23) for name in ("e", "g", "w", "x", M)}
        up |= {V: rng.uniform(size=23), K: np.array(1000.0 * (step + 1))}
        up["weight"] = np.array(1.0)
        info = Info(step, (k,), 1.0, 2, 3, step // 3, (step + 1) // 3)
        ours, theirs = rule.pull(one, k), sharded.pull(many, k)
        assert all((ours[name] == theirs[name]).all() for name in ours)
        one, many = rule.push(one, up, info), sharded.push(many, up, info)
        assert (rule.model(one) == sharded.model(many)).all()


def test_the_number_of_shards_does_not_change_a_run(two_classes, run):
    data = two_classes()
    outcomes = [
        run(build("downpour", {"shards": n, "lr": 0.1, "optimizer.lr": 0.1}), logistic(0.1), data,
            workers=3, updates=30, engine=UNEVEN).models[-1]
        for n in (1, 2, 4)
    ]  # fmt: skip
    assert all((outcomes[0] == other).all() for other in outcomes[1:])


def test_a_rule_that_is_not_separable_is_refused_by_name():
    with pytest.raises(OptionError, match="Coordinator cannot be sharded"):
        Sharded(Coordinator(), 2)
