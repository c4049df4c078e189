"""What tests evaluate op by op with numpy is what JAX computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers import moves

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
SUBNORMAL = np.float32([1e-40, 1.0, 0.0])

CASES: dict[str, tuple[Callable[..., Any], Any]] = {
    "a row as columns": (lambda x: lax.broadcast_in_dim(x, (2, 3), (1,)), X[:, 0]),
    "a number": (lambda x: lax.broadcast_in_dim(x, (2,), ()), X[0, 0]),
    "nothing": (lambda x: lax.broadcast_in_dim(x, (0, 2), (1,)), X[0, :2]),
    "rows one after another": (lambda x: lax.concatenate([x, x[:1]], 0), X),
    "narrow floats": (lambda x: lax.convert_element_type(x, jnp.float32), X.astype(jnp.bfloat16)),
    "what is not finite": (
        lambda x: lax.convert_element_type(x, jnp.float32),
        np.array([np.nan, np.inf], jnp.bfloat16),
    ),
    "integers": (lambda x: lax.convert_element_type(x, jnp.int32), np.int8([-1, 7])),
    "a conversion that rounds": (lambda x: lax.convert_element_type(x, jnp.bfloat16), X / 3),
    "one that rounds to subnormal numbers": (
        lambda x: lax.convert_element_type(x, jnp.float16),
        X * np.float32(1e-5),
    ),
    "one that overflows": (lambda x: lax.convert_element_type(x, jnp.float16), X * np.float32(1e5)),
    "integers that are cut off": (
        lambda x: lax.convert_element_type(x, jnp.int8),
        X.view(np.int32),
    ),
    "large integers": (lambda x: lax.convert_element_type(x, jnp.float32), X.view(np.int32)),
    "subnormal numbers": (lambda x: lax.convert_element_type(x, jnp.complex64), SUBNORMAL),
    "a slice beyond the end": (lambda x: lax.dynamic_slice(x, (2, -7), (2, 2)), X),
    "positions": (lambda x: lax.broadcasted_iota(x.dtype, (2, 600), 1), X.astype(jnp.bfloat16)),
    "another shape": (lambda x: lax.reshape(x, (2, 6)), X),
    "every second": (lambda x: lax.slice(x, (0, 1), (3, 4), (2, 2)), X),
    "without a dimension": (lambda x: lax.squeeze(x, (0,)), X[:1]),
    "columns for rows": (lambda x: lax.transpose(x, (1, 0)), X),
    "behind a barrier": (lambda x: lax.optimization_barrier((x, x[0]))[1], X),
    "random keys": (lambda x: jax.random.key_data(lax.reshape(x, (1,))), jax.random.key(3)),
}


@pytest.mark.parametrize(("fn", "x"), CASES.values(), ids=CASES)
def test_a_move_is_what_jax_compiles(fn: Callable[..., Any], x: Any):
    moved, compiled = fn(jnp.asarray(x)), jax.jit(fn)(x)
    assert (moved.shape, moved.dtype, moved.weak_type) == (
        compiled.shape,
        compiled.dtype,
        compiled.weak_type,
    )
    assert np.asarray(moved).tobytes() == np.asarray(compiled).tobytes()


def test_weak_types_and_what_is_no_array_are_left_to_jax():
    def refused(*_: Any) -> Any:
        raise AssertionError("moved by numpy")

    for operand in (jnp.asarray(1.0), 1.0, np.float64([1.0])):
        assert moves.moved(refused, lambda x: x, operand) is operand
