"""The interfaces that the four modules and the engines agree on. Shapes: d parameters, n samples.

Both halves of an algorithm are pure with respect to messages::

    worker:  local.work(state, down, task)      -> (state, up)
    server:  aggregate.pull(state, worker)      -> down
             aggregate.push(state, up, info)    -> state

``up`` and ``down`` are messages, ``state`` is a nest of arrays that has one owner and may be
changed in place by that owner. Nothing here knows a communicator, a clock, a thread or a socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from hemiola.dataset import Batch, Dataset
from hemiola.types import Array, Message, State

if TYPE_CHECKING:
    from hemiola.algorithm import Info, MiniBatch, Task
    from hemiola.job import Event, Job, Work


@runtime_checkable
class Partition(Protocol):
    """Deals samples to workers."""

    @property
    def reshuffle_every(self) -> int | None:
        """Epochs after which everything is dealt anew (global reshuffle); None: never."""
        ...

    def split(self, y: Array, workers: int, rng: np.random.Generator) -> list[Array]:
        """One index array (n_k,) a worker. Disjoint and covering, unless its docstring says not."""
        ...


@runtime_checkable
class Stream(Protocol):
    """What an online algorithm draws its samples from."""

    @property
    def n_features(self) -> int:
        """Columns of every draw."""

    @property
    def n_classes(self) -> int:
        """How many classes there are; 0 for regression."""

    @property
    def dtype(self) -> Any:
        """float32 or float64."""

    def draw(self, rng: np.random.Generator, size: int) -> Dataset:
        """``size`` fresh samples. ``classes`` is the same in every draw, whatever was drawn."""


@runtime_checkable
class Sharded(Protocol):
    """A finite set of samples that is too large to hold: in parts, of which a few are open."""

    def __len__(self) -> int: ...

    @property
    def sizes(self) -> tuple[int, ...]:
        """The samples in each part."""

    @property
    def window(self) -> int:
        """How many parts a worker has open at a time, to shuffle batches between them."""

    @property
    def resident_bytes(self) -> int:
        """The memory that an open part takes at most, besides pages of files."""

    def part(self, number: int) -> Dataset:
        """Open a part. All have the same features and classes."""

    def shards(self, order: Iterable[int] | None = None) -> Iterator[Dataset]:
        """All parts, or those of these numbers, one after another, read ahead."""

    def cut(self, least: int) -> Sharded:
        """The same samples in at least so many parts."""

    def sample(self, size: int, seed: int = 0) -> Dataset:
        """About so many samples in memory; all of them if there are no more."""

    def as_regression(self) -> Sharded:
        """The same samples with their labels as real targets."""


@runtime_checkable
class Objective(Protocol):
    """Mean loss over a batch plus regularisation, as a function of a flat (d,) vector."""

    def check(self, data: Dataset) -> None:
        """Raise :class:`~hemiola.errors.DataError` when the targets do not fit this loss."""
        ...

    def init(self, data: Dataset, rng: np.random.Generator) -> Array:
        """The starting point (d,)."""
        ...

    def value(self, w: Array, batch: Batch) -> float: ...

    def grad(self, w: Array, batch: Batch) -> Array:
        """A new (d,) array that the caller owns. An empty batch contributes no data term."""
        ...

    def predict(self, w: Array, X: Any) -> Array:
        """Class numbers (m,) or real predictions (m,) for the rows of X."""
        ...


@runtime_checkable
class FusedObjective(Protocol):
    """An objective that does many steps of plain SGD in one call."""

    def sgd(self, w: Array, data: Dataset, rows: Array, ends: Array, rates: Array) -> Array:
        """A new w (d,) after w <- w - rates[i] grad(w, batch i) for all i in order.

        Batch i is ``rows[ends[i - 1] : ends[i]]``, the first one from 0; it may be empty. The
        outcome is that of the single steps but for rounding.
        """
        ...


@runtime_checkable
class PlacedObjective(Protocol):
    """An objective whose ``grad`` also takes and gives tensors of its own, as on a GPU, on which
    rules can step: they have arithmetic, also in place, ``sqrt`` and ``sign``."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether these are not on the host, so that steps should be taken on them."""
        ...

    def place(self, array: Array) -> Any:
        """A copy of the array there."""
        ...

    def fetch(self, tensor: Any) -> Array:
        """A copy of the tensor on the host."""
        ...


@runtime_checkable
class CurvedObjective(Protocol):
    """An objective of weights (p, C) and C intercepts that knows how it bends."""

    def curvatures(self, w: Array, batch: Batch) -> Array:
        """Parts of the mean loss's and the penalty's Hessian, or of a bound on it: the diagonal,
        and what couples each weight with its intercept, 0 for the intercepts; (2, p + 1, C). The
        batches' means, weighted by samples, are those of the whole."""
        ...


@runtime_checkable
class Source(Protocol):
    """Hands out mini-batches: where the data come from and in which order."""

    def batch(self, worker: int, t: int, mini_batch: MiniBatch) -> Batch:
        """The worker's t-th mini-batch (t = 0, 1, ...): a pure function of its arguments."""
        ...

    def samples(self, worker: int) -> int:
        """n_k, the size of the worker's shard (of a stream: 1, all workers count alike)."""
        ...

    def steps_per_epoch(self, worker: int, mini_batch: MiniBatch) -> int: ...


@runtime_checkable
class Divisible(Protocol):
    """A source of which some workers can be given their part alone."""

    def only(self, workers: Sequence[int]) -> Source:
        """A source that gives these workers the same batches, and need not serve others."""
        ...


@runtime_checkable
class LocalOptimizer(Protocol):
    """A rule that turns a gradient into a step. The clock t counts the steps of its owner."""

    def init(self, w: Array) -> State: ...

    def step(self, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
        """A new w (d,) from w and the gradient g (d,); changes the state, not w. t = 0, 1, ..."""
        ...


@runtime_checkable
class Local(Protocol):
    """What a worker does alone. Its state is a dict whose ``"t"`` counts its local steps."""

    def init(self, w0: Array) -> State: ...

    def work(self, state: State, down: Message, task: Task) -> tuple[State, Message]:
        """One piece of work. ``up["weight"]``, shape (), says how much the message stands for.

        The arrays of ``down`` may be reused by the server after the next message: keep none.
        """
        ...


@runtime_checkable
class Personal(Protocol):
    """A local part whose workers keep models of their own, which come back with the result."""

    def own_model(self, state: State) -> Array:
        """The worker's own model (d,)."""
        ...


@runtime_checkable
class Aggregate(Protocol):
    """What the server does with a message: of one worker, or reduced over a round's workers."""

    def init(self, w0: Array, workers: int) -> State: ...

    def pull(self, state: State, worker: int) -> Message:
        """What the worker reads now. May note in the state that it did, in place."""
        ...

    def push(self, state: State, up: Message, info: Info) -> State:
        """Take in a message. A worker may reuse its arrays afterwards: keep none of them. (Those of
        a round's reduced message are the server's own.)

        Arrays that went out in a message are never written to: they are replaced.
        """
        ...

    def model(self, state: State) -> Array:
        """The model to evaluate and to keep, (d,), read-only."""
        ...


@runtime_checkable
class Clocked(Protocol):
    """An aggregate that waits for clocks to be complete.

    A worker that leaves, or whose message is refused, may complete one without a push.
    """

    def complete(self, state: State, lowest: int) -> State:
        """All workers present have done ``lowest`` pieces of work or more."""
        ...


@runtime_checkable
class Measured(Protocol):
    """An aggregate that knows how far it has come."""

    def measures(self, state: State) -> dict[str, float]:
        """Figures for the history by name; none if there are none yet."""
        ...

    def ended(self, state: State) -> str | None:
        """A sentence, if the run should end with it, such as that residuals are small enough."""
        ...


@runtime_checkable
class Reduce(Protocol):
    """A commutative monoid over messages: a loop, an all-reduce or a tree may evaluate it."""

    def lift(
        self, up: Message, share: float, out: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        """Enter the monoid: new arrays, or those of ``out``, which are overwritten. ``share`` is
        the weight over the round's total weight."""
        ...

    def merge(self, a: dict[str, Array], b: dict[str, Array]) -> dict[str, Array]:
        """a + b, in the arrays of a, which is returned."""
        ...


@runtime_checkable
class Solver(Protocol):
    """All of an algorithm of threads that share memory: what happens in one pass over the data.

    ``plan`` is what is computed once before the first pass - data laid out for the kernels, a
    schedule of conflicts - and can be computed again; it is never saved. The state is.
    """

    def prepare(self, work: Work) -> Any:
        """The plan. Raises :class:`~hemiola.errors.OptionError` or ``DataError`` for an objective
        or data that the solver cannot handle, naming what it can."""
        ...

    def init(self, plan: Any, w0: Array) -> dict[str, Any]:
        """The state at the start (d,) in the objective's own layout."""
        ...

    def epoch(self, plan: Any, state: dict[str, Any], epoch: int) -> str | None:
        """One pass over the data by all threads, which changes the state. A sentence, if the run
        should end with it, such as that a duality gap is small enough."""
        ...

    def model(self, plan: Any, state: dict[str, Any]) -> Array:
        """A new (d,) array, in the objective's own layout."""
        ...

    def words(self, plan: Any) -> list[str]:
        """What a user should know before the run, a sentence each: constants, warnings."""
        ...


@runtime_checkable
class Certifying(Protocol):
    """What a solver has besides that knows how far the optimum can be."""

    def gap(self, plan: Any, state: dict[str, Any]) -> float:
        """The duality gap: the objective is no further than this above the least there is. It may
        cost a pass over the data."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Owns the loop, the clock and the wire."""

    @property
    def name(self) -> str: ...

    @property
    def supports(self) -> frozenset[type]:
        """The communication disciplines that it can run."""
        ...

    def run(self, job: Job, resume: State | None = None) -> Iterator[Event]:
        """Yield one event for every update of the server, for ever; the caller stops.

        ``resume`` is what an event's ``snapshot()`` returned. Closing the iterator frees threads.
        """
        ...
