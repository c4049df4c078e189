"""Outputs that are sums: near zero, the terms are their scale; elsewhere nothing changes."""

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

from verifiable import challenge, parameter_root, program
from verifiable import trace as traces
from verifiable.check.judging.evidence import KAPPA, Evidence, verify_evidence
from verifiable.check.outputs import compare, deviate
from verifiable.jaxpr import interpret
from verifiable.report import Verdict

pytestmark = pytest.mark.optimised(verifier=False)

WIDTH, HIDDEN, ROWS = 128, 256, 16
RNG = np.random.default_rng(7)
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)
UP = (RNG.standard_normal((WIDTH, HIDDEN)) / 11).astype(np.float32)
SHARE = 2.0**-16 / 2.0**-12


def reward(p: Any, x: Any) -> Any:
    """A score for each row: one column is too small a product for a claim."""
    return jax.nn.gelu(x @ p["up"]) @ p["head"]


@functools.cache
def case() -> SimpleNamespace:
    """A head that is chosen so that the score of row 3 is nearly zero."""
    hidden = np.asarray(jax.nn.gelu(X @ UP), np.float64)
    head = RNG.standard_normal(HIDDEN)
    head -= hidden[3] * (hidden[3] @ head) / (hidden[3] @ hidden[3])
    params = {"up": UP, "head": head.astype(np.float32)[:, None]}
    compiled = program.compile(reward, params, X)
    y, trace = jax.device_get(jax.jit(compiled.execute)(params, X))
    key = compiled.setup(params, challenge.secret(bytes(range(32))))
    terms = np.sqrt((hidden**2) @ (head**2))[:, None]
    assert abs(y[3, 0]) < 1e-6 * terms[3, 0]
    return SimpleNamespace(
        program=compiled, y=y, trace=trace, key=key, terms=terms, head=params["head"]
    )


def compared(theirs: Any, mine: Any, terms: Any = None) -> float:
    """The worst ratio of an output at the default tolerance of float32."""
    with jax.enable_x64(True):
        given = None if terms is None else jnp.asarray(terms, jnp.float64)
        return float(compare(jnp.asarray(theirs), jnp.asarray(mine), 2.0**-12, terms=given).worst)


def check(y: Any) -> Any:
    c = case()
    return c.program.check(c.key, X, y=y, trace=c.trace)


def test_a_score_that_cancels_is_held_to_its_terms():
    """A device that adds up in another order: off by several times the score itself."""
    c = case()
    y = c.y + (16 * 2.0**-24 * c.terms).astype(np.float32)
    assert compared(y, c.y) > 1  # by the row's own norm
    report = check(y)
    assert report.verdict is Verdict.ACCEPT, report
    assert report.worst < 0.1


def test_a_score_near_zero_is_not_free():
    """Cheat: the sign of a score turned by more than the rounding of its terms."""
    c = case()

    def moved(by: float) -> Any:
        y = c.y.copy()
        y[3] += np.float32(by * 2.0**-16 * c.terms[3, 0])
        return check(y)

    assert moved(0.9).verdict is Verdict.ACCEPT
    for by in (1.5, 64.0):
        # A second look may find a row that cancels ill-conditioned; the verifier's y is the answer.
        report = moved(by)
        assert report.verdict is not Verdict.ACCEPT
        np.testing.assert_allclose(report.y, c.y, atol=2.0**-16 * c.terms.max())


@pytest.mark.optimised
def test_a_judge_holds_a_score_to_its_terms_too():
    """An honest score that the check accepts, four times nearer to a judge's limit."""
    c = case()
    params = {"up": UP, "head": c.head}
    y = c.y.copy()
    y[3] += np.float32(0.9 * 2.0**-16 * c.terms[3, 0])
    committed = traces.commit(y, c.trace)
    evidence = Evidence(
        program=c.program.id,
        parameters=parameter_root(params),
        commitment=committed.commitment,
        output=True,
        index=0,
        trip=0,
        row=3,
        opening=committed.open(list(range(c.program.layout.size))),  # of the claim, and of y
    )
    found = verify_evidence(evidence, c.program, params, X)
    assert not found.guilty
    assert found.excess == pytest.approx(0.9 / KAPPA, rel=0.02)
    assert f"{found.excess:.3g} times" in found.message


def test_deviation_and_comparison_have_one_limit():
    c = case()
    with jax.enable_x64(True):
        theirs, mine = jnp.asarray(c.y * np.float32(1.001)), jnp.asarray(c.y)
        terms = jnp.asarray(SHARE * c.terms)
        found = deviate(theirs, mine, 2.0**-12, terms)
        ratio = np.abs(found.high - found.expected)[:, 0] / found.limit
        assert np.max(ratio) == pytest.approx(compared(theirs, mine, terms))


def test_where_nothing_cancels_nothing_changes():
    c = case()
    rows = np.abs(c.y) > SHARE * c.terms
    assert rows.sum() > ROWS / 2
    mine = c.y[rows[:, 0]]
    theirs, terms = mine * np.float32(1 + 3e-4), SHARE * c.terms[rows[:, 0]]
    assert compared(theirs, mine, terms) == compared(theirs, mine) > 1


def test_terms_that_are_not_finite_allow_nothing():
    mine = np.ones((1, 1), np.float32)
    for bad in (np.inf, np.nan):
        assert compared(mine * np.float32(1.1), mine, np.full((1, 1), bad)) > 1


def norm(h: Any) -> Any:
    return np.sqrt((h**2).sum(-1, keepdims=True))


A, B = X[:, :8], X[:, 8:16]
SCORES: dict[str, tuple[Callable[..., Any], Any]] = {
    "a sum": (lambda h: h.sum(-1, keepdims=True), norm),
    "a mean of a slice": (lambda h: h[:, 2:4].mean(-1)[:, None], lambda h: norm(h[:, 2:4]) / 2),
    "a difference": (lambda h: h[:, :1] - h[:, 1:2], lambda h: norm(h[:, :2])),
    "a product and a bias": (
        lambda h: h @ jnp.asarray(B[:8, :2]) + 0.25,
        lambda h: np.sqrt(h**2 @ B[:8, :2].astype(np.float64) ** 2),
    ),
    "a score that is bent": (
        lambda h: jnp.tanh(h.sum(-1, keepdims=True)),
        lambda h: norm(h) / np.cosh(h.sum(-1, keepdims=True)) ** 2,
    ),
    "a cosine": (
        lambda h: (h * B).sum(-1, keepdims=True) / 3.0,
        lambda h: norm(h * B) / 3,
    ),
    "a convolution": (
        lambda h: lax.conv_general_dilated(h[:, None], jnp.asarray(A[:1, None]), (1,), "VALID")[
            :, 0
        ],
        lambda h: np.sqrt(h**2 @ A[:1].astype(np.float64).T ** 2),
    ),
}


@pytest.mark.parametrize("name", SCORES)
def test_terms_are_those_of_the_last_sums(name: str):
    fn, expected = SCORES[name]
    compiled = program.compile(lambda _, a: fn(jnp.sin(a)), (), A)
    found = compiled.outputs[0].cancellation
    assert found is not None
    with jax.enable_x64(True):
        env = compiled.bind((), (A,))
        interpret.evaluate(compiled.function.block, env)
        terms = found.terms(env)
    np.testing.assert_allclose(terms, expected(np.sin(A.astype(np.float64))), rtol=1e-5)


@pytest.mark.parametrize(
    "fn",
    [
        lambda p, x: jnp.tile(reward(p, x), (1, 33)),  # a long row
        lambda p, x: jnp.tanh(x @ p["up"]),  # no sum after the claim
        lambda p, x: x @ p["up"],  # the claim itself
        lambda p, x: jnp.argmax(x @ p["up"], -1),
    ],
)
def test_other_outputs_have_no_terms(fn: Callable[..., Any]):
    params = {"up": UP, "head": np.ones((HIDDEN, 1), np.float32)}
    assert program.compile(fn, params, X).outputs[0].cancellation is None


def test_a_difference_of_claims_is_exact_but_for_its_own_rounding():
    """Cheat: a margin of two committed scores, moved by less than their rounding could."""

    def fn(p: Any, x: Any) -> Any:
        y = x @ p["up"]
        return y[:, :1] - y[:, 1:2]

    params = {"up": UP.copy()}
    params["up"][:, 1] = UP[:, 0] * np.float32(1 + 1e-6)
    compiled = program.compile(fn, params, X)
    y, trace = jax.device_get(jax.jit(compiled.execute)(params, X))
    key = compiled.setup(params, challenge.secret())
    assert compiled.check(key, X, y=y, trace=trace).verdict is Verdict.ACCEPT
    report = compiled.check(key, X, y=y * np.float32(1.01), trace=trace)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "output-mismatch")
