"""Rounding claims: one element against a slow oracle, whole programs, and the cheats."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import qwix
from flax import linen as nn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax

from verifiable import challenge, program
from verifiable.claims.form import Yardstick
from verifiable.claims.products.product import Product
from verifiable.claims.roundings.rounding import Rounding
from verifiable.claims.roundings.steps import RoundingStep
from verifiable.report import Verdict

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
BF16, F16, I8 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16), np.dtype(np.int8)

# ------------------------------------------------------------------------ one element, by oracle


def oracle(steps: tuple[RoundingStep, ...], x: float) -> float:
    """The chain on one number, from the definitions, in double precision."""
    for step in steps:
        if step.kind == "narrow":
            with np.errstate(over="ignore"):
                x = float(np.asarray(x, np.float64).astype(step.dtype))
        elif step.kind == "round":
            x = float(round(x))  # to even
        elif step.kind in ("floor", "ceil"):
            x = float(getattr(math, step.kind)(x))
        elif step.kind == "clamp":
            x = min(max(x, step.low), step.high)
        else:
            info = np.iinfo(step.dtype)
            x = float(min(max(int(x), info.min), info.max))
    return x


def narrow(dtype: Any) -> RoundingStep:
    return RoundingStep(kind="narrow", dtype=dtype)


ROUND, FLOOR, CEIL = (RoundingStep(kind=k) for k in ("round", "floor", "ceil"))
CLIP, RELU = RoundingStep(kind="clamp", low=-127, high=127), RoundingStep(kind="clamp", low=0.0)
CAST, TRUNCATE = RoundingStep(kind="cast", dtype=I8), RoundingStep(kind="truncate", dtype=I8)
CHAINS = {
    "bfloat16": Rounding(steps=(narrow(BF16),), source=F32, dtype=BF16),
    "relu of bfloat16": Rounding(steps=(narrow(BF16), RELU), source=F32, dtype=BF16),
    "float16": Rounding(steps=(narrow(F16),), source=F32, dtype=F16),
    "float32": Rounding(steps=(narrow(F32),), source=F64, dtype=F32),
    "int8": Rounding(steps=(ROUND, CLIP, CAST), source=F32, dtype=I8),
    "int8, clipped first": Rounding(steps=(CLIP, ROUND, CAST), source=F32, dtype=I8),
    "int8, saturating": Rounding(steps=(ROUND, CAST), source=F32, dtype=I8),
    "int8, truncated": Rounding(steps=(TRUNCATE,), source=F32, dtype=I8),
    "int8, floor": Rounding(steps=(FLOOR, CLIP, CAST), source=F32, dtype=I8),
    "integral floats": Rounding(steps=(ROUND,), source=F32, dtype=F32),
    "ceil": Rounding(steps=(CEIL,), source=F32, dtype=F32),
    "relu of a floor": Rounding(steps=(FLOOR, RELU), source=F32, dtype=F32),
}


@functools.cache
def judged(name: str) -> Callable[..., Any]:
    form = CHAINS[name]

    def one(v: Any, q: Any, eps: Any) -> Any:
        with jax.enable_x64(True):
            s = form.test([v], q, Yardstick(eps=eps))
            return s, form.slack(v.astype(form.wide), eps)

    with jax.enable_x64(True):
        return jax.jit(one)


def worst_of(name: str, value: Any, claim: Any, eps: float) -> tuple[float, float]:
    """The statistic of one element alone in its row, and its slack."""
    form = CHAINS[name]
    with jax.enable_x64(True):
        v = jnp.asarray(np.asarray([value], form.source))
        q = jnp.asarray(np.asarray([claim]).astype(form.dtype))
        found, slack = judged(name)(v, q, eps)
    return float(found.worst), float(slack[0])


halves = st.integers(-300, 300).map(lambda n: n / 2)
values = st.one_of(
    halves, st.floats(-200, 200, width=32), st.floats(-70000, 70000, width=32), st.just(0.0)
)


@pytest.mark.parametrize("name", CHAINS)
@given(values, st.sampled_from([2.0**-16, 2.0**-6]), st.floats(-4, 4), st.integers(-2, 2))
@settings(max_examples=40, deadline=None)
def test_a_claim_passes_iff_a_value_within_the_slack_rounds_to_it(
    name: str, value: float, eps: float, offset: float, steps: int
):
    """Up to a thousandth of the slack, and to ties, where either neighbour will do."""
    form = CHAINS[name]
    value = float(np.asarray(value, form.source))
    claim = oracle(form.steps, value + offset * eps * 2 * abs(value))
    if form.dtype.kind != "f" and form.dtype != BF16:
        claim = float(np.clip(claim + steps, -128, 127))
    worst, slack = worst_of(name, value, claim, eps)
    inner = [oracle(form.steps, value + s * 0.999 * slack) for s in (-1, 1)]
    outer = [oracle(form.steps, value + s * (1.001 * slack + 1e-30)) for s in (-1, 1)]
    with np.errstate(over="ignore"):
        claim = float(np.asarray(claim).astype(form.dtype))
    reachable = oracle(form.steps[-1:], claim) == claim and oracle(form.steps, claim) == claim
    if inner[0] <= claim <= inner[1] and reachable:
        assert worst <= 1
    if not outer[0] <= claim <= outer[1]:
        assert worst > 1


@functools.cache
def extremes_of(name: str) -> Callable[..., Any]:
    """What the rounding gives at the ends of a little less than the slack, and in its middle."""
    form = CHAINS[name]

    def one(v: Any, eps: Any) -> Any:
        step = jnp.nextafter(jnp.abs(v), jnp.inf) - jnp.abs(v)
        # Not less where the machine would take the slack for zero.
        slack = jnp.maximum(form.slack(v, eps) * 0.999 - step, jnp.finfo(v.dtype).tiny)
        low, high = form.extremes(v, slack)
        return low, form.forward(v), high

    with jax.enable_x64(True):
        return jax.jit(one)


@pytest.mark.parametrize("name", CHAINS)
@given(values, st.sampled_from([2.0**-20, 2.0**-8]))
@example(8e-41, 2.0**-20)
@example(30238.94140625, 2.0**-20)
@example(1.2062319727670988e-38, 2.0**-20)
@settings(max_examples=25, deadline=None)
def test_the_extremes_pass_and_hold_the_rounding_between_them(name: str, value: float, eps: float):
    form = CHAINS[name]
    with jax.enable_x64(True):
        v = np.asarray([value], form.source).astype(form.wide)
        low, own, high = (float(x[0]) for x in extremes_of(name)(v, eps))
    assert low <= own <= high
    # Up to twice the smallest normal number, an end is one that machines flush to zero.
    most = 2 if 2.0**-126 <= abs(value) < 2.0**-125 else 1
    assert all(worst_of(name, value, end, eps)[0] <= most for end in (low, own, high))


@pytest.mark.parametrize("name", CHAINS)
def test_the_rounding_itself_has_distance_zero(name: str):
    form = CHAINS[name]
    for x in (*np.linspace(-140, 140, 57), 0.5, -0.5, 1.5, 2.5, 126.5, 127.5, 1e-30, -1e-30):
        value = float(np.asarray(x, form.source))
        assert worst_of(name, value, oracle(form.steps, value), 2.0**-16)[0] == 0


def test_overflow_of_a_narrow_type_is_its_rounding():
    for value, claim, passes in (
        (65519.0, 65504.0, True),
        (65519.0, np.inf, True),  # within the slack of the middle
        (65000.0, np.inf, False),
        (70000.0, np.inf, True),
        (70000.0, -np.inf, False),
        (-70000.0, -np.inf, True),
        (3.0, np.nan, False),
    ):
        worst, _ = worst_of("float16", value, claim, 2.0**-12)
        assert (worst <= 1) == passes, (value, claim, worst)


def test_small_numbers_of_float16_are_held_to_their_size():
    """Cheat: attention to one of 16,384 tokens, whose probability no other token makes up for.

    Every device keeps the subnormal numbers of float16: only their last digit is free.
    """
    share = 2.0**-14
    for claim, passes in ((share, True), (share * 1.003, True), (share / 2, False), (0.0, False)):
        assert (worst_of("float16", share, claim, 2.0**-8)[0] <= 1) == passes
    assert worst_of("bfloat16", 2.0**-127, 0.0, 2.0**-6)[0] <= 1  # flushed


def test_a_value_that_is_not_finite_shows_nothing():
    form = CHAINS["int8"]
    v = np.asarray([[np.nan, 1.0], [2.0, 3.0]], np.float32)
    for claim, passed in ([[0, 99], [2, 3]], True), ([[0, 1], [2, 99]], False):
        with jax.enable_x64(True):
            s = form.test([jnp.asarray(v)], jnp.asarray(claim, jnp.int8), Yardstick(eps=2.0**-16))
        assert not s.finite_operands
        assert bool(s.passed) == passed


# -------------------------------------------------------------------------------- whole programs

WIDTH, ROWS = 96, 64
RNG = np.random.default_rng(0)
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)


def quantised(*shape: int) -> dict[str, Any]:
    w = RNG.standard_normal(shape).astype(np.float32)
    scale = np.abs(w).max(0, keepdims=True) / 127
    return {"q": np.round(w / scale).astype(np.int8), "scale": scale.astype(np.float32)}


def dense(p: Any, x: Any, *, axis: int | None, guard: bool = True) -> Any:
    """W8A8 with dynamic scales, by token (axis -1) or one for the tensor."""
    scale = jnp.max(jnp.abs(x), axis=axis, keepdims=True) / 127
    if guard:
        scale = jnp.maximum(scale, 1e-9)
    q = jnp.clip(jnp.round(x / scale), -127, 127).astype(jnp.int8)
    y = lax.dot(q, p["q"], preferred_element_type=jnp.int32)
    return y.astype(jnp.float32) * scale * p["scale"]


def norm(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)


def per_token(p: Any, x: Any) -> Any:
    return dense(p["down"], jax.nn.gelu(norm(dense(p["up"], norm(x), axis=-1))), axis=-1)


def per_tensor(p: Any, x: Any) -> Any:
    return dense(p["down"], jnp.tanh(dense(p["up"], norm(x), axis=None)), axis=None)


def per_channel(p: Any, x: Any) -> Any:
    """A fixed scale for each input channel, such as calibration gives."""
    q = lax.clamp(-127.0, jnp.round(norm(x) / p["act"]), 127.0).astype(jnp.int8)
    return lax.dot(q, p["up"]["q"], preferred_element_type=jnp.int32)


def unguarded(p: Any, x: Any) -> Any:
    return dense(p["up"], x * (x[:, :1] > 0), axis=-1, guard=False)


def saturating(p: Any, x: Any) -> Any:
    q = jnp.round(norm(x) * 90).astype(jnp.int8)
    return lax.dot(q, p["up"]["q"], preferred_element_type=jnp.int32)


def fake(p: Any, x: Any) -> Any:
    """Rounded, but multiplied in floats."""
    return (jnp.round(norm(x) * 16) / 16) @ p["float"]


def layers(p: Any, x: Any) -> Any:
    """Under `scan`, whose claims are stacked."""

    def layer(x: Any, p: Any) -> Any:
        return x + dense(p, norm(x), axis=-1), None

    return lax.scan(layer, x, p["stack"])[0]


def branches(p: Any, x: Any) -> Any:
    return lax.cond(x[0, 0] > 0, lambda: per_token(p, x), lambda: per_token(p, -x))


def half(dtype: Any, p: Any, x: Any) -> Any:
    """Narrow throughout, products accumulated in float32."""

    def dot(x: Any, w: Any) -> Any:
        y = lax.dot(x.astype(dtype), w.astype(dtype), preferred_element_type=jnp.float32)
        return y.astype(dtype)

    h = jax.nn.gelu(dot(norm(x), p["float"]))
    return (dot(h * dtype(1.5) + h * h, p["float"].T) + x.astype(dtype)).astype(jnp.float32)


PARAMS = {
    "up": quantised(WIDTH, 192),
    "down": quantised(192, WIDTH),
    "act": RNG.uniform(0.01, 0.05, WIDTH).astype(np.float32),
    "float": RNG.standard_normal((WIDTH, 160)).astype(np.float32) / 10,
    "stack": jax.tree.map(lambda *a: np.stack(a), *(quantised(WIDTH, WIDTH) for _ in range(3))),
}
MODELS: dict[str, Callable[..., Any]] = {
    "per token": per_token,
    "per tensor": per_tensor,
    "per channel": per_channel,
    "saturating": saturating,
    "fake": fake,
    "layers": layers,
    "branches": branches,
    "bfloat16": functools.partial(half, jnp.bfloat16),
    "float16": functools.partial(half, jnp.float16),
}


@functools.cache
def case(name: str) -> SimpleNamespace:
    compiled = program.compile(MODELS[name], PARAMS, X)
    y, trace = jax.device_get(jax.jit(compiled.execute)(PARAMS, X))
    with jax.disable_jit():
        other = jax.device_get(compiled.execute(PARAMS, X))
    key = compiled.setup(PARAMS, challenge.secret(bytes(range(32))))
    return SimpleNamespace(program=compiled, y=y, claims=trace.values, other=other, key=key)


def check(c: SimpleNamespace, y: Any, trace: Any) -> Any:
    return c.program.check(c.key, X, y=y, trace=trace)


@pytest.mark.parametrize("name", MODELS)
def test_honest_devices_are_accepted(name: str):
    c = case(name)
    roundings = [claim for claim in c.program.claims if isinstance(claim.form, Rounding)]
    assert roundings
    assert not c.program.coverage.discontinuities
    for y, trace in ((c.y, c.claims), c.other):
        report = check(c, y, trace)
        assert report.verdict is Verdict.ACCEPT, report


@pytest.mark.parametrize("name", ["per token", "per channel", "layers", "saturating"])
def test_integer_products_take_the_committed_operand(name: str):
    """An operand that another device rounded otherwise near a tie is the one that is checked."""
    c = case(name)
    integers = [claim for claim in c.program.claims if isinstance(claim.form, Product)]
    assert integers
    for claim in integers:
        assert claim.form.exact
        assert not claim.discontinuities


def test_execute_returns_the_bits_of_the_plain_function_with_barriers():
    for name in ("per token", "per channel", "fake", "layers"):
        c = case(name)
        plain = jax.jit(MODELS[name])(PARAMS, X)
        np.testing.assert_array_equal(np.asarray(plain), c.y)


def test_ties_at_exactly_half_a_step_may_go_either_way():
    def fn(p: Any, x: Any) -> Any:
        # Equal in exact arithmetic to an integer plus a half, up to the last bits.
        h = x @ p["embed"]
        q = jnp.clip(jnp.round(h * 0.3 + h * 0.2), -127, 127).astype(jnp.int8)
        return lax.dot(q, p["w"], preferred_element_type=jnp.int32)

    rng = np.random.default_rng(3)
    params = {
        "embed": rng.integers(-1, 2, (WIDTH, WIDTH)).astype(np.float32),
        "w": rng.integers(-127, 128, (WIDTH, 64)).astype(np.int8),
    }
    x = rng.integers(-8, 9, (ROWS, WIDTH)).astype(np.float32)
    compiled = program.compile(fn, params, x)
    key = compiled.setup(params, challenge.secret())
    _, trace = jax.device_get(jax.jit(compiled.execute)(params, x))
    h = (x @ params["embed"]) * 0.5
    ties = (h != np.round(h)) & (np.abs(h) < 126)
    assert ties.sum() > 100

    def run(change: Callable[[Any], Any]) -> Any:
        q = change(trace.values[1])
        y = q.astype(np.int32) @ params["w"].astype(np.int32)
        return compiled.check(key, x, y=y, trace=(trace.values[0], q, y))

    for up in (np.floor(h), np.ceil(h)):
        q = lambda old, up=up: np.where(ties, up, old).astype(np.int8)  # noqa: E731
        assert run(q).verdict is Verdict.ACCEPT
    assert run(lambda q: np.where(ties, q + 2, q).astype(np.int8)).verdict is Verdict.REJECT


def test_what_follows_a_committed_rounding_starts_from_it():
    """Read twice, a rounding is committed where it stands; its clip is exact, and no claim."""

    def fn(p: Any, x: Any) -> Any:
        q = jnp.round(norm(x) * 90)
        levels = jnp.clip(q, -127, 127).astype(jnp.int8)
        return lax.dot(levels, p["up"]["q"], preferred_element_type=jnp.int32), q @ p["float"]

    compiled = program.compile(fn, PARAMS, X)
    roundings = [c for c in compiled.claims if isinstance(c.form, Rounding)]
    assert [c.primitive for c in roundings] == ["round"]
    y, trace = jax.jit(compiled.execute)(PARAMS, X)
    key = compiled.setup(PARAMS, challenge.secret())
    assert compiled.check(key, X, y=y, trace=trace).verdict is Verdict.ACCEPT


def test_a_clamp_off_the_integers_is_cut_towards_zero():
    """7 is clamped to 6.5 and cast to 6: an honest device, which must not be called a cheat."""

    def fn(p: Any, x: Any) -> Any:
        q = jnp.clip(jnp.round(norm(x) * 90), -6.5, 6.5).astype(jnp.int8)
        return lax.dot(q, p["up"]["q"], preferred_element_type=jnp.int32)

    compiled = program.compile(fn, PARAMS, X)
    assert [s.kind for s in compiled.claims[0].form.steps][-2:] == ["clamp", "truncate"]
    y, trace = jax.device_get(jax.jit(compiled.execute)(PARAMS, X))
    assert (trace.values[0] == 6).any()
    key = compiled.setup(PARAMS, challenge.secret())
    assert compiled.check(key, X, y=y, trace=trace).verdict is Verdict.ACCEPT
    claims = [np.array(c) for c in trace.values]
    claims[0][claims[0] == 6] = 5
    report = compiled.check(key, X, y=y, trace=claims)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "rounding-mismatch")


def test_rows_of_zeros_need_a_guarded_scale():
    x = X.copy()
    x[5] = 0
    guarded = program.compile(MODELS["per token"], PARAMS, x)
    y, trace = jax.jit(guarded.execute)(PARAMS, x)
    key = guarded.setup(PARAMS, challenge.secret())
    assert guarded.check(key, x, y=y, trace=trace).verdict is Verdict.ACCEPT
    naked = program.compile(unguarded, PARAMS, x)
    y, trace = jax.jit(naked.execute)(PARAMS, x)
    key = naked.setup(PARAMS, challenge.secret())
    report = naked.check(key, x, y=y, trace=trace)
    assert (report.verdict, report.reason) == (Verdict.INDETERMINATE, "nonfinite-operand")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_quantised_with_qwix_is_checked_exactly():
    class Mlp(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(WIDTH)(nn.gelu(nn.Dense(192)(x)))

    rule = qwix.QuantizationRule(module_path=".*", weight_qtype=jnp.int8, act_qtype=jnp.int8)
    model = qwix.quantize_model(Mlp(), qwix.PtqProvider([rule]))
    params = qwix.quantize_params(
        Mlp().init(jax.random.key(0), X)["params"],
        jax.eval_shape(model.init, jax.random.key(0), X)["params"],
    )
    compiled = program.compile(lambda p, x: model.apply({"params": p}, x), params, X)
    # Scales are compared with the least that is allowed.
    kinds = [(c.primitive, c.dtype.name) for c in compiled.claims if c.primitive != "lt"]
    assert kinds == [("convert_element_type", "int8"), ("dot_general", "int32")] * 2
    key = compiled.setup(params, challenge.secret())
    runs = [jax.jit(compiled.execute)(params, X)]
    with jax.disable_jit():
        runs.append(compiled.execute(params, X))
    for y, trace in runs:
        assert compiled.check(key, X, y=y, trace=trace).verdict is Verdict.ACCEPT
    claims = [np.array(c) for c in runs[0][1].values]
    product = next(c.index for c in compiled.claims if c.form.contraction)
    claims[product][3, 3] += 1
    report = compiled.check(key, X, y=runs[0][0], trace=claims)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")


def test_a_narrow_operand_is_committed_as_it_was_computed():
    """A sum in bfloat16 on its way into a product, through a reshape and a transpose."""

    def fn(p: Any, x: Any) -> Any:
        h = (jnp.tanh(x.astype(jnp.bfloat16)) + jnp.bfloat16(1)).reshape(ROWS, WIDTH).T
        return lax.dot_general(
            h, p.astype(jnp.bfloat16), (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )

    compiled = program.compile(fn, PARAMS["float"], X)
    first, second = compiled.claims
    assert (first.primitive, first.dtype, first.form.steps) == ("add", BF16, ())
    assert second.eps_types == {"float32"}
    assert compiled.tolerances[second.name] == dict(compiled.policy.eps)["float32"]


def test_the_tolerance_goes_by_the_roundings_that_a_value_went_through():
    """An operand that was computed in bfloat16 and widened differs by bfloat16's last bits."""

    def fn(p: Any, x: Any) -> Any:
        h = jnp.tanh(x.astype(jnp.bfloat16)).astype(jnp.float32)
        return jnp.sin(h) @ p

    compiled = program.compile(fn, PARAMS["float"], X)
    assert compiled.claims[-1].eps_types == {"bfloat16", "float32"}
    assert compiled.tolerances[compiled.claims[-1].name] == dict(compiled.policy.eps)["bfloat16"]


# ------------------------------------------------------------------------------------ the cheats


@dataclass(frozen=True)
class Cheat:
    """What is sent in place of one rounding claim, with all that follows computed from it."""

    name: str
    change: Callable[[Any, Any], Any]  # the honest values and, before their rounding, the real ones


def moved(amount: int) -> Callable[[Any, Any], Any]:
    def change(q: Any, _: Any) -> Any:
        q = q.copy()
        i = np.unravel_index(np.argmin(np.abs(q.astype(np.int32) - 50)), q.shape)
        q[i] += amount
        return q

    return change


def one_of_many(q: Any, v: Any) -> Any:
    """The element closest to a tie that is still beyond the slack, the other way."""
    distance = np.abs(np.abs(v - np.floor(v)) - 0.5)
    distance[distance < 0.05] = 1
    i = np.unravel_index(np.argmin(distance), v.shape)
    q = q.copy()
    q[i] = np.floor(v[i]) + np.ceil(v[i]) - q[i]
    return q


CHEATS = [
    Cheat("one integer more", moved(1)),
    Cheat("one integer less", moved(-1)),
    Cheat("always rounded down", lambda q, v: np.floor(v).astype(np.int8)),
    Cheat("always rounded up", lambda q, v: np.clip(np.ceil(v), -127, 127).astype(np.int8)),
    Cheat("always towards zero", lambda q, v: np.trunc(v).astype(np.int8)),
    Cheat("the nearest tie, the wrong way", one_of_many),
    Cheat("a scale doubled, its values halved", lambda q, v: np.round(v / 2).astype(np.int8)),
    Cheat("int4", lambda q, v: (np.round(v / 16) * 16).clip(-127, 127).astype(np.int8)),
    Cheat("signs flipped", lambda q, v: -q),
    Cheat("only the largest", lambda q, v: np.where(np.abs(q) > 60, q, 0).astype(np.int8)),
    Cheat("beyond the clip", lambda q, v: np.where(q == 127, -128, q).astype(np.int8)),
    Cheat("another token's", lambda q, v: q[::-1].copy()),
]


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda c: c.name)
def test_cheats(cheat: Cheat):
    c = case("per channel")
    real = np.asarray(norm(jnp.asarray(X)) / PARAMS["act"])
    q = cheat.change(np.array(c.claims[0]), np.clip(real, -127, 127))
    assert (q != c.claims[0]).any()
    y = q.astype(np.int32) @ PARAMS["up"]["q"].astype(np.int32)
    report = check(c, y, (q, y))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "rounding-mismatch"), report
    assert report.claim == c.program.claims[0].name


@pytest.mark.parametrize("amount", [1, -1, 2**31, 2**30, -(2**31)])
def test_an_accumulator_that_is_off_is_rejected(amount: int):
    c = case("per channel")
    y = np.array(c.claims[1])
    y[7, 7] = (np.int64(y[7, 7]) + amount).astype(np.int32)  # wraps, as int32 does
    report = check(c, y, (c.claims[0], y))
    assert report.verdict is Verdict.REJECT
    assert report.reason in ("claim-mismatch", "claim-range")


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
@pytest.mark.parametrize("steps", [8, -8])
def test_narrow_operands_are_held_to_their_own_last_bits(name: str, steps: int):
    c = case(name)
    for claim, honest in zip(c.program.claims, c.claims, strict=True):
        if not isinstance(claim.form, Rounding):
            continue
        values = np.array(honest)
        i = np.unravel_index(np.argmax(np.abs(values.astype(np.float32))), values.shape)
        trace = [values if a is honest else a for a in c.claims]
        values.view(np.int16)[i] += np.int16(steps * 8)
        report = check(c, c.y, trace)
        assert report.verdict is Verdict.REJECT
        assert report.results[claim.index].verdict is not Verdict.ACCEPT
        # A chain of narrow operations may honestly lose some of these steps; not as many.
        values.view(np.int16)[i] += np.int16(steps * 24)
        assert check(c, c.y, trace).claim == claim.name


def test_a_claim_that_is_not_a_number_is_rejected():
    c = case("bfloat16")
    first = next(claim for claim in c.program.claims if isinstance(claim.form, Rounding))
    trace = [np.array(a) for a in c.claims]
    trace[first.index][0, 0] = np.nan
    report = check(c, c.y, trace)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-nonfinite")
