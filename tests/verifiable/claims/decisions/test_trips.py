"""Trips of loops as claims: honest devices, cheats in the number of trips, ties, NaN, budgets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.scipy.sparse.linalg import cg

from tests.helpers.accusations import against
from tests.helpers.runs import ACCEPT, INDETERMINATE, REJECT, SECRET_SEED
from verifiable import challenge, program
from verifiable.check import execute
from verifiable.check.compiled import CheckArguments
from verifiable.check.judging.evidence import verify_evidence
from verifiable.check.specification import Target
from verifiable.claims.claim import Claim
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Env, Equation
from verifiable.policy import Policy
from verifiable.report import Report
from verifiable.trace import Trace, commit

ROWS, WIDTH = 6, 48
LARGEST = 2**31 - 1
POLICY = Policy(draws=1, trip_limit=100)
RNG = np.random.default_rng(11)
W = (RNG.standard_normal((3, WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
W[1] *= 0.3
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)


def settled(w: Any, x: Any, tolerance: float = 1e-4) -> Any:
    """A fixed point within at most 30 trips, and how many there were."""
    drive = x @ w[0]

    def go_on(state: Any) -> Any:
        return (state[2] < 30) & (jnp.max(jnp.abs(state[0] - state[1])) > tolerance)

    def step(state: Any) -> Any:
        return jnp.tanh(state[0] @ w[1] + drive), state[0], state[2] + 1

    z, _, count = lax.while_loop(go_on, step, (jnp.tanh(drive), jnp.zeros_like(drive), 0))
    return z @ w[2], count


def halved(start: Any) -> Any:
    """As many halvings as it takes to be below one."""
    return lax.while_loop(lambda c: c.max() > 1, lambda c: c * 0.5, start)


def made(fn: Callable[..., Any], x: Any, policy: Policy = POLICY) -> SimpleNamespace:
    compiled = program.compile(fn, W, x, policy=policy)
    [index] = [c.index for c in compiled.claims if c.primitive == "while"]

    def emit(claim: Claim, equation: Equation, env: Env, trips: Any) -> Any:
        if trips is None:
            return execute.honest(claim, equation, env)
        claim.prepare(trips, env, 1e-5, 70, interpret.apply)
        return claim.outputs(trips, env), trips

    def run(x: Any, given: Any) -> Any:
        env, block = compiled.bind(W, (x,)), compiled.function.block
        y, found = execute.execute(block, compiled.analysis, env, emit=emit, given=given)
        return compiled.unflatten(y), [found[c.index] for c in compiled.claims]

    honest = jax.device_get(jax.jit(compiled.execute)(W, x))
    return SimpleNamespace(
        program=compiled,
        key=compiled.setup(W, challenge.secret(SECRET_SEED)),
        x=x,
        y=honest[0],
        values=honest[1].values,
        index=index,
        run=jax.jit(run),
    )


def checked(case: SimpleNamespace, y: Any, values: Any) -> Report:
    return case.program.check(case.key, case.x, y=y, trace=list(values))


def sent(case: SimpleNamespace, trips: Any) -> tuple[Any, Any]:
    """Answer and trace of a device that makes as many trips as it is told, and goes on."""
    with jax.enable_x64(True):
        return jax.device_get(case.run(case.x, {case.index: np.asarray(trips, np.int32)}))


@functools.cache
def fixed_point() -> SimpleNamespace:
    return made(settled, X)


@functools.cache
def never_settled() -> SimpleNamespace:
    """A fixed point of each example, to the last bit."""

    def each(w: Any, x: Any) -> Any:
        return jax.vmap(functools.partial(settled, w, tolerance=0.0))(x)

    return made(each, X)


def test_the_number_of_trips_is_committed_and_nothing_is_left_behind_it():
    case = fixed_point()
    assert not case.program.coverage.discontinuities
    assert not any(c.discontinuities for c in (*case.program.claims, *case.program.outputs))
    trips = case.values[case.index]
    assert (trips.shape, trips.dtype) == ((), np.int32)
    plain = jax.device_get(jax.jit(settled)(W, X))
    jax.tree.map(np.testing.assert_array_equal, case.y, plain)
    assert 5 < trips == plain[1] < 25
    assert checked(case, case.y, case.values).verdict is ACCEPT
    with jax.disable_jit():
        y, trace = case.program.execute(W, X)
    assert checked(case, y, trace.values).verdict is ACCEPT


@pytest.mark.parametrize(
    ("trips", "reason"),
    [
        (0, "decision-mismatch"),
        (-1, "claim-range"),
        (LARGEST, "decision-mismatch"),
        (31, "decision-mismatch"),
        ("one less", "decision-mismatch"),
        ("one more", "decision-mismatch"),
    ],
)
def test_another_number_of_trips_is_rejected(trips: Any, reason: str):
    """Cheat: the loop ends early, late or never, and everything after it follows."""
    case = fixed_point()
    own = int(case.values[case.index])
    trips = {"one less": own - 1, "one more": own + 1}.get(trips, trips)
    report = checked(case, *sent(case, trips))
    assert (report.verdict, report.reason) == (REJECT, reason), report
    assert report.claim == case.program.claims[case.index].name


@pytest.mark.parametrize(
    ("trips", "verdict", "reason"),
    [
        ("one less", INDETERMINATE, "ill-conditioned"),
        (18, INDETERMINATE, "ill-conditioned"),
        (2, REJECT, "decision-mismatch"),
        (31, REJECT, "decision-mismatch"),
    ],
)
def test_a_tolerance_below_rounding_rejects_no_honest_device(trips: Any, verdict: Any, reason: str):
    """Honest: the iteration stands still a trip sooner or later, or never. Cheat: long before."""
    case = never_settled()
    numbers = case.values[case.index] - 1 if trips == "one less" else np.full(ROWS, trips)
    report = checked(case, *sent(case, numbers))
    assert (report.verdict, report.reason) == (verdict, reason), report


@functools.cache
def drifting() -> SimpleNamespace:
    """A fixed point of each example to the last bit, and a sum that grows with each trip."""

    def each(w: Any, x: Any, rate: Any) -> Any:
        drive = x @ w[0]

        def go_on(state: Any) -> Any:
            return (state[2] < 30) & (jnp.max(jnp.abs(state[0] - state[1])) > 0)

        def step(state: Any) -> Any:
            z, _, count, total = state
            return jnp.tanh(z @ w[1] + drive), z, count + 1, total + rate

        start = jnp.tanh(drive), jnp.zeros_like(drive), 0, jnp.float32(0)
        z, _, _, total = lax.while_loop(go_on, step, start)
        return z @ w[2], total

    rate = np.zeros(ROWS, np.float32)
    return made(lambda w, x: jax.vmap(each, (None, 0, 0))(w, *x), (X, rate))


@pytest.mark.parametrize(
    ("trips", "rate", "verdict", "reason"),
    [
        (18, 0, ACCEPT, "ok"),
        (18, 1, INDETERMINATE, "ill-conditioned"),
        (9, 0, INDETERMINATE, "ill-conditioned"),
        (6, 0, REJECT, "decision-mismatch"),
        (0, 0, REJECT, "decision-mismatch"),
        (31, 0, REJECT, "decision-mismatch"),
    ],
)
def test_a_number_is_allowed_where_it_changes_nothing_after_the_loop(
    trips: int, rate: float, verdict: Any, reason: str
):
    """Honest: stands still earlier. Cheat: half the trips, none, too many; or the answer follows.

    The answer of one example follows from the number: the others shelter nothing.
    """
    case = drifting()
    rates = np.where(np.arange(ROWS) == 2, rate, 0).astype(np.float32)
    case = SimpleNamespace(**{**vars(case), "x": (X, rates)})
    report = checked(case, *sent(case, np.full(ROWS, trips)))
    assert (report.verdict, report.reason) == (verdict, reason), report


@pytest.mark.parametrize(("trips", "guilty"), [(31, False), (2, True)])
def test_a_number_that_changes_nothing_is_no_evidence(trips: int, guilty: bool):
    case = drifting()
    y, values = sent(case, np.full(ROWS, trips))
    changed = Trace(values=tuple(values))
    run = case.program.prove(W, case.x)
    run = replace(run, y=y, trace=changed, commitment=commit(y, changed).commitment)
    evidence = against(case.program, run, index=case.index)
    found = verify_evidence(evidence, case.program, W, case.x)
    assert (found.guilty, found.excess == 1.0) == (guilty, not guilty)


def test_a_claim_after_a_loop_is_rejected():
    """Cheat: the product after the loop is made up."""
    case = fixed_point()
    values = [np.array(v) for v in case.values]
    values[-1][3] *= 1.01
    report = checked(case, (values[-1], case.y[1]), values)
    assert (report.verdict, report.reason) == (REJECT, "claim-mismatch"), report


def test_a_number_far_from_a_tie_is_evidence():
    case = fixed_point()
    cheat = sent(case, int(case.values[case.index]) - 2)
    honest = case.program.prove(W, X)
    for (y, values), guilty in ((cheat, True), ((case.y, case.values), False)):
        changed = Trace(values=tuple(values))
        committed = commit(y, changed).commitment
        run = replace(honest, y=y, trace=changed, commitment=committed)
        evidence = against(case.program, run, index=case.index)
        assert verify_evidence(evidence, case.program, W, X).guilty is guilty


# ------------------------------------------------------------------------------------ budgets


def test_more_trips_than_the_budget_are_indeterminate():
    """Honest: more trips than the verifier makes, or no end at all. Cheat: as many claimed."""
    case = made(lambda w, x: halved(jnp.abs(x @ w[0]) * 2.0**20) @ w[2], X)
    assert int(case.values[case.index]) > 17
    assert checked(case, case.y, case.values).verdict is ACCEPT
    short = Policy(draws=1, trip_limit=15)
    other = SimpleNamespace(**{**vars(case), "program": case.program.with_policy(short)})
    other.key = other.program.setup(W, challenge.secret(SECRET_SEED))
    for trips in (case.values[case.index], np.int32(LARGEST)):
        values = list(case.values)
        values[case.index] = trips
        report = checked(other, case.y, values)
        assert (report.verdict, report.reason) == (INDETERMINATE, "trip-limit"), report
    values[case.index] = np.int32(12)
    assert checked(other, case.y, values).verdict is REJECT


# ------------------------------------------------------------------------------- where it stands


def around(w: Any, x: Any) -> Any:
    """Loops of examples, of iterations and in branches."""
    h = x @ w[0]
    each = jax.vmap(halved)(jnp.exp2(3 * h) + 1)

    def turn(carry: Any, u: Any) -> Any:
        carry = lax.cond(u > 0, lambda: jax.vmap(halved)(carry * u), lambda: carry)
        return carry + 1, None

    return (lax.scan(turn, each, jnp.asarray([900.0, 0.0, 70.0]))[0] - h) @ w[2]


@functools.cache
def everywhere() -> SimpleNamespace:
    compiled = program.compile(around, W, X, policy=POLICY)
    y, trace = jax.device_get(jax.jit(compiled.execute)(W, X))
    key = compiled.setup(W, challenge.secret(SECRET_SEED))
    return SimpleNamespace(program=compiled, key=key, x=X, y=y, values=trace.values)


def test_examples_iterations_and_branches_have_numbers_of_their_own():
    case = everywhere()
    one, two = (v for v in case.values if v.dtype == np.int32)
    assert (one.shape, two.shape) == ((ROWS,), (3, ROWS))
    assert len(np.unique(one)) > 1
    assert np.all(two[0] > two[2]) and np.all(two[2] > 0) and not two[1].any()
    assert not case.program.coverage.discontinuities
    assert checked(case, case.y, case.values).verdict is ACCEPT
    with jax.disable_jit():
        y, trace = case.program.execute(W, X)
    assert checked(case, y, trace.values).verdict is ACCEPT


@pytest.mark.parametrize(
    ("which", "place", "reason"),
    [(0, 2, "decision-mismatch"), (1, (2, 3), "decision-mismatch"), (1, (1, 0), "claim-untaken")],
)
@pytest.mark.parametrize("more", [1, 10**9])
def test_one_of_many_numbers_is_rejected(which: int, place: Any, reason: str, more: int):
    """Cheat: one example, one iteration, or a branch that was not taken, has trips too many.

    That the verifier cuts a loop of an iteration short shelters nothing.
    """
    case = everywhere()
    index = [c.index for c in case.program.claims if c.primitive == "while"][which]
    values = [np.array(v) for v in case.values]
    values[index][place] += more
    report = checked(case, case.y, values)
    assert (report.verdict, report.claim) == (REJECT, case.program.claims[index].name), report
    assert next(r.reason for r in report.results if r.name == report.claim) == reason


@pytest.mark.parametrize(("iteration", "seen"), [(0, False), (2, True)])
def test_nothing_is_looked_at_after_the_iteration_in_which_a_loop_was_cut_short(
    iteration: int, seen: bool
):
    case = everywhere()
    [_, index] = [c.index for c in case.program.claims if c.primitive == "while"]
    values = [np.array(v) for v in case.values]
    values[index][2, 3] += 2
    run = CheckArguments.of(case.key, (X,), case.y, Trace(values=tuple(values)))
    look = case.program.compiled_check.second_look
    found = look.look(run, Target(output=False, index=index), last=iteration)
    assert found.wrong is seen
    assert not seen or (found.trip, found.row) == (2, 3)


# ---------------------------------------------------------------------------------- ties and NaN


def doubled(w: Any, x: Any) -> Any:
    """For each x, a loop that starts at 0.3 h + 0.7 h and ends above h x."""
    h = jnp.exp((x @ w[0])[0, 0])

    def one(carry: Any, limit: Any) -> Any:
        end = lax.while_loop(lambda c: c < h * limit, lambda c: c * 2, h * 0.3 + h * 0.7)
        return carry + end, end

    return lax.scan(one, h * 0, x[:, 0])[1] @ w[2, :ROWS]


@pytest.mark.parametrize(("flips", "verdict"), [(1, ACCEPT), (ROWS, REJECT)])
def test_a_tie_may_be_decided_either_way_and_ties_are_counted(flips: int, verdict: Any):
    """Cheat: where the limit is 2^-18 above the start, no trip, in one loop or in all of them."""
    x = X.copy()
    x[:, 0] = 1 + 2.0**-18
    case = made(doubled, x)
    assert np.all(case.values[case.index] == 1)
    report = checked(case, *sent(case, (np.arange(ROWS) >= flips).astype(np.int32)))
    assert report.verdict is verdict, report
    assert report.reason == ("ok" if verdict is ACCEPT else "decision-ties")
    assert next(r.flips for r in report.results if r.name.endswith("while")) == flips


def rooted(w: Any, x: Any) -> Any:
    """The condition of the loop is NaN on inputs that sum up to less than zero."""
    size = jnp.sqrt(x.sum())
    z = lax.while_loop(lambda c: jnp.tanh(c[0, 0]) * size > 0, lambda c: c - 1, x @ w[0])
    return z @ w[2]


@pytest.mark.parametrize(("trips", "verdict"), [(0, ACCEPT), (3, REJECT), (LARGEST, REJECT)])
def test_a_condition_that_is_nan_shelters_nothing(trips: int, verdict: Any):
    """Cheat: trips after a condition that is NaN on every device, which ends the loop."""
    x = X - np.float32(X.mean() + 1)
    case = made(rooted, x)
    assert case.values[case.index] == 0
    report = checked(case, *sent(case, trips))
    assert report.verdict is verdict, report


def test_a_loop_in_a_narrow_type_makes_as_many_trips_as_it_should():
    """Its sums grow with every trip; a slack of half of what is compared allows any number."""

    def settle(w: Any, x: Any) -> Any:
        x, narrow = x.astype(jnp.bfloat16), w[1].astype(jnp.bfloat16)

        def step(state: Any) -> Any:
            z = jnp.tanh(state[0] @ narrow + x)
            return z, jnp.max(jnp.abs(z - state[0])).astype(jnp.float32)

        start = jnp.zeros_like(x), jnp.float32(1)
        return lax.while_loop(lambda s: s[1] > 0.01, step, start)[0].astype(jnp.float32) @ w[2]

    case = made(settle, X)
    assert checked(case, case.y, case.values).verdict is ACCEPT
    assert checked(case, *sent(case, 0)).reason == "decision-mismatch"
    assert checked(case, 1.3 * case.y, case.values).reason == "output-mismatch"


def test_a_solver_shelters_nothing():
    """Conjugate gradients: JAX holds the loop as a function among the parameters of a primitive."""

    def solve(w: Any, x: Any) -> Any:
        found, _ = cg(lambda v: v + w[1].T @ (w[1] @ v), x[0] @ w[0], tol=1e-4, maxiter=40)
        return found @ w[2]

    case = made(solve, X)
    assert not case.program.coverage.discontinuities
    assert checked(case, case.y, case.values).verdict is ACCEPT
    assert checked(case, 1.01 * case.y, case.values).reason == "output-mismatch"
    assert checked(case, *sent(case, 1)).reason == "decision-mismatch"


# ------------------------------------------------------------------------------- what is a claim


def compiled(fn: Callable[[Any], Any]) -> program.Program:
    return program.compile(lambda w, x: fn(x @ w[0]), W, X, policy=POLICY)


LOOPS: dict[str, tuple[Callable[[Any], Any], int, tuple[str, ...]]] = {
    "a counter": (lambda h: lax.fori_loop(0, jnp.int32(h.size), lambda i, c: c * i, h), 0, ()),
    "traced bounds": (
        lambda h: lax.fori_loop(0, jnp.argmax(h[0]), lambda i, c: c * 0.5, h),
        0,
        (),
    ),
    "a test for NaN": (lambda h: lax.while_loop(lambda c: ~jnp.isnan(c).any(), jnp.log, h), 0, ()),
    "all and any": (
        lambda h: lax.while_loop(
            lambda c: ~jnp.all(c < 1) | (jnp.any(c > 2) != (c.min() > 1)), lambda c: c * 0.5, h
        ),
        1,
        (),
    ),
    "a flag": (
        lambda h: lax.while_loop(lambda s: ~s[1], lambda s: (s[0] / 2, s[0].max() < 1), (h, False))[
            0
        ],
        1,
        (),
    ),
    "a carry that starts as a number of Python": (
        lambda h: lax.while_loop(
            lambda s: (s[0] > 1e-5) & (s[1] < 9),
            lambda s: (jnp.abs(s[2]).max(), s[1] + 1, jnp.sin(s[2])),
            (jnp.inf, 0, h),
        )[2],
        1,
        (),
    ),
    "a flag that is a number": (
        lambda h: lax.while_loop(
            lambda s: (s[1] != 0) & (jnp.stack([s[0].max() > 1, s[0].min() > 1]).max()),
            lambda s: (s[0] / 2, (s[0].max() > 1.5).astype(jnp.float32) * jnp.float32(1)),
            (h, jnp.float32(1)),
        )[0],
        1,
        (),
    ),
    "a number that is no boolean": (
        lambda h: lax.while_loop(
            lambda s: s[1] > 0, lambda s: (s[0] / 2, jnp.where(s[0].max() > 1, 1, -1)), (h, 1)
        )[0],
        0,
        ("gt",),
    ),
    "a number of comparisons": (
        lambda h: lax.while_loop(lambda c: (c > 1).sum() > 3, lambda c: c * 0.5, h),
        0,
        ("gt",),
    ),
    "a comparison in the body": (
        lambda h: lax.while_loop(lambda c: c.max() > 1, lambda c: jnp.where(c > 0, c / 2, c), h),
        1,
        ("gt",),
    ),
    "a loop in a loop": (
        lambda h: lax.while_loop(lambda c: c.max() > 1, lambda c: halved(c) * 0.9, h),
        1,
        ("gt",),
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_which_loops_are_claims(name: str):
    fn, claims, left = LOOPS[name]
    found = compiled(fn)
    assert sum(c.primitive == "while" for c in found.claims) == claims
    assert tuple(n.rsplit("/")[-1][:2] for n in found.coverage.discontinuities) == left
    assert ("discontinuity" in str(found)) == bool(left)


def test_a_flag_that_is_returned_is_the_verifiers_own():
    """Only it is left behind a discontinuity."""

    def fn(h: Any) -> Any:
        state = (h, False)
        return lax.while_loop(lambda s: ~s[1], lambda s: (s[0] / 2, s[0].max() < 1), state)

    z, done = compiled(fn).outputs
    assert not z.discontinuities
    assert done.discontinuities
