"""Where to cut a network for workers of so much memory each, and what a step will take.

A pipeline (:mod:`hemiola.objectives.pipeline`) of S stages takes M micro-batches, with t_s seconds
of computing a micro-batch at stage s, c_s seconds of sending it and its gradient over the s-th cut:

    step     sum_s t_s + sum_s c_s + (M - 1) max(t_1, ..., t_S, c_1, ..., c_{S-1})
    memory   (2 + k) P_s + M (x_s + x_{s+1}) + q_s a_s,     q_s = M (gpipe), min(M, S - s) (1f1b)

=============  ==========================================================================
symbol         what it is, in bytes
=============  ==========================================================================
P_s            parameters; as many of gradients, k times as many of the optimiser's state
x_s, x_{s+1}   inputs and outputs of a micro-batch: the schedule has a place for each
a_s            what else autograd keeps of a micro-batch until its backward pass
q_s            the micro-batches that are between their two passes, s = 0, 1, ...
=============  ==========================================================================

All ways to cut are compared, but for those that another one beats in both sums. What a layer needs
for a moment, and PyTorch itself, are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from hemiola.component import component
from hemiola.errors import OptionError
from hemiola.extras import require


@component
class Step:
    """A step of training: so many ``samples``, in ``microbatches`` of equal size, M.

    ``schedule``  ``1f1b`` or ``gpipe``;
    ``states``    numbers that the optimiser keeps for each parameter: 0 of SGD, 1 with momentum,
                  2 of Adam.
    """

    samples: Annotated[int, Ge(1)] = 128
    microbatches: Annotated[int, Ge(1)] = 16
    schedule: Literal["1f1b", "gpipe"] = "1f1b"
    states: Annotated[int, Ge(0)] = 1

    def __post_init__(self) -> None:
        if self.samples % self.microbatches:
            raise OptionError(
                f"{self.samples} samples cannot be cut into {self.microbatches} equal "
                "micro-batches."
            )


@component
class Machine:
    """A worker's operations a second, and bytes a second from one to the next.

    What is None is measured here: each layer's time with one thread, and messages by gloo. At given
    ``flops``, layers without matrix products and convolutions take no time.
    """

    flops: Annotated[float, Gt(0)] | None = None
    bandwidth: Annotated[float, Gt(0)] | None = None


@dataclass(frozen=True)
class Stage:
    """One worker's layers. All sizes in bytes.

    ``layers``       their numbers;
    ``weights``      parameters, their gradients, and the optimiser's state;
    ``activations``  places for inputs and outputs, and what autograd keeps;
    ``sends``        a step's activations to the next worker and gradients to the one before;
    ``seconds``      of computing in a step.
    """

    layers: range
    parameters: int
    weights: int
    activations: int
    sends: int
    seconds: float

    @property
    def memory(self) -> int:
        return self.weights + self.activations


@dataclass(frozen=True)
class Plan:
    """A cut: ``cuts`` are the layers with which the second and later stages begin.

    ``seconds``    of a step, as predicted;
    ``alone``      those of one worker, if it had the memory;
    ``flops``      operations a second, on the average of all layers;
    ``bandwidth``  bytes a second between workers.
    """

    stages: tuple[Stage, ...]
    seconds: float
    alone: float
    flops: float
    bandwidth: float

    @property
    def cuts(self) -> list[int]:
        return [stage.layers.start for stage in self.stages[1:]]

    @property
    def sent(self) -> int:
        """Bytes that all workers send in a step."""
        return sum(stage.sends for stage in self.stages)

    @property
    def idle(self) -> float:
        """The share of the workers' time without computing."""
        busy = sum(stage.seconds for stage in self.stages)
        return 1 - busy / (self.seconds * len(self.stages))


def plan(
    network: Any, shape: Sequence[int], memory: float, workers: int, step: Step = Step(),
    machine: Machine = Machine(),
) -> Plan:  # fmt: skip
    """The fastest cut of a sequence of layers over at most so many workers of ``memory`` bytes.

    ``shape``: of a sample. A network without memory itself (device ``meta``) will do, if the
    machine's ``flops`` are given. Raises :class:`~hemiola.errors.OptionError` where memory is too
    small, naming a layer that is too large by itself, or what the workers would need.

    >>> from torch import nn
    >>> network = nn.Sequential(nn.Linear(100, 400), nn.ReLU(), nn.Linear(400, 300))
    >>> machine = Machine(flops=1e9, bandwidth=1e8)
    >>> found = plan(network, [100], 2e6, workers=2, step=Step(32, 4), machine=machine)
    >>> found.cuts, found.sent
    ([1], 102400)
    >>> plan(network, [100], 1e6, 2, Step(32, 4), machine)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    hemiola.errors.OptionError: layer 2, Linear(400, 300), takes 1.47 MB by itself, ...
    """
    if workers < 1:
        raise OptionError(f"workers must be at least 1, not {workers}.")
    layers = _costs().layers_of(network, shape, step.samples // step.microbatches)
    _check_layers(layers, step, memory)
    paces = _paces(network, shape, layers, step, machine)
    most = min(workers, len(layers), step.microbatches)
    problems = [_Problem(layers, step, paces, stages) for stages in range(1, most + 1)]
    best = [(problem, problem.fastest(memory)) for problem in problems]
    found = [problem.plan(way) for problem, way in best if way is not None]
    if not found:
        raise OptionError(_too_few(problems, memory, workers))
    return min(found, key=lambda plan: plan.seconds)


@dataclass(frozen=True)
class _Paces:
    """``seconds`` of each layer for a micro-batch, and bytes a second between workers."""

    seconds: Sequence[float]
    bandwidth: float


def _paces(
    network: Any, shape: Sequence[int], layers: Sequence[Any], step: Step, machine: Machine
) -> _Paces:
    costs, flops = _costs(), machine.flops
    if flops is None:
        samples = step.samples // step.microbatches
        seconds = costs.measured_seconds(network, shape, samples)
    else:
        seconds = [layer.flops / flops for layer in layers]
    return _Paces(seconds, machine.bandwidth or costs.measured_bandwidth())


@dataclass(frozen=True, order=True)
class _Way:
    """Some stages: the slowest part's seconds a micro-batch, all seconds of sending, the cuts."""

    slowest: float
    sending: float
    cuts: tuple[int, ...] = ()


class _Problem:
    """Costs of stages [i, j) of a pipeline of so many ``stages``."""

    def __init__(self, layers: Sequence[Any], step: Step, paces: _Paces, stages: int) -> None:
        self.layers, self.step, self.paces, self.stages = layers, step, paces, stages

    def fastest(self, memory: float) -> tuple[int, ...] | None:
        """The cuts of least time; None if there are none."""
        ways: dict[int, list[_Way]] = {0: [_Way(0.0, 0.0)]}
        for s in range(self.stages):
            further: dict[int, list[_Way]] = {}
            for i, j in self._spans(ways, s):
                if self.memory(i, j, s) <= memory:
                    further.setdefault(j, []).extend(self._on(way, i, j) for way in ways[i])
            ways = {j: _best(found) for j, found in further.items()}
        last = ways.get(len(self.layers), [])
        return min(last, key=self._seconds).cuts if last else None

    def least(self) -> tuple[int, range]:
        """The bytes of the stage that needs most, and its layers, cut so that it is the least."""
        needs = {0: (0, range(0))}
        for s in range(self.stages):
            further: dict[int, tuple[int, range]] = {}
            for i, j in self._spans(needs, s):
                own = self.memory(i, j, s), range(i, j)
                need = max(needs[i], own, key=itemgetter(0))
                further[j] = min(further.get(j, need), need, key=itemgetter(0))
            needs = further
        return needs[len(self.layers)]

    def _spans(self, begun: Any, s: int) -> Iterator[tuple[int, int]]:
        """The layers that stage s may have after what was begun; the last stage has the rest."""
        count, after = len(self.layers), self.stages - 1 - s
        for i in begun:
            ends = range(i + 1, count - after + 1) if after else (count,)
            yield from ((i, j) for j in ends if j > i)

    def _on(self, way: _Way, i: int, j: int) -> _Way:
        sending = self._sending(i) if i else 0.0
        slowest = max(way.slowest, self._computing(i, j), sending)
        return _Way(slowest, way.sending + sending, (*way.cuts, i) if i else ())

    def _seconds(self, way: _Way) -> float:
        """Of a step."""
        whole = self._computing(0, len(self.layers)) + way.sending
        return whole + (self.step.microbatches - 1) * way.slowest

    def _computing(self, i: int, j: int) -> float:
        return sum(self.paces.seconds[i:j])

    def _sending(self, cut: int) -> float:
        return 2 * self._crossing(cut) / self.paces.bandwidth

    def _crossing(self, cut: int) -> int:
        """Bytes of a micro-batch over the cut before this layer; none at both ends."""
        return self.layers[cut - 1].sends if 0 < cut < len(self.layers) else 0

    def weights(self, i: int, j: int) -> int:
        return (2 + self.step.states) * sum(layer.parameters for layer in self.layers[i:j])

    def activations(self, i: int, j: int, s: int) -> int:
        part, m = self.layers[i:j], self.step.microbatches
        kept = {part[-1].writes: part[-1].sends}
        for layer in part:
            kept |= layer.keeps
        kept.pop(part[0].reads, None)
        waiting = m if self.step.schedule == "gpipe" else min(m, self.stages - s)
        return m * (part[0].takes + part[-1].sends) + waiting * sum(kept.values())

    def memory(self, i: int, j: int, s: int) -> int:
        return self.weights(i, j) + self.activations(i, j, s)

    def plan(self, cuts: tuple[int, ...]) -> Plan:
        """The cut in figures."""
        ends = [0, *cuts, len(self.layers)]
        spans = list(pairwise(ends))
        way = _Way(0.0, 0.0)
        for i, j in spans:
            way = self._on(way, i, j)
        m = self.step.microbatches
        stages = tuple(
            Stage(
                range(i, j), sum(layer.parameters for layer in self.layers[i:j]),
                self.weights(i, j), self.activations(i, j, s),
                m * (self._crossing(i) + self._crossing(j)), m * self._computing(i, j),
            )
            for s, (i, j) in enumerate(spans)
        )  # fmt: skip
        computing = self._computing(0, len(self.layers))
        flops = sum(layer.flops for layer in self.layers) / computing
        return Plan(stages, self._seconds(way), m * computing, flops, self.paces.bandwidth)


def _best(ways: Sequence[_Way]) -> list[_Way]:
    """Those that no other one beats in both figures."""
    kept: list[_Way] = []
    for way in sorted(ways):
        if not kept or way.sending < kept[-1].sending:
            kept.append(way)
    return kept


def _check_layers(layers: Sequence[Any], step: Step, memory: float) -> None:
    """Raise for a layer that fits nowhere, whatever stands beside it."""
    waiting = step.microbatches if step.schedule == "gpipe" else 1
    for layer in layers:
        weights = (2 + step.states) * layer.parameters
        need = weights + waiting * sum(layer.keeps.values())
        if need > memory:
            raise OptionError(
                f"{layer.name}, takes {_size(need)} by itself, of which {_size(weights)} are "
                f"parameters, gradients and optimiser state; the limit is {_size(memory)}. A "
                "pipeline does not cut layers: allow more memory, or split the layer by its units "
                "(hemiola.objectives.split)."
            )


def _too_few(problems: Sequence[_Problem], memory: float, workers: int) -> str:
    """What so many workers would need."""
    need, layers = min((problem.least() for problem in problems), key=itemgetter(0))
    return (
        f"{workers} workers of {_size(memory)} cannot hold the network: they need {_size(need)}, "
        f"for layers {layers[0]} to {layers[-1]}. Allow more memory, or give more workers, more "
        "micro-batches or smaller steps."
    )


def _size(count: float) -> str:
    return f"{count / 1e6:.3g} MB"


def _costs() -> Any:
    require("torch", "torch")
    from hemiola.objectives import costs

    return costs
