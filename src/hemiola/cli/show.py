"""``hemiola algorithms``, ``engines`` and ``data``."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from hemiola.algorithms.registry import recipe
from hemiola.cli import catalogue, output

_STDOUT = Path("-")


def show_algorithms(json: bool) -> None:
    """The table of all algorithms."""
    rows = catalogue.algorithm_rows()
    if json:
        output.write_json(_STDOUT, rows)
        return
    table = Table(box=SIMPLE, padding=(0, 0), pad_edge=False)
    for column in ("name", "local optimiser", "partition", "communication", "aggregation"):
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    table.add_column("paper; engines", ratio=1)
    for row in rows:
        table.add_row(
            Text(row["name"], style="bold"),
            row["local"],
            row["partition"],
            row["communication"],
            row["aggregation"],
            f"{row['paper']}; {' '.join(row['engines'])}",
        )
    output.console().print(table)


def show_algorithm(name: str) -> None:
    """One algorithm: its paper's equations and its options."""
    chosen = recipe(name)
    console = output.console()
    console.print(catalogue.documentation(chosen), highlight=False, markup=False)
    table = Table("option", "default", "choices", title="options, as -o option=value")
    for row in catalogue.option_rows(chosen):
        table.add_row(*row)
    console.print(table)


def show_engines(json: bool) -> None:
    """The table of all engines."""
    rows = catalogue.engine_rows()
    if json:
        output.write_json(_STDOUT, rows)
        return
    table = Table("engine", "disciplines", "what it is", "options, as -e option=value")
    for row in rows:
        options = "\n".join(f"{key} = {value}" for key, value in row["options"].items())
        table.add_row(row["name"], "\n".join(row["disciplines"]), row["what"], options)
    output.console().print(table)


def show_data() -> None:
    """Built-in sets and formats."""
    from hemiola.data import builtin_names

    console = output.console()
    console.print("built-in: " + ", ".join(builtin_names()), highlight=False)
    console.print(
        "files: LIBSVM (.svm, .libsvm, .svmlight, .txt), CSV, Parquet, NPZ; also compressed as "
        ".gz, .bz2 or .xz",
        highlight=False,
    )
