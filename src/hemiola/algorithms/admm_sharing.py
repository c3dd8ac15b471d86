"""Sharing ADMM: the features, and so the model, are split over the workers.

Boyd, Parikh, Chu, Peleato, Eckstein, "Distributed Optimization and Statistical Learning via the
Alternating Direction Method of Multipliers", Foundations and Trends in Machine Learning 3(1), 2010,
sections 7.3 and 8.3.

    minimise  l(sum_j A_j x_j) + sum_j r_j(x_j),   l(Z) the mean loss of the scores Z, N blocks

    each worker j:  x_j <- argmin_x r_j(x) + rho/(2n) |A_j x - A_j x_j - z + m + u|^2
    server:         m   <- (1/N) sum_j A_j x_j
    everywhere:     z   <- argmin_z l(N z) + N rho/(2n) |z - m - u|^2
                    u   <- u + m - z

    primal residual  |r| = N |m - z| / sqrt(n), the root mean square of scores minus Z
    dual residual    |s|^2 = sum_j |rho/n A_j' (z_j - z_j old)|^2,   z_j = A_j x_j + z - m

=========  =======================================  =========
symbol     here                                     shape
=========  =======================================  =========
A_j        columns ``FeatureSplit.columns``         (n, p_j)
x_j        worker state ``x``                       (p_j,)
A_j x_j    worker state and message ``scores``      (n,)
m          ``down["mean"]``                         (n,)
u          worker state ``u``                       (n,)
N          the number of workers
=========  =======================================  =========

For balancing, which compares the residuals to their scales, the dual one is taken before A_j':
|rho (z_j - z_j old)| to |rho u|. A_j'u vanishes at the optimum where there is no penalty.

Every worker has the targets and makes the same z and u from the same m, which saves a message of n
numbers each way; A_j and x_j stay at home. x_j travels too, so that there is a model to evaluate,
but no worker reads it. rho stands beside the mean loss of scores, so 1 is its natural size. The
intercept is a column of ones without a penalty, and belongs to worker 0. The first round only tells
the others A_j x_j of the starting point; residuals are known a round later.

Logistic, squared and hinge loss; softmax loss would need C scores a sample in one proximal step.
Every worker must answer in every round: without one of them the model lacks its features.
"""

from __future__ import annotations

import math
from dataclasses import field, replace
from typing import Annotated, Any, Self

import numpy as np
from annotated_types import Gt
from scipy.special import expit

from hemiola.aggregate import Balance, Stopping, Sum
from hemiola.aggregate.consensus import Seen, known, reached
from hemiola.algorithm import Algorithm, Info, MiniBatch, Task, weight_of
from hemiola.communicate import Synchronous
from hemiola.component import component
from hemiola.dataset import Dataset
from hemiola.errors import OptionError, WorkersLostError
from hemiola.kernels.descent import elastic_net
from hemiola.partition import FeatureSplit
from hemiola.penalty import Penalty
from hemiola.types import Array, Message, State, freeze, frozen

PAPER = "Boyd et al., FnT ML 2010"

SQUARES = ("gap", "size", "dual", "pull", "step", "held")
WHOLE = MiniBatch(None)
PASSES, TOLERANCE = 10_000, 1e-12
HALVINGS, POLISH = 40, 3


@component
class Block:
    """The worker of sharing ADMM: up = ``scores`` (n,) of its features, and its part of ``w``."""

    penalty: Penalty | None = None

    def with_penalty(self, penalty: Penalty) -> Self:
        return replace(self, penalty=penalty)

    def init(self, w0: Array) -> State:
        return {"t": 0, "w": w0.copy(), "rho": 0.0}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        data, rho = task.batch(0, WHOLE).data, float(down["rho"])
        places = _places(data, task)
        A = _columns(data, places)
        squares = dict.fromkeys(SQUARES, 0.0)
        if not state["rho"]:
            self._begin(state, A, places)
        else:
            squares = self._agree(state, down["mean"], A, data, task)
            state["u"] = state["u"] * (state["rho"] / rho)
            self._improve(state, down["mean"], A, rho, places)
        state["rho"] = rho
        state["t"] += 1
        w = np.zeros_like(state["w"])
        w[places] = state["x"]
        numbers = {name: np.array(x) for name, x in squares.items()}
        return state, freeze(scores=state["scores"].copy(), w=w, weight=weight_of(1), **numbers)

    def _begin(self, state: State, A: Any, places: Array) -> None:
        n = A.shape[0]
        x = state["w"][places].astype(np.float64)
        gram = A.T @ A
        gram = np.asarray(gram if isinstance(gram, np.ndarray) else gram.toarray()) / n
        state.update(x=x, scores=A @ x, u=np.zeros(n), z=np.zeros(n), share=np.zeros(n), gram=gram)

    def _agree(
        self, state: State, mean: Array, A: Any, data: Dataset, task: Task
    ) -> dict[str, float]:
        """z and u, the same everywhere; the squares of the residuals and of their scales."""
        n, N, rho = len(data), task.n_workers, state["rho"]
        c = mean + state["u"]
        Z = prox_of_loss(task.objective, data, N * c, rho / N)
        state["z"], state["u"] = Z / N, c - Z / N
        share = state["scores"] + state["z"] - mean
        step = rho * (share - state["share"])
        state["share"] = share
        moved = A.T @ step / n
        pull = rho / n * (A.T @ state["u"])
        scores = N * mean
        return {
            "gap": float(np.square(scores - Z).mean()),
            "size": max(float(np.square(scores).mean()), float(np.square(Z).mean())),
            "dual": float(moved @ moved),
            "pull": float(pull @ pull),
            "step": float(step @ step),
            "held": rho**2 * float(state["u"] @ state["u"]),
        }

    def _improve(self, state: State, mean: Array, A: Any, rho: float, places: Array) -> None:
        """x_j, from its last value."""
        if not len(places):
            return  # more workers than features
        n, G = A.shape[0], state["gram"]
        target = state["scores"] + state["z"] - mean - state["u"]
        b = A.T @ target / n
        penalty = known(self.penalty)
        penalised = places < state["w"].size - penalty.free
        l1, l2 = penalised * (penalty.l1 / rho), penalised * (penalty.l2 / rho)
        if penalty.l1:
            x = state["x"].copy()
            elastic_net(G, b, l1, l2, x, TOLERANCE * float(np.abs(b).max()), PASSES)
        elif penalty.l2:
            x = np.linalg.solve(G + np.diag(l2), b)
        else:
            x = np.linalg.lstsq(G, b, rcond=None)[0]
        state["x"], state["scores"] = x, A @ x


def _places(data: Dataset, task: Task) -> Array:
    """The worker's coordinates of w."""
    objective: Any = task.objective
    mine = FeatureSplit.columns(data.n_features, task.n_workers, task.worker)
    intercept = task.worker == 0 and objective.intercept
    return np.append(mine, data.n_features) if intercept else mine


def _columns(data: Dataset, places: Array) -> Any:
    """A_j: these features, and ones for the intercept, if it is among them; in double precision."""
    features = places[places < data.n_features]
    first = int(features[0]) if len(features) else 0
    X = data.X[:, first : first + len(features)].astype(np.float64)
    if len(features) == len(places):
        return X
    ones = np.ones((len(data), 1))
    if isinstance(X, np.ndarray):
        return np.hstack([X, ones])
    from scipy import sparse

    return sparse.hstack([X, sparse.csr_array(ones)], format="csr")


def prox_of_loss(objective: Any, data: Dataset, q: Array, kappa: float) -> Array:
    """argmin_Z s_i loss(Z_i, y_i) + kappa/2 (Z_i - q_i)^2 for every sample i, (n,).

    >>> from hemiola.dataset import make_dataset
    >>> from hemiola.objectives import squared
    >>> data = make_dataset([[0.0]], [1.0], regression=True)
    >>> prox_of_loss(squared(), data, np.array([3.0]), kappa=1.0).tolist()
    [2.0]
    """
    y = data.y.astype(np.float64)
    s = np.ones(len(y)) if data.weight is None else data.weight.astype(np.float64)
    if objective.loss == "squared":
        closed: Array = (s * y + kappa * q) / (s + kappa)
        return closed
    if objective.loss == "hinge":
        sign = 2 * y - 1
        return np.asarray(q + sign * np.clip(1 - sign * q, 0, s / kappa))
    if objective.loss == "logistic":
        return _prox_of_logistic(y, s, q, kappa)
    raise OptionError(
        f"admm-sharing has no proximal step for {objective.loss} loss; use logistic, squared or "
        "hinge loss, or admm."
    )


def _prox_of_logistic(y: Array, s: Array, q: Array, kappa: float) -> Array:
    """By bisection, and at its end a few of Newton's steps, which alone may go in circles."""
    low, high = q - s / kappa * (1 - y), q + s / kappa * y
    for _ in range(HALVINGS):
        Z = (low + high) / 2
        below = s * (expit(Z) - y) + kappa * (Z - q) < 0
        low, high = np.where(below, Z, low), np.where(below, high, Z)
    Z = (low + high) / 2
    for _ in range(POLISH):
        p = expit(Z)
        Z = Z - (s * (p - y) + kappa * (Z - q)) / (s * p * (1 - p) + kappa)
    return np.asarray(Z)


@component
class Assemble:
    """The server of sharing ADMM: the mean of the scores, and the blocks side by side.

    ``rho``, ``balance`` and ``stopping`` as for consensus ADMM.
    """

    rho: Annotated[float, Gt(0)] = 1.0
    balance: Balance = field(default_factory=Balance)
    stopping: Stopping = field(default_factory=Stopping)

    def init(self, w0: Array, workers: int) -> State:
        mean = np.zeros(0)
        return {"w": w0.copy(), "mean": mean, "rho": self.rho, "used": [], "round": 0,
                "measures": {}}  # fmt: skip

    def pull(self, state: State, worker: int) -> Message:
        return freeze(mean=state["mean"], rho=np.array(state["rho"]))

    def push(self, state: State, up: Message, info: Info) -> State:
        if len(info.workers) < info.n_workers:
            raise WorkersLostError(
                f"only {len(info.workers)} of {info.n_workers} workers answered, and without the "
                "others the model lacks their features; let rounds wait for everybody, and go back "
                "to a checkpoint with on_loss='restart' when a worker dies."
            )
        rho, measures, used = state["rho"], state["measures"], [*state["used"], state["rho"]][-2:]
        if state["round"]:
            roots = {name: math.sqrt(float(up[name])) for name in SQUARES}
            roots |= {name: roots[name] / math.sqrt(info.n_workers) for name in ("gap", "size")}
            measures = self._measure(roots, state["w"].size, used[0])
            if 1 < state["round"] < self.balance.rounds:
                seen = Seen(roots["gap"], roots["step"], roots["size"], roots["held"])
                rho = self.balance.next(rho, seen)
        return {
            "w": up["w"].astype(state["w"].dtype), "mean": up["scores"] / info.n_workers,
            "rho": rho, "used": used, "round": state["round"] + 1, "measures": measures,
        }  # fmt: skip

    def model(self, state: State) -> Array:
        return frozen(state["w"])

    def measures(self, state: State) -> dict[str, float]:
        """The residuals of the round before the last one, what they may be, and their rho."""
        return dict(state["measures"])

    def ended(self, state: State) -> str | None:
        return reached(state["measures"]) if state["round"] > 2 else None

    def _measure(self, roots: dict[str, float], d: int, rho: float) -> dict[str, float]:
        return {
            "primal": roots["gap"],
            "dual": roots["dual"],
            "primal_allowed": self.stopping.allowed(roots["size"], 1),
            "dual_allowed": self.stopping.allowed(roots["pull"], d),
            "rho": rho,
        }


def admm_sharing(
    rho: float = 1.0,
    balance: Balance = Balance(),
    stopping: Stopping = Stopping(),
) -> Algorithm:
    """Sharing ADMM: every worker has all samples, but only some of the features and of the model.

    >>> admm_sharing(rho=0.5).partition
    FeatureSplit(reshuffle_every=None)
    """
    return Algorithm(
        name="admm-sharing",
        partition=FeatureSplit(),
        local=Block(),
        communicate=Synchronous(),
        reduce=Sum(),
        aggregate=Assemble(rho, balance, stopping),
    )
