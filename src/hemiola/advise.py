"""Which algorithm, when: short simulations of the candidates on a sample of the data.

The time of a gradient is measured here, on the real data; the cluster's network and the speeds of
its workers are described by a :class:`~hemiola.engines.simulator.Simulator`. Each candidate is
simulated on a sample of rows (and of the most frequent columns, where there are many) with several
learning rates, until it reaches the target loss. Messages have the size of
the real model: links are slowed by as much as the sample's model is smaller. Candidates that take
at most half as long again as the fastest count as equally fast, as the rates are coarse and the
sample is one, and then the simplest is named first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from hemiola.algorithms.registry import build
from hemiola.callbacks import Callback, TargetLoss, TimeLimit
from hemiola.contracts import Objective
from hemiola.dataset import Batch, Dataset
from hemiola.engines.simulator import LogNormal, Simulator
from hemiola.errors import DivergedError, HemiolaError
from hemiola.grouping import ByRatio
from hemiola.history import History
from hemiola.job import Event
from hemiola.learning_rate import with_learning_rate
from hemiola.partition import Shards
from hemiola.reference import pooled_optimum
from hemiola.rng import stream
from hemiola.training import fit, make_objective

BATCH = 32
ROWS, COLUMNS = 2000, 10_000
TIE = 1.5
PIECES = 4000
"""Pieces of work in a simulation, at most, of all workers together."""

WALL = 1.5
"""Real seconds that a simulation may take."""

_NEAR = 0.02


@dataclass(frozen=True)
class Candidate:
    """An algorithm that may be advised. ``label`` names it in tables."""

    label: str
    recipe: str
    options: dict[str, Any]
    family: str


CANDIDATES = (
    Candidate("one worker", "ssgd", {}, "alone"),
    Candidate("ssgd", "ssgd", {}, "synchronous"),
    Candidate("model-averaging, 10 steps", "model-averaging", {"steps": 10}, "local"),
    Candidate("model-averaging, 100 steps", "model-averaging", {"steps": 100}, "local"),
    Candidate("hybrid", "hybrid", {}, "hybrid"),
    Candidate("ssp, s = 3", "ssp", {"s": 3}, "asynchronous"),
    Candidate("asgd", "asgd", {}, "asynchronous"),
    Candidate("dc-asgd", "dc-asgd", {}, "delay-aware"),
    Candidate("adaptive-revision", "adaptive-revision", {}, "delay-aware"),
)
"""In the order of preference among equally fast ones."""


@dataclass(frozen=True)
class Situation:
    """What was measured and assumed.

    ``step_seconds`` of a mini-batch gradient, ``message_seconds`` of the model's way to a worker
    and back on the slowest link, ``spread`` the slowest worker's time over the fastest's.
    """

    workers: int
    step_seconds: float
    message_seconds: float
    spread: float
    parameters: int
    rows: int
    target: float


@dataclass(frozen=True)
class Advice:
    """What a candidate is predicted to do. ``seconds`` to the target loss, infinite if it was not
    reached; ``bytes`` until then; ``idle`` the share of the workers' time without computing."""

    candidate: Candidate
    workers: int
    lr: float
    seconds: float
    bytes: float
    idle: float
    loss: float
    staleness: float
    reason: str = ""

    def options(self) -> list[str]:
        """The options of ``hemiola train``, as text."""
        words = [f"{key}={value}" for key, value in self.candidate.options.items()]
        return [*words, f"batch_size={BATCH}", f"lr={self.lr:.4g}"]


def advise(
    data: Dataset,
    workers: int,
    cluster: Simulator,
    *,
    target_loss: float | None = None,
    step_seconds: float | None = None,
    parameters: int | None = None,
    wall: float = WALL,
    progress: Callable[[str], None] = lambda label: None,
) -> tuple[Situation, list[Advice]]:
    """The situation, and all candidates, best first.

    ``cluster`` has the network and the speeds; its ``compute`` is replaced by the measured time,
    or by ``step_seconds``. ``target_loss``: of the training data; None: 2 % of the way from the
    sample's optimum to the starting point. ``parameters``: of the model, if not those of the data.
    ``wall``: real seconds that one simulation may take. ``progress`` is called with each
    candidate's label before it is simulated.
    """
    objective = make_objective("auto", data)
    d = _parameters(objective, data) if parameters is None else parameters
    step = measured_step(objective, data) if step_seconds is None else step_seconds
    sample = sample_of(data, workers)
    small = make_objective("auto", sample, getattr(objective, "l2", None))
    target = _target(small, sample) if target_loss is None else target_loss
    share = _parameters(small, sample) / d
    engine = replace(slowed(cluster, share), compute=LogNormal(step, 0.1))
    factors = cluster.factors(workers, 0)
    links = [cluster.wires().link(worker) for worker in range(workers)]
    message = max(2 * link.latency + 2 * 8 * d / link.bandwidth for link in links)
    situation = Situation(
        workers, step, message, max(factors) / min(factors), d, len(data), target
    )  # fmt: skip
    found = []
    for candidate in CANDIDATES:
        if candidate.family == "alone" or workers > 1:
            progress(candidate.label)
            found.append(_simulate(candidate, small, sample, situation, engine, share, wall))
    return situation, ranked(found, situation)


def measured_step(objective: Objective, data: Dataset) -> float:
    """Seconds of a gradient of 32 samples: the median of five, after one to warm up."""
    rng = stream(0, "advise")
    w = objective.init(data, rng)
    took = []
    for _ in range(6):
        rows = np.sort(rng.choice(len(data), min(BATCH, len(data)), replace=False))
        start = perf_counter()
        objective.grad(w, Batch(data, rows))
        took.append(perf_counter() - start)
    return float(np.median(took[1:]))


def sample_of(data: Dataset, workers: int) -> Dataset:
    """Some rows, and of very many columns the most frequent."""
    rows = max(ROWS, 4 * workers)
    if len(data) > rows:
        kept = np.sort(stream(0, "advise").choice(len(data), rows, replace=False))
        data = data.take(kept)
    if data.is_sparse and data.n_features > COLUMNS:
        counts = np.bincount(data.X.indices, minlength=data.n_features)
        columns = np.sort(np.argsort(-counts, kind="stable")[:COLUMNS])
        data = replace(data, X=data.X[:, columns])
    return data


def slowed(part: Any, share: float) -> Any:
    """The same cluster with every bandwidth multiplied by ``share``."""
    if not is_dataclass(part) or isinstance(part, type):
        return part
    changed: dict[str, Any] = {}
    for entry in fields(part):
        value = getattr(part, entry.name)
        if entry.name.endswith("bandwidth"):
            changed[entry.name] = value * share
        elif is_dataclass(value):
            changed[entry.name] = slowed(value, share)
    return replace(part, **changed) if changed else part


def ranked(found: Sequence[Advice], situation: Situation) -> list[Advice]:
    """Best first, each with its reason; of equally fast ones the simplest first."""
    order = {candidate.label: i for i, candidate in enumerate(CANDIDATES)}
    best = min(advice.seconds for advice in found)

    def key(advice: Advice) -> tuple[float, float, float]:
        if math.isinf(advice.seconds):
            return math.inf, advice.loss, 0.0
        tied = advice.seconds <= TIE * best
        return (0.0 if tied else advice.seconds), float(order[advice.candidate.label]), 0.0

    order_of = sorted(found, key=key)
    return [replace(advice, reason=_reason(advice, situation)) for advice in order_of]


def _reason(advice: Advice, situation: Situation) -> str:
    """Why it stands where it stands."""
    if math.isinf(advice.seconds):
        return f"did not reach the target; its loss was {advice.loss:.4g}."
    messages = situation.message_seconds / situation.step_seconds
    cost = f"a message both ways takes {messages:.2g} times a step"
    family = advice.candidate.family
    if family == "alone":
        return f"no messages at all, where {cost}."
    if family == "synchronous":
        return f"every step waits for the slowest ({situation.spread:.2g} x the fastest); {cost}."
    if family == "local":
        steps = advice.candidate.options["steps"]
        return f"one message in {steps} steps, where {cost}."
    if family == "hybrid":
        return (
            f"workers of similar speed wait for each other only (slowest {situation.spread:.2g} x "
            f"the fastest); staleness {advice.staleness:.2g}."
        )
    stale = f"staleness {advice.staleness:.2g}"
    if family == "delay-aware":
        return f"nobody waits, and steps allow for delays ({stale})."
    return f"nobody waits{' long' if 's' in advice.candidate.options else ''}; {stale}."


@dataclass
class _WallLimit(Callback):
    seconds: float

    def on_start(self, job: Any, updates: int) -> None:
        self._end = perf_counter() + self.seconds

    def on_update(self, event: Event) -> str | None:
        return "the simulation took too long" if perf_counter() > self._end else None


def _simulate(
    candidate: Candidate, objective: Objective, sample: Dataset, situation: Situation,
    engine: Simulator, share: float, wall: float,
) -> Advice:  # fmt: skip
    """The candidate at its best learning rate."""
    alone = candidate.family == "alone"
    workers = 1 if alone else situation.workers
    engine = replace(Simulator(), compute=engine.compute) if alone else engine
    rate = _rate(candidate, objective, sample, workers, engine)
    tried: dict[float, Advice] = {}

    def attempt(factor: float) -> tuple[float, float]:
        if factor not in tried:
            limit = min((advice.seconds for advice in tried.values()), default=math.inf)
            history = _run(candidate, objective, sample, workers, engine, rate * factor,
                           situation.target, limit, wall)  # fmt: skip
            tried[factor] = _advice(candidate, workers, rate * factor, history, situation, share)
        return tried[factor].seconds, tried[factor].loss

    return tried[_climb(attempt)]


def _climb(attempt: Callable[[float], tuple[float, float]]) -> float:
    """The factor with the least outcome: downhill by fours from 1, and then one look by twos."""
    best = 1.0
    for step in (4.0, 0.25):
        while attempt(best * step) < attempt(best) and 1 / 256 <= best * step <= 256:
            best *= step
    return min((best / 2, best, best * 2), key=attempt)


def _run(
    candidate: Candidate, objective: Objective, sample: Dataset, workers: int,
    engine: Simulator, lr: float, target: float, limit: float, wall: float,
) -> History | None:  # fmt: skip
    steps = candidate.options.get("steps", 1)
    rounds = max(20, PIECES // workers // steps)
    callbacks: list[Callback] = [TargetLoss(target), _WallLimit(wall)]
    if math.isfinite(limit):
        callbacks.append(TimeLimit(limit))
    options = {**candidate.options, "batch_size": BATCH, "lr": lr}
    try:
        return fit(
            build(candidate.recipe, options), objective, sample, engine=engine, workers=workers,
            rounds=rounds, eval_every=1, callbacks=callbacks,
        ).history  # fmt: skip
    except DivergedError:
        return None


def _rate(
    candidate: Candidate, objective: Objective, sample: Dataset, workers: int,
    engine: Simulator,
) -> float:  # fmt: skip
    """The learning rate that is estimated from the data, for the groups that there will be."""
    options = {**candidate.options, "batch_size": BATCH}
    if candidate.family == "hybrid":
        factors = engine.factors(workers, 0)
        options["groups"] = ByRatio().groups([np.array([[f, 0.0]]) for f in factors])
    algorithm = build(candidate.recipe, options)
    source = Shards(sample, algorithm.partition, workers, 0)
    filled: Any = with_learning_rate(algorithm, objective, sample, source, workers)
    for part in (filled.aggregate, filled.local):
        for owner in (part, getattr(part, "optimizer", None)):
            rate = getattr(owner, "lr", None)
            if rate is not None:
                return float(rate)
    raise HemiolaError(f"{candidate.label} has no learning rate.")


def _advice(
    candidate: Candidate, workers: int, lr: float, history: History | None, situation: Situation,
    share: float,
) -> Advice:  # fmt: skip
    if history is None:
        return Advice(candidate, workers, lr, math.inf, 0, 0, math.inf, 0)
    last = history.last
    reached = last.loss <= situation.target
    computing = sum(sums[2] for sums in history.times if sums)
    available = max(last.seconds * workers, 1e-12)
    return Advice(
        candidate, workers, lr, last.seconds if reached else math.inf,
        0.0 if workers == 1 else (last.bytes_up + last.bytes_down) / share,
        max(0.0, 1 - computing / available), last.loss, history.mean_staleness(),
    )  # fmt: skip


def _target(objective: Objective, sample: Dataset) -> float:
    start = objective.value(objective.init(sample, stream(0, "init")), Batch(sample))
    optimum = pooled_optimum(objective, sample, iterations=300)[1]
    return optimum + _NEAR * (start - optimum)


def _parameters(objective: Objective, data: Dataset) -> int:
    return objective.init(data, stream(0, "init")).size
