"""Hessians, and the exact solvers that ADMM's workers use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

import hemiola
from hemiola.aggregate import Balance, Stopping
from hemiola.algorithm import Task
from hemiola.algorithms import admm
from hemiola.dataset import Batch
from hemiola.local import LBFGS, Dual, Newton
from hemiola.local.solvers import WHOLE, Augmented
from hemiola.objectives import LinearObjective, hinge, logistic, softmax, squared
from hemiola.partition import Contiguous, Shards


def task_for(objective, source, worker=1):
    return Task(worker, 0, source.workers, 0, objective, source)


@pytest.mark.parametrize("loss", ["logistic", "squared", "softmax"])
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("intercept", [True, False])
def test_the_hessian_is_the_derivative_of_the_gradient(problems, loss, csr, intercept):
    data = problems[loss]
    if csr:
        data = replace(data, X=sparse.csr_array(data.X))
    data = replace(data, weight=np.random.default_rng(0).uniform(0.5, 1.5, len(data)))
    objective, batch = LinearObjective(loss, intercept=intercept), Batch(data, np.arange(3, 70))
    w = np.random.default_rng(1).normal(size=objective.init(data, None).size)
    if not intercept:
        w[-(w.size // (data.n_features + 1)) :] = 0
    hessian = objective.hessian(w, batch)
    H = hessian.matrix()
    free = np.ones(w.size, bool)
    if not intercept:
        free[-(w.size // (data.n_features + 1)) :] = False
    for j, e in enumerate(np.eye(w.size)):
        np.testing.assert_allclose(hessian.dot(e), H[:, j], atol=1e-12)
        slope = (objective.grad(w + 1e-5 * e, batch) - objective.grad(w - 1e-5 * e, batch)) / 2e-5
        np.testing.assert_allclose(H[:, j], slope * free[j], atol=1e-8)


SOLVERS = [Newton(), Newton(direct=0), LBFGS()]


@pytest.mark.parametrize("solver", SOLVERS, ids=["factorised", "cg", "lbfgs"])
@pytest.mark.parametrize("make", [logistic, softmax, squared])
def test_solvers_stop_when_the_gradient_is_as_small_as_asked(problems, make, solver):
    objective = make()
    data = problems[objective.loss]
    source = Shards(data, Contiguous(), 2, 0)
    rng, d = np.random.default_rng(0), objective.init(data, None).size
    problem = Augmented(objective, rng.normal(size=d), 0.3)
    task = task_for(objective, source)
    previous = 0
    for tolerance in (1e-1, 1e-3, 1e-7):
        x, _, gradients = solver.solve(problem, np.zeros(d), tolerance, {}, task)
        assert np.linalg.norm(problem.grad(x, source.batch(1, 0, WHOLE))) <= tolerance
        assert gradients >= previous
        previous = gradients


def test_the_dual_solver_is_exact_for_the_hinge_loss(two_classes):
    data = two_classes(80, 4)
    source, rng = Shards(data, Contiguous(), 2, 0), np.random.default_rng(0)
    problem = Augmented(hinge(), rng.normal(size=5), 0.3)
    batch = source.batch(1, 0, WHOLE)
    x, _, _ = Dual().solve(problem, np.zeros(5), 1e-12, {}, task_for(hinge(), source))
    for direction in (*np.eye(5), *rng.normal(size=(40, 5))):
        for step in (1e-4, -1e-4, 1e-2, -1e-2):
            assert problem.value(x + step * direction, batch) >= problem.value(x, batch) - 1e-12


def test_newton_does_not_go_on_among_rounding_errors(two_classes):
    rounds, solver = 10, Newton()
    exact = Stopping(absolute=0.0, relative=0.0)
    chosen = admm(
        0.3, 1.0, solver, 0.0, Balance(rounds=0), exact
    )  # a tolerance that is never reached
    result = hemiola.fit(chosen, logistic(), two_classes(80, 4), workers=1, rounds=rounds)
    assert result.history.last.local_steps < rounds * solver.iterations / 4
