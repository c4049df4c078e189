"""Devices that add up in float16 or bfloat16: how far they are off, and what they may do."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax

from verifiable import challenge, policy, program
from verifiable.claims.form import Yardstick
from verifiable.claims.products.standalone import verify_dot_general
from verifiable.claims.roundings.rounding import Rounding
from verifiable.policy import NarrowSum, Policy
from verifiable.report import Verdict

pytestmark = pytest.mark.optimised(verifier=False)

BF16, F16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16), np.dtype(np.float32)
UNIT = {BF16: 2.0**-8, F16: 2.0**-11}
SECRET = challenge.secret(bytes(range(32)))


def operands(terms: int, dtype: Any, rows: int = 8, columns: int = 24) -> tuple[Any, Any]:
    rng = np.random.default_rng(terms)
    a = rng.standard_normal((rows, terms))
    b = rng.standard_normal((terms, columns)) / np.sqrt(terms)
    return a.astype(dtype), b.astype(dtype)


def added_up(a: Any, b: Any, dtype: Any, lanes: int = 1) -> Any:
    """`a @ b` whose every product and sum is rounded to a type, in some lanes at a time."""
    total = np.zeros((lanes, len(a), b.shape[1]), dtype)
    for k in range(0, a.shape[1], lanes):
        pairs = zip(a.T[k : k + lanes], b[k : k + lanes], strict=True)
        terms = np.stack([np.multiply.outer(x, y) for x, y in pairs])
        total = (total + terms.astype(dtype)).astype(dtype)
    while len(total) > 1:
        total = (total[::2] + total[1::2]).astype(dtype)
    return total[0]


DEVICES = [
    (dtype, terms, lanes)
    for dtype in (BF16, F16)
    for terms, lanes in ((64, 1), (1024, 1), (1024, 8), (16384, 1))
]


@pytest.mark.parametrize(("dtype", "terms", "lanes"), DEVICES, ids=str)
def test_a_narrow_accumulator_reaches_at_most_half_of_the_limit(dtype: Any, terms: int, lanes: int):
    a, b = operands(terms, dtype)
    found = verify_dot_general(SECRET, a, b, added_up(a, b, dtype, lanes))
    assert found.verdict is Verdict.ACCEPT
    assert found.worst <= 0.5


@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_a_wider_output_asks_for_a_wider_accumulator(dtype: Any):
    """Cheat: sums in a narrow type where the program says `preferred_element_type`."""
    a, b = operands(16384, dtype)
    wide = verify_dot_general(
        SECRET,
        a,
        b,
        added_up(a, b, dtype).astype(np.float32),
        preferred_element_type=np.float32,
    )
    assert (wide.verdict, wide.reason) == (Verdict.REJECT, "claim-mismatch")


def test_the_tolerance_grows_like_the_root_of_the_length_up_to_the_longest():
    class Tested:
        eps_types = ("bfloat16",)
        narrow_sums = ()

        def __init__(self, *sums: NarrowSum):
            self.own_sums = sums
            self.decisive = 0

    p = Policy(narrow_sum=0.5)
    assert p.eps_of(Tested()) == 2.0**-6
    assert p.eps_of(Tested(NarrowSum("bfloat16", 16))) == 2.0**-6  # the type's own
    assert p.eps_of(Tested(NarrowSum("bfloat16", 1024))) == 2.0**-4
    assert p.eps_of(Tested(NarrowSum("float16", 2**12))) == 2.0**-6
    assert p.eps_of(Tested(NarrowSum("bfloat16", 2**14))) == 2.0**-2
    assert p.eps_of(Tested(NarrowSum("bfloat16", 2**20))) == 2.0**-2


WIDTH, ROWS = 256, 64
RNG = np.random.default_rng(3)
X = RNG.standard_normal((ROWS, WIDTH)).astype(BF16)
PARAMS = {
    "few": (RNG.standard_normal((WIDTH, 4)) / 16).astype(BF16),
    "kernel": (RNG.standard_normal((9, 1, WIDTH)) / 3).astype(BF16),
    "square": (RNG.standard_normal((WIDTH, WIDTH)) / 16).astype(np.float32),
    "out": RNG.standard_normal((4, 512)).astype(np.float32),
}
REPLAYED = policy.DEFAULT.narrow_replayed * 2.0**-8


def replayed(p: Any, x: Any) -> Any:
    """A product of four columns, which is not worth a claim, and a wide one after it."""
    few = lax.dot(x, p["few"]).astype(jnp.float32)
    return jnp.tanh(few), jnp.tanh(jnp.tile(few, 64)) @ p["square"]


def test_what_follows_a_replayed_narrow_sum_is_widened():
    compiled = program.compile(replayed, PARAMS, X)
    [wide] = compiled.claims
    assert wide.narrow_sums == {NarrowSum("bfloat16", WIDTH)}
    assert compiled.tolerances[wide.name] == REPLAYED * 16
    assert compiled.tolerances["output[0]"] == REPLAYED * 16
    # A claim is exact: nothing after it remembers what was added up before.
    assert compiled.tolerances["output[1]"] == dict(policy.DEFAULT.output_eps)["float32"]


def test_a_replayed_narrow_convolution_widens_the_rounding_after_it():
    def fn(p: Any, x: Any) -> Any:
        y = lax.conv_general_dilated(
            x[None],
            p["kernel"],
            (1,),
            "SAME",
            feature_group_count=WIDTH,
            dimension_numbers=("NHC", "HIO", "NHC"),
        )
        return y[0] @ p["square"].astype(BF16)

    compiled = program.compile(fn, PARAMS, X)
    rounding, product = compiled.claims
    assert (rounding.primitive, rounding.form.steps) == ("conv_general_dilated", ())
    assert compiled.tolerances[rounding.name] == REPLAYED * 3
    assert not product.narrow_sums
    assert product.own_sums == {NarrowSum("bfloat16", WIDTH)}


def test_a_device_that_adds_up_a_replayed_product_narrowly_is_accepted():
    compiled = program.compile(replayed, PARAMS, X)
    key = compiled.setup(PARAMS, SECRET)
    few = added_up(X, PARAMS["few"], BF16).astype(np.float32)
    claim = np.tanh(np.tile(few, 64)) @ PARAMS["square"]
    report = compiled.check(key, X, y=(np.tanh(few), claim), trace=(claim,))
    assert report.verdict is Verdict.ACCEPT, report
    assert report.results[0].worst <= 0.5
    other = np.tanh(np.tile(-few, 64)) @ PARAMS["square"]
    wrong = compiled.check(key, X, y=(np.tanh(few), other), trace=(other,))
    assert (wrong.verdict, wrong.reason) == (Verdict.REJECT, "claim-mismatch")


# ----------------------------------------------------------------------------- additions in a row

LAYERS = 12
STREAM = {
    "layers": (RNG.standard_normal((LAYERS, 64, 64)) / 8).astype(BF16),
    "head": (RNG.standard_normal((64, 64)) / 8).astype(BF16),
}
TOKENS = RNG.standard_normal((32, 64)).astype(BF16)


def normed(x: Any) -> Any:
    wide = x.astype(jnp.float32)
    return (wide / jnp.sqrt((wide * wide).mean(-1, keepdims=True) + 1e-5)).astype(BF16)


def layer(x: Any, w: Any) -> Any:
    return x + normed(x) @ w


def unrolled(p: Any, x: Any) -> Any:
    for w in p["layers"]:
        x = layer(x, w)
    return normed(x) @ p["head"]


def scanned(p: Any, x: Any) -> Any:
    x, _ = lax.scan(lambda x, w: (layer(x, w), None), x, p["layers"])
    return normed(x) @ p["head"]


@pytest.mark.parametrize("fn", [unrolled, scanned])
def test_additions_in_a_narrow_type_count_as_one_sum(fn: Any):
    compiled = program.compile(fn, STREAM, TOKENS)
    *_, rounding, head = compiled.claims
    [stream] = rounding.narrow_sums
    assert not head.narrow_sums
    assert stream.dtype == "bfloat16"
    assert LAYERS + 1 <= stream.terms <= LAYERS + 4
    assert compiled.tolerances[rounding.name] == REPLAYED * np.sqrt(stream.terms)
    # The first layers, and sums in float32, keep the tolerance of their types.
    wide = program.compile(fn, STREAM, TOKENS.astype(np.float32))
    assert not any(c.narrow_sums for c in wide.claims)


def test_a_device_that_keeps_float32_between_additions_is_accepted():
    """The stream of a program with 60 additions, each rounded to bfloat16 or none of them."""
    terms = RNG.standard_normal((61, 64, 512)).astype(BF16).astype(np.float32)
    rounded, kept = terms[0], terms[0]
    for term in terms[1:]:
        rounded = (rounded + term).astype(BF16).astype(np.float32)
        kept = kept + term
    size = np.abs(rounded) + np.sqrt((rounded**2).mean(-1, keepdims=True))
    deviation = (np.abs(kept - rounded) / size).max()
    own = dict(policy.DEFAULT.eps)["bfloat16"]
    assert own < deviation < 0.8 * REPLAYED * np.sqrt(61)


def test_a_sum_that_starts_anew_in_every_iteration_does_not_grow():
    def fn(p: Any, x: Any) -> Any:
        def step(x: Any, w: Any) -> Any:
            few = lax.dot(x, w[:, :2])  # not worth a claim
            return jnp.tanh(jnp.tile(few, 32)), None

        x, _ = lax.scan(step, x, p["layers"])
        return normed(x) @ p["head"]

    compiled = program.compile(fn, STREAM, TOKENS)
    assert compiled.claims[0].narrow_sums == {NarrowSum("bfloat16", 64)}


# --------------------------------------------------------------------------- rows as wholes


def attended(w: Any, x: Any) -> Any:
    """Attention in bfloat16, whose replayed sum over all tokens a device may add up narrowly."""
    q, k, v = ((x @ w[n]).reshape(64, 2, 32) for n in range(3))
    weights = jnp.exp(jnp.tanh(jnp.einsum("thd,shd->hts", q, k).astype(jnp.float32)))
    weights = (weights / weights.sum(-1, keepdims=True)).astype(BF16)
    return jnp.einsum("hts,shd->htd", weights, v).transpose(1, 0, 2).reshape(64, 64) @ w[3]


@functools.cache
def attention() -> Any:
    """Program, parameters, input, key and an honest run."""
    w = (RNG.standard_normal((4, 64, 64)) / 8).astype(BF16)
    x = RNG.standard_normal((64, 64)).astype(BF16)
    made = program.compile(attended, w, x, self_test=False)
    return made, w, x, made.setup(w, SECRET), jax.device_get(jax.jit(made.execute)(w, x))


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_shrinking_every_attention_output_is_not_accepted(share: float):
    """Cheat: each element is moved by a share of its slack, towards zero."""
    made, w, x, key, (y, trace) = attention()
    assert made.check(key, x, y=y, trace=trace).worst < 0.25
    [place] = [c.index for c in made.claims if c.form.rows_too and c.shape == (2, 64, 32)]
    claim, values = made.claims[place], list(trace.values)
    eps = made.tolerances[claim.name]
    out = values[place].astype(np.float32)
    room = eps * (np.abs(out) + np.sqrt(np.square(out).mean(-1, keepdims=True)))
    values[place] = (out - share * np.sign(out) * room).astype(BF16)
    joined = values[place].transpose(1, 0, 2).reshape(64, 64)
    y = values[-1] = np.asarray(jnp.asarray(joined) @ w[3])
    report = made.check(key, x, y=y, trace=values)
    assert report.results[place].worst > 3 * share
    assert report.verdict is not Verdict.ACCEPT
    assert report.results[place].reason in ("rounding-mismatch", "ill-conditioned")


@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
@pytest.mark.parametrize(("terms", "lanes"), [(64, 1), (512, 1), (512, 8), (4096, 1)])
def test_rows_added_up_narrowly_reach_half_of_the_limit(dtype: Any, terms: int, lanes: int):
    rng = np.random.default_rng(terms)
    a = np.exp(rng.standard_normal((8, terms)))
    a = (a / a.sum(-1, keepdims=True)).astype(dtype)
    b = rng.standard_normal((terms, 24)).astype(dtype)
    value = a.astype(np.float32) @ b.astype(np.float32)
    form = Rounding(steps=(), source=dtype, dtype=dtype)
    eps = policy.DEFAULT.narrow_replayed * UNIT[dtype] * np.sqrt(terms)
    given = Yardstick(eps=eps)
    with jax.enable_x64(True):
        found = form.test([jnp.asarray(value)], jnp.asarray(added_up(a, b, dtype, lanes)), given)
        assert float(found.worst) <= 0.5
        room = np.asarray(form.slack(jnp.asarray(value), eps))
        moved = jnp.asarray(value - 0.4 * np.sign(value) * room, dtype)
        assert not form.test([jnp.asarray(value)], moved, given).passed
