"""Products by groups as claims: `lax.ragged_dot`, such as a layer of experts, alone or mapped.

Row i of C is row i of A times the matrix of its group. The first rows belong to the first group, as
many as its size, and so on; rows after the last group are zero. So each row is a product of its own
(`chosen`). The sizes of the groups are an operand that the verifier replays.

Sizes are defined if none is negative and their sum is at most the number of rows; devices may
compute anything of others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp

from verifiable.claims.form import Proposal, View
from verifiable.claims.products.chosen import Chosen, ChosenProduct, Places, as_sizes, layout
from verifiable.jaxpr.blocks import Array, Equation

PRIMITIVES = frozenset({"ragged_dot_general"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RaggedProduct(ChosenProduct):
    """The form of a claimed `ragged_dot`; its operands are the rows and the sizes of the groups.

    Attributes:
      length: number of rows that the groups divide.
      groups: number of groups.
      outer: sizes of the batch dimensions, and of those of the rows outside of `length`.
      batches: number of products of a batch; each has matrices of its own.
    """

    length: int
    groups: int
    outer: tuple[int, ...]
    batches: int

    def chosen(self, operands: list[Array]) -> Chosen:
        """The group of each row."""
        index, defined = group_of(operands[1], self.length, self.outer)
        batch = jnp.arange(self.batches).repeat(math.prod(self.outer) // self.batches)
        index = jnp.where(index < self.groups, index * self.batches + batch[:, None], -1)
        return Chosen(index.reshape(-1), jnp.repeat(defined, self.length))

    def inputs(self, operands: list[Array], far: Array | None) -> list[Array | None]:
        """Rows, matrices and sizes."""
        rows, sizes = operands
        return [rows, far, sizes]


def group_of(sizes: Array, length: int, outer: Sequence[int]) -> tuple[Array, Array]:
    """The group of each of `length` rows, and whether the sizes are defined.

    Args:
      sizes: of the groups, (..., groups); the same everywhere if it has no dimensions before.
      length: number of rows.
      outer: sizes of the dimensions before.

    Returns:
      int64 (outer, length), the number of groups for rows after the last one; bool (outer,).
    """
    sizes = jnp.broadcast_to(sizes, (*outer, sizes.shape[-1])).reshape(-1, sizes.shape[-1])
    # Cut off before they are widened and added, so that no type wraps.
    ends = jnp.cumsum(jnp.clip(sizes, 0, _most(sizes, length)).astype(jnp.int64), axis=-1)
    group = jnp.sum(jnp.arange(length)[:, None] >= ends[:, None, :], axis=-1)
    return group, jnp.all(sizes >= 0, axis=-1) & (ends[:, -1] <= length)


def _most(sizes: Array, length: int) -> int:
    return min(length + 1, int(jnp.iinfo(sizes.dtype).max))


def form_of(equation: Equation, view: View) -> RaggedProduct | None:
    """The form of a `ragged_dot`; None if its groups do not divide rows, or it has no check."""
    numbers = equation.params["ragged_dot_dimension_numbers"]
    (summed, beside), (batch, along) = (map(as_sizes, d) for d in numbers.dot_dimension_numbers)
    [ragged], group = (
        as_sizes(numbers.lhs_ragged_dimensions),
        as_sizes(numbers.rhs_group_dimensions),
    )
    if ragged in (*summed, *batch) or len(group) != 1 or len(equation.inputs) != 3:
        return None
    rows, matrices, _ = equation.inputs
    out = equation.outputs[0]
    # Dimensions have names: those of the rows their own, which the matrices share where they are
    # paired.
    paired = dict(zip((*beside, *along), (*summed, *batch), strict=True))
    row_dims = list(range(len(rows.shape)))
    far_dims = [paired.get(d, ("far", d)) for d in range(len(matrices.shape))]
    free = [d for d in row_dims if d not in (*summed, *batch)]
    outer = [*batch, *(d for d in free if d < ragged)]
    inner = [d for d in free if d > ragged]
    columns = [d for d in far_dims if isinstance(d, tuple) and d[1] not in group]
    sizes = dict(zip(far_dims, matrices.shape, strict=True)) | dict(enumerate(rows.shape))
    near_layout = layout(row_dims, ([*outer, ragged], inner, summed), sizes)
    far_layout = layout(far_dims, ([("far", group[0]), *batch], summed, columns), sizes)
    bounds = [view.bound(a) for a in (rows, matrices)]
    maps = Places.of_layouts(near_layout, far_layout, (rows, matrices, out), bounds)
    if not maps.checkable or not far_layout.shape[0]:
        return None
    out_dims = [*batch, *free, *columns]
    return RaggedProduct(
        maps=maps,
        far_known=view.known(matrices),
        matrices=far_layout.shape[0],
        near_layout=near_layout,
        far_layout=far_layout,
        out_layout=layout(out_dims, ([*outer, ragged], inner, columns), sizes),
        length=sizes[ragged],
        groups=matrices.shape[group[0]],
        outer=tuple(sizes[d] for d in outer),
        batches=math.prod(sizes[d] for d in batch),
    )


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim a `ragged_dot`, whatever its check costs; see `form.Rule`.

    A replayed one would reject honest devices where the sizes of its groups are not defined.
    """
    form = form_of(equation, view)
    if form is None:
        return None
    rows, matrices, sizes = equation.inputs
    return Proposal(form=form, operands=(rows, sizes), far=matrices)
