"""The coordinator's half: scans inside of branches, and loops that a device could make endless."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import verifiable as vf
from verifiable.report import Verdict

WIDTH, ROWS = 64, 16
RNG = np.random.default_rng(0)
STACK = jnp.asarray(RNG.standard_normal((3, WIDTH, WIDTH)) / 8, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)
POLICY = vf.Policy(draws=1, trip_limit=50)
SECRET = vf.challenge.secret(bytes(32))


def layers(p: Any, x: Any) -> Any:
    return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p)[0]


def branching(p: Any, x: Any, n: Any) -> Any:
    return lax.cond(n > 0, lambda: layers(p, x), lambda: x @ p[0])


def nested(p: Any, x: Any, n: Any) -> Any:
    """Branches of scans in a scan, and a branch inside of a scan's body."""

    def body(h: Any, w: Any) -> Any:
        return lax.cond(n > 1, lambda: layers(p, h), lambda: jnp.tanh(h @ w)), None

    return lax.scan(body, x, p)[0]


def looping(p: Any, x: Any, n: Any) -> Any:
    """A loop inside of a scan inside of a branch."""

    def body(h: Any, w: Any) -> Any:
        h = lax.while_loop(lambda s: s.sum() > 1e6, lambda s: s / 2, h)
        return jnp.tanh(h @ w), None

    return lax.cond(n > 0, lambda: lax.scan(body, x, p)[0], lambda: x)


@functools.cache
def prepared(fn: Callable[..., Any]) -> tuple[vf.Program, vf.VerifierKey, Callable[..., Any]]:
    """Once for every n: program, key and the device's half."""
    program = vf.compile(fn, STACK, X, jnp.int32(0), policy=POLICY)
    return program, program.setup(STACK, SECRET), jax.jit(program.execute)


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("fn", [branching, nested, looping])
def test_scans_inside_of_branches(fn: Callable[..., Any], n: int):
    inputs = (X, jnp.int32(n))
    program, key, execute = prepared(fn)
    assert program.claims
    y, trace = execute(STACK, *inputs)
    assert program.check(key, *inputs, y=y, trace=trace).verdict is Verdict.ACCEPT
    for index, value in enumerate(trace.values):
        taken = bool(np.any(value))
        # Of a claim under scans, the last iteration is the one that is changed.
        changed = np.array(value)
        changed.reshape(-1)[-1] += 1
        values = [changed if i == index else v for i, v in enumerate(trace.values)]
        found = program.check(key, *inputs, y=y, trace=values).results[index]
        assert found.verdict is Verdict.REJECT
        loop = program.claims[index].primitive == "while"  # it may make no trip
        assert taken or loop or found.reason == "claim-untaken"
        assert found.trip == int(np.prod(program.claims[index].trips)) - 1


def endless(x: Any) -> Any:
    """Ends after a trip for finite numbers; never, at both levels, for an infinity."""

    def inner(s: Any) -> Any:
        return lax.while_loop(lambda t: t.max() > 1, lambda t: t / 2, s)

    return lax.while_loop(lambda s: s.max() > 1, lambda s: inner(s) / 2, x)


def below(x: Any) -> Any:
    """The inner loop stands in a scan and a branch of the outer one's body."""

    def body(s: Any) -> Any:
        def turn(t: Any, _: Any) -> Any:
            half = lax.while_loop(lambda u: u.max() > 1, lambda u: u / 2, t)
            return lax.cond(t.max() > 1, lambda: half, lambda: t), None

        return lax.scan(turn, s, None, length=3)[0]

    return lax.while_loop(lambda s: s.max() > 1, body, x)


def asking(x: Any) -> Any:
    """The inner loop stands in the outer one's predicate."""

    def goes_on(s: Any) -> Any:
        return lax.while_loop(lambda t: t.max() > 1, lambda t: t / 2, s).max() > 0

    return lax.while_loop(goes_on, lambda s: s - 1, x)


@pytest.mark.parametrize("loop", [endless, below, asking])
def test_nested_loops_share_one_budget_of_trips(loop: Callable[..., Any]):
    """An infinity in a claim must not keep the verifier busy for the square of the limit."""
    compiled = vf.compile(lambda p, x: loop(x @ p), STACK[0], X, policy=POLICY)
    key = compiled.setup(STACK[0], SECRET)
    y, trace = jax.jit(compiled.execute)(STACK[0], X)
    assert compiled.check(key, X, y=y, trace=trace).verdict is Verdict.ACCEPT
    hostile = np.array(trace.values[0])
    hostile[0, 0] = np.inf
    report = compiled.check(key, X, y=y, trace=[hostile, *trace.values[1:]])
    assert report.verdict is not Verdict.ACCEPT


def test_the_budget_is_that_of_all_loops_together():
    """25 trips of the outer loop with 3 of the inner one each are 100 trips."""

    def loop(x: Any) -> Any:
        def body(state: Any) -> Any:
            i, s = state
            _, s = lax.while_loop(
                lambda t: t[0] < 3, lambda t: (t[0] + 1, t[1] + 1), (jnp.int32(0), s)
            )
            return i + 1, s

        return lax.while_loop(lambda state: state[0] < x.astype(int), body, (0, x))[1]

    for limit, verdict in ((100, Verdict.ACCEPT), (99, Verdict.INDETERMINATE)):
        policy = vf.Policy(trip_limit=limit)
        compiled = vf.compile(lambda p, x: loop(x), (), jnp.float32(25), policy=policy)
        key = compiled.setup((), SECRET)
        y, trace = compiled.execute((), jnp.float32(25))
        report = compiled.check(key, jnp.float32(25), y=y, trace=trace)
        assert report.verdict is verdict, report
        if verdict is Verdict.INDETERMINATE:
            assert report.reason == "trip-limit"


def test_loops_under_vmap_end_for_each_example():
    """JAX batches the predicate: an example that is done keeps its value."""

    def halved(v: Any) -> Any:
        return lax.while_loop(lambda c: c > 0.1, lambda c: c * 0.5, v)

    def fn(p: Any, x: Any) -> Any:
        return jax.vmap(halved)(jnp.abs(x @ p).max(1))

    compiled = vf.compile(fn, STACK[0], X, policy=POLICY)
    sent = compiled.prove(STACK[0], X)
    assert np.array_equal(sent.y, jax.jit(fn)(STACK[0], X))
    key = compiled.setup(STACK[0], SECRET)
    report = compiled.verify(key, X, sent, commitment=sent.commitment)
    assert report.verdict is Verdict.ACCEPT
    hostile = np.array(sent.trace.values[0])
    hostile[0, 0] = np.inf
    report = compiled.check(key, X, y=sent.y, trace=[hostile, *sent.trace.values[1:]])
    assert report.verdict is not Verdict.ACCEPT
