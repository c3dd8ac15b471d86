"""Hemiola's algorithms and other packages' solvers of logistic regression, told apart by nothing.

A solver *walks*: given data, an L2 penalty and the numbers of passes at which somebody wants to
look, it yields how many passes it has made, the seconds so far, and the weights then. What can make
one more pass does so; others start anew with more iterations. Seconds hold laying out the data, the
estimate of a learning rate and everything else that hemiola does before the first pass; of the
peers they hold what ``fit`` does, but not the conversions that liblinear, xgboost and Vowpal Wabbit
ask their callers for. Compiling is left out.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, process_time, thread_time
from typing import Any, TypeVar

import kernels
import numpy as np
from scipy import sparse
from sklearn.datasets import dump_svmlight_file
from sklearn.linear_model import LogisticRegression, SGDClassifier

from hemiola.algorithms.registry import build
from hemiola.dataset import Dataset
from hemiola.engines import engine_class
from hemiola.job import Job, Work
from hemiola.kernels import Rows
from hemiola.learning_rate import with_learning_rate
from hemiola.objectives import LinearObjective
from hemiola.partition import Shards, Whole

T = TypeVar("T")
Point = tuple[int, float, Any]
Walk = Callable[[Dataset, float, Sequence[int]], Iterator[Point]]


@dataclass(frozen=True)
class Solver:
    """``counts`` says whether its passes visit every non-zero about once, and so have a price."""

    name: str
    threads: int
    walk: Walk
    counts: bool = True
    needs: str = "sklearn"

    @property
    def is_here(self) -> bool:
        return find_spec(self.needs) is not None


@dataclass
class Stopwatch:
    """Seconds of what it runs: on the wall, or on the processor, which others do not lengthen.

    The processor's are those of the calling thread; of what has ``threads`` of its own, those of
    the process over their number, as if they had shared the work out perfectly.
    """

    wall: bool
    threads: int | None = None
    seconds: float = 0.0

    def now(self) -> float:
        if self.wall:
            return perf_counter()
        return thread_time() if self.threads is None else process_time() / self.threads

    def run(self, work: Callable[[], T]) -> T:
        begun = self.now()
        result = work()
        self.seconds += self.now() - begun
        return result


@dataclass(frozen=True)
class Catalogue:
    """All solvers, measured by one kind of clock."""

    wall: bool
    seed: int = 0

    def of(self, sparse_rows: bool, features: int) -> list[Solver]:
        """Those for such data, installed or not."""
        return [*self._floor(sparse_rows), *self._own(sparse_rows), *self._peers(features)]

    def _floor(self, sparse_rows: bool) -> list[Solver]:
        return [Solver("floor", 1, self.floor)] if sparse_rows else []

    def _own(self, sparse_rows: bool) -> list[Solver]:
        names = ["tiered", "hogwild", "sdca", *(["cyclades"] if sparse_rows else [])]
        shared = [
            Solver(name, threads, partial(self.passes, name, threads))
            for name in names
            for threads in (1, 2)
        ]
        rounds = [Solver("cocoa", k, partial(self.rounds, "cocoa", k)) for k in (1, 2)]
        return shared + rounds

    def _peers(self, features: int) -> list[Solver]:
        newton = "newton-cholesky" if features <= 3000 else "newton-cg"
        return [
            Solver("SGDClassifier", 1, partial(self.sgd, True)),
            Solver("SGDClassifier, shuffle=False", 1, partial(self.sgd, False)),
            *(Solver(f"sklearn {s}", 1, partial(self.scikit, s)) for s in ("lbfgs", "saga")),
            Solver(f"sklearn {newton}", 1, partial(self.scikit, newton), counts=False),
            Solver("liblinear -s 0", 1, partial(self.liblinear, 0), False, "liblinear"),
            Solver("liblinear -s 7", 1, partial(self.liblinear, 7), False, "liblinear"),
            Solver("Vowpal Wabbit", 1, self.wabbit, needs="vowpalwabbit"),
            *(Solver("snapml", k, partial(self.snapml, k), needs="snapml") for k in (1, 2)),
            *(Solver("xgboost", k, partial(self.xgboost, k), needs="xgboost") for k in (1, 2)),
        ]

    def floor(self, data: Dataset, l2: float, counts: Sequence[int]) -> Iterator[Point]:
        """What no SGD can do without; its weights mean nothing."""
        step, watch = kernels.floor(Rows.of(data, self.seed)), Stopwatch(self.wall)
        for k in range(1, max(counts) + 1):
            watch.run(partial(step, k))
            yield k, watch.seconds, None

    def passes(
        self, name: str, threads: int, data: Dataset, l2: float, counts: Sequence[int]
    ) -> Iterator[Point]:
        """One of the algorithms whose threads share memory."""
        objective, watch = LinearObjective("logistic", l2), Stopwatch(self.wall)
        w0 = objective.init(data, np.random.default_rng(self.seed))
        work = Work(objective, data, threads, self.seed)
        solver = watch.run(lambda: self._rated(name, work).solver)
        plan = watch.run(lambda: solver.prepare(work))
        team = kernels.Threads(plan.team)
        plan.team.run = team.run
        state = watch.run(lambda: solver.init(plan, w0))
        for k in range(1, max(counts) + 1):
            watch.run(partial(solver.epoch, plan, state, k - 1))
            beyond = 0.0 if self.wall else team.beyond
            if k in counts:
                last = Stopwatch(self.wall)
                w = last.run(lambda: solver.model(plan, state))
                yield k, watch.seconds + beyond + last.seconds, w

    def rounds(
        self, name: str, workers: int, data: Dataset, l2: float, counts: Sequence[int]
    ) -> Iterator[Point]:
        """One of the algorithms that send messages, on threads."""
        objective = LinearObjective("logistic", l2)
        watch = Stopwatch(self.wall, workers)
        w0 = objective.init(data, np.random.default_rng(self.seed))
        algorithm = build(name)

        def start() -> Iterator[Any]:
            source = Shards(data, algorithm.partition, workers, self.seed)
            job = Job(algorithm, objective, source, workers, self.seed, w0)
            return engine_class("threads")().run(job, None)

        events = watch.run(start)
        for k in range(1, max(counts) + 1):
            event = watch.run(lambda: next(events))
            if k in counts:
                yield k, watch.seconds, algorithm.aggregate.model(event.server)

    def _rated(self, name: str, work: Work) -> Any:
        source = Shards(work.data, Whole(), 1, self.seed)
        return with_learning_rate(build(name), work.objective, work.data, source, work.threads)

    def sgd(
        self, shuffle: bool, data: Dataset, l2: float, counts: Sequence[int]
    ) -> Iterator[Point]:
        watch = Stopwatch(self.wall)
        model = SGDClassifier("log_loss", alpha=l2, shuffle=shuffle, random_state=self.seed)
        for k in range(1, max(counts) + 1):
            model.set_params(random_state=self.seed + k)
            watch.run(lambda: model.partial_fit(data.X, data.y, classes=[0, 1]))
            if k in counts:
                yield k, watch.seconds, np.append(model.coef_.ravel(), model.intercept_)

    def scikit(
        self, solver: str, data: Dataset, l2: float, counts: Sequence[int]
    ) -> Iterator[Point]:
        c = 1 / (l2 * len(data))
        for k in counts:
            model = LogisticRegression(C=c, tol=1e-12, max_iter=k, solver=solver)
            yield k, *self._fitted(model, data.X, data.y)

    def snapml(
        self, threads: int, data: Dataset, l2: float, counts: Sequence[int]
    ) -> Iterator[Point]:
        """It penalises the intercept, too."""
        import snapml

        X = sparse.csr_matrix(data.X) if data.is_sparse else data.X
        for k in counts:
            model = snapml.LogisticRegression(
                regularizer=l2 * len(data), n_jobs=threads, max_iter=k, tol=1e-12, dual=True,
                fit_intercept=True, use_gpu=False,
            )  # fmt: skip
            yield k, *self._fitted(model, X, data.y, threads)

    def _fitted(self, model: Any, X: Any, y: Any, threads: int | None = None) -> tuple[float, Any]:
        watch = Stopwatch(self.wall, threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of too few iterations, which are wanted
            watch.run(lambda: model.fit(X, y))
        return watch.seconds, np.append(np.ravel(model.coef_), np.ravel(model.intercept_))

    def liblinear(
        self, kind: int, data: Dataset, l2: float, counts: Sequence[int]
    ) -> Iterator[Point]:
        """It has a tolerance in place of a number of passes: 1 / k^2. The primal solver leaves the
        intercept alone, the dual one penalises it."""
        from liblinear.liblinearutil import parameter, problem, train

        X = sparse.csr_matrix(data.X, dtype=np.float64)
        given = problem(2.0 * data.y - 1, X, 1)
        free = "-R" if kind == 0 else ""
        for k in counts:
            asked = parameter(f"-s {kind} -c {1 / (l2 * len(data))} -B 1 {free} -e {k**-2} -q")
            watch = Stopwatch(self.wall)
            model = watch.run(partial(train, given, asked))
            w = np.ctypeslib.as_array(model.w, (data.n_features + 1,)).copy()
            yield k, watch.seconds, w if model.label[0] == 1 else -w

    def xgboost(
        self, threads: int, data: Dataset, l2: float, counts: Sequence[int]
    ) -> Iterator[Point]:
        import xgboost

        given = xgboost.DMatrix(sparse.csr_matrix(data.X) if data.is_sparse else data.X, data.y)
        booster = xgboost.Booster({
            "booster": "gblinear", "objective": "binary:logistic", "base_score": 0.5,
            "lambda": l2, "nthread": threads,
        }, [given])  # fmt: skip
        watch = Stopwatch(self.wall, threads)
        for k in range(1, max(counts) + 1):
            watch.run(partial(booster.update, given, k - 1))
            if k in counts:
                learner = json.loads(booster.save_raw("json"))["learner"]
                w = np.array(learner["gradient_booster"]["model"]["weights"])
                yield k, watch.seconds, w

    def wabbit(self, data: Dataset, l2: float, counts: Sequence[int]) -> Iterator[Point]:
        """From a cache in its own format, which exists before the clock starts."""
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            dump_svmlight_file(data.X, 2 * data.y - 1, str(place / "svm"))
            with open(place / "svm") as old, open(place / "text", "w") as new:
                for line in old:
                    label, _, features = line.partition(" ")
                    new.write(f"{label} | {features}")
            plain = (
                f"--loss_function logistic -b {_bits(data.n_features)} --quiet --holdout_off "
                f"-d {place}/text"
            )
            self._rabbit(f"{plain} --cache_file {place}/cache -k")
            for k in counts:
                model = place / f"model{k}"
                watch = Stopwatch(self.wall)
                watch.run(partial(self._rabbit, f"{plain} --cache_file {place}/cache --l2 {l2} "
                                  f"--passes {k} --readable_model {model}"))  # fmt: skip
                yield k, watch.seconds, _readable(model, data.n_features)

    @staticmethod
    def _rabbit(arguments: str) -> None:
        import vowpalwabbit

        with _quiet():
            vowpalwabbit.Workspace(arguments).finish()


_CONSTANT = 11650396  # Vowpal Wabbit's number of the intercept


def _bits(features: int) -> int:
    """The size of its table of weights, where the intercept must not meet a feature."""
    return next(b for b in range(8, 31) if 2**b > features and _CONSTANT % 2**b >= features)


def _readable(model: Path, features: int) -> Any:
    """Weights from Vowpal Wabbit's text, which have yet to be multiplied by what L2 has left."""
    tail = model.read_text().partition("l2_state ")[2]
    state, *lines = tail.splitlines()
    w = np.zeros(features + 1)
    for number, rest in (line.split(":") for line in lines):
        w[min(int(number), features)] = float(rest.split()[0])
    return w * float(state)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what compiled code writes to standard error."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
