"""Rows that decide: what honest rounding does to a norm, and what is left to a cheat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable.check.analysis.dataflow import Forward
from verifiable.claims.form import Yardstick
from verifiable.claims.roundings import axes
from verifiable.claims.roundings.rounding import Rounding
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Equation
from verifiable.jaxpr.effects import effects_of
from verifiable.jaxpr.from_jax import flatten
from verifiable.jaxpr.perturb import in_float64
from verifiable.policy import DEFAULT
from verifiable.testing.devices import AWAY, EACH, INDEPENDENT, UP, elementwise, inexact, moved

RNG = np.random.default_rng(12)
ROWS, INNER = 32, 96
W = jnp.asarray(RNG.standard_normal((INNER, 600)), jnp.bfloat16)
X = jnp.asarray(RNG.standard_normal((ROWS, INNER)) * RNG.lognormal(size=(ROWS, 1)), jnp.bfloat16)
GAIN = jnp.asarray(RNG.standard_normal(INNER) / 9 + 1, jnp.bfloat16)


def chosen(q: Any) -> Any:
    return jnp.argmax(lax.dot(q, W, preferred_element_type=jnp.float32), -1)


def scaled(x: Any) -> Any:
    return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-3).astype(x.dtype)


def centred(x: Any) -> Any:
    x = x - jnp.mean(x, -1, keepdims=True)
    return scaled(x) * GAIN + GAIN / 4


def quantised(x: Any) -> Any:
    h = scaled(x).astype(jnp.float32)
    unit = jnp.max(jnp.abs(h), -1, keepdims=True) / 127
    return jnp.clip(jnp.round(h / unit), -127, 127).astype(jnp.bfloat16)


NORMS: dict[str, Callable[[Any], Any]] = {
    "root mean square": scaled,
    "layer norm": centred,
    "levels": quantised,
}


def device(seed: int, way: int) -> interpret.Apply:
    """A device off by up to a unit in the last place, as those of the benchmark."""
    numbers = iter(range(10**6))

    def apply(e: Equation, values: Any) -> list[Array]:
        results, number = interpret.apply(e, values), np.uint32(next(numbers))
        exact = in_float64(e, values) if elementwise(e) else [None] * len(results)
        return [
            moved(x, y, np.uint32(seed), number, np.uint32(way)) if inexact(effect, x) else x
            for effect, x, y in zip(effects_of(e), results, exact, strict=True)
        ]

    return apply


def rounding(norm: Callable[[Any], Any]) -> SimpleNamespace:
    """The last rounding before a choice: its form, what devices commit to, and its test."""
    function = flatten(jax.make_jaxpr(lambda x: chosen(norm(x)))(X))
    block = function.block
    claims = Forward.over(block, 0, 1).claims
    found = [(e, c) for e, c in claims.items() if isinstance(c.proposal.form, Rounding)]
    equation, claimed = found[-1]
    proposal = claimed.proposal
    tested: Any = SimpleNamespace(
        eps_types=proposal.form.eps_types(claimed.before.rounding_dtypes),
        narrow_sums=claimed.before.narrow_sums,
        own_sums=(),
        decisive=0,
    )
    given = Yardstick(eps=DEFAULT.eps_of(tested))

    def committed(apply: interpret.Apply = interpret.apply) -> dict[Equation, Array]:
        """What a device commits to."""
        env = dict(zip(block.inputs, (*function.constants, X), strict=True))
        for e in block.equations:
            interpret.replay(e, env, apply)
        return {e: env[e.outputs[0]] for e in claims}

    def operands(theirs: dict[Equation, Array]) -> list[Array]:
        """What the last rounding reads, replayed from what was committed before."""
        env = dict(zip(block.inputs, (*function.constants, X), strict=True))
        for e in block.equations:
            interpret.replay(e, env)
            if e is equation:
                break
            if e in claims:
                env[e.outputs[0]] = theirs[e]
        return list(interpret.read_all(env, proposal.operands))

    def worst(theirs: dict[Equation, Array], form: Any = proposal.form) -> float:
        """The statistic of the last rounding."""
        return float(form.test(operands(theirs), theirs[equation], given).worst)

    return SimpleNamespace(
        form=proposal.form, last=equation, committed=committed, operands=operands, worst=worst
    )


@pytest.mark.parametrize("name", NORMS)
def test_honest_rows_are_within_what_their_glue_does(name: str):
    with jax.enable_x64(True):
        case = rounding(NORMS[name])
        assert case.form.origin is not None
        assert case.worst(case.committed()) < 0.5
        for seed, way in enumerate((INDEPENDENT, EACH, UP, AWAY)):
            assert case.worst(case.committed(device(seed, way))) < 1.0


def test_a_row_is_left_no_more_than_the_choice_between_neighbours():
    """Cheat: every element one unit in the last place further in a direction of its own."""
    with jax.enable_x64(True):
        case = rounding(scaled)
        theirs = case.committed()
        own = theirs[case.last]
        way = jnp.where(jnp.asarray(RNG.random(X.shape)) < 0.5, -jnp.inf, jnp.inf)
        theirs[case.last] = lax.nextafter(own, way.astype(own.dtype))
        loose = replace(case.form, origin=None)
        assert case.worst(theirs, loose) < 1.0 < case.worst(theirs)


@pytest.mark.parametrize("name", ["root mean square", "layer norm"])
def test_the_slack_of_operands_holds_what_their_glue_does_whatever_the_tolerance(name: str):
    """At least a unit in the last place of each element, and not many."""
    with jax.enable_x64(True):
        case = rounding(NORMS[name])
        assert case.form.steps == ()
        own = case.operands(case.committed())
        slack = np.asarray(case.form.slack_of(own, 0.0))
        value = np.asarray(own[0].astype(jnp.float32))
        for seed, way in enumerate((INDEPENDENT, EACH, UP, AWAY)):
            theirs = case.committed(device(seed, way))[case.last]
            assert np.all(np.abs(np.asarray(theirs.astype(jnp.float32)) - value) <= slack)
    unit = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(value), 2.0**-60))) - 7)
    assert np.all(slack >= unit)
    assert np.median(slack / unit) < 8


def test_what_moves_a_row_as_a_whole_is_left_to_the_device():
    with jax.enable_x64(True):
        case = rounding(scaled)
        theirs = case.committed()
        larger = theirs[case.last].astype(jnp.float32) * (1 + 2.0**-8)
        theirs[case.last] = larger.astype(X.dtype)
        assert case.worst(theirs) < 0.8


def test_rows_of_wider_norms_have_no_such_limit():
    assert rounding(lambda x: scaled(x.astype(jnp.float32)).astype(x.dtype)).form.origin is None


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [((4, 6), (1, 4, 6), True), ((4, 1), (4,), True), ((4, 6), (8, 3), False)],
)
def test_rows_are_followed_where_a_reshape_keeps_them(before: Any, after: Any, kept: bool):
    function = flatten(jax.make_jaxpr(lambda x: x.reshape(after))(jnp.zeros(before)))
    found = axes.lying(function.block.equations, function.block.outputs[0], (len(after) - 1,))
    assert (found is not None) is kept
