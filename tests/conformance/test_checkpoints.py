"""A run that was stopped and resumed is, bit for bit, the run that was never stopped."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from hemiola.algorithms.registry import RECIPES, build
from hemiola.communicate import Synchronous
from hemiola.engines.serial import Serial
from hemiola.engines.simulator import LogNormal, Simulator
from hemiola.objectives import logistic
from hemiola.training import fit
from hemiola.types import copy_state

UNEVEN = Simulator(LogNormal(1e-3, 1.0), latency=1e-3, slow_share=0.4, slow_factor=3.0)
ENGINES = ["serial", "simulator", UNEVEN]
VARIANTS = [
    ("ssp", {"s": 0}),
    ("ssp", {"s": 0, "view": "strict"}),
    ("ssp", {"s": 2, "view": "strict"}),
    ("adadelay", {"form": "scalar"}),
    ("dc-asgd", {"variant": "c"}),
    ("dc-asgd", {"mean_square": "worker"}),
    ("downpour", {"n_push": 1, "n_fetch": 1}),
    ("downpour", {"n_push": 1, "n_fetch": 3}),
    ("downpour", {"optimizer": "adam"}),
    ("sandblaster", {"portions": 7, "shards": 2, "memory": 2}),
    ("asgd", {"shards": 3}),
    ("easgd-async", {"shards": 3}),
    ("ssp", {"s": 1, "view": "strict", "shards": 2}),
    ("adaptive-revision", {"shards": 2}),
    ("bmuf", {"shards": 2}),
    ("bmuf-adam", {"shards": 2, "eta": 0.5, "zeta": 0.7}),
    ("diloco", {"shards": 2, "server": "sgd"}),
    ("fedadam", {"server": "yogi"}),
    ("fedadam", {"server": "adagrad"}),
    ("slowmo", {"schedule": "inverse-sqrt", "carry": "average"}),
    ("streaming-diloco", {"fragments": 3, "pattern": "strided", "delay": 0, "mix": 0}),
]
OPTIMIZERS = ["sgd", "heavy-ball", "nesterov", "adagrad", "adam", "adamw"]
HAS_OPTIMIZER = [name for name, recipe in RECIPES.items() if "optimizer" in recipe.parameters]
CHOICES = [
    (name, optimizer)
    for name in HAS_OPTIMIZER
    for optimizer in OPTIMIZERS
    if name != "bmuf-adam" or optimizer.startswith("adam")
]


def records(result, *, virtual):
    """Everything but the wall-clock times."""
    timed = () if virtual else ("seconds", "waiting")
    return [
        {key: value for key, value in asdict(record).items() if key not in timed}
        for record in result.history.records
    ]


def check_resume(chosen, data, place, *, first="serial", second=None, at=(3, 8), **options):
    """Stop after ``at[0]`` rounds on one engine, go on to ``at[1]`` on another."""
    second = first if second is None else second
    options = {"eval_every": 1, "workers": 4} | options
    whole = fit(chosen, "logistic", data, engine=second, rounds=at[1], **options)
    fit(chosen, "logistic", data, engine=first, rounds=at[0], checkpoint=place, **options)
    resumed = fit(
        chosen,
        "logistic",
        data,
        engine=second,
        rounds=at[1],
        checkpoint=place,
        resume=True,
        **options,
    )
    assert resumed.model.sha256 == whole.model.sha256
    virtual = first == second and not isinstance(first, str)
    assert records(resumed, virtual=virtual) == records(whole, virtual=virtual)
    assert resumed.history.staleness == whole.history.staleness
    assert resumed.history.worker_updates == whole.history.worker_updates
    return resumed


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_every_algorithm_resumes_bit_for_bit(
    any_recipe, algorithm, two_classes, tmp_path, engine, csr
):
    data = two_classes(60, csr=csr)
    at = (1, 1) if any_recipe == "one-shot-averaging" else (3, 8)
    check_resume(algorithm(any_recipe), data, tmp_path, first=engine, at=at)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_variants_resume_bit_for_bit(algorithm, two_classes, tmp_path, engine, name, options):
    check_resume(algorithm(name, **options), two_classes(60), tmp_path, first=engine)


def test_synchronous_algorithms_resume_on_threads(
    synchronous_recipe, algorithm, two_classes, tmp_path
):
    chosen = algorithm(synchronous_recipe)
    if chosen.communicate.rounds is not None:
        chosen = replace(chosen, communicate=Synchronous())
    for first, second in [("serial", "threads"), ("threads", "serial"), ("threads", UNEVEN)]:
        place = tmp_path / f"{first}-{second if isinstance(second, str) else 'simulator'}"
        check_resume(chosen, two_classes(60), place, first=first, second=second)


@pytest.mark.parametrize(("name", "optimizer"), CHOICES)
def test_every_optimiser_resumes_bit_for_bit(algorithm, two_classes, tmp_path, name, optimizer):
    chosen = algorithm(name, optimizer=optimizer)
    at = (1, 1) if name == "one-shot-averaging" else (3, 8)
    for engine in ("serial", "simulator"):
        check_resume(chosen, two_classes(60), tmp_path / engine, first=engine, at=at)


@pytest.mark.parametrize("carry", ["keep", "reset", "average"])
@pytest.mark.parametrize("optimizer", ["sgd", "heavy-ball", "adagrad", "adam", "adamw"])
@pytest.mark.parametrize("name", ["model-averaging", "bmuf", "fedavg"])
def test_carried_optimiser_states_resume_bit_for_bit(
    algorithm, two_classes, tmp_path, name, optimizer, carry
):
    chosen = algorithm(name, optimizer=optimizer, carry=carry)
    check_resume(chosen, two_classes(60), tmp_path)


@pytest.mark.parametrize("schedule", ["step", "inverse-sqrt", "cosine", "warm-up"])
def test_schedules_go_on_where_they_were(algorithm, two_classes, tmp_path, schedule):
    for name in ("bmuf", "asgd", "ssgd"):
        chosen = algorithm(name, schedule=schedule)
        check_resume(chosen, two_classes(60), tmp_path / name)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_any_number_of_workers_resumes(any_recipe, algorithm, two_classes, tmp_path, workers):
    at = (1, 1) if any_recipe == "one-shot-averaging" else (2, 5)
    check_resume(algorithm(any_recipe), two_classes(60), tmp_path, workers=workers, at=at)


def test_a_run_may_be_resumed_again_and_again(any_recipe, algorithm, two_classes, tmp_path):
    chosen, data = algorithm(any_recipe), two_classes(60)
    if isinstance(chosen.communicate, Synchronous):
        chosen = replace(chosen, communicate=replace(chosen.communicate, rounds=None))
    for rounds in range(1, 7):
        result = fit(
            chosen,
            "logistic",
            data,
            rounds=rounds,
            checkpoint=tmp_path,
            resume=rounds > 1,
            eval_every=1,
            keep_best=True,
        )
    whole = fit(chosen, "logistic", data, rounds=6, eval_every=1, keep_best=True)
    assert result.model.sha256 == whole.model.sha256
    assert records(result, virtual=False) == records(whole, virtual=False)


def test_resuming_a_finished_run_changes_nothing(any_recipe, algorithm, two_classes, tmp_path):
    chosen, data = algorithm(any_recipe), two_classes(60)
    first, again = (
        fit(chosen, "logistic", data, rounds=4, checkpoint=tmp_path, resume=resume)
        for resume in (False, True)
    )
    assert again.model.sha256 == first.model.sha256
    assert again.history == first.history


def test_asynchronous_threads_resume_without_losing_an_update(
    asynchronous_recipe, algorithm, two_classes, tmp_path
):
    chosen, data = algorithm(asynchronous_recipe), two_classes(60)
    options = {"engine": "threads", "workers": 3, "checkpoint": tmp_path}
    fit(chosen, "logistic", data, rounds=5, **options)
    history = fit(chosen, "logistic", data, rounds=20, resume=True, **options).history
    assert history.last.updates == sum(history.worker_updates) == sum(history.staleness) == 60


def test_the_checkpoint_does_not_change_the_run(any_recipe, algorithm, two_classes, tmp_path):
    chosen, data = algorithm(any_recipe), two_classes(60)
    for engine in ("serial", UNEVEN):
        plain = fit(chosen, "logistic", data, rounds=5, engine=engine)
        kept = fit(chosen, "logistic", data, rounds=5, engine=engine, checkpoint=tmp_path)
        assert plain.model.sha256 == kept.model.sha256


def test_a_snapshot_is_a_copy(any_recipe, algorithm, two_classes, run):
    """What happens after a snapshot was taken does not reach it, nor the other way round."""
    chosen = algorithm(any_recipe, lr=0.1)
    job = run(chosen, logistic(0.01), two_classes(60), workers=3, updates=1).job
    events = Serial().run(job)
    snapshot = next(events).snapshot()
    before = copy_state(snapshot)
    for _ in range(3):
        later = chosen.aggregate.model(next(events).server).copy()
    assert_equal_nests(snapshot, before)
    again = Serial().run(job, snapshot)
    for _ in range(3):
        resumed = chosen.aggregate.model(next(again).server)
    assert (resumed == later).all()
    assert_equal_nests(snapshot, before)


def assert_equal_nests(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal_nests(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal_nests(x, y)
    else:
        assert (a is None and b is None) or (a == b).all() if hasattr(a, "all") else a == b


def test_recipes_are_what_is_tested_here():
    assert {build(name).name for name in RECIPES} == set(RECIPES)
