"""Programs: honest runs are accepted however they round, changed ones rejected, laws hold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from jax import lax

from tests.helpers.looks import first_look_only
from tests.helpers.programs import FEW, PARAMS, RNG, ROWS, SECRET, WIDTH, Case, X, weights
from tests.helpers.runs import reinterpreted
from verifiable import challenge, errors, program
from verifiable.report import Verdict
from verifiable.trace import Trace

# Random programs: each step maps (ROWS, WIDTH) to (ROWS, WIDTH).


def norm(p: Any, x: Any) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-3) * p["scale"]


def dense(p: Any, x: Any) -> Any:
    return norm(p, x @ p["square"] + p["scale"])


def nested(p: Any, x: Any) -> Any:
    return jax.jit(lambda x: jax.nn.relu(jax.jit(dense)(p, x)) + x)(x)


def mlp(p: Any, x: Any) -> Any:
    return x + jax.nn.gelu(x @ p["wide"]) @ p["narrow"]


def checkpointed(p: Any, x: Any) -> Any:
    return jax.checkpoint(lambda x: jnp.tanh(x @ p["other"]))(x)


@jax.custom_vjp
def twice(x: Any) -> Any:
    return x + x @ (x.T @ x) / 64


twice.defvjp(lambda x: (twice(x), x), lambda x, g: (g,))


def custom(p: Any, x: Any) -> Any:
    return norm(p, twice(x))


def scanned(p: Any, x: Any) -> Any:
    def layer(carry: Any, w: Any) -> Any:
        x, i = carry
        y = jnp.tanh(x @ w + i.astype(x.dtype) * p["scale"]) + x @ p["other"]
        return (norm(p, y), i + 1), y.mean()

    (x, _), means = lax.scan(layer, (x, jnp.int32(0)), p["stack"])
    return x + means.sum()


def looped(p: Any, x: Any) -> Any:
    return lax.fori_loop(0, 3, lambda _, x: norm(p, x @ p["square"]), x)


def branched(p: Any, x: Any) -> Any:
    # The predicate is far from its threshold, so that rounding does not decide it.
    big = jnp.sum(jnp.square(x)) > 1e-6
    return lax.cond(big, lambda x: x @ p["square"], lambda x: norm(p, x @ p["other"]), x)


def attention(p: Any, x: Any) -> Any:
    # Without the barrier, XLA rewrites `transpose(x w)` into another product with other rounding.
    q, k = x @ p["square"], lax.optimization_barrier(x @ p["other"])
    return x + jax.nn.softmax(q @ k.T / 6.0) @ x


def outer(p: Any, x: Any) -> Any:
    return x + p["left"] @ x


def moved(p: Any, x: Any) -> Any:
    return jnp.einsum("ij,kj->ki", p["square"], x[::-1]) * 0.5 + jnp.roll(x, 1, axis=0)


def compared(p: Any, x: Any) -> Any:
    y = norm(p, x @ p["square"])
    return jnp.where(y > 0.1, y, -1 - y)  # far apart at a tie, whatever is turned


def ordered(p: Any, x: Any) -> Any:
    return x[jnp.argsort(x @ p["scale"])]


STEPS = [
    compared,
    ordered,
    dense,
    nested,
    mlp,
    checkpointed,
    custom,
    scanned,
    looped,
    branched,
    attention,
    outer,
    moved,
]


def run(p: Any, x: Any, steps: list[Callable[[Any, Any], Any]]) -> Any:
    for step in steps:
        x = step(p, x)
    return {"hidden": norm(p, x), "answer": x.argmax(-1)}


@pytest.mark.optimised(verifier=False)
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.permutations(STEPS), st.data())
def test_random_programs(steps: Any, data: st.DataObject) -> None:
    """Every step, in any order; one long program compiles faster than many short ones.

    The bits of runs are those of users' compilers; `--optimised` compiles the check so, too.
    """
    for part in (steps[:6], steps[6:]):
        case = Case(functools.partial(run, steps=part), PARAMS, X)
        # As `execute` does; some kernels of XLA depend on it.
        with jax.default_matmul_precision("highest"):
            plain = jax.jit(case.fn)(PARAMS, X)
        if compared not in part:
            jax.tree.map(np.testing.assert_array_equal, case.y, plain)
        # What is compared has one reader more, the decision: XLA may fuse it in another way.
        assert case.check(plain).verdict is Verdict.ACCEPT
        judge_random_program(case, data)


def judge_random_program(case: Case, data: st.DataObject) -> None:
    assert case.check().verdict is Verdict.ACCEPT, case.check()
    y, trace = case.op_by_op()
    report = case.check(y, trace)
    # The last bits may decide the argmax of a near-tie: never a reject.
    assert report.verdict is not Verdict.REJECT, report
    if np.array_equal(y["answer"], case.y["answer"]):
        assert report.verdict is Verdict.ACCEPT, report
    for claim in case.program.claims:
        # One element of a row moves by much more than 100 times what the row may deviate.
        position = data.draw(st.integers(0, int(np.prod(claim.shape)) - 1))

        def bump(c: Any, position: int = position) -> None:
            c.reshape(-1)[position] += 30.0

        with first_look_only() if claim.index else nullcontext():
            report = case.check(claims=case.changed(claim.index, bump))
        assert report.verdict is not Verdict.ACCEPT
        if not claim.discontinuities:
            assert report.verdict is Verdict.REJECT, report
            assert report.worst > 100


# What a device may send instead of a trace.


@dataclass(frozen=True)
class Cheat:
    name: str
    tamper: Callable[[list[Any]], Any]
    expect: str
    claim: int | None = None


def nan(claims: list[Any]) -> list[Any]:
    claims[1][0, 0] = np.nan
    return claims


def cancel(claims: list[Any]) -> list[Any]:
    claims[1][2, 3] += 0.5
    claims[1][2, 9] -= 0.5
    return claims


def huge(claims: list[Any]) -> list[Any]:
    claims[1][2] = 3e38
    return claims


def at(index: int, change: Callable[[Any], Any]) -> Callable[[list[Any]], Any]:
    return lambda c: [*c[:index], change(c[index]), *c[index + 1 :]]


CHEATS = [
    Cheat("nothing", lambda c: None, "trace-structure"),
    Cheat("a number", lambda c: 3, "trace-structure"),
    Cheat("texts", lambda c: ["", "", ""], "trace-structure"),
    Cheat("empty trace", lambda c: [], "claim-missing"),
    Cheat("missing claim", lambda c: c[:-1], "claim-missing"),
    Cheat("claim twice", lambda c: [*c, c[-1]], "claim-extra"),
    Cheat(
        "claims of other shapes in another order", lambda c: [c[2], c[1], c[0]], "claim-reordered"
    ),
    Cheat(
        "claims of one shape in another order", lambda c: [c[1], c[0], c[2]], "claim-mismatch", 0
    ),
    Cheat("misshapen claim", at(1, lambda c: c[:-1]), "claim-shape", 1),
    Cheat("transposed claim", at(2, lambda c: c.T), "claim-shape", 2),
    Cheat("claim of one value", at(2, lambda c: c[0, 0]), "claim-shape", 2),
    Cheat("doubles", at(1, lambda c: c.astype(np.float64)), "claim-dtype", 1),
    Cheat("integers of the same bytes", at(1, lambda c: c.view(np.int32)), "claim-dtype", 1),
    Cheat("big-endian bytes", at(1, lambda c: c.astype(">f4")), "claim-dtype", 1),
    Cheat("objects", at(1, lambda c: c.astype(object)), "claim-dtype", 1),
    Cheat("not a number", nan, "claim-nonfinite", 1),
    Cheat("infinity", at(0, lambda c: c + np.inf), "claim-nonfinite", 0),
    Cheat("overflowed norm", huge, "claim-mismatch", 1),
    Cheat("equal and opposite changes", cancel, "claim-mismatch", 1),
    Cheat("zeros", at(0, lambda c: c * 0), "claim-mismatch", 0),
    Cheat("sign", at(2, lambda c: -c), "claim-mismatch", 2),
    Cheat("permuted rows", at(1, lambda c: c[::-1]), "claim-mismatch", 1),
]


def three(p: Any, x: Any) -> Any:
    x = jnp.tanh(x @ p["square"])
    x = norm(p, x @ p["other"])
    return x @ p["wide"]


@pytest.fixture(scope="module")
def model() -> Case:
    return Case(three, PARAMS, X)


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda c: c.name)
def test_cheats(model: Case, cheat: Cheat) -> None:
    claims = cheat.tamper([np.array(c) for c in model.trace.values])
    report = model.program.check(model.key, X, y=model.y, trace=claims)
    assert (report.verdict, report.reason) == (Verdict.REJECT, cheat.expect), report
    if cheat.claim is not None:
        assert report.claim == model.program.claims[cheat.claim].name
    with pytest.raises(errors.Rejected):
        report.require()


OUTPUTS = [
    ("another tree", lambda y: (y,), "output-structure"),
    ("text", lambda y: "accept", "output-structure"),
    ("misshapen", lambda y: y[1:], "output-shape"),
    ("half precision", lambda y: y.astype(np.float16), "output-dtype"),
    ("not a number", lambda y: y * np.nan, "output-nonfinite"),
    ("honest trace, false output", lambda y: np.roll(y, 1), "output-mismatch"),
]


@pytest.mark.parametrize("cheat", OUTPUTS, ids=lambda c: c[0])
def test_outputs(model: Case, cheat: tuple[str, Any, str]) -> None:
    _, tamper, expect = cheat
    report = model.check(tamper(np.array(model.y)))
    assert (report.verdict, report.reason) == (Verdict.REJECT, expect)
    np.testing.assert_allclose(model.check().y, model.y, rtol=1e-5)


def test_wrong_model_and_wrong_input(model: Case) -> None:
    stale = PARAMS | {"other": PARAMS["other"] * np.float32(1.001)}
    y, trace = jax.jit(model.program.execute)(stale, X)
    report = model.check(y, trace)
    assert (report.reason, report.claim) == ("claim-mismatch", model.program.claims[1].name)
    y, trace = jax.jit(model.program.execute)(PARAMS, X[::-1])
    report = model.check(y, trace)
    assert (report.reason, report.claim) == ("claim-mismatch", model.program.claims[0].name)


def test_an_output_without_elements_is_accepted() -> None:
    case = Case(lambda p, x: (x @ p["square"], jnp.tanh(x @ p["other"])[:0]), PARAMS, X)
    assert case.y[1].size == 0
    assert case.check().verdict is Verdict.ACCEPT


def test_callers_mistakes(model: Case) -> None:
    other = program.compile(lambda p, x: three(p, x) + 1, PARAMS, X, policy=FEW)
    with pytest.raises(ValueError, match="the key was made for program"):
        other.check(model.key, X, y=model.y, trace=model.trace)
    stale = model.program.setup(PARAMS | {"scale": X[0]}, SECRET)
    root = program.parameter_root(PARAMS)
    with pytest.raises(ValueError, match="the key was made for parameters"):
        model.program.check(stale, X, y=model.y, trace=model.trace, parameters=root)
    strict = replace(model.program, policy=replace(FEW, phi=1e-6))
    with pytest.raises(ValueError, match="the key was made for policy"):
        strict.check(model.key, X, y=model.y, trace=model.trace)
    with pytest.raises(ValueError, match=r"inputs\[0\] has shape \(7, 32\)"):
        model.program.check(model.key, X[1:], y=model.y, trace=model.trace)
    with pytest.raises(ValueError, match="inputs have tree"):
        model.program.check(model.key, X, X, y=model.y, trace=model.trace)
    with pytest.raises(ValueError, match=r"params\['scale'\] has shape"):
        model.program.execute(PARAMS | {"scale": X}, X)
    with pytest.raises(ValueError, match="no tolerance for float32"):
        program.compile(three, PARAMS, X, policy=replace(FEW, eps=(("float64", 1e-12),)))


# Control flow.


def test_an_input_that_is_taken_for_the_parameters_is_warned_of() -> None:
    """A model that was closed over, and called with its input alone."""
    weights = jnp.ones((4, 4), jnp.float32)
    with pytest.warns(errors.NoInputs, match=r"compile\(fn, params, x\)"):
        alone = program.compile(lambda x: x @ weights, weights)
    assert not alone.claims
    asked = program.compile(lambda _, x: x @ weights, (), jnp.ones((64, 4), jnp.float32))
    assert asked.inputs


def test_claims_of_the_branch_not_taken_are_zero() -> None:
    def fn(p: Any, x: Any, flag: Any) -> Any:
        return lax.cond(flag, lambda x: x @ p["square"], lambda x: x @ p["other"], x)

    case = Case(fn, PARAMS, X, np.True_)
    assert case.check().verdict is Verdict.ACCEPT
    taken = 0 if np.any(case.trace.values[0]) else 1
    assert not np.any(case.trace.values[1 - taken])

    def fill(c: Any) -> None:
        c[0, 0] = 1e-30

    report = case.check(claims=case.changed(1 - taken, fill))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-untaken")

    def spoil(c: Any) -> None:
        c[0, 0] = np.nan

    report = case.check(claims=case.changed(1 - taken, spoil))
    assert report.verdict is Verdict.REJECT


def test_scan_keeps_weights_out_of_the_key() -> None:
    case = Case(scanned, PARAMS, X)
    assert [c.shape for c in case.program.claims] == [(3, ROWS, WIDTH)] * 2
    big = [n for n, a in case.key.arrays.items() if a.size >= WIDTH * WIDTH]
    assert big == [], big
    # The weight that all iterations share is projected once.
    shapes = sorted(a.shape for n, a in case.key.arrays.items() if n.endswith("image"))
    assert shapes == [(3, WIDTH, 4), (WIDTH, 4)]
    for trip in range(3):

        def bump(c: Any, trip: int = trip) -> None:
            c[trip, 2, 5] += 1

        assert case.check(claims=case.changed(0, bump)).reason == "claim-mismatch"


def collatz(p: Any, x: Any, start: Any) -> Any:
    def step(state: Any) -> Any:
        n, x = state
        return jnp.where(n % 2 == 0, n // 2, 3 * n + 1), jnp.tanh(x * p["scale"])

    _, x = lax.while_loop(lambda s: s[0] != 1, step, (start, x @ p["square"]))
    return x @ p["other"]


def test_while_is_replayed_up_to_a_limit() -> None:
    case = Case(collatz, PARAMS, X, np.int32(27), policy=replace(FEW, trip_limit=111))
    assert len(case.program.claims) == 2
    assert case.check().verdict is Verdict.ACCEPT
    case = Case(collatz, PARAMS, X, np.int32(27), policy=replace(FEW, trip_limit=110))
    report = case.check()
    assert (report.verdict, report.reason) == (Verdict.INDETERMINATE, "trip-limit")
    with pytest.raises(errors.Undecided):
        report.require()

    def bump(c: Any) -> None:
        c[0, 0] += 1

    # A claim before the loop is wrong whatever the loop would have given.
    assert case.check(claims=case.changed(0, bump)).verdict is Verdict.REJECT


# Discontinuous glue.


def wrapped(p: Any, x: Any) -> Any:
    return reinterpreted(jnp.tanh(x @ p["square"])) @ p["other"]


def test_discontinuous_glue_is_listed_and_never_rejects() -> None:
    case = Case(wrapped, PARAMS, X)
    first, second = case.program.claims
    assert not first.discontinuities
    assert second.discontinuities == {"bitcast_convert_type"}
    assert "bitcast_convert_type" in str(case.program)
    assert case.check().coverage.discontinuities == ("bitcast_convert_type",)

    def bump(c: Any) -> None:
        c[0, 0] += 1

    claims = case.changed(1, bump)
    report = case.check(claims[1], claims)
    assert (report.verdict, report.reason) == (Verdict.INDETERMINATE, "discontinuous-glue")
    assert case.check(claims=case.changed(0, bump)).verdict is Verdict.REJECT


def test_near_ties_never_reject() -> None:
    def route(p: Any, x: Any) -> Any:
        scores = jnp.tanh(x @ p["square"]) * 1e-3 + 1.0
        scores = jnp.round(scores * 256) / 256  # ties everywhere
        gate = jax.nn.one_hot((scores + 1e-8 * jnp.sin(1e3 * x)).argmax(-1), WIDTH)
        return (x * gate) @ p["other"], gate.argmax(-1)

    case = Case(route, PARAMS, X)
    for y, trace in ((case.y, case.trace), case.op_by_op()):
        assert case.check(y, trace).verdict is not Verdict.REJECT
    y = (case.y[0], (case.y[1] + 1) % WIDTH)
    report = case.check(y)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "output-mismatch")


def test_the_argmax_of_a_claim_is_exact() -> None:
    def greedy(p: Any, x: Any) -> Any:
        return jnp.argmax(x @ p["wide"], axis=-1)

    case = Case(greedy, PARAMS, X)
    assert case.program.coverage.discontinuities == ()
    report = case.check(np.array(case.y) + 1)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "output-mismatch")


def test_operands_that_are_not_finite_are_indeterminate() -> None:
    def fn(p: Any, x: Any) -> Any:
        return jnp.log(x) @ p["square"]

    case = Case(fn, PARAMS, np.abs(X) * (X > 0))
    report = case.check()
    assert (report.verdict, report.reason) == (Verdict.INDETERMINATE, "nonfinite-operand")


# Laws.


def test_execute_and_statistics_commute_with_vmap(model: Case) -> None:
    batch = jnp.stack([X, X[::-1], 2 * X])
    y, trace = jax.jit(jax.vmap(model.program.execute, in_axes=(None, 0)))(PARAMS, batch)
    findings, mine = jax.jit(
        jax.vmap(lambda x, y, t: model.program.statistics(model.key, x, y=y, trace=t))
    )(batch, y, trace)
    for i in range(3):
        one = Trace(values=tuple(c[i] for c in trace.values))
        report = model.program.check(model.key, batch[i], y=y[i], trace=one)
        assert report.verdict is Verdict.ACCEPT
        np.testing.assert_allclose(mine[i], report.y, rtol=1e-5)
        for index, result in enumerate(report.results[:3]):
            worst = float(findings.statistics[index].worst[i])
            np.testing.assert_allclose(worst, result.worst, rtol=0.2, atol=1e-3)
    assert np.all([s.passed for s in findings.statistics.values()])


@pytest.mark.compiled
def test_execute_and_statistics_export(model: Case) -> None:
    execute = jax.jit(model.program.execute)
    again = jax.export.deserialize(jax.export.export(execute)(PARAMS, X).serialize())
    jax.tree.map(np.testing.assert_array_equal, again.call(PARAMS, X), execute(PARAMS, X))
    with jax.enable_x64(True):
        check = jax.jit(
            lambda k, x, y, t: model.program.statistics(k, x, y=y, trace=t)[0].statistics[0]
        )
        plain = jax.export.export(check, disabled_checks=())(model.key, X, model.y, model.trace)
        assert bool(plain.call(model.key, X, model.y, model.trace).passed)


def test_public_challenge(model: Case) -> None:
    log = challenge.CommitmentLog()
    log.append(b"c" * 32)
    closed = log.close(chain="beacon", closed_at=7)
    beacon = challenge.Beacon(chain="beacon", round=8, value=b"v" * 32)
    public = challenge.public(
        closed,
        beacon,
        program=model.program.id,
        policy=FEW.id,
        parameters=program.parameter_root(PARAMS),
    )
    key = model.program.setup(PARAMS, public)
    assert key.header.parameters == program.parameter_root(PARAMS)
    report = model.program.check(key, X, y=model.y, trace=model.trace)
    assert report.verdict is Verdict.ACCEPT

    def integers(p: Any, x: Any) -> Any:
        return lax.dot(x, p, preferred_element_type=jnp.int32)

    p, x = (RNG.integers(-128, 128, (n, WIDTH)).astype(np.int8) for n in (WIDTH, 8))
    int8 = Case(integers, p, x)
    key = int8.program.setup(int8.params, public)
    assert int8.program.check(key, x, y=int8.y, trace=int8.trace).reason == "ok"


def test_the_key_holds_no_weight_and_nothing_cheap_to_rebuild() -> None:
    table = weights(2 * ROWS, WIDTH)  # so small that a lookup would take more bytes

    def fn(p: Any, tokens: Any) -> Any:
        mask = jnp.where(jnp.tril(jnp.ones((ROWS, ROWS), bool)), 0.0, -1e9)
        x = jnp.asarray(table)[tokens] + jnp.broadcast_to(p["scale"], (ROWS, WIDTH))
        x = jax.nn.softmax((x @ p["square"]) @ x.T + mask) @ x
        return x @ p["other"].T

    case = Case(fn, PARAMS, np.arange(ROWS, dtype=np.int32))
    assert case.check().verdict is Verdict.ACCEPT
    assert case.program.kept == {"constant 0": table.nbytes, "params['scale']": WIDTH * 4}
    assert case.key.nbytes < table.nbytes + 8 * 4 * (3 * WIDTH + 2 * ROWS) * 8
    assert "constant 0" in str(case.program)


def test_the_text_says_what_each_kind_of_claim_is() -> None:
    def fn(p: Any, x: Any) -> Any:
        h = x @ p
        narrow = jnp.tanh(h).astype(jnp.bfloat16) @ p.astype(jnp.bfloat16)
        return jnp.where(h > 0, h, 0.5 * h).argmax(-1), narrow

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 64), (32, 64))]
    lines = str(program.compile(fn, *shapes)).splitlines()
    for kinds, meaning in (
        ("dot_general", "product, tested with random vectors"),
        ("convert_element_type", "committed rounding"),
        ("argmax", "committed decision, bits, indices or trips"),
    ):
        [line] = [line for line in lines if meaning in line]
        assert kinds in line.split(":")[0].split(", ")


def test_report_prints_what_was_covered(model: Case) -> None:
    report = model.check()
    text = str(report)
    assert "accept" in text
    assert model.program.claims[0].name in text
    assert report.coverage.checked == sum(c.work for c in model.program.claims)
    assert 0.9 < report.coverage.share < 1
    assert report.bound is not None
    assert report.bound.acceptance(report.bound.kappa(1e-9)) == pytest.approx(1e-9, rel=1e-6)
