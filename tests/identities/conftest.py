"""The algorithms' building blocks once more, in plain NumPy and without the library."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest


def _logistic_gradient(w, data, rows, l2=0.0):
    X, y = data.X[rows], data.y[rows]
    residual = 1.0 / (1.0 + np.exp(-(X @ w[:-1] + w[-1]))) - y
    return np.append(X.T @ residual / len(y) + l2 * w[:-1], residual.mean())


def _local_sgd(w, data, batches, lr, l2=0.0):
    w = w.copy()
    for rows in batches:
        w = w - lr * _logistic_gradient(w, data, rows, l2)
    return w


@pytest.fixture(scope="session")
def gradient():
    """(w, data, rows, l2) -> the gradient of the mean logistic loss over these rows."""
    return _logistic_gradient


@pytest.fixture(scope="session")
def local_sgd():
    """(w, data, batches, lr, l2) -> the model after one SGD step a batch."""
    return _local_sgd


@pytest.fixture(scope="session")
def same():
    """Equal but for rounding."""
    return partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="session")
def apart():
    """The largest difference of two arrays."""
    return lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max())
