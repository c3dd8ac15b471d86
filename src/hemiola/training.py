"""The one function that trains: any algorithm, on any objective, data and engine."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hemiola.algorithm import Algorithm
from hemiola.algorithms.registry import build
from hemiola.callbacks import Callback
from hemiola.checkpoint import Checkpoint, digest
from hemiola.communicate import Synchronous
from hemiola.contracts import Engine, Objective, Source, Stream
from hemiola.dataset import Batch, Dataset, as_regression, make_dataset
from hemiola.describe import describe
from hemiola.engines import engine_class
from hemiola.errors import DataError, DivergedError, OptionError, TrainingInterrupted
from hemiola.history import History, Record, record_of
from hemiola.job import Event, Job, Ledger
from hemiola.learning_rate import with_learning_rate
from hemiola.objectives import LinearObjective
from hemiola.partition import Online, Shards
from hemiola.result import Model, Result, make_model
from hemiola.rng import stream
from hemiola.types import Array, State

_ONLINE_SAMPLE = 10_000
_EXPLODED = 1e6


@dataclass(frozen=True)
class Schedule:
    """How long a run takes and how often it is looked at, in server updates.

    Made by :func:`fit` from ``rounds`` and ``eval_every``: a synchronous round is one update, an
    asynchronous one as many updates as there are workers.
    """

    updates: int
    per_round: int
    every: int


def fit(
    algorithm: Algorithm | str,
    objective: Objective | str,
    data: Dataset | Stream | tuple[Any, Any],
    *,
    engine: Engine | str = "serial",
    workers: int = 4,
    rounds: int = 100,
    seed: int = 0,
    eval_data: Dataset | None = None,
    eval_every: int | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | None = None,
    resume: bool = False,
    keep_best: bool = False,
    w0: Array | None = None,
) -> Result:
    """Train a model.

    ``algorithm``   an :class:`Algorithm`, or the name of a recipe with its defaults;
    ``objective``   an :class:`Objective`, or ``auto``, ``logistic``, ``softmax``, ``squared``,
                    ``hinge`` (with l2 = 1/n);
    ``data``        a :class:`Dataset`, a pair (X, y), or a stream for online training;
    ``engine``      an :class:`Engine`, or the name of one with its defaults;
    ``workers``     K;
    ``rounds``      synchronous rounds; an asynchronous round is K updates of the server;
    ``seed``        of everything random: the same seed gives the same run;
    ``eval_data``   what the score is computed on; the training data if None;
    ``eval_every``  rounds between evaluations; about 100 evaluations a run if None;
    ``callbacks``   see :mod:`hemiola.callbacks`;
    ``checkpoint``  a directory: the run's state is kept there, at every evaluation and on Ctrl-C;
    ``resume``      continue from that directory's checkpoint;
    ``keep_best``   return the weights of the lowest evaluation loss instead of the last ones;
    ``w0``          start from these weights (d,), unless a checkpoint is resumed; the objective's
                    own starting point if None.

    Raises :class:`~hemiola.errors.HemiolaError`: :class:`DataError` and :class:`OptionError` for
    input that makes no sense, :class:`DivergedError` with the last good weights when the loss
    explodes, :class:`CheckpointError` for a checkpoint that does not fit.

    >>> from hemiola.data import load
    >>> result = fit("bmuf", "logistic", load("breast_cancer"), rounds=2)
    >>> len(result.weights), result.history.last.rounds
    (31, 2.0)
    """
    _check_counts(workers=workers, rounds=rounds, eval_every=eval_every)
    _check_seed(seed)
    data = make_dataset(*data) if isinstance(data, tuple) else data
    if isinstance(data, Dataset) and "squared" in (objective, getattr(objective, "loss", "")):
        data = as_regression(data)
    sample = data if isinstance(data, Dataset) else _held_out(data, seed)
    algorithm = build(algorithm) if isinstance(algorithm, str) else algorithm
    objective = make_objective(objective, sample) if isinstance(objective, str) else objective
    engine = engine_class(engine)() if isinstance(engine, str) else engine
    objective.check(sample)
    if eval_data is not None:
        _check_match(sample, eval_data)
    source: Source = (
        Shards(data, algorithm.partition, workers, seed)
        if isinstance(data, Dataset)
        else Online(data, seed)
    )
    with threadpool_limits(1, user_api="blas"):  # the estimate's sums, too, have one order
        algorithm = with_learning_rate(algorithm, objective, sample, source, workers)
    start = objective.init(sample, stream(seed, "init"))
    start = start if w0 is None else _starting_point(w0, start)
    job = Job(algorithm, objective, source, workers, seed, start)
    settings = {
        "algorithm": describe(algorithm),
        "objective": describe(objective),
        "engine": {"name": engine.name, **describe(engine)},
        "workers": workers,
        "seed": seed,
    }
    place = None if checkpoint is None else _checkpoint(Path(checkpoint), settings, job, sample)
    run = _Run(
        job,
        engine,
        sample,
        eval_data,
        {**settings, "rounds": rounds},
        list(callbacks),
        place,
        keep_best,
    )
    return run.train(_schedule(algorithm, workers, rounds, eval_every), resume)


def make_objective(name: str, data: Dataset, l2: float | None = None) -> LinearObjective:
    """A linear objective by name; ``auto`` chooses by the targets, and ``logistic`` becomes softmax
    for more than two classes. ``l2=None`` is 1/n, scikit-learn's C = 1."""
    if name in ("auto", "logistic") and data.n_classes > 2:
        name = "softmax"
    elif name == "auto":
        name = "squared" if data.classes is None else "logistic"
    return LinearObjective(name, 1 / len(data) if l2 is None else l2)  # type: ignore[arg-type]


def _held_out(data: Stream, seed: int) -> Dataset:
    """Samples of a stream to evaluate on, which training does not see."""
    return data.draw(stream(seed, "evaluation"), _ONLINE_SAMPLE)


@dataclass
class _Run:
    """One training run: consumes the engine's events."""

    job: Job
    engine: Engine
    data: Dataset
    eval_data: Dataset | None
    settings: dict[str, Any]
    callbacks: list[Callback]
    checkpoint: Checkpoint | None
    keep_best: bool
    history: History = field(default_factory=History)
    good: Array = field(default_factory=lambda: np.empty(0))
    best: tuple[float, Array] = (np.inf, np.empty(0))

    def train(self, plan: Schedule, resume: bool) -> Result:
        state = self._begin(resume)
        with ExitStack() as stack:
            stack.enter_context(threadpool_limits(1, user_api="blas"))
            interrupted = stack.enter_context(_ctrl_c_sets_a_flag())
            for callback in self.callbacks:
                stack.callback(callback.on_end)
                callback.on_start(self.job, plan.updates)
            stopped = self._loop(plan, state, interrupted)
        return self._result(stopped)

    def _begin(self, resume: bool) -> State | None:
        """Load the checkpoint, or evaluate the starting point."""
        if resume:
            if self.checkpoint is None:
                raise OptionError("to resume, name the directory of the checkpoint.")
            state, self.history, self.best = self.checkpoint.load()
            self.good = self.job.algorithm.aggregate.model(state["server"])
            return state
        self.history.metric = "r2" if self.data.classes is None else "accuracy"
        event = Event(0, 0.0, (), 0, None, Ledger(), lambda: None)
        self._record(event, self.job.w0, 1)
        return None

    def _loop(self, plan: Schedule, state: State | None, interrupted: threading.Event) -> str:
        done = "all rounds were done"
        if state is not None and state["step"] >= plan.updates:
            return done
        aggregate = self.job.algorithm.aggregate
        with closing(self.engine.run(self.job, state)) as events:  # type: ignore[type-var]
            for event in events:
                reason = self._notify(event)
                last = event.step >= plan.updates
                stop = last or reason is not None or interrupted.is_set()
                if stop or event.step % plan.every == 0:
                    record = self._record(event, aggregate.model(event.server), plan.per_round)
                    reason = self._notify_record(record) or reason
                    if self.checkpoint is not None:
                        self.checkpoint.save(event.snapshot(), self.history, self.best)
                if interrupted.is_set() and not last:
                    self._interrupt(event.step / plan.per_round)
                if reason is not None or last:
                    return reason or done
        raise AssertionError("engines yield events for ever")

    def _notify(self, event: Event) -> str | None:
        reasons = [callback.on_update(event) for callback in self.callbacks]
        return next((reason for reason in reasons if reason), None)

    def _notify_record(self, record: Record) -> str | None:
        reasons = [callback.on_record(record, self.good) for callback in self.callbacks]
        return next((reason for reason in reasons if reason), None)

    def _record(self, event: Event, w: Array, per_round: int) -> Record:
        """Evaluate; raise :class:`DivergedError` when the model is no longer finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            loss = self.job.objective.value(w, Batch(self.data))
            held_out = self.eval_data or self.data
            eval_loss = (
                loss if self.eval_data is None else self.job.objective.value(w, Batch(held_out))
            )
            reached = score(self.job.objective, w, held_out)
        first = self.history.records[0].loss if self.history.records else loss
        if not np.isfinite(loss) or not np.isfinite(w).all() or loss > _EXPLODED * max(first, 1):
            self._diverged(event.step / per_round)
        record = record_of(event, event.step / per_round, (loss, eval_loss, reached))
        self.history.records.append(record)
        self.history.staleness = list(event.ledger.staleness)
        self.history.worker_updates = list(event.ledger.updates)
        self.good = w
        if eval_loss < self.best[0]:
            self.best = (eval_loss, w)
        return record

    def _diverged(self, rounds: float) -> None:
        rates = ", ".join(f"{rate:.3g}" for rate in _rates(self.settings["algorithm"]))
        result = self._result("diverged") if self.history.records else None
        raise DivergedError(
            f"training diverged by round {rounds:g} with learning rate {rates or 'unknown'}: the "
            "loss is not finite or has exploded; try a learning rate ten times smaller "
            "(-o lr=...), or standardise the features.",
            result,
        )

    def _interrupt(self, rounds: float) -> None:
        where = None if self.checkpoint is None else self.checkpoint.directory
        raise TrainingInterrupted(
            f"interrupted after round {rounds:g}", self._result("interrupted"), where
        )

    def _result(self, stopped: str) -> Result:
        w = self.best[1] if self.keep_best else self.good
        model: Model = make_model(w, self.job.objective, self.data)
        return Result(model, self.history, self.settings, stopped)


def _schedule(algorithm: Algorithm, workers: int, rounds: int, eval_every: int | None) -> Schedule:
    discipline = algorithm.communicate
    if isinstance(discipline, Synchronous):
        rounds = min(rounds, discipline.rounds or rounds)
        per_round = 1
    else:
        per_round = workers
    every = eval_every or max(1, rounds // 100)
    return Schedule(rounds * per_round, per_round, every * per_round)


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


def _checkpoint(directory: Path, settings: dict[str, Any], job: Job, data: Dataset) -> Checkpoint:
    """Synchronous runs may change engines; asynchronous ones carry their engine's timing."""
    identity = {
        key: value
        for key, value in settings.items()
        if key != "engine" or not isinstance(job.algorithm.communicate, Synchronous)
    }
    return Checkpoint(directory, {**identity, "data": digest(data)})


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and (not isinstance(value, int | np.integer) or value < 1):
            raise OptionError(f"{name} must be a whole number of at least 1, not {value!r}.")


def _check_seed(seed: int) -> None:
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise OptionError(f"the seed must be a whole number from 0 to 2**64 - 1, not {seed!r}.")


def _starting_point(w0: Array, usual: Array) -> Array:
    """A copy of the given weights (d,), of the type of the usual ones."""
    w0 = np.asarray(w0)
    if w0.shape != usual.shape:
        raise OptionError(
            f"w0 has shape {w0.shape}, but this objective on these data has weights of shape "
            f"{usual.shape}."
        )
    if w0.dtype.kind not in "iufb" or not np.isfinite(w0).all():
        raise OptionError("w0 must hold finite numbers.")
    return w0.astype(usual.dtype)


def _check_match(data: Dataset, eval_data: Dataset) -> None:
    if data.n_features != eval_data.n_features:
        raise DataError(
            f"the evaluation data have {eval_data.n_features} features, the training "
            f"data {data.n_features}; they must be the same columns."
        )
    theirs = () if eval_data.classes is None else eval_data.classes
    if data.classes is not None and not np.array_equal(data.classes, theirs):
        raise DataError("the evaluation data have other classes than the training data.")


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
