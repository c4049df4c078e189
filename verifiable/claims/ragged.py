"""Products by groups as claims: `lax.ragged_dot`, such as a layer of experts.

Row i of C is row i of A times the matrix of its group, C_i = A_i B_g(i). The first rows belong to
the first group, as many as its size, and so on; rows after the last group are zero. So each row is
a product of its own, and is tested as `freivalds` says with the projection B_g r, the weights and
the norms of its group's matrix. The key holds one projection of all matrices. The sizes of the
groups are an operand that the verifier replays; they are integers, hence exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from verifiable.claims.contraction import Contraction
from verifiable.claims.dot_general import DotGeneral
from verifiable.claims.form import Proposal, View
from verifiable.claims.freivalds import Projection
from verifiable.claims.product import Product, bounds_of, contraction
from verifiable.jaxpr.blocks import Array, Equation

PRIMITIVES = frozenset({"ragged_dot_general"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RaggedProduct(Product):
    """The form of a claimed `ragged_dot`; its operands are the rows and the sizes of the groups.

    Attributes:
      maps: a batch of products of one row with a matrix.
      groups: number of matrices.
    """

    maps: DotGeneral
    groups: int

    @property
    def projected_maps(self) -> Contraction:
        """A batch of as many products as there are groups."""
        return self.maps.with_batch(self.groups)

    def check_cost(self, draws: int) -> int:
        """Costs each element of the rows, of the output and of unknown matrices as a product."""
        batch, contracted, columns = self.maps.batch, self.maps.contracted, self.maps.columns
        elements = batch * (contracted + columns)
        if not self.far_known:
            elements += self.groups * contracted * columns
        return elements * (2 * draws + 16)

    def rows_and_projection(
        self, operands: list[Array], projection: Projection
    ) -> tuple[Array, Projection]:
        """The rows, zero after the last group, and for each the projection of its group."""
        rows, group = self._grouped(operands)
        return rows, Projection(*(x if x is None or x.ndim == 0 else x[group] for x in projection))

    def inputs(self, operands: list[Array], far: Array | None) -> list[Array | None]:
        """Rows, matrices and sizes."""
        rows, sizes = operands
        return [rows, far, sizes]

    def room_operands(self, operands: list[Array], far: Array | None) -> tuple[Array, Array]:
        """The rows, and for each the matrix of its group."""
        rows, group = self._grouped(operands)
        return rows, jnp.asarray(far)[group]

    def _grouped(self, operands: list[Array]) -> tuple[Array, Array]:
        """The rows, zero after the last group, and the group of each."""
        rows, sizes = operands
        ends = jnp.cumsum(jnp.maximum(sizes, 0))
        group = jnp.sum(jnp.arange(self.maps.batch)[:, None] >= ends, axis=1)
        inside = (group < self.groups)[:, None]
        rows = jnp.where(inside, rows, jnp.zeros((), rows.dtype))
        return rows, jnp.minimum(group, self.groups - 1)


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim a `ragged_dot` whose check costs less than the product; see `form.Rule`."""
    maps = contraction(equation, 0, bounds_of(equation, view))
    if not isinstance(maps, DotGeneral):
        return None
    rows, matrices, sizes = equation.inputs
    form = RaggedProduct(maps=maps, far_known=view.known(matrices), groups=matrices.shape[0])
    if not form.groups or form.check_cost(1 if form.exact else view.draws) >= form.work:
        return None
    return Proposal(form=form, operands=(rows, sizes), far=matrices)
