"""The process that ranks are forked from: it has imported PyTorch when they are wanted."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from typing import Any

_PRELOAD = [
    "__main__",
    "hemiola.algorithms.registry",
    "hemiola.engines._replicated",
    "hemiola.engines._star",
    "hemiola.engines._warm",
    "hemiola.objectives.torch",
    "hemiola.partition",
    "scipy.sparse",
]


def fork_server() -> Any:
    """The context to start processes in. The server begins to import at once, beside this process,
    unless it is there already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    forkserver.ensure_running()
    return context
