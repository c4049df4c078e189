"""The corridor: what the tolerance leaves to a cheat, and the cheat that uses all of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable import challenge, program
from verifiable.check.freedom import corridor
from verifiable.report import Verdict

WIDTH, ROWS = 96, 32
RNG = np.random.default_rng(0)
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)


def weights(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(shape[-2])).astype(np.float32)


INT8 = np.round(weights(WIDTH, 128) * 300).clip(-127, 127).astype(np.int8)
PARAMS: dict[str, Any] = {
    "up": weights(WIDTH, 160),
    "down": weights(160, WIDTH),
    "stack": weights(3, WIDTH, WIDTH),
    "kernel": weights(5, 8, 16, 64),
    "int8": INT8,
}


def mlp(p: Any, x: Any) -> Any:
    return jax.nn.gelu(x @ p["up"]) @ p["down"]


def transposed(p: Any, x: Any) -> Any:
    """As `jax.vmap(lambda row: p.T @ row)` has it."""
    return jnp.tanh(lax.dot_general(p["up"], x, (((0,), (1,)), ((), ()))).T) @ p["down"]


def scanned(p: Any, x: Any) -> Any:
    return lax.scan(lambda c, w: (c + jnp.tanh(c @ w), None), x, p["stack"])[0]


def branching(p: Any, x: Any) -> Any:
    return lax.cond(x[0, 0] > -9, lambda: mlp(p, x), lambda: (x @ p["stack"][0]) * 2)


def convolution(p: Any, x: Any) -> Any:
    x = x.reshape(1, ROWS, 6, 16)
    y = lax.conv_general_dilated(
        x, p["kernel"][:, :3], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(y).reshape(ROWS, -1)


def integers(p: Any, x: Any) -> Any:
    h = x @ p["stack"][0]
    scale = jnp.max(jnp.abs(h), -1, keepdims=True) / 127
    q = jnp.clip(jnp.round(h / scale), -127, 127).astype(jnp.int8)
    return lax.dot(q, p["int8"], preferred_element_type=jnp.int32).astype(jnp.float32) * scale


def narrow(p: Any, x: Any) -> Any:
    bf16 = jnp.bfloat16
    h = lax.dot(x.astype(bf16), p["up"].astype(bf16), preferred_element_type=jnp.float32)
    h = jax.nn.gelu(h).astype(bf16)
    return lax.dot(h, p["down"].astype(bf16), preferred_element_type=jnp.float32)


PARAMS["kernel"] = weights(5, 3, 16, 64)
MODELS: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (mlp, transposed, scanned, branching, convolution, integers, narrow)
}


def answer(y: Any) -> Any:
    return y[3, 5] - y[3, 6] + 0.1 * y[4, 7] ** 2


@functools.cache
def case(name: str) -> SimpleNamespace:
    compiled = program.compile(MODELS[name], PARAMS, X)
    return SimpleNamespace(
        program=compiled,
        corridor=compiled.corridor(PARAMS, X, answer=answer, kappa=1.0),
        y=jax.jit(MODELS[name])(PARAMS, X),
        key=compiled.setup(PARAMS, challenge.secret(bytes(range(32)))),
    )


@functools.cache
def attacked(name: str, kappa: float) -> Any:
    return case(name).program.attack(PARAMS, X, answer=answer, kappa=kappa)


def reach(name: str, kappa: float) -> float:
    if kappa == case(name).corridor.kappa:
        return case(name).corridor.reach
    return case(name).program.corridor(PARAMS, X, answer=answer, kappa=kappa).reach


@pytest.mark.parametrize("name", MODELS)
def test_the_margin_is_the_answer_of_an_honest_run(name: str):
    c = case(name)
    assert c.corridor.margin == pytest.approx(float(answer(c.y)), rel=1e-3, abs=1e-3)
    assert c.corridor.kappa == 1.0
    assert c.corridor.reach == pytest.approx(sum(x for _, x in c.corridor.shares))


@pytest.mark.parametrize("name", ["mlp", "integers"])
def test_without_kappa_it_goes_as_far_as_the_bound(name: str):
    c = case(name)
    found = c.program.corridor(PARAMS, X, answer=answer)
    assert found.kappa == c.program.bound.kappa()
    assert found.reach > c.corridor.reach


# Less than all scales products and roundings; it is compiled for one model of each.
@pytest.mark.parametrize(
    ("name", "kappa"), [*((name, 1.0) for name in MODELS), ("mlp", 0.5), ("integers", 0.9)]
)
def test_the_gradient_attack_passes_and_moves_the_answer_by_no_more_than_its_reach(
    name: str, kappa: float
):
    """Cheat: every claim shifted along the gradient of the answer, just under tolerance."""
    c = case(name)
    y, trace = attacked(name, kappa)
    report = c.program.check(c.key, X, y=y, trace=trace)
    assert report.verdict is Verdict.ACCEPT, report
    moved = float(answer(y)) - float(answer(c.y))
    # To first order, and up to the float32 of the run itself.
    assert -1.02 * reach(name, kappa) - 1e-5 <= moved <= 1e-5
    assert report.corridor is None


@pytest.mark.parametrize("name", ["mlp", "transposed", "scanned", "branching", "convolution"])
def test_the_attack_uses_nearly_all_of_its_reach(name: str):
    """Otherwise the corridor would be loose, and the cheat a straw man."""
    c = case(name)
    y, _ = attacked(name, 1.0)
    moved = float(answer(y)) - float(answer(c.y))
    assert moved <= -0.95 * reach(name, 1.0) + 1e-5


@pytest.mark.parametrize("name", ["mlp", "transposed", "scanned", "branching", "convolution"])
def test_outside_of_the_corridor_the_attack_is_always_rejected(name: str):
    c = case(name)
    y, trace = attacked(name, 1.1 * c.program.bound.kappa())
    for _ in range(5):
        key = c.program.setup(PARAMS, challenge.secret())
        report = c.program.check(key, X, y=y, trace=trace)
        assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")


def test_another_job_is_not_compiled_again(monkeypatch: pytest.MonkeyPatch):
    """Only another answer is, and a program keeps the last few."""
    compiled = program.compile(lambda p, x: x @ p["up"], PARAMS, X)

    def first(y: Any) -> Any:
        traced.append("first")
        return y[0, 0]

    traced: list[str] = []
    found = compiled.corridor(PARAMS, X, answer=first, kappa=1.0)
    count = len(traced)
    twice = compiled.corridor(PARAMS, 2 * X, answer=first, kappa=2.0)
    assert len(traced) == count
    assert twice.reach == pytest.approx(4 * found.reach)
    monkeypatch.setattr(corridor, "_KEPT", 1)
    compiled.corridor(PARAMS, X, answer=lambda y: y[0, 1])
    assert len(compiled.steered) == 1
    compiled.corridor(PARAMS, X, answer=first)
    assert len(traced) > count


def test_the_shares_are_derivatives_times_tolerances():
    """Against central differences of one claim of a plain product."""
    compiled = program.compile(lambda p, x: x @ p["up"], PARAMS, X)
    found = compiled.corridor(PARAMS, X, answer=lambda y: y[3, 5], kappa=1.0)
    a, b = X.astype(np.float64), PARAMS["up"].astype(np.float64)
    norms = np.linalg.norm(b, axis=0)
    w = 1 / np.maximum(norms, 2.0**-12 * norms.max())
    s = np.sqrt((a[3] ** 2) @ ((b * w) ** 2).sum(1) + (((a[3] @ b) * w) ** 2).sum())
    eps = compiled.tolerances[compiled.claims[0].name]
    assert found.reach == pytest.approx(eps * s / w[5], rel=1e-5)


def test_a_near_tie_is_marked_within_the_corridor_and_a_clear_answer_is_not():
    def classify(p: Any, x: Any) -> Any:
        return (x @ p)[0]

    w = weights(WIDTH, 40)
    x = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)
    scores = x[0] @ w
    best = int(np.argmax(scores))
    other = (best + 1) % 40
    near = w.copy()
    # Another class of nearly the same score.
    near[:, other] = w[:, best] * np.float32(1 - 1e-6)
    for params, within in ((w, False), (near, True)):
        compiled = program.compile(classify, params, x)
        found = compiled.corridor(params, x, answer=corridor.margin)
        y, trace = jax.jit(compiled.execute)(params, x)
        key = compiled.setup(params, challenge.secret())
        report = compiled.check(key, x, y=y, trace=trace, corridor=found)
        assert report.verdict is Verdict.ACCEPT
        assert report.corridor.within is within
        assert ("within-corridor" in str(report)) is within
        assert found.within is within
        assert ("within" in str(found)) is within


def test_a_margin_that_is_not_a_number_is_within():
    found = program.compile(mlp, PARAMS, X).corridor(PARAMS, X, answer=lambda y: y[0, 0] * jnp.nan)
    assert found.within


@pytest.mark.parametrize("wrong", [lambda y: y, lambda y: y[0], jnp.argmax, lambda y: y[0, 0] > 0])
def test_an_answer_is_a_float_scalar(wrong: Callable[[Any], Any]):
    with pytest.raises(ValueError, match="float scalar"):
        case("mlp").program.corridor(PARAMS, X, answer=wrong)


def test_integer_products_leave_nothing_and_roundings_only_what_is_near_a_tie():
    c = case("integers")
    shares = dict(c.corridor.shares)
    first, rounding, product = c.program.claims
    assert product.name not in shares
    assert shares[first.name] > 0
    h = X @ PARAMS["stack"][0]
    scale = np.abs(h).max(-1, keepdims=True) / 127
    v = h / scale
    slack = 2.0**-16 * (np.abs(v) + np.sqrt((v**2).mean(-1, keepdims=True)))
    near = np.abs(np.abs(v - np.floor(v)) - 0.5) <= slack
    w, y = PARAMS["int8"].astype(np.float64), np.asarray(c.y)
    third = np.abs(scale[3] * (w[:, 5] - w[:, 6])) * near[3]
    fourth = np.abs(0.2 * y[4, 7] * scale[4] * w[:, 7]) * near[4]
    assert shares[rounding.name] == pytest.approx(third.sum() + fourth.sum(), rel=1e-3)


# ------------------------------------------------------------------------------- decisions

LEAKY = np.abs(X) + 0.5
LEAKY[:, :8] = 0.0


def decides(slope: float) -> Callable[..., Any]:
    """The first eight columns are near ties, since exp(0) - 1 + 1e-6 is about a roundoff."""

    def fn(p: Any, x: Any) -> Any:
        h = jnp.exp(x) - 1 + 1e-6
        return (jnp.where(h > 0, h, slope * h + (slope - 1)) @ p["up"]) @ p["down"]

    return fn


def branches(p: Any, x: Any) -> Any:
    h = jnp.exp(x) - 1 + 1e-6
    return lax.cond(h[0, 0] > h[0, 1], lambda: h @ p["up"], lambda: -h @ p["up"]) @ p["down"]


def first(y: Any) -> Any:
    return y[0, 0]


@functools.cache
def decided(fn: Callable[..., Any]) -> SimpleNamespace:
    compiled = program.compile(fn, PARAMS, LEAKY, self_test=False)
    [index] = compiled.flip_limits
    return SimpleNamespace(program=compiled, name=compiled.claims[index].name)


def test_near_ties_reach_as_far_as_what_they_select():
    """Nothing where the function is continuous; where it jumps, what a flip does to the answer."""
    shares = {}
    for slope in (1.0, 0.5):
        c = decided(decides(slope))
        found = c.program.corridor(PARAMS, LEAKY, answer=first)
        shares[slope] = dict(found.shares)[c.name]
    assert shares[1.0] == 0
    effects = np.abs(0.5 * (PARAMS["up"] @ PARAMS["down"])[:8, 0])
    most = next(iter(decided(decides(0.5)).program.flip_limits.values()))
    assert most < 8
    assert shares[0.5] == pytest.approx(np.sort(effects)[::-1][:most].sum(), rel=1e-3)


def test_the_attack_turns_ties_round_and_passes():
    """It moves the answer by what the corridor says, and no further."""
    c = decided(decides(0.5))
    key = c.program.setup(PARAMS, challenge.secret())
    honest = c.program.execute(PARAMS, LEAKY)[0]
    y, trace = c.program.attack(PARAMS, LEAKY, answer=first, kappa=0.01)
    report = c.program.check(key, LEAKY, y=y, trace=trace)
    assert report.verdict is Verdict.ACCEPT, report
    assert any(r.flips for r in report.results)
    found = c.program.corridor(PARAMS, LEAKY, answer=first, kappa=0.01)
    moved = float(first(honest) - first(y))
    assert 0.2 * found.reach < moved <= 1.01 * found.reach


def test_a_branch_near_a_tie_is_within_every_corridor():
    c = decided(branches)
    found = c.program.corridor(PARAMS, LEAKY, answer=first)
    assert found.reach == np.inf
    assert found.within
    apart = LEAKY.copy()
    apart[0, 1] = 1.0
    far = c.program.corridor(PARAMS, apart, answer=first)
    assert dict(far.shares)[c.name] == 0


def test_a_choice_without_a_derivative_is_within_where_another_index_would_pass():
    def chooses(p: Any, x: Any) -> Any:
        best = jnp.argmax(jnp.tanh(x[:4] @ p["up"] / 20), -1)
        return p["stack"][0][best % WIDTH] @ p["stack"][1]

    compiled = program.compile(chooses, PARAMS, X, self_test=False)
    best = int(np.argmax(X[0] @ PARAMS["up"]))
    tied = PARAMS["up"].copy()
    tied[:, best - 1] = tied[:, best]
    for up, within in ((PARAMS["up"], False), (tied, True)):
        found = compiled.corridor(PARAMS | {"up": up}, X, answer=first, kappa=1.0)
        assert np.isinf(found.reach) == within, found


def test_a_rounded_index_is_within_where_another_one_would_pass():
    def buckets(p: Any, x: Any) -> Any:
        index = jnp.floor(jnp.exp(x[0, :4])).astype(jnp.int32)
        return p["stack"][0][index - 1] @ p["stack"][1]

    compiled = program.compile(buckets, PARAMS, X, self_test=False)
    for value, within in ((0.3, False), (0.0, True)):  # exp(0) is at the end of a bucket
        found = compiled.corridor(PARAMS, np.full_like(X, value), answer=first)
        assert np.isinf(found.reach) == within, found


def test_there_is_no_corridor_through_a_convolution_of_integers():
    def fn(p: Any, x: Any) -> Any:
        q = jnp.clip(jnp.round(jnp.tanh(x) * 127), -127, 127).astype(jnp.int8)
        image, kernel = q.reshape(1, 3, ROWS, 32), p.reshape(64, 3, 4, 4)
        out = lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", preferred_element_type=jnp.int32
        )
        return out.astype(jnp.float32)[0, 0]

    levels = INT8.reshape(-1)[: 64 * 3 * 4 * 4]
    compiled = program.compile(fn, levels, X, self_test=False)
    with pytest.raises(ValueError, match="no corridor through the integer convolution"):
        compiled.corridor(levels, X, answer=first)


def test_a_loop_that_follows_from_a_claim_has_no_derivative():
    def fn(w: Any, x: Any) -> Any:
        h = mlp(w, x)
        return lax.while_loop(lambda s: jnp.abs(s).max() > 0.5, lambda s: s * 0.5, h).sum()

    compiled = program.compile(fn, PARAMS, X)
    assert not corridor.differentiable(compiled)
    with pytest.raises(ValueError, match="no derivative: a while loop follows from a claim"):
        compiled.corridor(PARAMS, X, answer=lambda y: y)
