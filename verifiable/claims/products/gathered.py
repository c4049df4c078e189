"""Products with gathered matrices as claims: `einsum("td,tdf->tf", x, w[expert])`.

Where a parameter w is a stack of matrices and an operand of a `dot_general` is w[index], moved or
cast, each place of the index has a product of its own (`chosen`). The gather is not replayed: the
verifier replays the index, and gathers the projection of w with it.

An index beyond the stack stands for the nearest matrix, or for one of the filling (`slices`): for
NaN, or for a matrix more in the stack.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.lax import GatherScatterMode

from verifiable.claims.form import Proposal, View
from verifiable.claims.products import slices
from verifiable.claims.products.chosen import (
    Arrangement,
    Chosen,
    ChosenProduct,
    Places,
    as_sizes,
    layout,
)
from verifiable.jaxpr.blocks import Array, Atom, Equation, Var
from verifiable.jaxpr.effects import is_float

_SAME = frozenset({"convert_element_type", "copy", "copy_p", "stop_gradient"})


class Stack(NamedTuple):
    """A value that is made of the matrices of a stack.

    Attributes:
      choice: the `gather` or `dynamic_slice`.
      labels: of each dimension of the value, the dimension of the stack that it is, as int, or the
        dimension of the index, as text; None for one of length one that is neither.
      casts: types that the matrices were cast to, in order.
    """

    choice: Equation
    labels: tuple[int | str | None, ...]
    casts: tuple[np.dtype[Any], ...] = ()


def stack_of(atom: Atom, view: View) -> Stack | None:
    """How a value is made of a known stack; None if it is not, or by what rounds or computes."""
    equation = view.graph.producers.get(atom) if isinstance(atom, Var) else None
    if equation is None or view.claimed(equation) or not view.exact(equation.outputs[0]):
        return None
    if equation.kind in slices.KINDS:
        labels = slices.labels_of(equation) if view.known(equation.inputs[0]) else None
        return None if labels is None else Stack(equation, labels)
    before = stack_of(equation.inputs[0], view) if equation.inputs else None
    if before is None:
        return None
    labels, params = before.labels, equation.params
    if equation.kind == "transpose":
        return before._replace(labels=tuple(labels[d] for d in params["permutation"]))
    if equation.kind in _SAME:
        cast = (atom.dtype,) if equation.kind == "convert_element_type" else ()
        return before._replace(casts=before.casts + cast)
    if equation.kind in ("reshape", "squeeze", "expand_dims", "broadcast_in_dim"):
        longer = [d for d, n in enumerate(atom.shape) if n != 1]
        lengths = [(x, n) for x, n in zip(labels, equation.inputs[0].shape, strict=True) if n != 1]
        # Only dimensions of length one may come or go.
        if [n for _, n in lengths] != [atom.shape[d] for d in longer]:
            return None
        kept = dict(zip(longer, (x for x, _ in lengths), strict=True))
        return before._replace(labels=tuple(kept.get(d) for d in range(len(atom.shape))))
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatheredProduct(ChosenProduct):
    """The form of such a product; its operands are the rows and the indices.

    Attributes:
      choice: the `gather` or `dynamic_slice`.
      casts: types that the matrices are cast to, in order.
      order: dimensions of the index, in the order of those of the places.
      batches: products in a batch of each matrix, which has a part of its own for each.
      gathered_layout: of the far operand, as (places, K, n).
      filling: what the elements of a matrix beyond the stack are; None if they are NaN, or if there
        is no such matrix.
    """

    choice: Equation
    casts: tuple[np.dtype[Any], ...]
    order: tuple[int, ...]
    batches: int
    gathered_layout: Arrangement
    filling: float | int | None

    def chosen(self, operands: list[Array]) -> Chosen:
        """The matrix that each index stands for."""
        numbers, inside = slices.picked(self.choice, operands[1:])
        mode = slices.mode_of(self.choice)
        if mode == GatherScatterMode.FILL_OR_DROP:
            beyond = -1 if self.filling is None else self.matrices // self.batches - 1
            numbers = jnp.where(inside, numbers, beyond)
        settled = jnp.asarray(mode != GatherScatterMode.PROMISE_IN_BOUNDS)
        numbers, defined = (
            x.transpose(self.order).reshape(-1) for x in (numbers, inside | settled)
        )
        part = jnp.arange(self.batches)
        index = jnp.where(numbers[:, None] < 0, -1, numbers[:, None] * self.batches + part)
        return Chosen(index.reshape(-1), jnp.repeat(defined, self.batches))

    def far_of(self, far: Array) -> Array:
        """The stack, as (matrices, K, n), with the matrix of the filling."""
        found = self.far_layout.of(far)
        if self.filling is not None:
            more = jnp.full((self.batches, *found.shape[1:]), self.filling, found.dtype)
            found = jnp.concatenate([found, more])
        if found.dtype == jnp.float64:  # in double precision, as everything around it
            return found
        for dtype in self.casts:
            found = found.astype(dtype)
        return found

    @property
    def projects(self) -> Hashable:
        """The stack, as it is projected."""
        return self.far_layout, self.casts, self.filling, self.projected_maps.far_side

    def inputs(self, operands: list[Array], far: Array | None) -> list[Array | None]:
        """The rows, and the gathered matrices."""
        index = self.chosen(operands).index
        found = self.far_of(jnp.asarray(far))[jnp.maximum(index, 0)]
        if self.filling is None and is_float(found.dtype):
            found = jnp.where((index >= 0)[:, None, None], found, jnp.asarray(jnp.nan, found.dtype))
        gathered = self.gathered_layout.back(found)
        return [operands[0], gathered] if self.side == 0 else [gathered, operands[0]]


def form_of(equation: Equation, side: int, view: View) -> GatheredProduct | None:
    """The form of a `dot_general` whose far operand is gathered; None if it is no such product.

    Args:
      equation: a `dot_general`.
      side: index of its near operand.
      view: of the program.
    """
    near, far, out = equation.inputs[side], equation.inputs[1 - side], equation.outputs[0]
    stack = stack_of(far, view)
    if stack is None or view.known(far):
        return None
    filling, labels, known = slices.filling(stack.choice), stack.labels, stack.choice.inputs[0]
    absent = filling is not None and math.isnan(filling)
    if absent and not is_float(near.dtype):
        return None
    if filling and not absent and is_float(known.dtype):
        return None  # among weights, its size would count
    (contracting, beside), (batching, along) = (
        [as_sizes(dims[i]) for i in (1 - side, side)]
        for dims in equation.params["dimension_numbers"]
    )
    if not all(isinstance(labels[d], int) for d in contracting):
        return None  # products are summed over the index
    # Dimensions have names: those of the far operand its own, which the near one shares where they
    # are paired.
    paired = dict(zip((*beside, *along), (*contracting, *batching), strict=True))
    near_dims = [("far", paired[d]) if d in paired else ("near", d) for d in range(len(near.shape))]
    far_dims = [("far", d) for d in range(len(far.shape))]
    rest = [d for d in range(len(far.shape)) if d not in contracting]
    chosen = [d for d in rest if not isinstance(labels[d], int)]
    parts = [("far", d) for d in rest if d not in chosen and d in batching]
    columns = [("far", d) for d in rest if d not in chosen and d not in batching]
    rows = [d for d in near_dims if d[0] == "near"]
    summed = [("far", d) for d in contracting]
    places = [("far", d) for d in chosen] + parts
    free = [d for d in far_dims if d[1] in rest and d[1] not in batching]
    out_dims = [("far", d) for d in batching] + (rows + free if side == 0 else free + rows)
    moved = {labels[d]: ("far", d) for d in range(len(labels))}
    stack_dims = [moved.get(d, ("stack", d)) for d in range(len(known.shape))]
    stacked = [("stack", d) for d in slices.stacked(stack.choice)]
    units = [d for d in stack_dims if d[0] == "stack" and d not in stacked]
    sizes = {
        d: n
        for dims, atom in ((near_dims, near), (far_dims, far), (stack_dims, known))
        for d, n in zip(dims, atom.shape, strict=True)
    }
    near_layout = layout(near_dims, (places, rows, summed), sizes)
    far_layout = layout(stack_dims, (stacked + parts, summed, columns + units), sizes)
    gathered_layout = layout(far_dims, (places, summed, columns), sizes)
    bounds = [view.bound(a) for a in (near, far)]
    maps = Places.of_layouts(near_layout, gathered_layout, (near, far, out), bounds)
    if not maps.checkable:
        return None
    batches = math.prod(sizes[d] for d in parts)
    extra = filling is not None and not absent
    axes = [x for x in (labels[d] for d in chosen) if isinstance(x, str)]
    index = [f"index {j}" for j in range(len(stack.choice.inputs[1].shape) - 1)]
    index = index if stack.choice.kind == "gather" else []
    return GatheredProduct(
        maps=maps,
        far_known=True,
        side=side,
        matrices=far_layout.shape[0] + (batches if extra else 0),
        near_layout=near_layout,
        far_layout=far_layout,
        out_layout=layout(out_dims, (places, rows, columns), sizes),
        gathered_layout=gathered_layout,
        absent=math.nan if absent else 0.0,
        choice=stack.choice,
        casts=stack.casts,
        order=tuple(index.index(x) for x in axes + [x for x in index if x not in axes]),
        batches=batches,
        filling=filling if extra else None,
    )


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim a product with gathered matrices whose check costs less; see `form.Rule`."""
    for side in (0, 1):
        form = form_of(equation, side, view)
        if form is not None and form.check_cost(1 if form.exact else view.draws) < form.work:
            choice = form.choice
            operands = (equation.inputs[side], *choice.inputs[1:])
            return Proposal(form=form, operands=operands, far=choice.inputs[0])
    return None
