"""Everything that may have to travel to another process can."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from hemiola.algorithm import Info, Task
from hemiola.callbacks import EarlyStopping, TargetLoss, TimeLimit
from hemiola.engines import engine_class, names
from hemiola.engines.serial import Serial
from hemiola.engines.simulator import LogNormal, Simulator, Stragglers, Uniform
from hemiola.errors import DivergedError, HemiolaError, OptionError, TrainingInterrupted
from hemiola.learning_rate import with_learning_rate
from hemiola.objectives import LinearObjective, logistic
from hemiola.partition import (
    ByLabel,
    Contiguous,
    Dirichlet,
    RandomSampling,
    Shards,
    ShuffleSplit,
    Whole,
)
from hemiola.training import fit


def again(thing):
    return pickle.loads(pickle.dumps(thing))


def test_every_algorithm_survives_pickling(any_recipe, algorithm, two_classes, without_rate):
    chosen = algorithm(any_recipe)
    assert again(chosen) == chosen
    data = two_classes()
    source = Shards(data, chosen.partition, 4, 0)
    filled = with_learning_rate(chosen, logistic(0.01), data, source, 4)
    assert (filled == chosen) == (any_recipe in without_rate), "all others have a rate"
    assert again(filled) == filled


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_a_pickled_job_gives_the_same_bits(any_recipe, algorithm, two_classes, run, csr):
    chosen = algorithm(any_recipe, lr=0.1)
    here = run(chosen, logistic(0.1), two_classes(csr=csr), workers=3, updates=6)
    job = again(here.job)
    for event, model in zip(Serial().run(job), here.models, strict=False):
        assert (job.algorithm.aggregate.model(event.server) == model).all()
    assert event.step == 6


def test_a_pickled_job_goes_on_from_a_pickled_snapshot(any_recipe, algorithm, two_classes, run):
    chosen = algorithm(any_recipe, lr=0.1)
    short = run(chosen, logistic(0.01), two_classes(), workers=3, updates=3)
    long = run(chosen, logistic(0.01), two_classes(), workers=3, updates=7)
    job = again(short.job)
    for event, model in zip(
        Serial().run(job, again(short.snapshot)), long.models[3:], strict=False
    ):
        assert (job.algorithm.aggregate.model(event.server) == model).all()


def test_a_task_survives_pickling(two_classes):
    data = two_classes()
    task = again(Task(1, 5, 4, 7, logistic(0.01), Shards(data, ShuffleSplit(), 4, 7)))
    assert (task.worker, task.step, task.n_workers, task.seed) == (1, 5, 4, 7)
    info = Info(3, (1,), 2.0, 4, 5)
    assert again(info) == info


@pytest.mark.parametrize(
    "partition",
    [
        ShuffleSplit(2),
        RandomSampling(5),
        RandomSampling((5, 6, 7, 8)),
        Contiguous(),
        ByLabel(3),
        Dirichlet(0.1),
        Whole(),
    ],
)
def test_pickled_shards_draw_the_same_batches(algorithm, two_classes, partition):
    batch = algorithm("ssgd").local.batch
    here = Shards(two_classes(), partition, 4, 1)
    there = again(here)
    for t in (0, 3, 25):
        for k in range(4):
            rows = here.batch(k, t, batch).rows
            np.testing.assert_array_equal(rows, there.batch(k, t, batch).rows)


@pytest.mark.parametrize("name", names())
def test_every_engine_survives_pickling(name):
    engine = engine_class(name)()
    assert again(engine) == engine


def test_a_configured_simulator_survives_pickling():
    for compute in (Uniform(0.1, 0.2), LogNormal(1.0, 0.1), Stragglers()):
        engine = Simulator(compute, 0.1, 1e6, 0.5, 2.0)
        assert again(engine) == engine


@pytest.mark.parametrize("loss", ["logistic", "softmax", "squared", "hinge"])
def test_objectives_survive_pickling(loss):
    objective = LinearObjective(loss, 0.1, False)
    assert again(objective) == objective


def test_a_result_survives_pickling(two_classes):
    data = two_classes()
    result = fit("bmuf", "logistic", data, rounds=2)
    copy = again(result)
    assert copy.model.sha256 == result.model.sha256
    assert copy.history == result.history
    assert (copy.model.predict(data.X) == result.model.predict(data.X)).all()


def test_callbacks_and_errors_survive_pickling():
    assert again(EarlyStopping(3, 0.1)) == EarlyStopping(3, 0.1)
    assert again(TargetLoss(0.5)) == TargetLoss(0.5)
    assert again(TimeLimit(1.0)) == TimeLimit(1.0)
    assert again(DivergedError("too large", None)).args == ("too large",)
    assert str(again(OptionError("no such option"))) == "no such option"
    assert isinstance(again(OptionError("no such option")), HemiolaError)


def test_an_interruption_survives_pickling_with_its_result():
    stopped = again(TrainingInterrupted("stopped", "the result", "there"))
    assert (str(stopped), stopped.result, stopped.checkpoint) == ("stopped", "the result", "there")
    assert again(DivergedError("too large", "the last good one")).result == "the last good one"
