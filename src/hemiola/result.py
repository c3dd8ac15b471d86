"""What a run leaves behind: a model that predicts, its history and all settings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hemiola.contracts import Objective
from hemiola.data import Standardizer
from hemiola.dataset import Dataset
from hemiola.describe import describe
from hemiola.errors import CheckpointError, DataError, OptionError
from hemiola.extras import require
from hemiola.history import History
from hemiola.objectives import LinearObjective, MatrixFactorization
from hemiola.storage import load_nest, save_nest
from hemiola.types import Array

_FORMAT = "hemiola-model-1"
_OBJECTIVES = {cls.__name__: cls for cls in (LinearObjective, MatrixFactorization)}


@dataclass(frozen=True, eq=False)
class Model:
    """Weights (d,) and what is needed to predict with them.

    ``classes`` are the original labels, None for a regression; ``standardizer`` is applied to raw
    features before predicting, when there is one.
    """

    weights: Array
    objective: Objective
    n_features: int
    classes: Array | None = None
    standardizer: Standardizer | None = None

    def predict(self, X: Any) -> Array:
        """Original labels, or real predictions, (m,), for raw features X (m, n_features).

        Raises :class:`DataError` when X has another number of features.
        """
        if X.shape[1] != self.n_features:
            raise DataError(
                f"the data have {X.shape[1]} features, the model was trained on {self.n_features}."
            )
        if self.standardizer is not None:
            X = self.standardizer.apply_features(X)
        predicted = self.objective.predict(self.weights, X)
        return predicted if self.classes is None else self.classes[predicted]

    @property
    def sha256(self) -> str:
        """Of the weights' bytes: equal if and only if they are equal bit for bit."""
        return hashlib.sha256(np.ascontiguousarray(self.weights).tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Result:
    """The outcome of :func:`hemiola.fit`.

    ``model``     the final model, or the best one if that was asked for;
    ``history``   one record an evaluation;
    ``settings``  plain data: algorithm, objective, engine, workers, seed, rounds;
    ``stopped``   why the run ended;
    ``personal``  the workers' own models (K, d), of algorithms that have such (Ditto); of a worker
                  that never took part, or whose state was lost, the starting point. None
                  after a run that failed or whose stream ended.
    """

    model: Model
    history: History
    settings: dict[str, Any]
    stopped: str
    personal: Array | None = None

    @property
    def weights(self) -> Array:
        return self.model.weights

    def personal_model(self, worker: int) -> Model:
        """A worker's own model. Raises :class:`OptionError` if there is none."""
        models = () if self.personal is None else self.personal
        if not 0 <= worker < len(models):
            raise OptionError(
                f"there is no personal model of worker {worker}: this result has {len(models)}; "
                "ditto leaves one for every worker."
            )
        return replace(self.model, weights=models[worker])

    def save(self, path: str | Path) -> None:
        """Write everything to one NPZ file, atomically. Raises :class:`DataError` if it cannot."""
        standardizer = self.model.standardizer
        scaling = None if standardizer is None else vars(standardizer)
        model = {**vars(self.model), "objective": describe(self.model.objective)}
        save_nest(
            Path(path),
            {
                "format": _FORMAT,
                "model": {**model, "standardizer": scaling},
                "history": self.history.to_dict(),
                "settings": self.settings,
                "stopped": self.stopped,
                "personal": self.personal,
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read what :meth:`save` wrote, without pickle. Raises :class:`CheckpointError`."""
        nest = load_nest(Path(path))
        if not isinstance(nest, dict) or nest.get("format") != _FORMAT:
            raise CheckpointError(f"{path} is not a model file of this version of hemiola.")
        try:
            return cls(
                _model(nest["model"]),
                History.from_dict(nest["history"]),
                nest["settings"],
                nest["stopped"],
                nest.get("personal"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged: a part is missing.") from error


def make_model(
    weights: Array, objective: Objective, data: Dataset, standardizer: Standardizer | None = None
) -> Model:
    """A model for data of this kind."""
    return Model(weights, objective, data.n_features, data.classes, standardizer)


def _model(nest: dict[str, Any]) -> Model:
    objective = dict(nest["objective"])
    kind = objective.pop("type")
    if kind == "Torch":
        return Model(**{**nest, "objective": _network(objective), "standardizer": _scaling(nest)})
    if kind not in _OBJECTIVES:
        raise CheckpointError(f"models of objective {kind} cannot be loaded by this version.")
    made = _OBJECTIVES[kind](**objective)
    return Model(**{**nest, "objective": made, "standardizer": _scaling(nest)})


def _scaling(nest: dict[str, Any]) -> Standardizer | None:
    scaling = nest["standardizer"]
    return None if scaling is None else Standardizer(**scaling)


def _network(fields: dict[str, Any]) -> Objective:
    """A network of this library. Others are code, which a model file does not hold, and is not
    trusted to name."""
    require("torch", "torch")
    from hemiola.objectives.torch import Torch

    try:
        return Torch(**{**fields, "device": "cpu"})
    except OptionError as error:
        raise CheckpointError(
            "the model is a network that only your program can build; make a hemiola.result.Model "
            "of its objective and of the weights in the file (hemiola.storage.load_nest)."
        ) from error
