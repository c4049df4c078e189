"""One contraction alone, verified without a program. Re-exported as `verifiable.freivalds`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int8, UInt8

from verifiable import policy
from verifiable.challenge import Challenge
from verifiable.claims.contraction import Contraction
from verifiable.claims.products import freivalds, nonfinite
from verifiable.claims.products.product import CONTRACTIONS, Product, contraction
from verifiable.claims.statistic import Statistic, judge
from verifiable.jaxpr import from_jax
from verifiable.jaxpr.blocks import Array
from verifiable.jaxpr.effects import FLOATS
from verifiable.report import Result, Verdict

Operand: TypeAlias = Float[Any, "..."] | Int8[Any, "..."] | UInt8[Any, "..."]
"""Array of numpy or JAX, of a type that has a check."""


def verify_dot_general(
    challenge: Challenge,
    lhs: Operand,
    rhs: Operand,
    out: Any,
    dimension_numbers: Any = None,
    *,
    preferred_element_type: Any = None,
    policy: policy.Policy = policy.DEFAULT,
) -> Result:
    """Verify `out = lax.dot_general(lhs, rhs, dimension_numbers)`.

    Args:
      challenge: randomness that the device could not know when it committed to `out`.
      lhs: left operand, numpy or JAX, of a floating-point type, int8 or uint8.
      rhs: right operand.
      out: the claimed product; any object.
      dimension_numbers: as of `lax.dot_general`; a plain matrix product by default.
      preferred_element_type: as of `lax.dot_general`; int32 for integers. The type of the product
        decides the tolerance, so it is never taken from the claim.
      policy: tolerances and number of draws.

    Returns:
      The verdict with its reason, the worst row, and what a pass proves. A claim of another shape
      or type is rejected.

    Raises:
      TypeError: the types have no check (see `claims.contraction`), or might wrap.
      ValueError: the shapes of the operands do not fit.
    """
    if dimension_numbers is None:
        dimension_numbers = (((np.ndim(lhs) - 1,), (0,)), ((), ()))

    def product(a: Array, b: Array) -> Array:
        return lax.dot_general(
            a, b, dimension_numbers, preferred_element_type=preferred_element_type
        )

    return _verify(challenge, product, lhs, rhs, out, policy)


def verify_conv_general_dilated(
    challenge: Challenge,
    lhs: Operand,
    rhs: Operand,
    out: Any,
    window_strides: Sequence[int],
    padding: Any,
    *,
    policy: policy.Policy = policy.DEFAULT,
    **parameters: Any,
) -> Result:
    """Verify `out = lax.conv_general_dilated(lhs, rhs, window_strides, padding, ...)`.

    Takes one to three spatial dimensions, and every parameter of `lax.conv_general_dilated` except
    `batch_group_count`; otherwise as `verify_dot_general`.
    """

    def product(a: Array, b: Array) -> Array:
        return lax.conv_general_dilated(
            a,
            b,
            window_strides,
            padding,
            **parameters,
        )

    return _verify(challenge, product, lhs, rhs, out, policy)


def _verify(
    challenge: Challenge,
    product: Callable[[Array, Array], Array],
    lhs: Operand,
    rhs: Operand,
    out: Any,
    policy: policy.Policy,
) -> Result:
    with jax.enable_x64(True):
        lhs, rhs, out = (x if isinstance(x, jax.Array) else np.asarray(x) for x in (lhs, rhs, out))
        form, shape = _contraction(product, lhs, rhs)
        form = form.in_blocks()
        for reason, have, want in (
            ("claim-shape", out.shape, shape.shape),
            ("claim-dtype", out.dtype, shape.dtype),
        ):
            if have != want:
                text = f"got {have}, the product has {want}"
                return Result(verdict=Verdict.REJECT, reason=reason, message=text)
        reached = freivalds.bound(policy.phi, form.tests, policy.draws)
        eps, limit = policy.eps_of(form), reached.limit
        g = jnp.asarray(freivalds.vectors(challenge, form.vectors(far_known=True), policy.draws))
        near, far = (jnp.asarray(x) for x in ((lhs, rhs), (rhs, lhs))[form.near])
        arrays = near, far, jnp.asarray(out), g
        statistic = _statistic(form, *arrays, eps, limit)
        if not form.exact and not (statistic.finite_claim and statistic.finite_operands):
            statistic = _statistic(form, *arrays, eps, limit, again=True)
        statistic = Statistic(*(np.asarray(x) for x in statistic))
    verdict, reason = judge(statistic, Product.mismatch)
    return Result(
        verdict=verdict,
        reason=reason,
        worst=float(statistic.worst),
        row=int(statistic.row),
        bound=reached,
        exact=form.exact,
    )


@functools.partial(jax.jit, static_argnums=0, static_argnames="again")
def _statistic(
    form: Contraction,
    near: Array,
    far: Array,
    out: Array,
    g: Array,
    eps: float,
    limit: float,
    *,
    again: bool = False,
) -> Statistic:
    """Project the far operand and test the claim, again if the first test found it not finite."""
    projection = freivalds.project(form, far, g, eps=eps)
    test = nonfinite.retest if again else freivalds.test
    return test(form, near, projection, out, g, eps=eps, limit=limit)


def _contraction(
    product: Callable[[Array, Array], Array], lhs: Operand, rhs: Operand
) -> tuple[Contraction, jax.ShapeDtypeStruct]:
    """The contraction that a function of two arrays computes, and the shape of its output."""
    types = f"{lhs.dtype}, {rhs.dtype}"
    if not {lhs.dtype.name, rhs.dtype.name} <= FLOATS | {"int8", "uint8"}:
        raise TypeError(f"no check for a contraction of {types}")
    try:
        function, shape = from_jax.trace(product, lhs, rhs)
    except TypeError as error:
        raise ValueError(f"operands of shapes {lhs.shape} and {rhs.shape}: {error}") from error
    [equation] = [e for e in function.block.equations if e.kind in CONTRACTIONS]
    form = contraction(equation)
    if form is None or len(function.block.equations) > 1:
        raise TypeError(
            f"no check for a contraction of {types} into {shape.dtype}: it may wrap, mixes types, "
            "is empty, or has parameters without a check (integers need "
            "preferred_element_type=int32)"
        )
    return form, shape
