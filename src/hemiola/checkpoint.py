"""Checkpoints: one file from which a run continues bit for bit as if it had never stopped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hemiola.dataset import Dataset
from hemiola.errors import CheckpointError
from hemiola.history import History
from hemiola.storage import load_nest, save_nest
from hemiola.types import Array, State

_FORMAT = "hemiola-checkpoint-1"
FILE = "checkpoint.npz"


@dataclass(frozen=True)
class Checkpoint:
    """A place for one run's checkpoint, and what identifies the run.

    ``identity`` is plain data: a digest of the data, workers, seed, engine, objective and
    algorithm, in the order in which they are compared. The number of rounds is not part of it: a
    run may be continued for longer. Of processes that run the same program, one ``writes``.
    """

    directory: Path
    identity: dict[str, Any]
    writes: bool = True

    @property
    def path(self) -> Path:
        return self.directory / FILE

    def save(self, state: State, history: History, best: tuple[float, Array]) -> None:
        """Replace the checkpoint. Raises :class:`~hemiola.errors.DataError` if it cannot."""
        nest = {"format": _FORMAT, "identity": self.identity, "state": state, "best": best}
        save_nest(self.path, {**nest, "history": history.to_dict()})

    def load(self) -> tuple[State, History, tuple[float, Array]]:
        """The state to resume from, the history so far, and the best loss with its weights.

        Raises :class:`CheckpointError` when there is none, or it is damaged or of another run.
        """
        nest = self._read()
        saved = nest.get("identity", {})
        for key, value in self.identity.items():
            if saved.get(key) != value:
                path, theirs, ours = _difference(key, saved.get(key), value)
                raise CheckpointError(
                    f"{self.path} belongs to another run: its {path} is {_short(theirs)}, here "
                    f"it is {_short(ours)}; use the same settings, or another directory."
                )
        try:
            loss, weights = nest["best"]
            return nest["state"], History.from_dict(nest["history"]), (loss, weights)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path} is damaged: a part is missing.") from error

    def algorithm(self) -> Any:
        """The description of the saved run's algorithm. Raises :class:`CheckpointError`."""
        return self._read().get("identity", {}).get("algorithm")

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            raise CheckpointError(
                f"{self.directory} holds no checkpoint; leave out --resume to start anew."
            )
        nest = load_nest(self.path)
        if not isinstance(nest, dict) or nest.get("format") != _FORMAT:
            raise CheckpointError(f"{self.path} is not a checkpoint of this version of hemiola.")
        return nest


def _difference(path: str, theirs: Any, ours: Any) -> tuple[str, Any, Any]:
    """The path of the first option that differs, as in ``algorithm.local.steps``, and its values.

    Of components of different types, those are the values.
    """
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if theirs.get("type") != ours.get("type"):
            return path, theirs.get("type"), ours.get("type")
        for key in {**ours, **theirs}:
            if theirs.get(key) != ours.get(key):
                return _difference(f"{path}.{key}", theirs.get(key), ours.get(key))
    return path, theirs, ours


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."


def digest(data: Dataset) -> str:
    """A short hash of the features, the targets and the weights."""
    made = hashlib.blake2b(digest_size=16)
    X = data.X
    parts = (X.data, X.indices, X.indptr) if data.is_sparse else (X,)
    for part in (*parts, data.y, data.weight):
        if part is not None:
            made.update(np.ascontiguousarray(part).data)
    return made.hexdigest()
