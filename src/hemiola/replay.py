"""Repeating a recorded run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hemiola.algorithm import Algorithm
from hemiola.algorithms.rebuild import rebuild
from hemiola.checkpoint import digest
from hemiola.contracts import Objective
from hemiola.dataset import Dataset
from hemiola.engines.replay import Replay
from hemiola.errors import CheckpointError, OptionError
from hemiola.job import Job, Timeline
from hemiola.partition import Shards
from hemiola.result import Result
from hemiola.run import Plan, Run
from hemiola.timeline import check_timeline
from hemiola.trace import Recorded


def replay(
    recorded: Recorded,
    data: Dataset,
    *,
    eval_data: Dataset | None = None,
    until: int | None = None,
    callbacks: tuple[Any, ...] = (),
    timeline: str | Path | None = None,
) -> Result:
    """Repeat a recorded run, to the bit; with ``until``, only its first so many updates.

    ``data`` are the training data of the recorded run; ``timeline`` is as in :func:`hemiola.fit`,
    with the recorded times. Raises :class:`CheckpointError` when they
    are others or the trace makes no sense, :class:`OptionError` when ``until`` is beyond its end.
    """
    if timeline is not None:
        check_timeline(timeline)
    if digest(data) != recorded.data:
        raise CheckpointError(
            "the data are not those of the recorded run; give the same file, split and scaling."
        )
    updates = recorded.updates if until is None else until
    if not 1 <= updates <= recorded.updates:
        raise OptionError(
            f"until must be between 1 and {recorded.updates}, the updates recorded; not {until}."
        )
    workers, seed = recorded.settings["workers"], recorded.settings["seed"]
    algorithm, objective = (rebuild(recorded.settings[key]) for key in ("algorithm", "objective"))
    if not isinstance(algorithm, Algorithm) or not isinstance(objective, Objective):
        raise CheckpointError("the trace names no algorithm or no objective of this version.")
    source = Shards(data, algorithm.partition, workers, seed)
    job = Job(
        algorithm, objective, source, workers, seed, recorded.w0,
        timeline=None if timeline is None else Timeline(),
    )  # fmt: skip
    settings = {**recorded.settings, "replayed": True}
    run = Run(
        job, Replay(recorded.trace), data, eval_data, settings, list(callbacks),
        timeline=None if timeline is None else Path(timeline),
    )  # fmt: skip
    return run.train(Plan(updates, workers, max(1, updates // 100)))
