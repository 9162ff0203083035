"""Vector instructions for compiled loops, spelt out as LLVM's, and what threads need to share a loop's work.

Every function takes addresses and byte distances as int64. Sums run in 16 lanes, each over every sixteenth product in
order, then pairwise over the lanes: a result depends on its own row and column alone, not on how many are computed
beside it. On hardware with narrower vectors LLVM splits them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
FLOAT32, BFLOAT16, INT8 = 0, 1, 2  # how a matrix is kept
BYTES = {FLOAT32: 4, BFLOAT16: 2, INT8: 1}
CACHE_LINE = 64

_FLOAT, _I8, _I16, _I32, _I64 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_STORED = {FLOAT32: _FLOAT, BFLOAT16: _I16, INT8: _I8}


def _of(element: Any, lanes: int) -> Any:
    return element if lanes == 1 else ir.VectorType(element, lanes)


def _filled(kind: Any, value: Any, lanes: int) -> Any:
    return ir.Constant(kind, value if lanes == 1 else [value] * lanes)


def _load(builder: Any, address: Any, element: Any, lanes: int) -> Any:
    value = builder.load(builder.inttoptr(address, _of(element, lanes).as_pointer()))
    value.align = max(1, element.width // 8 if isinstance(element, ir.IntType) else 4)
    return value


def _widen(builder: Any, value: Any, kind: int, lanes: int) -> Any:
    """What is kept → fp32, exactly."""
    if kind == FLOAT32:
        return value
    if kind == INT8:
        return builder.sitofp(builder.sext(value, _of(_I32, lanes)), _of(_FLOAT, lanes))
    wide = builder.zext(value, _of(_I32, lanes))
    shift = _filled(_of(_I32, lanes), 16, lanes)
    return builder.bitcast(builder.shl(wide, shift), _of(_FLOAT, lanes))


def _multiply_add(builder: Any, x: Any, y: Any, total: Any, lanes: int) -> Any:
    """x · y + total, fused where the hardware has that."""
    name = "llvm.fmuladd.f32" if lanes == 1 else f"llvm.fmuladd.v{lanes}f32"
    kind = _of(_FLOAT, lanes)
    return builder.call(_outer(builder, ir.FunctionType(kind, [kind] * 3), name), [x, y, total])


def _outer(builder: Any, kind: Any, name: str) -> Any:
    """A function by its name: an LLVM intrinsic's, or the C library's."""
    return cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]


def _summed(builder: Any, value: Any) -> Any:
    """The sum over the lanes, halves on halves."""
    lanes = LANES
    while lanes > 1:
        lanes //= 2
        nothing = ir.Constant(value.type, ir.Undefined)
        halves = [
            builder.shuffle_vector(
                value,
                nothing,
                ir.Constant(
                    _of(_I32, lanes) if lanes > 1 else ir.VectorType(_I32, 1), list(range(start, start + lanes))
                ),
            )
            for start in (0, lanes)
        ]
        value = builder.fadd(*halves)
    return builder.extract_element(value, _I32(0))


def _dot_loop(builder: Any, kind: int, lanes: int, places: Any, start: Any, stop: Any, totals: Any) -> Any:
    """Add products start … stop-1 (by `lanes`) of every row with every column to `totals`; start < stop.

    `places`: the addresses of the rows (fp32) and of the columns (of `kind`).
    """
    rows, columns = places
    before, loop = builder.block, builder.append_basic_block("dot")
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(_I64)
    at.add_incoming(start, before)
    sums = [[builder.phi(_of(_FLOAT, lanes)) for _ in columns] for _ in rows]
    for sum_row, total_row in zip(sums, totals, strict=True):
        for sum_phi, total in zip(sum_row, total_row, strict=True):
            sum_phi.add_incoming(total, before)
    weights = []
    for column in columns:
        address = builder.add(column, builder.mul(at, _I64(BYTES[kind])))
        weights.append(_widen(builder, _load(builder, address, _STORED[kind], lanes), kind, lanes))
    grown = []
    for row, sum_row in zip(rows, sums, strict=True):
        x = _load(builder, builder.add(row, builder.mul(at, _I64(4))), _FLOAT, lanes)
        grown.append([_multiply_add(builder, x, w, total, lanes) for w, total in zip(weights, sum_row, strict=True)])
    following = builder.add(at, _I64(lanes))
    at.add_incoming(following, loop)
    for sum_row, grown_row in zip(sums, grown, strict=True):
        for sum_phi, total in zip(sum_row, grown_row, strict=True):
            sum_phi.add_incoming(total, loop)
    after = builder.append_basic_block("dotted")
    builder.cbranch(builder.icmp_signed("<", following, stop), loop, after)
    builder.position_at_end(after)
    return grown


def _zeroed(builder: Any) -> Any:
    """A place on the stack that holds 0, whenever it is come by."""
    place = cgutils.alloca_once(builder, _FLOAT)  # type: ignore[no-untyped-call]
    builder.store(ir.Constant(_FLOAT, 0.0), place)
    return place


def _dots_body(builder: Any, kind: int, rows: int, columns: int, arguments: Any) -> None:
    x, x_step, w, w_step, size, out, out_step = arguments
    row_places = [builder.add(x, builder.mul(x_step, _I64(i))) for i in range(rows)]
    column_places = [builder.add(w, builder.mul(w_step, _I64(i))) for i in range(columns)]
    places = row_places, column_places
    whole = builder.and_(size, _I64(-LANES))
    results = [[_zeroed(builder) for _ in range(columns)] for _ in range(rows)]
    with builder.if_then(builder.icmp_signed(">", whole, _I64(0))):
        zero = _filled(_of(_FLOAT, LANES), 0.0, LANES)
        totals = _dot_loop(builder, kind, LANES, places, _I64(0), whole, [[zero] * columns for _ in range(rows)])
        for row, total_row in zip(results, totals, strict=True):
            for place, total in zip(row, total_row, strict=True):
                builder.store(_summed(builder, total), place)
    with builder.if_then(builder.icmp_signed("<", whole, size)):
        totals = [[builder.load(place) for place in row] for row in results]
        totals = _dot_loop(builder, kind, 1, places, whole, size, totals)
        for row, total_row in zip(results, totals, strict=True):
            for place, total in zip(row, total_row, strict=True):
                builder.store(total, place)
    for i, row in enumerate(results):
        start = builder.add(out, builder.mul(out_step, _I64(i)))
        for j, place in enumerate(row):
            address = builder.inttoptr(builder.add(start, _I64(4 * j)), _FLOAT.as_pointer())
            builder.store(builder.load(place), address)


def dots(kind: int, rows: int, columns: int) -> Any:
    """The function (x, x_step, w, w_step, size, out, out_step): out[i, j] = x[i] · w[j] over `size` numbers.

    `x` are `rows` vectors of fp32, `w` `columns` of `kind`, `out` is fp32; the steps are bytes from row to row.
    """

    def function(
        typing: Any, x: Any, x_step: Any, w: Any, w_step: Any, size: Any, out: Any, out_step: Any
    ) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _dots_body(builder, kind, rows, columns, arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), generate

    return intrinsic(function)


def mixture(blocks: int) -> Any:
    """The function (shares, values, step, count, out): out = Σ shares[i] · values[i], each of `blocks` times 16
    numbers; `step` bytes from one value to the next. All fp32, the sum in order."""

    def function(typing: Any, shares: Any, values: Any, step: Any, count: Any, out: Any) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _mixture_body(builder, blocks, arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), generate

    return intrinsic(function)


def _mixture_body(builder: Any, blocks: int, arguments: Any) -> None:
    shares, values, step, count, out = arguments
    before, loop = builder.block, builder.append_basic_block("mix")
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(_I64)
    at.add_incoming(_I64(0), before)
    totals = [builder.phi(_of(_FLOAT, LANES)) for _ in range(blocks)]
    for total in totals:
        total.add_incoming(_filled(_of(_FLOAT, LANES), 0.0, LANES), before)
    one = _load(builder, builder.add(shares, builder.mul(at, _I64(4))), _FLOAT, 1)
    nothing = ir.Constant(_of(_FLOAT, LANES), ir.Undefined)
    first = builder.insert_element(nothing, one, _I32(0))
    share = builder.shuffle_vector(first, nothing, _filled(_of(_I32, LANES), 0, LANES))
    start = builder.add(values, builder.mul(at, step))
    grown = []
    for i, total in enumerate(totals):
        value = _load(builder, builder.add(start, _I64(4 * LANES * i)), _FLOAT, LANES)
        grown.append(_multiply_add(builder, share, value, total, LANES))
    following = builder.add(at, _I64(1))
    at.add_incoming(following, loop)
    for total, more in zip(totals, grown, strict=True):
        total.add_incoming(more, loop)
    after = builder.append_basic_block("mixed")
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    for i, total in enumerate(grown):
        place = builder.inttoptr(builder.add(out, _I64(4 * LANES * i)), _of(_FLOAT, LANES).as_pointer())
        builder.store(total, place).align = 4


def _count_up(typing: Any, address: Any) -> tuple[Any, Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("add", place, _I64(1), "seq_cst")

    return types.int64(types.int64), generate


def _look(typing: Any, address: Any) -> tuple[Any, Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], _I64.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), generate


def _step_aside(typing: Any) -> tuple[Any, Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.call(_outer(builder, ir.FunctionType(_I32, []), "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


count_up: Any = intrinsic(_count_up)  # the int64 at an address, one more afterwards, as one act
look: Any = intrinsic(_look)  # the int64 at an address, as another thread left it
step_aside: Any = intrinsic(_step_aside)  # let another thread run (POSIX's sched_yield)
