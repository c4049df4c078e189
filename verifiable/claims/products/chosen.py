"""Products whose rows each meet a matrix of their own, chosen from a stack by an index.

    C_p = A_p B_e(p)        for every place p, e(p) the index of its matrix

C_p r = A_p (B_e(p) r), so one projection of the stack serves every place: B_e(p) r is gathered from
it, as are the weights and the norms of the matrix. The key holds it in place of the stack. Each row
is then tested as `freivalds` says.

Indices are replayed; they are integers, hence exact. A place without a matrix has an index below
zero; its row counts as zero, or as NaN. Where devices may choose the result, because an index or a
size is none that the primitive defines, a row that fails decides nothing (`Statistic.defined`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from verifiable.claims.contraction import broadcast
from verifiable.claims.form import Yardstick
from verifiable.claims.products.dot_general import DotGeneral
from verifiable.claims.products.freivalds import Projection
from verifiable.claims.products.product import Product
from verifiable.claims.statistic import Deviation, RowStatistics, Statistic, summary
from verifiable.jaxpr.blocks import Array, Atom, Equation
from verifiable.jaxpr.integers import FixedPoint


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How an array is seen in another shape, whose dimensions merge others.

    Attributes:
      full: that shape before dimensions are merged.
      dims: the position in `full` of each dimension of the array; it is repeated along the others.
      shape: the shape itself.
    """

    full: tuple[int, ...]
    dims: tuple[int, ...]
    shape: tuple[int, ...]

    def of(self, x: Array) -> Array:
        """The array in that shape."""
        return broadcast(x, self.full, self.dims).reshape(self.shape)

    def back(self, x: Array) -> Array:
        """The array that is seen so, if nothing is repeated."""
        return jnp.transpose(x.reshape(self.full), self.dims)


class Places(DotGeneral):
    """A batch of products of some rows with a matrix: (p, m, K) by (p, K, n) -> (p, m, n).

    The operands of the equation have other dimensions, so no tiles are cut along these.
    """

    __slots__ = ()

    @classmethod
    def of_layouts(
        cls,
        near: Arrangement,
        far: Arrangement,
        atoms: tuple[Atom, Atom, Atom],
        bounds: Sequence[FixedPoint | None],
    ) -> Places:
        """The products of operands that are seen as (p, m, K) and (..., K, n).

        Args:
          near: layout of the near operand.
          far: layout of the far one.
          atoms: near and far operand and output, for their types.
          bounds: of the operands, for integers.
        """
        (p, m, contracted), columns = near.shape, far.shape[-1]
        left, right, out = (a.dtype for a in atoms)
        made = cls(
            near=0,
            shapes=((p, m, contracted), (p, contracted, columns), (p, m, columns)),
            dtypes=(left, right, out),
            batch=p,
            contracted=contracted,
            rows=m,
            columns=columns,
            contracting=((2,), (1,)),
            batching=((0,), (0,)),
        )
        a, b = bounds
        if not made.exact or a is None or b is None:
            return made
        return replace(made, bounds=(a.magnitude, b.magnitude))

    def row_axes(self) -> None:
        """None; see `Contraction.row_axes`."""
        return

    def contracted_axes(self) -> dict[int, int]:
        """No axes; see `Contraction.contracted_axes`."""
        return {}


class Chosen(NamedTuple):
    """Which matrix each place has.

    Attributes:
      index: integers (places,), below zero where there is none.
      defined: bool (places,), whether the primitive says so on every device.
    """

    index: Array
    defined: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenProduct(Product):
    """The form of such a product; its operands are the rows and what chooses.

    Attributes:
      maps: a batch of products, one for each place.
      side: index of the near operand among the inputs of the equation.
      matrices: number of matrices in the stack.
      near_layout: of the rows, as `maps` takes them.
      far_layout: of the stack, as (matrices, K, n).
      out_layout: of the output.
      absent: what stands for the elements of a row without a matrix.
    """

    maps: Places
    side: int = 0
    matrices: int
    near_layout: Arrangement
    far_layout: Arrangement
    out_layout: Arrangement
    absent: float = 0.0

    @property
    def near(self) -> int:
        """Index of the operand that is replayed."""
        return self.side

    @property
    def projects(self) -> Hashable:
        """The stack, as it is projected."""
        return self.far_layout, self.projected_maps.far_side

    @property
    def projected_maps(self) -> DotGeneral:
        """A batch of as many products as there are matrices."""
        return self.maps.with_batch(self.matrices)

    def check_cost(self, draws: int) -> int:
        """Costs each element of the rows, of the output and of unknown matrices as a product."""
        maps = self.maps
        elements = maps.batch * maps.rows * (maps.contracted + maps.columns)
        if not self.far_known:
            elements += self.matrices * maps.contracted * maps.columns
        return elements * (2 * draws + 16)

    @abstractmethod
    def chosen(self, operands: list[Array]) -> Chosen:
        """Which matrix each place has, given the operands of the claim."""

    def far_of(self, far: Array) -> Array:
        """The stack, as (matrices, K, n)."""
        return self.far_layout.of(far)

    def seen(self, out: Array) -> Array:
        """An output of the equation, as (places, m, n)."""
        return self.out_layout.of(out)

    def unseen(self, out: Array) -> Array:
        """An output (places, m, n), as the equation has it."""
        return self.out_layout.back(out)

    def rows_and_projection(
        self, operands: list[Array], projection: Projection
    ) -> tuple[Array, Projection]:
        """The rows, and for each place the projection of its matrix."""
        index = self.chosen(operands).index
        own = jnp.maximum(index, 0)
        found = (x if x is None or x.ndim == 0 else x[own] for x in projection)
        return self._near(operands, index), Projection(*found)

    def room_operands(self, operands: list[Array], far: Array | None) -> tuple[Array, Array]:
        """The rows, and for each place its matrix."""
        index = self.chosen(operands).index
        return self._near(operands, index), self.far_of(jnp.asarray(far))[jnp.maximum(index, 0)]

    def _near(self, operands: list[Array], index: Array) -> Array:
        rows = self.near_layout.of(operands[0])
        return jnp.where((index >= 0)[:, None, None], rows, jnp.asarray(self.absent, rows.dtype))

    def test(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """See `freivalds.test`."""
        return self._settled(operands, self.rows(operands, claim, yardstick, again=False))

    def retest(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """See `nonfinite.retest`."""
        again = not self.exact
        return self._settled(operands, self.rows(operands, claim, yardstick, again=again))

    def _settled(self, operands: list[Array], found: RowStatistics) -> Statistic:
        """The statistic of all rows, of which those that devices may choose reject nothing."""
        failed = ~((found.ratio <= 1.0) & found.finite_claim)
        unsettled = failed & ~self.chosen(operands).defined[:, None]
        found = found._replace(
            ratio=jnp.where(unsettled, 0.0, found.ratio),
            finite_claim=found.finite_claim | unsettled,
        )
        return summary(found)._replace(defined=~jnp.any(unsettled))

    def deviate(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Deviation:
        """See `Product.deviate`; NaN is expected of rows that devices may choose."""
        return self._undecided(operands, Product.deviate(self, operands, claim, yardstick))

    def deviate_exactly(
        self,
        equation: Equation,
        operands: list[Array],
        far: Array | None,
        claim: Array,
        eps: float,
    ) -> Deviation:
        """See `Product.deviate_exactly`; NaN is expected of rows that devices may choose."""
        found = Product.deviate_exactly(self, equation, operands, far, claim, eps)
        return self._undecided(operands, found)

    def unfounded(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Array:
        """See `Product.unfounded`; devices may choose what is in some rows."""
        found = Product.unfounded(self, operands, claim, yardstick)
        return found & self._defined(operands)

    def _undecided(self, operands: list[Array], found: Deviation) -> Deviation:
        expected = jnp.where(self._defined(operands), found.expected, jnp.nan)
        return found._replace(expected=expected)

    def _defined(self, operands: list[Array]) -> Array:
        """Whether devices may not choose a row's result; (rows, 1)."""
        return jnp.repeat(self.chosen(operands).defined, self.maps.rows)[:, None]


def layout(
    dims: Sequence[Hashable],
    groups: Sequence[Sequence[Hashable]],
    sizes: Mapping[Any, int],
) -> Arrangement:
    """The layout of an array, whose dimensions have names.

    Args:
      dims: names of the dimensions of the array.
      groups: names of those that are merged to one each, in order.
      sizes: of dimensions by name.
    """
    order = [name for group in groups for name in group]
    return Arrangement(
        full=tuple(sizes[name] for name in order),
        dims=tuple(order.index(name) for name in dims),
        shape=tuple(math.prod(sizes[name] for name in group) for group in groups),
    )


def as_sizes(values: Iterable[int]) -> tuple[int, ...]:
    """Plain integers; JAX's parameters may hold NumPy's."""
    return tuple(int(np.asarray(n)) for n in values)
