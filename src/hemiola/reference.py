"""The pooled optimum: what one machine with all data would find."""

from __future__ import annotations

import numpy as np

from hemiola.contracts import Objective
from hemiola.dataset import Batch, Dataset
from hemiola.penalty import Penalised
from hemiola.rng import stream
from hemiola.types import Array


def pooled_optimum(
    objective: Objective, data: Dataset, iterations: int = 5000
) -> tuple[Array, float]:
    """The minimiser (d,) and the minimum of the objective on all data, by L-BFGS.

    Exact for convex objectives whose loss is smooth; an upper bound of the minimum otherwise. With
    an L1 penalty w is the difference of two vectors that are not negative.

    >>> from hemiola.dataset import make_dataset
    >>> from hemiola.objectives import squared
    >>> data = make_dataset([[0.0], [1.0]], [1.0, 3.0], regression=True)
    >>> pooled_optimum(squared(), data)[0].round(6).tolist()
    [2.0, 1.0]
    """
    from scipy.optimize import minimize

    batch = Batch(data)
    start = objective.init(data, stream(0, "init")).astype(np.float64)
    l1 = getattr(objective, "l1", 0.0)
    p = start.size - objective.penalty(data).free if isinstance(objective, Penalised) else 0
    split = p if l1 else 0  # so many coordinates have a negative part, which stands at the end

    def value_and_gradient(parts: Array) -> tuple[float, Array]:
        w = _joined(parts, start.size)
        slope = objective.grad(w, batch)
        g = np.concatenate([slope, -slope[:split]])
        g[:split] += l1
        g[start.size :] += l1
        both = float(parts[:split].sum() + parts[start.size :].sum() - np.abs(w[:split]).sum())
        return objective.value(w, batch) + l1 * both, g

    found = minimize(
        value_and_gradient,
        np.concatenate([start, np.zeros(split)]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * split + [(None, None)] * (start.size - split) + [(0, None)] * split,
        options={"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 1e-15, "gtol": 1e-9},
    )
    return _joined(found.x, start.size), float(found.fun)


def _joined(parts: Array, d: int) -> Array:
    """w (d,): the first d parts less the negative parts of the first coordinates."""
    w = parts[:d].copy()
    w[: parts.size - d] -= parts[d:]
    return w
