"""Optimisers against the formulas of their papers, written out with plain numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hemiola.errors import OptionError
from hemiola.optim import SGD, Adagrad, Adam, AdamW, HeavyBall, InverseSqrt, Nesterov

STEPS, D = 25, 4
RULES = [SGD, HeavyBall, Nesterov, Adagrad, Adam, AdamW]


def gradients(dtype=np.float64):
    return np.random.default_rng(0).normal(size=(STEPS, D)).astype(dtype)


def start(dtype=np.float64):
    return np.linspace(-1.0, 2.0, D).astype(dtype)


def iterates(rule, given=None, w=None):
    w = start() if w is None else w
    state, found = rule.init(w), []
    for t, g in enumerate(gradients() if given is None else given):
        w, state = rule.step(w, g, state, t)
        found.append(w.copy())
    return found


def sgd(w, g, s, k, lr):
    return w - lr * g


def heavy_ball(w, g, s, k, lr, mu=0.8):
    s["v"] = mu * s.get("v", 0.0) + g
    return w - lr * s["v"]


def nesterov(w, g, s, k, lr, mu=0.8):
    s["v"] = mu * s.get("v", 0.0) + g
    return w - lr * (g + mu * s["v"])


def adagrad(w, g, s, k, lr, eps=1e-6, initial=0.3):
    s["s"] = s.get("s", initial) + g * g
    return w - lr * g / (math.sqrt(s["s"]) + eps)


def adam(w, g, s, k, lr, b1=0.8, b2=0.95, eps=1e-6):
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
    return w - lr * (s["m"] / (1 - b1**k)) / (eps + math.sqrt(s["v"] / (1 - b2**k)))


def adamw(w, g, s, k, lr):
    return adam(w - lr * 0.1 * w, g, s, k, lr)


CASES = [
    (SGD(0.1), sgd),
    (HeavyBall(0.1, 0.8), heavy_ball),
    (Nesterov(0.1, 0.8), nesterov),
    (Adagrad(0.1, 0.3, 1e-6), adagrad),
    (Adam(0.1, 0.8, 0.95, 1e-6), adam),
    (AdamW(0.1, 0.1, 0.8, 0.95, 1e-6), adamw),
]


@pytest.mark.parametrize(("rule", "formula"), CASES, ids=lambda c: getattr(c, "__name__", ""))
@pytest.mark.parametrize("scheduled", [False, True])
def test_every_step_is_the_published_one(rule, formula, scheduled):
    schedule = InverseSqrt(t0=5.0)
    if scheduled:
        rule = type(rule)(**{**vars(rule), "schedule": schedule})
    found = iterates(rule)
    for j in range(D):  # one coordinate at a time: the rules act on each alone
        w, s = float(start()[j]), {}
        for t, g in enumerate(gradients()[:, j].tolist()):
            rate = 0.1 / math.sqrt(1 + t / 5.0) if scheduled else 0.1
            w = formula(w, g, s, t + 1, rate)
            assert found[t][j] == pytest.approx(w, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_a_step_makes_a_new_model_and_leaves_the_old_one_and_the_gradient_alone(rule):
    w, g = start(), gradients()[0]
    w.setflags(write=False)
    g.setflags(write=False)
    after, _ = rule(0.1).step(w, g, rule(0.1).init(w), 0)
    assert not np.shares_memory(after, w) and not np.shares_memory(after, g)
    assert after.flags.writeable
    assert (w == start()).all()
    assert (g == gradients()[0]).all()
    assert (after != w).all()


@pytest.mark.parametrize("rule", RULES)
def test_a_step_changes_the_state_in_place_and_shares_none_of_it(rule):
    w = start()
    state = rule(0.1).init(w)
    arrays = {name: value for name, value in state.items() if np.ndim(value)}
    for t, g in enumerate(gradients()):
        w, after = rule(0.1).step(w, g, state, t)
        assert after is state
        assert all(state[name] is array for name, array in arrays.items())
        assert not any(np.shares_memory(array, other) for array in arrays.values()
                       for other in (w, g))  # fmt: skip
    assert all(array.any() for array in arrays.values())


@pytest.mark.parametrize("rule", RULES)
def test_single_precision_stays_single(rule):
    w = start(np.float32)
    state = rule(0.1).init(w)
    for t, g in enumerate(gradients(np.float32)):
        w, state = rule(0.1).step(w, g, state, t)
    assert w.dtype == np.float32
    assert all(array.dtype == np.float32 for array in state.values() if np.ndim(array))


@pytest.mark.parametrize("rule", RULES)
def test_the_state_does_not_share_memory_with_the_model(rule):
    w = start()
    for array in rule(0.1).init(w).values():
        assert not np.shares_memory(np.asarray(array), w)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_without_a_rate_says_so(rule):
    w = start()
    with pytest.raises(OptionError, match=f"{rule.__name__}: lr is not set"):
        rule().step(w, w.copy(), rule().init(w), 0)


@pytest.mark.parametrize("rule", [HeavyBall, Nesterov])
def test_momentum_zero_is_sgd_exactly(rule):
    assert all((a == b).all() for a, b in zip(iterates(rule(0.1, 0.0)), iterates(SGD(0.1)),
                                              strict=True))  # fmt: skip


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_nesterov_iterates_are_the_look_ahead_points_of_the_other_form(momentum):
    H, lr = np.diag([1.0, 3.0, 0.2, 5.0]), 0.1
    rule, w = Nesterov(lr, momentum), start()
    state = rule.init(w)
    x, v = start(), np.zeros(D)
    for t in range(40):
        w, state = rule.step(w, H @ w, state, t)
        v = momentum * v - lr * H @ (x + momentum * v)
        x = x + v
        np.testing.assert_allclose(w, x + momentum * v, rtol=1e-12, atol=1e-12)


def test_the_long_run_gain_of_momentum_is_one_over_one_minus_momentum():
    impulse = [np.ones(D), *np.zeros((400, D))]
    for rule in (HeavyBall(0.1, 0.9), Nesterov(0.1, 0.9)):
        moved = start() - iterates(rule, impulse)[-1]
        np.testing.assert_allclose(moved, 0.1 / (1 - 0.9), rtol=1e-12)


def test_the_first_adaptive_step_has_the_size_of_the_rate():
    g = gradients()[:1]
    for rule in (Adagrad(0.1, eps=0.0), Adam(0.1, eps=0.0)):
        np.testing.assert_allclose(iterates(rule, g)[0], start() - 0.1 * np.sign(g[0]))


def test_adam_under_a_constant_gradient_takes_constant_steps():
    g = np.array([3.0, -0.1, 7.0, 0.5])
    found = [start(), *iterates(Adam(0.1, eps=0.0), [g] * 50)]
    np.testing.assert_allclose(np.diff(found, axis=0), np.tile(-0.1 * np.sign(g), (50, 1)))


@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.9), (0.9, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("rule", [Adam, AdamW])
def test_adam_without_a_memory_takes_the_gradient_as_it_is(rule, beta1, beta2):
    options = {"beta1": beta1, "beta2": beta2, "eps": 1e-8}
    if rule is AdamW:
        options["decay"] = 0.0
    found = iterates(rule(0.1, **options))
    for j in range(D):
        w, s = float(start()[j]), {}
        for t, g in enumerate(gradients()[:, j].tolist()):
            w = adam(w, g, s, t + 1, 0.1, beta1, beta2, 1e-8)
            assert found[t][j] == pytest.approx(w, rel=1e-12)


def test_adam_counts_in_fractions_when_its_count_is_moved():
    rule, w = Adam(0.1, 0.8, 0.95, 0.0), np.zeros(1)
    state = {"m": np.array([0.2]), "v": np.array([0.3]), "k": 2.5}
    w, state = rule.step(w, np.array([1.0]), state, 0)
    m, v = 0.8 * 0.2 + 0.2, 0.95 * 0.3 + 0.05
    expected = -0.1 * (m / (1 - 0.8**3.5)) / math.sqrt(v / (1 - 0.95**3.5))
    assert w[0] == pytest.approx(expected, rel=1e-12)
    assert state["k"] == 3.5


def test_weight_decay_is_decoupled_from_the_gradient():
    w = iterates(AdamW(0.1, decay=0.5), np.zeros((3, D)))[-1]
    np.testing.assert_allclose(w, start() * 0.95**3)


@pytest.mark.parametrize(
    ("rule", "rate"),
    [
        (SGD(), 0.2),
        (HeavyBall(momentum=0.75), 0.05),
        (Nesterov(momentum=0.75), 0.05),
        (Adagrad(), 0.1),
        (Adam(), 0.01),
        (AdamW(), 0.01),
    ],
)
def test_each_rule_makes_its_own_rate_of_the_base_rate(rule, rate):
    assert rule.with_lr(0.2).lr == pytest.approx(rate)
    assert rule.lr is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0.0), "SGD: lr should be greater than 0, not 0.0"),
        (lambda: SGD(-1), "SGD: lr should be greater than 0, not -1"),
        (lambda: SGD("fast"), "SGD: lr should be a valid number, not 'fast'"),
        (lambda: HeavyBall(0.1, 1.0), "HeavyBall: .*should be less than 1, not 1.0"),
        (lambda: Adam(0.1, beta2=-0.1), "Adam: beta2 should be greater than or equal to 0"),
        (lambda: SGD(rate=0.1), "SGD: there is no option 'rate'"),
    ],
)
def test_nonsense_is_refused_by_name(make, message):
    with pytest.raises(OptionError, match=message):
        make()
