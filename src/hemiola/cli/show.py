"""``hemiola algorithms``, ``engines`` and ``data``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from hemiola import engines
from hemiola.algorithms.registry import build, recipe
from hemiola.cli import catalogue, output
from hemiola.cli.recipes import supporting
from hemiola.cli.setup import ENGINE_CHOICES
from hemiola.describe import describe

_STDOUT = Path("-")


def show_algorithms(json: bool) -> None:
    """The table of all algorithms."""
    rows = catalogue.algorithm_rows()
    if json:
        output.write_json(_STDOUT, rows)
        return
    columns = (
        "name",
        "local\noptimiser",
        "partition",
        "communi-\ncation",
        "aggregation",
        "engines",
    )
    table = _table(*columns, "paper", gap=0)
    everything = engines.names()
    for row in rows:
        where = _where(row["engines"], everything)
        parts = [_loose(row[k]) for k in ("local", "partition", "communication", "aggregation")]
        table.add_row(Text(row["name"], style="bold"), *parts, where, row["paper"])
    output.console().print(table)


def _where(some: list[str], everything: list[str]) -> str:
    """Engines in few words.

    >>> _where(["a", "b"], ["a", "b"]), _where(["a", "b"], ["a", "b", "c"])
    ('all', 'all but c')
    """
    others = [name for name in everything if name not in some]
    if not others:
        return "all"
    return f"all but {others[0]}" if len(others) == 1 < len(some) else ", ".join(some)


def show_algorithm(name: str, json: bool) -> None:
    """One algorithm: its paper's equations and its options."""
    chosen = recipe(name)
    rows = catalogue.option_rows(chosen)
    if json:
        about: dict[str, Any] = {
            "name": name,
            "paper": chosen.paper,
            "documentation": catalogue.documentation(chosen),
        }
        about |= {"engines": supporting(build(name)), "settings": describe(build(name))}
        output.write_json(_STDOUT, {**about, "options": [row._asdict() for row in rows]})
        return
    console = output.console()
    console.print(catalogue.documentation(chosen), highlight=False, markup=False)
    console.print("\nOptions, as -o NAME=VALUE:", style="bold")
    console.print(_options("option", rows))
    if policies := catalogue.policies(chosen):
        console.print(policies + "\n", highlight=False, markup=False)
    console.print("Components, with options of their own, as -o optimizer.beta1=0.8:", style="bold")
    console.print(_components(catalogue.component_rows(chosen)))


def show_engines(json: bool) -> None:
    """The table of all engines."""
    rows = catalogue.engine_rows()
    if json:
        output.write_json(_STDOUT, rows)
        return
    console = output.console()
    table = _table("engine", "disciplines", "what it is")
    for row in rows:
        table.add_row(Text(row["name"], style="bold"), "\n".join(row["disciplines"]), row["what"])
    console.print(table)
    for row in rows:
        if not row["options"]:
            continue
        options = [catalogue.Row(**option) for option in row["options"]]
        console.print(f"Options of {row['name']}, as -e NAME=VALUE:", style="bold")
        console.print(_options("option", options))
        used = [option.name for option in options if option.name in ENGINE_CHOICES]
        if used:
            console.print(_components(catalogue.choice_rows(used, ENGINE_CHOICES)))


def show_data() -> None:
    """Built-in sets and formats."""
    from hemiola.data import builtin_names

    console = output.console()
    console.print("built-in: " + ", ".join(builtin_names()), highlight=False)
    console.print(
        "files: LIBSVM (.svm, .libsvm, .svmlight, .txt), CSV (.csv), Parquet (.parquet), NPZ "
        "(.npz), each also compressed (.gz, .bz2, .xz)",
        highlight=False,
    )
    console.print(
        "in parts: a quoted pattern ('part-*.svm'), or a directory of files whose names differ in "
        "numbers only",
        highlight=False,
    )
    console.print(
        "larger than memory: a directory of shards, made by `hemiola convert`", highlight=False
    )


def _table(*columns: str, gap: int = 1) -> Table:
    """A table without lines; its first column is never broken."""
    table = Table(box=SIMPLE, padding=(0, gap), collapse_padding=True, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0, overflow="fold")
    return table


def _options(title: str, rows: Iterable[catalogue.Row]) -> Table:
    table = _table(title, "type", "default")
    for row in rows:
        table.add_row(*row)
    return table


def _components(rows: Iterable[catalogue.Row]) -> Table:
    table = _table("choice", "its options: type = default")
    for row in rows:
        table.add_row(row.name, row.type or "-")
    return table


def _loose(text: str) -> str:
    """May be broken before a parenthesis."""
    return text.replace("(", " (")
