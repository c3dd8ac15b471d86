"""Tiered replicas: serial SGD on one thread, model averaging at one end, a sum at the other."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from scipy import sparse

from hemiola.algorithms.registry import SHARED, build
from hemiola.algorithms.tiered import Tiered, Tiers, _Replicas, share, tiered
from hemiola.callbacks import Callback
from hemiola.dataset import Batch, make_dataset
from hemiola.errors import OptionError
from hemiola.job import Work
from hemiola.kernels import Rows, _passes, sgd
from hemiola.kernels.sgd import Mean, Rule
from hemiola.objectives import LinearObjective, logistic
from hemiola.reference import pooled_optimum
from hemiola.sklearn import DistributedClassifier
from hemiola.training import fit


def trained(solver, data, objective, threads, passes=3, w0=None):
    plan = solver.prepare(Work(objective, data, threads, 7))
    state = solver.init(plan, objective.init(data, None) if w0 is None else w0)
    for e in range(passes):
        solver.epoch(plan, state, e)
    return solver.model(plan, state)


def text_like(n=3000, p=800, m=12, dtype=np.float64):
    """Rows of m features drawn by a power law, with noisy labels."""
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, p + 1)
    indices = rng.choice(p, n * m, p=chance / chance.sum())
    X = sparse.csr_array((rng.random(n * m), indices, np.arange(0, n * m + 1, m)), (n, p))
    X.sum_duplicates()
    X = X.multiply(1 / np.sqrt(X.multiply(X).sum(axis=1))[:, None]).tocsr().astype(dtype)
    y = X @ rng.standard_normal(p) + 0.4 * rng.standard_normal(n) > 0
    return make_dataset(X, y.astype(int))


# One thread


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("loss", ["logistic", "hinge", "softmax"])
@pytest.mark.parametrize("decay", ["inverse", "constant"])
def test_one_thread_is_serial_sgd_to_the_bit(two_classes, loss, csr, decay):
    data, objective = two_classes(300, csr=csr), LinearObjective(loss, 0.01)
    w0 = np.linspace(-1, 1, objective.init(data, None).size)
    found = trained(Tiered(0.1, decay, intercept_step=1.0), data, objective, 1, w0=w0)
    rows = Rows.of(data, 7, loss)
    w = rows.inside(w0)
    for e in range(3):
        sgd.epoch(rows, w, Rule(loss, 0.1, 0.01, decay == "inverse"), 7, e)
    assert (found == rows.outside(w)).all()


def test_one_thread_with_l1_and_with_averaging(two_classes):
    data, objective = two_classes(200, csr=True), logistic(0.01)
    rows, rule = Rows.of(data, 7), Rule("logistic", 0.1, 0.01, intercept=0.01, l1=0.05)
    w = rows.inside(np.zeros(4))
    for e in range(3):
        sgd.epoch(rows, w, rule, 7, e)
    assert (trained(Tiered(0.1, l1=0.05), data, objective, 1) == rows.outside(w)).all()
    w, mean = rows.inside(np.zeros(4)), Mean.of(rows)
    for e in range(3):
        sgd.epoch(rows, w, Rule("logistic", 0.1, 0.01, intercept=0.01), 7, e, mean)
    found = trained(Tiered(0.1, average=True), data, objective, 1)
    assert (found == rows.outside(mean.value(rows))).all()
    with pytest.raises(OptionError, match="average needs a single thread"):
        Tiered(0.1, average=True).prepare(Work(objective, data, 2, 7))


# Merging


def test_shares_go_from_the_sum_to_the_mean():
    for threads in (2, 3, 8):
        a = share(np.array([0.0, 1e-9, 0.1, 1.0, 50.0]), threads)
        np.testing.assert_allclose(a[[0, -1]], [1, 1 / threads], rtol=1e-5)
        assert (np.diff(a) <= 0).all()
        q = np.exp(-np.array([0.1, 1.0]))  # what is left after K P steps in a row
        np.testing.assert_allclose(1 - threads * a[2:4] * (1 - q), q**threads, rtol=1e-9)


class Lockstep:
    """The threads of a plan, by turns: each does a block of rows and the merges that follow."""

    def __init__(self, plan, rule, a):
        self.plan, self.rule = plan, rule
        self.a = np.full(plan.details.weights.shape[1], a)
        self.size = rule.block_size(plan.rows)
        self.parts = np.array_split(plan.rows.blocks(7, 0, self.size), plan.threads)

    def run(self, w):
        """The model (d,) after one pass from w (d,), as kernels have it."""
        plan, rule, own, n = self.plan, self.rule, self.plan.details, len(self.plan.rows)
        m, C, w = own.sums.shape[1] - plan.rows.outputs, plan.rows.outputs, w.copy()
        own.sums[1:] = 0
        own.sums[0, :m], own.sums[0, m:] = w[:m], w[-C:]
        V = [weights.reshape(-1, C) for weights in own.weights]
        tiers = np.count_nonzero(own.tiers.ends * C <= m)
        pace, K = rule.pace(0, plan.threads), plan.threads
        rows = [0] * K
        for k in range(K):
            _passes.begin_replica(k, V[k], w, own.seen[k])
        for turn in range(max(map(len, self.parts))):
            for k in range(K):
                for b in self.parts[k][turn : turn + 1]:
                    first, last = b * self.size, min((b + 1) * self.size, n)
                    _passes.block_of_replica(
                        plan.rows.table, rule.code, first, last, V[k], pace,
                        float(K * rows[k]), False, k, own.seen[k], own.sums, self.a,
                        own.tiers.ends[:tiers] * C, own.tiers.periods[:tiers], rows[k],
                    )  # fmt: skip
                    rows[k] += last - first
        for k in range(K):
            _passes.end_replica(k, V[k], own.seen[k], own.sums, self.a)
        scale = sgd.scale_after(pace, n)
        _passes.collect(0, len(self.a), scale, w, own.weights, own.sums, self.a, C)
        return w


@pytest.mark.parametrize("a", [1.0, 0.5, 1 / 3])
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_merged_once_a_pass_shares_are_added_up(two_classes, csr, a):
    """Each thread alone, from the same model: w + sum_k a (w_k - w); a = 1/K averages models."""
    data, objective = two_classes(300, csr=csr), logistic(0.05)
    plan = Tiered(0.1).prepare(Work(objective, data, 3, 7))
    plan.details.tiers.periods[:] = 10**6
    rows, rule = plan.rows, Rule("logistic", 0.1, 0.05)
    together = Lockstep(plan, rule, a)
    w0 = rows.inside(np.array([0.5, -0.5, 0.25, 0.1]))
    expected, pace = w0.copy(), rule.pace(0, 3)
    for blocks in together.parts:
        v = w0.copy()
        sgd.plain(rows, v, rule, pace, blocks, together.size)
        expected += a * (v - w0)
    sgd.fold(rows, expected, pace, 300)
    np.testing.assert_allclose(together.run(w0), expected, rtol=1e-10, atol=1e-12)


def test_added_up_threads_in_lockstep_diverge_where_shares_do_not():
    data = text_like(4000, 300)
    objective = LinearObjective("logistic", 1e-3)
    plan = Tiered(2.0).prepare(Work(objective, data, 8, 7))
    rule = Rule("logistic", 2.0, 1e-3)
    losses = []
    for a in (1.0, plan.details.share(plan, rule, 0.0)):
        w = Lockstep(plan, rule, a).run(plan.rows.inside(np.zeros(301)))
        losses.append(objective.value(plan.rows.outside(w), Batch(data)))
    assert losses[0] > 1.0 > 0.69 > losses[1]


@pytest.mark.parametrize("threads", [2, 4])
def test_no_update_is_lost(monkeypatch, threads):
    """With gradients that do not depend on w, the outcome is the sum of all, whatever the order."""
    monkeypatch.setitem(
        _Replicas.share.__globals__, "share", lambda bend, threads: np.ones_like(bend)
    )
    data = text_like()
    objective = LinearObjective("hinge", 0.0)  # margins stay below 1: every slope is -y
    solver = Tiered(1e-6, merge_every=1, intercept_step=1.0)
    found = trained(solver, data, objective, threads, passes=2)
    sign = 2.0 * data.y - 1
    expected = 2e-6 * np.append(data.X.T @ sign, sign.sum())
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("loss", ["logistic", "softmax", "squared"])
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_threads_reach_the_optimum_of_one_thread(loss, csr):
    data = text_like(2000, 60)
    if not csr:
        data = make_dataset(data.X.toarray(), data.y)
    if loss == "squared":
        data = make_dataset(data.X, data.y.astype(float), regression=True)
    objective = LinearObjective(loss, 1e-2)
    _, best = pooled_optimum(objective, data)
    for threads in (1, 2, 3):
        solver = fit(tiered(), objective, data, workers=threads, rounds=20, seed=1)
        assert solver.history.last.loss < 1.06 * best


def test_strong_penalties_at_a_constant_rate(two_classes):
    data, objective = two_classes(300, csr=True, dtype=np.float32), logistic(0.9)
    _, best = pooled_optimum(objective, data)
    for threads in (1, 2):
        w = trained(Tiered(0.05, "constant", intercept_step=1.0), data, objective, threads, 5)
        assert w.dtype == np.float32
        assert objective.value(w, Batch(data)) < 1.1 * best


def test_weights_that_no_row_uses_only_shrink():
    X = sparse.csr_array(([1.0, 1.0, 1.0], [0, 1, 0], [0, 1, 2, 3]), shape=(3, 5))
    data, objective = make_dataset(X, [0, 1, 0]), logistic(0.1)
    w0 = np.ones(6)
    one, two = (trained(Tiered(0.5), data, objective, k, 2, w0) for k in (1, 2))
    np.testing.assert_allclose(one[2:5], 1 / (1 + 0.5 * 0.1 * 6))
    np.testing.assert_allclose(two[2:5], one[2:5], rtol=1e-12)


def test_more_threads_than_rows(two_classes):
    w = trained(Tiered(0.1), two_classes(3), logistic(0.1), threads=8)
    assert np.isfinite(w).all()


# Tiers


def test_tiers_follow_the_data():
    rows = Rows.of(text_like(), 0)
    tiers = Tiers.of(rows, threads=2)
    first, second, last = tiers.ends
    assert 0 < first < second <= last == rows.used
    n = len(rows)
    often = n / tiers.periods[0]
    assert rows.counts[first - 1] >= often > rows.counts[first]
    assert (np.diff(tiers.periods) >= 0).all()
    assert tiers.within(1500) == 2, "the rare features are merged at the end"
    each = tiers.of_each(np.array([1.0, 2.0, 3.0]))
    assert len(each) == rows.used + 1
    assert each[0] == each[-1] == 1.0, "the intercept is merged with the first tier"
    rare = Tiers.of(Rows.of(make_dataset(sparse.csr_array(np.eye(600)), np.arange(600) % 2), 0), 2)
    assert rare.ends.tolist() == [0, 0, 600]
    assert rare.within(300) == 2
    assert "600 features every 300 rows" in rare.words()


def test_words_come_before_the_run(two_classes):
    class Hears(Callback):
        heard: tuple = ()

        def on_words(self, words):
            self.heard = tuple(words)

    hears = Hears()
    fit("tiered", "logistic", two_classes(100), workers=2, rounds=1, callbacks=[hears])
    assert hears.heard[0].startswith("Each thread merges its 3 features every")


# The rest of the library


@pytest.mark.parametrize("name", sorted({*SHARED} - {"stratified"}))
def test_no_thread_is_left(two_classes, name):
    before = set(threading.enumerate())
    fit(build(name), "logistic", two_classes(100, csr=True), workers=3, rounds=2)
    assert set(threading.enumerate()) <= before


def test_an_estimator_counts_passes(two_classes):
    data = two_classes(200)
    model = DistributedClassifier("tiered", n_workers=2, epochs=7, random_state=0)
    model.fit(data.X, data.y)
    assert model.n_iter_ == 7
    assert model.score(data.X, data.y) > 0.7


def test_checkpoints_hold_the_mean(two_classes, tmp_path):
    data = two_classes(120, csr=True)
    whole = fit(tiered(0.1, average=True), "logistic", data, workers=1, rounds=6)
    for rounds, resume in ((3, False), (6, True)):
        parts = fit(
            tiered(0.1, average=True), "logistic", data, workers=1, rounds=rounds,
            checkpoint=tmp_path, resume=resume,
        )  # fmt: skip
    assert (parts.weights == whole.weights).all()
