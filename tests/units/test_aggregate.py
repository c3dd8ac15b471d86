"""What servers do with messages, and how the messages of a round are joined."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from hemiola.aggregate import Average, BlockMomentum, Center, Descend, Sum, WeightedMean
from hemiola.algorithm import Info
from hemiola.errors import OptionError
from hemiola.optim import SGD, Adam, HeavyBall, Step
from hemiola.types import freeze

W0 = np.array([1.0, -2.0, 0.5])
SERVERS = [
    (Average(), "w"),
    (BlockMomentum(0.5), "w"),
    (BlockMomentum(0.5, 0.7, False), "w"),
    (Center(), "e"),
    (Descend(SGD(0.1)), "g"),
    (Descend(Adam(0.1)), "g"),
    (Descend(HeavyBall(0.1), "inverse"), "g"),
]


def info(step=0, workers=4, staleness=0):
    return Info(step, range(workers), float(workers), staleness, workers)


def messages(count=4, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [
        freeze(
            w=rng.normal(size=3).astype(dtype),
            weight=np.array(float(rng.integers(1, 9))),
            **{"optimizer/k": np.array(float(rng.integers(1, 9)))},
        )
        for _ in range(count)
    ]


def join(rule, ups):
    total = sum(float(up["weight"]) for up in ups)
    lifted = [rule.lift(up, float(up["weight"]) / total) for up in ups]
    return reduce(rule.merge, lifted)


def test_the_mean_is_weighted_by_what_the_messages_stand_for():
    ups = messages()
    joined = join(WeightedMean(), ups)
    weights = [float(up["weight"]) for up in ups]
    assert set(joined) == {"w", "optimizer/k"}
    for name in joined:
        expected = np.average([up[name] for up in ups], axis=0, weights=weights)
        np.testing.assert_allclose(joined[name], expected, rtol=1e-14)


def test_the_sum_does_not_look_at_weights():
    ups = messages()
    joined = join(Sum(), ups)
    np.testing.assert_allclose(joined["w"], np.sum([up["w"] for up in ups], axis=0))
    assert "weight" not in joined


@pytest.mark.parametrize("wider", [False, True])
@pytest.mark.parametrize("rule", [WeightedMean(), Sum()])
def test_a_message_lifted_into_a_buffer_has_the_same_bits(rule, wider):
    """Single precision in a buffer of double is rounded before it is widened."""
    up = messages(1, dtype=np.float32)[0]
    expected = rule.lift(up, 0.3)
    buffer = np.full(4, np.nan, np.float64 if wider else np.float32)
    out = {"w": buffer[:3], "optimizer/k": buffer[3:].reshape(())}
    assert rule.lift(up, 0.3, out) is out
    assert buffer[:3].astype(np.float32).tobytes() == expected["w"].tobytes()
    assert buffer[3] == expected["optimizer/k"].astype(buffer.dtype)


@pytest.mark.parametrize("rule", [WeightedMean(), Sum()])
def test_one_message_passes_unchanged(rule):
    for up in messages():
        joined = join(rule, [up])
        assert joined["w"].tobytes() == up["w"].tobytes()
        assert float(joined["optimizer/k"]) == float(up["optimizer/k"])


@pytest.mark.parametrize("rule", [WeightedMean(), Sum()])
def test_joining_is_associative_and_commutative_up_to_rounding(rule):
    ups = messages(5)
    left = join(rule, ups)
    right = join(rule, ups[::-1])
    a, b, c, d, e = (rule.lift(up, float(up["weight"]) / sum(float(u["weight"]) for u in ups))
                     for up in ups)  # fmt: skip
    tree = rule.merge(rule.merge(a, b), rule.merge(rule.merge(c, d), e))
    for other in (right, tree):
        np.testing.assert_allclose(left["w"], other["w"], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("rule", [WeightedMean(), Sum()])
def test_joining_leaves_the_messages_alone(rule):
    ups = messages()
    before = [{name: array.copy() for name, array in up.items()} for up in ups]
    joined = join(rule, ups)
    assert all(np.shares_memory(joined["w"], up["w"]) is False for up in ups)
    for up, then in zip(ups, before, strict=True):
        assert all((up[name] == array).all() for name, array in then.items())


@pytest.mark.parametrize("rule", [WeightedMean(), Sum()])
def test_joining_keeps_types_and_shapes(rule):
    joined = join(rule, messages(dtype=np.float32))
    assert joined["w"].dtype == np.float32
    for array in joined.values():
        assert isinstance(array, np.ndarray)
    assert joined["optimizer/k"].shape == ()


@pytest.mark.parametrize(("aggregate", "key"), SERVERS, ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_models_are_read_only_and_keep_their_type(aggregate, key, dtype):
    w0 = W0.astype(dtype)
    state = aggregate.init(w0, 4)
    assert not np.shares_memory(aggregate.pull(state, 0)["w"], w0)
    assert (aggregate.model(state) == W0).all()
    earlier = []
    for step in range(5):
        up = {key: np.full(3, 0.1 * step, dtype)}
        state = aggregate.push(state, up, info(step, staleness=step))
        model = aggregate.model(state)
        assert not model.flags.writeable, "whether or not anybody pulls"
        down = aggregate.pull(state, step % 4)
        assert not any(array.flags.writeable for array in down.values())
        assert model.dtype == down["w"].dtype == dtype
        earlier += [(array, array.copy()) for array in (model, *down.values())]
    assert all((array == then).all() for array, then in earlier)
    assert (w0 == W0.astype(dtype)).all()
    assert w0.flags.writeable


@pytest.mark.parametrize(("aggregate", "key"), SERVERS, ids=str)
def test_all_workers_read_the_same_and_reading_changes_nothing(aggregate, key):
    state = aggregate.init(W0, 3)
    for step in range(4):
        first = aggregate.pull(state, 0)
        before = {name: array.copy() for name, array in first.items()}
        model = aggregate.model(state).copy()
        for worker in (1, 2, 0):
            down = aggregate.pull(state, worker)
            assert down.keys() == before.keys()
            assert all((down[name] == array).all() for name, array in before.items())
        assert (aggregate.model(state) == model).all()
        state = aggregate.push(state, {key: np.full(3, 0.3)}, info(step, 3))
        assert all((first[name] == array).all() for name, array in before.items())


def test_the_average_is_the_new_model_and_whatever_came_with_it_goes_back():
    state = Average().init(W0, 2)
    assert Average().pull(state, 0).keys() == {"w"}
    up = {"w": np.ones(3), "optimizer/v": np.full(3, 2.0)}
    state = Average().push(state, up, info())
    assert (Average().model(state) == 1).all()
    for worker in range(2):
        down = Average().pull(state, worker)
        assert (down["w"] == 1).all()
        assert (down["optimizer/v"] == 2).all()


def test_descending_is_the_optimisers_step_on_the_servers_clock():
    optimizer = HeavyBall(0.1, 0.9, Step(2, 0.5))
    aggregate = Descend(optimizer)
    state = aggregate.init(W0, 2)
    w, v = W0, np.zeros(3)
    for step in range(8):
        g = np.array([1.0, step, -2.0])
        state = aggregate.push(state, {"g": g}, info(step))
        v = 0.9 * v + g
        w = w - 0.1 * 0.5 ** (step // 2) * v
        np.testing.assert_allclose(aggregate.pull(state, 0)["w"], w, rtol=1e-12)


def test_inverse_damping_divides_a_gradient_by_one_plus_its_staleness():
    plain, damped = Descend(HeavyBall(0.1, 0.9)), Descend(HeavyBall(0.1, 0.9), "inverse")
    states = [plain.init(W0, 4), damped.init(W0, 4), plain.init(W0, 4)]
    for step, staleness in enumerate([0, 3, 1, 7]):
        g = np.array([1.0, step, -2.0])
        before = g.copy()
        told = info(step, staleness=staleness)
        states[0] = plain.push(states[0], {"g": g / (1 + staleness)}, told)
        states[1] = damped.push(states[1], {"g": g}, told)
        states[2] = plain.push(states[2], {"g": g}, told)
        assert (g == before).all()
        assert (plain.model(states[0]) == damped.model(states[1])).all()
        assert (plain.model(states[2]) == damped.model(states[1])).all() == (step == 0)


def test_the_centre_gives_way_by_all_that_pulls():
    state = Center().init(W0, 3)
    state = Center().push(state, {"e": np.array([0.5, 0.0, -1.0])}, info())
    assert Center().pull(state, 0)["w"].tolist() == [1.5, -2.0, -0.5]


@pytest.mark.parametrize("nesterov", [True, False])
def test_block_momentum_by_hand(nesterov):
    aggregate = BlockMomentum(0.5, 2.0, nesterov)
    state = aggregate.init(np.array([0.0]), 2)
    assert aggregate.pull(state, 0)["w"].tolist() == [0.0]
    state = aggregate.push(state, {"w": np.array([1.0])}, info())
    assert aggregate.model(state).tolist() == [2.0]  # delta = 2 * 1
    assert aggregate.pull(state, 0)["w"].tolist() == [3.0 if nesterov else 2.0]
    state = aggregate.push(state, {"w": np.array([3.5])}, info(1))
    delta = 0.5 * 2.0 + 2.0 * (3.5 - (3.0 if nesterov else 2.0))
    assert aggregate.model(state).tolist() == [2.0 + delta]
    assert aggregate.pull(state, 1)["w"].tolist() == [2.0 + delta * (1.5 if nesterov else 1.0)]


def test_block_momentum_sends_averaged_optimiser_states_back_as_they_are():
    aggregate = BlockMomentum(0.5)
    state = aggregate.init(W0, 2)
    state = aggregate.push(state, {"w": W0 + 1, "optimizer/v": W0.copy()}, info())
    for worker in range(2):
        assert (aggregate.pull(state, worker)["optimizer/v"] == W0).all()


def test_the_default_block_momentum_is_one_minus_one_over_the_workers():
    for workers in (1, 2, 8):
        state = BlockMomentum().init(W0, workers)
        state = BlockMomentum().push(state, {"w": W0 + 1}, info(0, workers))
        start = BlockMomentum().pull(state, 0)["w"]
        state = BlockMomentum().push(state, {"w": start}, info(1, workers))
        np.testing.assert_allclose(state["delta"], 1 - 1 / workers)


def test_a_damping_that_there_is_not_is_refused():
    with pytest.raises(OptionError, match="Descend"):
        Descend(SGD(0.1), "half")


@pytest.mark.parametrize("options", [{"eta": 1.0}, {"eta": -0.1}, {"zeta": 0.0}, {"nesterov": 3}])
def test_nonsense_is_refused(options):
    with pytest.raises(OptionError, match="BlockMomentum"):
        BlockMomentum(**options)
