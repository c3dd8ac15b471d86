"""What the two estimators share: parameters, training and the layout of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from hemiola.algorithm import Algorithm, AnyAlgorithm, SharedMemoryAlgorithm
from hemiola.algorithms.registry import build, recipe
from hemiola.contracts import Engine, Objective
from hemiola.dataset import Dataset, make_dataset
from hemiola.epochs import rounds_for
from hemiola.errors import OptionError, nearest
from hemiola.objectives import LinearObjective
from hemiola.training import fit, make_objective, source_of, usual_algorithm
from hemiola.types import Array

AUTO = "auto"
_DTYPES = (np.float64, np.float32)
_FRACTION, _SMALL = 0.1, 32  # of a shard: the usual mini-batch, and the least samples in one
_BATCH_SIZE = ("batch", "batch.size", "batch_size")


class Distributed(BaseEstimator):
    """What the two estimators share: parameters, training and the weights' layout."""

    _objectives: tuple[str, ...] = ()

    def __init__(
        self,
        algorithm: str | AnyAlgorithm = "ssgd",
        objective: str | Objective = "auto",
        *,
        engine: str | Engine | None = None,
        n_workers: int = 4,
        rounds: int | None = 300,
        epochs: float | None = None,
        l1: float = 0.0,
        l2: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.algorithm = algorithm
        self.objective = objective
        self.engine = engine
        self.n_workers = n_workers
        self.rounds = rounds
        self.epochs = epochs
        self.l1 = l1
        self.l2 = l2
        self.random_state = random_state
        self.options = options

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _check_samples(self, X: Any, y: Any, weight: Any, reset: bool) -> tuple[Any, Array, Any]:
        """The samples as scikit-learn checks them, (n, p), (n,), and (n,) or None."""
        numeric = isinstance(self, RegressorMixin)
        X, y = validate_data(
            self, X, y, reset=reset, accept_sparse="csr", dtype=_DTYPES, y_numeric=numeric
        )
        if weight is not None:
            weight = _check_sample_weight(weight, X, dtype=X.dtype, ensure_non_negative=True)
        return X, y, weight

    def _start(self, data: Dataset, total: float, epochs: float | None) -> Self:
        """Train from scratch on ``data``, whose weights sum to ``total``."""
        self._random = check_random_state(self.random_state)
        self.n_samples_seen_ = 0.0
        return self._train(data, total, epochs, None)

    def _continue(self, data: Dataset, total: float) -> Self:
        """Train on from the current weights, or from scratch if there are none."""
        epochs = 1 if self.epochs is None else self.epochs
        if hasattr(self, "result_"):
            return self._train(data, total, epochs, self._weights())
        return self._start(data, total, epochs)

    def _train(self, data: Dataset, total: float, epochs: float | None, w0: Array | None) -> Self:
        self._check_parameters()
        seen = self.n_samples_seen_ + total
        workers = min(_count("n_workers", self.n_workers), len(data))
        objective = self._make_objective(data, seen)
        algorithm = self._make_algorithm(len(data), workers, objective)
        seed = int(self._random.randint(np.iinfo(np.int32).max))
        if epochs is None:
            rounds = _count("rounds", self.rounds)
        else:
            source = source_of(algorithm, data, workers, seed)
            rounds = rounds_for(algorithm, source, workers, epochs)
        result = fit(
            algorithm, objective, data,
            engine=self.engine, workers=workers, rounds=rounds, seed=seed, w0=w0,
        )  # fmt: skip
        self.result_ = result
        self.history_ = result.history
        self.n_iter_ = math.ceil(result.history.last.rounds)
        self.n_samples_seen_ = seen
        if data.classes is not None:
            self.classes_ = data.classes
        if isinstance(objective, LinearObjective):
            self._unpack(result.weights)
        return self

    def _check_parameters(self) -> None:
        if not isinstance(self.options, Mapping | None):
            raise OptionError(f"options must be a mapping like {{'lr': 0.1}}, not {self.options!r}")
        kinds: dict[str, tuple[type, ...]] = {
            "algorithm": (Algorithm, SharedMemoryAlgorithm),
            "objective": (Objective,),
            "engine": (Engine, type(None)),
        }
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, (str, *kind)):
                what = kind[0].__name__
                raise OptionError(f"{name} must be a name or an {what}, not {value!r}.")

    def _make_algorithm(self, n: int, workers: int, objective: Objective) -> AnyAlgorithm:
        """The algorithm; one given by name takes at least 32 samples, or all, a mini-batch."""
        options = self.options or {}
        if not isinstance(self.algorithm, str):
            if options:
                raise OptionError(
                    "options are for algorithms given by name; this one is complete, so set "
                    "them when building it."
                )
            return self.algorithm
        name = usual_algorithm(objective) if self.algorithm == AUTO else self.algorithm
        if "batch" in recipe(name).parameters and not set(_BATCH_SIZE) & set(options):
            shard = math.ceil(n / workers)
            size = max(_SMALL, math.ceil(_FRACTION * shard))
            options = {**options, "batch_size": "all" if size >= shard else size}
        return build(name, options)

    def _make_objective(self, data: Dataset, seen: float) -> Objective:
        """The objective; the default penalty is that of scikit-learn's C = 1."""
        chosen = self.objective
        loss = chosen.loss if isinstance(chosen, LinearObjective) else chosen
        if isinstance(loss, str) and loss not in self._objectives:
            raise OptionError(
                f"{type(self).__name__} has no objective {loss!r}; "
                f"{nearest(loss, self._objectives)}"
            )
        if not isinstance(chosen, str):
            if self.l2 is not None or self.l1:
                raise OptionError(
                    "l1 and l2 are for objectives given by name; this one is complete, so set its "
                    "penalty when building it."
                )
            return chosen
        l2 = 1 / seen if self.l2 is None and not self.l1 else self.l2
        return make_objective(chosen, data, l2, self.l1)

    def _unpack(self, w: Array) -> None:
        """Set ``coef_`` and ``intercept_`` from flat weights."""
        W = w.reshape(self.n_features_in_ + 1, -1)
        self.coef_, self.intercept_ = np.ascontiguousarray(W[:-1].T), W[-1].copy()

    def _weights(self) -> Array:
        """The flat weights (d,): of ``coef_`` and ``intercept_``, if the model is linear."""
        if not isinstance(self.result_.model.objective, LinearObjective):
            return self.result_.weights
        features = np.reshape(self.coef_, (-1, self.n_features_in_)).T
        return np.vstack([features, np.reshape(self.intercept_, (1, -1))]).ravel()

    def _predict(self, X: Any, method: str) -> Array:
        """``predict`` or ``scores`` of the objective for X (m, p)."""
        check_is_fitted(self, "result_")
        X = validate_data(self, X, reset=False, accept_sparse="csr", dtype=_DTYPES)
        predicted: Array = getattr(self.result_.model.objective, method)(self._weights(), X)
        return predicted


def dataset_of(X: Any, y: Array, classes: Array | None, weight: Any) -> Dataset:
    """Checked samples as a data set; ``classes`` (C,) sorted, or None for real targets."""
    if classes is None:
        return make_dataset(X, y, weight=weight, regression=True)
    data = make_dataset(X, np.searchsorted(classes, y), weight=weight)
    assert data.classes is not None
    return replace(data, y=data.classes[data.y], classes=classes)


def total_weight(X: Any, weight: Any) -> float:
    return float(X.shape[0] if weight is None else weight.sum(dtype=np.float64))


def _count(name: str, value: Any) -> int:
    if not isinstance(value, Integral) or value < 1:
        raise OptionError(f"{name} must be a whole number of at least 1, not {value!r}.")
    return int(value)
