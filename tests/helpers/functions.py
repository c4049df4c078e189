"""Functions of every kind that JAX traces, to flatten and evaluate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Function, Var

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
class Example:
    """A function, its arguments, and primitives that must be left of it after flattening."""

    fn: Callable[..., Any]
    kinds: frozenset[str]
    args: tuple[Any, ...] = field(default=(X,), repr=False)


def example(fn: Callable[..., Any], kinds: str, *args: Any) -> Example:
    return Example(fn, frozenset(kinds.split()), args or (X,))


def reduced(x: Any) -> Any:
    """A reduction by a computation of the user's own is evaluated whole."""
    return lax.reduce(x, jnp.float32(0), lambda a, b: a + 2 * b - a * b, (1,))


EXAMPLES: dict[str, Example] = {
    "plain": example(lambda x: jnp.exp(x) @ W, "exp dot_general"),
    "jit": example(lambda x: jax.jit(jax.jit(lambda y: jnp.sin(y @ W)))(x) + 1, "sin dot_general"),
    "custom_jvp": example(lambda x: with_jvp(x) + jax.nn.relu(x), "sin mul max add"),
    "custom_vjp": example(with_vjp, "tanh dot_general"),
    "remat": example(jax.checkpoint(lambda x: jnp.sin(x @ W)), "sin dot_general"),
    "named_call": example(jax.named_call(lambda x: jnp.sin(x @ W), name="f"), "sin dot_general"),
    "scan": example(scanned, "scan dot_general tanh reduce_sum"),
    "nested scans": example(nested, "scan mul reduce_sum"),
    "scan backwards": example(
        lambda x: lax.scan(lambda c, r: (c * 0.5 + r, c), x[0], x, reverse=True), "scan mul"
    ),
    "scan unrolled": example(
        lambda x: lax.scan(lambda c, r: (c * 0.5 + r, c), x[0], x, unroll=2), "scan mul"
    ),
    "scan of nothing": example(
        lambda x: lax.scan(lambda c, _: (c * 0.9, None), x, None, length=5)[0], "scan mul"
    ),
    "fori_loop": example(lambda x: lax.fori_loop(0, 4, lambda i, y: y * 0.9 + i, x), "scan mul"),
    "fori_loop to a bound": example(
        lambda x, n: lax.fori_loop(0, n, lambda i, y: y * 0.9 + i, x), "while mul", X, 3
    ),
    "map": example(lambda x: lax.map(lambda r: jnp.sin(r @ W), x), "scan dot_general"),
    "associative_scan": example(lambda x: lax.associative_scan(jnp.add, x), "add"),
    "cond": example(lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x), "cond sin cos"),
    "switch": example(branches, "cond dot_general sin"),
    "while": example(loops, "while lt abs"),
    "custom_linear_solve": example(solved, "triangular_solve dot_general"),
    "reduce by a function": example(reduced, "reduce"),
    "custom_vmap": example(with_vmap, "custom_vmap_call"),
    "gradient": example(jax.grad(lambda x: with_vjp(jnp.sin(x)).sum()), "cos mul"),
    "everything": example(all_at_once, "scan cond dot_general sin tanh"),
    "sort": example(lambda x: [*lax.top_k(x, 2), jnp.argsort(x)], "top_k sort"),
    "random": example(lambda x: x + jax.random.normal(jax.random.key(1), x.shape), "add"),
    "a key as input": example(
        lambda k: jax.random.normal(jax.random.split(k)[0], (3,)), "mul", jax.random.key(1)
    ),
    "integers": example(lambda x: x // 3 + (x % 2 == 0), "add", jnp.arange(8)),
    "complex": example(lambda x: jnp.abs(jnp.fft.fft(x * 1j)), "fft abs"),
    "half": example(lambda x: (x.astype(jnp.bfloat16) * 3).astype(jnp.float32), "mul"),
    "outputs that are inputs": example(lambda x, y: (y, x, x, 3.0, jnp.int8(1)), "", X, W),
    "trees": example(lambda t: {"b": t["a"][0] + 1, "a": [t["c"]]}, "add", {"a": (X,), "c": W}),
}

each_example = pytest.mark.parametrize("case", EXAMPLES.values(), ids=EXAMPLES.keys())


def bound(function: Function, args: Any) -> dict[Var, Any]:
    leaves = [*function.constants, *jax.tree.leaves(args)]
    return dict(zip(function.block.inputs, leaves, strict=True))


def evaluated(function: Function, args: Any) -> list[Any]:
    return interpret.evaluate(function.block, bound(function, args))


def assert_same_bits(got: Any, want: Any) -> None:
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for pair in zip(got, want, strict=True):
        a, b = map(np.asarray, pair)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert a.tobytes() == b.tobytes()
