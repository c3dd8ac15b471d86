"""Streaming DiLoCo: fragments of the model take turns, and steps go on while one is on its way.

Douillard, Donchev, Rush, Kale, Charles, Garrett, Teston, Lacey, McIlroy, Shen, Rame, Szlam,
Ranzato, Barham, "Streaming DiLoCo with overlapping communication: Towards a Distributed Free
Lunch", arXiv 2501.18512, 2025.

    P fragments; fragment p is due every H steps, H/P steps after fragment p - 1
    step t, p due:      Delta_p = theta_p - mean_k theta_k,p
                        theta_p <- OuterOpt_p(theta_p, Delta_p)
    step t + tau:       theta_k,p <- alpha theta_k,p + (1 - alpha) theta_p

=========  ===================================================  =========
symbol     here                                                 shape
=========  ===================================================  =========
theta_p    server state ``w``, fragment p; ``down["w"]``        (d_p,)
theta_k,p  worker state ``w``, fragment p; ``up["w"]``          (d_p,)
P          ``fragments``
H          ``steps``: a round is H/P of them
tau        ``delay``, less than H/P
alpha      ``mix``: 0 overwrites, 1 never communicates
OuterOpt   ``server``, with a state for every fragment
InnerOpt   ``optimizer``, whose state stays with its worker
=========  ===================================================  =========

A round ends when a fragment is due, so fragments' offsets are H/P, 2 H/P, ... and messages are P
times smaller. What the server made of a fragment comes down with the next round and is merged tau
steps into it, as if it had been on its way so long; only the steps are exact, the engines' clocks
wait for messages at the end of a round. The paper's fragments are strided or consecutive layers;
here they are strided or consecutive coordinates of the flat vector, and they are sent in full
precision, not in four bits. A worker that misses a round merges that fragment's next version. One
fragment without delay and alpha = 0 is DiLoCo. The model is the server's.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Interval

from hemiola.aggregate import WeightedMean
from hemiola.algorithm import Algorithm, Info, MiniBatch, Task, weight_of
from hemiola.communicate import Synchronous
from hemiola.component import component
from hemiola.contracts import LocalOptimizer, Partition
from hemiola.errors import OptionError
from hemiola.local.local_steps import descend, gradients
from hemiola.optim import AdamW, Nesterov
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, Message, State, freeze, frozen

PAPER = "Douillard et al., 2025"


@component
class Fragments:
    """d coordinates in ``count`` parts: ``sequential`` (consecutive) or ``strided`` ones."""

    count: Annotated[int, Ge(1)] = 5
    pattern: Literal["sequential", "strided"] = "sequential"

    def part(self, number: int, d: int) -> slice:
        """Where a fragment is; numbers begin again after the last.

        >>> Fragments(2).part(1, 5), Fragments(2, "strided").part(1, 5)
        (slice(2, 5, None), slice(1, None, 2))
        """
        p = number % self.count
        if self.pattern == "strided":
            return slice(p, None, self.count)
        return slice(p * d // self.count, (p + 1) * d // self.count)


@component
class FragmentSteps:
    """up = the fragment (d_p,) that is due after ``steps`` steps of the worker's own model.

    ``delay`` steps into the round the fragment that came down is merged into the model.
    """

    optimizer: LocalOptimizer
    fragments: Fragments = field(default_factory=Fragments)
    steps: Annotated[int, Ge(1)] = 10
    delay: Annotated[int, Ge(0)] = 0
    mix: Annotated[float, Interval(ge=0, le=1)] = 0.5
    batch: MiniBatch = field(default_factory=MiniBatch)

    def __post_init__(self) -> None:
        if self.delay >= self.steps:
            raise OptionError(
                f"a delay of {self.delay} steps is no shorter than the {self.steps} steps between "
                "two fragments; use a smaller delay, or more steps for each fragment."
            )

    def init(self, w0: Array) -> State:
        return {"t": 0, "w": w0.copy(), "optimizer": self.optimizer.init(w0)}

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        gradient, due = gradients(task, self.batch), int(down["due"][0])
        w = descend(self.optimizer, state, state["w"], self.delay, gradient)
        if "w" in down:
            w = self._merged(w, down["w"], due - 1)
        w = descend(self.optimizer, state, w, self.steps - self.delay, gradient)
        state["w"] = w
        weight = weight_of(task.source.samples(task.worker))
        return state, freeze(w=w[self.fragments.part(due, w.size)].copy(), weight=weight)

    def _merged(self, w: Array, fragment: Array, number: int) -> Array:
        part, w = self.fragments.part(number, w.size), w.copy()
        w[part] = self.mix * w[part] + (1 - self.mix) * fragment
        return w


@component
class FragmentServer:
    """One outer step a round, on the fragment that is due, with an optimiser state of its own."""

    optimizer: LocalOptimizer
    fragments: Fragments = field(default_factory=Fragments)

    def init(self, w0: Array, workers: int) -> State:
        if self.fragments.count > w0.size:
            raise OptionError(
                f"{w0.size} weights cannot be cut into {self.fragments.count} fragments; use fewer."
            )
        parts = [w0[self.fragments.part(p, w0.size)] for p in range(self.fragments.count)]
        return {"w": w0.copy(), "round": 0, "optimizers": [self.optimizer.init(p) for p in parts]}

    def pull(self, state: State, worker: int) -> Message:
        w, due = state["w"], state["round"]
        down = {"due": np.array([due % self.fragments.count])}
        if due:
            down["w"] = np.ascontiguousarray(w[self.fragments.part(due - 1, w.size)])
        return freeze(**down)

    def push(self, state: State, up: Message, info: Info) -> State:
        due, w = state["round"], state["w"].copy()
        part, turn = self.fragments.part(due, w.size), due // self.fragments.count
        memories = list(state["optimizers"])
        p, old = due % self.fragments.count, w[part].copy()
        w[part], memories[p] = self.optimizer.step(old, old - up["w"], memories[p], turn)
        return {"w": w, "round": due + 1, "optimizers": memories}

    def model(self, state: State) -> Array:
        return frozen(state["w"])

    def base_inside(self, base: float) -> float:
        """Changes of models are gradients of a loss of curvature 1, whatever the data are."""
        return 1.0


def streaming_diloco(
    steps: int = 50,
    fragments: int = 5,
    delay: int = 2,
    mix: float = 0.5,
    pattern: Literal["sequential", "strided"] = "sequential",
    server: LocalOptimizer = Nesterov(0.7, 0.9),
    optimizer: LocalOptimizer = AdamW(),
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """DiLoCo by fragments: each is sent every ``steps`` steps, at its own time, and merged later.

    A round is ``steps / fragments`` local steps. Raises :class:`~hemiola.errors.OptionError` unless
    that is a whole number, greater than ``delay``.

    >>> streaming_diloco(steps=48, fragments=4).local.steps
    12
    """
    steps, cut = int(steps), Fragments(fragments, pattern)
    if steps < 1 or steps % cut.count:
        raise OptionError(
            f"streaming-diloco: steps = {steps} must be a multiple of fragments = {cut.count}, as "
            "fragments take turns at equal distances."
        )
    return Algorithm(
        name="streaming-diloco",
        partition=partition,
        local=FragmentSteps(optimizer, cut, steps // cut.count, delay, mix, batch),
        communicate=Synchronous(),
        reduce=WeightedMean(),
        aggregate=FragmentServer(server, cut),
    )
