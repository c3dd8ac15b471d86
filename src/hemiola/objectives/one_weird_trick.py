"""Convolutions by data, fully connected layers by model: the "one weird trick".

Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997.

Convolutions have most of the work and few parameters, fully connected layers the opposite. So each
of K workers has all convolutions and b samples of its own, and 1/K of the units of every fully
connected layer. How the latter get their input h, the convolutions' outputs:

    (a) all at once     every worker gets the h of all K b samples                        1 turn
    (b) one by one      in turn j all get the b samples of worker j                       K turns
    (c) a share of all  in turn t all get b/K samples of every worker                     K turns

    a turn:   x  = the turn's h, gathered;   y_j = f(W_j x + b_j) at worker j, gathered, and so on
              dx = sum_j W_j' dy_j, each sample's to its owner
    the end:  convolutions go backward on all their dh; their gradients are summed over workers

(b) and (c) hold K times fewer samples in the fully connected layers, and a turn's messages can hide
behind the work of the turn before; in (c) all workers send alike. All send the same in all, in
numbers (labels apart), with p parameters in the convolutions, F numbers in h, layers of n_1, n_2,
... units and C outputs:

    (K - 1) (2 K b F + 2 K b (n_1 + n_2 + ...) + K b C + 2 p)

The outputs come back once only, as all workers take the same loss of them. In (b) and (c) the fully
connected layers may step after every turn, with batches K times smaller than the convolutions':
the *variable batch*.

==============  ====================================  ===========================
symbol          here                                  shape
==============  ====================================  ===========================
K, j            ``exchange.size``, ``exchange.rank``
a turn          ``turns(scheme, K, b)``
h               what ``convolutions`` give            (b, F)
W_j, b_j        a layer of ``full``                   (n / K, inputs), (n / K,)
==============  ====================================  ===========================

Gradients are those of the mean loss over all K b samples. A turn's work and messages follow each
other here; what the paper hides is not hidden. Masks of dropout belong to samples and units, so
neither the scheme nor K changes them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from hemiola.errors import OptionError
from hemiola.objectives._exchange import Exchange, gathered, shared
from hemiola.objectives._masks import Masks
from hemiola.objectives.split import columns, cut

Scheme = Literal["a", "b", "c"]
Update = Callable[[Iterable[Any]], None]

_LOCAL = (
    nn.Conv2d, nn.LocalResponseNorm, nn.MaxPool2d, nn.AvgPool2d,
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.Identity, nn.Flatten,
)  # fmt: skip
_EACH = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.Identity)


def turns(scheme: Scheme, workers: int, samples: int) -> list[list[slice]]:
    """For each turn, the rows that each worker hands in of its ``samples``.

    Raises :class:`~hemiola.errors.OptionError` if scheme c cannot share them out evenly.

    >>> [[(rows.start, rows.stop) for rows in turn] for turn in turns("c", 2, 6)]
    [[(0, 3), (0, 3)], [(3, 6), (3, 6)]]
    """
    if scheme == "a":
        return [[slice(0, samples)] * workers]
    if scheme == "b":
        return [[slice(0, samples * (j == k)) for k in range(workers)] for j in range(workers)]
    if scheme != "c":
        raise OptionError(f"there is no scheme {scheme!r}; choose a, b or c.")
    if samples % workers:
        raise OptionError(
            f"scheme c: {samples} samples a worker are no multiple of {workers} workers."
        )
    share = samples // workers
    return [[slice(t * share, (t + 1) * share)] * workers for t in range(workers)]


class Sliced(nn.Module):
    """One worker's units of fully connected layers; all workers must call it together."""

    def __init__(self, layers: Iterable[nn.Module], exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange
        self.layers = nn.ModuleList()
        self.sizes: list[
            list[int]
        ] = []  # of each module's outputs at every worker; []: all have all
        sizes: list[int] = []
        for layer in layers:
            if isinstance(layer, nn.Linear):
                sizes = cut(layer.out_features, exchange.size)
                layer = columns(layer, exchange.size)[exchange.rank]
            elif not isinstance(layer, (*_EACH, nn.Dropout)):
                raise OptionError(f"{type(layer).__name__} cannot stand after the convolutions.")
            self.layers.append(copy.deepcopy(layer))
            self.sizes.append(sizes)
        if not sizes:
            raise OptionError("there is no nn.Linear after the convolutions, so nothing to slice.")

    def forward(self, x: Any, masks: Masks) -> Any:
        """The outputs (m, C), at every worker, of inputs (m, F) that every worker has."""
        before: list[int] = []
        for number, (layer, sizes) in enumerate(zip(self.layers, self.sizes, strict=True)):
            if isinstance(layer, nn.Dropout):
                x = masks.drop(x, number, layer.p, sizes, self.exchange.rank)
                continue
            if isinstance(layer, nn.Linear) and before:
                x = gathered(x, self.exchange, before, 1)
            x, before = layer(x), sizes
        return shared(x, self.exchange, before, 1)


class Trick(nn.Module):
    """One worker of K: all ``convolutions`` of a sequence of layers, and its slice of the ``full``
    ones, which begin after the last convolution and ``nn.Flatten``.

    Raises :class:`~hemiola.errors.OptionError` for layers that it does not know.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    >>> worker = Trick(network, Exchange())
    >>> loss = worker.gradients(torch.ones(4, 1, 4, 4), torch.tensor([0, 1, 2, 0]))
    >>> [tuple(p.grad.shape) for p in worker.parameters()]
    [(2, 1, 3, 3), (2,), (3, 8), (3,)]
    """

    def __init__(
        self, network: nn.Sequential, exchange: Exchange, scheme: Scheme = "a",
        loss: Callable[[Any, Any], Any] = nn.functional.cross_entropy,
    ) -> None:  # fmt: skip
        super().__init__()
        layers = list(network)
        turns(scheme, exchange.size, exchange.size)  # is there such a scheme?
        first = _first_full(layers)
        for layer in layers[:first]:
            if not isinstance(layer, _LOCAL):
                raise OptionError(f"{type(layer).__name__} cannot stand among the convolutions.")
        self.convolutions = nn.Sequential(*copy.deepcopy(layers[:first]))
        self.full = Sliced(layers[first:], exchange)
        self.exchange, self.scheme, self.loss = exchange, scheme, loss

    def gradients(self, x: Any, y: Any, seed: int = 0, update: Update | None = None) -> float:
        """Set the gradients of the mean loss over all workers' samples, and return it.

        ``x`` (b, ...) and ``y`` (b,) are this worker's, b that of all workers; ``seed``: of the
        dropout of this step. With ``update``, the variable batch: it is called after every turn
        with the parameters of this worker's slice and their gradients of the turn's mean loss.
        """
        self.zero_grad()
        h = self.convolutions(x)
        dh, total = torch.zeros_like(h), 0.0
        plan = turns(self.scheme, self.exchange.size, len(x))
        for turn in plan:
            part = h.detach()[turn[self.exchange.rank]].requires_grad_()
            loss = self._turn(part, y, turn, seed)
            (loss if update else loss / len(plan)).backward()
            dh[turn[self.exchange.rank]] = part.grad / len(plan) if update else part.grad
            total += float(loss.detach()) / len(plan)
            if update:
                update(self.full.parameters())
                self.full.zero_grad()
        if h.requires_grad:
            h.backward(dh)
        self._add_up(list(self.convolutions.parameters()))
        return total

    def _turn(self, part: Any, y: Any, turn: Sequence[slice], seed: int) -> Any:
        """The mean loss over a turn's samples, of which ``part`` is this worker's."""
        sizes = [rows.stop - rows.start for rows in turn]
        labels = self.exchange.gather(y[turn[self.exchange.rank]], sizes)
        samples = [k * len(y) + i for k, rows in enumerate(turn)
                   for i in range(rows.start, rows.stop)]  # fmt: skip
        masks = Masks(seed if self.training else None, len(y) * self.exchange.size, samples)
        return self.loss(self.full(gathered(part, self.exchange, sizes, 0), masks), labels)

    def _add_up(self, parameters: list[Any]) -> None:
        """Sum gradients over workers, as one message."""
        if self.exchange.size == 1 or not parameters:
            return
        total = self.exchange.sum(torch.cat([p.grad.reshape(-1) for p in parameters]))
        for p, g in zip(parameters, total.split([p.numel() for p in parameters]), strict=True):
            p.grad.copy_(g.view_as(p))


def _first_full(layers: Sequence[nn.Module]) -> int:
    """The number of the first layer after the last convolution and ``nn.Flatten``."""
    flat = [i + 1 for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten)]
    if len(flat) != 1:
        raise OptionError("the network needs one nn.Flatten between convolutions and nn.Linear.")
    return flat[0]


def numbers_sent(
    workers: int, samples: int, inputs: int, units: Sequence[int], shared_parameters: int
) -> int:
    """Numbers that all workers send in a step, besides labels, whatever the scheme.

    ``samples`` b of each, ``inputs`` F, ``units`` of the fully connected layers, the outputs last,
    ``shared_parameters`` p of the convolutions.

    >>> numbers_sent(workers=2, samples=3, inputs=5, units=[4, 2], shared_parameters=10)
    140
    """
    *hidden, outputs = units
    batch = workers * samples
    return (workers - 1) * (
        batch * (2 * inputs + 2 * sum(hidden) + outputs) + 2 * shared_parameters
    )
