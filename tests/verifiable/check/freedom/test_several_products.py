"""Choices that follow from several products, or other blocks: steered ones are listed."""

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
from verifiable.check.freedom import displaced
from verifiable.check.freedom.closest import closest, neighbours
from verifiable.check.freedom.displaced import Moved
from verifiable.check.freedom.steering import steering
from verifiable.errors import UnlistedChoice
from verifiable.jaxpr.from_jax import flatten
from verifiable.jaxpr.interpret import read
from verifiable.policy import Policy
from verifiable.report import Report, Verdict

RNG = np.random.default_rng(65)
ROWS, INNER, COLUMNS = 32, 64, 256
W = RNG.standard_normal((INNER, COLUMNS)).astype(np.float32)
X = RNG.standard_normal((ROWS, INNER)).astype(np.float32)
for i in range(0, ROWS, 2):  # in every other row, a second column that is almost the best
    best = int(np.argmax(X[i] @ W))
    W[:, (7 * best + i) % COLUMNS] = W[:, best] - np.float32(1e-5) * X[i] / np.dot(X[i], X[i])
SECRET = challenge.secret(b"tests of choices of all kinds   ")
FEW = Policy(draws=8)
Scores = Callable[[Any, Any], Any]


def chunks_of_columns(w: Any, x: Any) -> Any:
    made = lax.map(lambda c: dot(x, c), w.reshape(INNER, 4, -1).transpose(1, 0, 2))
    return made.transpose(1, 0, 2).reshape(ROWS, -1)


def summed_by_a_scan(w: Any, x: Any) -> Any:
    parts = x.reshape(ROWS, 2, -1).transpose(1, 0, 2), w.reshape(2, -1, COLUMNS)
    start = jnp.zeros((ROWS, COLUMNS), jnp.float32)
    return lax.scan(lambda c, t: (c + dot(*t), None), start, parts)[0]


def rounded_in_a_scan(w: Any, x: Any) -> Any:
    def normed(c: Any, row: Any) -> Any:
        row = row.astype(jnp.float32)
        return c, (row * lax.rsqrt(jnp.mean(row * row) + 1e-3)).astype(jnp.bfloat16)

    return dot(lax.scan(normed, 0, x)[1], w.astype(jnp.bfloat16))


def quantised_in_a_map(w: Any, x: Any) -> Any:
    def level(row: Any) -> Any:
        row = row.astype(jnp.float32)
        row = row * lax.rsqrt(jnp.mean(row * row) + 1e-3)
        return jnp.clip(jnp.round(row * 30), -127, 127).astype(jnp.int8)

    weights = jnp.clip(jnp.round(w.astype(jnp.float32) * 30), -127, 127).astype(jnp.int8)
    return lax.dot(lax.map(level, x), weights, preferred_element_type=jnp.int32) * 0.01


def dot(a: Any, b: Any) -> Any:
    return lax.dot(a, b, preferred_element_type=jnp.float32)


def of_activations(w: Any, x: Any) -> Any:
    q, k = jnp.dot(x, w[:, :128]), jnp.dot(x, w[:, 128:])
    return q @ k.T


def mixed(w: Any, x: Any) -> Any:
    return dot(x, w) + jnp.tanh(dot(-x, w)) / 2


def nearest(w: Any, x: Any) -> Any:
    q = dot(x, w)
    return -jnp.sum((q[:, None] - q[None, :8] / 2) ** 2, -1)


def convolved(w: Any, x: Any) -> Any:
    names = ("NHWC", "HWIO", "NHWC")
    image, kernel = x.reshape(2, 4, 4, INNER), w.reshape(1, 1, INNER, COLUMNS)
    made = lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=names)
    return made.reshape(ROWS, COLUMNS)


def pooled(w: Any, x: Any) -> Any:
    return jnp.mean(dot(x, w).reshape(8, 4, COLUMNS), 1)


def late_interaction(w: Any, x: Any) -> Any:
    """In bfloat16, rows of this type and their products in float32."""
    q, k = jnp.dot(x, w[:, :128]), jnp.dot(x, w[:, 128:])
    return dot(q, k.T).reshape(8, 4, 8, 4).max(-1).sum(1)


SCORES: dict[str, Scores] = {
    "activations": of_activations,
    "chunks of columns": chunks_of_columns,
    "split sums": summed_by_a_scan,
    "rounded elsewhere": rounded_in_a_scan,
    "quantised elsewhere": quantised_in_a_map,
    "mixture": mixed,
    "distances": nearest,
    "convolution": convolved,
    "pooled": pooled,
    "late interaction": late_interaction,
}


def chosen(scores: Scores, w: Any, x: Any) -> Any:
    found = scores(w, x)
    return jnp.argmax(found, -1), found


@functools.cache
def case(name: str, dtype: str) -> SimpleNamespace:
    w, x = (jnp.asarray(a, dtype) for a in (W, X))
    made = program.compile(
        functools.partial(chosen, SCORES[name]), w, x, policy=FEW, self_test=False
    )
    return SimpleNamespace(
        made=made, key=made.setup(w, SECRET), given=(w, x), sent=made.prove(w, x)
    )


def margins(y: Any) -> Any:
    best = lax.top_k(y[1].astype(jnp.float32), 2)[0]
    return jnp.sum(best[:, 0] - best[:, 1])


def listed(report: Report) -> set[int]:
    return {tie.row for tie in report.near_ties if tie.claim == "argmax"}


STEERED = [
    ("activations", "bfloat16"),
    ("chunks of columns", "bfloat16"),
    ("split sums", "float32"),
    ("rounded elsewhere", "bfloat16"),
    ("mixture", "bfloat16"),
    ("late interaction", "bfloat16"),
]


@pytest.mark.parametrize(("name", "dtype"), STEERED)
def test_choices_steered_within_the_tolerance_are_listed(name: str, dtype: str):
    """Cheat: every claim is moved by 0.6 sigma, or as much of its slack, against what is chosen."""
    run = case(name, dtype)
    y, trace = jax.device_get(run.made.attack(*run.given, answer=margins, kappa=0.6))
    report = run.made.check(run.key, run.given[1], y=y, trace=trace)
    assert report.verdict is Verdict.ACCEPT, report
    changed = set(np.flatnonzero(y[0] != np.asarray(run.sent.y[0])).tolist())
    assert changed
    assert changed <= listed(report)
    assert report.unlisted == ()
    honest = run.made.check(run.key, run.given[1], y=run.sent.y, trace=run.sent.trace)
    assert honest.verdict is Verdict.ACCEPT
    assert changed <= listed(honest)


@pytest.mark.parametrize("name", SCORES)
def test_choices_are_followed_wherever_their_products_are(name: str):
    made = traced(functools.partial(chosen, SCORES[name]))
    found = steering(made)
    assert [c.name for c in found.followed] == ["argmax"]
    assert not found.unlisted


def traced(fn: Any, dtype: Any = jnp.bfloat16) -> Any:
    shapes = [jax.ShapeDtypeStruct(a.shape, dtype) for a in (W, X)]
    return program.compile(fn, *shapes, policy=FEW, self_test=False)


def looped(w: Any, x: Any) -> Any:
    start = 0, dot(x, w)
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 1.5), start)[1]


def in_a_loop(w: Any, x: Any) -> Any:
    scores = dot(x, w)

    def turn(c: Any) -> Any:
        return c[0] + 1, jnp.argmax(jnp.tanh(scores) + scores[:, ::-1] * c[0], -1)

    return lax.while_loop(lambda c: c[0] < 3, turn, (1, jnp.zeros(ROWS, jnp.int32)))[1]


def in_a_branch(w: Any, x: Any) -> Any:
    def of(scale: int) -> Any:
        return lambda: jnp.argmax(dot(x, w) + jnp.tanh(dot(x, w[:, ::-1])) * scale, -1)

    return lax.cond(x[0, 0] > 0, of(1), of(2))


UNLISTED: dict[str, tuple[Any, str, str]] = {
    "cumulative products": (
        lambda w, x: jnp.argmax(jnp.cumprod(jax.nn.sigmoid(dot(x, w)), -1), -1),
        "argmax",
        "cumprod is not followed",
    ),
    "spectra": (
        lambda w, x: jnp.argmax(jnp.abs(jnp.fft.rfft(dot(x, w))), -1),
        "argmax",
        "fft is not followed",
    ),
    "behind a loop": (lambda w, x: jnp.argmax(looped(w, x), -1), "argmax", "while is not followed"),
    "inside of a loop": (in_a_loop, "argmax", "it is inside of while"),
    "inside of a branch": (in_a_branch, "argmax", "it is inside of a branch"),
    "a branch": (
        lambda w, x: lax.cond(dot(x, w)[0, 0] > 0, lambda: x, lambda: -x),
        "cond",
        "it is a branch",
    ),
    "an index": (
        lambda w, x: w[:, jnp.sum(dot(x, w)[0] > 0)],
        "dynamic_slice",
        "it is an index",
    ),
    "approximate": (
        lambda w, x: lax.approx_max_k(dot(x, w), 2)[1],
        "approx_top_k",
        "it is approximate",
    ),
}


@pytest.mark.parametrize("name", UNLISTED)
@pytest.mark.filterwarnings("ignore::verifiable.errors.IndeterminateWarning")
def test_choices_that_are_not_listed_are_said_to_be(name: str):
    fn, equation, why = UNLISTED[name]
    with pytest.warns(UnlistedChoice, match="near-ties"):
        made = traced(fn)
    found = steering(made).unlisted
    assert any(n.endswith(equation.rpartition("/")[2]) and w == why for n, w in found.items()), (
        found
    )


def first(w: Any, x: Any) -> Any:
    """Indices of the largest, by a reduction of pairs."""
    scores = dot(x, w)
    places = lax.broadcasted_iota(jnp.int32, scores.shape, 1)

    def larger(a: Any, b: Any) -> Any:
        return tuple(lax.select(a[0] >= b[0], x, y) for x, y in zip(a, b, strict=True))

    return lax.reduce((scores, places), (-jnp.inf, 0), larger, (1,))[1]


DECIDED: dict[str, tuple[Any, str]] = {
    "packed": (lambda w, x: jnp.packbits(dot(x, w) > 0, axis=-1), "is not followed"),
    "multiplied": (lambda w, x: jnp.prod((dot(x, w) > 0).astype(jnp.int32), -1), "is not followed"),
    "pairs": (first, "is not followed"),
    "bits": (lambda w, x: lax.bitcast_convert_type(dot(x, w), jnp.int32), "is not followed"),
    "levels": (lambda w, x: jnp.clip(jnp.round(dot(x, w) * 9), -99, 99).astype(jnp.int8), ""),
    "whole numbers": (lambda w, x: (dot(x, w) * 9).astype(jnp.int32), ""),
}


@pytest.mark.parametrize("name", DECIDED)
@pytest.mark.filterwarnings("ignore::verifiable.errors.UnlistedChoice")
@pytest.mark.filterwarnings("ignore::verifiable.errors.IndeterminateWarning")
def test_integer_answers_are_listed_or_said_not_to_be(name: str):
    fn, why = DECIDED[name]
    found = steering(traced(fn, jnp.float32))
    if why:
        assert why in found.unlisted["output"]
    else:
        assert [c.name for c in found.followed] == ["output"]


def test_a_test_for_nan_decides_nothing():
    made = traced(lambda w, x: jnp.isnan(dot(x, w)), jnp.float32)
    assert not steering(made).followed


def test_the_one_of_several_chosen_that_falls_out_first_is_compared():
    values, room = jnp.array([[1.0, 1.06, 0.9, 0.2]]), jnp.array([[0.0, 0.05, 0.0, 0.0]])
    found = closest(values, room, jnp.zeros((1, 4)), jnp.arange(4), 2, 5.0)
    assert (found.chosen[0], found.other[0]) == (1, 2)
    assert float(found.kappa[0]) == pytest.approx(3.2, rel=1e-5)


@pytest.mark.parametrize("split", [False, True])
def test_the_two_neighbours_that_change_their_order_first_are_compared(split: bool):
    values = jnp.array([[4.0, 1.0, 3.0, 2.9], [4.0, 3.8, -jnp.inf, -jnp.inf]])
    room, spare = jnp.full((2, 4), 0.02), jnp.full((2, 4), 0.01)
    block = jnp.arange(4) if split else jnp.zeros(4, int)
    found = neighbours(values, room, spare, block, 3)
    assert [(int(a), int(b)) for a, b in zip(found.chosen, found.other, strict=True)] == [
        (2, 3),
        (0, 1),
    ]
    both = 0.04 if split else np.hypot(0.02, 0.02)
    np.testing.assert_allclose(found.kappa, np.array([0.08, 0.18]) / both, rtol=1e-5)
    still = neighbours(values, 0 * room, 0 * spare, block, 3)
    assert np.all(np.isinf(still.kappa))


def test_what_no_device_can_move_is_no_choice_to_steer():
    made = traced(lambda w, x: (jnp.argmax(x, -1), jnp.argsort(w, -1), dot(x, w)))
    assert not steering(made).followed
    assert not steering(made).unlisted


def test_a_report_says_what_is_not_listed():
    fn, *_ = UNLISTED["cumulative products"]
    with pytest.warns(UnlistedChoice):
        made = program.compile(fn, W, X, policy=FEW, self_test=False)
    key, sent = made.setup(W, SECRET), made.prove(W, X)
    report = made.verify(key, X, sent, commitment=sent.commitment)
    assert report.unlisted == ("argmax: cumprod is not followed",)
    assert "near-ties are not listed of argmax" in str(report)
    assert report.to_dict()["unlisted"] == list(report.unlisted)


def decisions(w: Any, x: Any) -> Any:
    scores = dot(x, w)
    return jnp.argsort(scores, -1), scores > 0.5, lax.top_k(scores, 3)[1]


def test_sorts_decided_answers_and_the_order_of_candidates_are_listed():
    w, x = W.copy(), X.copy()
    x[1, 0], w[0] = 1, 0
    order = np.argsort(x[1] @ w)
    third, second = order[-3], order[-2]
    w[:, third] = w[:, second] - np.float32(1e-6) * x[1] / np.dot(x[1], x[1])
    made = program.compile(decisions, w, x, policy=FEW, self_test=False)
    found = steering(made)
    assert [(c.name, c.listed) for c in found.followed] == [("sort", False), ("output[1]", False)]
    assert [(c.equation.name, c.ordered) for c in found.orders] == [("top_k", True)]
    key, sent = made.setup(w, SECRET), made.prove(w, x)
    report = made.verify(key, x, sent, commitment=sent.commitment)
    ties = {(t.claim, t.row): t for t in report.near_ties}
    assert {ties["top_k", 1].chosen, ties["top_k", 1].other} == {second, third}
    assert ("sort", 1) in ties
    near = np.argwhere(np.abs(np.asarray(sent.y[1] * 0 + x @ w) - 0.5).reshape(-1) < 1e-7)
    assert {("output[1]", int(i)) for i in near[:, 0]} <= ties.keys()


RULES: dict[str, Any] = {
    "affine": lambda a, b: 3 * a - b / 7 + 1,
    "product": lambda a, b: a * b,
    "quotient": lambda a, b: a / (2 + b * b),
    "functions": lambda a, b: jnp.tanh(a) + jnp.exp(b) * jax.nn.sigmoid(a - b),
    "square root": lambda a, b: jnp.sqrt(1 + a * a) + lax.rsqrt(1 + b * b),
    "softmax": lambda a, b: jax.nn.softmax(a) - jax.nn.log_softmax(b),
    "matrices": lambda a, b: a.T @ b,
    "sums": lambda a, b: jnp.cumsum(a, -1) + jnp.sum(b, -1, keepdims=True),
    "extremes": lambda a, b: jnp.maximum(a, b) + lax.cummax(a, axis=1) - jnp.min(b),
    "moves": lambda a, b: jnp.concatenate([a[::-1], jnp.pad(b, 1)[1:-1, 1:-1]]).T.reshape(-1, 4),
    "sorts": lambda a, b: jnp.sort(a, -1) + lax.top_k(b, b.shape[-1])[0],
    "selection": lambda a, b: jnp.where(a > b, 10.0, jnp.minimum(b, 0)),
    "rounding": lambda a, b: jnp.round(4 * a) + jnp.floor(b) + (a * 8).astype(jnp.int32),
    "narrow": lambda a, b: (a.astype(jnp.bfloat16) + b.astype(jnp.bfloat16)).astype(jnp.float32),
    "logic": lambda a, b: ((a > 0) & ~(b > a)) | (a < -1),
    "updates": lambda a, b: lax.dynamic_update_slice(a, b[:2], (1, 0)).at[0].add(b[3]),
}


@pytest.mark.parametrize("name", RULES)
def test_no_value_moves_further_than_its_bound(name: str):
    rng = np.random.default_rng(len(name))
    a, b = (rng.standard_normal((6, 5)).astype(np.float32) for _ in range(2))
    block = flatten(jax.make_jaxpr(RULES[name])(a, b)).block
    start = [np.where(rng.random(a.shape) < 0.5, 0.05 * rng.random(a.shape), 0) for _ in range(2)]

    def run(values: Any) -> Any:
        env = dict(zip(block.inputs, values, strict=True))
        for e in block.equations:
            given = [read(env, a) for a in e.inputs]
            env.update(zip(e.outputs, displaced.apply(e, given), strict=True))
        return env[block.outputs[0]]

    with jax.enable_x64(True):
        found = run([Moved(x, m, 2 * m) for x, m in zip((a, b), start, strict=True)])
        assert np.all(np.asarray(found.spare) <= np.asarray(found.total) + 1e-6)
        own = np.asarray(found.value).astype(np.float64)
        reached = 0.0
        for _ in range(20):
            signs = rng.choice([-1, 1], (2, *a.shape))
            shifted = [x + np.float32(s * m) for x, s, m in zip((a, b), signs, start, strict=True)]
            by = np.abs(np.asarray(run(shifted)).astype(np.float64) - own)
            slack = np.asarray(found.spare) + 1e-6 * (1 + np.abs(own))
            assert np.all(by <= slack)
            reached = max(reached, float(np.max(by / slack)))
        assert reached > 0.1  # the bound is of the size of what happens
