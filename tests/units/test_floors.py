"""The architecture, enforced: a module imports only from floors below its own.

The checker reads imports from the source and runs nothing. Imports inside functions and under
``TYPE_CHECKING`` count for the floors but not for cycles, as they do not run on import.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = "hemiola"
SOURCE = Path(__file__).resolve().parents[2] / "src" / ROOT

FLOORS: dict[float, tuple[str, ...]] = {
    0: ("types", "rng", "errors", "component", "describe", "storage", "options", "extras"),
    0.5: ("dataset",),
    1: ("contracts", "communicate", "algorithm", "job", "grouping", "faults", "team", "penalty"),
    1.5: ("kernels",),
    2: ("data", "partition", "objectives", "optim", "local", "aggregate"),
    2.5: ("engines",),
    3: ("algorithms",),
    4: (
        "training",
        "run",
        "replay",
        "trace",
        "history",
        "callbacks",
        "checkpoint",
        "measure",
        "learning_rate",
        "epochs",
        "result",
        "timeline",
        "gantt",
        "calibration",
        "reference",
    ),
    5: ("sklearn", "spark", "plots", "advise", "planner"),
    6: ("cli",),
    7: ("__main__",),
}

# Floors whose modules may import each other, as long as no cycle arises.
PEERS = {0, 1, 4}

# Packages that see less than all that lies below them, and the highest floor that they see.
HIGHEST_SEEN = {"engines": 1}

# Packages whose members may not import each other, only helpers named with an underscore.
APART = {"engines"}

# What any module may import from the root package, which otherwise is for users only.
FROM_ROOT = {"__version__"}

FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}

Sources = Mapping[str, str]  # path relative to the package -> text


class Import(NamedTuple):
    path: str  # the importing file
    line: int
    importer: str  # dotted names
    target: str
    runs: bool  # when the importing module is itself imported

    @property
    def place(self) -> str:
        return f"{ROOT}/{self.path}:{self.line}"


def read_sources() -> Sources:
    files = sorted(SOURCE.rglob("*.py"))
    return {file.relative_to(SOURCE).as_posix(): file.read_text("utf-8") for file in files}


def module_name(path: str) -> str:
    parts = [ROOT, *path.removesuffix(".py").split("/")]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part(module: str, depth: int) -> str:
    """One component of a dotted name, or "" where it has none."""
    parts = module.split(".")
    return parts[depth] if depth < len(parts) else ""


# Reading imports


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def import_nodes(node: ast.AST, runs: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """Every import statement below ``node``, and whether it runs on import."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, runs
    elif isinstance(node, ast.If) and is_type_checking(node.test):
        for statement in node.body:
            yield from import_nodes(statement, False)
        for statement in node.orelse:
            yield from import_nodes(statement, runs)
    else:
        runs = runs and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from import_nodes(child, runs)


def absolute(node: ast.ImportFrom, path: str) -> str:
    """The dotted name after ``from``, with leading dots resolved."""
    if not node.level:
        return node.module or ""
    package = [ROOT, *path.split("/")[:-1]]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def targets(node: ast.stmt, path: str, modules: set[str]) -> Iterator[str]:
    """What is imported; of ``from a import b``, ``a.b`` if that is a module, else ``a``."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        source = absolute(node, path)
        for alias in node.names:
            if source == ROOT and alias.name in FROM_ROOT:
                continue
            name = f"{source}.{alias.name}"
            known = name in modules or (source == ROOT and alias.name in FLOOR_OF)
            yield name if known else source


def imports(sources: Sources) -> Iterator[Import]:
    modules = {module_name(path) for path in sources}
    for path, text in sources.items():
        importer = module_name(path)
        for node, runs in import_nodes(ast.parse(text, path)):
            for target in dict.fromkeys(targets(node, path, modules)):
                yield Import(path, node.lineno, importer, target, runs)


def inner_imports(sources: Sources) -> Iterator[Import]:
    """Imports of this package by this package, leaving out the root package, which is exempt."""
    for found in imports(sources):
        if part(found.target, 0) == ROOT and found.importer != ROOT:
            yield found


# The rules


def without_floor(sources: Sources) -> list[str]:
    names = {part(module_name(path), 1) for path in sources} - {""}
    return [
        f"{ROOT}.{name} has no floor: give it one in FLOORS in {Path(__file__).name}"
        for name in sorted(names - FLOOR_OF.keys())
    ]


def objection_within(package: str, found: Import) -> str | None:
    own, other = part(found.importer, 2), part(found.target, 2)
    if package not in APART or not own or own == other or other.startswith("_"):
        return None
    return f"modules of {package} import of each other only helpers named with an underscore"


def objection_between(here: str, there: str) -> str | None:
    floor, other = FLOOR_OF[here], FLOOR_OF[there]
    highest = HIGHEST_SEEN.get(here, floor)
    if other > highest:
        return f"{here} sees nothing above floor {highest:g}, and {there} is on floor {other:g}"
    if other == floor and floor not in PEERS:
        return f"{here} and {there} share floor {floor:g} and may not know each other"
    return None


def objection(found: Import) -> str | None:
    here, there = part(found.importer, 1), part(found.target, 1)
    if not there:
        return f"import from the module that defines the name, not from {ROOT} itself"
    if here not in FLOOR_OF:
        return None  # reported by without_floor
    if there not in FLOOR_OF:
        return f"{there} is not a module with a floor"
    return objection_within(here, found) if here == there else objection_between(here, there)


def floor_violations(sources: Sources) -> list[str]:
    return [
        f"{found.place} imports {found.target}: {reason}"
        for found in inner_imports(sources)
        if (reason := objection(found))
    ]


def packages_entered(importer: str, target: str) -> Iterator[str]:
    """The packages around ``target`` that importing it also runs, unless they hold ``importer``."""
    parts = target.split(".")
    for depth in range(1, len(parts)):
        package = ".".join(parts[:depth])
        if not f"{importer}.".startswith(f"{package}."):
            yield package


def cycle(sources: Sources) -> list[str]:
    """The modules along one cycle of imports that run, or nothing."""
    graph: dict[str, set[str]] = {}
    for found in inner_imports(sources):
        if found.runs:
            entered = packages_entered(found.importer, found.target)
            graph.setdefault(found.importer, set()).update([found.target, *entered])
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # so that each imports the next
    return []


def eager_imports(sources: Sources) -> list[str]:
    """What importing the root package imports at once, beyond the standard library."""
    return [
        f"{found.place} imports {found.target} at once: import it in __getattr__"
        for found in imports(sources)
        if found.importer == ROOT
        and found.runs
        and part(found.target, 0) not in sys.stdlib_module_names
    ]


# The library


@pytest.fixture(scope="module")
def library() -> Sources:
    sources = read_sources()
    assert sources, f"no sources in {SOURCE}"
    return sources


def test_every_module_has_a_floor(library: Sources) -> None:
    assert not (found := without_floor(library)), "\n" + "\n".join(found)


def test_a_module_imports_only_from_floors_below(library: Sources) -> None:
    assert not (found := floor_violations(library)), "\n" + "\n".join(found)


def test_modules_do_not_import_each_other_in_a_cycle(library: Sources) -> None:
    assert not (found := cycle(library)), "cycle: " + " -> ".join(found)


def test_the_root_package_imports_lazily(library: Sources) -> None:
    assert not (found := eager_imports(library)), "\n" + "\n".join(found)


# The checker

FORBIDDEN = {
    "upwards": ("optim/sgd.py", "from hemiola.training import fit", "floor 4"),
    "upwards in a function": ("rng.py", "def f():\n    import hemiola.dataset", "floor 0.5"),
    "upwards for types": (
        "types.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hemiola import contracts",
        "floor 1",
    ),
    "upwards by dots": ("local/steps.py", "from ..algorithms import bmuf", "floor 3"),
    "sideways": ("data/csv.py", "from hemiola.partition import even", "share floor 2"),
    "engine to objectives": (
        "engines/inline.py",
        "from hemiola.objectives import logistic",
        "sees nothing above floor 1",
    ),
    "engine to engine": ("engines/inline.py", "from hemiola.engines import other", "underscore"),
    "engine to engine by dots": ("engines/inline.py", "from .other import run", "underscore"),
    "root": ("training.py", "from hemiola import Trainer", "not from hemiola itself"),
    "stranger": ("training.py", "from hemiola.nowhere import x", "not a module with a floor"),
}

ALLOWED = {
    "downwards": ("algorithms/easgd.py", "from hemiola.aggregate import mean"),
    "own package": ("optim/sgd.py", "from hemiola.optim.base import Rule"),
    "peers": ("contracts.py", "from hemiola.algorithm import Algorithm"),
    "engine to contract": ("engines/inline.py", "from hemiola.contracts import Engine"),
    "engine to helper": ("engines/inline.py", "from hemiola.engines._common import wait"),
    "within one engine": ("engines/mpi/wire.py", "from hemiola.engines.mpi import ranks"),
    "registry of engines": ("engines/__init__.py", "def f():\n    from . import inline"),
    "version": ("cli/__init__.py", "from hemiola import __version__"),
    "namesake elsewhere": ("data/csv.py", "from sklearn import datasets"),
}

# Modules that the fake sources refer to.
AROUND = {"engines/__init__.py": "", "engines/_common.py": "", "engines/other.py": ""}


@pytest.mark.parametrize(("path", "text", "reason"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_checker_objects(path: str, text: str, reason: str) -> None:
    (violation,) = floor_violations({**AROUND, path: text})
    assert violation.startswith(f"{ROOT}/{path}:")
    assert reason in violation


@pytest.mark.parametrize(("path", "text"), ALLOWED.values(), ids=ALLOWED)
def test_checker_agrees(path: str, text: str) -> None:
    assert floor_violations({**AROUND, path: text}) == []


def test_checker_asks_for_a_floor() -> None:
    (violation,) = without_floor({"__init__.py": "", "rng.py": "", "gossip/ring.py": ""})
    assert violation.startswith("hemiola.gossip has no floor: give it one")


def test_checker_finds_a_cycle() -> None:
    sources = {
        "training.py": "from hemiola import history",
        "history.py": "from .training import fit",
    }
    assert set(cycle(sources)) == {"hemiola.training", "hemiola.history"}


def test_checker_finds_a_cycle_through_a_package() -> None:
    sources = {
        "training.py": "import hemiola.callbacks.timing",
        "callbacks/__init__.py": "import hemiola.training",
        "callbacks/timing.py": "",
    }
    assert set(cycle(sources)) == {"hemiola.training", "hemiola.callbacks"}


@pytest.mark.parametrize(
    "text",
    ["def f():\n    from .training import fit", "if TYPE_CHECKING:\n    from .fit import fit"],
    ids=["in a function", "for types"],
)
def test_checker_ignores_cycles_that_do_not_run(text: str) -> None:
    assert cycle({"training.py": "from . import history", "history.py": text}) == []


def test_checker_lets_a_package_gather_its_modules() -> None:
    sources = {
        "optim/__init__.py": "from hemiola.optim.sgd import SGD",
        "optim/sgd.py": "from hemiola.optim.base import Rule",
        "optim/base.py": "",
    }
    assert cycle(sources) == []


@pytest.mark.parametrize("text", ["from hemiola.training import fit", "import numpy"])
def test_checker_finds_an_eager_root(text: str) -> None:
    assert len(eager_imports({"__init__.py": text})) == 1
    assert eager_imports({"__init__.py": f"import sys\ndef __getattr__(name):\n    {text}"}) == []
