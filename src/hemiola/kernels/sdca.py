"""Stochastic dual coordinate ascent (SDCA): the dual of a linear model, and ways up it.

Shalev-Shwartz, Zhang, "Stochastic Dual Coordinate Ascent Methods for Regularized Loss
Minimization", JMLR 2013. For samples (x_i, y_i) of weight s_i and a loss φ_i with conjugate φ_i*,

    (1)  P(w, b) = (1/n) sum_i s_i φ_i(w·x_i + b) + (λ/2) |w|^2
    (2)  D(α)    = -(1/n) sum_i s_i φ_i*(-α_i) - (λ/2) |w(α)|^2      where sum_i s_i α_i = 0
    (3)  w(α)    = (1/(λ n)) sum_i s_i α_i x_i
    (4)  b(α)    = b_0 + (c^2/(λ n)) sum_i s_i α_i
    (5)  step:     α_i += δ,  δ maximises  -φ_i*(-(α_i + δ)) - δ z_i - (q_i/2) δ^2,
                   z_i = w·x_i + b,  q_i = σ s_i (|x_i|^2 + c^2) / (λ n)

    loss       φ(z)                    α_i in     the maximum of (5)
    squared    (z - y)^2 / 2           R          δ = (y - z - α) / (1 + q)
    hinge      max(0, 1 - y z)         y [0, 1]   y (α + δ) = clip(y α + (1 - y z) / q)
    logistic   log(1 + exp(-y z))      y [0, 1]   y (α + δ) = t,  t = 1 / (1 + exp(r)),
                                                  r = y z + q (t - y α): Newton's method

**The intercept is not penalised**, so that s·α must be 0, which single steps cannot keep. With a
centre b_0 the intercept is penalised by (λ/(2 c^2)) (b - b_0)^2, and a constant column c does the
rest: (4). Moving the centre to b after every pass is a proximal-point step, or the method of
multipliers on s·α = 0 (:func:`recentred`). Where it stands still, s·α = 0, and w, b and α are the
optimum of (1) and (2). A small c makes small steps of b, a large one noise, so c^2 grows while b
goes on in one direction and shrinks when it turns.

**The gap** P - D bounds P - min P. Where s·α is not 0, :meth:`Dual.values` takes D at a point near
by that is: for bounded α, the side (α > 0 or α < 0) that weighs more is scaled down, by convexity
-φ*(-τ α) >= -τ φ*(-α); for squared loss all α move by the same amount. What w(α) moves by is
bounded by |sum_i s_i α_i x_i| <= sum_i s_i |α_i| |x_i|: a bound, without another pass.

**Features may have centres, too** (:mod:`hemiola.kernels.damping`). Feature j then has the penalty
(λ/2) w_j^2 + (λ/2) (1/c_j^2 - 1) (w_j - k_j)^2, c_j <= 1, and (3) becomes

    (6)  w_j = (1 - c_j^2) k_j + c_j^2 w_j(α),      k_j moves to w_j after a pass

On columns c_j x_j and weights v_j = w_j / c_j this is (3) plus (1 - c_j^2) k_j / c_j, so the passes
are the same. Where it stands still, w = w(α).

=============  =============================  ===========
symbol         here                           shape
=============  =============================  ===========
w, b           ``w``, b is the last entry     (p + 1,)
α, s, y        ``alpha``, ``s``, ``y``        (n,)
|x_i|^2        ``norms``                      (n,)
1/(λ n)        ``scale``
c^2            ``c2``, 0: b stays as it is
σ              ``sigma``, 1 but in CoCoA
=============  =============================  ===========
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hemiola.errors import OptionError
from hemiola.types import Array

LOSSES = ("logistic", "squared", "hinge")

START, LEAST = 0.03, 1e-4
"""c^2 over the mean of |x_i|^2, at first and at least. At most it is 1."""

_GROW, _SHRINK = 1.5, 0.5

_NOISE = 1e-10
_EVERY = np.empty(0, np.int64)


def check(objective: Any, name: str) -> None:
    """Raise :class:`~hemiola.errors.OptionError` for objectives without a dual to ascend.

    >>> from hemiola.objectives import logistic
    >>> check(logistic(), "sdca")
    Traceback (most recent call last):
        ...
    hemiola.errors.OptionError: sdca needs an L2 penalty: w is a mean of rows over l2, which is 0.
    """
    loss = getattr(objective, "loss", type(objective).__name__)
    if loss not in LOSSES:
        raise OptionError(f"{name} ascends the duals of {', '.join(LOSSES)} loss; {loss} has none "
                          "here, so use another algorithm.")  # fmt: skip
    if objective.l2 <= 0:
        raise OptionError(f"{name} needs an L2 penalty: w is a mean of rows over l2, which is 0.")


def flat(X: Array) -> tuple[Array, Array, Array]:
    """A dense matrix as kernels take it: no row pointers, no feature numbers, all values."""
    return np.empty(0, np.uint64), np.empty(0, np.uint32), X.reshape(-1)


class Values(NamedTuple):
    """P(w, b), a lower bound of its minimum, and s·α / n, which is 0 at the optimum."""

    primal: float
    dual: float
    residual: float

    @property
    def gap(self) -> float:
        return self.primal - self.dual


class Share(NamedTuple):
    """One of several threads' share of w (p + 1,), and what it has learnt from the merges.

    ``start`` (p + 1,) is what all began with, ``sums`` (T, p + 1) what each has added, ``seen``
    what this one has seen of the others. Features in [tiers[k], tiers[k + 1]) are merged every
    ``periods[k]`` blocks. ``cross`` (2,): sums of own times others' changes, and of own squared.
    """

    start: Array
    sums: Array
    seen: Array
    me: int
    tiers: Array
    periods: Array
    cross: Array

    def replica(self) -> Array:
        """w as it is now."""
        self.seen[self.me] = self.sums.sum(axis=0)
        return np.asarray(self.start + self.seen[self.me])


def alone(w: Array) -> Share:
    """For a thread that shares w with none."""
    none, empty = np.empty((0, 0), w.dtype), np.empty(0, np.int64)
    return Share(w, none, none, 0, empty, empty, np.empty(0))


@dataclass(frozen=True, eq=False)
class Dual:
    """A linear model's dual on rows of a data set.

    ``X``      (row pointers, feature numbers, values); a dense matrix has values only;
    ``width``  columns of a dense matrix;
    ``y``      -1 and 1, or real targets; ``s``  sample weights, or nothing;
    ``rows``   the row of X for each entry of the others; nothing: row i for entry i;
    ``lengths``  |x_i| of the features as they were, if columns are c_j x_j;
    ``total``  n, which is more than there are rows here if others have the rest.

    >>> from hemiola.kernels.sdca import Dual
    >>> X, y = np.array([[1.0], [-1.0]]), np.array([1.0, -1.0])
    >>> dual = Dual.of("squared", X, y, l2=0.5, intercept=False)
    >>> alpha, w = np.zeros(2), np.zeros(2)
    >>> for _ in range(50):
    ...     _ = dual.ascend(alpha, w, np.array([0, 1]), size=1, c2=0.0)
    >>> w.round(6).tolist(), round(dual.values(dual.sums(alpha, w), w[:-1]).gap, 6)
    ([0.666667, 0.0], 0.0)
    """

    loss: str
    X: tuple[Array, Array, Array]
    width: int
    y: Array
    s: Array
    rows: Array
    norms: Array
    lengths: Array
    l2: float
    total: int
    intercept: bool

    @classmethod
    def of(
        cls, loss: str, X: Any, y: Array, s: Array | None = None, *, l2: float,
        rows: Array | None = None, total: int | None = None, intercept: bool = True,
        lengths: Array | None = None,
    ) -> Dual:  # fmt: skip
        from hemiola.kernels import _access

        """``X`` is a dense matrix or a triple."""
        width = 0 if isinstance(X, tuple) else X.shape[1]
        X = X if isinstance(X, tuple) else flat(X)
        s = np.empty(0, y.dtype) if s is None else s
        rows = _EVERY if rows is None else rows
        norms = np.empty(len(rows) or len(y))
        _access.square_norms(*X, rows, width, norms)
        lengths = np.sqrt(norms) if lengths is None else lengths
        return cls(loss, X, width, y, s, rows, norms, lengths, l2, total or len(norms), intercept)

    def measure(self) -> None:
        """|x_i|^2 anew, after the columns have changed."""
        from hemiola.kernels import _access

        _access.square_norms(*self.X, self.rows, self.width, self.norms)

    @property
    def scale(self) -> float:
        return 1.0 / (self.l2 * self.total)

    @property
    def code(self) -> int:
        return LOSSES.index(self.loss)

    def ascend(
        self, alpha: Array, w: Array, blocks: Array, size: int, c2: float, sigma: float = 1.0,
        share: Share | None = None,
    ) -> float:  # fmt: skip
        """Visit the blocks in turn, changing α and w. Returns the mean slack met on the way, about
        the gap as it was during the pass."""
        from hemiola.kernels import _dual

        share = alone(w) if share is None else share
        met = _dual.ascend(
            self.code, *self.X, self.y, self.s, self.rows, self.norms, alpha, w,
            blocks, size, self.scale, c2, sigma, *share,
        )  # fmt: skip
        return float(met) / self.total

    def sums(self, alpha: Array, w: Array, first: int = 0, stop: int | None = None) -> Array:
        """What :meth:`values` needs to know of these rows; sums over parts may be added."""
        from hemiola.kernels import _access, _dual

        z = np.empty((len(alpha) if stop is None else stop) - first)
        _access.scores(*self.X, self.rows, w, first, z)
        sums, b = np.zeros((5, 2)), float(w[-1])
        _dual.add_up(self.code, z, self.y, self.s, self.lengths, alpha, b, first, sums)
        return sums

    def values(self, sums: Array, w: Array, near: Array | None = None) -> Values:
        """P(w, b) and a lower bound of its minimum. ``w`` (p,) are the features' weights that the
        sums were made with, ``near`` is w(α), if that is not the same."""
        near = w if near is None else near
        (loss, targets), total, value, along, reach = sums / self.total
        residual = float(total.sum()) if self.intercept else 0.0
        if self.loss == "squared":
            move, along, reach = -residual, along.sum(), reach.sum()
            worth = value.sum() + residual * (0.5 * residual - targets)
        else:
            side = int(residual < 0)
            move = -abs(residual / total[side]) if residual else 0.0
            worth, along, reach = value.sum() + move * value[side], along[side], reach[side]
        reach = abs(move) * reach / self.l2
        norm = _square(near) + 2 * move * along / self.l2
        norm += 2 * reach * math.sqrt(_square(near - w)) + reach**2
        primal = loss + 0.5 * self.l2 * _square(w)
        return Values(float(primal), float(worth - 0.5 * self.l2 * norm), residual)

    def rebuild(self, alpha: Array, w: Array) -> float:
        """The features' w = w(α) without rounding errors of the past. Returns s·α / (λ n)."""
        from hemiola.kernels import _access

        weights = self.scale * (alpha * self.s if self.s.size else alpha)
        exact = np.empty(len(w))
        _access.weighted_sum(*self.X, self.rows, weights, exact)
        w[:-1] = exact[:-1]
        return float(weights.sum())

    def start(self, w: Array) -> Array:
        """α = -φ'(z) at w, or zeros if these are worth more: at w = 0, or far from the optimum."""
        from hemiola.kernels import _access, _dual

        alpha = np.zeros(len(self.norms))
        if not np.any(w[:-1]):
            return alpha
        z = np.empty_like(alpha)
        _access.scores(*self.X, self.rows, w, 0, z)
        worth = _dual.slopes(self.code, z + w[-1], self.y, self.s, alpha) / self.total
        near = w.copy()
        self.rebuild(alpha, near)
        return alpha if worth > 0.5 * self.l2 * _square(near[:-1]) else np.zeros_like(alpha)


def _square(w: Array) -> float:
    """|w|^2 in double precision."""
    return float(np.square(w.astype(np.float64, copy=False)).sum())


def recentred(b: float, move: float, before: float, pull: float) -> tuple[float, float]:
    """The centre moves to the intercept b, which is ``move`` away from it: the new b and pull.

    ``pull`` is c^2 over the largest value that it may have. It grows while b goes on in the
    direction of the last move, ``before``, and shrinks when b turns.

    >>> recentred(1.0, 0.25, 0.25, 0.125), recentred(1.0, -0.25, 0.25, 0.125)
    ((1.375, 0.1875), (0.875, 0.0625))
    """
    share = 1.0
    if abs(move) > _NOISE * (1 + abs(b)):
        share = _GROW if move * before > 0 else _SHRINK if move * before < 0 else 1.0
    new = min(max(pull * share, LEAST), 1.0)
    return b + move * new / pull, new
