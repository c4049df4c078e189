"""Functions that jump, by their pieces: the same bits, no jump on a piece, only proven calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable.jaxpr import from_jax, interpret, pieces
from verifiable.jaxpr.effects import Effect, effects_of
from verifiable.jaxpr.perturb import in_float64

SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.5, -0.3, 3e38, 1e-30, np.inf, -np.inf, np.nan]
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "rem": lax.rem,
    "atan2": lax.atan2,
    "signbit": lambda x, y: jnp.where(jnp.signbit(x), y, -y),
    "remainder": jnp.remainder,
    "floor_divide": jnp.floor_divide,
}


def kinds(function: Callable[..., Any], *operands: Any) -> list[tuple[str, Any]]:
    block = from_jax.trace(function, *operands)[0].block
    split = (pieces.PIECE, pieces.CONTINUED)
    return [(e.kind, e.params["of"]) for e in block.equations if e.kind in split]


@pytest.mark.parametrize("name", pieces.FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_split_computes_the_same_bits(name: str, dtype: str):
    points = np.concatenate([SPECIAL, np.random.default_rng(0).standard_normal(20) * 8])
    x, y = (g.reshape(-1).astype(dtype) for g in np.meshgrid(points, points))
    function, _ = from_jax.trace(FUNCTIONS[name], x, y)
    block = function.block
    assert (pieces.PIECE, name) in kinds(FUNCTIONS[name], x, y)
    [mine] = interpret.evaluate(block, dict(zip(block.inputs, (x, y), strict=True)))
    theirs = FUNCTIONS[name](x, y)
    np.testing.assert_array_equal(*(np.asarray(v, np.float32) for v in (mine, theirs)))
    shown = ~np.isnan(np.asarray(theirs, np.float32))
    np.testing.assert_array_equal(*(np.signbit(np.asarray(v))[shown] for v in (mine, theirs)))


@pytest.mark.parametrize("name", [n for n, f in pieces.FUNCTIONS.items() if f.continued])
def test_given_its_piece_a_function_does_not_jump(name: str):
    """Not where the primitive does: at a cut, or at a multiple of the divisor."""
    entry, step = pieces.FUNCTIONS[name], np.float64(1e-9)
    # From below to above the jump, on the piece of each side.
    x, y = (np.float64(v) for v in ((0.0, -2.0) if name == "atan2" else (1.5, 0.5)))
    with jax.enable_x64(True):
        below, above = x - step, x + step
        jumped = FUNCTIONS[name](np.array([below, above]), np.array([y, y]))
        assert abs(jumped[1] - jumped[0]) > 0.1
        for side in (below, above):
            piece = entry.own(entry.value(side, y), side, y)
            values = [pieces.function(pieces.CONTINUED, name)(piece, v, y) for v in (below, above)]
            assert abs(float(values[1] - values[0])) < 1e-8


def test_the_piece_is_a_decision_and_the_rest_is_continuous():
    x = jnp.zeros(3)
    block = from_jax.trace(lax.rem, x, x)[0].block
    effects = {e.kind: effects_of(e) for e in block.equations}
    assert effects == {
        "div": (Effect.CONTINUOUS,),
        "piece": (Effect.DISCONTINUOUS,),
        "continued": (Effect.CONTINUOUS,),
    }


def test_a_function_of_the_same_name_is_another_function():
    """Cheat: a program that is not JAX's function would be checked as if it were."""

    @jax.jit
    def remainder(x: Any, y: Any) -> Any:
        return x - y

    @jax.jit
    def signbit(x: Any) -> Any:
        return x > 1

    x = jnp.ones(3)
    assert kinds(lambda x: (remainder(x, x), signbit(x)), x) == []
    assert kinds(lambda x: jnp.remainder(x, 2.0), x)[0] == ("piece", "remainder")


def test_a_call_whose_operands_were_batched_is_split_all_the_same():
    """Its shapes are no longer those of a call that JAX's function could be traced with."""
    x = jnp.ones((4, 3))
    assert kinds(jax.vmap(lambda r: jnp.mod(r, r.max())), x)[0] == ("piece", "rem")


def test_the_next_number_is_that_of_its_own_type():
    """In double precision it would be another: what is subtracted from it lost all its digits."""
    x = np.array([1.0, -3.0, 0.1], np.float32)
    [equation] = from_jax.trace(lax.nextafter, x, x)[0].block.equations
    with jax.enable_x64(True):
        [found] = in_float64(equation, [x.astype(np.float64), np.full(3, np.inf)])
    np.testing.assert_array_equal(found, np.nextafter(x, np.float32(np.inf)).astype(np.float64))


def test_whole_numbers_are_no_floats():
    n = jnp.arange(3)
    assert kinds(lambda n: (lax.rem(n, n + 1), n // 2), n) == []
