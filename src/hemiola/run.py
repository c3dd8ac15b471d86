"""Consuming an engine's events: evaluating, notifying, keeping, stopping."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hemiola.algorithm import SharedMemoryAlgorithm
from hemiola.callbacks import Callback
from hemiola.checkpoint import Checkpoint
from hemiola.communicate import Synchronous
from hemiola.contracts import Engine, Measured, Objective, Personal
from hemiola.dataset import Batch, Dataset
from hemiola.errors import (
    DivergedError,
    OptionError,
    RestartError,
    StreamEnded,
    TrainingInterrupted,
    WorkersLostError,
)
from hemiola.faults import not_yet
from hemiola.history import History, Record, record_of
from hemiola.job import Event, Job, Ledger
from hemiola.result import Model, Result, make_model
from hemiola.timeline import save_timeline
from hemiola.trace import TraceFile
from hemiola.types import Array, State

_EXPLODED = 1e6


@dataclass(frozen=True)
class Plan:
    """How long a run takes and how often it is looked at, in server updates or, if ``by_pieces``,
    in pieces of work that were applied: a group's update holds one of each member.

    A synchronous round is one update, an asynchronous one a piece of work for every worker.
    """

    updates: int
    per_round: int
    every: int
    by_pieces: bool = False

    def at(self, event: Event) -> int:
        """How far a run has come."""
        return event.ledger.pieces if self.by_pieces else event.step


@dataclass
class Run:
    """One training run: consumes the engine's events, evaluates, keeps and stops.

    ``data`` are the training data that the loss is computed on, ``eval_data`` what the score is
    computed on (None: the same), ``settings`` plain data to report.
    """

    job: Job
    engine: Engine
    data: Dataset
    eval_data: Dataset | None
    settings: dict[str, Any]
    callbacks: list[Callback]
    checkpoint: Checkpoint | None = None
    keep_best: bool = False
    trace: TraceFile | None = None
    timeline: Path | None = None
    history: History = field(default_factory=History)
    good: Array = field(default_factory=lambda: np.empty(0))
    best: tuple[float, Array] = (np.inf, np.empty(0))
    kept: bool = False
    ended: str = ""
    personal: Array | None = None

    def train(self, plan: Plan, resume: bool = False) -> Result:
        state = self._begin(resume)
        with ExitStack() as stack:
            stack.enter_context(threadpool_limits(1, user_api="blas"))
            stack.enter_context(np.errstate(over="ignore", invalid="ignore"))  # seen in the loss
            interrupted = stack.enter_context(_ctrl_c_sets_a_flag())
            for callback in self.callbacks:
                stack.callback(callback.on_end)
                callback.on_start(self.job, plan.updates)
                if state is not None:
                    callback.on_resume(self.history.records)
            try:
                stopped = self._persist(plan, state, interrupted)
            except WorkersLostError as error:
                error.result = self._result("workers were lost")
                raise
            except DivergedError as error:
                if error.result is not None:
                    raise
                why = str(error).removeprefix("training diverged: ").rstrip(".")
                raise self._diverged(self.history.last.rounds, why) from error
            finally:
                self._save_trace()
                self._save_timeline()
        return self._result(stopped)

    def _save_trace(self) -> None:
        if self.trace is not None:
            last = make_model(self.good, self.job.objective, self.data)
            updates = self.history.last.updates
            self.trace.save(self.job, self.data, self.settings, updates, last.sha256)

    def _save_timeline(self) -> None:
        if self.timeline is not None and self.job.timeline is not None:
            name = self.settings["engine"]["name"]
            end = self.history.last.seconds
            groups = [book["members"] for book in self.history.groups if book["until"] == end]
            save_timeline(
                self.timeline, self.job.timeline, self.job.workers, end, groups or None,
                title=f"{self.job.algorithm.name}, {self.job.workers:,} workers, engine {name}",
                time_label="seconds (virtual)" if name == "simulator" else "seconds",
            )  # fmt: skip

    def _begin(self, resume: bool) -> State | None:
        """Load the checkpoint, or evaluate the starting point."""
        if resume:
            if self.checkpoint is None:
                raise OptionError("to resume, name the directory of the checkpoint.")
            state, self.history, self.best = self.checkpoint.load()
            self.good = self.job.algorithm.aggregate.model(state["server"])
            self.kept = True
            return state
        self.history.metric = "r2" if self.data.classes is None else "accuracy"
        event = Event(0, 0.0, (), 0, None, Ledger(), lambda: None)
        self._record(event, self.job.w0, 0.0)
        return None

    def _persist(self, plan: Plan, state: State | None, interrupted: threading.Event) -> str:
        """The loop, and again from the last checkpoint when a worker died and that is wanted."""
        while True:
            try:
                return self._loop(plan, state, interrupted)
            except RestartError as lost:
                state = self._go_back(lost)

    def _go_back(self, lost: RestartError) -> State | None:
        """The state of the last checkpoint, or of the start, to go on from with all workers."""
        discipline, restarts = self.job.algorithm.communicate, self.history.restarts
        assert isinstance(discipline, Synchronous)
        if restarts >= discipline.restarts:
            times = "once" if restarts == 1 else f"{restarts} times"
            raise WorkersLostError(
                f"{lost}, and the run has been restarted {times} already; allow more restarts, or "
                "go on without the dead with on_loss='drop'."
            ) from lost
        self.job = replace(self.job, faults=not_yet(self.job.faults, lost.begun))
        if not self.kept:
            self.history = History()
        state = self._begin(resume=self.kept)
        self.history.restarts = restarts + 1
        return None if state is None else {**state, "afresh": True}

    def _loop(self, plan: Plan, state: State | None, interrupted: threading.Event) -> str:
        done = "all rounds were done"
        at = 0
        if state is not None:
            at = state["ledger"]["pieces"] if plan.by_pieces else state["step"]
        if at >= plan.updates:
            self._keep_personal(state)
            return done
        aggregate = self.job.algorithm.aggregate
        shared = isinstance(self.job.algorithm, SharedMemoryAlgorithm)
        job = replace(self.job, tell=self._tell) if shared else self.job
        event = None
        with closing(self.engine.run(job, state)) as events:  # type: ignore[type-var]
            for event in self._until_the_end(events):
                reason = self._notify(event) or event.stopped
                before, at = at, plan.at(event)
                last = at >= plan.updates
                stop = last or reason is not None or interrupted.is_set()
                if stop or at // plan.every > before // plan.every:
                    rounds = at / plan.per_round
                    record = self._record(event, aggregate.model(event.server), rounds)
                    reason = self._notify_record(record) or reason
                    if self.checkpoint is not None:
                        if self.checkpoint.writes:
                            self.checkpoint.save(event.snapshot(), self.history, self.best)
                        self.kept = True
                if (stop or reason) and isinstance(_local_of(self.job), Personal):
                    self._keep_personal(event.snapshot())
                if interrupted.is_set() and not last:
                    self._interrupt(at / plan.per_round)
                if reason is not None or last:
                    return reason or done
        if not self.ended:
            raise AssertionError("engines yield events for ever")
        if event is not None and event.step > self.history.last.updates:
            self._notify_record(
                self._record(event, aggregate.model(event.server), at / plan.per_round)
            )
        return self.ended

    def _until_the_end(self, events: Iterator[Event]) -> Iterator[Event]:
        """All events; those of a stream that ends are finite, and end well."""
        try:
            yield from events
        except StreamEnded as end:
            self.ended = str(end)

    def _tell(self, words: list[str]) -> None:
        for callback in self.callbacks:
            callback.on_words(words)

    def _notify(self, event: Event) -> str | None:
        reasons = [callback.on_update(event) for callback in self.callbacks]
        return next((reason for reason in reasons if reason), None)

    def _notify_record(self, record: Record) -> str | None:
        reasons = [callback.on_record(record, self.good) for callback in self.callbacks]
        return next((reason for reason in reasons if reason), None)

    def _record(self, event: Event, w: Array, rounds: float) -> Record:
        """Evaluate; raise :class:`DivergedError` when the model is no longer finite."""
        objective, held_out = self.job.objective, self.eval_data or self.data
        loss = objective.value(w, Batch(self.data))
        eval_loss = loss if self.eval_data is None else objective.value(w, Batch(held_out))
        reached = score(objective, w, held_out)
        first = self.history.records[0].loss if self.history.records else loss
        if not np.isfinite(loss) or not np.isfinite(w).all() or loss > _EXPLODED * max(first, 1):
            raise self._diverged(rounds, "the loss is not finite or has exploded")
        aggregate = self.job.algorithm.aggregate
        measures = {}
        if isinstance(aggregate, Measured) and event.server is not None:
            measures = aggregate.measures(event.server)
        record = record_of(event, rounds, (loss, eval_loss, reached), measures)
        self.history.records.append(record)
        self.history.take(event.ledger, event.clock)
        self.good = w
        if eval_loss < self.best[0]:
            self.best = (eval_loss, w)
        return record

    def _diverged(self, rounds: float, why: str) -> DivergedError:
        rates = ", ".join(f"{rate:.3g}" for rate in _rates(self.settings["algorithm"]))
        result = self._result("diverged") if self.history.records else None
        return DivergedError(
            f"training diverged by round {rounds:g} with learning rate {rates or 'unknown'}: "
            f"{why}; try a learning rate ten times smaller (-o lr=...), or standardise the "
            "features.",
            result,
        )

    def _keep_personal(self, snapshot: State | None) -> None:
        """The workers' own models (K, d), if they have such; of who never worked, the start."""
        local = _local_of(self.job)
        own = local if isinstance(local, Personal) else None
        if snapshot is None or own is None:
            return
        states = [local.init(self.job.w0) if s is None else s for s in snapshot["workers"]]
        self.personal = np.array([own.own_model(state) for state in states])

    def _interrupt(self, rounds: float) -> None:
        where = None if self.checkpoint is None else self.checkpoint.directory
        raise TrainingInterrupted(
            f"interrupted after round {rounds:g}", self._result("interrupted"), where
        )

    def _result(self, stopped: str) -> Result:
        w = self.best[1] if self.keep_best else self.good
        model: Model = make_model(w, self.job.objective, self.data)
        return Result(model, self.history, self.settings, stopped, self.personal)


def _local_of(job: Job) -> Any:
    """What its workers do alone; None where threads share memory."""
    return getattr(job.algorithm, "local", None)


def score(objective: Objective, w: Array, data: Dataset) -> float:
    """Accuracy of the model w (d,) on the data, or R^2 for real targets."""
    predicted = objective.predict(w, data.X)
    if data.classes is not None:
        return float((predicted == data.y).mean())
    rest = float(np.square(data.y - predicted).sum())
    total = float(np.square(data.y - data.y.mean()).sum())
    return 1 - rest / total if total else 0.0


def _rates(settings: Any) -> Iterator[float]:
    """All learning rates in an algorithm's description."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            if key == "lr" and value is not None:
                yield value
            else:
                yield from _rates(value)


@contextmanager
def _ctrl_c_sets_a_flag() -> Iterator[threading.Event]:
    """The first Ctrl-C stops the run after the current round, the second at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handler(number: int, frame: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
