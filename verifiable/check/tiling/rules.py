"""Rules: which pieces of its inputs an equation needs for a piece of its output.

A rule returns the cut of each input for a cut of an output along an axis, and None for an input
that is needed whole; it returns None if the output cannot be cut so. A primitive without a rule is
evaluated whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from verifiable.jaxpr.blocks import Equation, Var


class Cut(NamedTuple):
    """How tiles cut a value: a tile holds `unit` elements of the value for each of its indices.

    Attributes:
      axis: the axis of the value that is cut.
      unit: adjacent elements for each index of the tiles: a head may be 64 columns.
      offset: the element at which index 0 begins.
    """

    axis: int
    unit: int = 1
    offset: int = 0

    def along(self, axis: int) -> Cut:
        """The same cut along another axis."""
        return self._replace(axis=axis)

    def bounds(self, start: Any, size: int) -> tuple[Any, int]:
        """First element and number of elements of the tile that holds `size` indices."""
        return self.offset + self.unit * start, self.unit * size


Cuts = tuple[Cut | None, ...]  # of each input; None where it is whole
# From an equation, the index of an output, and the cut of that output.
Rule = Callable[[Equation, int, Cut], Cuts | None]
# From an equation, an axis of its output, and the new length of that axis.
Resize = Callable[[Equation, int, int], dict[str, Any]]


class Step(NamedTuple):
    """An equation that is evaluated in tiles.

    Attributes:
      equation: the equation.
      output: index of one of its outputs.
      cut: how tiles cut that output.
      sources: how tiles cut its inputs.
    """

    equation: Equation
    output: int
    cut: Cut
    sources: Cuts


ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil
    continued convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1
    floor ge gt integer_pow is_finite le le_to lgamma log log1p log2 logistic lt lt_to max min mul
    ne neg nextafter not one_minus_square or piece polynomial pow reduce_precision rem round rsqrt
    select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor
    """.split()
)


def _elementwise(equation: Equation, output: int, cut: Cut) -> Cuts | None:
    shape, axis = equation.outputs[0].shape, cut.axis
    if any(len(a.shape) not in (0, len(shape)) for a in equation.inputs):
        return None
    # Operands of length one are broadcast to the others.
    return tuple(
        cut if isinstance(a, Var) and a.shape[axis : axis + 1] == shape[axis : axis + 1] else None
        for a in equation.inputs
    )


def _broadcast_in_dim(equation: Equation, output: int, cut: Cut) -> Cuts | None:
    operand, dims = equation.inputs[0], equation.params["broadcast_dimensions"]
    if len(equation.inputs) > 1:
        return None
    if cut.axis in dims:
        source = tuple(dims).index(cut.axis)
        if operand.shape[source] == equation.outputs[0].shape[cut.axis]:
            return (cut.along(source),)
    return (None,)


def _reshape(equation: Equation, output: int, cut: Cut) -> Cuts | None:
    [operand], out = equation.inputs, equation.outputs[0].shape
    if equation.params.get("dimensions") is not None:
        return None
    unit, offset, length = cut.unit, cut.offset, out[cut.axis]
    for source in _sources(operand.shape, out, cut.axis):
        size = operand.shape[source]
        if size == length:
            return (cut.along(source),)
        if size > length > 0 and size % length == 0:
            times = size // length
            return (Cut(source, unit * times, offset * times),)
        if length > size > 0 and math.gcd(unit, offset) % (length // size) == 0 == length % size:
            times = length // size
            return (Cut(source, unit // times, offset // times),)
    return None


def _sources(shape: Sequence[int], out: Sequence[int], axis: int) -> list[int]:
    """Axes of the operand that begin at the same element as an axis of the result.

    An axis of the same length comes first.
    """
    before = math.prod(out[:axis])
    found = [d for d in range(len(shape)) if math.prod(shape[:d]) == before]
    return sorted(found, key=lambda d: shape[d] != out[axis])


def merged(equation: Equation, cut: Cut) -> int:
    """The factor by which a unit has to grow until a reshape of merged axes can be cut; else 1.

    An axis of 768 that merges 12 and 64 is cut only in multiples of 64.
    """
    if equation.kind != "reshape" or equation.params.get("dimensions") is not None:
        return 1
    shape, out = equation.inputs[0].shape, equation.outputs[0].shape
    length = out[cut.axis]
    for source in _sources(shape, out, cut.axis):
        if 1 < shape[source] < length and length % shape[source] == 0:
            times = length // shape[source]
            return times // math.gcd(times, cut.unit)
    return 1


def _squeeze(equation: Equation, output: int, cut: Cut) -> Cuts:
    return (cut.along(_kept(equation, equation.params["dimensions"])[cut.axis]),)


def _transpose(equation: Equation, output: int, cut: Cut) -> Cuts:
    return (cut.along(equation.params["permutation"][cut.axis]),)


def _reduce(equation: Equation, output: int, cut: Cut) -> Cuts | None:
    if len(equation.inputs) != 1:
        return None
    return (cut.along(_kept(equation, equation.params["axes"])[cut.axis]),)


def _kept(equation: Equation, gone: Sequence[int]) -> list[int]:
    return [d for d in range(len(equation.inputs[0].shape)) if d not in gone]


def _along(name: str) -> Rule:
    """The rule of a primitive that mixes the elements of one axis only, named by a parameter."""

    def rule(equation: Equation, output: int, cut: Cut) -> Cuts | None:
        return None if equation.params[name] == cut.axis else (cut,) * len(equation.inputs)

    return rule


def _slice(equation: Equation, output: int, cut: Cut) -> Cuts | None:
    strides = equation.params["strides"]
    if strides is not None and strides[cut.axis] != 1:
        return None
    first = int(equation.params["start_indices"][cut.axis])
    return (cut._replace(offset=cut.offset + first),)


def _split(equation: Equation, output: int, cut: Cut) -> Cuts:
    if equation.params["axis"] != cut.axis:
        return (cut,)
    before = sum(int(n) for n in equation.params["sizes"][:output])
    return (cut._replace(offset=cut.offset + before),)


def _stack(equation: Equation, output: int, cut: Cut) -> Cuts | None:
    new = equation.params["axis"]
    same = cut.along(cut.axis - (cut.axis > new))
    return None if cut.axis == new else (same,) * len(equation.inputs)


def _rev(equation: Equation, output: int, cut: Cut) -> Cuts | None:
    return None if cut.axis in equation.params["dimensions"] else (cut,)


def batched(equation: Equation, cut: Cut) -> bool:
    """Whether an equation is a batch of products that the cut separates."""
    if equation.kind != "dot_general":
        return False
    return cut.axis < len(equation.params["dimension_numbers"][1][0])


def _dot_general(equation: Equation, output: int, cut: Cut) -> Cuts:
    (lc, rc), (lb, rb) = equation.params["dimension_numbers"]
    if batched(equation, cut):
        return cut.along(lb[cut.axis]), cut.along(rb[cut.axis])
    free = [
        [d for d in range(len(a.shape)) if d not in {*c, *b}]
        for a, c, b in zip(equation.inputs, (lc, rc), (lb, rb), strict=True)
    ]
    axis = cut.axis - len(lb)
    if axis < len(free[0]):
        return cut.along(free[0][axis]), None
    return None, cut.along(free[1][axis - len(free[0])])


def untransposed(equation: Equation, makers: Mapping[Var, Equation]) -> Equation:
    """The same product on its operands before they were transposed.

    XLA removes such transposes too, but not where axes have length one, as the batch has in a tile
    of one head.

    Args:
      equation: any equation; only a `dot_general` changes.
      makers: by output, the equations whose inputs can be read.
    """
    if equation.kind != "dot_general":
        return equation
    inputs, (contracting, batching) = list(equation.inputs), equation.params["dimension_numbers"]
    contracting, batching = list(contracting), list(batching)
    for side, atom in enumerate(equation.inputs):
        maker = makers.get(atom) if isinstance(atom, Var) else None
        if maker is None or maker.kind != "transpose":
            continue
        order = maker.params["permutation"]
        contracted, batch = ([order[d] for d in dims[side]] for dims in (contracting, batching))
        free = [d for d in order if d not in {*contracted, *batch}]
        # The output has the free dimensions in the order of the operand, after the batch.
        if free == sorted(free) and batch == list(range(len(batch))):
            inputs[side] = maker.inputs[0]
            contracting[side], batching[side] = tuple(contracted), tuple(batch)
    dims = (tuple(contracting), tuple(batching))
    params = {**equation.params, "dimension_numbers": dims}
    return replace(equation, params=params, inputs=tuple(inputs))


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"), _reduce),
    **dict.fromkeys(("reduce_and", "reduce_or", "argmax", "argmin"), _reduce),
    **dict.fromkeys(("cumsum", "cummax", "cummin", "cumprod", "cumlogsumexp"), _along("axis")),
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": _along("dimension"),
    "dot_general": _dot_general,
    "iota": lambda equation, output, cut: (),
    "reshape": _reshape,
    "rev": _rev,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "transpose": _transpose,
}


def step(equation: Equation, v: Var, cut: Cut) -> Step | None:
    """The step that computes a piece of an output; None if the output cannot be cut so."""
    rule, output = RULES.get(equation.kind), equation.outputs.index(v)
    sources = rule(equation, output, cut) if rule else None
    return None if sources is None else Step(equation, output, cut, sources)


def _resized(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


# New values of the parameters that hold the length or the start of an axis.
RESIZE: dict[str, Resize] = {
    "broadcast_in_dim": lambda e, axis, size: {"shape": _resized(e.params["shape"], axis, size)},
    "iota": lambda e, axis, size: {"shape": _resized(e.params["shape"], axis, size)},
    "reshape": lambda e, axis, size: {"new_sizes": _resized(e.params["new_sizes"], axis, size)},
    "slice": lambda e, axis, size: {
        "start_indices": _resized(e.params["start_indices"], axis, 0),
        "limit_indices": _resized(e.params["limit_indices"], axis, size),
    },
}
