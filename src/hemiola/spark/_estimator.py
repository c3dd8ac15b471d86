"""What the two estimators and their models share: Params, fitting, predicting, saving."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from pyspark.ml.base import Estimator, Model
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import (
    HasFeaturesCol,
    HasLabelCol,
    HasPredictionCol,
    HasSeed,
    HasWeightCol,
)
from pyspark.ml.util import (
    DefaultParamsReadable,
    DefaultParamsReader,
    DefaultParamsWritable,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWritable,
    MLWriter,
)
from pyspark.sql import DataFrame
from pyspark.sql.functions import arrow_udf

from hemiola.errors import DataError, OptionError, nearest
from hemiola.history import History
from hemiola.result import Model as Weights
from hemiola.result import Result
from hemiola.spark._columns import features_of, matrix, selected
from hemiola.spark._training import Wish, objective_of, train
from hemiola.storage import nest_from_bytes, nest_to_bytes
from hemiola.types import Array

_NUMBERS = {"rounds": 1, "numWorkers": 0, "l1": 0.0}


class DistributedParams(
    HasFeaturesCol, HasLabelCol, HasPredictionCol, HasWeightCol, HasSeed, Params
):
    """Params of estimators and models."""

    featuresCols: Param[list[str]] = Param(
        Params._dummy(), "featuresCols", "columns of numbers, instead of featuresCol",
        TypeConverters.toListString,
    )  # fmt: skip
    algorithm: Param[str] = Param(
        Params._dummy(), "algorithm", "a synchronous algorithm's name", TypeConverters.toString
    )
    objective: Param[str] = Param(
        Params._dummy(), "objective", "the loss, or auto", TypeConverters.toString
    )
    rounds: Param[int] = Param(
        Params._dummy(), "rounds", "rounds of communication", TypeConverters.toInt
    )
    numWorkers: Param[int] = Param(
        Params._dummy(), "numWorkers",
        "tasks that train; 0: as many as run at once, and no more than there are partitions",
        TypeConverters.toInt,
    )  # fmt: skip
    l1: Param[float] = Param(Params._dummy(), "l1", "L1 penalty", TypeConverters.toFloat)
    l2: Param[float] = Param(
        Params._dummy(), "l2",
        "L2 penalty; if not set, one over the sum of the weights, or 0 if there is an L1 penalty",
        TypeConverters.toFloat,
    )  # fmt: skip
    options: Param[dict[str, Any]] = Param(
        Params._dummy(), "options", "of the algorithm, such as {'lr': 0.1}", TypeConverters.identity
    )
    timeout: Param[float] = Param(
        Params._dummy(), "timeout", "seconds that a task is waited for", TypeConverters.toFloat
    )

    def getRounds(self) -> int:
        return self.getOrDefault(self.rounds)

    def getAlgorithm(self) -> str:
        return self.getOrDefault(self.algorithm)

    def _set_defaults(self) -> None:
        self._setDefault(
            algorithm="ssgd", objective="auto", rounds=300, numWorkers=0, l1=0.0, options={},
            seed=0, timeout=300.0,
        )  # fmt: skip

    def _features(self) -> list[str]:
        if self.isSet(self.featuresCols):
            return list(self.getOrDefault(self.featuresCols))
        return [self.getFeaturesCol()]


class DistributedEstimator(
    Estimator, DistributedParams, DefaultParamsReadable, DefaultParamsWritable
):
    """Trains on a DataFrame. Subclasses say what is allowed, and which model comes of it."""

    _objectives: tuple[str, ...] = ()
    _is_regression = False
    _model: type[DistributedModel]

    def __init__(self, **params: Any) -> None:
        super().__init__()
        self._set_defaults()
        self.setParams(**params)

    def setParams(self, **params: Any) -> Self:
        """Set Params by their names; None leaves one as it is."""
        for name in params:
            if not self.hasParam(name):
                known = [param.name for param in self.params]
                raise OptionError(
                    f"{type(self).__name__} has no Param {name!r}; {nearest(name, known)}"
                )
        return self._set(**params)

    def _fit(self, dataset: DataFrame) -> DistributedModel:
        names = self._features()
        weight = self.getWeightCol() if self.isDefined(self.weightCol) else ""
        frame = selected(dataset, names, self.getLabelCol(), weight)
        wish = self._wish((" + ".join(names[:3]), self.getLabelCol(), weight))
        workers = self.getOrDefault(self.numWorkers) or None
        result = train(frame, wish, workers, self.getOrDefault(self.timeout))
        model = self._model(result)
        return self._copyValues(model)

    def _wish(self, names: tuple[str, ...]) -> Wish:
        chosen = self.getOrDefault
        for name, least in _NUMBERS.items():
            if chosen(name) < least:
                raise OptionError(f"{name} must be at least {least}, not {chosen(name)!r}.")
        objective, options = chosen(self.objective), chosen(self.options)
        if objective not in self._objectives:
            raise OptionError(
                f"{type(self).__name__} has no objective {objective!r}; "
                f"{nearest(objective, self._objectives)}"
            )
        if not isinstance(options, Mapping):
            raise OptionError(f"options must be a mapping like {{'lr': 0.1}}, not {options!r}.")
        l2 = chosen(self.l2) if self.isDefined(self.l2) else None
        return Wish(
            chosen(self.algorithm), objective, chosen(self.rounds), chosen(self.l1), l2,
            chosen(self.seed), dict(options), names, self._is_regression,
        )  # fmt: skip


class DistributedModel(Model, DistributedParams, MLReadable, MLWritable):
    """What ``fit`` returns. ``result`` (:class:`~hemiola.result.Result`) holds the weights, the
    history and all settings, and saves them for use without Spark."""

    def __init__(self, result: Result | None = None) -> None:
        super().__init__()
        self._set_defaults()
        self._kept = result

    @property
    def result(self) -> Result:
        if self._kept is None:
            raise OptionError("this model is empty; one comes from fit, or from load.")
        return self._kept

    @property
    def numFeatures(self) -> int:
        return self.result.model.n_features

    @property
    def _matrix(self) -> Array:
        """(p + 1, C), the intercepts last."""
        return self.result.weights.reshape(self.numFeatures + 1, -1)

    def copy(self, extra: Any = None) -> Self:
        copied = super().copy(extra)
        copied._kept = self._kept
        return copied

    def write(self) -> MLWriter:
        return _Writer(self)

    @classmethod
    def read(cls) -> MLReader[Any]:
        return _Reader(cls)

    def _scores(self, dataset: DataFrame) -> Any:
        """A column of arrays: the linear scores (C,) of each row; null for a null."""
        names, width, weights = self._features(), self.numFeatures, self._matrix

        @arrow_udf("array<double>")
        def scores(features):  # type: ignore[no-untyped-def]
            return _scored(features, weights, width, names[0])

        return scores(features_of(dataset, names))


def _scored(features: Any, weights: Array, width: int, name: str) -> Any:
    """An Arrow array of lists (C,) for one of vectors or lists."""
    import pyarrow as pa

    if not len(features):
        return pa.array([], pa.list_(pa.float64()))
    X = matrix(features, name)
    if X.shape[1] != width:
        raise DataError(
            f"column {name!r} holds vectors of {X.shape[1]} numbers; the model was trained on "
            f"{width}."
        )
    scores = np.asarray(X @ weights[:-1]) + weights[-1]
    starts = np.arange(0, scores.size + 1, scores.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(starts, scores.ravel())


class _Writer(MLWriter):
    """Params as JSON, the result as a nest of arrays: nothing is pickled."""

    def __init__(self, model: DistributedModel) -> None:
        super().__init__()
        self._model = model

    def saveImpl(self, path: str) -> None:
        DefaultParamsWriter.saveMetadata(self._model, path, self.sparkSession)
        result = self._model.result
        model = result.model
        content = nest_to_bytes({
            "weights": model.weights, "classes": model.classes, "features": model.n_features,
            "loss": getattr(model.objective, "loss", ""), "l2": getattr(model.objective, "l2", 0.0),
            "l1": getattr(model.objective, "l1", 0.0), "history": result.history.to_dict(),
            "settings": result.settings, "stopped": result.stopped,
        })  # fmt: skip
        frame = self.sparkSession.createDataFrame([(bytearray(content),)], "content binary")
        frame.coalesce(1).write.parquet(os.path.join(path, "data"))


class _Reader(MLReader[Any]):
    def __init__(self, kind: type[DistributedModel]) -> None:
        super().__init__()
        self._kind = kind

    def load(self, path: str) -> DistributedModel:
        name = f"{self._kind.__module__}.{self._kind.__name__}"
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession, name)
        row = self.sparkSession.read.parquet(os.path.join(path, "data")).first()
        if row is None:
            raise DataError(f"{path} holds no model; use another copy, or train anew.")
        nest = nest_from_bytes(bytes(row[0]))
        wish = Wish("", nest["loss"], 1, nest["l1"], nest["l2"], 0, {}, (), False)
        objective = objective_of(wish, nest["l2"], nest["classes"])
        model = Weights(nest["weights"], objective, nest["features"], nest["classes"])
        history = History.from_dict(nest["history"])
        found = self._kind(Result(model, history, nest["settings"], nest["stopped"]))
        found._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(found, metadata)
        return found
