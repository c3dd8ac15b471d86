"""How kernels are compiled, and a hint to the processor."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

FAST = {"reassoc", "contract", "arcp", "nsz"}
"""Sums may be reordered; NaN and infinity stay visible."""


def compiled(function):
    """Without the interpreter lock, kept on disk."""
    return njit(nogil=True, cache=True, fastmath=FAST)(function)


def _prefetch(typingctx, array, i):
    def generate(context, builder, signature, args):
        view = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.gep(view.data, [args[1]])
        pointer = builder.bitcast(place, cgutils.voidptr_t)
        flag = ir.IntType(32)
        hint = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag]),
            "llvm.prefetch.p0",
        )
        builder.call(hint, [pointer, flag(0), flag(3), flag(1)])  # read, keep, data
        return context.get_dummy_value()

    return types.void(array, i), generate


prefetch: Any = intrinsic(_prefetch)
"""prefetch(array, i): bring array[i] of a flat array near; harmless beyond its end."""
