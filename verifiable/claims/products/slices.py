"""Whole slices of an array that are picked by indices, in a `gather` or `dynamic_slice`.

What an index beyond the array means is left to JAX. The same primitive, of the numbers 0, 1, 2, ...
in place of slices, says which one each index stands for: with `mode="clip"` and in a
`dynamic_slice` the nearest, with `mode="fill"` one of the filling. Of indices that are promised to
be in bounds and are not, devices may compute anything.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax
from jax.lax import GatherScatterMode

from verifiable.claims.products.chosen import as_sizes
from verifiable.jaxpr.blocks import Array, Equation
from verifiable.jaxpr.effects import is_float

KINDS = frozenset({"gather", "dynamic_slice"})

_MODES = (
    GatherScatterMode.CLIP,
    GatherScatterMode.FILL_OR_DROP,
    GatherScatterMode.PROMISE_IN_BOUNDS,
)


def labels_of(equation: Equation) -> tuple[int | str | None, ...] | None:
    """What each dimension of the output is; None if slices are not whole, or in an unknown mode.

    Returns:
      The dimension of the array as int, or that of the index as text; None for a dimension of
      length one that is neither.
    """
    stack, params = equation.inputs[0], equation.params
    sizes = as_sizes(params["slice_sizes"])
    whole = [n == m for n, m in zip(sizes, stack.shape, strict=True)]
    if any(n != 1 and not all_ for n, all_ in zip(sizes, whole, strict=True)):
        return None
    if equation.kind == "dynamic_slice":
        return tuple(d if w else None for d, w in enumerate(whole))
    if params["mode"] not in _MODES:
        return None
    numbers = params["dimension_numbers"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    left = [d if whole[d] else None for d in range(len(sizes)) if d not in gone]
    offsets = dict(zip(numbers.offset_dims, left, strict=True))
    index = iter(range(len(equation.inputs[1].shape)))
    rank = len(equation.outputs[0].shape)
    return tuple(offsets[d] if d in offsets else f"index {next(index)}" for d in range(rank))


def stacked(equation: Equation) -> tuple[int, ...]:
    """The dimensions of the array along which slices are picked."""
    stack, params = equation.inputs[0], equation.params
    gone: set[int] = set()
    if equation.kind == "gather":
        numbers = params["dimension_numbers"]
        gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    sizes = as_sizes(params["slice_sizes"])
    return tuple(d for d, n in enumerate(stack.shape) if d in gone or sizes[d] != n)


def picked(equation: Equation, indices: list[Array]) -> tuple[Array, Array]:
    """The number of the nearest slice of each index, and whether it is in bounds.

    Args:
      equation: a `gather` or `dynamic_slice` of whole slices.
      indices: its inputs after the first.
    """
    stack, params = equation.inputs[0], equation.params
    dims = stacked(equation)
    shape = [n if d in dims else 1 for d, n in enumerate(stack.shape)]
    numbers = jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)
    ones = (1,) * len(shape)
    if equation.kind == "dynamic_slice":
        found = lax.dynamic_slice(
            numbers, [jnp.asarray(i) for i in indices], ones, allow_negative_indices=False
        ).reshape(())
        return found, jnp.ones((), bool)
    [index] = indices
    index = jnp.asarray(index)
    near, beyond = (
        lax.gather(numbers, index, params["dimension_numbers"], ones, mode=mode, fill_value=-1)
        for mode in (GatherScatterMode.CLIP, GatherScatterMode.FILL_OR_DROP)
    )
    shape = index.shape[:-1]
    return near.reshape(shape), beyond.reshape(shape) >= 0


def mode_of(equation: Equation) -> GatherScatterMode:
    """What becomes of an index beyond the array; a `dynamic_slice` takes the nearest slice."""
    return equation.params.get("mode", GatherScatterMode.CLIP)


def filling(equation: Equation) -> float | int | None:
    """What elements beyond the array are filled with; None if they are not."""
    params, dtype = equation.params, equation.inputs[0].dtype
    if params.get("mode") != GatherScatterMode.FILL_OR_DROP:
        return None
    value = params["fill_value"]  # JAX itself replaces None.
    return float(value) if is_float(dtype) else int(value)
