"""A simulated cluster with the times of a real one: what runs measure, and what to make of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hemiola.engines.simulator import Links, PerWorker, Simulator
from hemiola.errors import DataError, OptionError
from hemiola.history import History

_TINY = 1e-12


@dataclass(frozen=True)
class Timing:
    """What pieces of work took, one entry a worker; None: too few pieces to say.

    ``step_seconds``     mean seconds of computing of a local step;
    ``log_sd``           standard deviation of the logarithm of a piece's seconds a step;
    ``steps``            mean local steps of a piece;
    ``message_seconds``  mean seconds on the way of a message, down or up.

    A worker's first piece is left out: it may have warmed something up.
    """

    step_seconds: Sequence[float | None]
    log_sd: Sequence[float | None]
    steps: Sequence[float | None]
    message_seconds: Sequence[float | None]

    @classmethod
    def of(cls, history: History, engine: str) -> Timing:
        """Of a run on this engine. ``serial`` sends no messages: workers take turns.

        >>> log = math.log(0.25)
        >>> history = History(times=[[2.0, 8.0, 2.0, 2 * log, 2 * log**2, 1.0]])
        >>> Timing.of(history, "threads")
        Timing(step_seconds=[0.25], log_sd=[0.0], steps=[4.0], message_seconds=[0.25])
        """
        rows = [_figures(sums) for sums in history.times]
        step, sd, steps, message = ([row[i] for row in rows] for i in range(4))
        if engine == "serial":
            message = [None if seconds is None else 0.0 for seconds in message]
        return cls(step, sd, steps, message)


def _figures(sums: Sequence[float]) -> tuple[float | None, ...]:
    """(seconds a step, sd of the logarithm, steps a piece, seconds a message) of one worker."""
    if not sums or not sums[0]:
        return (None,) * 4
    pieces, steps, computed, logs, squares, way = sums
    spread = max(squares - logs * logs / pieces, 0.0) / max(pieces - 1, 1)
    return computed / steps, math.sqrt(spread), steps / pieces, way / pieces / 2


def load_timing(path: str | Path) -> Timing:
    """From a file that ``hemiola train --json`` or ``simulate --json`` wrote.

    Raises :class:`DataError` for any other file, or when too little was measured.
    """
    try:
        timing = Timing(**json.loads(Path(path).read_text())["timing"])
        for values in vars(timing).values():
            _filled(values)
        return timing
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error}).") from error
    except OptionError as error:
        raise DataError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} holds no measured times; write one with `hemiola train ... --json {path}`."
        ) from error


def calibrate(engine: Simulator, timing: Timing, network: bool = True) -> Simulator:
    """The simulator with the measured distribution of every worker's compute time.

    With ``network``, every worker's message time, too, as the latency of its link. A worker that
    was not measured gets the mean of the others, and workers beyond those measured begin again
    with the first. How long the server takes is not part of it.
    """
    step, steps = _filled(timing.step_seconds), _filled(timing.steps)
    sigma = _of_a_step(_filled(timing.log_sd), steps)
    compute = PerWorker(tuple(np.maximum(step, _TINY).tolist()), tuple(sigma.tolist()))
    engine = replace(engine, compute=compute)
    if not network:
        return engine
    return replace(engine, network=Links(tuple(_filled(timing.message_seconds).tolist())))


def _filled(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The values, with the mean in place of those missing."""
    found = np.array([np.nan if value is None else value for value in values], dtype=float)
    if not np.isfinite(found).any():
        raise OptionError(
            "no worker did more than one piece of work, which says nothing; measure a longer run."
        )
    return np.where(np.isfinite(found), found, found[np.isfinite(found)].mean())


def _of_a_step(log_sd: Any, steps: Any) -> Any:
    """The sigma of log-normal steps whose mean over a piece has this log_sd, after Fenton (1960).

    >>> bool(abs(_of_a_step(0.5, 1.0) - 0.5) < 1e-12)
    True
    """
    return np.sqrt(np.log1p(steps * np.expm1(log_sd**2)))
