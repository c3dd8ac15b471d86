"""Sharing ADMM: its iteration, and the pooled optimum from workers that know some features each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import ElasticNet, LogisticRegression
from sklearn.svm import SVC

import hemiola
from hemiola.aggregate import Balance, Stopping
from hemiola.algorithms import admm_sharing
from hemiola.algorithms.admm_sharing import prox_of_loss
from hemiola.algorithms.registry import build
from hemiola.dataset import Batch, make_dataset
from hemiola.errors import OptionError, WorkersLostError
from hemiola.faults import Die
from hemiola.kernels.descent import elastic_net
from hemiola.objectives import LinearObjective, hinge, logistic, squared
from hemiola.partition import FeatureSplit

EXACT = Stopping(absolute=0.0, relative=0.0)
FIXED = Balance(rounds=0)
PENALTIES = {
    "none": {},
    "l2": {"l2": 0.05},
    "l1": {"l1": 0.03},
    "elastic net": {"l1": 0.02, "l2": 0.05},
}


def train(objective, data, *, workers=3, rounds=300, **options):
    chosen = admm_sharing(**{"stopping": EXACT, **options})
    return hemiola.fit(chosen, objective, data, workers=workers, rounds=rounds, eval_every=1)


def subgradient_residual(objective, w, data):
    smooth = objective.grad(w, Batch(data))
    features, slope = w[:-1], smooth[:-1]
    at_zero = np.maximum(np.abs(slope) - objective.l1, 0)
    elsewhere = np.abs(slope + objective.l1 * np.sign(features))
    return max(np.where(features == 0, at_zero, elsewhere).max(), abs(smooth[-1]))


def slow_prox(loss, y, q, kappa):
    """The root of loss'(Z) + kappa (Z - q), one sample after another, by bisection."""
    out = []
    for label, center in zip(y, q, strict=True):
        low, high = center - 2 / kappa - abs(label), center + 2 / kappa + abs(label)
        for _ in range(200):
            Z = (low + high) / 2
            slope = 1 / (1 + np.exp(-Z)) - label if loss == "logistic" else Z - label
            low, high = (Z, high) if slope + kappa * (Z - center) < 0 else (low, Z)
        out.append((low + high) / 2)
    return np.array(out)


def lasso(A, t, rho, l1, l2, penalised):
    """argmin rho/(2n) |A x - t|^2 + l1 |x|_1 + l2/2 |x|^2 by many proximal gradient steps."""
    n = len(t)
    L = rho / n * np.linalg.norm(A, 2) ** 2 + l2
    x = np.zeros(A.shape[1])
    for _ in range(2_000):
        v = x - (rho / n * A.T @ (A @ x - t) + l2 * penalised * x) / L
        x = np.sign(v) * np.maximum(np.abs(v) - l1 * penalised / L, 0)
    return x


@pytest.mark.parametrize("loss", ["logistic", "squared"])
@pytest.mark.parametrize("penalty", ["l2", "elastic net"])
def test_sharing_is_the_textbooks_iteration(two_classes, line, run, loss, penalty):
    """Boyd's sections 7.3 and 8.3 for mean losses: the model of every round, and the residuals."""
    data = two_classes(40, 5) if loss == "logistic" else line(40, 5)
    objective, rho, N = LinearObjective(loss, **PENALTIES[penalty]), 0.7, 3
    chosen = admm_sharing(rho, FIXED, EXACT)
    ran = run(chosen, objective, data, workers=N, updates=7)
    blocks = [np.array([0, 1, 5]), np.array([2, 3]), np.array([4])]  # the intercept is worker 0's
    A = np.column_stack([data.X, np.ones(40)])
    x = [ran.w0[block] for block in blocks]
    n, u, z_j = 40, np.zeros(40), [np.zeros(40)] * N

    for t in range(7):
        np.testing.assert_allclose(ran.models[t][np.concatenate(blocks)], np.concatenate(x),
                                   atol=1e-7, err_msg=f"round {t}")  # fmt: skip
        parts = [A[:, block] @ x[j] for j, block in enumerate(blocks)]
        mean = sum(parts) / N
        z = slow_prox(loss, data.y, N * (mean + u), rho / N) / N
        u = u + mean - z
        old, z_j = z_j, [part + z - mean for part in parts]
        if 0 < t < 6:
            seen = ran.servers[t + 1]["measures"]
            gap = N * np.linalg.norm(mean - z) / np.sqrt(n)
            assert seen["primal"] == pytest.approx(gap, rel=1e-6)
            s = [rho / n * A[:, b].T @ (z_j[j] - old[j]) for j, b in enumerate(blocks)]
            assert seen["dual"] == pytest.approx(np.linalg.norm(np.concatenate(s)), rel=1e-5)
        x = [
            lasso(A[:, block], parts[j] + z - mean - u, rho, objective.l1, objective.l2, block < 5)
            for j, block in enumerate(blocks)
        ]


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("loss", ["logistic", "squared"])
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_the_limit_is_the_pooled_optimum(two_classes, line, loss, penalty, csr):
    data = two_classes(60, 5, csr=csr) if loss == "logistic" else line(60, 5, csr=csr)
    objective = LinearObjective(loss, **PENALTIES[penalty])
    result = train(objective, data, rounds=400)
    assert subgradient_residual(objective, result.weights, data) < 1e-8


def test_the_limit_is_that_of_scikit_learn(two_classes, line):
    data = two_classes(60, 5)
    pooled = LogisticRegression(C=1 / (0.05 * 60), tol=1e-12, solver="newton-cholesky")
    pooled.fit(data.X, data.y)
    found = train(logistic(0.05), data, rounds=400).weights
    np.testing.assert_allclose(found, np.append(pooled.coef_, pooled.intercept_), atol=1e-8)
    data = line(60, 5)
    net = ElasticNet(alpha=0.15, l1_ratio=2 / 3, tol=1e-14, max_iter=100_000).fit(data.X, data.y)
    found = train(LinearObjective("squared", 0.05, l1=0.1), data, rounds=400).weights
    np.testing.assert_allclose(found, np.append(net.coef_, net.intercept_), atol=1e-8)


def test_the_hinge_loss_ends_at_the_support_vector_machine(two_classes):
    data = two_classes(60, 5)
    pooled = SVC(kernel="linear", C=1 / (0.05 * 60), tol=1e-10).fit(data.X, data.y)
    found = train(hinge(0.05), data, rounds=3000).weights
    np.testing.assert_allclose(found, np.append(pooled.coef_, pooled.intercept_), atol=1e-4)


def test_the_limit_does_not_depend_on_rho_or_on_how_features_are_split(two_classes):
    data, objective = two_classes(60, 5), LinearObjective("logistic", l2=0.05, l1=0.01)
    limits = [
        train(objective, data, workers=workers, rounds=500, **options).weights
        for workers, options in [(1, {}), (2, {"rho": 0.3}), (7, {"rho": 3.0, "balance": FIXED})]
    ]
    for other in limits[1:]:
        np.testing.assert_allclose(other, limits[0], atol=1e-7)


def test_it_begins_where_it_is_told_to(two_classes, run):
    data = two_classes(60, 5)
    ran = run(admm_sharing(), logistic(0.05), data, workers=3, updates=2)
    assert (ran.models[0] == ran.w0).all() and (ran.models[1] != ran.w0).any()
    optimum = train(logistic(0.05), data).weights
    away = run(admm_sharing(), logistic(0.05), data, workers=3, updates=300, w0=optimum)
    np.testing.assert_allclose(away.last, optimum, atol=1e-6)


def test_sample_weights_and_a_missing_intercept_are_honoured(two_classes):
    weight = np.random.default_rng(0).uniform(0.5, 3, 60)
    data = two_classes(60, 5, weight=weight)
    objective = LinearObjective("logistic", l2=0.05, intercept=False)
    result = train(objective, data, rounds=400)
    assert result.weights[-1] == 0
    assert np.abs(objective.grad(result.weights, Batch(data))).max() < 1e-8


def test_it_stops_by_itself_near_the_optimum(two_classes):
    data = two_classes(60, 5)
    result = hemiola.fit(
        admm_sharing(stopping=Stopping(1e-6, 1e-6)), logistic(0.05), data, rounds=500, workers=3
    )
    assert "residuals are small enough" in result.stopped
    assert np.abs(logistic(0.05).grad(result.weights, Batch(data))).max() < 1e-4


@pytest.mark.parametrize("loss", ["logistic", "squared", "hinge"])
@pytest.mark.parametrize("kappa", [1e-3, 0.5, 40.0])
def test_the_proximal_step_of_a_loss_minimises_what_it_says(two_classes, line, loss, kappa):
    weight = np.random.default_rng(0).uniform(0.5, 3, 60)
    data = line(60) if loss == "squared" else two_classes(60, weight=weight)
    data = replace(data, weight=weight / weight.mean())
    q = np.random.default_rng(1).normal(size=60) * 5
    Z = prox_of_loss(LinearObjective(loss), data, q, kappa)
    y, s = data.y, data.weight

    def value(Z):
        each = {
            "logistic": lambda: np.logaddexp(0, Z) - y * Z,
            "squared": lambda: (Z - y) ** 2 / 2,
            "hinge": lambda: np.maximum(0, 1 - (2 * y - 1) * Z),
        }[loss]()
        return s * each + kappa / 2 * (Z - q) ** 2

    for step in (1e-4, -1e-4, 1e-2, -1e-2, 1.0, -1.0):
        assert (value(Z + step) >= value(Z) - 1e-12).all()


def test_coordinate_descent_is_scikit_learns():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6))
    t = rng.normal(size=50)
    net = ElasticNet(alpha=0.2, l1_ratio=0.7, fit_intercept=False, tol=1e-15, max_iter=100_000)
    x = np.ones(6)
    elastic_net(X.T @ X / 50, X.T @ t / 50, np.full(6, 0.14), np.full(6, 0.06), x, 1e-15, 100_000)
    np.testing.assert_allclose(x, net.fit(X, t).coef_, atol=1e-9)
    assert (x == 0).any()


def test_all_features_are_dealt_once():
    for p, K in ((7, 3), (5, 5), (9, 1), (3, 5)):
        parts = [FeatureSplit.columns(p, K, k) for k in range(K)]
        assert np.concatenate(parts).tolist() == list(range(p))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_what_cannot_be_is_refused(two_classes):
    data = two_classes(60, 3)
    with pytest.raises(OptionError, match="no proximal step for softmax"):
        hemiola.fit("admm-sharing", "softmax", data, workers=3)
    with pytest.raises(WorkersLostError, match="2 of 3 workers answered"):
        hemiola.fit("admm-sharing", "logistic", data, workers=3, engine="simulator",
                    faults=[Die(worker=1, at=4)])  # fmt: skip
    with pytest.raises(OptionError, match="cannot be sharded"):
        build("admm-sharing", {"shards": 2})


def test_columns_without_any_entry_are_no_trouble():
    X = sparse.csr_array(np.array([[1.0, 0, 0, 2], [0, 0, 0, 1], [3, 0, 0, 0], [1, 0, 0, 1]] * 5))
    data = make_dataset(X, [0, 1, 1, 0] * 5)
    for objective in (logistic(0.1), LinearObjective("logistic", l1=0.05), squared()):
        result = train(objective, data, workers=2)
        assert result.weights[1] == result.weights[2] == 0
