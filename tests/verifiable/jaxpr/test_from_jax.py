"""Flattened functions: every call is entered, bodies are scoped lexically, constants are inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.functions import (
    Example,
    W,
    X,
    assert_same_bits,
    each_example,
    evaluated,
)
from verifiable.jaxpr import from_jax
from verifiable.jaxpr.blocks import Block, Var


@each_example
def test_calls_are_entered(case: Example):
    function, _ = from_jax.trace(case.fn, *case.args)
    kinds = {equation.kind for equation in function.block.walk()}
    assert case.kinds <= kinds
    assert not {k for k in kinds if "jit" in k or "remat" in k or "checkpoint" in k}
    assert not {k for k in kinds if k in ("closed_call", "core_call")}
    assert not {k for k in kinds if k.startswith(("custom_jvp", "custom_vjp"))}


def free(block: Block, scope: frozenset[Var]) -> Iterator[Var]:
    """Variables that a block reads although nothing around it has defined them."""
    scope |= {*block.inputs}
    for equation in block.equations:
        yield from (a for a in equation.inputs if isinstance(a, Var) and a not in scope)
        for body in equation.bodies:
            yield from free(body, scope)
        assert not scope & {*equation.outputs}, "defined twice"
        scope |= {*equation.outputs}
    yield from (a for a in block.outputs if isinstance(a, Var) and a not in scope)


@each_example
def test_bodies_are_scoped_lexically(case: Example):
    function, _ = from_jax.trace(case.fn, *case.args)
    assert not list(free(function.block, frozenset()))
    equations = list(function.block.walk())
    for e in equations:
        if e.kind == "scan":
            [body] = e.bodies
            assert len(e.inputs) == len(body.inputs)
            assert len(e.outputs) == len(body.outputs)
            assert set(e.params) == {"length", "reverse", "unroll", "num_carry"}
        elif e.kind == "cond":
            assert len(e.inputs) == 1
            assert all(body.inputs == () for body in e.bodies)
            assert all(len(body.outputs) == len(e.outputs) for body in e.bodies)
        elif e.kind == "while":
            predicate, body = e.bodies
            assert len(e.inputs) == len(predicate.inputs) == len(body.inputs) == len(e.outputs)
        else:
            assert not e.bodies
    names = [e.name for e in equations]
    assert len(set(names)) == len(names)


# ------------------------------------------------------------------------------------- constants


def constants_of(fn: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    function, _ = from_jax.trace(fn, *args)
    count = len(function.constants)
    assert [(v.shape, v.dtype) for v in function.block.inputs[:count]] == [
        (c.shape, c.dtype) for c in function.constants
    ]
    return function.constants


def test_constants_become_the_first_inputs_wherever_they_were():
    other = jnp.arange(4.0)

    @jax.jit
    def inner(x: Any) -> Any:
        def step(c: Any, r: Any) -> Any:
            return lax.cond(c.sum() > 0, lambda c: c @ W, lambda c: c + other, c), r

        return lax.scan(step, x[0], x)

    found = constants_of(inner, X)
    assert sorted(c.shape for c in found) == [(4,), (4, 4)]
    assert any(np.array_equal(c, W) for c in found)


def test_one_array_closed_over_twice_is_one_constant():
    inner = jax.jit(lambda x: x @ W)
    assert len(constants_of(lambda x: inner(x) @ W + inner(inner(x)), X)) == 1


def test_equal_arrays_are_not_taken_for_one():
    copy = jnp.array(np.asarray(W))
    assert len(constants_of(lambda x: x @ W @ copy, X)) == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32"])
def test_arithmetic_of_scalars_in_the_text_is_done_once(dtype: str):
    """To the bit as the function does it, so that both sides agree on what the program says."""

    @jax.jit
    def inner(x: Any, a: Any, b: Any) -> Any:
        a, b = jnp.asarray(a, dtype), jnp.asarray(b, dtype)
        c = jnp.maximum(a * b - 3, -b) + a
        return jnp.where(c > a, x * c, x + 1) - jnp.minimum(a, b)

    def fn(x: Any) -> Any:
        return inner(x, 7.3, 11.7)

    x = jnp.arange(4).astype(dtype)
    function, _ = from_jax.trace(fn, x)
    if dtype != "int32":  # of floats out of range, devices make different integers
        assert all(any(isinstance(a, Var) for a in e.inputs) for e in function.block.equations)
    assert_same_bits(jax.jit(partial(evaluated, function))(x), jax.jit(fn)(x))


def test_nothing_is_constant_where_nothing_is_closed_over():
    assert constants_of(lambda w, x: jnp.tanh(x @ w), W, X) == ()


# ------------------------------------------------------------------------------------- dead code


def test_what_nothing_depends_on_is_dropped():
    def fn(x: Any) -> Any:
        _ = jnp.linalg.inv(x @ x.T)
        y = jnp.sin(x)
        _ = lax.scan(lambda c, r: (c + r, c @ W), x[0], x)
        return y

    function, _ = from_jax.trace(fn, X)
    assert [e.kind for e in function.block.equations] == ["sin"]


def test_what_a_body_needs_of_its_surroundings_is_kept():
    def fn(x: Any) -> Any:
        y = jnp.sin(x)
        dead = jnp.cos(x)
        return lax.scan(lambda c, r: (c + (r * y).sum(), dead.sum()), 0.0, x)[0]

    function, _ = from_jax.trace(fn, X)
    assert "sin" in [e.kind for e in function.block.equations]
    assert_same_bits(jax.jit(partial(evaluated, function))(X), jax.jit(fn)(X))


def test_inputs_stay_even_if_unused():
    function, _ = from_jax.trace(lambda x, y: x + 1, X, W)
    assert [v.shape for v in function.block.inputs] == [(3, 4), (4, 4)]


# ------------------------------------------------------------------------------ names and types


def test_names_tell_where_an_equation_stands():
    def layer(x: Any) -> Any:
        with jax.named_scope("attention"):
            return jax.jit(lambda y: y @ W)(x)

    def fn(x: Any) -> Any:
        with jax.named_scope("layer"):
            return layer(layer(x)) @ W

    function, _ = from_jax.trace(fn, X)
    names = [e.name for e in function.block.equations]
    assert names == [
        "layer/attention/dot_general",
        "layer/attention/dot_general.2",
        "layer/dot_general",
    ]


@pytest.mark.parametrize(
    ("value", "shape", "dtype"),
    [
        (X, (3, 4), np.float32),
        (np.zeros((2,), np.int8), (2,), np.int8),
        (np.float64(1), (), np.float32),
        (2, (), np.int32),
        (jax.random.key(0), (), jax.random.key(0).dtype),
        (jax.ShapeDtypeStruct((7,), jnp.bfloat16), (7,), jnp.bfloat16),
        (True, (), np.bool_),
    ],
    ids=str,
)
def test_shape_and_type_without_reading(value: Any, shape: tuple[int, ...], dtype: Any):
    got = from_jax.shape_dtype(value)
    assert (got.shape, got.dtype) == (shape, dtype)


def test_the_type_is_the_one_that_jax_gives():
    assert from_jax.shape_dtype(np.zeros(3)).dtype == np.float32
    with jax.enable_x64(True):
        assert from_jax.shape_dtype(np.zeros(3)).dtype == np.float64


def test_unknown_dimensions_are_the_callers_mistake():
    rows = jax.export.symbolic_shape("n, 4")
    with pytest.raises(TypeError, match="dimensions must be known"):
        from_jax.trace(jnp.sin, jax.ShapeDtypeStruct(rows, jnp.float32))


def test_what_jax_cannot_trace_is_the_callers_mistake():
    with pytest.raises(TypeError):
        from_jax.trace(float, X)
    with pytest.raises(TypeError):
        from_jax.trace(jnp.sin, "text")


def test_what_is_no_array_is_the_callers_mistake():
    with pytest.raises(TypeError, match="only arrays are supported"):
        from_jax.trace(lambda x: (x, lax.create_token()), X)


# ------------------------------------------------------------------- what versions of JAX differ in


def test_the_parts_of_an_array_are_slices_in_every_version():
    """Newer versions have a primitive for it."""
    equation = SimpleNamespace(
        primitive=SimpleNamespace(name="unstack"),
        params={"axis": 1},
        invars=[SimpleNamespace(aval=jax.ShapeDtypeStruct(X.shape, X.dtype))],
    )
    callee = from_jax._callee(equation)
    parts = jax.core.eval_jaxpr(callee.jaxpr, callee.consts, X)
    assert_same_bits(parts, list(np.asarray(X).T))


def test_what_newer_versions_keep_whole_is_entered():
    def expand(pair: dict[str, Any]) -> tuple[Any, Any]:
        return jnp.sin(pair["a"]), pair["a"] + pair["b"]

    tree = jax.tree.structure(({"a": 0, "b": 0},))
    equation = SimpleNamespace(
        primitive=SimpleNamespace(name="call_hi_primitive"),
        params={"_prim": SimpleNamespace(expand=expand, in_tree=tree)},
        invars=[SimpleNamespace(aval=jax.typeof(jnp.asarray(v))) for v in (X, X[0])],
    )
    callee = from_jax._callee(equation)
    found = jax.core.eval_jaxpr(callee.jaxpr, callee.consts, X, X[0])
    assert_same_bits(found, [jnp.sin(X), X + X[0]])


def root(x: Any) -> Any:
    def solve(f: Any, start: Any) -> Any:
        return lax.fori_loop(0, 3, lambda _, y: y - f(y) / 3, start)

    return lax.custom_root(lambda y: y**3 - x, x, solve, lambda g, y: y / g(1.0))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.searchsorted(jnp.sort(x[0]), x[1]),
        lambda x: jnp.interp(x[0], jnp.arange(4.0), jnp.arange(4.0)),
        lambda x: jnp.nonzero(x > 0, size=3),
        lambda x: jnp.ldexp(x, 3),
        lambda x: jnp.frexp(x)[0],
        lambda x: root(x[0, 0]),
    ],
)
def test_no_version_leaves_a_function_opaque(fn: Callable[..., Any]):
    """JAX 0.12 has a primitive for each of these, whose parameter is an object without a name."""
    kinds = {e.kind for e in from_jax.trace(fn, X)[0].block.walk()}
    assert not kinds & {"call_hi_primitive", "eval_jaxpr"}


def test_newer_versions_group_the_operands_of_a_scan():
    groups = SimpleNamespace(unpack=lambda: ((1, 2), (3,), (4, 5, 6)))
    assert from_jax.scan_groups({"ft_in": groups}) == (2, 1)
    assert from_jax.scan_groups({"num_consts": 2, "num_carry": 1}) == (2, 1)


def test_a_parameter_without_a_jaxpr_applies_no_operation():
    assert from_jax.single_operation({"axes": (0,)}) is None


def test_a_body_that_asks_the_mesh_inside_a_call_is_not_entered():
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("i")

    @partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec)
    def fn(x: Any) -> Any:
        return jax.jit(lambda y: y + lax.axis_index("i"))(x)

    function, _ = from_jax.trace(fn, X)
    assert [e.kind for e in function.block.equations] == ["shard_map"]
