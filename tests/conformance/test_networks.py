"""Every algorithm trains a network on every engine; synchronous ones to the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.communicate import Synchronous
from hemiola.dataset import make_dataset
from hemiola.errors import OptionError
from hemiola.training import fit, make_objective

pytest.importorskip("torch")

from hemiola.objectives import Torch
from hemiola.objectives.networks import characters

pytestmark = pytest.mark.usefixtures("fresh_fork_server")

LINEAR = ("cocoa", "admm", "admm-sharing", "admm-async")
"""Recipes that need a loss with a dual, or apart from its penalty."""


def trained(chosen, data, engine):
    objective = Torch("mlp(inputs=3, classes=2, hidden=4)")
    return fit(chosen, objective, data, rounds=6, workers=3, engine=engine)


def test_every_algorithm_trains_a_network(any_recipe, algorithm, two_classes):
    chosen, data = algorithm(any_recipe, lr=0.05), two_classes(60)
    if any_recipe in LINEAR:
        with pytest.raises(OptionError, match=any_recipe):
            trained(chosen, data, "serial")
        return
    results = [trained(chosen, data, engine) for engine in ("serial", "threads", "simulator")]
    for result in results:
        assert np.isfinite(result.weights).all()
        assert result.history.records[0].loss != result.history.last.loss
        assert result.history.last.updates > 0
    if isinstance(chosen.communicate, Synchronous):
        assert len({result.model.sha256 for result in results}) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_processes_find_the_same_bits(synchronous_recipe, algorithm, two_classes, dtype):
    if synchronous_recipe in LINEAR:
        pytest.skip("refuses networks")
    chosen, data = algorithm(synchronous_recipe, lr=0.05), two_classes(60, dtype=dtype)
    here, there = (trained(chosen, data, engine) for engine in ("serial", "processes"))
    assert here.model.sha256 == there.model.sha256
    assert here.weights.dtype == dtype


def test_processes_train_it_asynchronously(asynchronous_recipe, algorithm, two_classes):
    if asynchronous_recipe in LINEAR:
        pytest.skip("refuses networks")
    result = trained(algorithm(asynchronous_recipe, lr=0.05), two_classes(60), "processes")
    assert np.isfinite(result.weights).all()
    assert result.history.last.updates > 0


@pytest.mark.parametrize("name", ["alexnet(width=4)", "charlm(width=8, layers=1)"])
def test_convolutions_attention_and_dropout_find_the_same_bits(algorithm, name):
    rng = np.random.default_rng(0)
    data = make_dataset(rng.random((40, 784)).astype(np.float32), np.arange(40) % 4)
    if name.startswith("charlm"):
        data = characters("abcd dcba abab cdcd " * 4, context=8)
    objective = make_objective(name, data)
    chosen = algorithm("bmuf", lr=0.01, batch_size=4)
    shas = {
        fit(chosen, objective, data, rounds=2, workers=3, engine=engine).model.sha256
        for engine in ("serial", "threads", "processes")
    }
    assert len(shas) == 1
