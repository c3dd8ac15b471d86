"""Consensus ADMM: its iteration, its invariants, and the pooled optimum as its limit."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge
from sklearn.svm import SVC

import hemiola
from hemiola.aggregate import Balance, Consensus, Stopping
from hemiola.algorithm import MiniBatch
from hemiola.algorithms import admm
from hemiola.algorithms.admm import Steps
from hemiola.algorithms.registry import build
from hemiola.dataset import Batch, make_dataset
from hemiola.errors import OptionError
from hemiola.local import LBFGS, Newton
from hemiola.objectives import LinearObjective, factorization, hinge, logistic, squared
from hemiola.optim import SGD, Adam, HeavyBall
from hemiola.partition import BySpeed, Contiguous
from hemiola.penalty import Penalty
from hemiola.reference import pooled_optimum

FIXED = Balance(rounds=0)
EXACT = Stopping(absolute=0.0, relative=0.0)
UNEVEN = BySpeed((1.0, 0.5, 0.25, 0.1))
PENALTIES = {
    "none": {},
    "l2": {"l2": 0.05},
    "l1": {"l1": 0.03},
    "elastic net": {"l1": 0.02, "l2": 0.05},
}

LOSSES = ("logistic", "squared", "softmax")
NO_ONE_OPTIMUM = ("softmax", "none")


def train(objective, data, *, workers=4, rounds=300, **options):
    chosen = admm(**{"stopping": EXACT, **options})
    return hemiola.fit(chosen, objective, data, workers=workers, rounds=rounds, eval_every=1)


def subgradient_residual(objective, w, data, free):
    """How far 0 is from the pooled objective's subdifferential at w, largest coordinate."""
    smooth = objective.grad(w, Batch(data))
    features, slope = w[: w.size - free], smooth[: w.size - free]
    at_zero = np.maximum(np.abs(slope) - objective.l1, 0)
    elsewhere = np.abs(slope + objective.l1 * np.sign(features))
    return max(np.where(features == 0, at_zero, elsewhere).max(), np.abs(smooth[-free:]).max())


# The iteration


def exact(loss, X, y, center, rho, x):
    """argmin of the mean loss + rho/2 |x - center|^2, by plain Newton."""
    A = np.column_stack([X, np.ones(len(y))])
    for _ in range(60):
        z = A @ x
        p = 1 / (1 + np.exp(-z))
        residual, h = (p - y, p * (1 - p)) if loss == "logistic" else (z - y, np.ones_like(z))
        g = A.T @ residual / len(y) + rho * (x - center)
        x = x - np.linalg.solve((A.T * h) @ A / len(y) + rho * np.eye(x.size), g)
    return x


def textbook(ran, objective, shards, rounds, rho, a, balance=None):
    """Boyd's iteration for mean losses, shard k weighted n_k/n: z, residuals and rho by round."""
    data, z, K = ran.job.source.data, ran.w0.copy(), len(shards)
    share = np.array([len(rows) for rows in shards]) / len(data)
    x, u = [z.copy() for _ in range(K)], [np.zeros_like(z) for _ in range(K)]
    out = []
    for t in range(rounds):
        old = z
        x = [exact(objective.loss, data.X[rows], data.y[rows], z - u[k], rho, x[k])
             for k, rows in enumerate(shards)]  # fmt: skip
        h = [a * x[k] + (1 - a) * z for k in range(K)]
        c = sum(share[k] * (h[k] + u[k]) for k in range(K))
        z = c.copy()
        z[:-1] = np.sign(c[:-1]) * np.maximum(np.abs(c[:-1]) - objective.l1 / rho, 0)
        z[:-1] *= rho / (rho + objective.l2)
        u = [u[k] + h[k] - z for k in range(K)]
        primal = np.sqrt(sum(share[k] * ((x[k] - z) ** 2).sum() for k in range(K)))
        dual = rho * np.linalg.norm(z - old)
        size = max(np.sqrt(sum(share[k] * (x[k] ** 2).sum() for k in range(K))), np.linalg.norm(z))
        scale = rho * np.sqrt(sum(share[k] * (u[k] ** 2).sum() for k in range(K)))
        out.append({"z": z, "primal": primal, "dual": dual, "rho": rho, "size": size,
                    "scale": scale, "u": [share[k] * u[k] for k in range(K)], "x": x})  # fmt: skip
        if balance and 0 < t + 1 < balance.rounds and t >= 0:
            ratio = (primal / size) / (dual / scale)
            out[-1]["next"] = 2.0 if ratio > 2 else 0.5 if ratio < 0.5 else 1.0
        if balance and t >= 1 and t < balance.rounds:
            factor = out[-2].get("next", 1.0)  # the server knows a round's residuals a round later
            rho, u = rho * factor, [one / factor for one in u]
    return out


@pytest.mark.parametrize("relax", [1.0, 1.6])
@pytest.mark.parametrize("balance", [FIXED, Balance(rounds=12)], ids=["fixed", "balanced"])
@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_admm_is_the_textbooks_iteration(two_classes, line, run, loss, balance, relax):
    data = two_classes(80, 4) if loss == "logistic" else line(80, 4)
    objective = LinearObjective(loss, l2=0.05, l1=0.02)
    chosen = admm(30.0, relax, Newton(), 1e-13, balance, EXACT, UNEVEN)
    ran = run(chosen, objective, data, workers=4, updates=15)
    shards = [ran.job.source.shard(k) for k in range(4)]
    assert len({len(rows) for rows in shards}) > 2
    wanted = textbook(ran, objective, shards, 15, 30.0, relax, balance if balance.rounds else None)
    for t, (z, one) in enumerate(zip(ran.models, wanted, strict=True)):
        np.testing.assert_allclose(z, one["z"], rtol=1e-9, atol=1e-10, err_msg=f"round {t}")
    for state, one in zip(ran.servers[1:], wanted, strict=False):
        seen = state["measures"]
        for name in ("primal", "dual", "rho"):
            assert seen[name] == pytest.approx(one[name], rel=1e-8, abs=1e-11)
    rhos = [one["rho"] for one in wanted]
    assert (len(set(rhos)) > 1) == (balance.rounds > 0), "balancing is meant to act"


def test_the_stopping_rule_is_the_papers_over_the_root_of_k(two_classes, run):
    data, objective, K, d = two_classes(80, 4), logistic(0.05), 4, 5
    stopping = Stopping(absolute=1e-3, relative=1e-2)
    chosen = admm(0.5, 1.0, Newton(), 1e-13, FIXED, stopping, Contiguous())
    ran = run(chosen, objective, data, workers=K, updates=8)
    shards = [ran.job.source.shard(k) for k in range(K)]
    wanted = textbook(ran, objective, shards, 8, 0.5, 1.0)
    for state, one in zip(ran.servers[1:], wanted, strict=False):
        X = np.array(one["x"])
        largest = max(np.linalg.norm(X), np.sqrt(K) * np.linalg.norm(one["z"]))
        papers = np.sqrt(K * d) * 1e-3 + 1e-2 * largest
        assert state["measures"]["primal_allowed"] == pytest.approx(papers / np.sqrt(K), rel=1e-9)
        U = np.array(one["u"]) * K  # equal shards: undo the share
        papers = np.sqrt(K * d) * 1e-3 + 1e-2 * 0.5 * np.linalg.norm(U)
        assert state["measures"]["dual_allowed"] == pytest.approx(papers / np.sqrt(K), rel=1e-9)


def test_without_relaxation_the_messages_are_x_plus_u_exactly(two_classes, run):
    """a = 1 must not round: h = x bit for bit."""
    ran = run(admm(relax=1.0), logistic(0.05), two_classes(80), workers=3, updates=6)
    job, server = ran.job, ran.servers[-1]
    local = job.algorithm.local
    for k, state in enumerate(ran.snapshot["workers"]):
        u = state["v"] - server["w"]
        after, up = local.work(state, job.algorithm.aggregate.pull(server, k), job.task(k, 6))
        scale = server["used"] / server["rho"]
        assert (up["v"] == after["x"] + u * scale).all()


# Invariants


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("relax", [0.7, 1.0, 1.8])
@pytest.mark.parametrize("solver", [Newton(), Steps()], ids=["exact", "inexact"])
def test_the_dual_variables_sum_to_a_subgradient_of_the_penalty(
    two_classes, run, penalty, relax, solver
):
    """After every z-update, however inexact the workers are: zero if there is no penalty."""
    objective = LinearObjective("logistic", **PENALTIES[penalty])
    chosen = admm(5.0, relax, solver, None, Balance(rounds=10), EXACT, UNEVEN)
    if isinstance(solver, Steps):
        chosen = build("admm", {"rho": 5, "relax": relax, "solver": "local-steps",
                                "solver.optimizer.lr": 0.05, "partition": UNEVEN})  # fmt: skip
    data = two_classes(80, 4)
    for rounds in (1, 2, 7, 15):
        ran = run(chosen, objective, data, workers=4, updates=rounds)
        z, source = ran.models[-1], ran.job.source
        states = ran.snapshot["workers"]
        total = sum(source.samples(k) / len(data) * s["rho"] * (s["v"] - z)
                    for k, s in enumerate(states))  # fmt: skip
        rest = total[:-1] - objective.l2 * z[:-1]
        assert abs(total[-1]) < 1e-12, "the intercept is not penalised"
        assert np.abs(rest).max() <= objective.l1 + 1e-12
        zero = z[:-1] == 0
        np.testing.assert_allclose(rest[~zero], objective.l1 * np.sign(z[:-1][~zero]), atol=1e-12)


def test_a_change_of_rho_leaves_the_dual_variables_themselves_alone(two_classes, run):
    """rho u_k before the x-update is rho u_k after the last z-update, also when rho changed."""
    ran = run(admm(100.0), logistic(0.05), two_classes(80), workers=3, updates=2)
    job, server = ran.job, ran.servers[-1]
    assert server["rho"] != server["used"], "balancing is meant to act"
    down = job.algorithm.aggregate.pull(server, 0)
    for k, state in enumerate(ran.snapshot["workers"]):
        dual = state["rho"] * (state["v"] - server["w"])
        after, up = job.algorithm.local.work(state, down, job.task(k, 2))
        a = job.algorithm.local.relax
        u = up["v"] - a * after["x"] - (1 - a) * server["w"]
        np.testing.assert_allclose(server["rho"] * u, dual, rtol=1e-9, atol=1e-12)


def test_the_residuals_vanish_and_the_pooled_optimum_is_the_fixed_point(two_classes, run):
    data, objective = two_classes(80, 4), LinearObjective("logistic", l2=0.05, l1=0.02)
    chosen = admm(0.1, stopping=EXACT, partition=UNEVEN)
    ran = run(chosen, objective, data, workers=4, updates=200)
    measures = ran.servers[-1]["measures"]
    assert measures["primal"] < 1e-9 and measures["dual"] < 1e-9
    z = ran.models[-1]
    assert subgradient_residual(objective, z, data, 1) < 1e-9
    again = run(chosen, objective, data, workers=4, updates=1, w0=z)
    assert np.abs(again.models[0] - z).max() > 1e-4, "z alone is no fixed point: u belongs to it"


# The limit


@pytest.mark.parametrize(
    ("loss", "penalty"), [pair for pair in product(LOSSES, PENALTIES) if pair != NO_ONE_OPTIMUM]
)
def test_the_limit_is_the_pooled_optimum(problems, loss, penalty):
    data = problems[loss]
    objective = LinearObjective(loss, **PENALTIES[penalty])
    result = train(objective, data, partition=UNEVEN, rho=0.1)
    free = 3 if loss == "softmax" else 1
    assert subgradient_residual(objective, result.weights, data, free) < 1e-8


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
def test_the_limit_is_that_of_scikit_learn(two_classes, csr, weighted):
    weight = np.random.default_rng(0).uniform(0.5, 3, 80) if weighted else None
    data = two_classes(80, 4, csr=csr, weight=weight)
    pooled = LogisticRegression(C=1 / (0.05 * 80), tol=1e-12, solver="newton-cholesky")
    pooled.fit(data.X, data.y, sample_weight=data.weight)
    result = train(logistic(0.05), data, rho=0.1, partition=Contiguous())
    # samples weigh by their weight inside a shard, shards by their number of samples
    expected = np.append(pooled.coef_, pooled.intercept_)
    np.testing.assert_allclose(result.weights, expected, atol=1e-8)


def test_least_squares_with_l1_and_l2_are_scikit_learns(line):
    data = line(80, 4)
    ridge = Ridge(alpha=80 * 0.05, tol=1e-14).fit(data.X, data.y)
    net = ElasticNet(alpha=0.15, l1_ratio=2 / 3, tol=1e-14, max_iter=100_000).fit(data.X, data.y)
    for objective, pooled in (
        (squared(0.05), ridge),
        (LinearObjective("squared", 0.05, l1=0.1), net),
    ):
        found = train(objective, data, rho=0.3).weights
        np.testing.assert_allclose(found, np.append(pooled.coef_, pooled.intercept_), atol=1e-8)


def test_on_breast_cancer_weights_and_support_are_scikit_learns():
    data = hemiola.load("breast_cancer")
    data, n = hemiola.Standardizer.fit(data).apply(data), len(data)
    ridge = LogisticRegression(tol=1e-12, solver="newton-cholesky").fit(data.X, data.y)
    found = train(logistic(1 / n), data, workers=8, rounds=150).weights
    np.testing.assert_allclose(found, np.append(ridge.coef_, ridge.intercept_), atol=1e-6)
    lasso = LogisticRegression(C=1 / (0.02 * n), l1_ratio=1.0, solver="saga", tol=1e-10)
    lasso.set_params(max_iter=20_000, random_state=0).fit(data.X, data.y)
    found = train(LinearObjective("logistic", l1=0.02), data, workers=8, rounds=400).weights
    assert ((found[:-1] != 0) == (lasso.coef_.ravel() != 0)).all()
    assert 0 < (found[:-1] != 0).sum() < 30
    np.testing.assert_allclose(found, np.append(lasso.coef_, lasso.intercept_), atol=1e-6)


def test_the_hinge_loss_ends_at_the_support_vector_machine(two_classes):
    data = two_classes(80, 4)
    pooled = SVC(kernel="linear", C=1 / (0.05 * 80), tol=1e-10).fit(data.X, data.y)
    result = train(hinge(0.05), data, rho=0.1, rounds=400, balance=FIXED)
    expected = np.append(pooled.coef_, pooled.intercept_)
    np.testing.assert_allclose(result.weights, expected, atol=1e-5)


def test_without_an_intercept_there_is_none(two_classes):
    data = two_classes(80, 4)
    objective = LinearObjective("logistic", 0.05, intercept=False)
    pooled = LogisticRegression(
        C=1 / (0.05 * 80), tol=1e-12, fit_intercept=False, solver="newton-cholesky"
    ).fit(data.X, data.y)
    for solver in (Newton(), LBFGS(), Newton(direct=0)):
        result = train(objective, data, rho=0.1, solver=solver)
        np.testing.assert_allclose(result.weights[:-1], pooled.coef_.ravel(), atol=1e-7)
        assert result.weights[-1] == 0


def test_the_limit_does_not_depend_on_rho_workers_relaxation_or_shards(two_classes):
    data, objective = two_classes(80, 4), LinearObjective("logistic", l2=0.02, l1=0.01)
    limits = [
        train(objective, data, workers=workers, **options).weights
        for workers, options in [
            (1, {}),
            (2, {"rho": 0.01}),
            (5, {"rho": 10.0}),
            (4, {"partition": UNEVEN, "relax": 1.0}),
            (3, {"partition": Contiguous(), "rho": 0.2, "balance": FIXED}),
            (4, {"solver": LBFGS()}),
            (4, {"solver": Newton(direct=0)}),
        ]
    ]
    for other in limits[1:]:
        np.testing.assert_allclose(other, limits[0], atol=2e-7)


def test_one_worker_without_a_penalty_is_the_proximal_point_method(two_classes, run):
    data, rho = two_classes(80), 0.2
    ran = run(
        admm(rho, 1.0, Newton(), 1e-13, FIXED, EXACT), logistic(), data, workers=1, updates=12
    )
    w = ran.w0
    for model in ran.models:
        w = exact("logistic", data.X, data.y, w, rho, w)
        np.testing.assert_allclose(model, w, atol=1e-10)
    u = ran.snapshot["workers"][0]["v"] - ran.models[-1]
    assert np.abs(u).max() == 0.0, "a single worker disagrees with nobody"


@pytest.mark.parametrize("optimizer", [SGD(), HeavyBall(), Adam(lr=0.02)], ids=lambda o: str(o)[:4])
def test_any_local_optimiser_will_do(two_classes, optimizer):
    """On whole shards a few steps are nearly a solution; mini-batches leave noise."""
    data, objective = two_classes(80, 4), logistic(0.05)
    _, best = pooled_optimum(objective, data)
    exact = Steps(optimizer, steps=30, batch=MiniBatch(None))
    result = train(objective, data, rho=0.1, solver=exact, balance=FIXED, rounds=100)
    assert result.history.last.loss - best < 1e-6
    noisy = Steps(optimizer, steps=30, batch=MiniBatch(0.5))
    result = train(objective, data, rho=0.1, solver=noisy, balance=FIXED, rounds=100)
    assert 1e-8 < result.history.last.loss - best < 3e-2


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_pooled_reference_knows_every_penalty(two_classes, penalty):
    data, objective = two_classes(80, 4), LinearObjective("logistic", **PENALTIES[penalty])
    w, value = pooled_optimum(objective, data)
    assert value == pytest.approx(objective.value(w, Batch(data)), rel=1e-12)
    w[np.abs(w) < 1e-9] = 0
    assert subgradient_residual(objective, w, data, 1) < 1e-5


# The parts


@pytest.mark.parametrize("rho", [0.3, 4.0])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_proximal_operator_minimises_what_it_says(penalty, rho):
    rule, rng = Penalty(**PENALTIES[penalty], free=2), np.random.default_rng(0)
    c = rng.normal(size=9) * 0.1
    z = rule.prox(c, rho)
    assert (z[-2:] == c[-2:]).all()

    def value(w):
        return rule.value(w) + 0.5 * rho * np.square(w - c).sum()

    for direction in (*np.eye(9), *rng.normal(size=(20, 9))):
        for step in (1e-5, -1e-5, 1e-2, -1e-2):
            assert value(z + step * direction) >= value(z)


def test_a_tighter_tolerance_follows_the_residuals():
    rule = Consensus(penalty=Penalty())
    state = rule.init(np.zeros(3), 2)
    loose = float(rule.pull(state, 0)["tolerance"])
    state["measures"] = {"primal": 1e-6, "dual": 1e-3, "rho": 0.5}
    tight = float(rule.pull(state, 0)["tolerance"])
    assert tight == pytest.approx(0.1 * 0.5e-6) and tight < loose


# Running


def test_it_stops_by_itself_and_says_why(two_classes):
    data = two_classes(80, 4)
    result = hemiola.fit("admm", logistic(0.05), data, rounds=200, eval_every=1)
    assert "residuals are small enough" in result.stopped
    last = result.history.last
    assert last.rounds < 100
    assert last.measures["primal"] <= last.measures["primal_allowed"]
    assert last.measures["dual"] <= last.measures["dual_allowed"]
    before = result.history.records[-2].measures
    assert (before["primal"] > before["primal_allowed"]) or (
        before["dual"] > before["dual_allowed"]
    )
    rounds, primal = result.history.measured("primal")
    assert len(rounds) == last.rounds - 1 and primal[-1] == last.measures["primal"]


def test_a_worker_that_dies_and_comes_back_does_no_lasting_harm(two_classes):
    from hemiola.faults import Die

    data, objective = two_classes(80, 4), logistic(0.05)
    result = hemiola.fit(
        admm(0.1, stopping=EXACT), objective, data, rounds=300, engine="simulator",
        faults=[Die(worker=1, at=5, back_after=0.01)],
    )  # fmt: skip
    assert result.history.left == result.history.joined == 1
    assert subgradient_residual(objective, result.weights, data, 1) < 1e-8


def test_what_cannot_be_is_refused(two_classes, line):
    data = two_classes(80, 4)
    with pytest.raises(OptionError, match="follows gradients"):
        hemiola.fit("ssgd", LinearObjective("logistic", l1=0.1), data)
    ratings = make_dataset([[0.0, 1.0], [2.0, 0.0]], [1.0, 2.0], regression=True)
    with pytest.raises(OptionError, match="no way to split MatrixFactorization"):
        hemiola.fit("admm", factorization(ratings), ratings, workers=1)
    for solver in ("newton", "lbfgs"):
        with pytest.raises(OptionError, match="solver=dual"):
            hemiola.fit(build("admm", {"solver": solver}), "hinge", data, rounds=1)
    with pytest.raises(OptionError, match="solver=dual is for hinge"):
        hemiola.fit(build("admm", {"solver": "dual"}), "logistic", data, rounds=1)
    with pytest.raises(OptionError, match="does not know the penalty"):
        Consensus().init(np.zeros(2), 1)
    with pytest.raises(OptionError, match="cannot be sharded"):
        build("admm", {"shards": 2})
    for wrong in ({"rho": 0}, {"relax": 2.0}, {"balance.factor": 1}, {"stopping.relative": -1}):
        with pytest.raises(OptionError):
            build("admm", wrong)
