"""Elastic averaging: what its exchange conserves, its equations and its limit of stability."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from hemiola.aggregate import Center, Sum
from hemiola.algorithm import Info, MiniBatch, Task
from hemiola.algorithms import eamsgd, easgd
from hemiola.communicate import Asynchronous
from hemiola.dataset import make_dataset
from hemiola.engines.serial import Serial
from hemiola.engines.simulator import Simulator
from hemiola.job import Job
from hemiola.local import Elastic
from hemiola.objectives import LinearObjective, logistic
from hemiola.partition import Contiguous, Shards, Whole

LR, BATCH = 0.3, MiniBatch(4)


@dataclass(frozen=True)
class Flat:
    """An objective without slope: the exchange alone moves the models."""

    def check(self, data):
        pass

    def init(self, data, rng):
        return np.zeros(data.n_features)

    def value(self, w, batch):
        return 0.0

    def grad(self, w, batch):
        return np.zeros_like(w)

    def predict(self, w, X):
        return np.zeros(X.shape[0], dtype=int)


class Springs:
    """Workers at random places around a centre, and the synchronous exchange between them."""

    def __init__(self, local, workers, data, axes=(1.0,) * 5):
        center, *models = np.random.default_rng(3).normal(size=(workers + 1, len(axes))) * axes
        self.local, self.workers = local, workers
        self.source = Shards(data, Contiguous(), workers, 0)
        self.states = [local.init(model) for model in models]
        self.center = Center()
        self.server = self.center.init(center, workers)
        self.rounds = 0

    @property
    def models(self):
        return np.array([state["x"] for state in self.states])

    @property
    def total(self):
        return self.models.sum(axis=0) + self.server["w"]

    def exchange(self, objective=None):
        ups = []
        for k, state in enumerate(self.states):
            task = Task(k, self.rounds, self.workers, 0, objective or Flat(), self.source)
            down = self.center.pull(self.server, k)
            self.states[k], up = self.local.work(state, down, task)
            ups.append(up)
        joined = Sum().lift(ups[0], 0.0)
        for up in ups[1:]:
            joined = Sum().merge(joined, Sum().lift(up, 0.0))
        info = Info(self.rounds, range(self.workers), 1.0, 0, self.workers)
        self.server = self.center.push(self.server, joined, info)
        self.rounds += 1


@pytest.mark.parametrize("workers", [1, 3, 4])
@pytest.mark.parametrize("alpha", [None, 0.05, 0.225, 0.4])
@pytest.mark.parametrize("period", [1, 3])
def test_the_exchange_conserves_the_sum_of_models_and_centre(two_classes, workers, alpha, period):
    springs = Springs(Elastic(LR, alpha=alpha, period=period), workers, two_classes())
    before = springs.total
    for _ in range(25):
        springs.exchange()
        np.testing.assert_allclose(springs.total, before, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("factor", [0.5, 0.99, 1.5])
def test_the_sum_is_not_conserved_unless_beta_is_p_alpha(two_classes, factor):
    """beta = factor p alpha: the centre moves by that much of what the models moved."""
    springs = Springs(Elastic(LR, alpha=0.2, period=1), 3, two_classes())
    before, c = springs.total, springs.server["w"]
    springs.exchange()
    moved = springs.server["w"] - c
    np.testing.assert_allclose(moved, -(springs.models.sum(axis=0) - (before - c)), rtol=1e-12)
    springs.server["w"] = c + factor * moved
    assert np.abs(springs.total - before).max() > 1e-3


def test_a_centre_that_feels_the_new_models_does_not_conserve(two_classes):
    springs = Springs(Elastic(LR, alpha=0.2, period=1), 3, two_classes())
    before, c = springs.total, springs.server["w"]
    springs.exchange()
    wrong = c + 0.2 * (springs.models - c).sum(axis=0)
    assert np.abs(springs.models.sum(axis=0) + wrong - before).max() > 1e-6
    np.testing.assert_allclose(springs.total, before, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("engine", [Serial(), Simulator(slow_share=0.5, slow_factor=2.3)])
def test_the_exchange_conserves_the_sum_asynchronously_too(two_classes, engine):
    data, alpha = two_classes(), 0.3
    algorithm = replace(easgd(alpha, 1, LR), communicate=Asynchronous())
    rng = np.random.default_rng(3)
    source = Shards(data, Contiguous(), 4, 0)
    job = Job(algorithm, Flat(), source, 4, 0, rng.normal(size=data.n_features))
    events = engine.run(job)
    state = next(events).snapshot()
    for worker in state["workers"]:
        worker["x"] += rng.normal(size=3)

    def total(saved):
        """Models, centre and the differences that are still on the wire."""
        assert sorted(pending["worker"] for pending in saved["pending"]) == [0, 1, 2, 3]
        models = [worker["x"] for worker in saved["workers"]]
        sent = [pending["up"]["e"] for pending in saved["pending"]]
        return saved["server"]["w"] + np.sum(models, axis=0) + np.sum(sent, axis=0)

    before = total(state)
    for _, event in zip(range(30), engine.run(job, state), strict=False):
        np.testing.assert_allclose(total(event.snapshot()), before, rtol=1e-13, atol=1e-13)
    assert np.abs(event.server["w"] - state["server"]["w"]).max() > 1e-3


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_models_approach_the_centre_while_the_spring_is_not_too_stiff(two_classes, workers):
    for alpha in (0.1 / (1 + workers), 0.8 / (1 + workers), 1.9 / (1 + workers)):
        springs = Springs(Elastic(LR, alpha=alpha, period=1), workers, two_classes())
        energies = []
        for _ in range(8):
            energies.append(np.square(springs.models - springs.server["w"]).sum())
            springs.exchange()
        assert (np.diff(energies) < 0).all()


@pytest.mark.parametrize("workers", [2, 5])
def test_models_leave_the_centre_when_the_spring_is_too_stiff(two_classes, workers):
    """alpha > 2 / (1 + p), and all on the same side."""
    springs = Springs(Elastic(LR, alpha=2.1 / (1 + workers), period=1), workers, two_classes())
    energies = []
    for state in springs.states:
        state["x"] = springs.server["w"] + 1.0
    for _ in range(8):
        energies.append(np.square(springs.models - springs.server["w"]).sum())
        springs.exchange()
    assert (np.diff(energies) > 0).all()


def test_the_farthest_model_need_not_approach_the_centre(two_classes):
    """It alone on its side, the centre goes the other way."""
    springs = Springs(Elastic(LR, alpha=0.1, period=1), 4, two_classes())
    for state, side in zip(springs.states, (-1.0, 1.0, 1.0, 1.0), strict=True):
        state["x"] = springs.server["w"] + side
    springs.exchange()
    assert np.abs(springs.models - springs.server["w"]).max() == pytest.approx(1.1)


def jacobi(result, data, gradient, *, alpha, period, momentum=0.0, l2=0.0, new_models=False):
    """Synchronous EA(M)SGD: every read is of the old time. ``new_models`` is a known mistake."""
    source, p = result.job.source, result.job.workers
    center = result.w0
    x = [center.copy() for _ in range(p)]
    v = [np.zeros_like(center) for _ in range(p)]
    centers = []
    for r in range(len(result.models)):
        old, e = list(x), [alpha * (x[i] - center) for i in range(p)]
        for i in range(p):
            for j in range(period):
                rows = source.batch(i, r * period + j, BATCH).rows
                g = gradient(x[i] + momentum * v[i], data, rows, l2)
                v[i] = momentum * v[i] - LR * g
                x[i] = x[i] + v[i] - (e[i] if j == 0 else 0.0)
        beta = p * alpha
        center = (1 - beta) * center + beta * np.mean(x if new_models else old, axis=0)
        centers.append(center)
    return centers, x


@pytest.mark.parametrize("period", [1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("workers", [1, 4])
def test_elastic_averaging_does_what_its_equations_say(
    two_classes, run, gradient, same, apart, workers, momentum, period
):
    data, alpha = two_classes(62), 0.9 / workers
    algorithm = eamsgd(None, period, momentum, LR, BATCH)
    result = run(algorithm, logistic(0.05), data, workers=workers, updates=15)
    options = {"alpha": alpha, "period": period, "momentum": momentum, "l2": 0.05}
    centers, models = jacobi(result, data, gradient, **options)
    same(result.models, centers)
    same([state["x"] for state in result.snapshot["workers"]], models)
    wrong, _ = jacobi(result, data, gradient, **options, new_models=True)
    assert apart(result.models, wrong) > 1e-6


@pytest.mark.parametrize("period", [1, 4])
def test_eamsgd_without_momentum_is_easgd(two_classes, run, period):
    data = two_classes(62)
    one, other = (
        run(algorithm, logistic(), data, workers=4, updates=15)
        for algorithm in (easgd(0.2, period, LR, BATCH), eamsgd(0.2, period, 0.0, LR, BATCH))
    )
    assert all((a == b).all() for a, b in zip(one.models, other.models, strict=True))


def test_the_exchange_does_not_touch_the_velocity(two_classes):
    springs = Springs(Elastic(LR, 0.9, alpha=0.3, period=2), 3, two_classes())
    springs.exchange()
    assert all((state["v"] == 0).all() for state in springs.states)


def test_without_springs_the_workers_are_alone_and_the_centre_stands_still(two_classes, run):
    data, objective = two_classes(62), logistic()
    result = run(easgd(0.0, 3, LR, BATCH), objective, data, workers=4, updates=10)
    assert (result.last == result.w0).all()
    for k in range(4):
        x = result.w0.copy()
        for t in range(30):
            x = x - LR * objective.grad(x, result.job.source.batch(k, t, BATCH))
        np.testing.assert_array_equal(result.snapshot["workers"][k]["x"], x)


def test_identical_workers_stay_identical(two_classes, run):
    algorithm = easgd(0.2, 2, LR, MiniBatch(None), Whole())
    result = run(algorithm, logistic(), two_classes(), workers=3, updates=10)
    first, *others = (state["x"] for state in result.snapshot["workers"])
    assert all((first == other).all() for other in others)
    assert (first != result.last).any()


def parabola(h):
    """Mean loss h w^2 / 2 of one feature, without an intercept."""
    return make_dataset(np.full((6, 1), np.sqrt(h)), np.zeros(6), regression=True)


PARABOLA = LinearObjective("squared", 0.0, False)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("h", [0.5, 2.0])
def test_one_worker_and_its_centre_follow_a_two_by_two_matrix(run, alpha, h):
    algorithm = easgd(alpha, 1, LR, MiniBatch(None))
    start = np.array([1.5, 0.0])
    result = run(algorithm, PARABOLA, parabola(h), workers=1, updates=20, w0=start)
    step = np.array([[1 - LR * h - alpha, alpha], [alpha, 1 - alpha]])
    x = np.full(2, 1.5)
    for model in result.models:
        x = step @ x
        np.testing.assert_allclose(model, [x[1], 0.0], rtol=1e-12, atol=1e-12)


def limit(alpha, p):
    """The largest stable lr h: 1 + T + D = 0 for the mean model and the centre."""
    beta = p * alpha
    return (4 - 2 * alpha - 2 * beta) / (2 - beta)


def is_stable(lr_h, alpha, p):
    beta = p * alpha
    T, D = 2 - lr_h - alpha - beta, 1 - lr_h - alpha - beta + lr_h * beta
    return 1 - T + D > 0 and 1 + T + D > 0 and D < 1 and (p == 1 or abs(1 - lr_h - alpha) < 1)


@pytest.mark.parametrize(("alpha", "p"), [(0.5, 1), (0.5, 2), (0.3, 3), (0.1, 4), (0.225, 4)])
@pytest.mark.parametrize("factor", [0.5, 0.97, 1.03])
def test_synchronous_elastic_averaging_is_stable_up_to_its_limit(alpha, p, factor):
    lr = factor * limit(alpha, p)
    assert is_stable(lr, alpha, p) == (factor < 1)
    local = Elastic(lr, alpha=alpha, period=1, batch=MiniBatch(None))
    springs = Springs(local, p, parabola(1.0), axes=(1.0, 0.0))

    def size():
        return np.abs(np.append(springs.models[:, 0], springs.server["w"][0])).max()

    before = size()
    for _ in range(600):
        springs.exchange(PARABOLA)
    assert size() < 1e-3 * before if factor < 1 else size() > 1e3 * before


@pytest.mark.parametrize("case", range(30))
def test_synchronous_elastic_averaging_is_stable_exactly_where_its_four_conditions_hold(case):
    """Anywhere, for 0 < lr h < 4 and p up to 6."""
    rng = np.random.default_rng(case)
    while True:
        lr, alpha, p = rng.uniform(0, 4), rng.uniform(0, 1), int(rng.integers(1, 7))
        center = [[1 - lr - alpha, alpha], [p * alpha, 1 - p * alpha]]
        radius = max(*np.abs(np.linalg.eigvals(center)), abs(1 - lr - alpha) * (p > 1))
        if not 0.95 < radius < 1.05:
            break
    springs = Springs(Elastic(lr, alpha=alpha, period=1, batch=MiniBatch(None)), p, parabola(1.0),
                      axes=(1.0, 0.0))  # fmt: skip
    for _ in range(150):
        springs.exchange(PARABOLA)
    size = np.abs(np.append(springs.models[:, 0], springs.server["w"][0])).max()
    assert (size < 1) == (radius < 1) == is_stable(lr, alpha, p)
