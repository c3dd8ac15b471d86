"""The field's table of algorithms and the engines, printed from the code."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from hemiola import engines
from hemiola.algorithm import Algorithm
from hemiola.algorithms.registry import COMPONENTS, RECIPES, Recipe, build
from hemiola.describe import describe


def short(part: Any) -> str:
    """A component in a few words: its type and the fields that differ from their defaults.

    >>> from hemiola.local import LocalSteps
    >>> from hemiola.optim import SGD
    >>> short(LocalSteps(SGD(), steps=5))
    'LocalSteps(SGD, steps=5)'
    """
    if not is_dataclass(part):
        return str(part)
    inside = []
    for field in fields(part):
        value = getattr(part, field.name)
        if value == _default(field):
            continue
        inside.append(short(value) if is_dataclass(value) else f"{field.name}={value}")
    name = type(part).__name__
    return f"{name}({', '.join(inside)})" if inside else name


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def supported_engines(algorithm: Algorithm) -> list[str]:
    """The engines that have the algorithm's discipline."""
    discipline = type(algorithm.communicate)
    return [n for n in engines.names() if discipline in engines.engine_class(n)().supports]


def algorithm_rows() -> list[dict[str, Any]]:
    """One row an algorithm, for the table and for JSON."""
    rows = []
    for name, recipe in RECIPES.items():
        algorithm = build(name)
        rows.append({
            "name": name,
            "local": short(algorithm.local),
            "partition": short(algorithm.partition),
            "communication": short(algorithm.communicate),
            "aggregation": short(algorithm.aggregate),
            "engines": supported_engines(algorithm),
            "paper": recipe.paper,
            "summary": recipe.summary,
            "settings": describe(algorithm),
        })  # fmt: skip
    return rows


def engine_rows() -> list[dict[str, Any]]:
    """One row an engine."""
    rows = []
    for name in engines.names():
        engine = engines.engine_class(name)()
        doc = inspect.getdoc(type(engine)) or ""
        rows.append({
            "name": name,
            "disciplines": sorted(d.__name__ for d in engine.supports),
            "what": re.split(r"(?<=\.)\s", doc)[0],
            "options": {f.name: short(getattr(engine, f.name)) for f in fields(engine)},  # type: ignore[arg-type]
        })  # fmt: skip
    return rows


def option_rows(recipe: Recipe) -> list[tuple[str, str, str]]:
    """(option, default, choices) of an algorithm."""
    rows = []
    for name, parameter in recipe.parameters.items():
        default = parameter.default
        choices = ", ".join(COMPONENTS.get(name, ())) if name != "batch" else ""
        if name == "batch":
            rows.extend([
                ("batch_size", str(default.size), "a count, a fraction of the shard, or all"),
                ("draw", default.draw, "shuffled, replacement, bernoulli"),
            ])  # fmt: skip
            continue
        shown = type(default).__name__ if is_dataclass(default) else str(default)
        rows.append((name, shown, choices))
        if name == "optimizer":
            rows.append(("lr", "estimated from the data", "short for optimizer.lr"))
            rows.append(("schedule", "Constant", ", ".join(COMPONENTS["schedule"])))
    return rows


def documentation(recipe: Recipe) -> str:
    """The paper's equations and the recipe's own words."""
    module = inspect.getmodule(recipe.make)
    paper = inspect.getdoc(module) or ""
    own = (inspect.getdoc(recipe.make) or "").split(">>>")[0].rstrip()
    return f"{paper}\n\n{own}"
