"""Coordinate steps on a worker's part of the dual: the worker of CoCoA+."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt

from hemiola.algorithm import MiniBatch, Task, weight_of
from hemiola.component import component
from hemiola.dataset import Dataset
from hemiola.errors import DataError, OptionError
from hemiola.kernels.sdca import Dual, check
from hemiola.rng import stream
from hemiola.types import Array, Message, State, freeze

_SHARD = MiniBatch(None)


@component
class LocalSDCA:
    """up = w_k (d,) = w(α_[k]), what this worker's dual variables are worth after ``epochs`` passes
    of coordinate steps over the shard; its part ``residual`` of s·α / n, which must become 0 where
    there is an intercept; and its part ``reach`` of the mean of |x_i|^2 over l2.

    down holds w = sum_k w_k and ``pace``, how far the intercept moves with the residual.

    ``combine``  ``add``: all changes count in full, and a worker acts as if its own counted
                 ``sigma`` = K times; ``average``: they count 1/K, and sigma = 1;
    ``sigma``    another value; a smaller one may let the dual fall.

    A worker without dual variables, at the start or because it was lost, makes them from the model:
    α = -φ'(z), or zeros if these are worth more. It takes no steps then, unless w is 0.
    """

    epochs: Annotated[float, Gt(0)] = 1.0
    combine: Literal["add", "average"] = "add"
    sigma: Annotated[float, Gt(0)] | None = None

    def init(self, w0: Array) -> State:
        return {"t": 0, "alpha": np.empty(0), "w": np.zeros_like(w0)}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        dual = _dual_of(task)
        w = down["w"].copy()
        fresh = not len(state["alpha"])
        if fresh:
            state["alpha"] = dual.start(w)
            dual.rebuild(state["alpha"], state["w"])
        if not (fresh and np.any(w[:-1])):
            self._ascend(state, w, float(down["pace"]), dual, task)
        own, s = state["w"].copy(), dual.s if dual.s.size else np.ones(1)
        own[-1] = 0
        residual = (s * state["alpha"]).sum() / dual.total if dual.intercept else 0.0
        reach = dual.norms.sum() * dual.scale
        return state, freeze(
            w=own, residual=np.array(residual), reach=np.array(reach),
            weight=weight_of(len(dual.norms)),
        )  # fmt: skip

    def _ascend(self, state: State, w: Array, pace: float, dual: Dual, task: Task) -> None:
        workers = task.n_workers
        gamma, safe = (1.0, workers) if self.combine == "add" else (1.0 / workers, 1)
        sigma = float(safe) if self.sigma is None else self.sigma
        alpha, before = state["alpha"].copy(), w.copy()
        c2 = pace * dual.l2 if dual.intercept else 0.0
        for order in self._orders(state["t"], len(alpha), task):
            dual.ascend(alpha, w, order, 1, c2, sigma)
            state["t"] += len(order)
        state["w"] += (gamma / sigma) * (w - before)
        state["alpha"] = alpha if gamma == 1 else state["alpha"] + gamma * (alpha - state["alpha"])

    def _orders(self, t: int, n: int, task: Task) -> list[Array]:
        """The samples of the next coordinate steps, the t-th and on, in parts of epochs: every
        epoch goes through the shard in an order of its own."""
        end = t + max(1, math.ceil(self.epochs * n - 1e-9))
        found = []
        for epoch in range(t // n, -(-end // n)):
            order = stream(task.seed, "dual", task.worker, epoch).permutation(n)
            found.append(order[max(t - epoch * n, 0) : end - epoch * n])
        return found


def _dual_of(task: Task) -> Dual:
    """This worker's part of the dual: rows stay where they are."""
    objective: Any = task.objective
    check(objective, "cocoa")
    try:
        data, rows, _ = task.batch(0, _SHARD)
    except DataError as error:
        raise OptionError(
            "cocoa keeps a dual variable for every sample, and a stream has no end of them."
        ) from error
    held = len(data) if rows is None else len(rows)
    if held < task.source.samples(task.worker):
        raise OptionError(
            "cocoa visits all samples of a worker in every round, and here they are in several "
            "shards on disk: load them (open_shards(...).load()), or use model-averaging or fedavg."
        )
    y = data.y[rows]
    if objective.loss != "squared":
        y = 2 * y - 1
    total = sum(task.source.samples(k) for k in range(task.n_workers))
    return Dual.of(
        objective.loss, _matrix(data), y.astype(data.dtype),
        None if data.weight is None else data.weight[rows],
        l2=objective.l2, rows=rows, total=total, intercept=objective.intercept,
    )  # fmt: skip


def _matrix(data: Dataset) -> Any:
    """X as the kernels take it. Entries of a row that name one feature are added up."""
    X = data.X
    if not data.is_sparse:
        return X
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X.indptr.view(_unsigned(X.indptr)), X.indices.view(_unsigned(X.indices)), X.data


def _unsigned(array: Array) -> type:
    """Of the same size: kernels need no check for negative numbers then."""
    return np.uint64 if array.itemsize == 8 else np.uint32
