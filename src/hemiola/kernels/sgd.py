"""Whole passes of SGD, compiled: the serial ones, and what all kinds of passes share.

Bottou, "Large-Scale Machine Learning with Stochastic Gradient Descent", COMPSTAT 2010, for the step
and for L2 by scaling; Tsuruoka, Tsujii, Ananiadou, "Stochastic Gradient Descent Training for
L1-regularized Log-linear Models with Cumulative Penalty", ACL 2009, and Langford, Li, Zhang,
"Sparse Online Learning via Truncated Gradient", JMLR 2009, for L1; Xu, "Towards Optimal One Pass
Large Scale Learning with Averaged Stochastic Gradient Descent", 2011, for the averages.

    (1)  w <- (1 - η_t λ) w - η_t s_i φ'(w·x_i + b; y_i) x_i,   b <- b - η_t s_i φ'(...)
    (2)  η_t = η / (1 + η λ (t + 1)),  or η_t = η
    (3)  w <- sign(w) max(|w| - η_t l1, 0)              after (1), of untouched features when needed

=========  ==========================  =========
symbol     here                        shape
=========  ==========================  =========
w, b       ``w``, b is the last entry  (d,)
η, λ       ``rule.rate``, ``rule.l2``
φ          ``rule.loss``
s_i        ``rows.table.s``            (n,)
=========  ==========================  =========

A row costs what its non-zeros cost: w = σ_t v, where σ_t is the product of all 1 - η_u λ before t,
turns (1) into v <- v - (η_t / σ_{t+1}) s_i φ' x_i. With the first of (2) σ_t is 1 / (1 + η λ t) and
this step always η. The intercept is not penalised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hemiola.errors import OptionError
from hemiola.kernels.rows import BLOCK, Rows
from hemiola.types import Array

FAR = 1 << 21
"""Bytes of weights beyond which they are fetched ahead: what a core's own cache holds, about."""

_STRETCH = 30.0  # σ may fall to exp(-30) before v is scaled anew


@dataclass(frozen=True)
class Rule:
    """How a pass steps: (1) and (2). ``inverse`` chooses the first of (2); ``l1`` is that of (3);
    the step of the intercept is that of the weights or 20 / (t + 1), if less, but not less than
    ``intercept`` times that of the weights; with 0 there is none.

    >>> Rule("logistic", 0.5, 0.1).rate_at(20)
    0.25
    """

    loss: str
    rate: float
    l2: float = 0.0
    inverse: bool = True
    intercept: float = 1.0
    l1: float = 0.0

    def __post_init__(self) -> None:
        if not self.inverse and self.rate * self.l2 >= 1:
            raise OptionError(
                f"with a constant learning rate of {self.rate:.3g}, l2 = {self.l2:.3g} would turn "
                "the weights' signs: keep lr * l2 below 1, or let the rate fall."
            )

    def rate_at(self, t: float) -> float:
        """η_t of a pass that begins after t steps."""
        return self.rate / (1 + self.rate * self.l2 * t) if self.inverse else self.rate

    def pace(self, t: float = 0, stride: int = 1, l2: float | None = None) -> Any:
        """The rule as kernels take it, for a pass that begins after t steps."""
        from hemiola.kernels._steps import Pace

        l2 = self.l2 if l2 is None else l2
        bias = float(self.intercept)
        return Pace(self.rate_at(t), float(l2), self.inverse, float(stride), bias, float(t))

    @property
    def code(self) -> int:
        """The loss's number."""
        from hemiola.kernels._steps import CODES

        return CODES[self.loss]

    def most_rows(self, stride: int = 1) -> int | None:
        """Rows after which v must be scaled anew; None: never."""
        if self.inverse or not self.l2:
            return None
        return max(1, int(_STRETCH / -math.log1p(-self.rate * self.l2) / stride))

    def block_size(self, rows: Rows, threads: int = 1) -> int:
        """Rows of a block."""
        return rows.block_size(min(BLOCK, self.most_rows(threads) or BLOCK))

    def pieces(self, blocks: Array, size: int, threads: int = 1) -> Iterator[Array]:
        """The blocks of a pass in pieces, after each of which v is scaled anew."""
        most = self.most_rows(threads)
        step = len(blocks) if most is None else max(1, threads * (most // size))
        return (blocks[at : at + step] for at in range(0, len(blocks), step))


@dataclass
class Mean:
    """The mean of the iterates of many passes: ``sums`` (p + 1, C) over ``count``."""

    sums: Array
    count: int = 0

    @classmethod
    def of(cls, rows: Rows) -> Mean:
        return cls(np.zeros((rows.n_features + 1, rows.outputs)))

    def value(self, rows: Rows) -> Array:
        """(d,), as :meth:`Rows.inside` has it."""
        return (self.sums / max(self.count, 1)).astype(rows.dtype).ravel()


def epoch(
    rows: Rows, w: Array, rule: Rule, seed: int, number: int = 0, mean: Mean | None = None
) -> None:
    """One pass by one thread, after ``number`` passes before; changes w (d,) in place.

    ``w`` is as :meth:`Rows.inside` makes it. The iterates are added to ``mean``, if there is one.

    >>> from hemiola.dataset import make_dataset
    >>> rows = Rows.of(make_dataset([[1.0], [-1.0]], [1, 0]), seed=0)
    >>> w = np.zeros(2)
    >>> epoch(rows, w, Rule("hinge", rate=0.5), seed=0)
    >>> w
    array([1., 0.])
    """
    if rule.l1 and mean is not None:
        raise OptionError("the mean of the iterates has no zeros: use either l1 or averaging.")
    size = rule.block_size(rows)
    t = float(number * len(rows))
    for blocks in rule.pieces(rows.blocks(seed, number, size), size):
        done = int(np.minimum((blocks + 1) * size, len(rows)).sum() - (blocks * size).sum())
        if rule.l1 or mean is not None:
            _traced(rows, w, rule, blocks, size, t, mean)
        else:
            plain(rows, w, rule, rule.pace(t), blocks, size)
        fold(rows, w, rule.pace(t), done)
        if mean is not None:
            mean.count += done
        t += done


def plain(
    rows: Rows,
    w: Array,
    rule: Rule,
    pace: Any,
    blocks: Array,
    size: int,
    pull: Array | None = None,
    told: Array | None = None,
) -> None:
    """These blocks in order, by the calling thread; v is left as it is, see :func:`fold`."""
    from hemiola.kernels._passes import block_pass

    V = w.reshape(-1, rows.outputs)
    pull = np.empty(0, w.dtype) if pull is None else pull
    told = np.empty((0, rows.outputs)) if told is None else told
    far = w.nbytes > FAR
    block_pass(rows.table, rule.code, blocks, size, len(rows), V, pace, 0.0, pull, told, far)


def scale_after(pace: Any, steps: float) -> float:
    """σ after so many steps."""
    from hemiola.kernels._steps import scale_at

    return float(scale_at(pace, float(steps))) if pace.l2 else 1.0


def fold(rows: Rows, w: Array, pace: Any, steps: float) -> None:
    """w = σ v after so many steps."""
    if pace.l2:
        w[: -rows.outputs] *= scale_after(pace, steps)


def _traced(
    rows: Rows, w: Array, rule: Rule, blocks: Array, size: int, t: float, mean: Mean | None
) -> None:
    from hemiola.kernels._traced import traced_pass

    V = w.reshape(-1, rows.outputs)
    debt = np.zeros(rows.n_features if rule.l1 else 0)
    m = np.zeros((0, rows.outputs)) if mean is None else np.zeros(V.shape)
    sums = m if mean is None else mean.sums
    traced_pass(
        rows.table, rule.code, blocks, size, len(rows), V, rule.pace(t), rule.l1, debt, m, sums
    )
