"""Messages are read-only, states have one owner, and the data exist once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.communicate import Synchronous
from hemiola.dataset import Batch
from hemiola.engines import engine_class
from hemiola.objectives import logistic
from hemiola.partition import Shards, Whole
from hemiola.penalty import with_penalty
from hemiola.types import freeze

ENGINES = ["serial", "threads", "simulator"]


@dataclass
class Watched:
    """A local or an aggregate that remembers what it was given and what it gave."""

    inner: Any
    received: list[Any] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)

    def init(self, *arguments):
        return self.inner.init(*arguments)

    def work(self, state, down, task):
        self.received.append(down)
        state, up = self.inner.work(state, down, task)
        self.sent.append(up)
        return state, up

    def pull(self, state, worker):
        down = self.inner.pull(state, worker)
        self.sent.append(down)
        return down

    def push(self, state, up, info):
        self.received.append(up)
        return self.inner.push(state, up, info)

    def model(self, state):
        return self.inner.model(state)


def watched(algorithm):
    return replace(
        algorithm, local=Watched(algorithm.local), aggregate=Watched(algorithm.aggregate)
    )


def learn(run, algorithm, data, engine="serial", updates=9):
    return run(
        algorithm, logistic(0.01), data, workers=3, updates=updates, engine=engine_class(engine)()
    )


def is_frozen(message):
    return all(isinstance(a, np.ndarray) and not a.flags.writeable for a in message.values())


@pytest.mark.parametrize("engine", ENGINES)
def test_every_message_is_made_of_read_only_arrays(any_recipe, algorithm, two_classes, run, engine):
    chosen = watched(algorithm(any_recipe, lr=0.1))
    learn(run, chosen, two_classes(), engine)
    assert chosen.local.sent and chosen.aggregate.sent
    for message in [*chosen.local.received, *chosen.local.sent, *chosen.aggregate.sent]:
        assert is_frozen(message)


@pytest.mark.parametrize("optimizer", ["heavy-ball", "adagrad", "adam", "adamw"])
@pytest.mark.parametrize("name", ["model-averaging", "bmuf", "fedavg"])
def test_averaged_optimiser_states_travel_read_only(algorithm, two_classes, run, name, optimizer):
    chosen = watched(algorithm(name, optimizer=optimizer, lr=0.05, carry="average"))
    learn(run, chosen, two_classes())
    assert any(len(message) > 2 for message in chosen.local.sent)
    for message in [*chosen.local.received, *chosen.local.sent, *chosen.aggregate.sent]:
        assert is_frozen(message)


def test_messages_keep_their_values_for_ever(any_recipe, algorithm, two_classes, run):
    chosen = watched(algorithm(any_recipe, lr=0.1))
    values = []

    class Noting(Watched):
        def work(self, state, down, task):
            state, up = super().work(state, down, task)
            values.append((up, {name: array.copy() for name, array in up.items()}))
            values.append((down, {name: array.copy() for name, array in down.items()}))
            return state, up

    chosen = replace(chosen, local=Noting(chosen.local.inner))
    learn(run, chosen, two_classes(), updates=12)
    for message, then in values:
        assert all((message[name] == array).all() for name, array in then.items())


def test_messages_resumed_from_a_checkpoint_are_read_only_too(
    any_recipe, algorithm, two_classes, run
):
    chosen = algorithm(any_recipe, lr=0.1)
    for engine in ("serial", "simulator"):
        before = learn(run, chosen, two_classes(), engine)
        again = watched(chosen)
        events = engine_class(engine)().run(replace(before.job, algorithm=again), before.snapshot)
        for _ in range(4):
            next(events)
        asynchronous = not isinstance(chosen.communicate, Synchronous)
        assert bool(before.snapshot["pending"]) == asynchronous
        ups = again.aggregate.received if asynchronous else []  # a round's sum is the server's own
        assert again.local.received and again.aggregate.received
        for message in [*again.local.received, *again.aggregate.sent, *ups]:
            assert is_frozen(message)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_message_says_how_much_it_stands_for(any_recipe, algorithm, two_classes, run, engine):
    chosen = watched(algorithm(any_recipe, lr=0.1))
    learn(run, chosen, two_classes(), engine)
    assert all(message["weight"].shape == () for message in chosen.local.sent)
    assert all(message["weight"] > 0 for message in chosen.local.sent)


class Scribbling(Watched):
    """Gives its inner part messages of its own, and spoils them as soon as it may."""

    def work(self, state, down, task):
        mine = {name: array.copy() for name, array in down.items()}
        self.spoil(task.worker)
        state, up = self.inner.work(state, freeze(**mine), task)
        self.received.append((task.worker, mine))
        return state, up

    def spoil(self, worker):
        """The message before this one."""
        for k, message in self.received:
            if k == worker:
                overwrite(message)
        self.received[:] = [(k, message) for k, message in self.received if k != worker]

    def push(self, state, up, info):
        mine = {name: array.copy() for name, array in up.items()}
        state = self.inner.push(state, freeze(**mine), info)
        overwrite(mine)
        return state


def overwrite(message):
    for array in message.values():
        array.setflags(write=True)
        array.fill(-77)


def test_nobody_keeps_the_arrays_of_a_message(any_recipe, algorithm, two_classes, run):
    """Where memory is shared they are written to again: by the sender, for its next message."""
    chosen = with_penalty(algorithm(any_recipe, lr=0.1), logistic(0.01), two_classes())
    spoilt = replace(chosen, local=Scribbling(chosen.local))
    if not isinstance(chosen.communicate, Synchronous):
        spoilt = replace(spoilt, aggregate=Scribbling(chosen.aggregate))
    for workers in (1, 3):
        models = [
            run(one, logistic(0.01), two_classes(), workers=workers, updates=20).models
            for one in (chosen, spoilt)
        ]
        np.testing.assert_array_equal(*models)


class Vandal:
    """A worker that writes into what it received."""

    def init(self, w0):
        return {"t": 0}

    def work(self, state, down, task):
        array = next(array for array in down.values() if array.size)
        array[...] += 1.0
        raise AssertionError("the write should have failed")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_that_writes_into_its_message_is_stopped(
    any_recipe, algorithm, two_classes, run, engine
):
    chosen = replace(algorithm(any_recipe, lr=0.1), local=Vandal())
    with pytest.raises(ValueError, match="read-only"):
        learn(run, chosen, two_classes(), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_model_is_read_only(any_recipe, algorithm, two_classes, run, engine):
    chosen = algorithm(any_recipe, lr=0.1)
    job = learn(run, chosen, two_classes(), updates=1).job
    events = engine_class(engine)().run(job)
    models = [chosen.aggregate.model(next(events).server) for _ in range(3)]
    events.close()
    assert not any(model.flags.writeable for model in models)


def test_the_starting_point_is_left_alone(any_recipe, algorithm, two_classes, run):
    chosen = algorithm(any_recipe, lr=0.1)
    w0 = np.arange(4.0)
    run(chosen, logistic(0.01), two_classes(), workers=3, updates=6, w0=w0)
    assert w0.tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_the_data_are_not_copied(any_recipe, algorithm, two_classes, run, engine, csr):
    data, seen = two_classes(60, csr=csr), []
    for array in (data.y, *((data.X.data, data.X.indices) if csr else (data.X,))):
        array.setflags(write=False)

    class Looking(Shards):
        def batch(self, worker, t, mini_batch):
            batch = super().batch(worker, t, mini_batch)
            seen.append(batch.data)
            return batch

        def batches(self, worker, steps, mini_batch):
            seen.append(self.data)
            return super().batches(worker, steps, mini_batch)

    chosen = algorithm(any_recipe, lr=0.1)
    source = Looking(data, chosen.partition, 3, 0)
    run(
        chosen,
        logistic(0.01),
        data,
        workers=3,
        updates=6,
        source=source,
        engine=engine_class(engine)(),
    )
    assert seen and all(one is data for one in seen)
    assert isinstance(source.batch(0, 0, MiniBatch()), Batch)


def test_shards_are_numbers_of_samples_not_samples(two_classes):
    data = two_classes(60)
    source = Shards(data, Whole(), 4, 0)
    for k in range(4):
        assert source.shard(k).dtype.kind == "i"
        assert not np.shares_memory(source.shard(k), data.X)
