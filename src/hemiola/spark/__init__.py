"""Estimators for Apache Spark: a linear classifier and a linear regressor, trained on a DataFrame.

They are Estimators of spark.ml: with Params, in Pipelines and CrossValidators, saved and loaded.
The data stay where they are: ``fit`` is one barrier stage whose tasks each train on the rows of
their partition, and talk by torch.distributed. Features are taken as they are: put a
``StandardScaler`` in front when their scales differ. Needs the extras ``spark`` and ``torch``.
"""

from hemiola.extras import require

require("pyspark", "spark")

from hemiola.spark.classifier import (  # noqa: E402
    DistributedClassificationModel,
    DistributedClassifier,
)
from hemiola.spark.regressor import (  # noqa: E402
    DistributedRegressionModel,
    DistributedRegressor,
)

__all__ = [
    "DistributedClassificationModel",
    "DistributedClassifier",
    "DistributedRegressionModel",
    "DistributedRegressor",
]
