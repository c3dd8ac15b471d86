"""Packages that only some users need: found when they are needed, asked for by their command."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hemiola.errors import MissingExtraError


def require(module: str, extra: str) -> Any:
    """The module of this name. Raises :class:`~hemiola.errors.MissingExtraError` when it is not
    installed.

    >>> require("json", "torch").dumps([1])
    '[1]'
    >>> require("no_such_module", "torch")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    hemiola.errors.MissingExtraError: no_such_module is not installed; install it ...
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the module is there, and lacks something itself
        raise MissingExtraError(
            f"{module} is not installed; install it with: pip install 'hemiola[{extra}]'"
        ) from error
