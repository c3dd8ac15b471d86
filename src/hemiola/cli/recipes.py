"""Algorithms with the options that were given: ``-o key=value`` and ``-o bmuf.key=value``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hemiola.algorithm import Algorithm, AnyAlgorithm
from hemiola.algorithms.registry import RECIPES, SHARED, build, path_of, recipe
from hemiola.contracts import Engine
from hemiola.engines import engine_class, names
from hemiola.errors import OptionError, UnsupportedError, nearest
from hemiola.local import LocalSDCA
from hemiola.options import parse_options

Options = dict[str, str]


def build_algorithms(chosen: Sequence[str], options: Iterable[str]) -> dict[str, AnyAlgorithm]:
    """Algorithms by name. An option goes to those that have it, ``bmuf.eta=0.9`` to one of them.

    Raises :class:`OptionError` when none has it.

    >>> made = build_algorithms(["ssgd", "bmuf"], ["steps=5", "bmuf.eta=0.9", "lr=0.1"])
    >>> made["bmuf"].local.steps, made["bmuf"].aggregate.eta, made["ssgd"].aggregate.optimizer.lr
    (5, 0.9, 0.1)
    """
    for name in chosen:
        recipe(name)
        if chosen.count(name) > 1:
            raise OptionError(f"{name} is named twice; leave one out.")
    shared, own = _sorted_out(chosen, parse_options(options))
    made: dict[str, AnyAlgorithm] = {}
    refused: dict[str, list[OptionError]] = {key: [] for key in shared}
    for name in chosen:
        made[name], refusals = _fitting(name, shared, own[name])
        for key, error in refusals.items():
            refused[key].append(error)
    for key, errors in refused.items():
        if len(errors) == len(chosen):
            raise _had_by_none(key, errors)
    return made


def refuse_unsupported(algorithms: dict[str, AnyAlgorithm], engine: Engine) -> None:
    """Raise :class:`UnsupportedError` before anything runs on an engine that cannot run it."""
    for name, algorithm in algorithms.items():
        discipline = type(algorithm.communicate)
        if discipline not in engine.supports:
            others = ", ".join(supporting(algorithm))
            raise UnsupportedError(
                f"engine {engine.name} cannot run {name}, which is {discipline.__name__.lower()}; "
                f"use one of: {others}."
            )


def may_stream(algorithm: AnyAlgorithm) -> bool:
    """Whether it trains from shards on disk; for others they are loaded into memory."""
    return isinstance(algorithm, Algorithm) and not isinstance(algorithm.local, LocalSDCA)


def supporting(algorithm: AnyAlgorithm) -> list[str]:
    """The engines that have the algorithm's discipline."""
    discipline: type = type(algorithm.communicate)
    return [name for name in names() if discipline in engine_class(name)().supports]


def _sorted_out(chosen: Sequence[str], options: Options) -> tuple[Options, dict[str, Options]]:
    """Options for all, and those for one algorithm."""
    shared: Options = {}
    own: dict[str, Options] = {name: {} for name in chosen}
    for key, value in options.items():
        head, _, rest = key.partition(".")
        if rest and head in own:
            own[head][rest] = value
        elif rest and head in (*RECIPES, *SHARED):
            raise OptionError(f"{key} is for {head}, which does not run here; add it, or leave it.")
        else:
            shared[key] = value
    return shared, own


def _fitting(
    name: str, shared: Options, own: Options
) -> tuple[AnyAlgorithm, dict[str, OptionError]]:
    """The algorithm with the options that it has, and the errors for shared ones that it has not.

    Which options it has depends on the components that are chosen.
    """
    kept = dict(shared)
    refused: dict[str, OptionError] = {}
    while True:
        try:
            return build(name, {**kept, **own}), refused
        except OptionError as error:
            lost = [key for key in kept if error.path and _is_below(name, key, error.path)]
            if not lost:
                raise
            for key in lost:
                del kept[key]
                refused[key] = error


def _is_below(name: str, key: str, path: str) -> bool:
    try:
        full = path_of(recipe(name), key)
    except OptionError:
        full = key
    return f"{full}.".startswith(f"{path}.")


def _had_by_none(key: str, errors: list[OptionError]) -> OptionError:
    if len(errors) == 1:
        return errors[0]
    known = {name for error in errors for name in error.known}
    return OptionError(f"there is no option {key!r} in any algorithm here; {nearest(key, known)}")
