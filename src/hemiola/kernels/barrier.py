"""A meeting point inside compiled kernels: all threads arrive before any goes on.

One counter of arrivals that only grows. The thread that arrives as number a of P waits until the
counter has reached the next multiple of P. Arrivals are sequentially consistent, so whatever a
thread wrote before the meeting is seen by all after it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from hemiola.types import Array

_PATIENCE = 2000  # looks at the counter, after which a thread gives its processor away
_LINE = 16  # int64 numbers; the counter has a cache line, and its neighbour's, to itself

_give_way = types.ExternalFunction("sched_yield", types.int32())


def meeting_point() -> Array:
    """The counter of a new meeting point, for any number of threads."""
    return np.zeros(_LINE, dtype=np.int64)


def _arrival(typing, counter):
    """Add one to counter[0]; returns what was there before."""

    def generate(context, builder, signature, args):
        pointer = context.make_array(signature.args[0])(context, builder, args[0]).data
        one = context.get_constant(types.int64, 1)
        return builder.atomic_rmw("add", pointer, one, "seq_cst")

    return types.int64(counter), generate


def _sight(typing, counter):
    """Read counter[0] anew."""

    def generate(context, builder, signature, args):
        pointer = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(counter), generate


_arrive: Any = intrinsic(_arrival)
_look: Any = intrinsic(_sight)


@njit(nogil=True, cache=True)
def meet(counter, threads):
    """Wait until all ``threads`` have come here."""
    if threads == 1:
        return
    everybody = (_arrive(counter) // threads + 1) * threads
    looks = 0
    while _look(counter) < everybody:
        looks += 1
        if looks > _PATIENCE:
            _give_way()
