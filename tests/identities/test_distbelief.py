"""DistBelief: with one partition Downpour, with more the same but for rounding."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, downpour, easgd, model_averaging, sandblaster
from hemiola.algorithms.distbelief import distbelief, over_machines
from hemiola.algorithms.registry import build
from hemiola.dataset import Batch
from hemiola.errors import OptionError
from hemiola.objectives import logistic
from hemiola.objectives.partitioned import partitioned
from hemiola.optim import Adagrad
from hemiola.training import fit

OPTIONS = {"n_push": 2, "n_fetch": 4, "optimizer": Adagrad(0.3), "lr": 0.1, "batch": MiniBatch(4)}


@pytest.mark.parametrize("shards", [1, 2])
def test_one_partition_is_downpour_to_the_bit(two_classes, traced, shards):
    _, plain = traced(downpour(**OPTIONS), two_classes(), 30)
    _, model = traced(distbelief(1, shards, **OPTIONS), two_classes(), 30)
    assert (model == plain).all()


def test_more_partitions_are_downpour_but_for_rounding(two_classes, traced):
    _, plain = traced(downpour(**OPTIONS), two_classes(), 30)
    _, model = traced(distbelief(3, 2, **OPTIONS), two_classes(), 30)
    np.testing.assert_allclose(model, plain, rtol=1e-9, atol=1e-12)
    assert np.abs(model).max() > 0.01


def test_sandblaster_drives_partitioned_replicas(two_classes, traced):
    _, plain = traced(sandblaster(3, 2), two_classes(), 24)
    _, model = traced(over_machines(sandblaster(3, 2), 2), two_classes(), 24)
    np.testing.assert_allclose(model, plain, rtol=1e-7, atol=1e-10)
    assert np.abs(model).max() > 0.01


@pytest.mark.parametrize("parts", [2, 3])
def test_a_partitioned_network_has_the_gradient_of_the_whole_in_its_order(two_classes, parts):
    pytest.importorskip("torch")
    from hemiola.objectives import Torch

    data = two_classes()
    whole = Torch(f"mlp2(inputs={data.n_features}, classes=3, hidden=5, hidden2=4)", l2=0.1)
    w = whole.init(data, np.random.default_rng(0)).astype(np.float64)
    split = partitioned(whole, parts)
    expected = whole.grad(w, Batch(data))
    np.testing.assert_allclose(split.grad(w, Batch(data)), expected, rtol=1e-11, atol=1e-13)


def test_runs_by_name_are_those_of_downpour(two_classes):
    """Estimated rates, whole runs: to the bit with one partition, but for rounding with two."""
    options = {"n_push": 2, "n_fetch": 4, "batch_size": 8}

    def weights(name, **more):
        return fit(build(name, {**options, **more}), "logistic", two_classes(), rounds=9).weights

    plain = weights("downpour")
    assert (weights("distbelief", partitions=1) == plain).all()
    np.testing.assert_allclose(weights("distbelief", partitions=2), plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("recipe", [asgd, model_averaging])
def test_any_algorithm_of_gradients_drives_replicas(recipe, two_classes):
    split = over_machines(recipe(), 2)
    found = [fit(a, "logistic", two_classes(), rounds=8) for a in (recipe(), split)]
    np.testing.assert_allclose(found[1].weights, found[0].weights, rtol=1e-9, atol=1e-12)
    assert (
        found[0].settings["algorithm"]["local"] == found[1].settings["algorithm"]["local"]["local"]
    )


def test_a_replica_follows_the_objective_that_it_is_given(two_classes):
    """One algorithm object trains on one objective after another."""
    chosen = distbelief(2, lr=0.1, optimizer=Adagrad(0.3))
    found = [fit(chosen, logistic(l2), two_classes(), rounds=5).weights for l2 in (0.0, 5.0, 0.0)]
    assert (found[0] == found[2]).all() and not np.allclose(found[0], found[1])


def test_what_a_machine_cannot_drive_is_refused(two_classes):
    with pytest.raises(OptionError, match="Elastic cannot be split over machines"):
        over_machines(easgd(), 2)
    with pytest.raises(OptionError, match="3 features cannot be split over 4"):
        fit(distbelief(4), "logistic", two_classes(), rounds=1)


def test_one_part_is_the_objective_itself():
    objective = logistic()
    assert partitioned(objective, 1) is objective


def test_what_cannot_be_split_is_refused():
    with pytest.raises(OptionError, match="cannot be split over 2 machines"):
        partitioned(object(), 2)
