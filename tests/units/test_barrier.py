"""Threads meet inside kernels."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from hemiola.kernels.barrier import meet, meeting_point
from hemiola.team import Team


@njit(nogil=True)
def march(core, cores, counter, rounds, steps):
    """Everyone counts its own steps and looks at the others' after each; returns what is off."""
    off = 0
    for i in range(rounds):
        steps[16 * core] += 1
        meet(counter, cores)
        for p in range(cores):
            off += steps[16 * p] != i + 1
        meet(counter, cores)
    return off


@pytest.mark.parametrize("cores", [1, 2, 3, 5])
def test_nobody_goes_on_before_all_have_come(cores):
    team, counter, steps = Team(cores), meeting_point(), np.zeros(16 * cores, dtype=np.int64)
    found = team.run(lambda k: march(k, cores, counter, 200, steps))
    assert found == [0] * cores
    assert counter[0] == (400 * cores if cores > 1 else 0)
