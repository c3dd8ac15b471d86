"""Optimisers as pure rules: ``init(w) -> state`` and ``step(w, g, state, t) -> (w, state)``.

``w`` and ``g`` are left alone and a new w is returned; the state is changed in place. ``lr=None``
stands for "estimate it from the data"; :mod:`hemiola.learning_rate` fills it in before a run,
through ``with_lr(base)``, where ``base`` is a good rate for plain SGD on this problem.

A step is arithmetic on whole vectors, so it is taken where they live: w, g and the state's entries
may be NumPy's arrays, or tensors on any device.
"""

from __future__ import annotations

import math
from dataclasses import field, replace
from typing import Annotated, ClassVar, Self

import numpy as np
from annotated_types import Ge, Gt, Interval

from hemiola.component import component
from hemiola.errors import OptionError
from hemiola.optim.elementwise import sqrt
from hemiola.optim.schedules import Constant, Schedule
from hemiola.types import Array, State


@component
class SGD:
    """w <- w - lr g

    >>> SGD(lr=0.5).step(np.ones(2), np.ones(2), {}, t=0)[0]
    array([0.5, 0.5])
    """

    is_plain: ClassVar[bool] = True  # a step is w - rate(t) g and nothing else

    lr: Annotated[float, Gt(0)] | None = None
    schedule: Schedule = field(default_factory=Constant)

    def init(self, w: Array) -> State:
        return {}

    def step(self, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
        step = -self.rate(t) * g
        if step.dtype != w.dtype:
            return w + step, state
        step += w
        return step, state

    def rate(self, t: int) -> float:
        """The learning rate at step t."""
        return _rate(self, t)

    def with_lr(self, base: float) -> Self:
        return replace(self, lr=base)


@component
class HeavyBall:
    """v <- momentum v + g ;  w <- w - lr v   (the first v is g)"""

    lr: Annotated[float, Gt(0)] | None = None
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    schedule: Schedule = field(default_factory=Constant)

    def init(self, w: Array) -> State:
        return {"v": np.zeros_like(w)}

    def step(self, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
        v = state["v"]
        v *= self.momentum
        v += g
        return w - _rate(self, t) * v, state

    def with_lr(self, base: float) -> Self:
        """The long-run gain of the buffer is 1 / (1 - momentum); the rate takes it back."""
        return replace(self, lr=base * (1 - self.momentum))


@component
class Nesterov:
    """v <- momentum v + g ;  w <- w - lr (g + momentum v)   (g is taken at w)

    The iterate is the look-ahead point x + momentum u of the form u <- momentum u - lr g(x +
    momentum u), x <- x + u.
    """

    lr: Annotated[float, Gt(0)] | None = None
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    schedule: Schedule = field(default_factory=Constant)

    def init(self, w: Array) -> State:
        return {"v": np.zeros_like(w)}

    def step(self, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
        v = state["v"]
        v *= self.momentum
        v += g
        return w - _rate(self, t) * (g + self.momentum * v), state

    def with_lr(self, base: float) -> Self:
        return replace(self, lr=base * (1 - self.momentum))


@component
class Adagrad:
    """s <- s + g*g ;  w <- w - lr g / (sqrt(s) + eps), with s starting at ``initial``.

    Duchi, Hazan, Singer, JMLR 2011.
    """

    lr: Annotated[float, Gt(0)] | None = None
    initial: Annotated[float, Ge(0)] = 0.0
    eps: Annotated[float, Ge(0)] = 1e-10
    schedule: Schedule = field(default_factory=Constant)

    def init(self, w: Array) -> State:
        return {"s": np.full_like(w, self.initial)}

    def step(self, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
        s = state["s"]
        s += g * g
        return w - _rate(self, t) * g / (sqrt(s) + self.eps), state

    def with_lr(self, base: float) -> Self:
        """Steps do not scale with the gradient, so the rate does not depend on the data: 0.1."""
        return replace(self, lr=0.1)


@component
class Adam:
    """k <- k + 1 ;  m <- b1 m + (1 - b1) g ;  v <- b2 v + (1 - b2) g*g
    w <- w - lr (m / (1 - b1^k)) / (eps + sqrt(v / (1 - b2^k)))

    Kingma, Ba, ICLR 2015. k is the state's own float count, so that a server may shift it.
    """

    lr: Annotated[float, Gt(0)] | None = None
    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Interval(ge=0, lt=1)] = 0.999
    eps: Annotated[float, Ge(0)] = 1e-8
    schedule: Schedule = field(default_factory=Constant)

    def init(self, w: Array) -> State:
        return {"m": np.zeros_like(w), "v": np.zeros_like(w), "k": 0.0}

    def step(self, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
        return w - _rate(self, t) * _adam_direction(self, g, state), state

    def with_lr(self, base: float) -> Self:
        """Steps do not scale with the gradient, so the rate does not depend on the data: 0.01."""
        return replace(self, lr=0.01)


@component
class AdamW:
    """w <- w - lr decay w  (decoupled from the gradient), then Adam.

    Loshchilov, Hutter, ICLR 2019. ``decay`` shrinks every coordinate, the intercept included.
    """

    lr: Annotated[float, Gt(0)] | None = None
    decay: Annotated[float, Ge(0)] = 0.01
    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Interval(ge=0, lt=1)] = 0.999
    eps: Annotated[float, Ge(0)] = 1e-8
    schedule: Schedule = field(default_factory=Constant)

    def init(self, w: Array) -> State:
        return {"m": np.zeros_like(w), "v": np.zeros_like(w), "k": 0.0}

    def step(self, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
        lr = _rate(self, t)
        return (1 - lr * self.decay) * w - lr * _adam_direction(self, g, state), state

    def with_lr(self, base: float) -> Self:
        return replace(self, lr=0.01)


def _rate(rule: SGD | HeavyBall | Nesterov | Adagrad | Adam | AdamW, t: int) -> float:
    if rule.lr is None:
        raise OptionError(f"{type(rule).__name__}: lr is not set; hemiola.fit estimates it.")
    return rule.lr * rule.schedule(t)


def _adam_direction(rule: Adam | AdamW, g: Array, state: State) -> Array:
    m, v = state["m"], state["v"]
    state["k"] = k = float(state["k"]) + 1.0
    m *= rule.beta1
    m += (1 - rule.beta1) * g
    v *= rule.beta2
    v += (1 - rule.beta2) * g * g
    m_hat, v_hat = m / _seen(rule.beta1, k), v / _seen(rule.beta2, k)
    return m_hat / (rule.eps + sqrt(v_hat))


def _seen(beta: float, k: float) -> float:
    """1 - beta^k, exact for beta close to 1 and for a fractional k."""
    return -math.expm1(k * math.log(beta)) if beta else 1.0
