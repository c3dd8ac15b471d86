"""Many steps of plain SGD in one call, where the objective has one for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hemiola.algorithm import MiniBatch, Task
from hemiola.types import Array


def can_fuse(task: Task) -> bool:
    """Whether the objective is a :class:`~hemiola.contracts.FusedObjective` and the batches are
    rows of one data set. (Asking for the protocol itself would take as long as a step.)"""
    return hasattr(task.objective, "sgd") and hasattr(task.source, "batches")


def fused_steps(
    w: Array, task: Task, steps: range, mini_batch: MiniBatch, rate: Callable[[int], float]
) -> Array:
    """A new w (d,) after one step w <- w - rate(t) g for every t in ``steps``."""
    objective: Any = task.objective
    source: Any = task.source
    rows, ends = source.batches(task.worker, steps, mini_batch)
    fused: Array = objective.sgd(w, source.data, rows, ends, np.array([rate(t) for t in steps]))
    return fused
