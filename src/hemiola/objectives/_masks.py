"""Dropout whose masks belong to samples and units, wherever these are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hemiola.rng import stream


@dataclass(frozen=True)
class Masks:
    """Dropout of one step: the masks of all ``total`` samples' units, of which a part takes rows.

    ``samples`` are the numbers of a part's samples, ``seed`` that of the step; None: no dropout.
    """

    seed: int | None
    total: int
    samples: Sequence[int]

    def drop(self, x: Any, layer: int, p: float, sizes: Sequence[int] = (), rank: int = 0) -> Any:
        """A layer's units (m, ...): all, or those of worker ``rank``, if all have ``sizes``."""
        if self.seed is None or not p:
            return x
        shape = x.shape[1:] if not sizes else (sum(sizes), *x.shape[2:])
        drawn = stream(self.seed, "dropout", layer, 0).random((self.total, *shape))
        first = sum(sizes[:rank])
        kept = drawn[list(self.samples), first : first + x.shape[1]] >= p
        return x * torch.from_numpy(kept).to(x) / (1 - p)
