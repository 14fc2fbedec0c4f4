"""Bytes inside compiled code, many at a time: the processor's block copy, and eight of them as one word."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def copy_bytes(typing_context: Any, out: Any, at: Any, data: Any, begin: Any, count: Any) -> Any:
    """Copies data[begin : begin + count] to out[at:]; both are contiguous uint8 arrays that do not overlap, and nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, source = (context.make_array(signature.args[place])(context, builder, args[place]).data for place in (0, 2))
        cgutils.raw_memcpy(builder, builder.gep(target, [args[1]]), builder.gep(source, [args[3]]), args[4], 1)
        return context.get_dummy_value()

    return types.void(out, types.intp, data, types.intp, types.intp), generate


@intrinsic
def word_at(typing_context: Any, data: Any, at: Any) -> Any:
    """Gives the eight bytes of a contiguous uint8 array from `at` on as uint64, in this machine's order; nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from llvmlite import ir  # type: ignore[import-untyped]

        place = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(data, types.intp), generate


@intrinsic
def trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Gives how many of a uint64's lowest bits are zero: 64 where all are."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from llvmlite import ir

        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate
