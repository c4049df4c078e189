"""What tests evaluate with numpy instead of compiling it is what XLA computes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.interpreted import programs

pytestmark = pytest.mark.compiled

RNG = np.random.default_rng(0)
X = np.round(RNG.standard_normal((4, 6)), 2).astype(np.float32)
KINDS = ["float32", "float64", "bfloat16", "float16", "int32", "int8", "uint32"]
# Functions of a library, and sums in another order, may differ in the last digits.
DIGITS = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}


def numbers(x: Any, y: Any) -> dict[str, Any]:
    """All that a type of numbers has."""
    found: dict[str, Any] = {}
    unary = "abs neg sign square exp exp2 expm1 log log1p tanh tan sin cos sinh cosh asinh atan"
    unary += " logistic sqrt rsqrt cbrt erf erfc floor ceil is_finite bitwise_not population_count"
    unary += " clz erf_inv asin"
    binary = "add sub mul div rem max min pow atan2 nextafter eq ne lt le gt ge bitwise_and"
    binary += " bitwise_or bitwise_xor shift_left shift_right_logical shift_right_arithmetic"
    for names, operands in ((unary, (x,)), (binary, (x, y))):
        for name in names.split():
            try:
                found[name] = getattr(lax, name)(*operands)
            except TypeError:  # not of this type
                continue
    for exponent in (-2, 0, 1, 5):
        if exponent >= 0 or jnp.issubdtype(x.dtype, jnp.floating):
            found[f"to the {exponent}"] = lax.integer_pow(x, exponent)
    if jnp.issubdtype(x.dtype, jnp.floating):
        found |= {f"rounded {i}": lax.round(x, way) for i, way in enumerate(lax.RoundingMethod)}
        found["digits"] = lax.reduce_precision(x, jnp.finfo(x.dtype).nexp, 5)
    for kind in ("float32", "int32", "int8", "uint8", "bfloat16", "bool"):
        found[f"to {kind}"] = x.astype(kind)
    found["clamp"] = lax.clamp(x.dtype.type(0), x, x.dtype.type(2))
    found["select"] = lax.select_n((x > y).astype(jnp.int32), x, y)
    return found


def reductions(x: Any, y: Any) -> dict[str, Any]:
    """What combines or orders many numbers."""
    found = {
        name: getattr(jnp, name)(x, axis=1) for name in "sum prod max min argmax argmin".split()
    }
    for name in ("cumsum", "cumprod", "cummax", "cummin"):
        found[name] = getattr(lax, name)(x, axis=1, reverse=name == "cummax")
    found["sort"] = lax.sort((x, y), dimension=0, num_keys=2)
    found["one key"] = lax.sort((x // 1, y), dimension=1, num_keys=1, is_stable=True)
    found["top"] = lax.top_k(x, 3)
    found["dot"] = lax.dot_general(x, y, (((1,), (1,)), ((), ())))
    found["dots"] = lax.dot_general(x, y, (((1,), (1,)), ((0,), (0,))))
    wider = jnp.int32 if jnp.issubdtype(x.dtype, jnp.integer) else jnp.float32
    if x.dtype.itemsize < 4 and x.dtype != jnp.uint32:
        found["wider"] = lax.dot_general(
            x, y, (((0,), (0,)), ((), ())), preferred_element_type=wider
        )
    return found


def moved(x: Any, places: Any) -> Any:
    """What moves, picks or stores."""
    inside = jnp.abs(places) % 4
    return (
        *(lax.pad(x, 0.0, ((1, -1, 1), (-2, 3, 0))), lax.rev(x, (1,)), jnp.stack([x, x], 1)),
        *(x.reshape(6, 4), x.T, x[1:3, ::2], jnp.split(x, 2, 1), lax.squeeze(x[:1], (0,))),
        *(lax.dynamic_slice(x, (places[0], places[1]), (2, 3)), lax.iota(jnp.int8, 5)),
        lax.dynamic_update_slice(x, x[:2, :2] + 1, (places[1], places[0])),
        *(x.at[places].get(mode=mode) for mode in ("fill", "clip")),
        *(x.at[inside].get(mode="promise_in_bounds"), x[inside, inside], x[:, inside]),
        *(x.at[places].set(7.0, mode="drop"), x.at[places, places].add(2.0, mode="drop")),
        *(x.at[inside].max(0.5), x.at[inside].min(0.5), x.at[:, inside].mul(2.0, mode="clip")),
        *(jax.vmap(lambda r, i: r[i])(x, inside), jax.vmap(lambda r, i: r.at[i].add(1))(x, inside)),
        *(lax.bitcast_convert_type(x, jnp.int32), lax.bitcast_convert_type(x, jnp.uint8)),
        *(jax.random.bits(jax.random.key(3), (5,)), jax.random.normal(jax.random.key(4), (2, 3))),
    )


def controlled(x: Any, n: Any) -> Any:
    """Loops, branches and calls, also of a batch."""

    def step(c: Any, r: Any) -> Any:
        return jnp.tanh(c) + r, (c, r.sum())

    def halved(a: Any) -> Any:
        return lax.while_loop(lambda c: c[0] > 0.1, lambda c: (c[0] / 2, c[1] + 1), (a, 0))

    def branch(i: Any, a: Any) -> Any:
        return lax.switch(i, [jnp.sin, jnp.cos, lambda v: v + 1], a)

    return (
        *(lax.scan(step, x[0], x), lax.scan(step, x[0], x, reverse=True), halved(x[0, 0])),
        *(jax.vmap(halved)(jnp.abs(x[0])), branch(n, x), branch(-n, x), branch(n + 9, x)),
        *(jax.vmap(branch)(jnp.arange(4), x), lax.fori_loop(0, n, lambda i, c: c * 2 + i, x)),
        *(jax.nn.relu(x), jax.nn.silu(x), jax.grad(lambda v: jax.nn.gelu(v).sum())(x)),
        *(jax.checkpoint(jnp.sin)(x), lax.optimization_barrier((x, x[0]))[1]),
        *(jnp.linalg.cholesky(x @ x.T + 4 * jnp.eye(4)), jnp.fft.fft(x).real),
    )


def both(fn: Callable[..., Any], *operands: Any) -> tuple[Any, Any, int]:
    """What is found here and by XLA, and how many equations were evaluated here."""
    before, held = programs.steps, programs.active
    try:
        programs.active = True
        mine = jax.jit(functools.partial(fn))(*operands)
        steps = programs.steps - before
        programs.active = False
        return mine, jax.jit(functools.partial(fn))(*operands), steps
    finally:
        programs.active = held


def assert_alike(mine: Any, other: Any) -> None:
    found, wanted = (jax.tree_util.tree_leaves_with_path(x) for x in (mine, other))
    for (path, a), (_, b) in zip(found, wanted, strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type), path
        if jnp.issubdtype(a.dtype, jnp.floating):
            digits = DIGITS[a.dtype.name]
            wide = [np.asarray(v, np.float64) for v in (a, b)]
            np.testing.assert_allclose(*wide, rtol=digits, atol=digits, err_msg=str(path))
        else:
            np.testing.assert_array_equal(a, b, err_msg=str(path))


@pytest.mark.parametrize("fn", [numbers, reductions])
@pytest.mark.parametrize("kind", KINDS)
def test_operations_are_those_of_xla(kind: str, fn: Callable[..., Any]):
    with jax.enable_x64(True):
        x, y = (jnp.asarray(4 * v).astype(jnp.int32).astype(kind) for v in (X, X[::-1]))
        if kind[0] != "i" and kind[0] != "u":
            x, y = (jnp.asarray(v).astype(kind) for v in (X, X[::-1]))
        mine, other, steps = both(fn, x, y)
        assert steps >= len(mine)
        assert_alike(mine, other)


def test_what_is_not_finite_or_out_of_range_is_converted_as_by_xla():
    x = jnp.asarray([np.nan, np.inf, -np.inf, 3e9, -3e9, 127.9, -128.9, -0.5, 255.5], np.float32)

    def converted(x: Any) -> Any:
        kinds = ("int32", "int8", "uint8", "uint32", "bool", "float16", "bfloat16")
        return [lax.convert_element_type(x, k) for k in kinds], lax.sort(x), jnp.argmax(x)

    assert_alike(*both(converted, x)[:2])
    least = jnp.asarray([-(2**31), -7, 7, 5], jnp.int32)
    by = jnp.asarray([-1, 0, -2, 40], jnp.int32)
    shifts = (lax.shift_left, lax.shift_right_logical, lax.shift_right_arithmetic)

    def divided(a: Any, b: Any) -> Any:
        return [f(a, b) for f in (lax.div, lax.rem, *shifts)]

    assert_alike(*both(divided, least, by)[:2])


def test_data_is_moved_as_by_xla():
    mine, other, steps = both(moved, X, jnp.asarray([1, -5, 3, 9]))
    assert steps
    assert_alike(mine, other)


def test_loops_and_branches_are_those_of_xla():
    mine, other, steps = both(controlled, X, jnp.int32(2))
    assert steps
    assert_alike(mine, other)


def test_types_of_arguments_are_those_of_the_program():
    mine, other, steps = both(lambda a, b: (a + b, a * 2), 1.5, 2)
    assert steps
    assert_alike(mine, other)


@pytest.mark.parametrize(
    "how", [{"donate_argnums": 0}, {"compiler_options": {"xla_cpu_enable_fast_math": True}}]
)
def test_a_program_that_is_more_than_its_equations_is_compiled(
    monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
):
    monkeypatch.setattr(programs, "active", True)
    before = programs.steps
    jax.jit(lambda x: x * 2 + 1, **how)(jnp.ones(3))
    assert programs.steps == before


def test_a_program_that_is_run_often_is_compiled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(programs, "active", True)
    monkeypatch.setattr(programs, "MOST", 4)
    monkeypatch.setattr(programs, "MOST_EACH", 2)
    run = jax.jit(lambda x: (x * 2 + 1) * x)
    before = programs.steps
    found = [float(run(jnp.float32(3))) for _ in range(9)]
    assert found == [21.0] * 9
    assert 0 < programs.steps - before <= 10
