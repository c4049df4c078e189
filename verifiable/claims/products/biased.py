"""Products with a bias as claims: `x @ w + b`, on its way into a narrow type.

Where a float32 product is only read by the addition of a bias that all rows share, and the sum is
only read by a cast to float16 or bfloat16, the device commits to the sum S in place of the product.
The cast of what was committed is exact, so nothing is committed of it. With C = S - b, row i passes
iff

    ||rho_i|| <= (sigma_i + 2 u (||C_i * w|| + ||b * w||)) sqrt(L),     u = 2^-24

with rho and sigma of `freivalds`: a device's addition rounds to one of the two numbers beside the
sum, which are at most 2 u |S_ij| apart. So what a sum leaves to a cheat is what the product left,
and one rounding; the product by itself left the ties of the cast besides. A row that passes
may be undecided where a few elements of b are massive (`bias_slack`); so what is computed, as a
mask is by `select_n`, is no bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import jax.numpy as jnp

from verifiable.claims.form import Proposal, View, Yardstick
from verifiable.claims.products import float32_test, gathered, product
from verifiable.claims.products.dot_general import DotGeneral
from verifiable.claims.products.freivalds import Projection
from verifiable.claims.products.product import Product, ProductRoom, room_of
from verifiable.claims.statistic import Deviation
from verifiable.jaxpr.blocks import Array, Atom, Block, Equation, Var
from verifiable.jaxpr.effects import HALF_PRECISION, MOVES
from verifiable.jaxpr.precisions import RoundedTo, algorithm

KINDS = frozenset({"add"})

_MOVED = MOVES | {"convert_element_type", "dynamic_slice"}  # what may lie between input and bias

_UNIT = 2.0**-24  # of float32, to which the sum is rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasedProduct(Product):
    """The form of such a sum; its operands are the near operand of the product and the bias.

    Attributes:
      product: the equation of the product, which nothing else reads.
    """

    barrier: ClassVar[bool] = True

    product: Equation

    def completed(self, projection: Projection, rest: Sequence[Array]) -> Projection:
        """The projection with the bias."""
        return projection._replace(bias=rest[0])

    def rows_and_projection(
        self, operands: list[Array], projection: Projection
    ) -> tuple[Array, Projection]:
        """The near operand, and the projection with the bias."""
        near, *rest = operands
        return near, self.completed(projection, rest)

    def inputs(self, operands: list[Array], far: Array | None) -> list[Array | None]:
        """The inputs of the product."""
        return [operands[0], far]

    def cheapened(self, yardstick: Yardstick) -> Yardstick:
        """In float32, where that is fine enough for the difference of sum and bias too."""
        if not float32_test.suffices(self.maps, yardstick.eps - 3 * _UNIT):
            return yardstick
        return Product.cheapened(self, yardstick)

    def deviate_exactly(
        self,
        equation: Equation,
        operands: list[Array],
        far: Array | None,
        claim: Array,
        eps: float,
    ) -> Deviation:
        """See `Product.deviate_exactly`."""
        del equation
        return Product.deviate_exactly(self, self.product, operands, far, claim, eps)

    def room(
        self, operands: list[Array], far: Array | None, out: Array, eps: float
    ) -> ProductRoom | tuple[()]:
        """See `room_of`; of the product, and what rounding the sum leaves."""
        near, bias = operands
        own = out.astype(jnp.float64) - bias
        found = room_of(self.maps, near, jnp.asarray(far), own, eps)
        parts = (self.maps.scale_out(x, found.weights) for x in (own, bias + jnp.zeros_like(own)))
        norms = sum(jnp.sqrt(self.maps.out_sums(x * x)) for x in parts)
        return found._replace(sigma=found.sigma + 2 * _UNIT * norms)


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim a sum instead of the product that is a term of it; see `form.Rule`."""
    [out] = equation.outputs
    reader = view.graph.only_reader(out)
    if reader is None or reader.kind != "convert_element_type":
        return None
    if out.dtype != jnp.float32 or reader.outputs[0].dtype.name not in HALF_PRECISION:
        return None
    for term, bias in (equation.inputs, equation.inputs[::-1]):
        made = view.graph.producers.get(term) if isinstance(term, Var) else None
        if made is None or not _absorbable(made, equation, view):
            continue
        found = product.propose(made, view)
        own = None if found is None else found.form
        if found is None or not isinstance(own, Product) or not _is_bias(bias, own, view):
            continue
        form = BiasedProduct(maps=own.maps, far_known=True, product=made)
        return replace(found, form=form, operands=(*found.operands, bias), absorbs=made)
    return None


def _absorbable(made: Equation, equation: Equation, view: View) -> bool:
    """Whether the claimed product of a parameter is read by the sum only, beside it."""
    if made.kind != "dot_general" or not view.claimed(made) or algorithm(made) != RoundedTo():
        return False
    alone = view.graph.only_reader(made.outputs[0]) is equation
    if not alone or gathered.propose(made, view) is not None:
        return False
    return _together(view.graph.block, made, equation)


def _together(block: Block, first: Equation, second: Equation) -> bool:
    """Whether one block holds both equations: none of them is in a branch without the other."""
    own = {first, second}.intersection(block.equations)
    if own:
        return len(own) == 2
    return any(_together(body, first, second) for e in block.equations for body in e.bodies)


def _is_bias(atom: Atom, form: Product, view: View) -> bool:
    """Whether a term is a bias of the columns of a product, and these are its last dimension."""
    maps = form.maps
    plain = isinstance(maps, DotGeneral) and maps.near == 0 and maps.batch == 1
    if not plain or maps.decisive or maps.dtypes[2] != jnp.float32 or not form.far_known:
        return False
    if not isinstance(atom, Var) or not (view.known(atom) and view.exact(atom)):
        return False
    source = view.graph.producers.get(atom)
    while source is not None and source.kind in _MOVED:
        first = source.inputs[0]
        source = view.graph.producers.get(first) if isinstance(first, Var) else None
    if source is not None:
        return False
    return maps.shapes[2][-1] == maps.columns == atom.size == atom.shape[-1]
