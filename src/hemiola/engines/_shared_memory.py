"""The loop of algorithms whose threads share memory: one pass over the data after another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hemiola.algorithm import SharedMemoryAlgorithm
from hemiola.contracts import Certifying
from hemiola.engines._clock import WallClock
from hemiola.job import Event, Job, Ledger, Work
from hemiola.types import State, copy_state


def passes(job: Job, resume: State | None) -> Iterator[Event]:
    """Yield an event a pass. Preparing the plan counts as time, except in a resumed run."""
    algorithm: Any = job.algorithm
    assert isinstance(algorithm, SharedMemoryAlgorithm)
    solver, source = algorithm.solver, job.source
    clock = WallClock()
    clock.set(0.0)
    plan = solver.prepare(Work(job.objective, source.data, job.workers, job.seed))  # type: ignore[attr-defined]
    if job.tell is not None:
        clock.pause()
        job.tell(solver.words(plan))
        clock.resume()
    step, state, ledger = 0, solver.init(plan, job.w0), Ledger(updates=[0] * job.workers)
    if resume is not None:
        saved = copy_state(resume)
        step, state, ledger = saved["step"], saved["solver"], Ledger(**saved["ledger"])
        clock.set(saved["clock"])

    def snapshot() -> dict[str, Any]:
        counts = {"step": step, "clock": clock.now(), "ledger": vars(ledger)}
        return copy_state({**counts, "solver": state, "server": server})

    def gap() -> float | None:
        return solver.gap(plan, state) if isinstance(solver, Certifying) else None

    server: dict[str, Any] = {}
    while True:
        stopped = solver.epoch(plan, state, step)
        step += 1
        ledger.pieces += job.workers
        ledger.local_steps += len(source.data)  # type: ignore[attr-defined]
        ledger.undone += [state["lost"]] if "lost" in state else []
        clock.pause()
        server = {"w": solver.model(plan, state)}
        yield Event(step, clock.now(), (), 0, server, ledger, snapshot, stopped, gap)
        clock.resume()
