"""CoCoA+ against its papers: safe joining, SDCA with one worker, and the optimum."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from hemiola.algorithm import Info, Task
from hemiola.algorithms import cocoa
from hemiola.data import LogisticStream
from hemiola.dataset import Batch, make_dataset
from hemiola.engines.threads import Threads
from hemiola.epochs import rounds_for
from hemiola.errors import OptionError
from hemiola.kernels import _dual
from hemiola.kernels.sdca import LOSSES, Dual
from hemiola.objectives import LinearObjective
from hemiola.partition import ShuffleSplit, Whole
from hemiola.partition.sources import Shards
from hemiola.rng import stream
from hemiola.training import fit


def zeros(data):
    return np.zeros(data.n_features + 1)


def data_for(loss, two_classes, line, n=60, **options):
    return line(n, **options) if loss == "squared" else two_classes(n, **options)


def dual_value(loss, data, source, states, l2):
    """D(α) of the workers' variables, for an objective without intercept."""
    alpha = np.zeros(len(data))
    for k, state in enumerate(states):
        alpha[source.shard(k)] = state["alpha"]
    y = data.y if loss == "squared" else 2.0 * data.y - 1
    dual = Dual.of(loss, data.X, y, l2=l2, intercept=False)
    w = np.zeros(data.n_features + 1)
    dual.rebuild(alpha, w)
    return dual.values(dual.sums(alpha, w), w[:-1]).dual


def dual_values(loss, data, rounds, workers=4, l2=0.01, **options):
    """The dual after each round, and what w is and should be."""
    chosen, objective = cocoa(**options), LinearObjective(loss, l2, intercept=False)
    source = Shards(data, chosen.partition, workers, 0)
    server, states = chosen.aggregate.init(zeros(data), workers), [None] * workers
    found = [0.0]
    for step in range(rounds):
        ups = []
        for k in range(workers):
            state = states[k] or chosen.local.init(zeros(data))
            task = Task(k, step, workers, 0, objective, source)
            states[k], up = chosen.local.work(state, chosen.aggregate.pull(server, k), task)
            ups.append(chosen.reduce.lift(up, 1.0))
        joined = ups[0]
        for up in ups[1:]:
            joined = chosen.reduce.merge(joined, up)
        server = chosen.aggregate.push(server, joined, Info(step, range(workers), 1.0, 0, workers))
        found.append(dual_value(loss, data, source, states, l2))
    return found


@pytest.mark.parametrize("combine", ["add", "average"])
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("loss", LOSSES)
def test_with_one_worker_it_is_sdca(loss, csr, combine, two_classes, line, run, same):
    data = data_for(loss, two_classes, line, csr=csr)
    chosen, objective = cocoa(combine), LinearObjective(loss, 0.1, intercept=False)
    found = run(chosen, objective, data, workers=1, updates=4, w0=zeros(data))
    order = found.job.source.shard(0)
    X = np.asarray(data.X.todense()) if csr else data.X
    X, y = X[order], data.y[order] if loss == "squared" else 2.0 * data.y[order] - 1
    n, alpha, w = len(y), np.zeros(len(y)), np.zeros(X.shape[1])
    for epoch in range(4):
        for i in stream(0, "dual", 0, epoch).permutation(n):
            q = X[i] @ X[i] / (0.1 * n)
            new, _ = _dual.dual_step(LOSSES.index(loss), X[i] @ w, alpha[i], q, y[i])
            w += (new - alpha[i]) * X[i] / (0.1 * n)
            alpha[i] = new
        same(found.models[epoch], np.append(w, 0.0))


@pytest.mark.parametrize("combine", ["add", "average"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_dual_never_falls(loss, combine, two_classes, line):
    data = data_for(loss, two_classes, line)
    data = replace(data, X=data.X + 2.0)  # rows have much in common
    found = dual_values(loss, data, 40, combine=combine)
    assert all(after >= before - 1e-12 for before, after in pairwise(found))
    assert found[-1] > found[1] > 0


def test_adding_without_the_safe_factor_lets_the_dual_fall(line):
    data = line(60)
    data = replace(data, X=data.X + 2.0)
    safe, naive = (dual_values("squared", data, 10, sigma=sigma) for sigma in (None, 1.0))
    assert min(np.diff(naive)) < 0 < min(np.diff(safe))
    assert naive[-1] < safe[-1]


def test_adding_is_faster_than_averaging(two_classes):
    data = two_classes(400, 20)
    add, average = (
        dual_values("logistic", data, 10, workers=8, combine=combine)
        for combine in ("add", "average")
    )
    assert add[-1] > average[-1]


@pytest.mark.parametrize("combine", ["add", "average"])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_the_limit_is_the_optimum(loss, workers, combine, two_classes, line):
    data = data_for(loss, two_classes, line)
    s = np.random.default_rng(0).uniform(0.5, 2, len(data))
    data = replace(data, weight=s / s.mean())
    objective = LinearObjective(loss, 0.05)
    result = fit(cocoa(combine), objective, data, workers=workers, rounds=1500, eval_every=1500)
    slope = objective.grad(result.weights, Batch(data))
    assert np.abs(slope).max() < 1e-6


def test_hinge_loss_comes_close_to_the_optimum(two_classes):
    data, objective = two_classes(200), LinearObjective("hinge", 0.05)
    best = fit("sdca", objective, data, engine="threads", workers=1, rounds=5000)
    result = fit("cocoa", objective, data, workers=4, rounds=500)
    assert result.history.last.loss <= 1.003 * best.history.last.loss


def test_the_model_is_the_sum_of_the_workers_parts(two_classes, run, same):
    data = two_classes()
    found = run(cocoa(), LinearObjective("logistic", 0.1), data, workers=3, updates=5,
                engine=Threads())  # fmt: skip
    w = np.zeros(data.n_features)
    for k, state in enumerate(found.snapshot["workers"]):
        rows = found.job.source.shard(k)
        w += state["alpha"] @ data.X[rows] / (0.1 * len(data))
    same(found.last[:-1], w)


def test_a_worker_that_lost_its_duals_finds_good_ones_and_leaves_nothing_wrong(two_classes):
    data, objective, chosen = two_classes(), LinearObjective("logistic", 0.05), cocoa()
    source = Shards(data, chosen.partition, 3, 0)
    server, states = chosen.aggregate.init(zeros(data), 3), [None] * 3
    losses = []
    for step in range(400):
        if step == 200:
            states[1] = chosen.local.init(chosen.aggregate.model(server))
        ups = []
        for k in range(3):
            state = states[k] or chosen.local.init(zeros(data))
            task = Task(k, step, 3, 0, objective, source)
            states[k], up = chosen.local.work(state, chosen.aggregate.pull(server, k), task)
            ups.append(chosen.reduce.lift(up, 1.0))
        joined = chosen.reduce.merge(chosen.reduce.merge(ups[0], ups[1]), ups[2])
        server = chosen.aggregate.push(server, joined, Info(step, range(3), 1.0, 0, 3))
        losses.append(objective.value(chosen.aggregate.model(server), Batch(data)))
    assert losses[201] < losses[0] and losses[201] == pytest.approx(losses[199], rel=1e-2)
    assert np.abs(objective.grad(chosen.aggregate.model(server), Batch(data))).max() < 1e-6


def test_a_start_at_the_optimum_stays_there(two_classes):
    data, objective = two_classes(), LinearObjective("logistic", 0.05)
    best = fit("cocoa", objective, data, rounds=1500, eval_every=1500)
    again = fit("cocoa", objective, data, rounds=2, w0=best.weights)
    np.testing.assert_allclose(again.weights, best.weights, atol=1e-5)


def test_parts_of_epochs_visit_every_sample_once(two_classes):
    local, data = cocoa(epochs=0.3).local, two_classes(50)
    task = Task(1, 0, 2, 0, LinearObjective("logistic", 0.1), Shards(data, ShuffleSplit(), 2, 0))
    seen, t = [], 0
    while t < 100:
        for order in local._orders(t, 25, task):
            seen.extend(order.tolist())
            t += len(order)
    for epoch in range(4):
        assert sorted(seen[25 * epoch : 25 * (epoch + 1)]) == list(range(25))
    assert seen[:25] != seen[25:50]


def test_workers_with_all_samples_each_have_the_same_optimum(two_classes):
    data, objective = two_classes(), LinearObjective("logistic", 0.05)
    result = fit(cocoa(partition=Whole()), objective, data, workers=2, rounds=1000)
    assert np.abs(objective.grad(result.weights, Batch(data))).max() < 1e-6


def test_an_epoch_is_a_pass(two_classes):
    chosen = cocoa(epochs=2)
    assert rounds_for(chosen, Shards(two_classes(), chosen.partition, 4, 0), 4, epochs=6) == 3


def test_what_it_cannot_do_it_refuses_by_name(two_classes):
    with pytest.raises(OptionError, match="cocoa needs an L2 penalty"):
        fit("cocoa", LinearObjective("logistic", 0.0), two_classes())
    with pytest.raises(OptionError, match="softmax"):
        fit("cocoa", LinearObjective("softmax", 0.1), two_classes())
    with pytest.raises(OptionError, match="dealt once"):
        cocoa(partition=ShuffleSplit(reshuffle_every=2))
    with pytest.raises(OptionError, match="a stream has no end"):
        fit("cocoa", LinearObjective("logistic", 0.1), LogisticStream(3))
    one = make_dataset([[1.0], [2.0]], [0, 1])
    assert fit("cocoa", LinearObjective("hinge", 0.1), one, workers=2, rounds=3).weights.size == 2
