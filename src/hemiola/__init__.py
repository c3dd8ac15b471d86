"""Hemiola: distributed machine learning, synchronous and asynchronous, from four modules.

>>> import hemiola
>>> data = hemiola.load("breast_cancer")
>>> result = hemiola.fit("model-averaging", "logistic", data, workers=4, rounds=5)
>>> result.history.last.rounds
5.0
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Algorithm": "hemiola.algorithm",
    "MiniBatch": "hemiola.algorithm",
    "Dataset": "hemiola.dataset",
    "make_dataset": "hemiola.dataset",
    "fit": "hemiola.training",
    "Result": "hemiola.result",
    "load": "hemiola.data",
    "open_shards": "hemiola.data",
    "convert": "hemiola.data",
    "split": "hemiola.data",
    "Standardizer": "hemiola.data",
    "HemiolaError": "hemiola.errors",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is asked for: ``import hemiola`` itself is quick."""
    if name not in _LAZY:
        raise AttributeError(f"module 'hemiola' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
