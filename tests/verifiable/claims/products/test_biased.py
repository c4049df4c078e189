"""Sums of a product and a bias as claims: which they are, what is committed, and the cheats."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.accusations import against
from verifiable import challenge, program, trace
from verifiable.check.judging.evidence import verify_evidence
from verifiable.claims.products import float32_test, freivalds
from verifiable.claims.products.biased import BiasedProduct
from verifiable.claims.products.product import Product
from verifiable.claims.roundings.rounding import Rounding
from verifiable.policy import Policy
from verifiable.report import Report, Verdict
from verifiable.submission import Submission

ROWS, WIDTH = 24, 96
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((2, ROWS, WIDTH)), jnp.bfloat16)
PARAMS = {
    "w": jnp.asarray(RNG.standard_normal((WIDTH, WIDTH)) / 8, jnp.bfloat16),
    "b": jnp.asarray(RNG.standard_normal(WIDTH), jnp.float32),
}
POLICY = Policy(draws=4)  # with few draws, products of this size are worth a claim
STRUCTS = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (PARAMS, X))


def product(a: Any, b: Any) -> Any:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def layers(p: Any, x: Any) -> Any:
    hidden = (product(x, p["w"]) + p["b"]).astype(jnp.bfloat16)
    return product(jnp.tanh(hidden), p["w"])


def masked(b: Any) -> Any:
    return jnp.where(jnp.arange(WIDTH) < 4, -1e9, b)


def compiled(fn: Any) -> program.Program:
    return program.compile(fn, *STRUCTS, policy=POLICY, self_test=False)


def kinds(fn: Any) -> list[type]:
    return [type(c.form) for c in compiled(fn).claims]


class Run:
    """An honest run of `layers`, and reports on it with another committed sum."""

    def __init__(self, params: Any):
        self.program, self.params = compiled(layers), params
        self.key = self.program.setup(params, challenge.secret(bytes(range(32))))
        y, found = jax.jit(self.program.execute)(params, X)
        self.y, (self.sums, *self.rest) = jax.device_get((y, found.values))

    @functools.cached_property
    def scale(self) -> tuple[Any, Any]:
        """sigma of each row and w of each column."""
        claim = self.program.claims[0]
        eps = POLICY.eps_of(claim, claim.name)
        with jax.enable_x64(True):
            room: Any = claim.form.room([X, self.params["b"]], self.params["w"], self.sums, eps)
        return np.asarray(room.sigma), np.asarray(room.weights)[0]

    def check(self, sums: Any) -> Report:
        """A device that commits to other sums, and computes the rest from them as it should."""
        hidden = jnp.tanh(jnp.asarray(sums, jnp.float32).astype(jnp.bfloat16))
        y = jax.device_get(product(hidden, self.params["w"]))
        found = trace.Trace(values=(sums, np.asarray(hidden), y))
        return self.program.check(self.key, X, y=y, trace=found)


@functools.cache
def honest() -> Run:
    return Run(PARAMS)


def test_a_sum_before_a_narrowing_is_committed_in_place_of_product_and_rounding():
    run = honest()
    assert [type(c.form) for c in run.program.claims] == [BiasedProduct, Rounding, Product]
    assert [v.dtype.name for v in (run.sums, *run.rest)] == ["float32", "bfloat16", "float32"]
    assert np.array_equal(run.y, np.asarray(jax.jit(layers)(PARAMS, X)))
    assert np.allclose(run.sums, product(X, PARAMS["w"]) + PARAMS["b"], atol=1e-4)


def test_honest_runs_pass_compiled_and_op_by_op():
    run = honest()
    compiled_run = run.y, trace.Trace(values=(run.sums, *run.rest))
    with jax.disable_jit():
        op_by_op = run.program.execute(PARAMS, X)
    for y, found in (compiled_run, op_by_op):
        report = run.program.check(run.key, X, y=y, trace=found)
        assert report.verdict is Verdict.ACCEPT
        assert max(c.worst for c in report.results[:-1]) < 0.3


@pytest.mark.parametrize(
    "fn",
    [
        lambda p, x: product((s := product(x, p["w"]) + p["b"]).astype(jnp.bfloat16), p["w"]) + s,
        lambda p, x: product((c := product(x, p["w"])) * 0 + (c + p["b"]), p["w"]),
        lambda p, x: product((product(x, p["w"]) + x).astype(jnp.bfloat16), p["w"]),
        lambda p, x: product((product(x, p["w"]) + masked(p["b"])).astype(jnp.bfloat16), p["w"]),
        lambda p, x: product(jnp.tanh(product(x, p["w"]) + p["b"]).astype(jnp.bfloat16), p["w"]),
        lambda p, x: (
            product(
                jax.lax.cond(
                    x[0, 0, 0] > 0, lambda c: (c + p["b"]).astype(jnp.bfloat16), lambda _: x, c
                ),
                p["w"],
            )
            if (c := product(x, p["w"])) is not None
            else None
        ),
        lambda p, x: product((product(p["w"], x[0].T) + p["b"][:ROWS]).astype(jnp.bfloat16), x[0]),
    ],
    ids=[
        "sum-read-twice",
        "product-read-twice",
        "no-bias",
        "mask",
        "activated",
        "branch",
        "by-columns",
    ],
)
def test_other_sums_are_no_claims(fn: Any):
    assert BiasedProduct not in kinds(fn)


def test_a_row_that_is_wrong_by_sixteen_units_is_rejected():
    run = honest()
    sigma, weights = run.scale
    for kappa, verdict in ((0.9, Verdict.ACCEPT), (32.0, Verdict.REJECT)):
        direction = np.random.default_rng(1).standard_normal(WIDTH)
        direction /= np.linalg.norm(direction)
        sums = run.sums.astype(np.float64)
        sums[1, 3] += kappa * sigma.reshape(2, ROWS)[1, 3] * direction / weights
        report = run.check(sums.astype(np.float32))
        assert report.verdict is verdict
        if verdict is Verdict.REJECT:
            assert (report.reason, report.results[0].row) == ("claim-mismatch", ROWS + 3)


@pytest.mark.parametrize("cheat", ["no bias", "bias twice", "one step", "int8 weights", "NaN"])
def test_cheats_are_rejected(cheat: str):
    run = honest()
    sums = np.array(run.sums)
    if cheat == "no bias":
        sums -= np.asarray(PARAMS["b"])
    elif cheat == "bias twice":
        sums += np.asarray(PARAMS["b"])
    elif cheat == "one step":  # of bfloat16, in one element
        sums[0, 5, 7] *= 1 + 2.0**-7
    elif cheat == "NaN":
        sums[0, 5, 7] = np.nan
    else:
        scale = np.abs(np.asarray(PARAMS["w"], np.float32)).max(0) / 127
        small = np.rint(np.asarray(PARAMS["w"], np.float32) / scale) * scale
        sums = np.asarray(X, np.float32) @ small + np.asarray(PARAMS["b"])
    report = run.check(sums)
    assert report.verdict is Verdict.REJECT
    assert report.results[0].reason == ("claim-nonfinite" if cheat == "NaN" else "claim-mismatch")


@pytest.mark.parametrize("size", [1e6, 3e38])
def test_a_bias_far_larger_than_the_product_may_round_it_away(size: float):
    """The sum loses digits of the product on every device; sigma of the product has no room."""
    run = Run({**PARAMS, "b": PARAMS["b"] * 0 + size})
    assert run.check(run.sums).results[0].reason == "ok"
    # Truncation instead of the nearest: one number lower, wherever that is not the sum itself.
    exact = np.asarray(X, np.float64) @ np.asarray(PARAMS["w"], np.float64) + size
    lower = np.where(run.sums > exact, np.nextafter(run.sums, np.float32(0)), run.sums)
    assert run.check(lower).results[0].reason == "ok"
    wrong = np.array(run.sums)
    wrong[0, 5, 7] = np.nextafter(np.float32(size), np.float32(0)) * (1 - 2.0**-12)
    assert run.check(wrong).results[0].reason == "claim-mismatch"


@pytest.mark.parametrize("count", [1, WIDTH - 4])
@pytest.mark.parametrize("size", [1e6, -1e9, 3e38])
def test_columns_with_a_massive_bias_give_no_room_to_the_others(size: float, count: int):
    """What a massive sum may lose, all other columns could be moved by."""
    run = Run({**PARAMS, "b": PARAMS["b"].at[:count].set(size)})
    wrong = np.array(run.sums)
    wrong[..., count:] += np.asarray(PARAMS["b"])[count:] / 64
    for sums in (run.sums, wrong):
        report = run.check(sums)
        assert report.results[0].reason == "nonfinite-operand"
        assert report.verdict is Verdict.INDETERMINATE
    wrong[..., count:] += np.float32(abs(size) / 2**8)
    assert run.check(wrong).verdict is Verdict.REJECT


def test_a_column_with_a_large_bias_is_rounded_within_the_room_of_the_product():
    run = Run({**PARAMS, "b": PARAMS["b"].at[3].set(-1e4)})
    assert run.check(run.sums).verdict is Verdict.ACCEPT


@pytest.mark.parametrize("size", [0.1, 3.0, 30.0, 1e3, 1e6])
def test_float32_finds_of_a_sum_what_float64_finds_whatever_the_size_of_the_bias(size: float):
    """S r - b r by itself would be off by many times sigma where b is massive."""
    claim = compiled(layers).claims[0]
    maps, eps = claim.form.contraction, POLICY.eps_of(claim, claim.name)
    assert maps is not None
    bias = np.float32(size) * np.asarray(PARAMS["b"])
    with jax.enable_x64(True):
        sums = jnp.asarray(product(X, PARAMS["w"]) + bias)
        g = jnp.asarray(RNG.standard_normal((WIDTH, 16)), jnp.float32)
        projection = freivalds.project(maps, PARAMS["w"], g, eps=eps)._replace(bias=bias)
        found = []
        for given in (projection, float32_test.narrowed(maps, projection)):
            applied = freivalds.apply(maps, X, given)
            rho, _, sigma, _ = freivalds.deviations(maps, applied, given, sums, g, eps)
            found.append(np.asarray(rho / sigma[..., None], np.float64))
    assert rho.dtype == jnp.float32
    assert np.max(np.abs(found[0])) < 1
    assert np.max(np.abs(found[1] - found[0])) < 0.25


def test_rows_of_zeros_are_their_bias():
    """They have no tolerance of a product, and no device rounds what it adds to zero."""
    run = Run(PARAMS)
    given, bias = X.at[0].set(0), np.asarray(PARAMS["b"])
    for size, verdict in ((0, Verdict.ACCEPT), (2.0**-22, Verdict.REJECT)):
        y, found = jax.jit(run.program.execute)(PARAMS, given)
        sums = np.array(found.values[0])
        assert (sums[0] == bias).all()
        sums[0, 3] *= 1 + size
        found = trace.Trace(values=(sums, *found.values[1:]))
        report = run.program.check(run.key, given, y=y, trace=found)
        assert report.verdict is verdict


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bias_that_is_no_number_decides_nothing(bad: float):
    run = Run({**PARAMS, "b": PARAMS["b"].at[3].set(bad)})
    report = run.program.check(run.key, X, y=run.y, trace=trace.Trace(values=(run.sums, *run.rest)))
    assert report.results[0].reason == "nonfinite-operand"
    # Not even that NaN is all that infinite operands could lead to.
    none = trace.Trace(values=(jnp.full_like(run.sums, jnp.nan), *run.rest))
    report = run.program.check(run.key, jnp.full_like(X, jnp.inf), y=run.y, trace=none)
    assert report.results[0].reason == "nonfinite-operand"


def test_anybody_can_judge_a_sum():
    run = honest()
    wrong = np.array(run.sums)
    wrong[0, 5] -= np.asarray(PARAMS["b"])
    for sums, guilty in ((run.sums, False), (wrong, True)):
        found = trace.Trace(values=(sums, *run.rest))
        sent = Submission(
            y=run.y,
            trace=found,
            commitment=trace.commit(run.y, found).commitment,
            program=run.program.id,
            parameters=program.parameter_root(PARAMS),
        )
        evidence = against(run.program, sent, index=0, row=5)
        assert verify_evidence(evidence, run.program, PARAMS, X).guilty is guilty
