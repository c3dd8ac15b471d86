"""Functions of each entry, computed where the entries live: NumPy's arrays, or tensors anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np


def sqrt(x: Any) -> Any:
    """The square roots, new, of x's kind.

    >>> sqrt(np.array([1.0, 4.0]))
    array([1., 2.])
    """
    return np.sqrt(x) if isinstance(x, np.ndarray) else x.sqrt()


def sign(x: Any) -> Any:
    """-1, 0 or 1, new, of x's kind.

    >>> sign(np.array([-3.0, 0.0]))
    array([-1.,  0.])
    """
    return np.sign(x) if isinstance(x, np.ndarray) else x.sign()
