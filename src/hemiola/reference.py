"""The pooled optimum: what one machine with all data would find."""

from __future__ import annotations

import numpy as np

from hemiola.contracts import Objective
from hemiola.dataset import Batch, Dataset
from hemiola.rng import stream
from hemiola.types import Array


def pooled_optimum(
    objective: Objective, data: Dataset, iterations: int = 5000
) -> tuple[Array, float]:
    """The minimiser (d,) and the minimum of the objective on all data, by L-BFGS.

    Exact for smooth convex objectives; an upper bound of the minimum otherwise.

    >>> from hemiola.dataset import make_dataset
    >>> from hemiola.objectives import squared
    >>> data = make_dataset([[0.0], [1.0]], [1.0, 3.0], regression=True)
    >>> pooled_optimum(squared(), data)[0].round(6).tolist()
    [2.0, 1.0]
    """
    from scipy.optimize import minimize

    batch = Batch(data)
    found = minimize(
        lambda w: (objective.value(w, batch), objective.grad(w, batch)),
        objective.init(data, stream(0, "init")).astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 1e-15, "gtol": 1e-9},
    )
    return found.x, float(found.fun)
