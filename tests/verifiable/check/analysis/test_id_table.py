"""Ids and exact values of a few programs: the same under every supported version of JAX.

`program_ids.json` has them. Another id retires all keys: it may change only with the encoding, or
with the version of what a primitive computes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.paths import ROOT
from verifiable import program
from verifiable.encoding import encode, tagged_hash, tensor_bytes

TABLE = ROOT / "tests/verifiable/check/analysis/program_ids.json"
RNG = np.random.default_rng(0)
W = RNG.integers(-8, 8, (32, 32)).astype(np.float32)  # sums of these are exact
X = RNG.integers(-8, 8, (8, 32)).astype(np.float32)


def attention(p: Any, x: Any) -> Any:
    q, k, v = (x @ p for _ in range(3))
    scores = jnp.where(jnp.tril(jnp.ones((8, 8), bool)), q @ k.T / 8, -jnp.inf)
    return jax.nn.softmax(scores) @ v


def normalised(p: Any, x: Any) -> Any:
    y = (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
    return jax.nn.gelu(y @ p), jax.nn.silu(y @ p), jnp.square(jax.nn.relu(y))


def scanned(p: Any, x: Any) -> Any:
    def step(c: Any, _: Any) -> Any:
        c = jax.checkpoint(lambda c: jnp.tanh(c @ p))(c)
        return lax.cond(c.sum() > 0, jnp.sin, lambda c: c * 2, c), c.mean()

    return lax.scan(step, x, None, length=3)


def looped(p: Any, x: Any) -> Any:
    y = lax.while_loop(lambda c: c.sum() < 10, lambda c: c + jnp.abs(p[0]) + 1, x)
    return lax.fori_loop(0, 3, lambda _, y: y @ p, y)


def pooled(p: Any, x: Any) -> Any:
    kernel = p.reshape(4, 8, 32)[:, :, :9].reshape(4, 8, 3, 3)
    y = lax.conv_general_dilated(x.reshape(2, 8, 4, 4), kernel, (1, 1), "SAME")
    return lax.reduce_window(y, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def chosen(p: Any, x: Any) -> Any:
    y = x @ p
    return (*lax.top_k(y, 3), jnp.argsort(y), jnp.argmax(y, -1), jnp.sort(y), jnp.argmin(y, 0))


def gathered(p: Any, x: Any) -> Any:
    i = jnp.abs(x).astype(jnp.int32)
    return p[i[:, 0]], p[i[:, 0], i[:, 1]], jnp.take_along_axis(x, i, 1), x[::2, :5], x[3]


def scattered(p: Any, x: Any) -> Any:
    i = jnp.abs(x[:, 0]).astype(jnp.int32)
    return p.at[i].add(x), p.at[i].max(x), jax.ops.segment_sum(x, i, 8), jnp.cumsum(x, 0)


def random(p: Any, x: Any) -> Any:
    keys = jax.random.split(jax.random.fold_in(jax.random.key(3), 5), 3)
    masked = jnp.where(jax.random.bernoulli(keys[0], 0.9, x.shape), x, 0)
    return masked @ p, jax.random.randint(keys[1], (8,), 0, 99), jax.random.bits(keys[2], (8,))


def quantised(p: Any, x: Any) -> Any:
    scale = jnp.max(jnp.abs(x), -1, keepdims=True) / 127
    small = jnp.round(x / scale).astype(jnp.int8)
    return lax.dot(small, p.astype(jnp.int8), preferred_element_type=jnp.int32)


def narrow(p: Any, x: Any) -> Any:
    return jnp.einsum("td,df->tf", x.astype(jnp.bfloat16), p.astype(jnp.bfloat16))


def parted(p: Any, x: Any) -> Any:
    a, b = jnp.split(x, 2)
    one, two = jnp.stack([a, b])
    return jnp.concatenate([one, two]) @ p, jnp.repeat(x, 2, 0), jnp.pad(x, 1), jnp.clip(x, 0, 1)


PROGRAMS: tuple[Callable[..., Any], ...] = (
    attention,
    normalised,
    scanned,
    looped,
    pooled,
    chosen,
    gathered,
    scattered,
    random,
    quantised,
    narrow,
    parted,
)
# What these compute is exact, so that every device must return the same bits.
EXACT = (chosen, gathered, scattered, random, parted)


def identify(fn: Callable[..., Any]) -> str:
    return program.compile(fn, W, X).id.hex()


def digest(fn: Callable[..., Any]) -> str:
    leaves = [np.asarray(y) for y in jax.tree.leaves(jax.jit(fn)(W, X))]
    parts = [[y.dtype.name, list(y.shape), bytes(tensor_bytes(y + 0))] for y in leaves]
    return tagged_hash("test", encode(parts)).hex()


@pytest.mark.parametrize("fn", PROGRAMS, ids=lambda f: f.__name__)
def test_every_version_of_jax_gives_the_same_id(fn: Callable[..., Any]):
    assert identify(fn) == json.loads(TABLE.read_text())["ids"][fn.__name__]


@pytest.mark.parametrize("fn", EXACT, ids=lambda f: f.__name__)
def test_every_version_of_jax_computes_the_same_bits(fn: Callable[..., Any]):
    assert digest(fn) == json.loads(TABLE.read_text())["bits"][fn.__name__]
