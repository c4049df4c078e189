"""Decision claims: single elements against a slow oracle, committed bits, programs and cheats."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import verifiable as vf
from tests.helpers.contractions import equation_of
from tests.helpers.runs import Run
from verifiable import challenge, trace
from verifiable.check.judging.evidence import evidence_of, verify_evidence
from verifiable.claims.decisions.decision import COMPARISONS, Comparison, DecisionForm, Sign
from verifiable.claims.form import Yardstick
from verifiable.claims.origin import SMALL
from verifiable.policy import Policy
from verifiable.report import Report, Verdict

F32 = np.dtype(np.float32)
INF, NAN = math.inf, math.nan
EPS = 2.0**-16

# ------------------------------------------------------------------------ one row, by oracle


def slack_of(row: list[float], x: float, eps: float) -> float:
    """eps (|x| + rms) + tiny, from the text; an infinity has only tiny."""
    tiny = float(np.finfo(F32).tiny)
    if not math.isfinite(x):
        return tiny
    finite = [v for v in row if math.isfinite(v)]
    rms = math.sqrt(sum(v * v for v in finite) / len(finite))
    return eps * min(abs(x) + rms, float(np.finfo(F32).max)) + tiny


def ratio(distance: float, slack: float, *, equal: bool) -> float:
    if equal:
        return 0.0
    return distance / slack if slack else INF


def expected(
    kind: str, rows: list[list[float]], decided: list[Any], eps: float, *, least: float = 0
) -> list[float]:
    """The ratio of each element, NaN where nothing is shown; distances below `least` are 0."""
    found: list[float] = []
    for values, c in zip(zip(*rows, strict=True), decided, strict=True):
        if any(math.isnan(v) for v in values):
            own = bool(COMPARISONS[kind](*values)) if kind != "sign" else 2
            found.append(0.0 if c == own else NAN)
            continue
        slack = sum(slack_of(row, v, eps) for row, v in zip(rows, values, strict=True))
        if kind == "sign":
            [v] = values
            own = (v > 0) - (v < 0)
            allowed = c == own or c in (0, -own) or (own == 0 and c in (-1, 1))
            distance = abs(v) if abs(v) >= least else 0.0
            found.append(ratio(distance, slack, equal=c == own) if allowed else INF)
        else:
            a, b = values
            own = bool(COMPARISONS[kind](a, b))
            distance = INF if a == b and math.isinf(a) else abs(a - b)
            distance = distance if distance >= least else 0.0
            found.append(ratio(distance, slack, equal=c == own))
    return found


@functools.cache
def judged(kind: str, columns: int) -> tuple[DecisionForm, Callable[..., Any]]:
    if kind == "sign":
        form: DecisionForm = Sign(shape=(columns,), dtype=F32)
    else:
        form = Comparison(kind=kind, shape=(columns,), dtype=F32, inexact=(True, True))

    def one(operands: Any, committed: Any) -> Any:
        with jax.enable_x64(True):
            return form.test(operands, committed, Yardstick(eps=EPS))

    return form, jax.jit(one)


NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 3.5, INF, -INF, NAN, 3e37, -3e37, 1e-40]),
    st.floats(-8, 8, width=32),
)


@pytest.mark.parametrize("kind", [*COMPARISONS, "sign"])
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_decision_passes_iff_it_is_right_or_its_operands_are_close(kind: str, data: Any):
    columns = data.draw(st.sampled_from([1, 11]))
    row = [data.draw(NUMBERS) for _ in range(columns)]
    rows = [row]
    if kind != "sign":
        moved = st.one_of(NUMBERS, st.none())  # none: near the first operand
        drawn = [data.draw(moved) for _ in row]
        near = [x * (1 + data.draw(st.floats(-4, 4)) * EPS) for x in row]
        rows.append([n if d is None else d for d, n in zip(drawn, near, strict=True)])
    choices = st.integers(-2, 3) if kind == "sign" else st.booleans()
    as_the_oracle_does(kind, rows, [data.draw(choices) for _ in row])


@pytest.mark.parametrize("kind", [*COMPARISONS, "sign"])
def test_every_decision_on_numbers_far_apart(kind: str):
    numbers = [0.0, 1.0, -1.0, 3e37, -3e37, INF, -INF, NAN]
    for operands in itertools.product(numbers, repeat=1 if kind == "sign" else 2):
        for decided in range(-2, 4) if kind == "sign" else (False, True):
            as_the_oracle_does(kind, [[x] for x in operands], [decided])


def as_the_oracle_does(kind: str, rows: list[list[float]], decided: list[Any]) -> None:
    """Judge one row of decisions, and compare all that is found with the oracle."""
    rows = [[float(np.float32(x)) for x in r] for r in rows]
    _, test = judged(kind, len(decided))
    out = np.asarray(decided, np.int8 if kind == "sign" else bool)
    committed = out if kind == "sign" else np.packbits(out, bitorder="little")
    found = test([np.asarray(r, F32) for r in rows], committed)
    valid = kind != "sign" or all(-1 <= c <= 2 for c in decided)
    nan_of_a_number = any(
        c == 2 and not math.isnan(v) for c, v in zip(decided, rows[0], strict=True)
    )
    assert bool(found.in_range) == valid
    assert bool(found.finite_claim) == (kind != "sign" or not nan_of_a_number)
    if not valid or (kind == "sign" and nan_of_a_number):
        return
    ratios = expected(kind, rows, decided, EPS)
    undecided = any(map(math.isnan, ratios))
    assert bool(found.finite_operands) == (not undecided)
    worst = max((r for r in ratios if not math.isnan(r)), default=0.0)
    assert worst or float(found.worst) == 0
    if abs(worst - 1) > 1e-3:
        assert bool(found.passed) == (worst <= 1), (rows, decided, ratios)
        if 0.05 < worst < 100:
            # A device may flush a distance that is a subnormal number.
            flushed = expected(kind, rows, decided, EPS, least=float(np.finfo(F32).tiny))
            ends = worst, max((r for r in flushed if not math.isnan(r)), default=0.0)
            assert np.isclose(float(found.worst), ends, rtol=1e-3, atol=0).any(), ends


@pytest.mark.parametrize("shape", [(), (1,), (8,), (9,), (11,), (0,), (3, 16), (2, 0), (2, 3, 5)])
def test_booleans_are_bits_of_bytes_along_the_last_axis(shape: tuple[int, ...]):
    form = Comparison(kind="lt", shape=shape, dtype=F32, inexact=(True, False))
    out = np.random.default_rng(0).random(shape) < 0.5
    assert form.decisions == out.size
    packed = np.asarray(form.pack(jnp.asarray(out)))
    assert (packed.shape, packed.dtype) == form.packed(shape, np.dtype(bool))
    rows, columns = math.prod(shape[:-1]), math.prod(shape[-1:])
    flat = out.reshape(rows, columns)
    for row, bits in zip(flat, packed.reshape(rows, -(-columns // 8)), strict=True):
        for j, i in np.ndindex(len(bits), 8):
            bit = 8 * j + i < len(row) and row[8 * j + i]
            assert bits[j] >> i & 1 == bit
    np.testing.assert_array_equal(form.unpack(jnp.asarray(packed)), out)


@pytest.mark.parametrize("columns", [3, 8, 11])
def test_a_bit_beyond_the_axis_makes_all_of_its_row_invalid_and_no_other(columns: int):
    size = -(-columns // 8)
    form = Comparison(kind="lt", shape=(8 * size, 3, columns), dtype=F32, inexact=(True, True))
    claim, expected_ = np.zeros((8 * size, 3, size), np.uint8), np.zeros(form.shape, bool)
    for bit in range(8 * size):
        claim[bit, 1, bit // 8] = 1 << bit % 8
        expected_[bit, 1, bit:] = np.arange(columns)[bit:] == bit
    decided, valid = map(np.asarray, form.read(jnp.asarray(claim)))
    np.testing.assert_array_equal(decided, expected_)
    assert np.all(valid[:, ::2])
    assert valid[:, 1].tolist() == [[bit < columns] * columns for bit in range(8 * size)]


@pytest.mark.parametrize("width", [16, 32])
def test_signs_keep_their_values(width: int):
    dtype = np.dtype(f"float{width}")
    form = Sign(shape=(4,), dtype=dtype)
    signs = np.asarray([-1, 0, 1, np.nan], dtype)
    assert form.decisions == 4
    committed = form.pack(jnp.asarray(signs))
    assert committed.dtype == np.int8
    np.testing.assert_array_equal(form.unpack(committed), signs)


def test_a_sign_of_no_number_is_unfounded_unless_it_is_the_verifiers_own():
    form, given = Sign(shape=(4,), dtype=F32), Yardstick(eps=EPS)
    values = np.array([NAN, NAN, 1.0, -3.0], F32)
    with jax.enable_x64(True):
        found = form.unfounded([values], np.array([2, 1, 0, 1], np.int8), given)
    assert found.tolist() == [[False], [True], [False], [False]]


INTERVALS: dict[str, tuple[DecisionForm, list[list[float]], list[float], list[Any], list[Any]]] = {
    # operands, the value that decides, what was committed, and the interval of that
    "true": (
        Comparison(kind="lt", shape=(3,), dtype=F32, inexact=(True, True)),
        [[1, 4, NAN], [3, 1, 0]],
        [2, -3, NAN],
        [True, True, True],
        [(0, INF)] * 3,
    ),
    "false": (
        Comparison(kind="lt", shape=(3,), dtype=F32, inexact=(True, True)),
        [[1, 4, NAN], [3, 1, 0]],
        [2, -3, NAN],
        [False, False, False],
        [(-INF, 0)] * 3,
    ),
    "signs": (
        Sign(shape=(7,), dtype=F32),
        [[2, 2, 2, -3, NAN, 2, 2]],
        [2, 2, 2, -3, NAN, 2, 2],
        [1, 0, -1, -1, 2, 2, 3],
        [(0, INF), (0, 0), (-INF, 0), (-INF, 0), (0, INF), (INF, -INF), (INF, -INF)],
    ),
}


@pytest.mark.parametrize("name", INTERVALS)
def test_the_interval_of_a_decision_holds_the_numbers_that_lead_to_it(name: str):
    """Of what no number leads to there is none; limits are slacks, and sizes those for an eps."""
    form, rows, values, decided, ends = INTERVALS[name]
    claim = np.asarray(decided, np.int8 if name == "signs" else bool)
    claim = claim if name == "signs" else np.packbits(claim, bitorder="little")
    with jax.enable_x64(True):
        operands = [jnp.asarray(row, F32) for row in rows]
        found = form.deviate(operands, jnp.asarray(claim), Yardstick(eps=EPS))
    slacks = [sum(slack_of(row, row[i], EPS) for row in rows) for i in range(len(values))]
    np.testing.assert_array_equal(found.expected[:, 0], values)
    np.testing.assert_array_equal(found.low[:, 0], [low for low, _ in ends])
    np.testing.assert_array_equal(found.high[:, 0], [high for _, high in ends])
    np.testing.assert_allclose(found.limit, slacks, rtol=1e-6)
    np.testing.assert_allclose(found.scale, np.divide(slacks, EPS), rtol=1e-6)


def test_a_tie_that_the_verifier_decides_otherwise_is_outside_of_the_interval():
    form = Comparison(kind="lt", shape=(2,), dtype=F32, inexact=(True, True))
    same = jnp.ones(2, F32)
    for decided, inside in ((True, False), (False, True)):
        claim = np.packbits([decided] * 2, bitorder="little")
        with jax.enable_x64(True):
            found = form.deviate([same, same], jnp.asarray(claim), Yardstick(eps=EPS))
        low, high = np.asarray(found.low), np.asarray(found.high)
        assert np.all((low <= 0) & (high >= 0)) == inside
        assert np.all(np.minimum(np.abs(low), np.abs(high)) < 1e-300)


def test_signs_are_apart_by_their_values_and_turn_to_another():
    form = Sign(shape=(3,), dtype=F32)
    values = np.array([1.0, -3.0, 2.0], F32)
    units = [slack_of(values.tolist(), float(x), SMALL) / SMALL for x in values]
    with jax.enable_x64(True):
        for place in range(3):
            other = values.copy()
            other[place] += 0.25
            found = [float(form.apart([values], [x])) for x in (values, other)]
            assert found == [0.0, pytest.approx(0.25 / units[place], rel=1e-4)]
    assert form.turn(np.array([1, -1, 0], np.int8)).tolist() == [2, 2, 1]


def test_shifts_of_any_size_decide_by_their_direction_and_none_leaves_the_decision():
    shift = np.array([-2.0, -0.25, 0.0, 0.0, 0.25, 2.0], F32)
    sign, out = Sign(shape=(6,), dtype=F32), np.array([1, 1, 1, -1, -1, -1], F32)
    found = sign.shifted([], out, shift, EPS, 1.0)
    assert found.dtype == F32
    assert found.tolist() == [-1, -1, 1, -1, 1, 1]
    comparison = Comparison(kind="lt", shape=(6,), dtype=F32, inexact=(True, True))
    assert comparison.turn(out > 0).tolist() == [1] * 6
    found = comparison.shifted([], out > 0, shift, EPS, 1.0)
    assert found.dtype == np.bool_
    assert found.tolist() == [False, False, True, False, True, True]


def test_a_flip_moves_a_decision_by_one_where_it_is_a_tie_and_else_by_nothing():
    form = Comparison(kind="lt", shape=(4,), dtype=F32, inexact=(True, True))
    a, b = (jnp.asarray(x, F32) for x in ([1, 1, 1, -1], [1, 1 + EPS, 2, 1]))
    assert form.room([a, b], None, a < b, EPS).tolist() == [1, 1, 0, 0]


def test_a_sign_near_zero_may_be_turned_to_the_other():
    form, v = Sign(shape=(4,), dtype=F32), jnp.asarray([1, -1, EPS / 4, 0], F32)
    assert form.room([v], None, jnp.sign(v), EPS).tolist() == [0, 0, 2, 1]


@pytest.mark.parametrize("kind", ["lt_to", "le_to"])
def test_in_the_total_order_no_number_is_beyond_infinity(kind: str):
    order = [-INF, -2.0, 0.0, 1e-30, 3.0, INF, NAN]
    for (i, a), (j, b) in itertools.product(enumerate(order), repeat=2):
        expected_ = i < j or (i == j and kind == "le_to")
        assert bool(COMPARISONS[kind](np.float32(a), np.float32(b))) is expected_


def test_rows_of_decisions_are_those_of_all_axes_but_the_last():
    form = Comparison(kind="lt", shape=(2, 2, 3), dtype=F32, inexact=(True, True))
    a, b = jnp.zeros((2, 2, 3), F32), jnp.ones((2, 2, 3), F32)
    for row in range(4):
        decided = np.ones((4, 3), bool)
        decided[row, 1] = False
        packed = np.packbits(decided.reshape(2, 2, 3), axis=-1, bitorder="little")
        with jax.enable_x64(True):
            found = form.test([a, b], jnp.asarray(packed), Yardstick(eps=EPS))
        assert (int(found.row), int(found.flips), bool(found.passed)) == (row, 1, False)


def test_a_tie_is_as_far_apart_as_the_slack_at_most():
    """Which is twice the smallest normal number where eps is zero."""
    form, least = Comparison(kind="lt", shape=(3,), dtype=F32, inexact=(True, True)), 2.0**-126
    a, b = jnp.zeros(3, F32), jnp.asarray([0, 2 * least, 3 * least], F32)
    claim = jnp.asarray(np.packbits([False, True, True], bitorder="little"))
    with jax.enable_x64(True):
        assert form.test([a, b], claim, Yardstick(eps=0.0)).ties == 2
        assert form.room([a, b], None, a < b, 0.0).tolist() == [1, 1, 0]


def test_a_smooth_decision_is_the_number_itself_and_does_not_move():
    values, others = np.array([-3.0, 0.0, 2.0], F32), np.array([1.0, 0.0, 1.0], F32)
    sign, comparison = Sign(shape=(3,), dtype=F32), judged("ge", 3)[0]
    cases: list[tuple[DecisionForm, Any, list[Any], list[float]]] = [
        (sign, jnp.sign, [values], [-1, 0, 1]),
        (comparison, lax.ge, [values, others], [0, 1, 1]),
    ]
    for form, function, inputs, expected_ in cases:
        equation = equation_of(function, *inputs)

        def smooth(*inputs: Any, form: DecisionForm = form, equation: Any = equation) -> Any:
            return form.smooth(equation, list(inputs), list(inputs))

        found, moved = jax.jvp(smooth, inputs, [np.ones(3, F32) for _ in inputs])
        assert (found.dtype, found.tolist(), moved.tolist()) == (F32, expected_, [0] * 3)


# ---------------------------------------------------------------------------------- programs

ROWS, WIDTH, LAYERS = 4, 32, 2
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.standard_normal((LAYERS, WIDTH, WIDTH)) / 4, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)
POLICY = Policy(draws=1)


def decides(w: Any, x: Any) -> Any:
    """Under `scan`, `cond` and `vmap`; a predicate; a sign; a cast; what is rounded for y."""

    def layer(h: Any, u: Any) -> tuple[Any, Any]:
        h = jnp.tanh(h @ u + 0.1)
        return jnp.where(h[:, :19].sum(axis=1, keepdims=True) > 0, h, -0.5 * h), h[0, 0]

    h, _ = lax.scan(layer, x, w)
    h = lax.cond(h.mean() > 0, lambda: h * jnp.sign(h - 0.1), lambda: jnp.where(h < 0, h, 0.0))
    gate = jax.vmap(lambda row: (row[:19] >= row[1:20]) & (row[:19] - row[2]).astype(bool))(h)
    return h[:, :19] * gate, jnp.floor(h * 4).astype(jnp.int32)


@functools.cache
def made() -> Run:
    return Run.of(decides, W, X, policy=POLICY)


def checked(values: Any, y: Any = None) -> Report:
    return made().check(made().y if y is None else y, tuple(values))


def named(kind: str) -> int:
    """Index of the last claim of a primitive that was made on the honest run."""
    c = made()
    pairs = zip(c.program.claims, c.claims, strict=True)
    decisions = [(c, v) for c, v in pairs if isinstance(c.form, DecisionForm) and v.any()]
    return [claim.index for claim, _ in decisions if claim.primitive == kind][-1]


def test_every_choice_of_floats_is_a_claim_and_nothing_is_left_behind_one():
    compiled = made().program
    kinds = sorted(c.primitive for c in compiled.claims if isinstance(c.form, DecisionForm))
    assert kinds == ["convert_element_type", "ge", "gt", "gt", "lt", "sign"]
    assert not compiled.coverage.discontinuities
    assert not any(x.discontinuities for x in (*compiled.claims, *compiled.outputs))
    assert all(c.dtype == np.uint8 for c in compiled.claims if c.primitive in COMPARISONS)


def test_what_all_devices_decide_alike_is_no_claim_and_zero_is_exact():
    """A cast to booleans compares with it: its slack is that of one operand."""

    def fn(w: Any, x: Any) -> Any:
        return jnp.tanh(jnp.where(x > 0, x, -x) @ w[0]).astype(bool)

    compiled = vf.compile(fn, W, X, policy=POLICY)
    [cast] = [c for c in compiled.claims if isinstance(c.form, DecisionForm)]
    assert cast.primitive == "convert_element_type"
    value = jnp.full((ROWS, WIDTH), 1.5 * 2.0**-126, F32)
    with jax.enable_x64(True):
        claim = cast.form.pack(value > 0)
        operands = [value] * len(cast.operands)
        assert cast.form.test(operands, claim, Yardstick(eps=0.0)).ties == 0


def test_honest_devices_are_accepted_and_return_the_plain_answer():
    c = made()
    assert checked(c.claims).verdict is Verdict.ACCEPT
    plain = jax.jit(decides)(W, X)
    jax.tree.map(np.testing.assert_array_equal, c.y, jax.device_get(plain))
    with jax.disable_jit():
        y, run = jax.device_get(c.program.execute(W, X))
    report = checked(run.values, y)
    assert report.verdict is Verdict.ACCEPT, report


def flipped(kind: str, mask: int = 0xFF) -> Callable[[], Any]:
    def cheat() -> Any:
        index = named(kind)
        values = list(made().claims)
        values[index] = values[index] ^ np.uint8(mask)
        return index, values

    return cheat


def coded(code: int) -> Callable[[], Any]:
    def cheat() -> Any:
        index = named("sign")
        values = [np.array(v) for v in made().claims]
        values[index][2, 3] = code
        return index, values

    return cheat


CHEATS: dict[str, tuple[Callable[[], Any], str]] = {
    "all decisions turned round": (flipped("ge", 0x01), "decision-mismatch"),
    "a predicate turned round": (flipped("gt", 0x01), "decision-mismatch"),
    "a cast to booleans turned round": (flipped("convert_element_type", 2), "decision-mismatch"),
    "bits beyond the axis": (flipped("ge", 0x80), "claim-range"),
    "a sign of another number": (coded(-3), "claim-range"),
    "a sign that is no code": (coded(3), "claim-range"),
    "the sign of NaN for a number": (coded(2), "claim-nonfinite"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_are_rejected(name: str):
    cheat, reason = CHEATS[name]
    index, values = cheat()
    report = checked(values)
    assert (report.verdict, report.reason) == (Verdict.REJECT, reason), report
    assert report.claim == made().program.claims[index].name


# ---------------------------------------------------------------------------- near a tie


def twins(w: Any, x: Any) -> Any:
    """The first 16 columns are equal in exact arithmetic; the others are not."""
    h = x @ w[0]
    n = h * lax.rsqrt(jnp.mean(h * h, axis=-1, keepdims=True))
    return jnp.where(n * 0.3 + n * 0.7 > n * (1 + (jnp.arange(WIDTH) > 15)), h, 2 * h) @ w[1]


@functools.cache
def tied() -> SimpleNamespace:
    compiled = vf.compile(twins, W, X, policy=POLICY)
    key = compiled.setup(W, challenge.secret(bytes(32)))
    return SimpleNamespace(program=compiled, key=key)


def sent(mask: Any) -> tuple[vf.Submission, Report]:
    """A device that turns some decisions round, and goes on with them."""
    c = tied()
    honest = jax.device_get(c.program.prove(W, X))
    index = next(claim.index for claim in c.program.claims if claim.primitive == "gt")
    values = list(honest.trace.values)
    bits = np.unpackbits(values[index], axis=-1, bitorder="little").astype(bool) ^ mask
    values[index] = np.packbits(bits, axis=-1, bitorder="little")
    h = np.asarray(values[0])
    y = np.asarray(jnp.where(bits, h, 2 * h) @ W[1])
    values[-1] = y
    changed = trace.Trace(values=tuple(values))
    run = vf.Submission(
        y=y,
        trace=changed,
        commitment=trace.commit(y, changed).commitment,
        program=c.program.id,
        parameters=vf.parameter_root(W),
    )
    return run, c.program.verify(c.key, X, run, commitment=run.commitment)


def test_a_tie_may_be_decided_either_way():
    for flips in (0, 1):
        mask = np.zeros((ROWS, WIDTH), bool)
        mask[1, :flips] = True
        _, report = sent(mask)
        assert report.verdict is Verdict.ACCEPT, report


def test_a_decision_beyond_the_slack_is_evidence():
    """Cheat: one decision that is no tie, and everything after it computed from it."""
    mask = np.zeros((ROWS, WIDTH), bool)
    mask[2, 20] = True
    run, report = sent(mask)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "decision-mismatch")
    assert next(r.row for r in report.results if r.name == report.claim) == 2
    evidence = evidence_of(tied().program, report, run)
    assert verify_evidence(evidence, tied().program, W, X).guilty


def test_calibration_measures_what_decides_and_not_the_ties_alone():
    form = Comparison(kind="gt", shape=(4,), dtype=F32, inexact=(True, False))
    assert form.observes
    a, b = np.asarray([3.0, 1.0, -1.0, 1.0], F32), np.zeros((), F32)
    apart = form.apart([a, b], [a * np.float32(1 + 2.0**-20), b])
    assert float(apart) == pytest.approx(2.0**-20 * 3 / (3 + math.sqrt(3)), rel=1e-3)
    assert float(form.apart([a, b], [a, b])) == 0
    assert float(form.apart([a, b], [a * np.nan, b])) == INF
