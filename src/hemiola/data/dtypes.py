"""The two floating-point types that data may have."""

from __future__ import annotations

from typing import Any

import numpy as np

from hemiola.errors import OptionError


def float_dtype(dtype: Any) -> np.dtype[Any]:
    """``dtype`` as a NumPy type; :class:`OptionError` unless it is float32 or float64.

    >>> float_dtype("float32")
    dtype('float32')
    """
    allowed = (np.dtype(np.float32), np.dtype(np.float64))
    try:
        found = [kind for kind in allowed if dtype is not None and np.dtype(dtype) == kind]
    except TypeError:
        found = []
    if not found:
        raise OptionError(f"dtype {dtype!r} is not supported; choose 'float32' or 'float64'.")
    return found[0]
