"""The field's table of algorithms and the engines, read from the code."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Lt

from hemiola import engines
from hemiola.algorithms.registry import (
    COMPONENTS,
    RECIPES,
    SHARED,
    SHORT_NAMES,
    Recipe,
    build,
)
from hemiola.cli.recipes import supporting
from hemiola.cli.setup import ENGINE_CHOICES
from hemiola.communicate import POLICIES, Synchronous
from hemiola.describe import describe
from hemiola.options import Choices

_FROM_DATA = ("lr", "optimizer.lr")
_SIGNS: Mapping[type, str] = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


class Row(NamedTuple):
    """One option: ``type`` and ``default`` as text."""

    name: str
    type: str
    default: str


def short(part: Any) -> str:
    """A component in a few words: its type and the fields that differ from their defaults.

    >>> from hemiola.local import LocalSteps
    >>> from hemiola.optim import SGD
    >>> short(LocalSteps(SGD(), steps=5))
    'LocalSteps(SGD, steps=5)'
    """
    if not is_dataclass(part):
        return "none" if part is None else str(part)
    inside = []
    for field in fields(part):
        value = getattr(part, field.name)
        if value == _default(field):
            continue
        inside.append(short(value) if is_dataclass(value) else f"{field.name}={value}")
    name = type(part).__name__
    return f"{name}({', '.join(inside)})" if inside else name


def type_text(annotation: Any) -> str:
    """What may be given, in words.

    >>> type_text(Annotated[float, Gt(0)] | None), type_text(Literal["keep", "reset"])
    ('float > 0, none', 'keep, reset')
    """
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [text for item in inside[1:] for text in _bounds(item)]
        return " ".join([type_text(inside[0]), " and ".join(bounds)]).strip()
    if origin is tuple:
        return "numbers"
    if origin in (Union, types.UnionType):
        return ", ".join(type_text(item) for item in inside if get_origin(item) is not tuple)
    if origin is Literal:
        return ", ".join(str(item) for item in inside)
    return "none" if annotation is types.NoneType else getattr(annotation, "__name__", "")


def _bounds(item: Any) -> Iterator[str]:
    limits = list(item) if isinstance(item, Interval) else [item]
    for limit in limits:
        if sign := _SIGNS.get(type(limit)):
            yield f"{sign} {getattr(limit, type(limit).__name__.lower())}"


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
            "engines": supporting(algorithm),
            "paper": recipe.paper,
            "summary": recipe.summary,
            "settings": describe(algorithm),
        })  # fmt: skip
    return rows + [_shared_row(name, recipe) for name, recipe in SHARED.items()]


def _shared_row(name: str, recipe: Recipe) -> dict[str, Any]:
    """Threads that share memory have neither workers' messages nor a server."""
    algorithm: Any = build(name)
    return {
        "name": name,
        "local": short(algorithm.solver),
        "partition": "-",
        "communication": short(algorithm.communicate),
        "aggregation": "-",
        "engines": supporting(algorithm),
        "paper": recipe.paper,
        "summary": recipe.summary,
        "settings": describe(algorithm),
    }


def engine_rows() -> list[dict[str, Any]]:
    """One row an engine."""
    rows = []
    for name in engines.names():
        engine: Any = engines.engine_class(name)()
        about = (inspect.getdoc(inspect.getmodule(type(engine))) or "").partition(": ")[2]
        options = list(_field_rows(type(engine), ENGINE_CHOICES))
        rows.append({
            "name": name,
            "disciplines": sorted(d.__name__.lower() for d in engine.supports)[::-1],
            "what": _first_sentences(about or inspect.getdoc(type(engine)) or ""),
            "options": [row._asdict() for row in options],
        })  # fmt: skip
    return rows


def option_rows(recipe: Recipe) -> list[Row]:
    """The options of an algorithm, those of its rounds last; of components only those that have a
    short name."""
    hints = get_type_hints(recipe.make, include_extras=True)
    rows = []
    for name, parameter in recipe.parameters.items():
        if name != "batch":
            rows.append(_row(name, hints[name], parameter.default, COMPONENTS))
        for shortened, path in SHORT_NAMES.items():
            head, _, field = path.partition(".")
            if head == name and shortened not in recipe.parameters:
                rows += [
                    row._replace(name=shortened)
                    for row in _field_rows(type(parameter.default), COMPONENTS)
                    if row.name == field
                ]
    rounds = set(recipe.general) & set(POLICIES)
    rows += [row for row in _field_rows(Synchronous, COMPONENTS) if row.name in rounds]
    return [_explained(row) for row in rows]


def policies(recipe: Recipe) -> str:
    """What the options of a synchronous algorithm's rounds mean; nothing for others."""
    if not set(recipe.general) & set(POLICIES):
        return ""
    about = inspect.getdoc(Synchronous) or ""
    about = about[about.index("How long a round waits") :]
    return re.sub(r"(?m)^``(\w+)``", r"\1    ", about).replace("``", "")


def component_rows(recipe: Recipe) -> list[Row]:
    """The components that may be chosen, each with its own options as ``type``."""
    wanted = [name for name in recipe.parameters if name in COMPONENTS and name != "batch"]
    if "optimizer" in wanted:
        wanted.insert(wanted.index("optimizer") + 1, "schedule")
    return choice_rows(wanted, COMPONENTS)


def choice_rows(wanted: Sequence[str], choices: Choices) -> list[Row]:
    """One row a component that can be chosen for the options ``wanted``."""
    rows = []
    for key in wanted:
        for name, component in choices[key].items():
            own = [row for row in _field_rows(component, choices) if row.name not in wanted]
            text = "; ".join(f"{row.name}: {row.type} = {row.default}" for row in own)
            rows.append(Row(f"{key}={name}", text, ""))
    return rows


def documentation(recipe: Recipe) -> str:
    """The recipe's own words and the paper's equations."""
    module = inspect.getmodule(recipe.make)
    paper = inspect.getdoc(module) or ""
    own = (inspect.getdoc(recipe.make) or "").split(">>>")[0].rstrip()
    return f"{recipe.name}: {own}\n\n{paper}".replace("``", "")


def _field_rows(component: type, choices: Choices) -> Iterator[Row]:
    hints = get_type_hints(component, include_extras=True)
    for field in fields(component):
        default = _default(field)
        if field.name in choices or not is_dataclass(default):  # others have no name to choose by
            yield _row(field.name, hints[field.name], default, choices)


def _row(name: str, annotation: Any, default: Any, choices: Choices) -> Row:
    if name not in choices:
        return Row(name, type_text(annotation), short(default).lower())
    known = choices[name]
    chosen = next((key for key, kind in known.items() if type(default) is kind), short(default))
    return Row(name, ", ".join(known), chosen)


def _explained(row: Row) -> Row:
    if row.name in _FROM_DATA and row.default == "none":
        return row._replace(default="none: estimated")
    return row


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _first_sentences(text: str) -> str:
    """The first paragraph up to its second full stop."""
    first = " ".join(text.split("\n\n")[0].split())
    return first[:1].upper() + " ".join(re.split(r"(?<=\.)\s", first)[:2])[1:]
