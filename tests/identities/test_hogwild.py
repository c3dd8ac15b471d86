"""Hogwild!: where it is serial SGD to the bit, and what races do to it."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import numpy as np
import pytest
from scipy import sparse

from hemiola.algorithms.hogwild import Hogwild, hogwild, lost_share, pull_of
from hemiola.dataset import Batch, make_dataset
from hemiola.engines.threads import Threads
from hemiola.errors import OptionError, UnsupportedError
from hemiola.job import Job, Work
from hemiola.kernels import Rows, conflicts, sgd
from hemiola.kernels.conflicts import contested_share, racing_speedup, sparsity
from hemiola.kernels.sgd import Rule
from hemiola.objectives import LinearObjective, logistic
from hemiola.partition import Shards, Whole
from hemiola.training import fit
from hemiola.types import copy_state


def trained(solver, data, objective, threads, passes=3, w0=None):
    plan = solver.prepare(Work(objective, data, threads, 7))
    start = objective.init(data, np.random.default_rng(0)) if w0 is None else w0
    state = solver.init(plan, start)
    for e in range(passes):
        solver.epoch(plan, state, e)
    return solver.model(plan, state), state


def blocks_of_features(groups=8, each=40, dtype=np.float64):
    """Samples of group g use the features of group g alone."""
    rng = np.random.default_rng(4)
    X = np.zeros((groups * each, groups * 3))
    for i in range(len(X)):
        g = i % groups
        X[i, 3 * g : 3 * g + 3] = rng.standard_normal(3)
    return make_dataset(sparse.csr_array(X.astype(dtype)), rng.integers(0, 2, len(X)))


# One thread, or nothing in common


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("loss", ["logistic", "hinge", "softmax"])
def test_one_thread_is_serial_sgd_to_the_bit(two_classes, loss, csr):
    data, objective = two_classes(300, csr=csr), LinearObjective(loss, 0.01)
    w0 = np.linspace(-1, 1, objective.init(data, np.random.default_rng(0)).size)
    found, _ = trained(Hogwild(0.1, 0.5, 1.0), data, objective, threads=1, w0=w0)
    rows = Rows.of(data, 7, loss)
    w = rows.inside(w0)
    for e in range(3):
        sgd.epoch(rows, w, Rule(loss, 0.1 * 0.5**e, 0.01, inverse=False), 7, e)
    assert (found == rows.outside(w)).all()


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_disjoint_supports_are_serial_sgd_to_the_bit(threads, dtype):
    data = blocks_of_features(dtype=dtype)
    solver, objective = Hogwild(0.3), LinearObjective("logistic", 0.0, intercept=False)
    serial, _ = trained(solver, data, objective, threads=1)
    plan = solver.prepare(Work(objective, data, threads, 7))
    groups = plan.rows.order % 8
    state = solver.init(plan, objective.init(data, np.random.default_rng(0)))
    for e in range(3):  # each thread takes the rows of its groups, in the serial order
        size = Rule("logistic", 1).block_size(plan.rows)
        order = [
            i
            for b in plan.rows.blocks(7, e, size)
            for i in range(b * size, min((b + 1) * size, len(plan.rows)))
        ]
        mine = [np.array([i for i in order if groups[i] % threads == k]) for k in range(threads)]
        rule = solver._rule(plan, e)

        def part(k, rule=rule, mine=mine):
            sgd.plain(plan.rows, state["w"], rule, rule.pace(l2=0.0), mine[k], 1)

        plan.team.run(part)
    assert (solver.model(plan, state) == serial).all()


def test_a_pass_visits_every_sample_once(two_classes):
    rows = Rows.of(two_classes(333, csr=True), 0)
    for threads in (1, 2, 3, 7):
        blocks = np.array_split(rows.blocks(0, 4, rows.block_size()), threads)
        assert sorted(np.concatenate(blocks)) == list(range(-(-333 // rows.block_size())))


# The penalty on a sample's own features


def test_the_sparse_penalty_adds_up_to_the_whole_one():
    data = blocks_of_features()
    objective = LinearObjective("squared", 0.2, intercept=False)
    data = make_dataset(data.X, np.zeros(len(data)), regression=True)
    solver = Hogwild(1e-7)  # one pass of tiny steps is one step on the whole
    w0 = np.append(np.linspace(-1, 1, data.n_features), 0.0)
    found, _ = trained(solver, data, objective, threads=2, passes=1, w0=w0)
    gradient = objective.grad(w0, Batch(data))
    np.testing.assert_allclose((w0 - found) / (1e-7 * len(data)), gradient, atol=1e-4)


def test_a_rare_feature_keeps_its_sign():
    X = sparse.csr_array(np.eye(4))
    objective = LinearObjective("squared", 0.5, intercept=False)
    data = make_dataset(X, np.zeros(4), regression=True)
    w0 = np.array([1.0, 2.0, 3.0, 4.0, 0.0])
    plan = Hogwild(0.1).prepare(Work(objective, data, 2, 0))
    np.testing.assert_allclose(pull_of(plan), 4 * 0.5)
    w, _ = trained(Hogwild(0.1), data, objective, 2, passes=1, w0=w0)
    np.testing.assert_allclose(w, w0 * (1 - 0.1 * (2 + 1)))
    w, _ = trained(Hogwild(0.9), data, objective, 2, passes=1, w0=w0)
    np.testing.assert_allclose(w, -0.9 * w0)  # the penalty alone would leave 0


# Constants of sparsity


def brute_force(X):
    used = [set(np.flatnonzero(row)) for row in X]
    n = len(used)
    omega = max(map(len, used))
    delta = max(sum(v in e for e in used) for v in range(X.shape[1])) / n
    rho = max(sum(bool(e & other) for other in used) for e in used) / n
    return omega, delta, rho


@pytest.mark.parametrize("seed", range(6))
def test_the_constants_are_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    X = (rng.random((30, 20)) < 0.02 + 0.05 * seed) * 1.0
    rows = Rows.of(make_dataset(sparse.csr_array(X), np.arange(30) % 2), seed)
    found = sparsity(rows)
    assert (found.omega, found.delta, found.rho) == brute_force(X)
    sampled = sparsity(rows, exact=0)
    assert sampled.rho == found.rho, "all 30 were sampled"
    assert sampled.sampled == 30


def test_a_sampled_rho_is_close_and_never_above():
    rng = np.random.default_rng(1)
    X = sparse.random(3000, 2000, 0.002, format="csr", random_state=1)
    rows = Rows.of(make_dataset(X, rng.integers(0, 2, 3000)), 0)
    exact, sampled = sparsity(rows, exact=10**12), sparsity(rows, exact=0)
    assert sampled.sampled == 200
    assert 0.3 * exact.rho < sampled.rho <= exact.rho
    assert sparsity(Rows.of(make_dataset(np.ones((4, 2)), [0, 1, 0, 1]), 0))[:3] == (2, 1.0, 1.0)


def test_hot_features_are_warned_of_and_rare_ones_not(monkeypatch):
    rng = np.random.default_rng(0)
    objective = logistic(0.1)
    hot = make_dataset(sparse.csr_array((rng.random((200, 50)) < 0.3) * 1.0), np.arange(200) % 2)
    plan = Hogwild(0.1).prepare(Work(objective, hot, 2, 0))
    words = " ".join(Hogwild(0.1).words(plan))
    assert "Warning: 100% of all accesses" in words and "0.4 times as fast" in words
    one = Hogwild(0.1).prepare(Work(objective, hot, 1, 0))
    assert "Warning" not in " ".join(Hogwild(0.1).words(one))
    monkeypatch.setattr(conflicts, "FAR", 50 * 8)  # a cache of 50 weights
    indices = rng.permutation(3000)[:900]
    X = sparse.csr_array((np.ones(900), indices, np.arange(0, 901, 3)), (300, 3000))
    plan = Hogwild(0.1).prepare(Work(objective, make_dataset(X, np.arange(300) % 2), 2, 0))
    assert contested_share(plan.rows) == 50 / 900
    assert 1.5 < racing_speedup(plan.rows, 2) < 2
    assert "Warning" not in " ".join(Hogwild(0.1).words(plan))


# Races, made to happen


class Interleaved:
    """Threads of a dense least-squares problem whose every read and write is a step of its own.

    A scheduler decides whose step is next. This is what the machine may do to the kernel.
    """

    def __init__(self, X, y, lr, threads, whole_row=False):
        self.X, self.y, self.lr, self.whole_row = X, y, lr, whole_row
        self.w = np.zeros(X.shape[1])
        self.meant = [np.zeros(X.shape[1]) for _ in range(threads)]

    def thread(self, k, rows):
        for i in rows:
            z = 0.0
            for j, x in enumerate(self.X[i]):
                z += x * self.w[j]
                yield  # somebody else may write now
            r = z - self.y[i]
            for j, x in enumerate(self.X[i]):
                before = self.w[j]
                if not self.whole_row:
                    yield  # read, not yet written: an update in between is lost
                self.w[j] = before - self.lr * r * x
                self.meant[k][j] -= self.lr * r * x
                yield

    def run(self, parts, choose):
        running = [self.thread(k, rows) for k, rows in enumerate(parts)]
        while running:
            chosen = running[choose(len(running))]
            if next(chosen, "over") == "over":
                running.remove(chosen)
        return self.w


def dense(n=60, p=4):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((n, p)) * 0.2 + 1.0
    return X, X @ np.ones(p) + 0.1 * rng.standard_normal(n)


def test_one_interleaved_thread_is_the_kernel():
    X, y = dense()
    data = make_dataset(X, y, regression=True)
    rows = Rows.of(data, 7, "squared")
    w = rows.inside(np.zeros(5))
    sgd.epoch(rows, w, Rule("squared", 0.05, inverse=False, intercept=0.0), 7)
    order = rows.order[rows.blocks(7, 0, 1)]
    model = Interleaved(X, y, 0.05, 1).run([order], lambda n: 0)
    np.testing.assert_allclose(rows.outside(w)[:-1], model, rtol=1e-12)


def test_interleaved_threads_lose_updates_on_dense_rows():
    X, y = dense()
    rng = np.random.default_rng(0)
    racing = Interleaved(X, y, 0.05, 4)
    w = racing.run(np.array_split(np.arange(60), 4), rng.integers)
    share = lost_share(np.zeros(4), w, racing.meant)
    assert share > 0.05
    in_turn = Interleaved(X, y, 0.05, 4)
    w = in_turn.run(np.array_split(np.arange(60), 4), lambda n: 0)
    assert lost_share(np.zeros(4), w, in_turn.meant) == 0
    # without a gap between read and write nothing is lost, however stale the gradients are
    atomic = Interleaved(X, y, 0.05, 4, whole_row=True)
    w = atomic.run(np.array_split(np.arange(60), 4), rng.integers)
    assert lost_share(np.zeros(4), w, atomic.meant) == 0


def test_in_the_dense_worst_case_threads_diverge_where_one_converges():
    X, y = dense(200)
    lr = 1.2 / np.square(X).sum(axis=1).max()  # one thread: stable below 2
    alone = Interleaved(X, y, lr, 1).run([range(200)], lambda n: 0)
    assert np.abs(alone - 1).max() < 0.5

    def in_lockstep(n, turn=[-1]):  # noqa: B006
        turn[0] += 1
        return turn[0] % n

    racing = Interleaved(X, y, lr, 8, whole_row=True)
    with np.errstate(over="ignore", invalid="ignore"):
        w = racing.run(np.array_split(np.arange(200), 8), in_lockstep)
    assert not np.abs(w - 1).max() < 1e3


# Real threads


def test_threads_reach_what_one_thread_reaches_on_sparse_data():
    rng = np.random.default_rng(0)
    X = sparse.random(4000, 3000, 0.004, format="csr", random_state=2)
    y = X @ rng.standard_normal(3000) + 0.3 * rng.standard_normal(4000) > 0
    data, objective = make_dataset(X, y.astype(int)), logistic(1e-3)
    losses = []
    for threads in (1, 2, 4):
        w, state = trained(Hogwild(1.0, count_lost=True), data, objective, threads, passes=10)
        losses.append(objective.value(w, Batch(data)))
        assert 0 <= state["lost"] < 0.05
    assert max(losses) < 1.03 * min(losses)


def test_lost_shares_are_in_the_history(two_classes):
    result = fit(hogwild(0.1, count_lost=True), "logistic", two_classes(100), workers=2, rounds=4)
    assert len(result.history.undone) == 4
    assert fit(hogwild(0.1), "logistic", two_classes(100), rounds=2).history.undone == []
    assert result.settings["engine"]["name"] == "threads"
    assert result.history.last.local_steps == 400


def test_a_run_of_one_thread_goes_on_where_it_stopped(two_classes):
    data, objective = two_classes(100, csr=True), logistic(0.1)
    job = Job(hogwild(0.1), objective, Shards(data, Whole(), 1, 0), 1, 0, np.zeros(4))
    with closing(Threads().run(job)) as events:
        models = []
        for event in islice(events, 4):
            models.append(event.server["w"].copy())
            if event.step == 2:
                saved = copy_state(event.snapshot())
    with closing(Threads().run(job, saved)) as events:
        again = [event.server["w"].copy() for event in islice(events, 2)]
    assert all((a == b).all() for a, b in zip(again, models[2:], strict=True))


def test_what_it_cannot_do_it_says(two_classes):
    data = two_classes(60)
    with pytest.raises(OptionError, match="linear models only"):
        Hogwild(0.1).prepare(Work(object(), data, 2, 0))
    with pytest.raises(UnsupportedError, match="use engine threads"):
        fit("hogwild", "logistic", data, engine="serial")
    with pytest.raises(OptionError, match="signs"):
        fit(hogwild(2.0), LinearObjective("logistic", 0.5), data, workers=1)
