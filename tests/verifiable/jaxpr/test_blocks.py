"""Flattened functions: every call entered, bodies scoped lexically, and not one bit changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable.jaxpr import blocks
from verifiable.jaxpr.blocks import Block, Function, Literal, Var

X = jnp.linspace(-2, 3, 12, dtype=jnp.float32).reshape(3, 4)
W = jnp.linspace(1, -1, 16, dtype=jnp.float32).reshape(4, 4)


@jax.custom_jvp
def with_jvp(x: Any) -> Any:
    return jnp.sin(x) * 2


with_jvp.defjvps(lambda t, _ans, _x: t)


@jax.custom_vjp
def with_vjp(x: Any) -> Any:
    return jnp.tanh(x @ W)


with_vjp.defvjp(lambda x: (with_vjp(x), None), lambda _res, g: (g,))


@jax.custom_batching.custom_vmap
def with_vmap(x: Any) -> Any:
    return jnp.cos(x) + 1


@with_vmap.def_vmap
def _(_size: int, batched: Any, x: Any) -> Any:
    return jnp.cos(x) + 1, batched[0]


def scanned(x: Any) -> Any:
    """Constants, carries of several types, scanned inputs and stacks."""

    def step(carry: Any, row: Any) -> Any:
        total, count = carry
        total = jnp.tanh(total @ W) + row
        return (total, count + 1), (total.sum(), count)

    return lax.scan(step, (jnp.zeros(4), 0), x)


def nested(x: Any) -> Any:
    def outer(carry: Any, row: Any) -> Any:
        def inner(c: Any, r: Any) -> Any:
            return c * r + carry.mean(), c

        last, stack = lax.scan(inner, row.sum(), row)
        return carry + last, stack

    return lax.scan(outer, x[0], x)


def branches(x: Any) -> Any:
    """Branches that capture different values of the enclosing function."""
    y, z = jnp.sin(x), x * 3
    return lax.switch(
        (x.sum() > 0).astype(jnp.int32) + 1,
        [lambda: y, lambda: z @ W, lambda: y + z],
    )


def loops(x: Any) -> Any:
    bound, step = x.max() * 40, x + 0.5

    def body(carry: Any) -> Any:
        i, y = carry
        return i + 1, y + jnp.abs(step)

    return lax.while_loop(lambda c: (c[1].sum() < bound) & (c[0] < 50), body, (0, x))


def solved(x: Any) -> Any:
    a = W @ W.T + 5 * jnp.eye(4)
    return jnp.linalg.solve(a, x.T), lax.custom_linear_solve(
        lambda v: a @ v, x[0], lambda _, b: jnp.linalg.inv(a) @ b, lambda _, b: b
    )


def all_at_once(x: Any) -> Any:
    """A product below every wrapper there is."""

    @jax.jit
    @jax.checkpoint
    def layer(x: Any) -> Any:
        def step(c: Any, _: Any) -> Any:
            return lax.cond(c.sum() > 0, with_vjp, with_jvp, c), None

        return lax.scan(step, x, None, length=2)[0]

    return layer(x)


@dataclass(frozen=True)
class Program:
    """A function, what it must be flattened into, and what must not be left of it."""

    fn: Callable[..., Any]
    kinds: frozenset[str]
    args: tuple[Any, ...] = field(default=(X,), repr=False)


def program(fn: Callable[..., Any], kinds: str, *args: Any) -> Program:
    return Program(fn, frozenset(kinds.split()), args or (X,))


def reduced(x: Any) -> Any:
    """A reduction by a computation of the user's own is evaluated whole."""
    return lax.reduce(x, jnp.float32(0), lambda a, b: a + 2 * b - a * b, (1,))


PROGRAMS: dict[str, Program] = {
    "plain": program(lambda x: jnp.exp(x) @ W, "exp dot_general"),
    "jit": program(lambda x: jax.jit(jax.jit(lambda y: jnp.sin(y @ W)))(x) + 1, "sin dot_general"),
    "custom_jvp": program(lambda x: with_jvp(x) + jax.nn.relu(x), "sin mul max add"),
    "custom_vjp": program(with_vjp, "tanh dot_general"),
    "remat": program(jax.checkpoint(lambda x: jnp.sin(x @ W)), "sin dot_general"),
    "named_call": program(jax.named_call(lambda x: jnp.sin(x @ W), name="f"), "sin dot_general"),
    "scan": program(scanned, "scan dot_general tanh reduce_sum"),
    "nested scans": program(nested, "scan mul reduce_sum"),
    "scan backwards": program(
        lambda x: lax.scan(lambda c, r: (c * 0.5 + r, c), x[0], x, reverse=True), "scan mul"
    ),
    "scan unrolled": program(
        lambda x: lax.scan(lambda c, r: (c * 0.5 + r, c), x[0], x, unroll=2), "scan mul"
    ),
    "scan of nothing": program(
        lambda x: lax.scan(lambda c, _: (c * 0.9, None), x, None, length=5)[0], "scan mul"
    ),
    "fori_loop": program(lambda x: lax.fori_loop(0, 4, lambda i, y: y * 0.9 + i, x), "scan mul"),
    "fori_loop to a bound": program(
        lambda x, n: lax.fori_loop(0, n, lambda i, y: y * 0.9 + i, x), "while mul", X, 3
    ),
    "map": program(lambda x: lax.map(lambda r: jnp.sin(r @ W), x), "scan dot_general"),
    "associative_scan": program(lambda x: lax.associative_scan(jnp.add, x), "add"),
    "cond": program(lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x), "cond sin cos"),
    "switch": program(branches, "cond dot_general sin"),
    "while": program(loops, "while lt abs"),
    "custom_linear_solve": program(solved, "custom_linear_solve dot_general"),
    "reduce by a function": program(reduced, "reduce"),
    "custom_vmap": program(with_vmap, "custom_vmap_call"),
    "gradient": program(jax.grad(lambda x: with_vjp(jnp.sin(x)).sum()), "cos mul"),
    "everything": program(all_at_once, "scan cond dot_general sin tanh"),
    "sort": program(lambda x: [*lax.top_k(x, 2), jnp.argsort(x)], "top_k sort"),
    "random": program(lambda x: x + jax.random.normal(jax.random.key(1), x.shape), "add"),
    "a key as input": program(
        lambda k: jax.random.normal(jax.random.split(k)[0], (3,)), "mul", jax.random.key(1)
    ),
    "integers": program(lambda x: x // 3 + (x % 2 == 0), "add", jnp.arange(8)),
    "complex": program(lambda x: jnp.abs(jnp.fft.fft(x * 1j)), "fft abs"),
    "half": program(lambda x: (x.astype(jnp.bfloat16) * 3).astype(jnp.float32), "mul"),
    "outputs that are inputs": program(lambda x, y: (y, x, x, 3.0, jnp.int8(1)), "", X, W),
    "trees": program(lambda t: {"b": t["a"][0] + 1, "a": [t["c"]]}, "add", {"a": (X,), "c": W}),
}

each_program = pytest.mark.parametrize("case", PROGRAMS.values(), ids=PROGRAMS.keys())


def bound(function: Function, args: Any) -> dict[Var, Any]:
    leaves = [*function.constants, *jax.tree.leaves(args)]
    return dict(zip(function.block.inputs, leaves, strict=True))


def evaluated(function: Function, args: Any) -> list[Any]:
    return blocks.evaluate(function.block, bound(function, args))


def assert_same_bits(got: Any, want: Any) -> None:
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for pair in zip(got, want, strict=True):
        a, b = map(np.asarray, pair)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert a.tobytes() == b.tobytes()


@each_program
def test_evaluation_equals_the_function_bit_for_bit(case: Program):
    function, shapes = blocks.trace(case.fn, *case.args)
    want = jax.jit(case.fn)(*case.args)
    assert_same_bits(jax.jit(partial(evaluated, function))(case.args), want)
    assert jax.tree.structure(shapes) == jax.tree.structure(want)
    for shape, leaf in zip(jax.tree.leaves(shapes), jax.tree.leaves(want), strict=True):
        assert (shape.shape, shape.dtype) == (leaf.shape, leaf.dtype)


@each_program
def test_calls_are_entered(case: Program):
    function, _ = blocks.trace(case.fn, *case.args)
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


@each_program
def test_bodies_are_scoped_lexically(case: Program):
    function, _ = blocks.trace(case.fn, *case.args)
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


def test_evaluation_is_pure_jax():
    """It can be mapped and differentiated like the function itself."""
    function, _ = blocks.trace(scanned, X)
    xs = jnp.stack([X, X + 1])
    got = jax.vmap(partial(evaluated, function))(xs)
    np.testing.assert_allclose(got[0], jax.vmap(scanned)(xs)[0][0], rtol=1e-6)
    got = jax.grad(lambda x: evaluated(function, x)[0].sum())(X)
    np.testing.assert_allclose(got, jax.grad(lambda x: scanned(x)[0][0].sum())(X), rtol=1e-5)


def test_a_step_of_the_callers_own_sees_every_equation_in_order():
    function, _ = blocks.trace(lambda x: jnp.sin(x @ W) + 1, X)
    seen: list[str] = []

    def step(equation: blocks.Equation, env: blocks.Env) -> None:
        seen.append(equation.kind)
        blocks.replay(equation, env)

    blocks.evaluate(function.block, bound(function, (X,)), step=step)
    assert seen == ["dot_general", "sin", "add"]


# ------------------------------------------------------------------------------------- constants


def constants_of(fn: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    function, _ = blocks.trace(fn, *args)
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


def test_scalars_stand_in_the_text():
    function, _ = blocks.trace(lambda x: x * 2.5 + np.float32(3), X)
    literals = [a for e in function.block.equations for a in e.inputs if isinstance(a, Literal)]
    assert [float(a.value) for a in literals] == [2.5, 3.0]
    assert all(a.dtype == np.float32 and a.shape == () for a in literals)
    assert [(a.size, a.nbytes) for a in literals] == [(1, 0)] * 2


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
    function, _ = blocks.trace(fn, x)
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

    function, _ = blocks.trace(fn, X)
    assert [e.kind for e in function.block.equations] == ["sin"]


def test_what_a_body_needs_of_its_surroundings_is_kept():
    def fn(x: Any) -> Any:
        y = jnp.sin(x)
        dead = jnp.cos(x)
        return lax.scan(lambda c, r: (c + (r * y).sum(), dead.sum()), 0.0, x)[0]

    function, _ = blocks.trace(fn, X)
    assert "sin" in [e.kind for e in function.block.equations]
    assert_same_bits(jax.jit(partial(evaluated, function))(X), jax.jit(fn)(X))


def test_inputs_stay_even_if_unused():
    function, _ = blocks.trace(lambda x, y: x + 1, X, W)
    assert [v.shape for v in function.block.inputs] == [(3, 4), (4, 4)]


# ----------------------------------------------------------------------------------- trip limits


@pytest.mark.parametrize("trips", [0, 1, 4, 5, 6, 100])
def test_a_while_stops_at_its_limit_and_says_so(trips: int):
    def fn(n: Any) -> Any:
        return lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 2), (0, 1.0))

    function, _ = blocks.trace(fn, 0)
    [equation] = function.block.equations

    def run(n: Any, limit: int | None) -> Any:
        return blocks.while_loop(equation, bound(function, (n,)), limit)

    (count, value), stopped = jax.jit(partial(run, limit=5))(trips)
    assert bool(stopped) == (trips > 5)
    assert (int(count), float(value)) == (min(trips, 5), 2.0 ** min(trips, 5))
    if trips <= 6:
        (count, _), stopped = run(trips, None)
        assert (int(count), bool(stopped)) == (trips, False)


def test_a_while_that_never_ends_is_stopped():
    def fn(x: Any) -> Any:
        return lax.while_loop(lambda c: ~jnp.isnan(c), lambda c: c, x)

    function, _ = blocks.trace(fn, 1.0)
    [equation] = function.block.equations
    run = jax.jit(lambda x: blocks.while_loop(equation, bound(function, (x,)), 1000))
    assert bool(run(1.0)[1])
    assert not bool(run(np.nan)[1])


# ------------------------------------------------------------------------------ names and types


def test_names_tell_where_an_equation_stands():
    def layer(x: Any) -> Any:
        with jax.named_scope("attention"):
            return jax.jit(lambda y: y @ W)(x)

    def fn(x: Any) -> Any:
        with jax.named_scope("layer"):
            return layer(layer(x)) @ W

    function, _ = blocks.trace(fn, X)
    names = [e.name for e in function.block.equations]
    assert names == [
        "layer/attention/dot_general",
        "layer/attention/dot_general.2",
        "layer/dot_general",
    ]


def test_sizes_of_variables():
    function, _ = blocks.trace(lambda x: x + 1, jax.ShapeDtypeStruct((3, 5), jnp.bfloat16))
    [variable] = function.block.inputs
    assert (variable.size, variable.nbytes) == (15, 30)
    assert variable != function.block.outputs[0]


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
    got = blocks.shape_dtype(value)
    assert (got.shape, got.dtype) == (shape, dtype)


def test_the_type_is_the_one_that_jax_gives():
    assert blocks.shape_dtype(np.zeros(3)).dtype == np.float32
    with jax.enable_x64(True):
        assert blocks.shape_dtype(np.zeros(3)).dtype == np.float64


def test_unknown_dimensions_are_the_callers_mistake():
    rows = jax.export.symbolic_shape("n, 4")
    with pytest.raises(TypeError, match="dimensions must be known"):
        blocks.trace(jnp.sin, jax.ShapeDtypeStruct(rows, jnp.float32))


def test_what_jax_cannot_trace_is_the_callers_mistake():
    with pytest.raises(TypeError):
        blocks.trace(float, X)
    with pytest.raises(TypeError):
        blocks.trace(jnp.sin, "text")
