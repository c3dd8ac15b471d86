"""Watching and stopping a run.

A callback may override any of six hooks. ``on_update`` and ``on_record`` may return a sentence:
the run then stops and reports it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from hemiola.errors import DataError
from hemiola.history import Record
from hemiola.job import Event, Job
from hemiola.types import Array


class Callback:
    """The protocol, with hooks that do nothing."""

    def on_start(self, job: Job, updates: int) -> None:
        """Before the first update; ``updates`` are planned at most."""

    def on_resume(self, records: Sequence[Record]) -> None:
        """After ``on_start``, if a checkpoint is resumed: the evaluations up to it, of which the
        first is that of the starting point."""

    def on_words(self, words: Sequence[str]) -> None:
        """Before the first pass of threads that share memory: what the solver has to say."""

    def on_update(self, event: Event) -> str | None:
        """After every update of the server: be quick."""

    def on_record(self, record: Record, model: Array) -> str | None:
        """After every evaluation; ``model`` (d,) is read-only and stays valid."""

    def on_end(self) -> None:
        """After the last update, also when the run failed."""


@dataclass
class TargetLoss(Callback):
    """Stop once the training loss is at most ``loss``."""

    loss: float

    def on_record(self, record: Record, model: Array) -> str | None:
        if record.loss <= self.loss:
            return f"the training loss reached the target {self.loss:g}"
        return None


@dataclass
class TimeLimit(Callback):
    """Stop after ``seconds`` on the run's clock (virtual in the simulator)."""

    seconds: float

    def on_update(self, event: Event) -> str | None:
        if event.clock >= self.seconds:
            return f"the time limit of {self.seconds:g} s was reached"
        return None


@dataclass
class EarlyStopping(Callback):
    """Stop when the evaluation loss has not improved by ``min_delta`` for ``patience`` records."""

    patience: int = 10
    min_delta: float = 0.0
    _best: float = float("inf")
    _since: int = 0

    def on_record(self, record: Record, model: Array) -> str | None:
        if record.eval_loss < self._best - self.min_delta:
            self._best, self._since = record.eval_loss, 0
            return None
        self._since += 1
        if self._since >= self.patience:
            return f"the evaluation loss has not improved for {self.patience} evaluations"
        return None


class JsonLines(Callback):
    """Write one JSON object an evaluation to a file, as it happens.

    The file of a resumed run begins with the evaluations up to its checkpoint.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._file: IO[str] | None = None

    def on_start(self, job: Job, updates: int) -> None:
        try:
            self._file = self._path.open("w", encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot write {self._path} ({error.strerror}).") from error

    def on_resume(self, records: Sequence[Record]) -> None:
        self._write(records[1:])

    def on_record(self, record: Record, model: Array) -> str | None:
        self._write([record])
        return None

    def _write(self, records: Sequence[Record]) -> None:
        assert self._file is not None
        self._file.writelines(json.dumps(asdict(record)) + "\n" for record in records)
        self._file.flush()

    def on_end(self) -> None:
        if self._file is not None:
            self._file.close()
