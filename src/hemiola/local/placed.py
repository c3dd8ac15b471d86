"""Local steps where the gradients are: as long as they last, models and memories stay there.

For a :class:`~hemiola.contracts.PlacedObjective`; with others everything stays on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

from hemiola.contracts import Objective, PlacedObjective


def there(objective: Objective, nest: Any) -> Any:
    """The nest, dicts and lists of arrays and numbers, with its arrays at the objective's."""
    return _each(objective.place, nest) if _is_placed(objective) else nest


def here(objective: Objective, nest: Any) -> Any:
    """The nest with its arrays on the host again."""
    return _each(objective.fetch, nest) if _is_placed(objective) else nest


def _is_placed(objective: Objective) -> TypeGuard[PlacedObjective]:
    """Asking for the protocol itself would take as long as a step."""
    return getattr(objective, "is_elsewhere", False)


def _each(move: Callable[[Any], Any], nest: Any) -> Any:
    if isinstance(nest, dict):
        return {key: _each(move, value) for key, value in nest.items()}
    if isinstance(nest, list):
        return [_each(move, value) for value in nest]
    return move(nest) if hasattr(nest, "shape") else nest
