"""From words on the command line to data, algorithms and engines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from hemiola.algorithm import Algorithm
from hemiola.algorithms.registry import build, path_of, recipe
from hemiola.contracts import Engine
from hemiola.data import Standardizer, load, split
from hemiola.dataset import Dataset
from hemiola.engines import engine_class
from hemiola.engines.simulator import Constant, LogNormal, Stragglers, Uniform
from hemiola.epochs import rounds_for
from hemiola.errors import OptionError
from hemiola.objectives import LinearObjective
from hemiola.options import arguments, parse_options, unknown_option
from hemiola.partition import Shards
from hemiola.training import make_objective

TIMES = {
    "constant": Constant,
    "uniform": Uniform,
    "lognormal": LogNormal,
    "stragglers": Stragglers,
}
OBJECTIVES = ("auto", "logistic", "softmax", "squared", "hinge")


@dataclass(frozen=True)
class Setup:
    """What the commands that train have in common, as given."""

    data: str
    engine: str
    workers: int
    rounds: int
    epochs: float | None
    objective: str
    l2: float | None
    test_size: float
    split_seed: int
    test_data: str | None
    label: str | None
    standardize: bool
    eval_every: int | None
    engine_options: list[str]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Data ready to train on, and the scaling that made them so."""

    train: Dataset
    test: Dataset
    standardizer: Standardizer | None
    objective: LinearObjective

    def describe(self) -> dict[str, Any]:
        """Plain data for the JSON file."""
        return {
            "name": self.train.name,
            "train": len(self.train),
            "test": len(self.test),
            "features": self.train.n_features,
            "classes": None if self.train.classes is None else self.train.classes.tolist(),
            "standardized": self.standardizer is not None,
        }


def prepare(setup: Setup) -> Prepared:
    """Read, split and scale the data, and choose the objective."""
    if setup.objective not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise OptionError(f"there is no objective {setup.objective!r}; known are: {known}")
    label = int(setup.label) if setup.label and setup.label.isdigit() else setup.label
    regression = setup.objective == "squared"
    data = load(setup.data, regression=regression, label=label)
    if setup.test_data is None:
        train, test = split(data, setup.test_size, setup.split_seed)
    else:
        sparse_features = data.n_features if data.is_sparse else None
        train, test = (
            data,
            load(setup.test_data, regression=regression, label=label, n_features=sparse_features),
        )
    standardizer = Standardizer.fit(train) if setup.standardize else None
    if standardizer is not None:
        train, test = standardizer.apply(train), standardizer.apply(test)
    objective = make_objective(setup.objective, train, setup.l2)
    objective.check(train)
    return Prepared(train, test, standardizer, objective)


def build_engine(name: str, options: Iterable[str]) -> Engine:
    """An engine by name, with its ``-e key=value`` options."""
    engine = engine_class(name)()
    defaults = {field.name: getattr(engine, field.name) for field in fields(engine)}  # type: ignore[arg-type]
    given = parse_options(options)
    for path in given:
        if path.split(".")[0] not in defaults:
            raise unknown_option(f"engine {name}", path, defaults)
    return type(engine)(**{**defaults, **arguments(given, defaults, {"compute": TIMES})})


def build_algorithms(names: list[str], options: Iterable[str]) -> dict[str, Algorithm]:
    """Algorithms by name. An option goes to those that have it; ``bmuf.eta=0.9`` to one of them.

    Raises :class:`OptionError` when none has it.
    """
    recipes = {name: recipe(name) for name in names}
    chosen: dict[str, dict[str, str]] = {name: {} for name in names}
    for key, value in parse_options(options).items():
        head, _, rest = key.partition(".")
        targets = {head: rest} if head in recipes and rest else dict.fromkeys(names, key)
        refusals = []
        for name, path in targets.items():
            try:
                path_of(recipes[name], path)
                chosen[name][path] = value
            except OptionError as error:
                refusals.append(error)
        if len(refusals) == len(targets):
            raise refusals[0]
    return {name: build(name, given) for name, given in chosen.items()}


def count_rounds(setup: Setup, algorithm: Algorithm, train: Dataset) -> int:
    """The rounds to train for."""
    if setup.epochs is None:
        return setup.rounds
    source = Shards(train, algorithm.partition, setup.workers, 0)
    return rounds_for(algorithm, source, setup.workers, setup.epochs)
