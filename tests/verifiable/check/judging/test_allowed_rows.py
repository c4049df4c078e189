"""Rows of roundings behind arithmetic in bfloat16, which may move them further than their limit."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable import challenge, program
from verifiable.claims.form import Yardstick
from verifiable.policy import Policy
from verifiable.report import Verdict

pytestmark = pytest.mark.optimised(verifier=False)

TOKENS, HEAD, WIDTH = 32, 16, 64
RNG = np.random.default_rng(20)
Q, K = (2 * RNG.standard_normal((TOKENS, HEAD)).astype(np.float32) for _ in "qk")
V = RNG.standard_normal((TOKENS, WIDTH)).astype(np.float32)
SECRET = challenge.secret(b"tests of rows that may be moved ")


def shares(scores: Any) -> Any:
    return jax.nn.softmax(scores.astype(jnp.float32) / 4, -1).astype(jnp.bfloat16)


def attend(v: Any, q: Any, k: Any) -> Any:
    return shares(q @ k.T) @ v.astype(jnp.bfloat16)


@functools.cache
def case(dtype: Any) -> SimpleNamespace:
    q, k = (jnp.asarray(x, dtype) for x in (Q, K))
    made = program.compile(attend, V, q, k, policy=Policy(draws=8), self_test=False)
    key = made.setup(V, SECRET)

    def report(shared: Any) -> Any:
        y = shared @ jnp.asarray(V, jnp.bfloat16)
        return made.check(key, q, k, y=y, trace=(shared, y))

    def statistic(shared: Any) -> float:
        given = Yardstick(eps=made.tolerances[made.claims[0].name])
        with jax.enable_x64(True):
            value = jax.nn.softmax((q @ k.T).astype(jnp.float32) / 4, -1)
            return float(made.claims[0].form.test([value], shared, given).worst)

    scores = np.asarray(q @ k.T)
    return SimpleNamespace(
        made=made,
        q=np.asarray(q),
        k=np.asarray(k),
        scores=scores,
        report=report,
        statistic=statistic,
    )


def other_neighbours(run: SimpleNamespace, seed: int) -> Any:
    """Scores of which half are rounded to the neighbour that is not the nearest."""
    exact = run.q.astype(np.float64) @ run.k.astype(np.float64).T
    up, down = (np.asarray(x, np.float64) for x in (np.inf, -np.inf))
    way = np.where(run.scores.astype(np.float64) < exact, up, down).astype(run.scores.dtype)
    half = np.random.default_rng(seed).random(exact.shape) < 0.5
    return jnp.where(half, lax.nextafter(run.scores, way), run.scores)


def test_a_row_is_accepted_where_rounding_of_its_glue_moves_it_as_far():
    run = case(jnp.bfloat16)
    found = [shares(other_neighbours(run, i)) for i in range(4)]
    assert max(run.statistic(x) for x in found) > 1.0  # beyond the limit
    for one in found:
        report = run.report(one)
        assert report.verdict is Verdict.ACCEPT, report
        assert report.worst <= 1.0


def steered(run: SimpleNamespace, share: float, seed: int) -> Any:
    """Each element at a share of its slack, in a direction of its own."""
    value = jax.nn.softmax(run.scores.astype(jnp.float32) / 4, -1)
    size = value + jnp.sqrt(jnp.mean(value * value, -1, keepdims=True))
    way = np.random.default_rng(seed).choice([-1, 1], value.shape)
    eps = run.made.tolerances[run.made.claims[0].name]
    return jnp.maximum(value + way * share * eps * size, 0).astype(jnp.bfloat16)


def test_a_row_is_not_accepted_where_no_rounding_moves_it_as_far():
    """Cheat: elements within their slack, those too that honest scores hardly move."""
    run = case(jnp.bfloat16)
    report = run.report(steered(run, 0.9, 0))
    assert report.verdict is not Verdict.ACCEPT


def test_behind_wider_types_the_limit_is_the_only_one():
    """Cheat: a row of other last digits, where nothing before it has few digits."""
    run = case(jnp.float32)
    assert not run.made.claims[0].narrow
    own = shares(run.scores)
    wrong = own.at[3].set(lax.nextafter(own[3], jnp.ones_like(own[3])))
    report = run.report(wrong)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "rounding-mismatch")
