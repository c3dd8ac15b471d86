"""Stale synchronous parallel.

Ho, Cipar, Cui, Lee, Kim, Gibbons, Gibson, Ganger, Xing, "More Effective Distributed ML via a Stale
Synchronous Parallel Parameter Server", NIPS 2013.

    worker k, one clock tick:
        READ   wait until min_j clock[j] >= clock[k] - s;  view = w
        INC    w <- w + u,   u = -lr g(view)
        CLOCK  clock[k] <- clock[k] + 1

=========  ==========================================  =========
symbol     here                                        shape
=========  ==========================================  =========
clock[k]   ``info.tick`` before, plus 1 after a push
s          ``communicate.max_lead``
u          ``-optimizer.rate(tick) * up["g"]``         (d,)
w          server state ``w``                          (d,)
=========  ==========================================  =========

s bounds the *lead* in clock ticks, not the staleness in updates. Two kinds of view:

- ``plain``: the current w, which may hold updates of clocks that are not complete yet. Right after
  CLOCK the gap may be s + 1; a worker blocks on its next READ until it is s. (With s = 0 this
  server lets all readers go at once, so updates are those of BSP, added in order of arrival.)
- ``strict``: only complete clocks - those that every worker has finished - and the reader's own
  later updates (read-my-writes). Updates of one clock are applied in rank order, so s = 0 is BSP:
  synchronous SGD of step K lr on the mean gradient, exactly, whatever the timing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from hemiola.aggregate import Descend, WeightedMean
from hemiola.algorithm import Algorithm, Info, MiniBatch
from hemiola.communicate import Asynchronous
from hemiola.component import component
from hemiola.contracts import Partition
from hemiola.errors import OptionError
from hemiola.local import Gradient
from hemiola.optim import SGD
from hemiola.partition import ShuffleSplit
from hemiola.types import Array, Message, State, freeze, frozen

PAPER = "Ho et al., NIPS 2013"


@component
class CompleteClocks:
    """The strict view: ``w`` holds complete clocks only, ``pending[clock][worker]`` the rest."""

    separable: ClassVar[bool] = True

    optimizer: SGD

    def init(self, w0: Array, workers: int) -> State:
        return {"w": w0.copy(), "pending": {}}

    def pull(self, state: State, worker: int) -> Message:
        view = state["w"]
        for _, updates in _in_order(state["pending"]):
            if str(worker) in updates:
                view = view - updates[str(worker)]
        return freeze(w=view)

    def push(self, state: State, up: Message, info: Info) -> State:
        worker = info.sender
        step = self.optimizer.rate(info.tick) * up["g"]
        state["pending"].setdefault(str(info.tick), {})[str(worker)] = step
        return self.complete(state, info.lowest)

    def complete(self, state: State, lowest: int) -> State:
        w, pending = state["w"], state["pending"]
        for clock, updates in _in_order(pending):
            if clock < lowest:
                for _, update in _in_order(updates):
                    w = w - update
                del pending[str(clock)]
        return {"w": w, "pending": pending}

    def model(self, state: State) -> Array:
        return frozen(state["w"])


def _in_order(numbered: dict[str, Any]) -> list[tuple[int, Any]]:
    """Items by number: the keys of a saved state are text."""
    return sorted((int(key), value) for key, value in numbered.items())


def ssp(
    s: int = 3,
    view: Literal["plain", "strict"] = "plain",
    optimizer: SGD = SGD(),
    batch: MiniBatch = MiniBatch(),
    partition: Partition = ShuffleSplit(),
) -> Algorithm:
    """Stale synchronous parallel SGD: asynchronous, but nobody runs further ahead than s.

    >>> ssp(s=2).communicate.max_lead
    2
    """
    if view not in ("plain", "strict"):
        raise OptionError(f"ssp: view should be 'plain' or 'strict', not {view!r}.")
    return Algorithm(
        name="ssp",
        partition=partition,
        local=Gradient(batch),
        communicate=Asynchronous(max_lead=s),
        reduce=WeightedMean(),
        aggregate=Descend(optimizer) if view == "plain" else CompleteClocks(optimizer),
    )
