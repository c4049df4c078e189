"""Products as claims: the output of a contraction, tested with random vectors.

The test is `freivalds`. An equation becomes a claim if the test costs less than the product. The
far operand is the one that depends on parameters only; if both depend on the job, the smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import lax

from verifiable.claims.contraction import Contraction
from verifiable.claims.form import Form, Proposal, View, Yardstick
from verifiable.claims.products import exposure, far_norms, float32_test, freivalds, nonfinite
from verifiable.claims.products.convolution import Convolution
from verifiable.claims.products.dot_general import DotGeneral
from verifiable.claims.products.freivalds import Projection
from verifiable.claims.statistic import Deviation, RowStatistics, Statistic, deviation, summary
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Equation
from verifiable.jaxpr.effects import rounding_dtype
from verifiable.jaxpr.perturb import in_float64

CONTRACTIONS: Mapping[str, Callable[[Equation, int], Contraction | None]] = {
    "dot_general": DotGeneral.of,
    "conv_general_dilated": Convolution.of,
    "ragged_dot_general": lambda *_: None,  # of rows and chosen matrices (`ragged`)
}
Bounds = tuple[int, int]


CHOICES = frozenset({"approx_top_k", "argmax", "argmin", "sort", "top_k"})
"""Primitives whose result names elements of their operand."""


def linear_maps(equation: Equation, near: int = 0) -> Contraction | None:
    """The contraction of an equation whose near operand is input `near`; None if it is none."""
    make = CONTRACTIONS.get(equation.kind)
    return make(equation, near) if make else None


def contraction(
    equation: Equation, near: int = 0, bounds: Bounds | None = None
) -> Contraction | None:
    """The same with the bounds of integer operands; None without a check."""
    found = linear_maps(equation, near)
    if found is not None and found.exact:
        found = replace(found, bounds=bounds)
    return found if found is not None and found.checkable else None


class ProductRoom(NamedTuple):
    """How far each row of a product can be shifted.

    Attributes:
      sigma: of each row, float64 (batch..., rows...).
      weights: w, float64 (batch, columns).
    """

    sigma: Array
    weights: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Product(Form):
    """The form of a claimed product; see `Form`.

    Attributes:
      maps: the contraction, as linear maps.
      far_known: whether its far operand depends on parameters only.
    """

    mismatch: ClassVar[str] = "claim-mismatch"
    barrier: ClassVar[bool] = False

    maps: Contraction
    far_known: bool

    @property
    def contraction(self) -> Contraction:
        """The linear maps."""
        return self.maps

    @property
    def projected(self) -> bool:
        """Whether the far operand depends on parameters only."""
        return self.far_known

    @property
    def near(self) -> int:
        """Index of the operand that is replayed; the other one is projected."""
        return self.maps.near

    @property
    def exact(self) -> bool:
        """Whether it is an integer product."""
        return self.maps.exact

    @property
    def vectors(self) -> str:
        """See `Contraction.vectors`."""
        return self.maps.vectors(far_known=self.far_known)

    @property
    def tests(self) -> int:
        """Number of rows."""
        return self.maps.tests

    @property
    def work(self) -> int:
        """Operations of the product."""
        return self.maps.work

    def check_cost(self, draws: int) -> int:
        """See `Contraction.check_cost`."""
        return self.maps.check_cost(draws, far_known=self.far_known)

    def eps_types(self, rounding_dtypes: frozenset[str]) -> frozenset[str]:
        """The types of the operands' rounding and of the product; none for integers."""
        if self.exact:
            return frozenset()
        return rounding_dtypes | {rounding_dtype(self.maps.dtypes[2])}

    def unit(self, limit: float, draws: int) -> float:
        """sqrt(L / t): the limit of the statistic is sqrt(L), its expectation sqrt(t)."""
        return math.sqrt(limit / draws)

    @property
    def projects(self) -> Hashable:
        """The side of the contraction that is projected."""
        return self.projected_maps.far_side

    @property
    def projected_maps(self) -> Contraction:
        """The contraction whose far operand is projected."""
        return self.maps

    def rows_and_projection(
        self, operands: list[Array], projection: Projection
    ) -> tuple[Array, Projection]:
        """The near operand and the projection, as `maps` takes them."""
        [near] = operands
        return near, projection

    def completed(self, projection: Projection, rest: Sequence[Array]) -> Projection:
        """The projection with what the comparison needs of the operands but the near one."""
        del rest
        return projection

    def inputs(self, operands: list[Array], far: Array | None) -> list[Array | None]:
        """The inputs of the equation, from the operands of the claim."""
        [near] = operands
        return [near, far] if self.near == 0 else [far, near]

    def far_of(self, far: Array) -> Array:
        """The far operand, as `projected_maps` takes it."""
        return far

    def seen(self, out: Array) -> Array:
        """An output of the equation, as `maps` has it."""
        return out

    def unseen(self, out: Array) -> Array:
        """An output of `maps`, as the equation has it."""
        return out

    def project(self, far: Array, yardstick: Yardstick) -> Projection:
        """See `freivalds.project`."""
        far, g = self.far_of(far), yardstick.vectors
        return freivalds.project(self.projected_maps, far, g, eps=yardstick.eps)

    def moved(self, far: Array, yardstick: Yardstick) -> Array:
        """See `exposure.moved`."""
        far, g = self.far_of(far), yardstick.vectors
        return exposure.moved(self.projected_maps, far, yardstick.projection, g)

    def test(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """See `freivalds.test`."""
        return summary(self.rows(operands, claim, yardstick, again=False))

    def cheapened(self, yardstick: Yardstick) -> Yardstick:
        """In float32, where that is fine enough; see `float32_test`."""
        if not float32_test.suffices(self.maps, yardstick.eps):
            return yardstick
        narrowed = float32_test.narrowed(self.projected_maps, yardstick.projection)
        return replace(yardstick, projection=narrowed)

    def retest(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """See `nonfinite.retest`."""
        if self.exact:
            return self.test(operands, claim, yardstick)
        return summary(self.rows(operands, claim, yardstick, again=True))

    def rows(
        self, operands: list[Array], claim: Array, yardstick: Yardstick, *, again: bool
    ) -> RowStatistics:
        """The statistics that `test` sums up, or `retest` if it is done again."""
        near, projection = self.rows_and_projection(operands, yardstick.projection)
        maps, out, g = self.maps, self.seen(claim), yardstick.vectors
        eps, limit = yardstick.eps, yardstick.limit
        if again:
            return nonfinite.rows(maps, near, projection, out, g, eps=eps, limit=limit)
        applied = freivalds.apply(maps, near, projection)
        return freivalds.compare(maps, applied, projection, out, g, eps=eps, limit=limit)

    def deviate(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Deviation:
        """A (B r) and C r of each row, and sigma sqrt(L)."""
        near, projection = self.rows_and_projection(operands, yardstick.projection)
        g: Array = yardstick.vectors
        applied = freivalds.apply(self.maps, near, projection)
        rho, energy, sigma, finite = freivalds.deviations(
            self.maps, applied, projection, self.seen(claim), g, yardstick.eps
        )
        # The powers of two depend on the operands, and would differ between replays.
        unit: Any = 1.0 if applied.top is None else applied.top * projection.scale
        claimed = unit * (applied.product + rho)
        moves = None
        if yardstick.moves is not None:
            heights = exposure.heights(yardstick.projection.norms)
            tall = yardstick.projection._replace(norms=heights)
            _, tall = self.rows_and_projection(operands, tall)
            exposed = exposure.exposure(self.maps, near, tall.norms, applied.top)
            moves = (unit * exposed)[..., None] * yardstick.moves
        return deviation(
            unit * applied.product,
            claimed,
            claimed,
            unit * math.sqrt(yardstick.limit) * _finite_or(sigma, finite, energy, yardstick.eps),
            unit * jnp.sqrt(energy * g.shape[-1]),
            moves,
        )

    def unfounded(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Array:
        """See `nonfinite.unfounded`."""
        near, projection = self.rows_and_projection(operands, yardstick.projection)
        return nonfinite.unfounded(self.maps, near, projection, self.seen(claim))

    def deviate_exactly(
        self,
        equation: Equation,
        operands: list[Array],
        far: Array | None,
        claim: Array,
        eps: float,
    ) -> Deviation:
        """||(C_i - A_i B) * w|| and sigma_i of each row; of integers, infinity or zero and zero."""
        form, inputs = self.maps, self.inputs(operands, far)
        if self.exact:
            different = self.seen(claim != interpret.apply(equation, inputs)[0])
            wrong = form.out_sums(different.astype(jnp.float64)) > 0
            zero = jnp.zeros(wrong.shape)
            distance = jnp.where(wrong, jnp.inf, 0.0)
            return deviation(zero, distance, distance, zero, zero + 1)
        product, claim = self.seen(in_float64(equation, inputs)[0]), self.seen(claim)
        ones = jnp.ones((form.width, 1), jnp.float64)
        narrow = self.far_of(jnp.asarray(far)).astype(form.dtypes[form.far])
        given = freivalds.project(self.projected_maps, narrow, ones, eps=eps)
        near, projection = self.rows_and_projection(operands, given)
        if projection.bias is not None:
            product = product + projection.bias.astype(jnp.float64)
        applied = freivalds.apply(form, near, projection)
        _, energy, sigma, finite = freivalds.deviations(form, applied, projection, claim, ones, eps)
        unit: Any = 1.0 if applied.top is None else applied.top * projection.scale
        difference = form.scale_out(
            (claim.astype(jnp.float64) - product) / unit, projection.weights
        )
        distance = unit * jnp.sqrt(form.out_sums(difference * difference))
        # Beyond half of the largest number an honest device may overflow; NaN decides nothing.
        large = ~(jnp.abs(product) <= float(jnp.finfo(form.dtypes[2]).max) / 2)
        expected = jnp.where(form.out_sums(large.astype(jnp.float64)) > 0, jnp.nan, 0.0)
        distance = jnp.where(finite, distance, jnp.inf)
        limit = unit * _finite_or(sigma, finite, energy, eps)
        return deviation(expected, distance, distance, limit, unit * jnp.sqrt(energy))

    def smooth(self, equation: Equation, inputs: list[Array], operands: list[Array]) -> Array:
        """The product; if integer operands are represented by floats, a product of floats.

        Raises:
          ValueError: there is no such product for an integer convolution.
        """
        if not self.exact or not any(jnp.issubdtype(x.dtype, jnp.floating) for x in inputs):
            return interpret.apply(equation, inputs)[0]
        if equation.kind != "dot_general":
            raise ValueError(f"no corridor through the integer convolution {equation.name}")
        a, b = (x.astype(jnp.float32) for x in inputs)
        dims = equation.params["dimension_numbers"]
        return lax.dot_general(a, b, dims, precision=lax.Precision.HIGHEST)

    def room(
        self, operands: list[Array], far: Array | None, out: Array, eps: float
    ) -> ProductRoom | tuple[()]:
        """See `room_of`; empty for integers."""
        if self.exact:
            return ()
        return room_of(self.maps, *self.room_operands(operands, far), self.seen(out), eps)

    def room_operands(self, operands: list[Array], far: Array | None) -> tuple[Array, Array | None]:
        """The near and far operand, as `maps` takes them."""
        [near] = operands
        return near, far

    def reach(self, room: ProductRoom, slope: Array, kappa: float) -> Array:
        """sum_i kappa sigma_i ||slope_i / w||, by the Cauchy-Schwarz inequality."""
        form = self.maps
        steepness = form.scale_out(self.seen(slope), _inverse(room.weights))
        norms = jnp.sqrt(form.out_sums(steepness * steepness))
        return kappa * jnp.sum(room.sigma * norms)

    def steepest(self, room: ProductRoom, slope: Array, kappa: float) -> Array:
        """delta with delta_i * w = -kappa sigma_i u_i, u_i the direction of slope_i / w."""
        form, inverse = self.maps, _inverse(room.weights)
        steepness = form.scale_out(self.seen(slope), inverse)
        norms = jnp.sqrt(form.out_sums(steepness * steepness))
        size = -kappa * room.sigma / jnp.where(norms == 0, 1, norms)
        return self.unseen(form.scale_out(steepness, inverse) * form.over_rows(size))

    def shifted(
        self, operands: list[Array], out: Array, shift: Array, eps: float, kappa: float
    ) -> Array:
        """The output plus the shift."""
        return (out.astype(jnp.float64) + shift).astype(out.dtype)


def room_of(form: Contraction, near: Array, far: Array, out: Array, eps: float) -> ProductRoom:
    """sigma and w of `freivalds`, without its floors; runs under `jax.enable_x64`.

    Args:
      form: the contraction.
      near: its near operand.
      far: its far operand.
      out: its output.
      eps: tolerance, as a fraction of the scale.
    """
    near, far, out = (x.astype(jnp.float64) for x in (near, far, out))
    weights = far_norms.column_weights(form, far)
    scaled = form.scale_far(far, weights)
    variances = form.project(scaled * scaled, jnp.ones((form.width, 1), jnp.float64))
    own = form.near_sums(near * near, variances)
    claimed = form.scale_out(out, weights)
    return ProductRoom(eps * jnp.sqrt(own + form.out_sums(claimed * claimed)), weights)


def _finite_or(sigma: Array, finite: Array, energy: Array, eps: float) -> Array:
    """sigma; of a claim that is not finite, its part that comes from the operands."""
    return jnp.where(finite, sigma, eps * jnp.sqrt(energy))


def _inverse(weights: Array) -> Array:
    """1 / w; zero for a branch that was not taken, whose weights are zero."""
    return jnp.where(weights == 0, 0.0, 1 / jnp.where(weights == 0, 1.0, weights))


def _decides(equation: Equation, found: Contraction, view: View) -> bool:
    """Whether a choice is made from a product, or it is a wide part of the answer.

    With no other product in between, what the tolerance leaves to a cheat is not mixed with
    anything, and a test of whole rows would let it spend all of a row on two columns.
    """
    [out] = equation.outputs
    if out in view.graph.reaching(CHOICES, CONTRACTIONS):
        return True
    wide = found.columns > found.contracted
    return wide and out in view.graph.reaching((), CONTRACTIONS, returned=True)


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim a product whose check costs less than the product; see `form.Rule`."""
    if linear_maps(equation) is None:
        return None
    bounds = bounds_of(equation, view)
    lhs, rhs = equation.inputs
    known = [view.known(a) for a in equation.inputs]
    if all(known):
        return None
    far_is_left = known[0] if any(known) else lhs.size < rhs.size
    found = contraction(equation, int(far_is_left), bounds)
    if found is None or (found.far_must_be_known and not known[found.far]):
        return None
    if known[found.far] and _decides(equation, found, view):
        found = found.in_blocks()
    form = Product(maps=found, far_known=known[found.far])
    if form.check_cost(1 if form.exact else view.draws) >= form.work:
        return None
    return Proposal(
        form=form, operands=(equation.inputs[found.near],), far=equation.inputs[found.far]
    )


def bounds_of(equation: Equation, view: View) -> Bounds | None:
    """The largest magnitudes of the first two operands, where the program shows them."""
    left, right = (view.bound(a) for a in equation.inputs[:2])
    return None if left is None or right is None else (left.magnitude, right.magnitude)
