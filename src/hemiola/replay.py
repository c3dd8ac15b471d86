"""Traces on disk, and running them again.

A trace file is one NPZ (see :mod:`hemiola.storage`) of version ``hemiola-trace-1``:

``settings``   plain data: algorithm, objective, engine, workers, seed, rounds
``origin``     plain data: where the data came from, if the recorder knew
``data``       digest of the training data
``updates``    updates of the server;  ``weights_sha256`` of the last model
``kinds``      (m,) uint8: 0 a worker read the model and began, 1 its message arrived,
               2 it went away, 3 it came back
``workers``    (m,) int32;  ``seconds`` (m,) float64: who, and when

Which samples a worker draws is not stored: a batch is a function of seed, worker and step. Loading
builds only this library's components and runs no code from the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hemiola.algorithms.rebuild import rebuild
from hemiola.checkpoint import digest
from hemiola.dataset import Dataset
from hemiola.engines.replay import Replay
from hemiola.errors import CheckpointError, OptionError
from hemiola.job import Trace
from hemiola.result import Result
from hemiola.storage import load_nest, save_nest

_FORMAT = "hemiola-trace-1"


@dataclass(frozen=True)
class TraceFile:
    """Where to record a trace, and what to note about the origin of the data."""

    path: Path
    origin: dict[str, Any] = field(default_factory=dict)

    def save(self, trace: Trace, data: Dataset, updates: int, result: Result) -> None:
        """Write the file, atomically."""
        save_nest(
            self.path,
            {
                "format": _FORMAT,
                "settings": result.settings,
                "origin": self.origin,
                "data": digest(data),
                "updates": updates,
                "weights_sha256": result.model.sha256,
                **trace.snapshot(),
            },
        )


@dataclass(frozen=True, eq=False)
class Recorded:
    """A trace read from a file."""

    settings: dict[str, Any]
    origin: dict[str, Any]
    data: str
    updates: int
    weights_sha256: str
    trace: Trace


def load_trace(path: str | Path) -> Recorded:
    """Read a trace. Raises :class:`CheckpointError` for anything that is not one."""
    nest = load_nest(Path(path))
    if not isinstance(nest, dict) or nest.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a trace of this version of hemiola.")
    try:
        arrays = [np.asarray(nest[name]) for name in ("kinds", "workers", "seconds")]
        if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 1:
            raise ValueError("columns of different lengths")
        trace = Trace()
        trace.restore(nest)
        return Recorded(
            dict(nest["settings"]), dict(nest["origin"]), str(nest["data"]),
            int(nest["updates"]), str(nest["weights_sha256"]), trace,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error


def replay(
    recorded: Recorded, data: Dataset, *, eval_data: Dataset | None = None,
    until: int | None = None, eval_every: int | None = None,
) -> Result:
    """Repeat a recorded run, to the bit; with ``until``, its first so many updates only.

    ``data`` are the training data of the recorded run. Raises :class:`CheckpointError` when they are
    others, :class:`OptionError` when ``until`` is beyond the end.
    """
    from hemiola.training import run_for

    if digest(data) != recorded.data:
        raise CheckpointError("the data are not those of the recorded run; give the same file, "
                              "split and scaling.")
    updates = recorded.updates if until is None else until
    if not 1 <= updates <= recorded.updates:
        raise OptionError(f"until must be between 1 and {recorded.updates}, the updates recorded; "
                          f"not {until}.")
    settings = recorded.settings
    return run_for(
        rebuild(settings["algorithm"]), rebuild(settings["objective"]), data,
        Replay(recorded.trace), settings["workers"], settings["seed"], updates,
        eval_data=eval_data, eval_every=eval_every,
    )  # fmt: skip
