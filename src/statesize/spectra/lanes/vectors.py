"""Vectors of doubles in compiled code: the same arithmetic on several problems side by side.

numba has scalars and arrays only, and its loops over a last dimension write every intermediate result to memory. A
value of the type `LanesType` stays in the processor's vector registers; where these are narrower, LLVM takes several.
"""

# numba's extension interface and llvmlite are untyped.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportOptionalCall=false, reportUntypedClassDecorator=false, reportUntypedFunctionDecorator=false

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

_compile = partial(cast("Any", numba).njit, nogil=True, fastmath={"contract"}, error_model="numpy")
# Only the function that Python calls is kept on disk, with all that it calls: numba would keep those by their own
# files, and not see that another file changed. VERSION, its last argument, is part of the type that it is kept by.
compile_lanes, compile_entry = _compile(), _compile(cache=True)
VERSION = zlib.crc32(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
"""A checksum of the files of this folder."""

_in_compiled_code = cast("Any", intrinsic)


class LanesType(types.Type):
    """The type of W doubles side by side, W a power of 2."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Lanes{width}")


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: LanesType) -> None:
        super().__init__(manager, lanes, _vector(lanes.width))


def _vector(width: int) -> Any:
    return ir.VectorType(ir.DoubleType(), width)


def _register(function: Callable[..., Any], instruction: str) -> None:
    @infer_global(function)
    class _(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], LanesType) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(function, LanesType, LanesType)
    def _(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args, flags=("contract",))


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _register(_function, _instruction)


def lane_functions(width: int) -> tuple[Any, Any, Any]:
    """Functions of a contiguous array of one dimension, k ≥ 0, and of x.

    Returns:
        `load(array, k)`, the k-th W doubles; `splat(x)`, W times x; and `splat_at(array, k)`, W times its k-th double.
    """
    lanes, vector = LanesType(width), _vector(width)

    @_in_compiled_code
    def load(typing: Any, array: Any, k: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = builder.load(_address(context, builder, sig.args[0], args, vector))
            value.align = 8
            return value

        return lanes(array, types.intp), generate

    def repeat(builder: Any, x: Any) -> Any:
        unset, index = ir.Constant(vector, ir.Undefined), ir.IntType(32)
        one = builder.insert_element(unset, x, ir.Constant(index, 0))
        return builder.shuffle_vector(one, unset, ir.Constant(ir.VectorType(index, width), [0] * width))

    @_in_compiled_code
    def splat(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return repeat(builder, args[0])

        return lanes(types.float64), generate

    @_in_compiled_code
    def splat_at(typing: Any, array: Any, k: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            data = context.make_array(sig.args[0])(context, builder, args[0]).data
            return repeat(builder, builder.load(builder.gep(data, [args[1]])))

        return lanes(array, types.intp), generate

    return load, splat, splat_at


@_in_compiled_code
def store(typing: Any, array: Any, k: Any, x: Any) -> Any:
    """Puts lanes into the k-th entry of a contiguous array of one dimension."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, sig.args[0], args, _vector(x.width)), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, x), generate


@_in_compiled_code
def square_root(typing: Any, x: Any) -> Any:
    """√x in each lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = _vector(x.width)
        name = f"llvm.sqrt.v{x.width}f64"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), name), args
        )

    return x(x), generate


@_in_compiled_code
def where_positive(typing: Any, x: Any, positive: Any, other: Any) -> Any:
    """In each lane the second where the first is above 0, else the third."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(_positive(builder, args[0], x.width), args[1], args[2])

    return x(x, x, x), generate


@_in_compiled_code
def any_positive(typing: Any, x: Any) -> Any:
    """Whether any lane is above 0."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = ir.IntType(x.width)
        bits_as_float = builder.bitcast(_positive(builder, args[0], x.width), bits)
        return builder.icmp_unsigned("!=", bits_as_float, ir.Constant(bits, 0))

    return types.boolean(x), generate


@_in_compiled_code
def lane_sum(typing: Any, x: Any) -> Any:
    """The sum of all lanes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        double, vector = ir.DoubleType(), _vector(x.width)
        name = f"llvm.vector.reduce.fadd.v{x.width}f64"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(double, [double, vector]), name)
        # In any order, which a processor can take in halves.
        return builder.call(function, [ir.Constant(double, -0.0), args[0]], fastmath=("reassoc",))

    return types.float64(x), generate


@_in_compiled_code
def exponent(typing: Any, x: Any) -> Any:
    """The e of |x| = m 2^e, 1 ≤ m < 2, in each lane, as a double; −1023 below 2^−1022, 1024 of ∞ and NaN."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _bits(x.width))
        # Shifted out to the left: the sign.
        biased = builder.lshr(builder.shl(bits, _whole(x.width, 1)), _whole(x.width, 53))
        return builder.sitofp(builder.sub(biased, _whole(x.width, 1023)), _vector(x.width))

    return x(x), generate


@_in_compiled_code
def mantissa(typing: Any, x: Any) -> Any:
    """The m of |x| = m 2^e, 1 ≤ m < 2, in each lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _bits(x.width))
        digits = builder.and_(bits, _whole(x.width, 2**52 - 1))
        return builder.bitcast(builder.or_(digits, _whole(x.width, 1023 << 52)), _vector(x.width))

    return x(x), generate


def _bits(width: int) -> Any:
    return ir.VectorType(ir.IntType(64), width)


def _whole(width: int, number: int) -> Any:
    return ir.Constant(_bits(width), [number] * width)


def _positive(builder: Any, x: Any, width: int) -> Any:
    return builder.fcmp_ordered(">", x, ir.Constant(_vector(width), [0.0] * width))


def _address(context: Any, builder: Any, array_type: Any, args: Any, vector: Any) -> Any:
    array = context.make_array(array_type)(context, builder, args[0])
    offset = builder.mul(args[1], ir.Constant(args[1].type, vector.count))
    return builder.bitcast(builder.gep(array.data, [offset]), vector.as_pointer())
