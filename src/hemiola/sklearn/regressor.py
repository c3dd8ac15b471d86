"""The linear regressor."""

from __future__ import annotations

from typing import Any, Self

from sklearn.base import RegressorMixin

from hemiola.sklearn._distributed import Distributed, dataset_of, total_weight
from hemiola.types import Array


class DistributedRegressor(RegressorMixin, Distributed):
    """Linear least squares with an L2 penalty, trained by several workers.

    The parameters are those of :class:`DistributedClassifier`, but ``objective`` is ``auto`` or
    ``squared``, which are the same, or an :class:`~hemiola.contracts.Objective`.

    After ``fit``: ``coef_`` (p,) and ``intercept_`` (a number), ``n_features_in_``, ``n_iter_``
    (rounds), ``n_samples_seen_``, ``history_`` and ``result_`` (:class:`~hemiola.result.Result`).

    >>> X, y = [[-1.0], [0.0], [1.0]], [1.0, 3.0, 5.0]
    >>> model = DistributedRegressor(l2=0.0, random_state=0).fit(X, y)
    >>> model.predict([[2.0]]).round(3)
    array([7.])
    """

    _objectives = ("auto", "squared")

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from scratch on X (n, p), dense or sparse, targets y (n,) and weights (n,).

        Samples of weight zero are left out.
        """
        X, y, weight = self._check_samples(X, y, sample_weight, reset=True)
        return self._start(dataset_of(X, y, None, weight), total_weight(X, weight), self.epochs)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on from the current weights for one epoch of these samples, or ``epochs``.

        An optimiser's momentum does not carry over. In the default penalty, n counts all samples
        seen so far.
        """
        X, y, weight = self._check_samples(X, y, sample_weight, not hasattr(self, "result_"))
        return self._continue(dataset_of(X, y, None, weight), total_weight(X, weight))

    def predict(self, X: Any) -> Array:
        """Predictions (m,) for X (m, p)."""
        return self._predict(X, "predict")

    def _unpack(self, w: Array) -> None:
        self.coef_, self.intercept_ = w[:-1].copy(), w[-1]
