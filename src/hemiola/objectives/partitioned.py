"""Objectives over several machines, as one objective of the same w.

Dean et al., "Large scale distributed deep networks", NIPS 2012, section 3. A linear model is split
by its features, a network by the units of its layers (:mod:`hemiola.objectives.split`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from hemiola.contracts import Objective
from hemiola.dataset import Batch, Dataset
from hemiola.errors import OptionError
from hemiola.objectives.linear import LinearObjective
from hemiola.objectives.split_linear import SplitLinear
from hemiola.types import Array


@dataclass(frozen=True)
class SplitNetwork:
    """A network whose gradient is computed in parts; ``order`` (d,) holds the place in w of each of
    the parts' parameters. It is evaluated whole."""

    whole: Any
    inside: Any
    order: Array

    def check(self, data: Dataset) -> None:
        self.whole.check(data)

    def init(self, data: Dataset, rng: Generator) -> Array:
        return np.asarray(self.whole.init(data, rng))

    def value(self, w: Array, batch: Batch) -> float:
        return float(self.whole.value(w, batch))

    def grad(self, w: Array, batch: Batch) -> Array:
        """The gradient (d,) in the order of w."""
        g = np.empty_like(w)
        g[self.order] = self.inside.grad(w[self.order], batch)
        return g

    def predict(self, w: Array, X: Any) -> Array:
        return np.asarray(self.whole.predict(w, X))


def partitioned(objective: Objective, parts: int) -> Objective:
    """The objective over so many machines; of one machine, the objective itself.

    Raises :class:`~hemiola.errors.OptionError` for what cannot be split: networks that are no
    ``nn.Sequential`` of layers that :func:`~hemiola.objectives.split.split` knows, factorisations.

    >>> partitioned(LinearObjective(), 3).workers
    3
    """
    if parts == 1:
        return objective
    if isinstance(objective, LinearObjective):
        return SplitLinear(objective, parts)
    if type(objective).__module__ == "hemiola.objectives.torch":
        return _network(objective, parts)
    raise OptionError(
        f"{type(objective).__name__} cannot be split over {parts} machines; linear objectives and "
        "networks can. Or take partitions=1."
    )


def _network(objective: Any, parts: int) -> SplitNetwork:
    import torch

    from hemiola.objectives.split import split

    module = objective._own.module
    trainable = all(p.requires_grad for p in module.parameters())
    if not isinstance(module, torch.nn.Sequential) or not trainable:
        raise OptionError(
            f"a network over {parts} machines must be an nn.Sequential, trained as a whole."
        )
    devices = [objective.device if objective.device != "own" else "cpu"] * parts
    numbered = copy.deepcopy(module).double()
    places = torch.arange(objective.size, dtype=torch.float64)
    torch.nn.utils.vector_to_parameters(places, numbered.parameters())
    order = torch.nn.utils.parameters_to_vector(split(numbered, devices).parameters())
    inside = replace(
        objective, module=split(module, devices), device="own", shape=objective.module_shape
    )
    return SplitNetwork(objective, inside, order.detach().cpu().numpy().astype(np.intp))
