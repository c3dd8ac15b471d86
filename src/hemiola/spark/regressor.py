"""The linear regressor and its model."""

from __future__ import annotations

from pyspark.sql import DataFrame

from hemiola.errors import DataError
from hemiola.spark._estimator import DistributedEstimator, DistributedModel
from hemiola.types import Array


class DistributedRegressionModel(DistributedModel):
    """Adds a column ``prediction`` to a DataFrame."""

    @property
    def coefficients(self) -> Array:
        """(p,)."""
        return self._matrix[:-1, 0].copy()

    @property
    def intercept(self) -> float:
        return float(self._matrix[-1, 0])

    def _transform(self, dataset: DataFrame) -> DataFrame:
        name = self.getPredictionCol()
        if name in dataset.columns:
            raise DataError(f"the DataFrame has a column {name!r} already; drop or rename it.")
        return dataset.withColumn(name, self._scores(dataset)[0])


class DistributedRegressor(DistributedEstimator):
    """A linear regressor by least squares, trained by the tasks of one barrier stage.

    Params are those of :class:`~hemiola.spark.DistributedClassifier`, but for ``rawPredictionCol``
    and ``probabilityCol``; ``objective`` is ``auto`` or ``squared``.
    """

    _objectives = ("auto", "squared")
    _is_regression = True
    _model = DistributedRegressionModel
