"""Engines: who owns the loop, the clock and the wire. One file each, imported when asked for."""

from __future__ import annotations

from importlib import import_module

from hemiola.contracts import Engine
from hemiola.errors import OptionError, nearest

_FACTORIES = {
    "serial": ("hemiola.engines.serial", "Serial"),
    "threads": ("hemiola.engines.threads", "Threads"),
    "processes": ("hemiola.engines.processes", "Processes"),
    "simulator": ("hemiola.engines.simulator", "Simulator"),
    "torchrun": ("hemiola.engines.torchrun", "Torchrun"),
    "spark": ("hemiola.engines.spark", "Spark"),
}


def names() -> list[str]:
    """The engines' names."""
    return list(_FACTORIES)


def engine_class(name: str) -> type[Engine]:
    """The engine of this name, not yet configured.

    >>> engine_class("serial")().name
    'serial'
    """
    if name not in _FACTORIES:
        raise OptionError(f"there is no engine {name!r}; {nearest(name, _FACTORIES)}")
    module, attribute = _FACTORIES[name]
    found: type[Engine] = getattr(import_module(module), attribute)
    return found


__all__ = ["engine_class", "names"]
