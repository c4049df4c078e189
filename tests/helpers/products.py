"""Products, claims and statistics that the tests of Freivalds checks share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from verifiable import challenge
from verifiable.challenge import Beacon, Challenge, CommitmentLog
from verifiable.claims.products import freivalds
from verifiable.claims.products.standalone import verify_dot_general
from verifiable.claims.statistic import Statistic
from verifiable.field import F61, Field
from verifiable.report import Result, Verdict

SECRET = challenge.secret(bytes(range(32)))

Array = np.ndarray


def public_challenge() -> Challenge:
    log = CommitmentLog()
    log.append(bytes(32))
    closed = log.close(chain="drand", closed_at=1)
    beacon = Beacon(chain="drand", round=2, value=bytes(32))
    return challenge.public(
        closed, beacon, program=bytes(32), policy=bytes(32), parameters=bytes(32)
    )


def statistics_of(
    form: Any, *, eps: float, limit: float, field: Field = F61
) -> Callable[..., Statistic]:
    """`(near, far, claims, gs)` to the statistic of each claim under each set of vectors."""

    def one(near: Any, far: Any, claim: Any, g: Any) -> Statistic:
        projection = freivalds.project(form, far, g, eps=eps, field=field)
        return freivalds.test(form, near, projection, claim, g, eps=eps, limit=limit, field=field)

    over_claims = jax.vmap(one, in_axes=(None, None, 0, None))
    compiled = jax.jit(jax.vmap(over_claims, in_axes=(None, None, None, 0)))

    def run(near: Array, far: Array, claims: Any, gs: Any) -> Statistic:
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, compiled(near, far, np.stack(claims), np.stack(gs)))

    return run


def integers(shape: tuple[int, int], dtype: str, seed: int) -> Array:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


def exact_product(a: Array, b: Array) -> Array:
    return (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)


def verify(a: Array, b: Array, claim: Any, made: Challenge = SECRET, **parameters: Any) -> Result:
    """A matrix product, into int32 or into at least single precision."""
    kinds = {"int8": np.int32, "uint8": np.int32, "float64": np.float64}
    out = kinds.get(a.dtype.name, np.float32)
    return verify_dot_general(made, a, b, claim, preferred_element_type=out, **parameters)


def assert_rejected(result: Any, reason: str = "claim-mismatch") -> None:
    assert result.verdict is Verdict.REJECT, result
    assert result.reason == reason, result
    assert result.worst > 1


def assert_accepted(result: Any) -> None:
    assert result.verdict is Verdict.ACCEPT, result
    assert (result.reason, result.message) == ("ok", "")
    assert result.worst <= 1


def assert_undecided(result: Any) -> None:
    assert (result.verdict, result.reason) == (Verdict.INDETERMINATE, "nonfinite-operand")


def added(position: tuple[int, ...], value: Any) -> Callable[[Array], Array]:
    def tamper(claim: Array) -> Array:
        claim = claim.copy()
        claim[position] = (claim[position].astype(np.int64) + value).astype(claim.dtype)
        return claim

    return tamper


LONG = 70_000


@functools.cache
def long_product() -> tuple[Array, Array, Array]:
    """A product with accumulators beyond 2^30, so that a change of 2^31 stays in range."""
    a, b = np.full((2, LONG), -128, np.int8), np.full((LONG, 2), -128, np.int8)
    a[1, : LONG // 3] = 127
    b[: LONG // 5, 1] = 127
    return a, b, exact_product(a, b)


def weights_of(b: Array) -> Array:
    """w_j = 1 / max(||B_:j||, 2^-12 max_j ||B_:j||), from the text; (batch, columns)."""
    norms = np.sqrt((b.astype(np.float64) ** 2).sum(1))
    return 1 / np.maximum(norms, 2.0**-12 * norms.max())


def scale(a: Array, b: Array, c: Array) -> Array:
    """s_i, (batch, rows)."""
    a, b, c = (x.astype(np.float64) for x in (a, b, c))
    w = weights_of(b)[:, None]
    variances = ((b * w) ** 2).sum(-1, keepdims=True)
    return np.sqrt((a**2 @ variances)[..., 0] + ((c * w) ** 2).sum(-1))


def ratios(a: Array, b: Array, c: Array, g: Array, eps: float, limit: float) -> Array:
    """Each row's statistic as a fraction of its limit, without floors; (batch, rows)."""
    delta = c.astype(np.float64) - a.astype(np.float64) @ b.astype(np.float64)
    rho = (delta * weights_of(b)[:, None]) @ g
    norms = np.sqrt((rho**2).sum(-1) / limit)
    # A row of zeros whose claim is zero has nothing to compare.
    return np.divide(norms, eps * scale(a, b, c), out=np.zeros_like(norms), where=norms > 0)


ROWS, INNER, COLUMNS = 6, 40, 24

SIZES = {"float32": 1e-3, "bfloat16": 1.0, "float16": 0.3, "float64": 1e-10}


@functools.cache
def float_product(dtype: str) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(5)
    a, b = (rng.standard_normal(s).astype(dtype) for s in ((ROWS, INNER), (INNER, COLUMNS)))
    out = np.float64 if dtype == "float64" else np.float32
    return a, b, (a.astype(np.float64) @ b.astype(np.float64)).astype(out)


def moved(change: Callable[[Array, float], None]) -> Callable[[Array, float], Array]:
    def tamper(claim: Array, size: float) -> Array:
        claim = claim.copy()
        change(claim, size)
        return claim

    return tamper


def put(position: Any, values: Any) -> Callable[[Array, float], Array]:
    def change(claim: Array, size: float) -> None:
        claim[position] += size * np.asarray(values)

    return moved(change)
