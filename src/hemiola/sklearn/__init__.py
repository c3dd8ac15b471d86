"""Estimators for scikit-learn: a linear classifier and a linear regressor, trained by workers.

Features are taken as they are: put a ``StandardScaler`` in front when their scales differ.
"""

from hemiola.sklearn.classifier import DistributedClassifier
from hemiola.sklearn.regressor import DistributedRegressor

__all__ = ["DistributedClassifier", "DistributedRegressor"]
