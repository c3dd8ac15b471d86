"""The estimated learning rate: right where it can be computed, and filled in where it lacks."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from scipy import sparse
from threadpoolctl import threadpool_limits

from hemiola.algorithm import MiniBatch
from hemiola.algorithms.registry import RECIPES, build
from hemiola.data.streams import LogisticStream
from hemiola.dataset import make_dataset
from hemiola.errors import OptionError
from hemiola.learning_rate import base_rate, with_learning_rate
from hemiola.objectives import LinearObjective, logistic, squared
from hemiola.optim import SGD
from hemiola.partition import Online, Shards
from hemiola.training import fit

MARGIN = 1.05
# optimisers without a rate, if not one
LOCAL = {"downpour": 2, "distbelief": 2, "ditto": 2, "post-local-sgd": 2}
SERVER = {"fedadam": [0.03], "diloco": [0.7], "streaming-diloco": [0.7]}  # rates of their own

WITHOUT_RATE = ("sandblaster", "lbfgs", "cocoa", "admm", "admm-sharing", "admm-async")


def known(n=400, *, csr=False):
    """X'X/n = diag(9, 1), and columns of mean zero: the intercept adds an eigenvalue of 1."""
    a, b = np.tile([3.0, -3.0], n // 2), np.repeat([1.0, -1.0], n // 2)
    X = np.column_stack([a, b])
    return make_dataset(sparse.csr_array(X) if csr else X, np.arange(n) * 1.0, regression=True)


def rate_of(algorithm):
    local = algorithm.local
    for part in (
        local,
        getattr(local, "optimizer", None),
        getattr(algorithm.aggregate, "optimizer", None),
        algorithm.aggregate,
    ):
        if getattr(part, "lr", None) is not None:
            return part.lr
    return None


def rates_of(part):
    """The rates of all parts of an algorithm that take one."""
    if not is_dataclass(part) or isinstance(part, type):
        return []
    own = [part.lr] if hasattr(part, "with_lr") else []
    return own + [rate for f in fields(part) for rate in rates_of(getattr(part, f.name))]


def filled(name, data, objective, workers=4, **options):
    chosen = build(name, {key.replace("__", "."): value for key, value in options.items()})
    source = Shards(data, chosen.partition, workers, 0)
    return with_learning_rate(chosen, objective, data, source, workers)


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize(
    ("objective", "curvature"), [(squared(), 1.0), (logistic(), 0.25), (squared(0.5), 1.0)]
)
def test_the_rate_is_one_over_the_smoothness_of_a_known_matrix(csr, objective, curvature):
    data = known(csr=csr)
    top, mean = 9.0, 9.0 + 1.0 + 1.0
    whole = base_rate(objective, data, math.inf)
    assert 1 / whole == pytest.approx(curvature * top * MARGIN + objective.l2, rel=1e-9)
    assert 1 / base_rate(objective, data, 1) == pytest.approx(curvature * mean + objective.l2)
    ten = curvature * (0.9 * top * MARGIN + 0.1 * mean) + objective.l2
    assert 1 / base_rate(objective, data, 10) == pytest.approx(ten, rel=1e-9)


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_steps_on_single_samples_need_no_eigenvalue(monkeypatch, csr):
    def never(data):
        raise AssertionError("the power method was asked for")

    monkeypatch.setattr("hemiola.learning_rate._largest_eigenvalue", never)
    assert base_rate(squared(), known(csr=csr), 1.0) == pytest.approx(1 / 11)
    with pytest.raises(AssertionError, match="power method"):
        base_rate(squared(), known(csr=csr), 2.0)


def test_the_rate_bounds_the_true_smoothness(two_classes):
    for seed in range(5):
        data = two_classes(80, 6, seed=seed)
        X = np.column_stack([data.X, np.ones(80)])
        L = 0.25 * np.linalg.eigvalsh(X.T @ X / 80)[-1]
        assert 0.93 / L <= base_rate(logistic(), data, math.inf) <= 1.001 / L


def test_dense_and_sparse_data_get_the_same_rate(two_classes):
    rates = [base_rate(logistic(), two_classes(80, 6, csr=csr), 8) for csr in (False, True)]
    assert rates[0] == pytest.approx(rates[1], rel=1e-12)


def test_sample_weights_count(two_classes):
    weight = np.r_[np.full(40, 3.0), np.full(40, 1e-9)]
    weighted = two_classes(80, 4, weight=weight)
    half = make_dataset(weighted.X[:40], weighted.y[:40])
    assert base_rate(logistic(), weighted, math.inf) == pytest.approx(
        base_rate(logistic(), half, math.inf), rel=1e-6
    )


def test_gradient_descent_at_the_estimated_rate_goes_down(two_classes, line):
    for data, objective in (
        (two_classes(80), logistic()),
        (line(80), squared()),
        (known(), squared()),
    ):
        result = fit(build("ssgd", {"batch_size": "all"}), objective, data, rounds=30, workers=2)
        assert (np.diff(result.history.column("loss")) <= 1e-15).all()


def test_large_data_are_sampled():
    rng = np.random.default_rng(0)
    data = make_dataset(rng.normal(size=(30_000, 3)), rng.integers(0, 2, 30_000))
    few = base_rate(logistic(), data.take(np.arange(10_000)), 32)
    assert base_rate(logistic(), data, 32) == pytest.approx(few, rel=0.1)


@pytest.mark.parametrize("rule", ["heavy-ball", "nesterov"])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_momentum_takes_its_gain_back(two_classes, rule, momentum):
    data = two_classes()
    plain = rate_of(filled("bmuf", data, logistic()))
    options = {"optimizer": rule, "momentum": momentum}
    assert rate_of(filled("bmuf", data, logistic(), **options)) == pytest.approx(
        plain * (1 - momentum)
    )


def test_elastic_momentum_takes_its_gain_back(two_classes):
    data = two_classes()
    plain = rate_of(filled("easgd", data, logistic()))
    assert rate_of(filled("eamsgd", data, logistic(), momentum=0.8)) == pytest.approx(0.2 * plain)


@pytest.mark.parametrize(("rule", "rate"), [("adam", 0.01), ("adamw", 0.01), ("adagrad", 0.1)])
def test_adaptive_rules_ignore_the_data(two_classes, rule, rate):
    assert rate_of(filled("bmuf", two_classes(), logistic(), optimizer=rule)) == rate
    assert rate_of(filled("bmuf", known(), squared(), optimizer=rule)) == rate


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_asynchronous_rates_stay_at_half_the_limit_of_stability(two_classes, workers):
    data, batch = two_classes(), {"batch_size": "all"}
    alone = base_rate(logistic(), data, math.inf)
    expected = alone * math.sin(math.pi / (2 * (2 * (workers - 1) + 1)))
    for name in ("asgd", "ssp", "dc-asgd"):
        late = rate_of(filled(name, data, logistic(), workers, **batch))
        assert late == pytest.approx(expected)
    both = rates_of(filled("downpour", data, logistic(), workers, optimizer="sgd", **batch))
    assert both == pytest.approx([expected, expected])


@pytest.mark.parametrize("shards", [None, 2])
@pytest.mark.parametrize("workers", [1, 4])
def test_servers_that_divide_by_the_staleness_need_no_smaller_rate(two_classes, workers, shards):
    data = two_classes()
    options = {"damping": "inverse", "batch_size": "all"}
    if shards:
        options["shards"] = shards
    (rate,) = rates_of(filled("asgd", data, logistic(), workers, **options))
    assert rate == pytest.approx(base_rate(logistic(), data, math.inf))


@pytest.mark.parametrize(("late", "prompt"), [("easgd-async", "easgd"), ("eamsgd-async", "eamsgd")])
def test_elastic_workers_step_on_gradients_of_their_own(two_classes, late, prompt):
    data = two_classes()
    rates = [rate_of(filled(name, data, logistic(), 8, batch_size=5)) for name in (late, prompt)]
    assert rates[0] == rates[1]
    alone = base_rate(logistic(), data, 5)
    assert rates[0] == pytest.approx(alone if late == "easgd-async" else 0.1 * alone)


def test_joined_gradients_count_as_one_large_batch(two_classes):
    data = two_classes(80)
    joined = rate_of(filled("ssgd", data, logistic(), 4, batch_size=5))
    assert joined == pytest.approx(base_rate(logistic(), data, 20))
    alone = rate_of(filled("model-averaging", data, logistic(), 4, batch_size=5))
    assert alone == pytest.approx(base_rate(logistic(), data, 5))
    assert rate_of(filled("easgd", data, logistic(), 4, batch_size=5)) == pytest.approx(alone)


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in WITHOUT_RATE])
@pytest.mark.parametrize("shards", [None, 3])
def test_every_recipe_gets_a_rate_and_given_rates_are_kept(two_classes, name, shards):
    data = two_classes()
    sharded = {} if shards is None else {"shards": shards}
    if name == "streaming-diloco" and shards:
        pytest.skip("its server is in fragments already")
    local, server = LOCAL.get(name, 1), SERVER.get(name, [])
    assert rates_of(build(name, sharded)) == [None] * local + server
    assert all(rate > 0 for rate in rates_of(filled(name, data, logistic(), **sharded)))
    both = ("downpour", "distbelief")  # replicas have a rate and servers
    two = {"optimizer.lr": 0.123} if name in both else {}
    given = build(name, {"lr": 0.123, **two, **sharded})
    assert rates_of(given) == [0.123] * local + server
    source = Shards(data, given.partition, 4, 0)
    assert with_learning_rate(given, logistic(), data, source, 4) is given


def test_one_given_rate_of_two_is_kept_and_the_other_filled_in(two_classes):
    data = two_classes()
    assert rates_of(filled("downpour", data, logistic(), lr=0.123)) == [0.123, 0.1]
    replica, server = rates_of(filled("downpour", data, logistic(), optimizer__lr=0.123))
    split = filled("distbelief", data, logistic(), optimizer__lr=0.123)
    assert rates_of(split) == [replica, server], "the split changes nothing"
    assert replica > 0 and server == 0.123


@pytest.mark.parametrize(
    ("name", "server", "rate"),
    [
        ("fedadam", "sgd", 1.0),
        ("fedadam", "momentum", 0.1),
        ("fedadam", "nesterov", 0.1),
        ("streaming-diloco", "sgd", 1.0),
        ("diloco", "adam", 0.03),
        ("diloco", "nesterov", 0.7),
    ],
)
def test_a_server_that_steps_on_changes_has_a_rate_whatever_the_data(
    two_classes, name, server, rate
):
    for data in (two_classes(), known()):
        done = filled(name, data, squared(), server=server)
        assert done.aggregate.optimizer.lr == pytest.approx(rate)


@pytest.mark.parametrize("mu", [0.0, 0.1, 30.0])
def test_a_spring_counts_as_curvature(two_classes, mu):
    data = two_classes(80)
    alone = base_rate(logistic(), data, 5)
    held = rates_of(filled("fedprox", data, logistic(), mu=mu, batch_size=5))
    assert held == [pytest.approx(1 / (1 / alone + mu))]
    shared, own = rates_of(filled("ditto", data, logistic(), lam=mu, batch_size=5))
    assert (shared, own) == (pytest.approx(alone), pytest.approx(1 / (1 / alone + mu)))


def test_a_batch_method_that_searches_its_step_needs_no_rate(two_classes):
    data, chosen = two_classes(), build("sandblaster")
    assert rates_of(chosen) == []
    source = Shards(data, chosen.partition, 4, 0)
    assert with_learning_rate(chosen, logistic(), data, source, 4) is chosen
    assert with_learning_rate(chosen, object(), data, source, 4) is chosen
    with pytest.raises(OptionError, match="sandblaster has no option 'lr'"):
        build("sandblaster", {"lr": 0.1})


def test_only_what_lacks_is_filled_in(two_classes):
    data = two_classes()
    chosen = build("bmuf", {"optimizer": "heavy-ball", "momentum": 0.3, "steps": 7})
    source = Shards(data, chosen.partition, 4, 0)
    done = with_learning_rate(chosen, logistic(), data, source, 4)
    optimizer = replace(done.local.optimizer, lr=None)
    assert replace(done, local=replace(done.local, optimizer=optimizer)) == chosen


def test_objectives_without_an_estimate_need_a_rate(two_classes):
    class Unknown:
        pass

    data = two_classes()
    chosen = build("bmuf")
    source = Shards(data, chosen.partition, 4, 0)
    with pytest.raises(OptionError, match=r"bmuf: give a learning rate .* for Unknown"):
        with_learning_rate(chosen, Unknown(), data, source, 4)
    given = build("bmuf", {"lr": 0.1})
    assert with_learning_rate(given, Unknown(), data, source, 4) is given


def test_online_batches_count_by_their_size():
    stream = LogisticStream(n_features=3)
    sample = stream.draw(np.random.default_rng(0), 2000)
    chosen = build("ssgd", {"batch_size": 8})
    done = with_learning_rate(chosen, logistic(), sample, Online(stream, 0), 4)
    assert rate_of(done) == pytest.approx(base_rate(logistic(), sample, 32))


def test_the_rate_is_the_same_whenever_it_is_estimated(two_classes):
    assert len({base_rate(logistic(), two_classes(), 7) for _ in range(5)}) == 1


def test_a_run_does_not_depend_on_the_number_of_blas_threads():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12_000, 60))
    data = make_dataset(X, (X[:, 0] + rng.normal(size=12_000) > 0).astype(int))
    shas = set()
    for threads in (1, 2, 4):
        with threadpool_limits(threads, user_api="blas"):
            shas.add(fit("ssgd", "logistic", data, rounds=2, workers=2).model.sha256)
    assert len(shas) == 1


def test_a_scaled_problem_gets_a_scaled_rate(two_classes):
    data = two_classes()
    larger = make_dataset(10 * data.X, data.y)
    ratio = base_rate(LinearObjective(), data, 4) / base_rate(LinearObjective(), larger, 4)
    assert 20 < ratio <= 100


def test_a_rate_of_zero_is_no_rate():
    with pytest.raises(OptionError, match="lr should be greater than 0"):
        SGD(0.0)
    assert MiniBatch().fraction(40) == pytest.approx(0.1)
