"""Layers on different workers, and mini-batches that pass through them in parts.

Huang et al., "GPipe: efficient training of giant neural networks using pipeline parallelism",
NeurIPS 2019; Narayanan et al., "PipeDream: generalized pipeline parallelism for DNN training",
SOSP 2019, for the order 1F1B, here with a flush after every mini-batch.

    stage s:  receive x of micro-batch i, send f_s(x)        i = 1..M
              receive dL/df_s(x), send dL/dx                 i = 1..M
    gpipe     all forward, then all backward: M micro-batches are kept at each stage
    1f1b      one backward after one forward as soon as there is one: S - s are kept

The idle share of the time is (S - 1) / (M + S - 1) in both. A step sends every number that crosses
a cut once per sample, and its gradient once back: 2 m (n_1 + ... + n_{S-1}) in all, for m samples
and n_s numbers of stage s's output a sample.

========  ================================  ==================
symbol    here                              shape
========  ================================  ==================
S, s      the group's ranks
M         ``microbatches``
f_s       ``Pipeline.stage``                (m / M, ...) each
========  ================================  ==================

Schedules and messages are those of ``torch.distributed.pipelining``. Micro-batches are equally
large, so that the mean of their losses is that of the mini-batch. Masks of dropout belong to
samples and units: they are those of the undivided network, whatever the cuts and M.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from hemiola.errors import OptionError
from hemiola.objectives._masks import Masks

_SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}
_WHOLE_BATCH = torch.nn.modules.batchnorm._BatchNorm


class _Step:
    """The masks of the micro-batch in progress; None while there is none."""

    def __init__(self) -> None:
        self.masks: Masks | None = None


class _Drop(nn.Module):
    """Dropout with the micro-batch's masks."""

    def __init__(self, p: float, layer: int, step: _Step) -> None:
        super().__init__()
        self.p, self.layer, self.step = p, layer, step

    def forward(self, x: Any) -> Any:
        if self.step.masks is None or not self.training:
            return x
        return self.step.masks.drop(x, self.layer, self.p)


def stages(network: nn.Sequential, cuts: Sequence[int]) -> list[list[int]]:
    """The numbers of each stage's layers; a stage begins with each layer in ``cuts``.

    Raises :class:`~hemiola.errors.OptionError` for cuts that leave a stage without layers.

    >>> stages(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), [2])
    [[0, 1], [2]]
    """
    ends = [0, *cuts, len(network)]
    if any(a >= b for a, b in pairwise(ends)):
        raise OptionError(
            f"cuts at {list(cuts)} leave a stage of the {len(network)} layers empty; they must "
            f"ascend, from 1 to {len(network) - 1}."
        )
    return [list(range(a, b)) for a, b in pairwise(ends)]


class Pipeline:
    """One stage of a sequence of layers, at one rank of ``group``; rank s has stage s.

    ``cuts``          the layers with which the second and later stages begin;
    ``microbatches``  M, into which each mini-batch is cut;
    ``loss``          a function of outputs and targets that gives the mean;
    ``schedule``      ``gpipe`` or ``1f1b``;
    ``group``         of torch.distributed; None: all ranks.

    ``stage`` has the layers and, after :meth:`gradients`, their gradients. Raises
    :class:`~hemiola.errors.OptionError` unless there are as many stages as ranks, and for batch
    normalisation, which would see micro-batches.
    """

    def __init__(
        self, network: nn.Sequential, cuts: Sequence[int], microbatches: int = 4,
        loss: Callable[[Any, Any], Any] = nn.functional.cross_entropy,
        schedule: Literal["gpipe", "1f1b"] = "1f1b", group: Any = None,
    ) -> None:  # fmt: skip
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        parts = stages(network, cuts)
        _check(network, parts, self.size, schedule)
        if microbatches < self.size:
            raise OptionError(
                f"{microbatches} micro-batches are too few for {self.size} stages; give as many."
            )
        self.microbatches, self._step = microbatches, _Step()
        self.stage = nn.Sequential(*(_own(network[i], i, self._step) for i in parts[self.rank]))
        self._on = PipelineStage(self.stage, self.rank, self.size, torch.device("cpu"), group=group)
        self._forward = self._on.forward_one_chunk
        self._schedule = _SCHEDULES[schedule](self._on, microbatches, loss_fn=loss)

    def gradients(self, x: Any, y: Any, seed: int = 0) -> float | None:
        """Set the gradients of the mean loss over a mini-batch; the last rank returns the loss.

        Only the first rank reads ``x`` (m, ...), only the last one ``y`` (m,); ``seed``: of the
        dropout of this step, alike at all ranks. m must be the same in every step, and a multiple
        of M; else :class:`~hemiola.errors.OptionError` is raised.
        """
        if len(x) % self.microbatches:
            raise OptionError(
                f"{len(x)} samples cannot be cut into {self.microbatches} equal micro-batches."
            )
        self._on.forward_one_chunk = self._numbered(seed, len(x))
        self.stage.zero_grad()
        is_last = self.rank == self.size - 1
        losses: list[Any] = []
        inputs = (x,) if self.rank == 0 else ()
        outcome = {"target": y, "losses": losses} if is_last else {}
        self._schedule.step(*inputs, **outcome)
        return float(torch.stack(losses).detach().mean()) if is_last else None

    def _numbered(self, seed: int, samples: int) -> Callable[..., Any]:
        """The stage's forward pass of the i-th micro-batch, which drops that one's units."""
        part = samples // self.microbatches

        def forward(i: int, *arguments: Any, **options: Any) -> Any:
            self._step.masks = Masks(seed, samples, range(i * part, (i + 1) * part))
            try:
                return self._forward(i, *arguments, **options)
            finally:
                self._step.masks = None

        return forward


def _check(network: nn.Sequential, parts: Sequence[Any], size: int, schedule: str) -> None:
    if schedule not in _SCHEDULES:
        raise OptionError(f"there is no schedule {schedule!r}; choose gpipe or 1f1b.")
    if len(parts) != size:
        raise OptionError(f"{len(parts)} stages for {size} ranks; give {size - 1} cuts.")
    if any(isinstance(module, _WHOLE_BATCH) for module in network.modules()):
        raise OptionError("batch normalisation would see micro-batches instead of mini-batches.")


def _own(layer: nn.Module, number: int, step: _Step) -> nn.Module:
    return _Drop(layer.p, number, step) if isinstance(layer, nn.Dropout) else copy.deepcopy(layer)


def numbers_sent(samples: int, outputs: Sequence[int]) -> int:
    """Numbers that all stages send in a step, of ``outputs`` numbers a sample at each cut.

    >>> numbers_sent(samples=12, outputs=[7, 6])
    312
    """
    return 2 * samples * sum(outputs)
