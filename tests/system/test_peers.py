"""The table of peers: solvers of all kinds walk to the same optimum and are counted right."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from hemiola.data.synthetic import synthetic

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CHOSEN = {("tiered", 2), ("sdca", 1), ("cocoa", 2), ("SGDClassifier", 1), ("sklearn lbfgs", 1)}


@pytest.fixture(scope="module")
def peers():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("peers")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def data():
    return synthetic("power-law", rows=600, features=80)


def test_solvers_of_all_kinds_reach_the_least_value(peers, data):
    from solvers import Catalogue

    solvers = [s for s in Catalogue(False).of(True, 80) if (s.name, s.threads) in CHOSEN]
    assert len(solvers) == len(CHOSEN)
    best = peers.least_value(data)
    found = peers.Race(data, best, patience=30.0)
    for solver in solvers:
        found.explore(solver)
        found.repeat(solver)
        record = found.records[solver]
        assert 1e-2 in record.reached, solver.name
        assert all(len(seconds) == 2 for seconds in record.seconds.values())
    nothing = peers.objective(data).value(np.zeros(81), peers.Batch(data))
    assert best < 0.95 * nothing, "the goal must not be met by the start"
    assert peers.show(found).row_count == len(CHOSEN)


def test_a_price_is_that_of_one_more_pass_and_not_of_what_comes_before(peers):
    record = peers.Record()
    for passes, seconds in ((1, 5.1), (5, 5.5)):
        record.seconds[passes].append(seconds)
    assert record.price() == pytest.approx(0.1)
    record.reached[1e-2] = 5
    assert record.to(1e-2) == "5.500 (5)"
    assert record.to(1e-3) == "-"
