"""How far a device may move the columns of a claimed product without failing a test.

Two tolerances add up. A test lets block J of row i deviate by ||D_iJ * w_J|| = kappa sigma_iJ
(`freivalds`), so column j moves by

    kappa room_ij,     room_ij = sigma_iJ / w_j.

Before it, an operand that was rounded may be anything that passes as the rounding of the verifier's
own value. If element k of row i moves by at most m_ik, column j moves by

    spare_ij = sum_k m_ik |B_kj|  <=  ||m_i|| ||B_:j||  <=  ||m_i|| / w_j        (Cauchy-Schwarz)

and, in an integer product, by at most sum_k m_ik max |B|. The elements of the operand may follow
from the rounded values by other arithmetic on elements (`elementwise`). In a batch of products, or
with chosen matrices, each row has the w of its own matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp

from verifiable.check.freedom.elementwise import Glue, Reach
from verifiable.check.replay.replay import Context
from verifiable.check.specification import Specification
from verifiable.claims.claim import Claim
from verifiable.claims.form import Yardstick
from verifiable.claims.products import freivalds
from verifiable.claims.products.dot_general import DotGeneral
from verifiable.claims.products.freivalds import Applied, Projection
from verifiable.claims.roundings.rounding import Rounding
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Block, Env


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LastProduct:
    """A claimed product with parameters, and the roundings that lead to its operand.

    Attributes:
      claim: the product.
      form: its contraction.
      block: the block that computes it; None inside of a branch.
      roundings: claims of roundings, each with the glue from its output to the operand.
    """

    claim: Claim
    form: DotGeneral
    block: Block | None
    roundings: tuple[tuple[Claim, Glue], ...]

    @property
    def alone(self) -> bool:
        """Whether all rows meet one matrix."""
        return self.form.batch == 1 and len(self.claim.operands) == 1

    @property
    def rows(self) -> int:
        """Rows of all products of a batch."""
        return self.form.batch * self.form.rows

    def as_output(self, values: Array) -> Array:
        """Values (rows, columns) in the shape of the claim."""
        product: Any = self.claim.form
        return product.unseen(self.form.as_output(values))

    def near_and_projection(
        self, operands: list[Array], projection: Projection
    ) -> tuple[Array, Projection]:
        """The rows, and the projection of the matrix of each; see `Product`."""
        product: Any = self.claim.form
        return product.rows_and_projection(operands, projection)

    @property
    def indices(self) -> frozenset[int]:
        """Of the claims of the roundings."""
        return frozenset(claim.index for claim, _ in self.roundings)


class Leeway(NamedTuple):
    """How far the columns of a product may be moved.

    Attributes:
      sigma: of each block of each row, float64 (rows, blocks).
      inverse: 1 / w of each column, or one, float64 (rows or 1, columns).
      moves: `spare` of each row before it is multiplied by `inverse`, float64 (rows,).
    """

    sigma: Array
    inverse: Array
    moves: Array


def heads(program: Specification) -> Iterator[LastProduct]:
    """The products with parameters from whose rows something can be chosen."""
    analysis = program.analysis
    blocks = {e: b for b in _blocks(program.function.block) for e in b.equations}
    # A long program has many pairs of a rounding and a product: each rounding is followed once.
    reaches = {
        other: Reach.of(blocks[other.equation], other.output, analysis.by_equation)
        for other in program.claims
        if isinstance(other.form, Rounding) and other.equation in blocks
    }
    for claim in program.claims:
        form = claim.form.contraction
        if not isinstance(form, DotGeneral) or not claim.form.projected:
            continue
        block = blocks.get(claim.equation)
        found: list[tuple[Claim, Glue]] = []
        for other, reach in reaches.items():
            if block is not None and blocks[other.equation] is block:
                glue = reach.to(claim.near)
                found += [] if glue is None else [(other, glue)]
        yield LastProduct(claim=claim, form=form, block=block, roundings=tuple(found))


def _blocks(block: Block) -> Iterator[Block]:
    """A block and the bodies of the scans inside of it."""
    yield block
    for equation in block.equations:
        if equation.kind == "scan" and equation.params["length"]:
            yield from _blocks(equation.bodies[0])


def applied(head: LastProduct, env: Env, given: Yardstick) -> Applied:
    """The share of the operand in the test of the product, given its yardstick."""
    return freivalds.apply(head.form, interpret.read(env, head.claim.near), given.projection)


def moves(head: LastProduct, env: Env, context: Context) -> Array:
    """`Leeway.moves`; the operands of the roundings are in `env`."""
    form, total = head.form, jnp.zeros(head.rows)
    given, [_, *chosen] = (
        context.yardstick(head.claim, env),
        interpret.read_all(env, head.claim.operands),
    )
    for claim, glue in head.roundings:
        rounding: Any = claim.form
        operands = interpret.read_all(env, claim.operands)
        value = operands[0].astype(rounding.wide)
        slack = rounding.slack_of(operands, context.policy.eps_of(claim, claim.name))
        ends = (*rounding.extremes(value, slack), rounding.forward(value))
        low, high, own = (glue.moved(env, x).astype(jnp.float64) for x in ends)
        change = jnp.maximum(jnp.abs(high - own), jnp.abs(low - own))
        # What is beyond all numbers on one side only is tested there, not here.
        change = jnp.where(jnp.isfinite(change), change, 0)
        change, _ = head.near_and_projection([change, *chosen], given.projection)
        if form.exact:
            total += form.contracted_sums(change).reshape(-1) * form.extents[form.far]
        else:
            total += jnp.sqrt(form.contracted_sums(change * change)).reshape(-1)
    scale = given.projection.scale  # the weights are of the matrix divided by it
    return total if scale is None else total * scale


def sigma_of(form: DotGeneral, share: Applied, values: Array, given: Yardstick) -> Array:
    """`Leeway.sigma` of some rows of a product of floats.

    Args:
      form: of these rows.
      share: share of the operand in their test.
      values: the claimed rows.
      given: the yardstick of the claim.
    """
    projection: Projection = given.projection
    unit: Any = 1.0 if share.top is None else share.top * projection.scale
    vectors: Any = given.vectors
    _, _, sigma, _ = freivalds.deviations(form, share, projection, values, vectors, given.eps)
    return (sigma * unit).reshape(-1, form.blocks)


def leeway(head: LastProduct, env: Env, context: Context) -> Leeway:
    """How far the columns of a product may be moved, in all rows."""
    form, given = head.form, context.yardstick(head.claim, env)
    operands = interpret.read_all(env, head.claim.operands)
    near, projection = head.near_and_projection(operands, given.projection)
    sigma = jnp.zeros((head.rows, 1))
    if not form.exact:
        product: Any = head.claim.form
        out, share = context.claimed[head.claim.index], freivalds.apply(form, near, projection)
        sigma = sigma_of(form, share, product.seen(out), replace(given, projection=projection))
    columns = jnp.repeat(inverse(head, projection), form.rows if form.batch > 1 else 1, axis=0)
    return Leeway(sigma, columns, moves(head, env, context))


def inverse(head: LastProduct, projection: Projection) -> Array:
    """1 / w of each column, or one, float64 (products of a batch, columns)."""
    if head.form.exact or projection.weights is None:
        return jnp.ones((head.form.batch, head.form.columns))
    return (1 / projection.weights).reshape(head.form.batch, head.form.columns)
