"""The linear classifier."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets

from hemiola.errors import DataError, OptionError
from hemiola.sklearn._distributed import Distributed, dataset_of, total_weight
from hemiola.types import Array


def _has_scores(estimator: Distributed) -> bool:
    return isinstance(estimator.objective, str) or hasattr(estimator.objective, "scores")


def _has_probabilities(estimator: Distributed) -> bool:
    loss = getattr(estimator.objective, "loss", estimator.objective)
    return isinstance(loss, str) and loss in ("auto", "logistic", "softmax")


class DistributedClassifier(ClassifierMixin, Distributed):
    """A linear classifier, trained by several workers.

    ``algorithm``     the name of an algorithm, or an :class:`~hemiola.algorithm.Algorithm`, or
                      ``auto``: for linear models threads that share memory, ``sdca`` where there is
                      an L2 penalty and a dual (logistic, squared, hinge), else ``tiered``,
                      whose options differ;
    ``objective``     ``auto`` or ``logistic`` (softmax for more than two classes), ``softmax``,
                      ``hinge`` (two classes only), or an :class:`~hemiola.contracts.Objective`;
    ``engine``        the name of an engine, or an :class:`~hemiola.contracts.Engine`; None:
                      ``threads`` for algorithms that share memory, ``serial`` for the others;
    ``n_workers``     how many workers; no more than there are samples are used;
    ``rounds``        how long ``fit`` trains: rounds of communication, or passes over the data of
                      algorithms that share memory;
    ``epochs``        passes over the data, instead of ``rounds``;
    ``l1``            L1 penalty, for algorithms with a proximal step such as ``admm``; else 0;
    ``l2``            L2 penalty; None is 1/n (with sample weights, one over their sum): C = 1 in
                      scikit-learn, or 0 if there is an L1 penalty;
    ``random_state``  of everything random: a number, a ``RandomState``, or None. What several
                      threads give depends on timing all the same, unless workers take turns or wait
                      for each other;
    ``options``       of an algorithm given by name, such as ``{"lr": 0.1, "steps": 5}``. Without a
                      batch size, a mini-batch is a tenth of a worker's samples but at least 32 of
                      them, or all if there are fewer.

    After ``fit``: ``classes_`` (C,), ``coef_`` (1, p) and ``intercept_`` (1,), or (C, p) and (C,)
    with softmax, ``n_features_in_``, ``n_iter_`` (rounds), ``n_samples_seen_``, ``history_`` and
    ``result_`` (:class:`~hemiola.result.Result`). Without a linear objective there is no ``coef_``.

    Options that make no sense raise :class:`~hemiola.errors.OptionError`, and data that do not fit
    raise :class:`~hemiola.errors.DataError`, when ``fit`` is called; both are ``ValueError``.

    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), DistributedClassifier("bmuf", random_state=0))
    >>> bool(model.fit(X, y).score(X, y) > 0.98)
    True
    """

    _objectives = ("auto", "logistic", "softmax", "hinge")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = (
            getattr(self.objective, "loss", self.objective) != "hinge"
        )
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from scratch on X (n, p), dense or sparse, labels y (n,) and weights (n,).

        Samples of weight zero are left out.
        """
        X, y, weight = self._check_samples(X, y, sample_weight, reset=True)
        check_classification_targets(y)
        present = np.unique(y if weight is None else y[weight > 0])
        if len(present) < 2:
            raise DataError(
                f"all samples that count are of one class, {present[0]!s}; a classifier needs at "
                "least two classes."
            )
        return self._start(
            dataset_of(X, y, np.unique(y), weight), total_weight(X, weight), self.epochs
        )

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train on from the current weights for one epoch of these samples, or ``epochs``.

        ``classes`` (C,) names all labels there will be; the first call needs it. An optimiser's
        momentum does not carry over. In the default penalty, n counts all samples seen so far.
        """
        X, y, weight = self._check_samples(X, y, sample_weight, not hasattr(self, "result_"))
        check_classification_targets(y)
        classes = self._known_classes(classes)
        unknown = np.setdiff1d(y, classes)
        if len(unknown):
            raise DataError(f"label {unknown[0]!s} is not among the classes; name all classes.")
        return self._continue(dataset_of(X, y, classes, weight), total_weight(X, weight))

    def _known_classes(self, classes: Any) -> Array:
        known: Any = getattr(self, "classes_", None)
        if classes is None and known is None:
            raise OptionError(
                "the first call of partial_fit needs classes: all labels that later calls may hold."
            )
        given = np.unique(known if classes is None else classes)
        if known is not None and not np.array_equal(given, known):
            raise OptionError("classes differ from those that the model knows; leave them out.")
        return given

    def predict(self, X: Any) -> Array:
        """Labels (m,) for X (m, p)."""
        numbers = self._predict(X, "predict")
        labels: Array = self.classes_[numbers]
        return labels

    @available_if(_has_scores)
    def decision_function(self, X: Any) -> Array:
        """Scores for X (m, p): (m,) for two classes, positive for the second; else (m, C)."""
        z = self._predict(X, "scores")
        return z[:, 1] - z[:, 0] if z.ndim == 2 and z.shape[1] == 2 else z

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> Array:
        """Probabilities (m, C) for X (m, p), for logistic and softmax."""
        z = self.decision_function(X)
        if z.ndim == 2:
            return np.asarray(softmax(z, axis=1))
        return np.stack([expit(-z), expit(z)], axis=1)
