"""Algorithms by name, options as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hemiola.aggregate import Sharded
from hemiola.algorithm import MiniBatch
from hemiola.algorithms import (
    adadelay,
    adaptive_revision,
    admm,
    admm_async,
    admm_sharing,
    asgd,
    bmuf,
    bmuf_adam,
    cocoa,
    dc_asgd,
    diloco,
    distbelief,
    ditto,
    downpour,
    eamsgd,
    eamsgd_async,
    easgd,
    easgd_async,
    fedadam,
    fedavg,
    fedprox,
    lbfgs,
    model_averaging,
    one_shot_averaging,
    post_local_sgd,
    sandblaster,
    sdca,
    slowmo,
    ssgd,
    ssp,
    streaming_diloco,
)
from hemiola.algorithms.registry import COMPONENTS, RECIPES, build, recipe
from hemiola.errors import OptionError
from hemiola.optim import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Cosine,
    FedYogi,
    HeavyBall,
    Nesterov,
    Step,
    WarmUp,
)
from hemiola.partition import ByLabel, Dirichlet, RandomSampling, ShuffleSplit


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("ssgd", ssgd),
        ("model-averaging", model_averaging),
        ("one-shot-averaging", one_shot_averaging),
        ("fedavg", fedavg),
        ("bmuf", bmuf),
        ("bmuf-adam", bmuf_adam),
        ("diloco", diloco),
        ("distbelief", distbelief),
        ("ditto", ditto),
        ("fedadam", fedadam),
        ("fedprox", fedprox),
        ("post-local-sgd", post_local_sgd),
        ("slowmo", slowmo),
        ("streaming-diloco", streaming_diloco),
        ("easgd", easgd),
        ("eamsgd", eamsgd),
        ("admm", admm),
        ("asgd", asgd),
        ("admm-async", admm_async),
        ("admm-sharing", admm_sharing),
        ("ssp", ssp),
        ("easgd-async", easgd_async),
        ("eamsgd-async", eamsgd_async),
        ("adadelay", adadelay),
        ("adaptive-revision", adaptive_revision),
        ("dc-asgd", dc_asgd),
        ("downpour", downpour),
        ("sandblaster", sandblaster),
        ("cocoa", cocoa),
        ("lbfgs", lbfgs),
        ("sdca", sdca),
    ],
)
def test_a_name_alone_is_the_recipe_with_its_defaults(name, make):
    assert build(name) == make()
    assert build(name).name == name


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_names_its_paper_and_explains_itself(name):
    chosen = recipe(name)
    assert chosen.name == name
    assert any(character.isdigit() for character in chosen.paper)
    assert len(chosen.summary) > 20 and not chosen.summary.endswith(".")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("bmuf", {"steps": "5"}, bmuf(steps=5)),
        ("bmuf", {"eta": "none"}, bmuf(eta=None)),
        ("bmuf", {"eta": "0.5", "nesterov": "false"}, bmuf(eta=0.5, nesterov=False)),
        ("bmuf", {"lr": "0.1"}, bmuf(optimizer=SGD(0.1))),
        ("bmuf", {"optimizer": "adam"}, bmuf(optimizer=Adam())),
        ("bmuf", {"lr": "0.1", "optimizer": "adam"}, bmuf(optimizer=Adam(0.1))),
        ("bmuf", {"optimizer.lr": "0.1", "optimizer": "adam"}, bmuf(optimizer=Adam(0.1))),
        (
            "bmuf",
            {"optimizer": "heavy-ball", "momentum": "0.5"},
            bmuf(optimizer=HeavyBall(momentum=0.5)),
        ),
        ("bmuf", {"batch_size": "32"}, bmuf(batch=MiniBatch(32))),
        ("bmuf", {"batch_size": "0.25"}, bmuf(batch=MiniBatch(0.25))),
        ("bmuf", {"batch_size": "all"}, bmuf(batch=MiniBatch(None))),
        ("bmuf", {"draw": "bernoulli"}, bmuf(batch=MiniBatch(0.1, "bernoulli"))),
        ("bmuf", {"partition": "dirichlet"}, bmuf(partition=Dirichlet())),
        (
            "bmuf",
            {"partition": "dirichlet", "partition.alpha": "0.3"},
            bmuf(partition=Dirichlet(0.3)),
        ),
        (
            "ssgd",
            {"partition": "by-label", "partition.pieces": 3},
            ssgd(partition=ByLabel(3)),
        ),
        ("ssgd", {"partition.reshuffle_every": "2"}, ssgd(partition=ShuffleSplit(2))),
        (
            "ssgd",
            {"partition": "random-sampling", "partition.capacity": "9"},
            ssgd(partition=RandomSampling(9)),
        ),
        ("ssgd", {"schedule": "step"}, ssgd(SGD(schedule=Step()))),
        (
            "ssgd",
            {"schedule": "step", "schedule.every": "7"},
            ssgd(SGD(schedule=Step(every=7))),
        ),
        ("ssgd", {"optimizer.schedule": "cosine"}, ssgd(SGD(schedule=Cosine()))),
        ("ssgd", {"schedule": "warm-up", "schedule.steps": 9}, ssgd(SGD(schedule=WarmUp(9)))),
        ("ssgd", {"optimizer": Adam(0.5)}, ssgd(Adam(0.5))),
        ("easgd", {"lr": "0.2", "period": 4}, easgd(lr=0.2, period=4)),
        ("eamsgd", {"momentum": "0.5"}, eamsgd(momentum=0.5)),
        ("fedavg", {"participation": "0.3", "epochs": "2"}, fedavg(0.3, 2)),
        ("fedavg", {"carry": "average"}, fedavg(carry="average")),
        ("ssp", {"s": "0", "view": "strict", "lr": "0.1"}, ssp(0, "strict", SGD(0.1))),
        ("easgd-async", {"alpha": "0.2", "lr": "0.1"}, easgd_async(0.2, lr=0.1)),
        ("eamsgd-async", {"momentum": "0.5"}, eamsgd_async(momentum=0.5)),
        ("adadelay", {"form": "scalar", "c": "0.5"}, adadelay("scalar", c=0.5)),
        ("adaptive-revision", {"lr": "0.5"}, adaptive_revision(0.5)),
        ("dc-asgd", {"variant": "c", "lambda0": "1"}, dc_asgd("c", 1.0)),
        ("downpour", {"n_push": "2", "n_fetch": "4"}, downpour(2, 4)),
        (
            "downpour",
            {"lr": "0.1", "optimizer.lr": "0.2"},
            downpour(optimizer=Adagrad(0.2), lr=0.1),
        ),
        (
            "distbelief",
            {"partitions": "3", "shards": "4", "n_push": "2", "n_fetch": "4", "batch_size": "8"},
            distbelief(3, 4, 2, 4, batch=MiniBatch(8)),
        ),
        ("sandblaster", {"portions": "8", "shards": "2"}, sandblaster(8, 2)),
        ("bmuf-adam", {"lr": "0.1", "zeta": "0.5"}, bmuf_adam(zeta=0.5, optimizer=Adam(0.1))),
        ("bmuf-adam", {"optimizer": "adamw"}, bmuf_adam(optimizer=AdamW())),
        (
            "slowmo",
            {"beta": "0.2", "schedule": "step"},
            slowmo(beta=0.2, optimizer=SGD(None, Step())),
        ),
        ("post-local-sgd", {"switch": "none"}, post_local_sgd(switch=None)),
        ("post-local-sgd", {"switch": "7", "steps": "32"}, post_local_sgd(32, 7)),
        ("diloco", {"server": "sgd", "server.lr": "1"}, diloco(server=SGD(1.0))),
        (
            "diloco",
            {"server.momentum": "0.5", "lr": "1"},
            diloco(50, Nesterov(0.7, 0.5), AdamW(1.0)),
        ),
        (
            "streaming-diloco",
            {"fragments": "2", "pattern": "strided"},
            streaming_diloco(fragments=2, pattern="strided"),
        ),
        ("fedadam", {"server": "yogi", "server.tau": "0.1"}, fedadam(server=FedYogi(tau=0.1))),
        ("fedadam", {"server": "momentum"}, fedadam(server=HeavyBall())),
        ("fedprox", {"mu": "1", "participation": "0.1"}, fedprox(1.0, 0.1)),
        ("ditto", {"lam": "0.1", "personal_epochs": "3"}, ditto(0.1, personal_epochs=3)),
        ("bmuf", {"shards": "3"}, replace(bmuf(), aggregate=Sharded(bmuf().aggregate, 3))),
    ],
)
def test_options_are_read(name, options, expected):
    assert build(name, options) == expected


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bmuff", {}, "no algorithm 'bmuff'; did you mean 'bmuf'"),
        (
            "zzz",
            {},
            "no algorithm 'zzz'; known are: adadelay, adaptive-revision, admm,",
        ),
        ("bmuf", {"etta": 1}, "bmuf has no option 'etta'; did you mean 'eta'"),
        ("bmuf", {"batchsize": 1}, "bmuf has no option 'batchsize'; did you mean 'batch_size'"),
        ("ssgd", {"steps": 1}, "ssgd has no option 'steps'"),
        ("easgd", {"optimizer": "adam"}, "easgd has no option 'optimizer'"),
        ("bmuf", {"optimizer": "adamm"}, "no optimizer 'adamm'; did you mean 'adam'"),
        ("bmuf", {"partition": "shuffle"}, "no partition 'shuffle'; did you mean 'shuffle-split'"),
        ("bmuf", {"schedule": "cosinus"}, "no schedule 'cosinus'; did you mean 'cosine'"),
        ("bmuf", {"momentum": 0.5}, "SGD has no option 'momentum'"),
        ("bmuf", {"partition.alpha": 1}, "ShuffleSplit has no option 'alpha'"),
        ("bmuf", {"steps.many": 1}, "steps is a plain value"),
        ("bmuf", {"steps": "many"}, "steps should be a valid integer, not 'many'"),
        ("bmuf", {"steps": 0}, "steps should be greater than or equal to 1, not 0"),
        ("bmuf", {"eta": 1.5}, "BlockMomentum: .*should be less than 1, not 1.5"),
        ("bmuf", {"lr": "-1"}, "SGD: lr should be greater than 0, not '-1'"),
        ("bmuf", {"lr": "fast"}, "SGD: lr should be a valid number, not 'fast'"),
        ("bmuf", {"batch_size": "2.5"}, "MiniBatch: size"),
        ("bmuf", {"draw": "sorted"}, "MiniBatch: draw"),
        ("fedavg", {"participation": 2}, "less than or equal to 1, not 2"),
        ("fedavg", {"carry": "lose"}, "LocalSteps: carry"),
        ("ssp", {"s": -1}, "Asynchronous: max_lead should be greater than or equal to 0, not -1"),
        ("ssp", {"optimizer": "adam", "view": "strict"}, "CompleteClocks: optimizer"),
        ("ssp", {"view": "both"}, "view"),
        ("adadelay", {"form": "matrix"}, "DelayAdaptive: form"),
        ("adaptive-revision", {"optimizer": "sgd"}, "adaptive-revision has no option 'optimizer'"),
        ("dc-asgd", {"variant": "b"}, "DelayCompensated: variant"),
        ("downpour", {"n_push": 2, "n_fetch": 3}, "n_fetch = 3 must be a multiple of n_push = 2"),
        ("distbelief", {"partitions": 0}, "Replica: partitions should be greater than or equal"),
        ("sandblaster", {"lr": 0.1}, "has no option 'lr'; known are: memory, portions, shards$"),
        ("sandblaster", {"portion": 3}, "no option 'portion'; did you mean 'portions'"),
        (
            "bmuf-adam",
            {"optimizer": "sgd"},
            "bmuf-adam carries the moments of adam and adamw, not SGD",
        ),
        ("slowmo", {"beta": 1}, "SlowMomentum: beta should be less than 1, not 1"),
        (
            "post-local-sgd",
            {"switch": -1},
            "PostLocal: switch should be greater than or equal",
        ),
        ("diloco", {"server": "adamw"}, "no server 'adamw'; did you mean 'adam'"),
        ("fedadam", {"server.beta1": 1}, "FedAdam: beta1 should be less than 1, not 1"),
        ("fedprox", {"mu": -1}, "Proximal: mu should be greater than or equal to 0, not -1"),
        ("streaming-diloco", {"shards": 2}, "FragmentServer cannot be sharded"),
        ("bmuf", {"shards": 0}, "Sharded: shards should be greater than or equal to 1, not 0"),
    ],
)
def test_mistakes_are_answered_with_the_nearest_match(name, options, message):
    with pytest.raises(OptionError, match=message):
        build(name, options)


def test_a_value_that_is_out_of_range_is_called_by_its_name():
    for options, name in (({"eta": 1.5}, "eta"), ({"zeta": 0}, "zeta"), ({"nesterov": 7}, "nest")):
        with pytest.raises(OptionError, match=f"BlockMomentum: {name}"):
            build("bmuf", options)
    with pytest.raises(OptionError, match="Synchronous: participation"):
        build("fedavg", {"participation": 2})
    with pytest.raises(OptionError, match="Elastic: alpha"):
        build("easgd", {"alpha": 2})


@pytest.mark.parametrize("value", [3, 0.5, ["adam"], True])
def test_a_component_that_is_none_is_refused(value):
    for key in ("optimizer", "partition", "batch"):
        with pytest.raises(OptionError):
            build("bmuf", {key: value})


def test_every_name_of_a_component_builds():
    for key, known in COMPONENTS.items():
        for name, kind in known.items():
            path = "optimizer.schedule" if key == "schedule" else key
            if key == "grouping":
                assert isinstance(build("hybrid", {key: name}).communicate.rule, kind)
                continue
            if key == "server":
                assert isinstance(build("diloco", {key: name}).aggregate.optimizer, kind)
                continue
            if key in ("solver", "balance", "stopping"):
                chosen = build("admm", {key: name})
                where = chosen.local if key == "solver" else chosen.aggregate
                assert isinstance(getattr(where, key), kind)
                continue
            chosen = build("bmuf", {path: name})
            parts = (
                chosen.partition,
                chosen.local.batch,
                chosen.local.optimizer,
                chosen.local.optimizer.schedule,
            )
            assert any(isinstance(part, kind) for part in parts)


def test_options_do_not_change_the_defaults():
    before = bmuf()
    build("bmuf", {"lr": 0.5, "batch_size": 3, "partition.reshuffle_every": 1})
    assert build("bmuf") == before == bmuf()
