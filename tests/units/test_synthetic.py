"""Made-up sets have the statistics that they promise."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.data.synthetic import KINDS, synthetic
from hemiola.errors import OptionError


@pytest.mark.parametrize("name", KINDS)
def test_the_same_arguments_give_the_same_bits(name):
    one, other = synthetic(name, 300, 2000), synthetic(name, 300, 2000)
    assert (one.X != other.X).nnz == 0 and (one.y == other.y).all()
    assert (one.X != synthetic(name, 300, 2000, seed=1).X).nnz > 0
    assert one.dtype == np.float32
    assert synthetic(name, 30, 200, dtype=np.float64).dtype == np.float64
    np.testing.assert_allclose(one.X.multiply(one.X).sum(axis=1), 1, rtol=1e-5)
    assert 0.4 < one.y.mean() < 0.6


def test_frequencies_differ_as_they_should():
    shares = {}
    for name in KINDS:
        counts = np.bincount(synthetic(name, 2000, 20_000).X.indices, minlength=20_000)
        shares[name] = np.sort(counts)[-2000:].sum() / counts.sum()
    assert shares["uniform"] < 0.3 < shares["kdd-like"] < 0.7 < shares["rcv1-like"]


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match="kdd-like"):
        synthetic("kdd_like")
