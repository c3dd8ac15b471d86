"""What workers do alone: counts, weights and memories."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch, Task
from hemiola.errors import OptionError
from hemiola.local import Accumulate, AsyncElastic, Elastic, Gradient, LocalSteps, Proximal
from hemiola.objectives import logistic
from hemiola.optim import SGD, Adam, HeavyBall
from hemiola.partition import Dirichlet, Shards, ShuffleSplit
from hemiola.types import freeze

LR, BATCH = 0.3, MiniBatch(4)
LOCALS = [
    Gradient(BATCH),
    Accumulate(SGD(LR), 3, BATCH),
    LocalSteps(SGD(LR), steps=3, batch=BATCH),
    LocalSteps(Adam(0.1), epochs=2, batch=BATCH, carry="average"),
    Proximal(LocalSteps(SGD(LR), epochs=2, batch=BATCH), 0.5),
    Elastic(LR, 0.9, 0.2, 3, BATCH),
    AsyncElastic(LR, 0.9, 3, BATCH),
]


@dataclass
class Drawn:
    """A source that remembers what was asked of it."""

    inner: Shards
    asked: list[tuple[int, int]] = field(default_factory=list)

    def batch(self, worker, t, mini_batch):
        self.asked.append((worker, t))
        return self.inner.batch(worker, t, mini_batch)

    def samples(self, worker):
        return self.inner.samples(worker)

    def steps_per_epoch(self, worker, mini_batch):
        return self.inner.steps_per_epoch(worker, mini_batch)


@pytest.fixture
def place(two_classes):
    """(worker, partition) -> a task and its source."""
    data = two_classes(50)

    def make(worker=1, partition=ShuffleSplit()):
        source = Drawn(Shards(data, partition, 3, 0))
        return Task(worker, 0, 3, 0, logistic(), source), source

    return make


def down(d=4):
    return freeze(w=np.linspace(-1, 1, d), e=np.linspace(0.1, 0.3, d))


@pytest.mark.parametrize("local", LOCALS, ids=lambda local: type(local).__name__)
def test_every_step_takes_the_next_batch_of_the_worker(place, local):
    task, source = place(worker=2)
    state, rounds = local.init(down()["w"]), 3
    for _ in range(rounds):
        state, _ = local.work(state, down(), task)
    steps = {Gradient: 1, Elastic: 3, AsyncElastic: 3}.get(type(local), local.__dict__.get("steps"))
    if steps is None:
        steps = 2 * source.steps_per_epoch(2, BATCH)
    assert source.asked == [(2, t) for t in range(rounds * steps)]
    assert state["t"] == rounds * steps


@pytest.mark.parametrize("local", LOCALS, ids=lambda local: type(local).__name__)
def test_messages_are_read_only_and_share_no_memory_with_the_state(place, local):
    task, _ = place()
    state, up = local.work(local.init(down()["w"]), down(), task)
    before = {name: array.copy() for name, array in up.items()}
    assert not any(array.flags.writeable for array in up.values())
    for _ in range(3):
        state, _ = local.work(state, down(), task)
    assert all((up[name] == array).all() for name, array in before.items())


@pytest.mark.parametrize("local", LOCALS, ids=lambda local: type(local).__name__)
def test_nothing_of_a_message_is_kept_when_the_server_reuses_it(place, local):
    task, _ = place()
    start = np.array([2.0, -1.0, 0.5, 1.0])
    outcomes = []
    for reused in (False, True):
        state, sent = local.init(start), []
        for _ in range(4):
            arrays = {name: array.copy() for name, array in down().items()}
            state, up = local.work(state, freeze(**arrays), task)
            for array in arrays.values():
                array.setflags(write=True)
                array[:] = np.nan if reused else array
            sent.append({name: array.copy() for name, array in up.items()})
        outcomes.append(sent)
    for one, other in zip(*outcomes, strict=True):
        assert all((one[name] == other[name]).all() for name in one)
    assert start.tolist() == [2.0, -1.0, 0.5, 1.0]


def test_a_gradient_weighs_the_samples_in_its_batch(place):
    task, source = place()
    state = Gradient(MiniBatch(0.05, "bernoulli")).init(down()["w"])
    local, weights = Gradient(MiniBatch(0.05, "bernoulli")), []
    for t in range(30):
        state, up = local.work(state, down(), task)
        batch = source.inner.batch(1, t, local.batch)
        assert float(up["weight"]) == len(batch)
        np.testing.assert_array_equal(up["g"], logistic().grad(down()["w"], batch))
        weights.append(len(batch))
    assert 0 in weights


def test_summed_gradients_weigh_the_samples_in_their_batches(place):
    task, source = place()
    local = Accumulate(SGD(LR), 3, BATCH)
    state, w, t = local.init(down()["w"]), down()["w"], 0
    for read in (True, False, True, False):
        message = down() if read else {}
        w = down()["w"] if read else w
        total, samples = np.zeros(4), 0
        for _ in range(3):
            batch = source.inner.batch(1, t, BATCH)
            g = logistic().grad(w, batch)
            w, total, samples, t = w - LR * g, total + g, samples + len(batch), t + 1
        state, up = local.work(state, message, task)
        np.testing.assert_array_equal(up["g"], total)
        np.testing.assert_array_equal(state["w"], w)
        assert float(up["weight"]) == samples


@pytest.mark.parametrize("local", LOCALS[2:], ids=lambda local: type(local).__name__)
def test_a_model_weighs_the_samples_of_its_shard(place, local):
    for worker in range(3):
        task, source = place(worker, Dirichlet(0.4))
        _, up = local.work(local.init(down()["w"]), down(), task)
        assert float(up["weight"]) == source.samples(worker)


def test_an_epoch_is_a_pass_over_the_shard(place):
    for worker in range(3):
        task, source = place(worker, Dirichlet(0.4))
        local = LocalSteps(SGD(LR), epochs=1, batch=BATCH)
        local.work(local.init(down()["w"]), down(), task)
        rows = np.concatenate([source.inner.batch(k, t, BATCH).rows for k, t in source.asked])
        np.testing.assert_array_equal(np.sort(rows), np.sort(source.inner.shard(worker)))


@pytest.mark.parametrize("carry", ["keep", "reset", "average"])
def test_what_becomes_of_the_momentum(place, carry):
    task, source = place()
    local = LocalSteps(HeavyBall(LR, 0.8), steps=2, batch=BATCH, carry=carry)
    state, sent, v = local.init(down()["w"]), down(), np.zeros(4)
    for r in range(4):
        if carry == "reset":
            v = np.zeros(4)
        if carry == "average" and r:
            v = np.full(4, 0.25)
            sent = freeze(w=sent["w"].copy(), **{"optimizer/v": v.copy()})
        w = sent["w"].copy()
        for t in (2 * r, 2 * r + 1):
            v = 0.8 * v + logistic().grad(w, source.inner.batch(1, t, BATCH))
            w = w - LR * v
        state, up = local.work(state, sent, task)
        np.testing.assert_allclose(up["w"], w, rtol=1e-12)
        assert ("optimizer/v" in up) == (carry == "average")
        if carry == "average":
            np.testing.assert_allclose(up["optimizer/v"], v, rtol=1e-12)


def test_averaging_adam_sends_both_moments_and_their_count(place):
    task, _ = place()
    local = LocalSteps(Adam(0.1), steps=5, batch=BATCH, carry="average")
    _, up = local.work(local.init(down()["w"]), down(), task)
    assert set(up) == {"w", "weight", "optimizer/m", "optimizer/v", "optimizer/k"}
    assert float(up["optimizer/k"]) == 5.0


@pytest.mark.parametrize("counts", [{}, {"steps": 2, "epochs": 2}])
def test_steps_or_epochs_must_be_given_but_not_both(counts):
    with pytest.raises(OptionError, match="either the local steps or the local epochs"):
        LocalSteps(SGD(LR), **counts)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LocalSteps(SGD(LR), steps=0),
        lambda: LocalSteps(SGD(LR), steps=2, carry="forget"),
        lambda: LocalSteps("sgd", steps=2),
        lambda: Elastic(LR, alpha=1.5),
        lambda: Elastic(LR, momentum=1.0),
        lambda: Elastic(LR, period=0),
        lambda: Elastic(0.0),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(OptionError):
        make()


def test_the_elastic_force_is_that_of_the_model_the_round_began_with(place):
    task, source = place()
    local = Elastic(LR, 0.0, 0.25, 2, BATCH)
    x = np.array([2.0, -1.0, 0.5, 1.0])
    state, up = local.work(local.init(x), down(), task)
    e = 0.25 * (x - down()["w"])
    np.testing.assert_allclose(up["e"], e)
    first = x - LR * logistic().grad(x, source.inner.batch(1, 0, BATCH)) - e
    second = first - LR * logistic().grad(first, source.inner.batch(1, 1, BATCH))
    np.testing.assert_allclose(state["x"], second, rtol=1e-12)
    assert x.tolist() == [2.0, -1.0, 0.5, 1.0]


def test_an_asynchronous_worker_gives_way_after_its_first_step_but_not_before_it_has_sent(place):
    task, source = place()
    local = AsyncElastic(LR, 0.0, 2, BATCH)
    x = np.array([2.0, -1.0, 0.5, 1.0])
    state = local.init(x)
    for r in range(3):
        e = down()["e"] if r else np.zeros(4)
        state, up = local.work(state, down(), task)
        first = x - LR * logistic().grad(x, source.inner.batch(1, 2 * r, BATCH)) - e
        x = first - LR * logistic().grad(first, source.inner.batch(1, 2 * r + 1, BATCH))
        np.testing.assert_allclose(up["x"], x, rtol=1e-12)


def test_the_default_spring_is_nine_tenths_over_the_workers(place):
    task, _ = place()
    x = np.array([2.0, -1.0, 0.5, 1.0])
    _, up = Elastic(LR).work(Elastic(LR).init(x), down(), task)
    np.testing.assert_allclose(up["e"], 0.3 * (x - down()["w"]))
