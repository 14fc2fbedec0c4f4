"""Bytes from one array to another inside compiled code, by the processor's block copy instead of one at a time."""

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
