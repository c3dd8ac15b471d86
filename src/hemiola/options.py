"""Options as text: a tree of plain values and of components that are chosen by name.

An option addresses a parameter or, by dots, a field of a component: ``steps=5``,
``optimizer=adam``, ``optimizer.lr=0.01``. Algorithms and engines are configured in this way.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from hemiola.errors import OptionError, nearest

Choices = Mapping[str, Mapping[str, type]]
"""The components that can be chosen for a parameter, by the parameter's name."""

_ITSELF = ""
_Tree = dict[str, Any]


def unknown_option(owner: str, path: str, known: Iterable[str]) -> OptionError:
    """The error to raise when ``owner`` has no option of this path."""
    known = sorted(known)
    name = path.rpartition(".")[2]
    return OptionError(f"{owner} has no option {name!r}; {nearest(name, known)}", path, known)


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    """``key=value`` texts as a mapping; raises :class:`OptionError` for anything else.

    >>> parse_options(["steps=5", "optimizer=adam"])
    {'steps': '5', 'optimizer': 'adam'}
    """
    options: dict[str, str] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals and value):
            raise OptionError(f"{text!r} is no option; write it as key=value, for example lr=0.1.")
        if key in options:
            raise OptionError(f"the option {key!r} is given twice; leave one out.")
        options[key] = value
    return options


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """A name with plain values in brackets; raises :class:`OptionError` for anything else.

    >>> parse_call("mlp(hidden=32)"), parse_call("mine.nets:small")
    (('mlp', {'hidden': 32}), ('mine.nets:small', {}))
    """
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return name, {}
    problem = OptionError(f"{text!r} cannot be read; write sizes as in mlp(hidden=32).")
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise problem
        return name.strip(), {key.arg or "": ast.literal_eval(key.value) for key in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise problem from error


def arguments(
    options: Mapping[str, Any], defaults: Mapping[str, Any], choices: Choices
) -> dict[str, Any]:
    """Keyword arguments from options whose paths start with a name in ``defaults``.

    >>> arguments({"steps": "5", "eta": "none"}, {"steps": 1, "eta": 0.5}, {})
    {'steps': '5', 'eta': None}
    """
    tree: _Tree = {}
    for path, value in options.items():
        _insert(tree, path.split("."), value)
    return {name: _value(name, node, defaults[name], choices) for name, node in tree.items()}


def _insert(tree: _Tree, path: list[str], value: Any) -> None:
    """``optimizer=adam``, ``optimizer.lr=1``: {"optimizer": {"": "adam", "lr": {"": 1}}}."""
    for part in path:
        tree = tree.setdefault(part, {})
    tree[_ITSELF] = value


def _value(path: str, node: _Tree, default: Any, choices: Choices) -> Any:
    """What a node of the option tree stands for: plain text or number, or a component."""
    key = path.rpartition(".")[2]
    itself = node.pop(_ITSELF, None)
    if key not in choices:
        if node:
            raise OptionError(f"{key} is a plain value; it has no {next(iter(node))!r}.")
        return None if itself in ("none", "all") else itself
    if isinstance(itself, str):
        default = _chosen(key, itself, default, choices[key])
    elif itself is not None:
        default = itself
    if default is not None and not _is_component(default):
        raise OptionError(
            f"{key} must be one of {', '.join(sorted(choices[key]))}; not {itself!r}."
        )
    if default is None:
        raise OptionError(f"{key} is not set; choose one as well, as {key}=NAME.")
    component: Any = default
    inside = {field.name: getattr(component, field.name) for field in fields(component)}
    for name in node:
        if name not in inside:
            raise unknown_option(type(default).__name__, f"{path}.{name}", inside)
    return replace(
        component,
        **{
            name: _value(f"{path}.{name}", sub, inside[name], choices) for name, sub in node.items()
        },
    )


def _is_component(thing: Any) -> bool:
    return is_dataclass(thing) and not isinstance(thing, type)


def _chosen(key: str, name: str, default: Any, known: Mapping[str, type]) -> Any:
    if name not in known:
        raise OptionError(f"there is no {key} {name!r}; {nearest(name, known)}")
    return default if type(default) is known[name] else known[name]()
