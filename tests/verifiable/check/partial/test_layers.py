"""Layers: what they are, and that what is opened for some of them is all that their tests read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import verifiable as vf
from tests.helpers.traces import received
from verifiable import challenge
from verifiable.check.compiled import CheckArguments
from verifiable.check.partial.layers import Layers
from verifiable.check.partial.measured import AuditDraw
from verifiable.policy import Policy

WIDTH = 64
RNG = np.random.default_rng(7)
P = jnp.asarray(RNG.standard_normal((4, 2, WIDTH, WIDTH)) / 8, jnp.float32)
X = jnp.asarray(RNG.standard_normal((WIDTH, WIDTH)), jnp.float32)


def stream(w: Any, c: Any) -> Any:
    return c + jnp.tanh(jnp.sin(c) @ w[0]) @ w[1]


def plain(p: Any, x: Any) -> Any:
    return lax.scan(lambda c, w: (stream(w, c), None), x, p)[0]


def backwards(p: Any, x: Any) -> Any:
    return lax.scan(lambda c, w: (stream(w, c), None), x, p, reverse=True)[0]


def stacked(p: Any, x: Any) -> Any:
    """Every iteration's claims are part of the answer, and its carry is not."""
    return lax.scan(lambda c, w: (stream(w, c), jnp.cos(c) @ w[1]), x, p)[1]


def late(p: Any, x: Any) -> Any:
    """A carry that another one needs an iteration later."""

    def body(c: Any, w: Any) -> Any:
        a, b = c
        return (jnp.sin(x) @ w[0], b + a), None

    return lax.scan(body, (x, x), p)[0][1]


def counted(p: Any, x: Any) -> Any:
    """Carries that are known, exact and neither; a branch, a loop and a scan in each iteration."""

    def body(c: Any, w: Any) -> Any:
        known, i, h = c
        g = lax.cond(jnp.sin(h)[0, 0] > i, lambda: h @ w[0], lambda: jnp.cos(h) @ w[0].T)
        g = lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] * 0.9), (0, g))[1]
        h = h + lax.scan(lambda d, v: (jnp.sin(d) @ v, None), g, w)[0] * known
        return (known * 1.1 + w[0, 0, 0], i + 1, h), h.sum(-1)

    (_, _, h), sums = lax.scan(
        body, (p[0, 0, 0, 0], (x[0, 0] > 9).astype(jnp.int32), x), p, reverse=True
    )
    return lax.scan(lambda c, w: (stream(w, c) + sums[0], None), h @ p[0, 0], p[:3])[0]


def compiled(fn: Callable[..., Any], *, cuts: bool = False) -> vf.Program:
    return vf.compile(fn, P, X, policy=Policy(draws=4), cuts=cuts)


def opened(fn: Callable[..., Any], layers: list[int], *, cuts: bool = False) -> dict[int, Any]:
    """Iterations of the claims that are opened, without the outputs; None for all."""
    program = compiled(fn, cuts=cuts)
    found = Layers.of(program).opened(layers)
    claims = (c.index for c in program.claims if c.index in found)
    return {i: None if (trips := found[i]) is None else sorted(trips) for i in claims}


def test_the_carry_before_a_layer_follows_from_the_claims_that_enter_it():
    assert opened(plain, [1]) == {0: [1], 1: [0, 1, 2, 3]}
    assert opened(backwards, [1]) == {0: [1], 1: [0, 1, 2, 3]}
    assert opened(stacked, [1]) == {0: [1], 1: [0, 1], 2: [0, 1, 2, 3]}
    assert opened(stacked, [0]) == {0: [0], 1: [0], 2: [0, 1, 2, 3]}


def test_a_cut_stands_for_all_before_it():
    assert opened(plain, [1], cuts=True) == {0: [1], 1: [1], 2: [0, 1, 3]}
    assert opened(plain, [0], cuts=True) == {0: [0], 1: [0], 2: [0, 3]}
    assert opened(backwards, [1], cuts=True) == {0: [1], 1: [1], 2: [0, 1, 2]}
    assert opened(backwards, [3], cuts=True) == {0: [3], 1: [3], 2: [0, 3]}


def test_a_claim_that_enters_a_carry_later_is_opened_too():
    # The answer adds up the products of all iterations but the last.
    assert opened(late, [3]) == {0: [0, 1, 2, 3]}
    # With cuts, the last sum is committed, and what entered it before.
    assert opened(late, [3], cuts=True) == {0: [2, 3], 1: [2, 3]}


def test_a_named_value_is_the_cut_of_layers_that_are_written_out():
    def written_out(p: Any, x: Any) -> Any:
        for i in range(4):
            with jax.named_scope(f"block_{i}"):
                x = checkpoint_name(stream(p[i], x), "stream")
        return x

    assert opened(written_out, [2]) == {1: None, 3: None, 4: None, 5: None, 7: None}
    # Two products and a cut each: those of the layer, the cut before it, and the last one.
    assert opened(written_out, [2], cuts=True) == dict.fromkeys((5, 6, 7, 8, 11))
    assert opened(written_out, [0], cuts=True) == dict.fromkeys((0, 1, 2, 11))
    assert compiled(written_out, cuts=True).layers == tuple(f"block_{i}" for i in range(4))


def test_what_is_a_layer():
    def scoped(p: Any, x: Any) -> Any:
        for i in range(2):
            with jax.named_scope("model"), jax.named_scope(f"block_{i}"):
                x = stream(p[i], x)
        return x @ p[0, 0]

    def alone(p: Any, x: Any) -> Any:
        with jax.named_scope("block_7"):
            return stream(p[0], lax.scan(lambda c, w: (stream(w, c), None), x, p[:1])[0])

    assert compiled(plain).layers == ("scan[0]", "scan[1]", "scan[2]", "scan[3]")
    assert compiled(counted).layers == (
        *(f"scan.2[{i}]" for i in range(4)),
        *(f"scan.3[{i}]" for i in range(3)),
    )
    program = compiled(scoped)
    assert program.layers == ("model/block_0", "model/block_1")
    found = Layers.of(program)
    assert (found.groups, found.always) == (({0, 1}, {2, 3}), {4})
    # One iteration, or one scope, is the whole program.
    program = compiled(alone)
    assert program.layers == tuple(c.name for c in program.claims)
    assert not Layers.of(program).always
    with pytest.raises(ValueError, match="no claims"):
        compiled(lambda p, x: x + p[0, 0]).audit_plan(bytes(32), layers=1)


@pytest.mark.parametrize("cuts", [False, True])
def test_tests_read_what_is_opened_and_nothing_else(cuts: bool):
    """With numbers that are none in place of the rest, every measure is that of a whole check."""
    program = compiled(counted, cuts=cuts)
    key = program.setup(P, challenge.secret(bytes(32)))
    run = jax.device_get(program.prove(P, X))
    whole, own = program.compiled_check.measure(CheckArguments.of(key, (X,), run.y, run.trace))
    layers, audit = program._layers, program._compiled_audit
    for chosen in ([0, 5], [3, 4]):
        seen = layers.opened(chosen)
        values = [hidden(v, seen.get(i, ())) for i, v in enumerate(run.trace.values)]
        given = received(program.layout, values)
        arguments = audit.arguments(
            AuditDraw(chosen), key.arrays, (X,), jax.tree.leaves(run.y), given
        )
        found, mine = audit.measure(chosen, arguments, given)
        for i, trips in layers.tested(chosen).items():
            statistic, same = found.statistics[i], whole.statistics[i].worst
            same = same if trips is None else same[sorted(trips)]
            np.testing.assert_allclose(statistic.worst, same, rtol=1e-2, atol=1e-2)  # last bits
            for holds in (statistic.passed, statistic.finite_claim, statistic.finite_operands):
                assert np.all(holds)
        np.testing.assert_allclose(mine, own, rtol=1e-4, atol=1e-4)


def hidden(value: Any, trips: Any) -> Any:
    """A claim without the iterations that are not opened."""
    value = np.asarray(value)
    if trips is None:
        return value
    floats = value.dtype.kind == "f"
    found = np.full_like(value, np.nan) if floats else np.zeros_like(value)
    keep = sorted(trips)
    found[keep] = value[keep]
    return found
