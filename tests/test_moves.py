"""What tests evaluate op by op with numpy is what JAX computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers import arithmetic, moves

pytestmark = pytest.mark.compiled

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
    assert_same(moved, compiled)


def assert_same(mine: Any, other: Any, name: str = "") -> None:
    kinds = [(x.shape, x.dtype, x.weak_type) for x in (mine, other)]
    assert kinds[0] == kinds[1], name
    assert np.asarray(mine).tobytes() == np.asarray(other).tobytes(), name


KINDS = "float32 float64 int32 uint32 int8 bool".split()


OPERATIONS: dict[str, Callable[..., Any]] = {
    **{"add": lax.add, "sub": lax.sub, "mul": lax.mul, "div": lax.div, "max": lax.max},
    **{"min": lax.min, "eq": lax.eq, "ne": lax.ne, "lt": lax.lt, "le": lax.le, "gt": lax.gt},
    **{"ge": lax.ge, "and": lax.bitwise_and, "or": lax.bitwise_or, "xor": lax.bitwise_xor},
    "neg": lambda x, _: lax.neg(x),
    "abs": lambda x, _: lax.abs(x),
    "sqrt": lambda x, _: lax.sqrt(x),
    "square": lambda x, _: lax.square(x),
    "is_finite": lambda x, _: lax.is_finite(x),
    "not": lambda x, _: lax.bitwise_not(x),
    "integer_pow": lambda x, _: lax.integer_pow(x, 2),
    "reduce_max": lambda x, _: lax.reduce_max(x, (1,)),
    "reduce_min": lambda x, _: lax.reduce_min(x, (0, 1)),
    "reduce_and": lambda x, _: lax.reduce_and(x, (0,)),
    "reduce_or": lambda x, _: lax.reduce_or(x, (1,)),
    "select_n": lambda x, y: lax.select_n(x < y, x, y),
    "shift_right_logical": lambda x, y: lax.shift_right_logical(
        x, lax.bitwise_and(y, y.dtype.type(15))
    ),
}


def computed(x: Any, y: Any) -> dict[str, Any]:
    """All that numpy computes of two operands, if JAX has it for them."""
    found: dict[str, Any] = {}
    for name, operation in OPERATIONS.items():
        if name.startswith("reduce") and not x.shape:
            continue
        if name == "div" and x.shape != y.shape:
            continue  # left to JAX, see below
        try:
            found[name] = operation(x, y)
        except TypeError:  # not of this type
            continue
    return found


def test_every_operation_is_compared():
    assert OPERATIONS.keys() == arithmetic.operations().keys()


@pytest.mark.parametrize("kind", KINDS)
def test_arithmetic_is_what_jax_compiles(kind: str):
    rng = np.random.default_rng(1)
    words = rng.integers(0, 256, (2, 40, 64), np.uint8)
    x, y = np.ascontiguousarray(words).view(np.dtype(kind) if kind != "bool" else np.uint8)
    if kind == "bool":
        x, y = x > 127, y > 127
    with jax.enable_x64(True):
        # Of any size and not finite; and of one size, with zeros and some that are equal.
        ordinary = [x, y]
        if kind.startswith("float"):
            ordinary = [np.round(rng.standard_normal(a.shape), 1).astype(kind) + 0 for a in (x, y)]
        scalar = [ordinary[0], x.dtype.type(3)]
        for pair in ([x, y], ordinary, scalar, scalar[::-1]):
            operands = [jnp.asarray(a) for a in pair]
            mine, compiled = computed(*operands), jax.jit(computed)(*operands)
            assert mine.keys() == compiled.keys()
            for name, found in mine.items():
                assert_same(found, compiled[name], name)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_arithmetic_near_the_least_number_is_left_to_jax(kind: str):
    least = np.finfo(kind).tiny
    for x, y in ((least, 0.5), (least, 1 - np.finfo(kind).epsneg), (np.nan, 1), (least / 2, 4)):
        assert arithmetic.operations()["mul"](np.full(2, x, kind), np.full(2, y, kind)) is None
    # XLA multiplies by the reciprocal of a scalar.
    assert arithmetic.operations()["div"](np.ones(2, kind), np.array(3, kind)) is None
    zeros = np.array([0, -0.0], kind)
    assert arithmetic.operations()["max"](zeros, zeros[::-1]) is None
    assert arithmetic.operations()["reduce_min"](zeros, axes=(0,)) is None


def test_types_of_python_numbers_give_way_as_in_jax():
    one, x = jnp.asarray(1.0), jnp.asarray(X[0])
    for fn in (
        lambda: lax.add(one, one),
        lambda: lax.gt(one, one),
        lambda: lax.mul(one, x),
        lambda: lax.select_n(x > 0, x, lax.broadcast(one, (4,))),
        lambda: lax.select_n(one > 0, one, one),
        lambda: lax.broadcast_in_dim(one, (2, 3), ()),
        lambda: lax.dynamic_slice(x, (jnp.asarray(1),), (2,)),
        lambda: lax.concatenate([x, lax.broadcast(one, (1,))], 0),
        lambda: lax.convert_element_type(one, jnp.float32),
        lambda: jnp.asarray(2),
    ):
        assert_same(fn(), jax.jit(fn)())


def test_what_is_no_array_is_left_to_jax():
    def refused(*_: Any) -> Any:
        raise AssertionError("moved by numpy")

    for operand in (1.0, np.float64([1.0])):
        assert moves.moved(refused, lambda x: x, operand) is operand
