"""The one function that trains: any algorithm, on any objective, data and engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hemiola.algorithm import Algorithm, AnyAlgorithm, SharedMemoryAlgorithm
from hemiola.algorithms.hybrid import regrouped
from hemiola.algorithms.rebuild import rebuild
from hemiola.algorithms.registry import build
from hemiola.callbacks import Callback
from hemiola.checkpoint import Checkpoint, digest
from hemiola.communicate import POLICIES, Grouped, SharedMemory, Synchronous
from hemiola.contracts import Engine, Objective, Sharded, Source, Stream
from hemiola.dataset import Dataset, as_regression, make_dataset
from hemiola.describe import describe
from hemiola.engines import engine_class
from hemiola.errors import CheckpointError, DataError, OptionError, UnsupportedError
from hemiola.extras import require
from hemiola.faults import Fault, Poison, check_faults
from hemiola.grouping import Groups, Measured
from hemiola.job import Job, Timeline, Trace
from hemiola.kernels.sdca import LOSSES as DUAL_LOSSES
from hemiola.learning_rate import with_learning_rate
from hemiola.measure import measured_groups
from hemiola.objectives import LinearObjective, factorization
from hemiola.options import parse_call
from hemiola.partition import Online, Shards, ShuffleSplit, Streamed, Whole
from hemiola.penalty import with_penalty
from hemiola.result import Result
from hemiola.rng import stream
from hemiola.run import Plan, Run
from hemiola.timeline import check_timeline
from hemiola.trace import TraceFile
from hemiola.types import Array

_SAMPLE = 10_000
FACTORIZATION = "factorization"
NETWORKS = ("mlp", "mlp2", "alexnet", "alexnet-full", "charlm")
"""Names of :mod:`hemiola.objectives.networks`, known without PyTorch."""


def fit(
    algorithm: AnyAlgorithm | str,
    objective: Objective | str,
    data: Dataset | Sharded | Stream | tuple[Any, Any],
    *,
    engine: Engine | str | None = None,
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
    trace: str | Path | TraceFile | None = None,
    timeline: str | Path | None = None,
    faults: Sequence[Fault] = (),
) -> Result:
    """Train a model.

    ``algorithm``   an :class:`Algorithm`, or the name of a recipe with its defaults;
    ``objective``   an :class:`Objective`, or ``auto``, ``logistic``, ``softmax``, ``squared``,
                    ``hinge`` (with l2 = 1/n); ``factorization`` of ratings; or a network, ``mlp``,
                    ``mlp(hidden=32)``, ``mlp2``, ``alexnet``, ``charlm``,
                    ``package.module:factory``;
    ``data``        a :class:`Dataset`, a pair (X, y), shards on disk (:func:`hemiola.open_shards`),
                    or a stream for online training;
    ``engine``      an :class:`Engine`, or the name of one with its defaults; ``threads`` for
                    algorithms that share memory and ``serial`` for all others if None;
    ``workers``     K;
    ``rounds``      synchronous rounds; an asynchronous round is K pieces of work; with shared
                    memory, passes over the data;
    ``seed``        of everything random: the same seed gives the same run;
    ``eval_data``   what the score is computed on; the training data if None. Of shards on disk and
                    of streams, loss and score are those of a sample of 10,000 rows;
    ``eval_every``  rounds between evaluations; about 100 evaluations a run if None;
    ``callbacks``   see :mod:`hemiola.callbacks`;
    ``checkpoint``  a directory: the run's state is kept there, at every evaluation and on Ctrl-C;
    ``resume``      continue from that directory's checkpoint;
    ``keep_best``   return the weights of the lowest evaluation loss instead of the last ones;
    ``w0``          start from these weights (d,), unless a checkpoint is resumed; the objective's
                    own starting point if None;
    ``trace``       a file to record the order of events in, for :func:`hemiola.replay.replay`;
                    asynchronous algorithms on a finite data set only;
    ``timeline``    a file to draw in who did what when (.png, .svg, .pdf), or to write it to for
                    Perfetto (.json); of a resumed run, since it was resumed.
    ``faults``      what is to befall the workers, see :mod:`hemiola.faults`; on the engines
                    ``simulator``, ``threads`` and ``processes``.

    Raises :class:`~hemiola.errors.HemiolaError`: :class:`DataError` and :class:`OptionError` for
    input that makes no sense, :class:`DivergedError` with the last good weights when the loss
    explodes, :class:`WorkersLostError` when workers are gone without whom the run cannot or should
    not go on, :class:`CheckpointError` for a checkpoint that does not fit.

    >>> from hemiola.data import load
    >>> result = fit("bmuf", "logistic", load("breast_cancer"), rounds=2)
    >>> len(result.weights), result.history.last.rounds
    (31, 2.0)
    """
    _check_counts(workers=workers, rounds=rounds, eval_every=eval_every)
    _check_seed(seed)
    if timeline is not None:
        check_timeline(timeline)
    if isinstance(data, tuple):
        data = make_dataset(*data)
    if "squared" in (objective, getattr(objective, "loss", "")):
        data = _with_real_targets(data)
    assert not isinstance(data, tuple)
    sample = _sample(data, seed)
    algorithm = build(algorithm) if isinstance(algorithm, str) else algorithm
    if isinstance(objective, str):
        linear = not is_network(objective)
        l2 = 1 / len(data) if isinstance(data, Sharded) and linear else None
        objective = make_objective(objective, sample, l2)
    engine = usual_engine([algorithm]) if engine is None else engine
    engine = engine_class(engine)() if isinstance(engine, str) else engine
    _check_engine(algorithm, engine)
    if checkpoint is not None and getattr(engine, "restarted", False):
        resume = resume or Checkpoint(Path(checkpoint), {}).path.exists()
    objective.check(sample)
    start = objective.init(sample, stream(seed, "init"))
    start = start if w0 is None else _starting_point(w0, start)
    if eval_data is not None:
        _check_match(sample, eval_data)

    algorithm = with_penalty(algorithm, objective, sample)

    def job_of(algorithm: AnyAlgorithm) -> Job:
        source = source_of(algorithm, data, workers, seed)
        with threadpool_limits(1, user_api="blas"):  # the estimate's sums, too, have one order
            algorithm = with_learning_rate(algorithm, objective, sample, source, workers)
        record = None if trace is None else Trace()
        spans = None if timeline is None else Timeline()
        chosen: Any = algorithm  # engines tell the two kinds apart by their discipline
        return Job(
            chosen, objective, source, workers, seed, start, record, spans,
            check_faults(faults, workers),
        )  # fmt: skip

    if isinstance(algorithm, Algorithm) and _is_ungrouped(algorithm):
        saved = Path(checkpoint) if resume and checkpoint is not None else None
        algorithm = regrouped(algorithm, *_groups(job_of(algorithm), engine, saved))
    job = job_of(algorithm)
    algorithm = job.algorithm
    _check_policies(job, checkpoint)
    synchronous = isinstance(algorithm.communicate, Synchronous)
    settings: dict[str, Any] = {
        "algorithm": describe(algorithm),
        "objective": describe(objective),
        "engine": {"name": engine.name, **describe(engine)},
        "workers": workers,
        "seed": seed,
    }
    leads = bool(getattr(engine, "leads", True))
    place = None
    if checkpoint is not None:
        place = replace(_checkpoint(Path(checkpoint), settings, job, sample), writes=leads)
    settings["rounds"] = rounds
    if job.faults:
        settings["faults"] = describe(job.faults)
    file = TraceFile(Path(trace)) if isinstance(trace, str | Path) else trace
    if file is not None and (synchronous or not isinstance(data, Dataset)):
        raise OptionError(
            "only asynchronous runs on a finite data set in memory are traced: the outcome of "
            "all others is given by their settings."
        )
    run = Run(
        job, engine, sample, eval_data, settings, list(callbacks), place, keep_best,
        file if leads else None, Path(timeline) if leads and timeline is not None else None,
    )  # fmt: skip
    return run.train(_plan(algorithm, workers, rounds, eval_every), resume)


def usual_engine(algorithms: Iterable[AnyAlgorithm]) -> str:
    """The engine for these where none is named.

    >>> usual_engine([build("ssgd")]), usual_engine([build("ssgd"), build("tiered")])
    ('serial', 'threads')
    """
    shared = any(isinstance(algorithm, SharedMemoryAlgorithm) for algorithm in algorithms)
    return "threads" if shared else "serial"


def usual_algorithm(objective: Objective) -> str:
    """The algorithm for this objective where none is named.

    ``sdca`` for losses with a dual and an L2 penalty, as it needs no learning rate and knows when
    it is done; ``tiered`` for other linear models; ``ssgd`` for everything else.

    >>> from hemiola.objectives import logistic, softmax
    >>> usual_algorithm(logistic(0.1)), usual_algorithm(logistic(0.0)), usual_algorithm(softmax())
    ('sdca', 'tiered', 'tiered')
    """
    if not isinstance(objective, LinearObjective):
        return "ssgd"
    return "sdca" if objective.loss in DUAL_LOSSES and objective.l2 > 0 else "tiered"


def _check_engine(algorithm: AnyAlgorithm, engine: Engine) -> None:
    """Engines refuse disciplines by themselves, but none that they have never heard of."""
    if isinstance(algorithm, SharedMemoryAlgorithm) and SharedMemory not in engine.supports:
        raise UnsupportedError(
            f"engine {engine.name} cannot run {algorithm.name}, whose threads share memory; use "
            "engine threads."
        )


def make_objective(name: str, data: Dataset, l2: float | None = None, l1: float = 0.0) -> Objective:
    """An objective by name; ``auto`` chooses by the targets, and ``logistic`` becomes softmax for
    more than two classes. ``l2=None`` is 1/n, scikit-learn's C = 1, for linear objectives (0 if
    there is an l1), 0.05 for factorisation and 0 for networks."""
    if is_network(name):
        require("torch", "torch")
        from hemiola.objectives.torch import network

        if l1:
            raise OptionError("networks have no L1 penalty; leave l1 out.")
        return network(name, data, 0.0 if l2 is None else l2)
    if is_factorization(name):
        return _factorization(name, data, l2, l1)
    if name in ("auto", "logistic") and data.n_classes > 2:
        name = "softmax"
    elif name == "auto":
        name = "squared" if data.classes is None else "logistic"
    if l2 is None:
        l2 = 0.0 if l1 else 1 / len(data)
    return LinearObjective(name, l2, l1=l1)  # type: ignore[arg-type]


def is_factorization(name: str) -> bool:
    """Whether an objective's name means matrix factorisation, of ratings.

    >>> is_factorization("factorization(rank=8)"), is_factorization("squared")
    (True, False)
    """
    return name.partition("(")[0] == FACTORIZATION


def _factorization(name: str, data: Dataset, l2: float | None, l1: float) -> Objective:
    if l1:
        raise OptionError(f"{FACTORIZATION} has no L1 penalty; leave l1 out.")
    sizes = parse_call(name)[1]
    if unknown := sizes.keys() - {"rank"}:
        raise OptionError(f"{FACTORIZATION} has a rank, no {', '.join(sorted(unknown))}.")
    return factorization(data, **sizes) if l2 is None else factorization(data, **sizes, l2=l2)


def is_network(name: str) -> bool:
    """Whether an objective's name means a network: of the zoo, or ``package.module:factory``.

    >>> is_network("mlp(hidden=32)"), is_network("my.nets:small"), is_network("logistic")
    (True, True, False)
    """
    return ":" in name or name.partition("(")[0] in NETWORKS


def _is_ungrouped(algorithm: Algorithm) -> bool:
    discipline = algorithm.communicate
    return isinstance(discipline, Grouped) and discipline.groups is None


def source_of(
    algorithm: AnyAlgorithm, data: Dataset | Sharded | Stream, workers: int, seed: int
) -> Source:
    """Where mini-batches come from; threads that share memory all see the whole data."""
    if not isinstance(algorithm, SharedMemoryAlgorithm):
        if isinstance(data, Dataset):
            return Shards(data, algorithm.partition, workers, seed)
        if isinstance(data, Sharded):
            return streamed(algorithm, data, workers, seed)
        return Online(data, seed)
    if not isinstance(data, Dataset):
        if isinstance(data, Sharded):
            raise OptionError(
                f"{algorithm.name} lays all rows out in memory and cannot train from shards on "
                "disk: load them (open_shards(...).load()), or use model-averaging, fedavg or asgd."
            )
        raise OptionError(f"{algorithm.name} passes over a finite data set, not over a stream.")
    return Shards(data, Whole(), 1, seed)


def streamed(algorithm: Algorithm, data: Sharded, workers: int, seed: int) -> Streamed:
    """The source for shards on disk, which leaves nothing to the algorithm's partition."""
    if not isinstance(algorithm.partition, ShuffleSplit):
        raise OptionError(
            f"{algorithm.name}: shards on disk are dealt as they are; the partition "
            f"{type(algorithm.partition).__name__} needs data in memory (hemiola.load)."
        )
    return Streamed(data, workers, seed)


def _groups(job: Job, engine: Engine, resumed: Path | None) -> tuple[Groups, Measured]:
    """Who works together: as measured now, or as in the checkpoint of a resumed run."""
    if resumed is None:
        return measured_groups(job, engine)
    saved = rebuild(Checkpoint(resumed, {}).algorithm())
    discipline = getattr(saved, "communicate", None)
    if not isinstance(discipline, Grouped) or not (discipline.groups and discipline.measured):
        raise CheckpointError(f"{resumed} is the checkpoint of a run without measured groups.")
    return discipline.groups, discipline.measured


def _with_real_targets(data: Any) -> Any:
    if isinstance(data, Dataset):
        return as_regression(data)
    return data.as_regression() if isinstance(data, Sharded) else data


def _sample(data: Dataset | Sharded | Stream, seed: int) -> Dataset:
    """What to evaluate on: everything in memory, some rows of shards, or samples of a stream,
    which training does not see."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Sharded):
        return data.sample(_SAMPLE, seed)
    return data.draw(stream(seed, "evaluation"), getattr(data, "held_out", _SAMPLE))


def _plan(algorithm: AnyAlgorithm, workers: int, rounds: int, eval_every: int | None) -> Plan:
    discipline = algorithm.communicate
    if isinstance(discipline, SharedMemory):
        per_round = 1
    elif isinstance(discipline, Synchronous):
        rounds = min(rounds, discipline.rounds or rounds)
        per_round = 1
    else:
        per_round = workers
    every = eval_every or max(1, rounds // 100)
    by_pieces = isinstance(discipline, Grouped)
    return Plan(rounds * per_round, per_round, every * per_round, by_pieces)


def _checkpoint(directory: Path, settings: dict[str, Any], job: Job, data: Dataset) -> Checkpoint:
    """Synchronous runs may change engines, and how long they wait for whom; asynchronous ones carry
    their engine's timing.

    Causes come before what may follow from them, as a learning rate does from the data.
    """
    identity = {"data": digest(data), "workers": settings["workers"], "seed": settings["seed"]}
    algorithm = settings["algorithm"]
    if isinstance(job.algorithm.communicate, Synchronous):
        discipline = algorithm["communicate"]
        kept = {key: value for key, value in discipline.items() if key not in POLICIES}
        algorithm = {**algorithm, "communicate": kept}
    else:
        identity["engine"] = settings["engine"]
    identity |= {"objective": settings["objective"], "algorithm": algorithm}
    return Checkpoint(directory, identity)


def _check_policies(job: Job, checkpoint: str | Path | None) -> None:
    discipline = job.algorithm.communicate
    restarts = isinstance(discipline, Synchronous) and discipline.on_loss == "restart"
    if restarts and checkpoint is None:
        raise OptionError(
            "on_loss='restart' goes back to the last checkpoint: name a directory for it with "
            "checkpoint=... (on the command line --checkpoint DIR)."
        )
    if job.trace is not None and any(isinstance(fault, Poison) for fault in job.faults):
        raise OptionError(
            "a trace does not hold what workers sent, so a poisoned run cannot be repeated from "
            "it; leave out the trace, or the poison."
        )


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
