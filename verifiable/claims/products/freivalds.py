"""Freivalds: test C = A B with random vectors, far more cheaply than the product.

*Integers.* Draw r uniform in F_p^n, p = 2^61 - 1, after C is committed. Accept iff
A (B r) = C r (mod p). If C != A B, some row of C - A B is not zero modulo p (its entries are
smaller than p), and for that row the equation holds for at most one in p values of one entry of
r: a wrong C passes with probability at most 1/p a draw (Freivalds 1977; Schwartz-Zippel).

*Floats.* With delta = C - A B in exact arithmetic, columns weighted by
w_j = 1 / max(||B_:j||, 2^-12 max_j ||B_:j||), and t vectors r = w * g, g ~ N(0, I_n), each entry
of rho_i = (C r - A (B r))_i is normal with variance ||delta_i * w||^2. With the scale

    s_i^2 = sum_k A_ik^2 ||B_k: * w||^2 + ||C_i * w||^2,    sigma_i = eps s_i,

accept iff ||rho_i||^2 <= sigma_i^2 L for every row, L = chi2.isf(phi / N, t), N the number of rows
tested. *Completeness:* a run with ||delta_i * w|| <= sigma_i in every row is rejected with
probability at most phi. *Soundness:* a row with ||delta_i * w|| = kappa sigma_i passes with
probability P(chi2_t <= L / kappa^2).

The normals are rounded to float32, which takes half the bytes in a key and changes each by at most
2^-24 of itself. rho is accumulated in float64. The only absolute terms are for numbers below the
smallest normal one, `tiny`, which many devices flush to zero: products and sums (K + 1 times tiny
||w||), elements of A (tiny sum_k ||B_k: * w||, over all batches), and elements of B that are
subnormal (each counts as K (tiny w_j A_ik / eps)^2 in s_i^2). In float64, A, B and C are divided
by powers of two, so that their squares neither overflow nor vanish; what is below 1e-150 of the
largest of its tensor counts as zero.

Whoever sees B r, for a B that is public, knows r: a projection is as secret as the challenge.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Float32, Float64, Shaped, UInt64

from verifiable.challenge import Challenge
from verifiable.claims.contraction import Contraction
from verifiable.claims.extremes import power_of_two, tiny
from verifiable.claims.products import bias_slack, far_norms, float32_test
from verifiable.claims.statistic import RowStatistics, Statistic, ratios, summary
from verifiable.field import F61, Field
from verifiable.jaxpr.blocks import Array
from verifiable.report import Bound

Vectors: TypeAlias = (
    Float32[Any, "columns draws"] | Float64[Any, "columns draws"] | UInt64[Any, "columns draws"]
)
"""Random vectors over the columns of B: normals for floats, residues for integers."""


class Projection(NamedTuple):
    """The projection of the far operand B, which the test uses in place of B.

    It is float64, or in float32 for a cheap form of the test (`float32_test`).

    Attributes:
      image: `B r`, for `dot_general` over floats each row divided by its norm; residues as uint64
        for integers; (batch..., contracted..., blocks * draws).
      weights: w, (batch, columns).
      norms: ||B_k: * w||, with what flushing costs, (batch..., contracted..., blocks).
      floor: what flushing may add to a row of C or take from one of A, (batch,).
      scale: the power of two that B was divided by, float64 (), if a type is float64; else None.
      bias: what was added to every row of the product before it was committed (`biased`), as it
        broadcasts against the claim; never of float64. A key never holds it here.

    For integers, only the image is set.
    """

    image: Float[Any, "*sums draws"] | UInt64[Any, "*sums draws"]
    weights: Float[Any, "batch columns"] | None = None
    norms: Float[Any, "*sums 1"] | None = None
    floor: Float[Any, " batch"] | None = None
    scale: Float64[Any, ""] | None = None
    bias: Float[Any, "*out"] | None = None


class Applied(NamedTuple):
    """The share of the near operand A in a test; see `additive` for sums over parts of it.

    Attributes:
      product: A (B r) in the type of the projection; (batch..., rows..., draws).
      energy: sum_k A_ik^2 ||B_k: * w||^2, (batch..., rows...); None for integers.
      top: the power of two that A was divided by, float64 (), if a type is float64; else None.
    """

    product: Float[Any, "*rows draws"] | UInt64[Any, "*rows draws"]
    energy: Float[Any, "*rows"] | None = None
    top: Float64[Any, ""] | None = None


def vectors(
    challenge: Challenge, name: str, draws: int
) -> Float32[np.ndarray, "columns draws"] | UInt64[np.ndarray, "columns draws"]:
    """Random vectors named by `Contraction.vectors`.

    Args:
      challenge: where the randomness comes from.
      name: of the set; its last part is the number of columns.
      draws: number of vectors for floats; for integers the challenge decides.

    Returns:
      (columns, draws): standard normals as float32, or residues modulo p as uint64.
    """
    columns = int(name.rpartition("/")[2])
    if name.startswith("exact/"):
        return challenge.residues(name, (columns, challenge.exact_draws))
    return challenge.normals(name, (columns, draws)).astype(np.float32)


def vectors_shape(name: str, draws: int) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the set that `vectors` returns for a secret challenge."""
    columns = int(name.rpartition("/")[2])
    if name.startswith("exact/"):
        return jax.ShapeDtypeStruct((columns, 1), jnp.uint64)
    return jax.ShapeDtypeStruct((columns, draws), jnp.float32)


def limit(phi: float, rows: int, draws: int) -> float:
    """L = chi2.isf(phi / rows, draws), from the upper tail: 1 - phi / rows would round to 1.

    Raises:
      ValueError: the quantile is not finite and positive.
    """
    from scipy.special import chdtri  # noqa: PLC0415 - slow to load

    quantile = float(chdtri(draws, phi / max(rows, 1)))
    if not (math.isfinite(quantile) and quantile > 0):
        raise ValueError(
            f"no finite limit for phi = {phi}, {rows} rows, {draws} draws: choose a larger phi"
        )
    return quantile


def bound(phi: float, rows: int, draws: int) -> Bound:
    """What a pass proves, given these numbers of a run (Theorem 3 of specs/freivalds.md)."""
    return Bound(phi=phi, rows=rows, draws=draws, limit=limit(phi, rows, draws))


@functools.partial(jax.jit, static_argnames=("contraction", "field"))
def project(
    contraction: Contraction,
    far: Shaped[Any, "*far"],
    g: Vectors,
    *,
    eps: float,
    field: Field = F61,
) -> Projection:
    """Project the far operand; runs under `jax.enable_x64`.

    Args:
      contraction: of the product.
      far: its far operand.
      g: (columns, draws) from `vectors`.
      eps: tolerance of the test that will use the projection; unused for integers.
      field: of the residues, for integers.
    """
    wide = far.astype(jnp.float64)
    if contraction.exact:
        image = field.apply_linear(
            lambda limbs: contraction.project(wide, limbs),
            g,
            magnitude=contraction.extents[contraction.far],
            terms=contraction.width,
        )
        return Projection(image)
    top = jnp.ones((), jnp.float64)
    if far.dtype == jnp.float64:
        top = power_of_two(jnp.max(jnp.abs(wide)))
        wide = wide / top
    weights = float32_test.shortened(contraction, far_norms.column_weights(contraction, wide))
    scaled = contraction.scale_far(wide, weights)
    rows = far_norms.rows(contraction, scaled, far, weights, eps * top)
    norms = float32_test.shortened(contraction, rows)
    image = contraction.project(scaled, jnp.asarray(g, jnp.float64))
    image = contraction.normalize(image, norms)
    outputs = (contraction.contracted + 1) * jnp.sqrt(jnp.sum(weights * weights, axis=-1))
    of_near = tiny(contraction.dtypes[contraction.near]) * jnp.sum(norms)
    floor = outputs * tiny(contraction.dtypes[2]) / top + of_near
    return Projection(image, weights, norms, floor, top if _doubles(contraction) else None)


def test(
    contraction: Contraction,
    near: Shaped[Any, "*near"],
    projection: Projection,
    out: Shaped[Any, "*out"],
    g: Vectors,
    *,
    eps: float,
    limit: float,
    field: Field = F61,
) -> Statistic:
    """Test a claimed output; runs under `jax.enable_x64`.

    Args:
      contraction: of the product.
      near: its near operand, as the verifier computed it.
      projection: of its far operand, by `g`.
      out: the claimed output.
      g: (columns, draws) from `vectors`.
      eps: tolerance, as a fraction of the scale; unused for integers.
      limit: L, the quantile that the statistic is held to; unused for integers.
      field: of the residues, for integers.
    """
    applied = apply(contraction, near, projection, field=field)
    found = compare(contraction, applied, projection, out, g, eps=eps, limit=limit, field=field)
    return summary(found)


def apply(
    contraction: Contraction,
    near: Shaped[Any, "*near"],
    projection: Projection,
    *,
    field: Field = F61,
) -> Applied:
    """The share of the near operand in a test; runs under `jax.enable_x64`.

    Raises:
      ValueError: the projection is of integers, the contraction of floats.
    """
    image, norms = projection.image, projection.norms
    if contraction.exact:
        return Applied(contraction.apply_exactly(near, image, field))
    wide = near.astype(image.dtype)
    if norms is None:
        raise ValueError("a projection of integers cannot test floats")
    sizes = jnp.where(jnp.isfinite(wide), jnp.abs(wide), 0.0)
    top = power_of_two(jnp.max(sizes)) if _doubles(contraction) else None
    wide = wide if top is None else wide / top
    scaled, energy = contraction.weigh(wide, norms)
    scaled = wide if image.dtype == jnp.float32 else scaled  # the image is multiplied by the norms
    return Applied(contraction.apply(scaled, image), energy, top)


def additive(contraction: Contraction) -> bool:
    """Whether the shares of parts of the near operand add up to the share of the whole.

    Parts are along a contracted axis. Integers are reduced modulo p, and float64 operands are
    divided by a power of two of the whole operand: neither adds up.
    """
    return not contraction.exact and not _doubles(contraction)


def _doubles(contraction: Contraction) -> bool:
    return any(dtype == jnp.float64 for dtype in contraction.dtypes)


def piece(projection: Projection, axis: int, start: Any, size: int) -> Projection:
    """The projection of a part of the far operand, for `apply`.

    Args:
      projection: of floats.
      axis: a contracted axis of the image.
      start: first element along it.
      size: number of elements.
    """
    image, norms = projection.image, projection.norms
    if norms is None:
        raise ValueError("a projection of integers cannot be cut")
    image, norms = (lax.dynamic_slice_in_dim(x, start, size, axis) for x in (image, norms))
    return projection._replace(image=image, norms=norms)


def compare(
    contraction: Contraction,
    applied: Applied,
    projection: Projection,
    out: Shaped[Any, "*out"],
    g: Vectors,
    *,
    eps: float,
    limit: float,
    field: Field = F61,
) -> RowStatistics:
    """The rest of a test: compare a claimed output with the share of the near operand.

    Rows can be tested in any portions, since each is decided by itself. Arguments as of `test`.
    What is not finite, or undecided in float32, is decided by `nonfinite.retest`.

    Returns:
      Statistics of the rows, (batch..., rows...).
    """
    if contraction.exact:
        return _compare_exact(contraction, applied.product, out, g, field)

    def decide(*, least: bool = False) -> RowStatistics:
        given = contraction, applied, projection, out, g, eps
        rho, energy, sigma, theirs = deviations(*given, least=least)
        if rho.dtype == jnp.float32:
            found = float32_test.decide(rho, sigma, eps, limit)
        else:
            own = jnp.isfinite(energy)
            ratio, true = ratios(rho, sigma, limit, own), jnp.ones(own.shape, bool)
            found = RowStatistics(ratio, theirs | ~own, true, own)
        return bias_slack.settled(
            contraction, projection, found, energy=energy, sigma=sigma, eps=eps
        )

    if applied.product.dtype != jnp.float32:
        return by_row(contraction, decide())
    found = decide(least=True)
    passed = jnp.all(found.finite_operands & (found.ratio <= 1.0))
    return by_row(contraction, lax.cond(passed, lambda: found, decide))


def by_row(contraction: Contraction, found: RowStatistics) -> RowStatistics:
    """The statistics of rows, each of which is as good as its worst block of columns."""
    if contraction.blocks == 1:
        return found
    ratio, *conditions = found
    return RowStatistics(jnp.max(ratio, axis=-1), *(jnp.all(c, axis=-1) for c in conditions))


def _compare_exact(
    contraction: Contraction, expected: Array, out: Array, g: Array, field: Field
) -> RowStatistics:
    # A claim out of range is wrong, and its limbs would not be exact.
    folded, in_range = contraction.fold_exactly(out, g, field)
    equal = jnp.all(expected == folded, axis=-1)
    true = jnp.ones(equal.shape, bool)
    return RowStatistics(
        ratio=jnp.where(equal & in_range, 0.0, jnp.inf).astype(jnp.float64),
        finite_claim=true,
        in_range=in_range,
        finite_operands=true,
    )


def by_batch(contraction: Contraction, values: Array, rows: Array) -> Array:
    """Values of the batch, (batch,), in the shape of values of the rows."""
    shape = contraction.batch, contraction.rows * contraction.blocks
    return jnp.broadcast_to(values[:, None], shape).reshape(rows.shape)


def deviations(
    contraction: Contraction,
    applied: Applied,
    projection: Projection,
    out: Array,
    g: Array,
    eps: float,
    *,
    least: bool = False,
) -> tuple[Array, Array, Array, Array]:
    """rho (batch..., rows..., draws); energy, sigma, and which rows of the claim are finite.

    All are in units of the powers of two that the operands were divided by. The `least` sigma
    counts the claim as zero, which saves a pass over it.
    """
    weights, floor, energy = projection.weights, projection.floor, applied.energy
    if weights is None or floor is None or energy is None:
        raise ValueError("a projection of integers cannot test floats")
    claimed, bias = out.astype(applied.product.dtype), None
    if projection.bias is not None:
        bias = projection.bias.astype(claimed.dtype)
        claimed = claimed - bias
        energy = energy + bias_slack.unsettled(bias)
    finite = contraction.out_sums((~jnp.isfinite(claimed)).astype(jnp.float64)) == 0
    if applied.top is not None:
        # Without the barrier, XLA would divide by the product of the two, which may vanish.
        claimed = lax.optimization_barrier(claimed / applied.top) / projection.scale
        floor = floor / applied.top
    scaled, r = contraction.scale_out(claimed, weights), jnp.asarray(g, claimed.dtype)
    claim = jnp.zeros_like(energy) if least else contraction.out_sums(scaled * scaled)
    theirs = jnp.isfinite(claim) if applied.top is None else finite
    if float32_test.merges(contraction):
        scaled, r = claimed, weights.reshape(-1, 1) * r
    if floor.dtype == jnp.float64:  # if the floor overflows, every honest product has vanished
        floor = jnp.minimum(floor, jnp.finfo(jnp.float64).max)
    scale = jnp.sqrt(energy + claim)
    sigma = eps * scale + by_batch(contraction, floor, energy)
    if projection.bias is not None:
        sigma = sigma + bias_slack.left(contraction, projection, energy=energy, products=claim)
    if bias is not None and float32_test.in_place(contraction, projection, out):
        size = scale + 2 * bias_slack.norm(bias=bias, weights=weights)
        fine = float32_test.hides(contraction, size, sigma)
        folded = bias_slack.folded(contraction, out, bias, r, fine)
    else:
        folded = contraction.fold(scaled, r)
    return folded - applied.product, energy, sigma, theirs
