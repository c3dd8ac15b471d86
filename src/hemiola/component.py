"""Frozen dataclasses that check their own fields, so that no algorithm is built from nonsense."""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import Any, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from hemiola.errors import OptionError

T = TypeVar("T")

_CONFIG = ConfigDict(arbitrary_types_allowed=True, extra="forbid", allow_inf_nan=False)


@dataclass_transform(frozen_default=True)
def component(cls: type[T]) -> type[T]:
    """A frozen dataclass whose fields are validated against their annotations.

    Wrong types, values out of range and unknown names raise
    :class:`~hemiola.errors.OptionError`; text that reads as a number is accepted.

    >>> from hemiola.optim import HeavyBall
    >>> HeavyBall(momentum="0.5").momentum
    0.5
    >>> HeavyBall(momentum=1.5)
    Traceback (most recent call last):
        ...
    hemiola.errors.OptionError: HeavyBall: momentum should be less than 1, not 1.5.
    """
    made = dataclass(cls, frozen=True, config=_CONFIG)
    checked = made.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            checked(self, *args, **kwargs)
        except ValidationError as error:
            raise OptionError(f"{cls.__name__}: {_sentence(error, cls)}") from None

    functools.update_wrapper(init, checked)  # for inspect.signature
    made.__init__ = init  # type: ignore[method-assign]
    return cast(type[T], made)


def _sentence(error: ValidationError, cls: type) -> str:
    """The first problem, in words."""
    problem = error.errors()[0]
    place = problem["loc"][0] if problem["loc"] else "value"
    name = [field.name for field in fields(cls)][place] if isinstance(place, int) else place
    if problem["type"] == "unexpected_keyword_argument":
        return f"there is no option {name!r}."
    if "error" in problem.get("ctx", {}):
        return str(problem["ctx"]["error"])
    what = problem["msg"].removeprefix("Input ").split(", unable")[0]
    return f"{name} {what}, not {problem['input']!r}."
