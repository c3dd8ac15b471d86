"""Settings as plain data: what goes into JSON files, fingerprints and the table of algorithms."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def describe(thing: Any) -> Any:
    """Nested dicts, lists, numbers and text. A dataclass becomes its type's name and its fields.

    >>> from hemiola.optim import SGD
    >>> describe(SGD(lr=0.1))
    {'type': 'SGD', 'lr': 0.1, 'schedule': {'type': 'Constant'}}
    """
    if is_dataclass(thing) and not isinstance(thing, type):
        inside = {field.name: describe(getattr(thing, field.name)) for field in fields(thing)}
        return {"type": type(thing).__name__, **inside}
    if isinstance(thing, dict):
        return {str(key): describe(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [describe(item) for item in thing]
    if isinstance(thing, np.ndarray | np.generic):
        return describe(thing.tolist())
    if isinstance(thing, float) and not math.isfinite(thing):
        return str(thing)
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    return getattr(thing, "__qualname__", None) or repr(thing)
