"""Faults on order: workers that are slow, stall, die, hang or send rubbish, for tests and studies.

A fault names a worker and a piece of work by its number: the tasks that were given to the worker
before it, so the first one is 0. A piece that was lost with its worker keeps its number, so a death
or a hang happens once, and a worker that comes back may have missed the numbers in between. What
happens is the same on every engine that injects faults: ``simulator`` (in virtual time),
``threads`` and ``processes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Annotated

from annotated_types import Ge, Gt, Interval

from hemiola.component import component
from hemiola.errors import OptionError, nearest
from hemiola.options import arguments, parse_options, unknown_option

_Number = Annotated[int, Ge(0)]


@component
class Slow:
    """From piece ``at`` on, ``worker`` computes ``factor`` times as long."""

    worker: _Number
    factor: Annotated[float, Ge(1)]
    at: _Number = 0


@component
class Stall:
    """Every piece of ``worker`` takes ``seconds`` longer with this ``probability``."""

    worker: _Number
    probability: Annotated[float, Interval(ge=0, le=1)]
    seconds: Annotated[float, Gt(0)]


@component
class Die:
    """``worker`` dies when it begins piece ``at``, and is back so many seconds after; None: never.

    It has then lost its state and begins with the model of that time.
    """

    worker: _Number
    at: _Number
    back_after: Annotated[float, Ge(0)] | None = None


@component
class Hang:
    """``worker`` begins piece ``at``, never answers, and uses no processor."""

    worker: _Number
    at: _Number


@component
class Poison:
    """The messages of ``worker`` hold NaN, for pieces ``at`` to ``until`` - 1; None: for ever."""

    worker: _Number
    at: _Number = 0
    until: _Number | None = None


Fault = Slow | Stall | Die | Hang | Poison
Faults = tuple[Fault, ...]

KINDS: Mapping[str, type[Fault]] = {
    "slow": Slow,
    "stall": Stall,
    "die": Die,
    "hang": Hang,
    "poison": Poison,
}


def parse_fault(text: str) -> Fault:
    """A fault from words: its kind, a colon, and its fields.

    >>> parse_fault("die:worker=1,at=20,back_after=0.5")
    Die(worker=1, at=20, back_after=0.5)
    >>> parse_fault("die:worker=1,att=20")
    Traceback (most recent call last):
        ...
    hemiola.errors.OptionError: fault die has no option 'att'; did you mean 'at'?
    """
    name, _, rest = text.partition(":")
    name = name.strip()
    if name not in KINDS:
        raise OptionError(f"there is no fault {name!r}; {nearest(name, KINDS)}")
    known = {field.name: field.default for field in fields(KINDS[name])}
    given = parse_options(part for part in rest.split(",") if part.strip())
    for path in given:
        if path not in known:
            raise unknown_option(f"fault {name}", path, known)
    missing = [key for key, default in known.items() if default is MISSING and key not in given]
    if missing:
        raise OptionError(
            f"fault {name} needs {' and '.join(missing)}: write {name}:{_example(missing)}."
        )
    return KINDS[name](**arguments(given, known, {}))


def _example(missing: Iterable[str]) -> str:
    return ",".join(f"{key}=..." for key in missing)


def check_faults(faults: Iterable[Fault], workers: int) -> Faults:
    """The faults as a tuple; raises :class:`OptionError` when one names a worker that is not there.

    >>> check_faults([Hang(worker=4, at=0)], workers=4)
    Traceback (most recent call last):
        ...
    hemiola.errors.OptionError: a fault names worker 4, but there are 4, numbered from 0 to 3.
    """
    faults = tuple(faults)
    for fault in faults:
        if not isinstance(fault, Fault):
            raise OptionError(f"faults are those of hemiola.faults, not {fault!r}.")
        if fault.worker >= workers:
            raise OptionError(
                f"a fault names worker {fault.worker}, but there are {workers}, "
                f"numbered from 0 to {workers - 1}."
            )
    return faults


def not_yet(faults: Faults, begun: Sequence[int]) -> Faults:
    """What can still happen when worker k has begun ``begun[k]`` pieces of work: a death or a hang
    that happened does not happen again when these pieces are repeated.

    >>> not_yet((Die(worker=0, at=3), Die(worker=1, at=3)), begun=[4, 2])
    (Die(worker=1, at=3, back_after=None),)
    """
    return tuple(
        fault
        for fault in faults
        if not isinstance(fault, Die | Hang) or fault.at >= begun[fault.worker]
    )
