"""A linear model by features is the whole one, in value and gradient."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from hemiola.dataset import Batch, make_dataset
from hemiola.errors import OptionError
from hemiola.objectives import LinearObjective
from hemiola.objectives.split_linear import SplitLinear


def data_of(loss, csr, weighted):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 7)) * (rng.random((20, 7)) < 0.6)
    y = rng.integers(0, 3 if loss == "softmax" else 2, 20)
    y = rng.normal(size=20) if loss == "squared" else y
    weight = rng.random(20) + 0.1 if weighted else None
    return make_dataset(
        sparse.csr_array(X) if csr else X, y, weight=weight, regression=loss == "squared"
    )


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize(("csr", "weighted"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("loss", ["logistic", "softmax", "squared", "hinge"])
def test_split_features_are_the_whole_model(loss, csr, weighted, workers):
    data = data_of(loss, csr, weighted)
    for whole in (
        LinearObjective(loss, 0.3, l1=0.2),
        LinearObjective(loss, 0.3, intercept=False),
    ):
        split = SplitLinear(whole, workers)
        split.check(data)
        w = np.random.default_rng(1).normal(size=split.init(data, None).size)
        for rows in (None, np.array([3, 4, 4, 11]), np.array([], dtype=np.intp)):
            batch = Batch(data, rows)
            np.testing.assert_allclose(
                split.grad(w, batch), whole.grad(w, batch), rtol=1e-12, atol=1e-13
            )
            assert split.value(w, batch) == pytest.approx(whole.value(w, batch), rel=1e-12)


def test_every_feature_has_one_worker():
    for workers in (1, 2, 3, 7):
        parts = SplitLinear(LinearObjective(), workers).parts(7)
        assert [i for part in parts for i in range(part.start, part.stop)] == list(range(7))


def test_more_workers_than_features_are_refused():
    with pytest.raises(OptionError, match="7 features cannot be split over 8"):
        SplitLinear(LinearObjective(), 8).check(data_of("logistic", False, False))
