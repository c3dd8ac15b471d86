"""Epochs in rounds, also where one local module wraps another."""

from __future__ import annotations

import pytest

from hemiola.algorithms.registry import build
from hemiola.epochs import rounds_for
from hemiola.errors import OptionError
from hemiola.partition import Shards


@pytest.mark.parametrize(
    ("name", "options", "rounds"),
    [
        ("bmuf-adam", {"steps": 3}, 5),
        ("slowmo", {"steps": 5}, 3),
        ("diloco", {"steps": 30}, 1),
        ("streaming-diloco", {"steps": 9, "fragments": 3, "delay": 1}, 5),
        ("fedprox", {}, 3),
        ("fedprox", {"participation": 0.5}, 6),
        ("fedadam", {"epochs": 2}, 2),
        ("ditto", {"personal_epochs": 7}, 3),
        ("easgd", {"period": 5}, 3),
        ("eamsgd-async", {"period": 5}, 3),
        ("downpour", {"n_push": 5, "n_fetch": 5}, 3),
        ("distbelief", {"n_push": 5, "n_fetch": 5}, 3),
    ],
)
def test_three_epochs_of_five_batches_each(two_classes, name, options, rounds):
    algorithm = build(name, {**options, "batch_size": 3})
    source = Shards(two_classes(60), algorithm.partition, 4, 0)
    assert rounds_for(algorithm, source, 4, 3) == rounds


def test_an_algorithm_that_changes_the_length_of_its_rounds_is_asked_for_rounds(two_classes):
    algorithm = build("post-local-sgd")
    source = Shards(two_classes(60), algorithm.partition, 4, 0)
    with pytest.raises(OptionError, match=r"post-local-sgd: .* give the number of rounds"):
        rounds_for(algorithm, source, 4, 3)
