"""Contractions: a primitive as a product `C = A B`, by three linear maps.

The *far* operand B is projected on vectors over its free dimensions; the *near* operand A is
applied to the projection:

    fold(C, G) = apply(A, project(B, G))        for every G of shape (columns, draws)

The maps are linear, so they serve floats (weighted Gaussian G) and integers (G uniform modulo p).

A wide product may be cut into *blocks* of columns, each of BLOCK = 512 or, the last, of what is
left. Every block of a row is then a test of its own, with the same vectors of length `width`, and
has a dimension of its own after those of the rows: (batch..., rows..., blocks, draws).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.field import Field
from verifiable.jaxpr.blocks import Array
from verifiable.jaxpr.effects import FLOAT8, FLOATS, HALF_PRECISION, is_float
from verifiable.policy import NarrowSum

BLOCK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Contraction(ABC):
    """`C = A B` as linear maps; see the module's docstring for the first three.

    Attributes:
      far_must_be_known: whether the far operand must depend on parameters only to have a check.
      near: index (0 or 1) of the near operand; the other one is the far operand.
      shapes: shapes of the operands and of the output.
      dtypes: types of the operands and of the output.
      batch: number of independent products.
      rows: number of rows of one product; each row is tested by itself.
      contracted: length of the sums, K.
      columns: length of a row, n.
      blocks: number of blocks of columns; without blocks, arrays of the rows have no dimension for
        them.
      bounds: largest magnitudes that integer operands can have in the program, such as values of
        int8 from which a zero point is subtracted as int32; None for those of their types.
    """

    far_must_be_known: ClassVar[bool] = False

    near: int
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[np.dtype[Any], np.dtype[Any], np.dtype[Any]]
    batch: int
    rows: int
    contracted: int
    columns: int
    blocks: int = 1
    bounds: tuple[int, int] | None = None

    @property
    def width(self) -> int:
        """Columns of a block, or of a row that is tested as a whole."""
        return self.columns if self.blocks == 1 else BLOCK

    @property
    def far(self) -> int:
        """Index of the far operand."""
        return 1 - self.near

    @property
    def tests(self) -> int:
        """Number of rows tested, or of their blocks."""
        return self.batch * self.rows * self.blocks

    @property
    def work(self) -> int:
        """Arithmetic operations of the product itself."""
        return 2 * self.batch * self.rows * self.contracted * self.columns

    @property
    def exact(self) -> bool:
        """Whether it is an integer product."""
        return not is_float(self.dtypes[2])

    @property
    def eps_types(self) -> frozenset[str]:
        """Types whose rounding separates honest products of equal operands; none for integers."""
        return frozenset() if self.exact else frozenset(d.name for d in self.dtypes)

    @property
    def narrow_sums(self) -> frozenset[NarrowSum]:
        """None: the operands are equal."""
        return frozenset()

    @property
    def own_sums(self) -> frozenset[NarrowSum]:
        """The sum of K terms, if a device may add it up in a narrow type."""
        out = self.dtypes[2].name
        return frozenset({NarrowSum(out, self.contracted)} if out in HALF_PRECISION else ())

    @property
    def decisive(self) -> int:
        """K of a product in blocks; else zero."""
        return self.contracted if self.blocks > 1 else 0

    @property
    def magnitude(self) -> int:
        """Largest magnitude that an integer accumulator can reach, by the operands' extents."""
        return self.contracted * self.extents[0] * self.extents[1]

    @property
    def extents(self) -> tuple[int, int]:
        """Largest magnitudes of integer operands, from `bounds` or their types."""
        return self.bounds or (extent(self.dtypes[0]), extent(self.dtypes[1]))

    @property
    def checkable(self) -> bool:
        """Whether the product has a check: floats, or integers that provably do not wrap."""
        if 0 in (self.batch, self.rows, self.columns, self.contracted):
            return False
        names = tuple(d.name for d in self.dtypes)
        if names[2] in FLOATS:
            return all(n in FLOATS | FLOAT8 for n in names[:2])
        integers = all(jnp.issubdtype(d, np.integer) for d in self.dtypes[:2])
        return integers and names[2] == "int32" and self.magnitude <= np.iinfo(np.int32).max

    def vectors(self, *, far_known: bool) -> str:
        """Name of the set of random vectors; contractions of the same width share one.

        Parameters and activations have sets of their own: projections of activations are made
        anew for every job.
        """
        source = "parameters" if far_known else "activations"
        return f"{'exact' if self.exact else 'float'}/{source}/{self.width}"

    @property
    @abstractmethod
    def far_side(self) -> Hashable:
        """All that a projection depends on, without what belongs to the near operand alone."""

    @abstractmethod
    def project(self, far: Array, vectors: Array) -> Array:
        """`B G`: far operand, (width, draws) -> (batch..., contracted..., blocks * draws)."""

    @abstractmethod
    def apply(self, near: Array, projected: Array) -> Array:
        """`A (B G)`: near operand, projection -> (batch..., rows..., draws)."""

    @abstractmethod
    def fold(self, out: Array, vectors: Array) -> Array:
        """`C G`: output, (width, draws) -> (batch..., rows..., draws)."""

    def apply_exactly(self, near: Array, image: Array, field: Field) -> Array:
        """`apply` modulo p: integers, residues (batch..., contracted..., draws) -> residues."""
        wide = near.astype(jnp.float64)
        return field.apply_linear(
            lambda limbs: self.apply(wide, limbs),
            image,
            magnitude=self.extents[self.near],
            terms=self.contracted,
        )

    def fold_exactly(self, out: Array, vectors: Array, field: Field) -> tuple[Array, Array]:
        """`fold` modulo p: integers, residues (columns, draws) -> residues.

        Returns:
          The residues, which are right in rows that are in range; and which rows these are, by
          `magnitude`: bool (batch..., rows...).
        """
        wide = out.astype(jnp.float64)
        folded = field.apply_linear(
            lambda limbs: self.fold(wide, limbs),
            vectors,
            magnitude=self.magnitude,
            terms=self.columns,
        )
        outside = (jnp.abs(wide) > self.magnitude).astype(jnp.float64)
        return folded, self.out_sums(outside) == 0

    @property
    def exact_in_place(self) -> bool:
        """Whether `apply_exactly` and `fold_exactly` need no copies of near operand and output."""
        return False

    @abstractmethod
    def near_sums(self, near: Array, values: Array) -> Array:
        """Sums over the contracted dimensions of a near operand times values there.

        The values are (batch..., contracted..., 1), as `project` returns them; the result is
        (batch..., rows...). It equals `apply` with one draw.
        """

    @property
    def normalizes(self) -> bool:
        """Whether `weigh` multiplies the near operand by the norms, and `normalize` divides."""
        return False

    def normalize(self, image: Array, norms: Array) -> Array:
        """A projection in the form that `apply` takes after `weigh`, given ||B_k: * w||.

        The two leave the product of near operand and projection as it is.
        """
        return image / jnp.where(norms == 0, 1.0, norms) if self.normalizes else image

    def weigh(self, near: Array, norms: Array) -> tuple[Array, Array]:
        """The near operand for `apply`, and sum_k A_ik^2 norms_k^2 as (batch..., rows...).

        A primitive that multiplies the near operand by the norms for the sum may return the
        product, and divide by the norms in `normalize`.
        """
        return near, self.near_sums(near * near, norms * norms)

    @abstractmethod
    def out_sums(self, out: Array) -> Array:
        """Sums over the columns of an output -> (batch..., rows...)."""

    @abstractmethod
    def column_sums(self, far: Array) -> Array:
        """Sums over the contracted dimensions of the far operand -> (batch, columns)."""

    @abstractmethod
    def scale_far(self, far: Array, weights: Array) -> Array:
        """Far operand with its columns scaled by (batch, columns)."""

    @abstractmethod
    def scale_out(self, out: Array, weights: Array) -> Array:
        """Output with its columns scaled by (batch, columns)."""

    @abstractmethod
    def over_rows(self, values: Array) -> Array:
        """Values of the rows, (batch..., rows...), broadcast to the shape of the output."""

    @abstractmethod
    def row_axes(self) -> tuple[int, int, int] | None:
        """Axes of the near operand, the output, and (batch..., rows...) along the same rows.

        They belong to the longest dimension of rows; None if there is none that can be cut.
        """

    def near_rows(self, near: Array) -> Array | None:
        """Near operand as (rows, contracted); None if its elements belong to several rows."""
        del near
        return None

    def in_blocks(self) -> Self:
        """The contraction with its columns in blocks, if it is wide and can be cut."""
        return self

    def cut(self, size: int) -> Self:
        """The contraction with `size` rows along `row_axes`.

        Raises:
          ValueError: there are no such axes.
        """
        axes = self.row_axes()
        if axes is None:
            raise ValueError("this contraction has no rows that can be cut")
        near, out = list(self.shapes[self.near]), list(self.shapes[2])
        rows = self.rows // out[axes[1]] * size
        near[axes[0]] = out[axes[1]] = size
        shapes = [tuple(near)] * 2 + [tuple(out)]
        shapes[self.far] = self.shapes[self.far]
        return replace(self, shapes=(shapes[0], shapes[1], shapes[2]), rows=rows)

    def contracted_axes(self) -> dict[int, int]:
        """Contracted axes of the near operand, and the same axes of a projection.

        Sums over parts of such an axis add up; empty if no axis can be cut.
        """
        return {}

    def cut_contracted(self, axis: int, size: int) -> Self:
        """The contraction with `size` elements along an axis of `contracted_axes`.

        Raises:
          ValueError: there is no such axis.
        """
        raise ValueError(f"axis {axis} of this contraction cannot be cut")

    def check_cost(self, draws: int, *, far_known: bool) -> int:
        """Cost of the check, in arithmetic operations of the product itself.

        Measured on CPUs: each element of the operands and the output costs a conversion to double
        precision, its part of a norm, and `draws` products; about four times as much in a batch of
        small products. A batch of two unknown operands, as in attention, must save some 400
        operations an element whatever the number of draws, because its replay is cheap: in tiles
        of a few heads, neither operands nor scores are ever whole.

        Args:
          draws: random vectors.
          far_known: whether the far operand is projected once for all jobs.
        """
        elements = math.prod(self.shapes[self.near]) + math.prod(self.shapes[2])
        if not far_known:
            elements += math.prod(self.shapes[self.far])
        each = 2 * draws + 16
        if self.batch > 1:
            each = 4 * each if far_known else 2 * draws + 400
        blocks = math.prod(self.shapes[self.near]) * (self.blocks - 1)
        return elements * each + blocks * 2 * (draws + 1)


def extent(dtype: np.dtype[Any]) -> int:
    """Largest magnitude of an integer type."""
    info = np.iinfo(dtype)
    return max(-int(info.min), int(info.max))


def broadcast(weights: Array, shape: tuple[int, ...], dims: tuple[int, ...]) -> Array:
    """Broadcast values over `dims`, in that order, to `shape`."""
    shaped = weights.reshape([shape[d] for d in dims])
    order = sorted(range(len(dims)), key=lambda i: dims[i])
    shaped = jnp.transpose(shaped, order)
    return lax.broadcast_in_dim(shaped, shape, tuple(sorted(dims)))


def dot(
    a: Array,
    b: Array,
    contracting: tuple[tuple[int, ...], tuple[int, ...]],
    batching: tuple[tuple[int, ...], tuple[int, ...]],
) -> Array:
    """`lax.dot_general` at the highest precision."""
    dims = (contracting, batching)
    return lax.dot_general(a, b, dims, precision=lax.Precision.HIGHEST)
