"""Traces on disk: what is needed to repeat a run to the bit.

A trace file is one NPZ (see :mod:`hemiola.storage`) of version ``hemiola-trace-1``:

``settings``   plain data: algorithm, objective, engine, workers, seed, rounds
``origin``     plain data: where the data came from, if the recorder knew
``data``       digest of the training data
``w0``         (d,) the starting point
``updates``    updates of the server;  ``weights_sha256`` of the last model
``kinds``      (m,) uint8: 0 a worker read the model and began, 1 its message arrived,
               2 it went away, 3 it came back
``workers``    (m,) int32;  ``seconds`` (m,) float64: who, and when
``computed``   (m,) float64: seconds that an arrived piece was computed; files without it are fine

Which samples a worker draws is not stored: a batch is a function of seed, worker and step. Loading
builds only this library's components and runs no code from the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hemiola.checkpoint import digest
from hemiola.dataset import Dataset
from hemiola.errors import CheckpointError
from hemiola.job import Job, Trace
from hemiola.storage import load_nest, save_nest
from hemiola.types import Array

_FORMAT = "hemiola-trace-1"


@dataclass(frozen=True)
class TraceFile:
    """Where to record a trace, and what to note about the origin of the data."""

    path: Path
    origin: dict[str, Any] = field(default_factory=dict)

    def save(
        self, job: Job, data: Dataset, settings: dict[str, Any], updates: int, sha256: str
    ) -> None:
        """Write the job's trace up to its last evaluation, atomically."""
        assert job.trace is not None
        save_nest(
            self.path,
            {
                "format": _FORMAT,
                "settings": settings,
                "origin": self.origin,
                "data": digest(data),
                "updates": updates,
                "weights_sha256": sha256,
                "w0": job.w0,
                **job.trace.snapshot(),
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
    w0: Array
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
            int(nest["updates"]), str(nest["weights_sha256"]),
            np.asarray(nest["w0"]), trace,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
