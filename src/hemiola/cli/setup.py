"""From words on the command line to data, an objective and an engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from hemiola.algorithm import AnyAlgorithm, SharedMemoryAlgorithm
from hemiola.callbacks import Callback, EarlyStopping, TargetLoss, TimeLimit
from hemiola.contracts import Engine
from hemiola.data import Standardizer, load, split
from hemiola.dataset import Dataset
from hemiola.engines import engine_class
from hemiola.engines.simulator import Constant, LogNormal, Stragglers, Uniform
from hemiola.errors import CheckpointError, DataError, OptionError, nearest
from hemiola.objectives import LinearObjective
from hemiola.options import Choices, arguments, parse_options, unknown_option
from hemiola.training import make_objective, usual_engine

OBJECTIVES = ("auto", "logistic", "softmax", "squared", "hinge")
ROUNDS, PASSES = 300, 20
ENGINE_CHOICES: Choices = {
    "compute": {
        "constant": Constant,
        "uniform": Uniform,
        "lognormal": LogNormal,
        "stragglers": Stragglers,
    }
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
    engine_options: Sequence[str]

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
        names = ("data", "objective", "l2", "test_size", "split_seed", "test_data", "label")
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
        return cls(**{**plain, **known, "engine_options": ()})

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
    """Data ready to train on, and the scaling that made them so. ``test`` may be None."""

    train: Dataset
    test: Dataset | None
    standardizer: Standardizer | None
    objective: LinearObjective

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


def prepare(setup: Setup) -> Prepared:
    """Read, split and scale the data, and choose the objective."""
    if setup.objective not in OBJECTIVES:
        hint = nearest(setup.objective, OBJECTIVES)
        raise OptionError(f"there is no objective {setup.objective!r}; {hint}")
    train, test = _parts(setup)
    standardizer = Standardizer.fit(train) if setup.standardize else None
    if standardizer is not None:
        train = standardizer.apply(train)
        test = None if test is None else standardizer.apply(test)
    objective = make_objective(setup.objective, train, setup.l2)
    objective.check(train)
    return Prepared(train, test, standardizer, objective)


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


def build_engine(name: str, options: Iterable[str]) -> Engine:
    """An engine by name, with its ``-e key=value`` options.

    >>> build_engine("simulator", ["compute=lognormal", "compute.sigma=0.7"]).compute
    LogNormal(mean=0.001, sigma=0.7)
    """
    made: Any = engine_class(name)
    engine = made()
    defaults = {field.name: getattr(engine, field.name) for field in fields(engine)}
    given = parse_options(options)
    for path in given:
        if path.split(".")[0] not in defaults:
            if not defaults:
                raise OptionError(f"engine {name} has no options; leave out -e {path}=...")
            raise unknown_option(f"engine {name}", path, defaults)
    configured: Engine = made(**arguments(given, defaults, ENGINE_CHOICES))
    return configured


def count_rounds(setup: Setup, algorithm: AnyAlgorithm, train: Dataset) -> int:
    """The rounds to train for."""
    shared = isinstance(algorithm, SharedMemoryAlgorithm)
    if setup.epochs is None:
        usual = PASSES if shared else ROUNDS
        return usual if setup.rounds is None else setup.rounds
    if setup.rounds is not None:
        raise OptionError("--rounds and --epochs both say how long to train; give one of them.")
    from hemiola.epochs import rounds_for
    from hemiola.partition import Shards, Whole

    partition = Whole() if isinstance(algorithm, SharedMemoryAlgorithm) else algorithm.partition
    source = Shards(train, partition, 1 if shared else setup.workers, 0)
    return rounds_for(algorithm, source, setup.workers, setup.epochs)
