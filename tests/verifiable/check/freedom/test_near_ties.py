"""Choices that the tolerance of a claim could have decided: what is reported, and how often."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax import lax

from benchmarks.cheats import steered
from verifiable import challenge, program
from verifiable.check.compiled import CheckArguments
from verifiable.check.freedom import closest, near_ties
from verifiable.errors import SteerableChoice
from verifiable.policy import Policy
from verifiable.report import Verdict

RNG = np.random.default_rng(63)
ROWS, INNER, COLUMNS = 6, 24, 1100
W = (RNG.standard_normal((INNER, COLUMNS)) / 5).astype(np.float32)
X = RNG.standard_normal((ROWS, INNER)).astype(np.float32)
for i in range(ROWS):  # a clear choice in each row
    W[:, 150 * i + 20] += X[i] / np.linalg.norm(X[i])
SECRET = challenge.secret(b"tests of near-ties of a choice  ")
FEW = Policy(draws=8)


def twins(w: Any, gap: float, other: int = 1000) -> Any:
    """Weights whose best column of row 1 has a twin, in another block, `gap` below it."""
    w = w.copy()
    best = int(np.argmax(X[1] @ w))
    w[:, other] = w[:, best] - np.float32(gap) * X[1] / np.dot(X[1], X[1])
    return w


SCALE = np.linspace(1, 1 + 1e-7, COLUMNS, dtype=np.float32)

CHOICES: dict[str, Any] = {
    "argmax": lambda w, x: jnp.argmax(x @ w, -1),
    "top_k": lambda w, x: lax.top_k(x @ w, 1)[1],
    "argmin": lambda w, x: jnp.argmin(-(x @ w), -1),
    "a negative scale": lambda w, x: jnp.argmin(-2.0 * (x @ w), -1),
    "temperature": lambda w, x: jnp.argmax(jax.nn.softmax((x @ w) / 0.7), -1),
    "softcap": lambda w, x: jnp.argmax(30 * jnp.tanh((x @ w) / 30), -1),
    "transposed": lambda w, x: jnp.argmax((x @ w).T, 0),
    "a slice of columns": lambda w, x: jnp.argmax((x @ w)[:, 3:] * 1.0, -1) + 3,
    "a scale and a bias": lambda w, x: jnp.argmax((x @ w) * SCALE + 1e-6 * SCALE, -1),
    "a mask": lambda w, x: jnp.argmax(jnp.where(SCALE > 9, -jnp.inf, x @ w), -1),
    "an added mask": lambda w, x: jnp.argmax(jnp.tanh(x @ w) - 1e9 * (SCALE > 9), -1),
    "chosen matrices": lambda w, x: jnp.argmax(
        jax.vmap(lambda row, i: row @ jnp.stack([w, w])[i])(x, (x[:, 0] > 0).astype(jnp.int32)), -1
    ),
    "noise": lambda w, x: jnp.argmax((x @ w) / 0.5 + jnp.sin(x[:, :1] * 1e-9), -1),
    "rows of a scan": lambda w, x: lax.scan(lambda c, r: (c, jnp.argmax(r @ w, -1)), 0, x[:, None])[
        1
    ],
}


# Whether the rows that are compared are those of the claim, seen through a scan or not.
SOURCES: dict[str, tuple[Any, bool]] = {
    "a product": (lambda w, x: jnp.argmax(x @ w, -1), True),
    "what a scan stacks": (
        lambda w, x: jnp.argmax(lax.scan(lambda c, r: (c, r @ w), 0, x[:, None])[1], -1),
        True,
    ),
    "what a scan carries": (
        lambda w, x: jnp.argmax(
            lax.scan(lambda c, _: (jnp.tanh(c @ w[:, :INNER]), None), x, length=2)[0], -1
        ),
        False,
    ),
    "the input": (lambda w, x: (jnp.argmax(x, -1), x @ w), False),
}


@pytest.mark.parametrize("name", SOURCES)
def test_choices_are_followed_back_to_a_claim(name: str):
    fn, found = SOURCES[name]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (W, X)]
    made = program.compile(fn, *shapes, policy=FEW, self_test=False)
    assert [c.glue is None for c in near_ties.choices(made)] == [True] * found


def checked(fn: Any, w: Any) -> Any:
    made = program.compile(fn, w, X, policy=FEW, self_test=False)
    key, sent = made.setup(w, SECRET), made.prove(w, X)
    return made, made.verify(key, X, sent, commitment=sent.commitment)


@pytest.mark.parametrize("name", [n for n in CHOICES if n != "argmin"])
def test_a_choice_between_twins_is_reported(name: str):
    w = twins(W, 1e-5)
    made, report = checked(CHOICES[name], w)
    assert report.verdict is Verdict.ACCEPT
    [tie] = report.near_ties
    assert (tie.trip, tie.row) == ((1, 0) if name == "rows of a scan" else (0, 1))
    assert {tie.chosen, tie.other} == {int(np.argmax(X[1] @ W)), 1000}
    assert tie.kappa <= made.bound.kappa()
    assert report.to_dict()["near_ties"][0]["other"] == tie.other
    assert "1 choices are near-ties" in str(report)


@pytest.mark.parametrize("order", [False, True])
def test_columns_that_a_cast_may_make_equal_are_reported(order: bool):
    """257.0001 and 256 are 258 and 256 in bfloat16; a last bit less, and they are equal."""
    x = np.zeros((2, 128), np.float32)
    w = np.zeros((128, 64), np.float32)
    x[:, 0], w[0] = 1, np.linspace(-300, -100, 64)
    x[:, 1:], w[1:, 8:] = RNG.standard_normal((2, 127)) / 1e3, 1e-3
    w[0, [3, 5, 7]] = 256, 257.0001, 200

    def fn(w: Any, x: Any) -> Any:
        logits = (x @ w).astype(jnp.bfloat16)
        return lax.top_k(logits, 2)[1] if order else jnp.argmax(logits, -1)

    made = program.compile(fn, w, x, self_test=False)
    key, sent = made.setup(w, SECRET), made.prove(w, x)
    report = made.verify(key, x, sent, commitment=sent.commitment)
    assert np.ravel(sent.y)[0] == 5
    assert [(t.row, t.chosen, t.other) for t in report.near_ties] == [(0, 5, 3), (1, 5, 3)]


def test_other_choices_are_not():
    _, report = checked(CHOICES["argmax"], twins(W, 0.5))
    assert report.verdict is Verdict.ACCEPT
    assert report.near_ties == ()


def plainly(values: Any, room: Any, spare: Any, width: int, a: int, b: int) -> float:
    """The formula of the text for two columns."""
    both = np.hypot(room[a], room[b]) if a // width == b // width else room[a] + room[b]
    return float(max(values[a] - values[b] - spare[a] - spare[b], 0) / both)


@pytest.mark.parametrize("count", [1, 3])
def test_kappa_is_the_formula_of_the_text(count: int):
    rng = np.random.default_rng(count)
    values = rng.standard_normal((5, 14))
    room, spare = rng.uniform(0.1, 1, (5, 14)), rng.uniform(0, 0.05, (5, 14))
    block = np.arange(14) // 6
    with jax.enable_x64(True):
        operands = map(jnp.asarray, (values, room, spare, block))
        kappa, chosen, other = (np.asarray(x) for x in closest.closest(*operands, count)[:3])
    for i in range(5):
        top = np.argsort(-values[i])[:count]
        rest = [j for j in range(14) if j not in top]
        weakest = top[np.argmin((values[i] - room[i] - spare[i])[top])]
        each = [plainly(values[i], room[i], spare[i], 6, weakest, j) for j in rest]
        assert chosen[i] == weakest
        assert other[i] == rest[int(np.argmin(each))]
        np.testing.assert_allclose(kappa[i], min(each), rtol=1e-12)


NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -np.inf, np.inf, np.nan, 1e38, -1e38]),
    st.floats(-4, 4, width=32),
)


@given(
    values=arrays(np.float32, (6, 9), elements=NUMBERS),
    room=arrays(np.float32, (6, 9), elements=st.floats(0, 2, width=32)),
    spare=arrays(np.float32, (6, 9), elements=st.floats(0, 1, width=32)),
    kappa=st.floats(0.1, 3),
)
def test_rows_that_are_far_apart_have_nothing_that_can_be_turned(
    values: Any, room: Any, spare: Any, kappa: float
):
    most = (jnp.asarray(x.max(-1)) for x in (room, spare))
    far = np.asarray(closest.apart(jnp.asarray(values), *most, kappa))
    blocks = jnp.arange(9) // 4
    found = closest.closest(*map(jnp.asarray, (values, room, spare)), blocks, 1)
    assert np.all(np.asarray(found.kappa)[far] > kappa)
    # One that stands alone, by more than all of this reaches, is seen to.
    values = np.where(np.arange(9) == 4, np.float32(40), np.clip(np.nan_to_num(values), -4, 4))
    most = (jnp.asarray(x.max(-1)) for x in (room, spare))
    assert np.all(closest.apart(jnp.asarray(values), *most, kappa))


@pytest.mark.parametrize("gap", [1e-5, 0.5])
def test_near_ties_are_the_same_whether_far_rows_are_looked_at_or_not(gap: float):
    made, arguments = asked(twins(W, gap))
    ties = made.compiled_check.near_ties
    [choice] = ties.choices
    whole = ties.closest(choice, arguments)
    some = ties.closest(choice, arguments, within=ties.kappa)
    near = whole.kappa <= ties.kappa
    assert np.any(near) == (gap < 0.1)
    np.testing.assert_array_equal(near, some.kappa <= ties.kappa)
    for one, other in zip(whole, some, strict=True):
        np.testing.assert_array_equal(one[near], other[near])
    assert np.any(near) or np.all(np.isinf(some.kappa))


def logits(dtype: Any, out: Any, w: Any, x: Any) -> Any:
    x, w = lax.reduce_precision(x, 8, 23).astype(dtype), w.astype(dtype)
    return jnp.argmax(lax.dot(x, w, preferred_element_type=out), -1)


def test_a_choice_from_coarse_logits_warns_at_compile():
    with pytest.warns(SteerableChoice, match="preferred_element_type=jnp.float32"):
        program.compile(functools.partial(logits, jnp.bfloat16, jnp.bfloat16), W, X, policy=FEW)
    program.compile(functools.partial(logits, jnp.bfloat16, jnp.float32), W, X, policy=FEW)


@functools.cache
def case() -> SimpleNamespace:
    w = twins(W, 2e-5)
    made = program.compile(CHOICES["argmax"], w, X, policy=FEW, self_test=False)
    return SimpleNamespace(made=made, key=made.setup(w, SECRET), w=w, sent=made.prove(w, X))


def test_a_choice_steered_through_the_last_claim_is_reported():
    """The cheat that shifts two logits of every row within reach, so that another is chosen."""
    run = case()
    y, values, rows = steered(run.made, run.key, (X,), run.sent, most=1.0)
    assert rows.tolist() == [1]
    assert y[1] != run.sent.y[1]
    report = run.made.check(run.key, X, y=y, trace=values)
    assert report.verdict is Verdict.ACCEPT
    assert [(t.row, t.chosen, t.other) for t in report.near_ties] == [(1, y[1], run.sent.y[1])]


def test_choices_steered_beyond_the_tolerance_of_their_blocks_are_rejected():
    """The cheat that changes every choice, each by as little as it takes."""
    run = case()
    y, values, rows = steered(run.made, run.key, (X,), run.sent)
    assert len(rows) == ROWS
    assert not np.any(y == np.asarray(run.sent.y))
    report = run.made.check(run.key, X, y=y, trace=values)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")
    assert report.near_ties == ()


def asked(w: Any) -> tuple[Any, CheckArguments]:
    made = program.compile(CHOICES["argmax"], w, X, policy=FEW, self_test=False)
    key, sent = made.setup(w, SECRET), made.prove(w, X)
    values = tuple(sent.trace.values)
    return made, CheckArguments(key=key.arrays, inputs=(X,), outputs=(sent.y,), values=values)


@pytest.mark.parametrize("reverse", [False, True])
def test_last_carries_that_are_cuts_are_read_where_they_were_committed(reverse: bool):
    # How far a logit may be moved depends on the size of what it is computed from.
    layers = np.stack([size * np.eye(INNER, dtype=np.float32) for size in (0.1, 40, 0.3)])

    def choose(w: Any, x: Any) -> Any:
        x, _ = lax.scan(lambda c, layer: (c @ layer, None), x, w["layers"], reverse=reverse)
        return jnp.argmax(x @ w["head"], -1)

    w = {"layers": layers, "head": twins(W, 1e-3)}
    found: list[Any] = []
    for cuts in (True, False):
        made = program.compile(choose, w, X, policy=FEW, self_test=False, cuts=cuts)
        key, sent = made.setup(w, SECRET), made.prove(w, X)
        given = CheckArguments(
            key=key.arrays, inputs=(X,), outputs=(sent.y,), values=tuple(sent.trace.values)
        )
        ties = made.compiled_check.near_ties
        [choice] = ties.choices
        found.append(ties.closest(choice, given))
    cut, whole = found
    np.testing.assert_array_equal(cut.chosen, whole.chosen)
    np.testing.assert_allclose(cut.kappa, whole.kappa, rtol=1e-3)
    np.testing.assert_allclose(cut.rooms, whole.rooms, rtol=1e-3)
