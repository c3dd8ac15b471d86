"""From words on the command line to data, an objective and an engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from hemiola.algorithm import AnyAlgorithm, SharedMemoryAlgorithm
from hemiola.callbacks import Callback, EarlyStopping, TargetLoss, TimeLimit
from hemiola.contracts import Engine, Objective
from hemiola.data import DiskShards, Standardizer, load, open_shards, read_ratings, split
from hemiola.data.manifest import is_shards
from hemiola.dataset import Dataset
from hemiola.engines import engine_class
from hemiola.engines.simulator import (
    Constant,
    Equal,
    Factors,
    Flat,
    LogNormal,
    LogNormalSpeed,
    Stragglers,
    Tiers,
    Uniform,
)
from hemiola.errors import CheckpointError, DataError, OptionError, nearest
from hemiola.faults import Faults, check_faults, parse_fault
from hemiola.options import Choices, arguments, parse_options, unknown_option
from hemiola.training import (
    FACTORIZATION,
    NETWORKS,
    is_factorization,
    is_network,
    make_objective,
    source_of,
    usual_engine,
)

OBJECTIVES = ("auto", "logistic", "softmax", "squared", "hinge")
ROUNDS = 300
PASSES = 20
TEST_ROWS = 10_000
"""How many rows of shards on disk are tested on."""
ENGINE_CHOICES: Choices = {
    "compute": {
        "constant": Constant,
        "uniform": Uniform,
        "lognormal": LogNormal,
        "stragglers": Stragglers,
    },
    "speed": {"equal": Equal, "lognormal": LogNormalSpeed, "factors": Factors},
    "network": {"flat": Flat, "tiers": Tiers},
}


@dataclass(frozen=True)
class Setup:
    """What the commands that train have in common, as given."""

    data: str
    engine: str | None
    workers: int
    rounds: int | None
    epochs: float | None
    objective: str
    l1: float | None
    l2: float | None
    test_size: float
    split_seed: int
    test_data: str | None
    label: str | None
    standardize: bool
    eval_every: int | None
    keep_best: bool
    target_loss: float | None
    time_limit: float | None
    patience: int | None
    engine_options: Sequence[str] | None
    faults: Sequence[str] | None = None

    def with_engine(self, algorithms: Iterable[AnyAlgorithm]) -> Setup:
        """With the usual engine for these algorithms, if none was named."""
        return self if self.engine else replace(self, engine=usual_engine(algorithms))

    @property
    def engine_name(self) -> str:
        """The engine, which is known by now."""
        assert self.engine is not None
        return self.engine

    def origin(self) -> dict[str, Any]:
        """What says which data a run is on: enough for :func:`prepare`."""
        names = ("data", "objective", "l1", "l2", "test_size", "split_seed", "test_data", "label")
        return {name: getattr(self, name) for name in (*names, "standardize")}

    @classmethod
    def of_origin(cls, origin: dict[str, Any]) -> Setup:
        """The set-up of a recorded run, as far as its data go.

        Raises :class:`CheckpointError` when the recorder did not know them.
        """
        if "data" not in origin:
            raise CheckpointError(
                "the trace does not say which data it is of; it was recorded "
                "from Python: use hemiola.replay.replay(trace, data)."
            )
        rest = {field.name: None for field in fields(cls)}
        plain = {**rest, "engine": "serial", "workers": 1, "keep_best": False}
        known = {key: value for key, value in origin.items() if key in rest}
        return cls(**{**plain, **known, "engine_options": (), "faults": ()})

    def befalling(self) -> Faults:
        """The faults that were ordered."""
        return check_faults(map(parse_fault, self.faults or ()), self.workers)

    def callbacks(self) -> list[Callback]:
        """New ones that stop a run as asked for."""
        made: list[Callback] = []
        if self.target_loss is not None:
            made.append(TargetLoss(self.target_loss))
        if self.time_limit is not None:
            made.append(TimeLimit(self.time_limit))
        if self.patience is not None:
            made.append(EarlyStopping(self.patience))
        return made


@dataclass(frozen=True, eq=False)
class Prepared:
    """Data ready to train on, and the scaling that made them so. ``test`` may be None.

    ``train`` is a :class:`Dataset`, or :class:`DiskShards` if asked for with ``from_disk``.
    """

    train: Any
    test: Dataset | None
    standardizer: Standardizer | None
    objective: Objective

    def describe(self) -> dict[str, Any]:
        """Plain data for the JSON file."""
        return {
            "name": self.train.name,
            "train": len(self.train),
            "test": 0 if self.test is None else len(self.test),
            "features": self.train.n_features,
            "sparse": self.train.is_sparse,
            "classes": None if self.train.classes is None else self.train.classes.tolist(),
            "standardized": self.standardizer is not None,
        }

    def words(self) -> str:
        """The same in one line."""
        about = self.describe()
        classes = "" if about["classes"] is None else f", {len(about['classes'])} classes"
        held_out = f" and {about['test']:,} test" if about["test"] else ""
        return (
            f"{about['name']}: {about['train']:,} training{held_out} samples, "
            f"{about['features']:,} features{classes}"
        )


def prepare(setup: Setup, from_disk: bool = False) -> Prepared:
    """Read, split and scale the data, and choose the objective.

    Shards are loaded into memory, unless they may be used ``from_disk``.
    """
    if is_factorization(setup.objective):
        return _prepare_ratings(setup)
    if setup.objective not in OBJECTIVES and not is_network(setup.objective):
        hint = nearest(setup.objective, (*OBJECTIVES, FACTORIZATION, *NETWORKS))
        raise OptionError(f"there is no objective {setup.objective!r}; {hint}")
    if from_disk and is_shards(setup.data):
        return _prepare_shards(setup)
    train, test = _parts(setup)
    standardizer = Standardizer.fit(train) if setup.standardize else None
    if standardizer is not None:
        train = standardizer.apply(train)
        test = None if test is None else standardizer.apply(test)
    objective = make_objective(setup.objective, train, setup.l2, setup.l1 or 0.0)
    objective.check(train)
    return Prepared(train, test, standardizer, objective)


def _prepare_ratings(setup: Setup) -> Prepared:
    """A table of user, item and rating. All its users and items get factors, also those of whom
    all ratings are held out."""
    if setup.label is not None or setup.test_data is not None:
        raise OptionError(
            "ratings are a table of user, item and rating, of which a share is held out with "
            "--test-size; leave out --label and --test-data."
        )
    data = read_ratings(setup.data).data
    train, test = (
        (data, None) if not setup.test_size else split(data, setup.test_size, setup.split_seed)
    )
    whole: Any = make_objective(setup.objective, data, setup.l2, setup.l1 or 0.0)
    objective = replace(whole, mean=float(train.y.mean()))
    return Prepared(train, test, None, objective)


def _prepare_shards(setup: Setup) -> Prepared:
    """The same in bounded memory: the test part is a sample of 10,000 rows."""
    if setup.label is not None:
        raise OptionError(f"{setup.data}: shards have their labels already; leave out --label.")
    regression = setup.objective == "squared"
    shards = open_shards(setup.data)
    shards = shards.as_regression() if regression else shards
    test: Dataset | None = None
    held_out: DiskShards | None = None
    if setup.test_data is not None:
        test = _test_for(shards, setup.test_data, regression)
    elif setup.test_size > 0:
        shards, held_out = shards.split(setup.test_size)
    shards = shards.standardized() if setup.standardize else shards
    if held_out is not None:
        test = replace(held_out, standardizer=shards.standardizer).sample(TEST_ROWS)
    elif test is not None and shards.standardizer is not None:
        test = shards.standardizer.apply(test)
    sample = shards.sample(TEST_ROWS)
    l2 = setup.l2
    if l2 is None and not setup.l1 and not is_network(setup.objective):
        l2 = 1 / len(shards)
    objective = make_objective(setup.objective, sample, l2, setup.l1 or 0.0)
    objective.check(sample)
    return Prepared(shards, test, shards.standardizer, objective)


def _test_for(shards: DiskShards, source: str, regression: bool) -> Dataset:
    """The test data that were named, for a model of these shards."""
    if is_shards(source):
        opened = open_shards(source)
        test = (opened.as_regression() if regression else opened).sample(TEST_ROWS)
    else:
        test = load(source, regression=regression)
        if test.is_sparse and test.n_features < shards.n_features:
            test = load(source, regression=regression, n_features=shards.n_features)
    if test.n_features != shards.n_features:
        raise DataError(
            f"{source}: has {test.n_features} features, the training data "
            f"{shards.n_features}; they must be the same columns."
        )
    return with_classes(test, shards.classes)


def column(label: str | None) -> str | int | None:
    """A column by number, if the text is one, or else by name."""
    return int(label) if label is not None and label.isdigit() else label


def _parts(setup: Setup) -> tuple[Dataset, Dataset | None]:
    ask: dict[str, Any] = {
        "regression": setup.objective == "squared",
        "label": column(setup.label),
    }
    data = load(setup.data, **ask)
    if setup.test_data is None:
        if setup.test_size == 0:
            return data, None
        return split(data, setup.test_size, setup.split_seed)
    test = load(setup.test_data, **ask)
    if data.is_sparse and test.is_sparse and data.n_features != test.n_features:
        width = max(data.n_features, test.n_features)  # either may lack the last features
        data, test = (load(file, **ask, n_features=width) for file in (setup.data, setup.test_data))
    if data.n_features != test.n_features:
        raise DataError(
            f"{setup.test_data}: has {test.n_features} features, the training data "
            f"{data.n_features}; they must be the same columns."
        )
    return data, with_classes(test, data.classes)


def with_classes(data: Dataset, classes: Any) -> Dataset:
    """The data with these class numbers, if they have no class beyond them; else as they are."""
    if data.classes is None or classes is None or data.classes.dtype.kind != classes.dtype.kind:
        return data
    if not np.isin(data.classes, classes).all():
        return data
    return replace(data, y=np.searchsorted(classes, data.classes)[data.y], classes=classes)


def build_engine(name: str, options: Iterable[str] | None) -> Engine:
    """An engine by name, with its ``-e key=value`` options.

    >>> build_engine("simulator", ["compute=lognormal", "compute.sigma=0.7"]).compute
    LogNormal(mean=0.001, sigma=0.7)
    """
    made: Any = engine_class(name)
    engine = made()
    defaults = {field.name: getattr(engine, field.name) for field in fields(engine)}
    given = parse_options(options or ())
    for path in given:
        if path.split(".")[0] not in defaults:
            if not defaults:
                raise OptionError(f"engine {name} has no options; leave out -e {path}=...")
            raise unknown_option(f"engine {name}", path, defaults)
    configured: Engine = made(**arguments(given, defaults, ENGINE_CHOICES))
    return configured


def count_rounds(setup: Setup, algorithm: AnyAlgorithm, train: Dataset | DiskShards) -> int:
    """The rounds to train for; passes over the data, where threads share memory."""
    if setup.epochs is None:
        usual = PASSES if isinstance(algorithm, SharedMemoryAlgorithm) else ROUNDS
        return usual if setup.rounds is None else setup.rounds
    if setup.rounds is not None:
        raise OptionError("--rounds and --epochs both say how long to train; give one of them.")
    from hemiola.epochs import rounds_for

    source = source_of(algorithm, train, setup.workers, 0)
    return rounds_for(algorithm, source, setup.workers, setup.epochs)
