"""The linear classifier and its model."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark.ml.functions import array_to_vector
from pyspark.ml.param.shared import HasProbabilityCol, HasRawPredictionCol
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from hemiola.errors import DataError
from hemiola.spark._estimator import DistributedEstimator, DistributedModel
from hemiola.types import Array


class DistributedClassificationModel(DistributedModel, HasRawPredictionCol, HasProbabilityCol):
    """Adds three columns to a DataFrame: ``rawPrediction``, a vector of linear scores (C,),
    ``probability`` (C,), with logistic and softmax loss, and ``prediction``, a label."""

    @property
    def numClasses(self) -> int:
        return len(self._classes)

    @property
    def _classes(self) -> Array:
        classes = self.result.model.classes
        assert classes is not None
        return classes

    @property
    def coefficientMatrix(self) -> Array:
        """(1, p) for two classes, else (C, p)."""
        return np.ascontiguousarray(self._matrix[:-1].T)

    @property
    def interceptVector(self) -> Array:
        """(1,) for two classes, else (C,)."""
        return self._matrix[-1].copy()

    def _transform(self, dataset: DataFrame) -> DataFrame:
        raw, probability = self.getRawPredictionCol(), self.getProbabilityCol()
        taken = [n for n in (raw, probability, self.getPredictionCol()) if n in dataset.columns]
        if taken:
            raise DataError(f"the DataFrame has a column {taken[0]!r} already; drop or rename it.")
        scores = "hemiola scores"
        found = dataset.withColumn(scores, self._scores(dataset))
        both = F.col(scores)
        if self._matrix.shape[1] == 1:
            both = F.array(-F.col(scores)[0], F.col(scores)[0])
        found = found.withColumn(scores, both)
        if getattr(self.result.model.objective, "loss", "") in ("logistic", "softmax"):
            found = found.withColumn(
                probability, array_to_vector(_probability(F.col(scores), self))
            )
        labels = F.array(*(F.lit(float(label)) for label in self._classes))
        top = F.array_position(F.col(scores), F.array_max(F.col(scores)))
        found = found.withColumn(self.getPredictionCol(), F.element_at(labels, top.cast("int")))
        return found.withColumn(raw, array_to_vector(F.col(scores))).drop(scores)


def _probability(scores: Any, model: DistributedClassificationModel) -> Any:
    """Of each class, from the scores: the softmax, or the logistic function of one of two."""
    if model._matrix.shape[1] == 1:
        return F.transform(scores, lambda z: 1 / (1 + F.exp(-z)))
    powers = F.transform(scores, lambda z: F.exp(z - F.array_max(scores)))
    total = F.aggregate(powers, F.lit(0.0), lambda total, power: total + power)
    return F.transform(powers, lambda power: power / total)


class DistributedClassifier(DistributedEstimator, HasRawPredictionCol, HasProbabilityCol):
    """A linear classifier, trained by the tasks of one barrier stage, each on its partition.

    Params, as keywords or by ``setParams``:

    ``featuresCol``    a column of vectors, dense or sparse, or of arrays of numbers;
    ``featuresCols``   columns of numbers, instead;
    ``labelCol``       labels: any numbers, of which ``prediction`` will be one;
    ``weightCol``      sample weights, not negative; rows of weight zero are left out;
    ``predictionCol``, ``rawPredictionCol``, ``probabilityCol``  what the model adds;
    ``algorithm``      the name of a synchronous algorithm, ``ssgd``, ``bmuf``, ``admm``, ...;
    ``objective``      ``auto`` or ``logistic`` (softmax for more than two classes), ``softmax``, or
                       ``hinge`` (two classes only);
    ``rounds``         how long it trains;
    ``numWorkers``     tasks that train, all at once; 0: as many as run at once, and no more than
                       the DataFrame has partitions. With another number than it has, the rows are
                       dealt anew (``repartition``), else left where they are;
    ``l1``, ``l2``     penalties; without any, ``l2`` is one over the sum of the weights;
    ``options``        of the algorithm, such as ``{"lr": 0.1, "steps": 5}``;
    ``seed``           of everything random;
    ``timeout``        seconds that a task is waited for.

    Data that do not fit raise :class:`~hemiola.errors.DataError` and options that make no sense
    :class:`~hemiola.errors.OptionError`, when ``fit`` is called; too few cores, or an algorithm
    that is not synchronous, :class:`~hemiola.errors.UnsupportedError`.

    Of an example that needs a session, see ``docs/spark.md``.
    """

    _objectives = ("auto", "logistic", "softmax", "hinge")
    _model = DistributedClassificationModel
