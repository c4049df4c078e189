"""`dot_general` as a contraction."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.claims.contraction import BLOCK, Contraction, broadcast, dot
from verifiable.field import INT64, Field, limb_bits
from verifiable.jaxpr.blocks import Array, Equation


@dataclass(frozen=True, slots=True, kw_only=True)
class DotGeneral(Contraction):
    """`lax.dot_general` with any batch, contracting and free dimensions."""

    contracting: tuple[tuple[int, ...], tuple[int, ...]]
    batching: tuple[tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(cls, equation: Equation, near: int) -> Self:
        """The contraction of an equation whose near operand is input `near`."""
        (lhs, rhs), out = equation.inputs, equation.outputs[0]
        (lc, rc), (lb, rb) = equation.params["dimension_numbers"]
        batch = math.prod(lhs.shape[d] for d in lb)
        contracted = math.prod(lhs.shape[d] for d in lc)
        free = [x.size // max(batch * contracted, 1) for x in (lhs, rhs)]
        return cls(
            near=near,
            shapes=(lhs.shape, rhs.shape, out.shape),
            dtypes=(lhs.dtype, rhs.dtype, out.dtype),
            batch=batch,
            contracted=contracted,
            rows=free[near],
            columns=free[1 - near],
            contracting=(tuple(lc), tuple(rc)),
            batching=(tuple(lb), tuple(rb)),
        )

    @property
    def far_side(self) -> Hashable:
        """See `Contraction.far_side`."""
        side = self.far
        dims = self.contracting[side], self.batching[side]
        return type(self), side, self.shapes[side], dims, self.dtypes, self.blocks, self.bounds

    def _free(self, side: int) -> tuple[int, ...]:
        used = {*self.contracting[side], *self.batching[side]}
        return tuple(d for d in range(len(self.shapes[side])) if d not in used)

    def _sizes(self, side: int, dims: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.shapes[side][d] for d in dims)

    def _out_axes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Positions of the batch, row and column dimensions in the output."""
        batch = len(self.batching[0])
        left = batch + len(self._free(0))
        axes = (tuple(range(batch, left)), tuple(range(left, len(self.shapes[2]))))
        return tuple(range(batch)), axes[self.near], axes[self.far]

    def _far_layout(self, far: Array) -> Array:
        """Far operand as (batch..., contracted..., columns...)."""
        side = self.far
        order = (*self.batching[side], *self.contracting[side], *self._free(side))
        return lax.transpose(far, order) if order != tuple(range(len(order))) else far

    def project(self, far: Array, vectors: Array) -> Array:
        """See `Contraction.project`."""
        if self.blocks > 1:
            kept = self._sizes(self.far, self.contracting[self.far])
            found = _by_blocks(self._far_layout(far).reshape(*kept, self.columns), vectors)
            return found.reshape(*kept, -1)
        free = self._free(self.far)
        kept = (*self.batching[self.far], *self.contracting[self.far])
        shaped = vectors.reshape(*self._sizes(self.far, free), vectors.shape[-1])
        out = dot(far, shaped, (free, tuple(range(len(free)))), ((), ()))
        # `dot_general` leaves the other dimensions in the order of the operand.
        position = {d: i for i, d in enumerate(sorted(kept))}
        order = (*(position[d] for d in kept), len(kept))
        return lax.transpose(out, order) if order != tuple(range(len(order))) else out

    def apply(self, near: Array, projected: Array) -> Array:
        """See `Contraction.apply`."""
        batch = len(self.batching[0])
        contracted = tuple(range(batch, batch + len(self.contracting[0])))
        dims = (self.contracting[self.near], contracted)
        out = dot(near, projected, dims, (self.batching[self.near], tuple(range(batch))))
        return out if self.blocks == 1 else out.reshape(*out.shape[:-1], self.blocks, -1)

    def fold(self, out: Array, vectors: Array) -> Array:
        """See `Contraction.fold`."""
        if self.blocks > 1:
            return _by_blocks(self.rows_of(out), vectors)
        _, _, columns = self._out_axes()
        sizes = tuple(self.shapes[2][d] for d in columns)
        shaped = vectors.reshape(*sizes, vectors.shape[-1])
        return dot(out, shaped, (columns, tuple(range(len(columns)))), ((), ()))

    @property
    def exact_in_place(self) -> bool:
        """See `Contraction.exact_in_place`: where sums are over the last dimensions, in one pass.

        A product of two matrices would convert all of the claim to float64 first.
        """
        near, columns = self.near, self._out_axes()[2]
        order = (*self.batching[near], *self._free(near), *self.contracting[near])
        lasting = columns == _last(self.shapes[2], len(columns))
        return self.exact and lasting and order == tuple(range(len(order)))

    def apply_exactly(self, near: Array, image: Array, field: Field) -> Array:
        """See `Contraction.apply_exactly`."""
        if not self.exact_in_place:
            return Contraction.apply_exactly(self, near, image, field)
        dims, count = self.batching[self.near] + self.contracting[self.near], self.contracted
        bits = _limb_bits(self.extents[self.near], count)
        limbs = field.limbs(image, bits)
        vectors = [broadcast(x, near.shape, dims) for x in _vectors(limbs)]
        found = _integer_sums(near, vectors, len(self.contracting[self.near]))
        return field.from_limbs(_grouped(found, len(limbs)), bits)

    def fold_exactly(self, out: Array, vectors: Array, field: Field) -> tuple[Array, Array]:
        """See `Contraction.fold_exactly`."""
        if not self.exact_in_place:
            return Contraction.fold_exactly(self, out, vectors, field)
        columns, magnitude = self._out_axes()[2], self.magnitude
        bits = _limb_bits(magnitude, self.columns)
        limbs = field.limbs(vectors, bits)
        factors = [broadcast(x, out.shape, columns) for x in _vectors(limbs)]
        outside = (out > magnitude) | (out < -magnitude)
        *found, outside = _integer_sums(out, factors, len(columns), outside)
        return field.from_limbs(_grouped(found, len(limbs)), bits), outside == 0

    def near_sums(self, near: Array, values: Array) -> Array:
        """See `Contraction.near_sums`."""
        if self.blocks > 1:
            return self.apply(near, values)[..., 0]
        return self.contracted_sums(self._scale_near(near, values))

    @property
    def normalizes(self) -> bool:
        """See `Contraction.normalizes`: in blocks, no one product serves the norms of all."""
        return self.blocks == 1

    def weigh(self, near: Array, norms: Array) -> tuple[Array, Array]:
        """See `Contraction.weigh`."""
        if not self.normalizes:
            return near, self.near_sums(near * near, norms * norms)
        scaled = self._scale_near(near, norms)
        return scaled, self.contracted_sums(scaled * scaled)

    def contracted_sums(self, near: Array) -> Array:
        """Sums over the contracted dimensions of a near operand -> (batch..., rows...)."""
        side = self.near
        sums = jnp.sum(near, axis=self.contracting[side])
        # The sums have the order of the operand; the batch dimensions must come first.
        kept = (*self.batching[side], *self._free(side))
        position = {d: i for i, d in enumerate(sorted(kept))}
        return jnp.transpose(sums, [position[d] for d in kept])

    def _scale_near(self, near: Array, values: Array) -> Array:
        """Near operand scaled by values, (batch..., contracted..., 1)."""
        dims = (*self.batching[self.near], *self.contracting[self.near])
        return near * broadcast(values, self.shapes[self.near], dims)

    def out_sums(self, out: Array) -> Array:
        """See `Contraction.out_sums`."""
        if self.blocks > 1:
            main, rest = _split(self.rows_of(out))
            last = jnp.sum(rest, axis=-1, keepdims=True)
            sums = jnp.sum(main, axis=-1)
            return jnp.concatenate([sums, last], axis=-1) if rest.size else sums
        return jnp.sum(out, axis=self._out_axes()[2])

    def column_sums(self, far: Array) -> Array:
        """See `Contraction.column_sums`."""
        out = jnp.sum(self._far_layout(far), axis=self._contracted_axes())
        return out.reshape(self.batch, self.columns)

    def _contracted_axes(self) -> tuple[int, ...]:
        batch = len(self.batching[0])
        return tuple(range(batch, batch + len(self.contracting[0])))

    def scale_far(self, far: Array, weights: Array) -> Array:
        """See `Contraction.scale_far`."""
        free = self._free(self.far)
        dims = (*self.batching[self.far], *free)
        return far * broadcast(weights, self.shapes[self.far], dims)

    def scale_out(self, out: Array, weights: Array) -> Array:
        """See `Contraction.scale_out`."""
        batch, _, columns = self._out_axes()
        return out * broadcast(weights, self.shapes[2], (*batch, *columns))

    def over_rows(self, values: Array) -> Array:
        """See `Contraction.over_rows`."""
        batch, rows, columns = self._out_axes()
        if self.blocks > 1:
            wide = jnp.repeat(values, BLOCK, axis=-1)[..., : self.columns]
            return broadcast(wide, self.shapes[2], (*rows, *columns))
        return broadcast(values, self.shapes[2], (*batch, *rows))

    def near_rows(self, near: Array) -> Array:
        """See `Contraction.near_rows`."""
        side = self.near
        order = (*self.batching[side], *self._free(side), *self.contracting[side])
        return lax.transpose(near, order).reshape(self.batch * self.rows, self.contracted)

    def in_blocks(self) -> Self:
        """See `Contraction.in_blocks`: without batch dimensions, a float product can be cut."""
        if self.exact or self.batching[0] or self.columns <= BLOCK:
            return self
        return replace(self, blocks=-(-self.columns // BLOCK))

    def rows_of(self, out: Array) -> Array:
        """Output as (rows..., columns), if it has no batch dimensions."""
        _, rows, columns = self._out_axes()
        moved = lax.transpose(out, (*rows, *columns)) if rows > columns else out
        return moved.reshape(*self._sizes(self.near, self._free(self.near)), self.columns)

    def as_output(self, values: Array) -> Array:
        """The inverse of `rows_of`: values (rows, columns) in the shape of the output.

        With batch dimensions, the rows of all products, one after the other.
        """
        order = [axis for axes in self._out_axes() for axis in axes]
        shaped = values.reshape([self.shapes[2][d] for d in order])
        return lax.transpose(shaped, sorted(range(len(order)), key=lambda i: order[i]))

    def row_axes(self) -> tuple[int, int, int] | None:
        """See `Contraction.row_axes`."""
        free = self._free(self.near)
        if not free:
            return None
        i = max(range(len(free)), key=lambda i: self.shapes[self.near][free[i]])
        return free[i], self._out_axes()[1][i], len(self.batching[0]) + i

    def of_rows(self, axis: int, size: int) -> tuple[Self, int, tuple[int, ...]] | None:
        """The product of some rows.

        Args:
          axis: of the output.
          size: number of indices along it.

        Returns:
          The smaller contraction, the axis of the near operand along the same rows, and the axes of
          the output over which rows are counted; None if the axis is not one of rows.
        """
        batch, rows, _ = self._out_axes()
        if axis not in rows:
            return None
        near = self._free(self.near)[rows.index(axis)]
        shapes = list(self.shapes)
        for side, d in ((self.near, near), (2, axis)):
            shapes[side] = (*shapes[side][:d], size, *shapes[side][d + 1 :])
        count = self.rows // self.shapes[2][axis] * size
        found = replace(self, shapes=(shapes[0], shapes[1], shapes[2]), rows=count)
        return found, near, (*batch, *rows)

    def contracted_axes(self) -> dict[int, int]:
        """See `Contraction.contracted_axes`."""
        return dict(zip(self.contracting[self.near], self._contracted_axes(), strict=True))

    def cut_contracted(self, axis: int, size: int) -> Self:
        """See `Contraction.cut_contracted`."""
        if axis not in self.contracting[self.near]:
            raise ValueError(f"axis {axis} of this contraction cannot be cut")
        far = self.contracting[self.far][self.contracting[self.near].index(axis)]
        shapes = list(self.shapes)
        for side, d in ((self.near, axis), (self.far, far)):
            shapes[side] = (*shapes[side][:d], size, *shapes[side][d + 1 :])
        contracted = self.contracted // self.shapes[self.near][axis] * size
        return replace(self, shapes=(shapes[0], shapes[1], shapes[2]), contracted=contracted)

    def with_batch(self, size: int) -> DotGeneral:
        """The same products along another length of a single batch dimension, the first."""
        shapes = [(size, *shape[1:]) for shape in self.shapes]
        return replace(self, shapes=(shapes[0], shapes[1], shapes[2]), batch=size)


def _last(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    return tuple(range(len(shape)))[len(shape) - count :]


def _limb_bits(magnitude: int, terms: int) -> int:
    """Widest limb that is an int32, for which sums are exact in int64."""
    return min(limb_bits(magnitude, terms, INT64), 31)


def _vectors(limbs: Sequence[Array]) -> list[Array]:
    """The vectors of all draws of all limbs, each (..., draws), as int32."""
    return [x[..., d].astype(jnp.int32) for x in limbs for d in range(x.shape[-1])]


def _grouped(sums: Sequence[Array], count: int) -> list[Array]:
    """The inverse of `_vectors`: sums of the same limb as one array, (..., draws)."""
    draws = len(sums) // count
    return [jnp.stack(sums[i : i + draws], -1) for i in range(0, len(sums), draws)]


def _integer_sums(
    values: Array, vectors: Sequence[Array], count: int, *others: Array
) -> list[Array]:
    """Sums of values times each vector, and of others, over the last dimensions, in one pass.

    Args:
      values: integers of at most 32 bits.
      vectors: int32, in the shape of the values.
      count: number of dimensions.
      others: flags.

    Returns:
      int64, modulo 2^64.
    """
    wide = values.astype(jnp.int64)
    terms = [*(wide * v.astype(jnp.int64) for v in vectors), *(x.astype(jnp.int64) for x in others)]

    def add(a: Sequence[Array], b: Sequence[Array]) -> Sequence[Array]:
        return [x + y for x, y in zip(a, b, strict=True)]

    return [*lax.reduce(terms, [np.int64(0)] * len(terms), add, _last(values.shape, count))]


def _split(values: Array) -> tuple[Array, Array]:
    """Values (..., columns) as whole blocks (..., blocks, BLOCK), and what is left (..., rest)."""
    whole = values.shape[-1] // BLOCK * BLOCK
    main, rest = values[..., :whole], values[..., whole:]
    return main.reshape(*values.shape[:-1], -1, BLOCK), rest


def _by_blocks(values: Array, vectors: Array) -> Array:
    """The product of each block of columns with the same vectors: (..., blocks, draws)."""
    main, rest = _split(values)
    # One product of two matrices: a batch of small ones would take twice the time.
    flat = dot(main.reshape(-1, BLOCK), vectors, ((1,), (0,)), ((), ()))
    found = flat.reshape(*main.shape[:-1], -1)
    if not rest.shape[-1]:
        return found
    last = dot(rest, vectors[: rest.shape[-1]], ((rest.ndim - 1,), (0,)), ((), ()))
    return jnp.concatenate([found, last[..., None, :]], axis=-2)
