"""Glue that turns a last bit into any difference, each before a claim, with honest inputs.

Each family has the devices of `verifiable.testing.devices`; those with sums have devices that add
in lanes, and those that a compiler may simplify have a device whose compiler does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.zoo import layers as nn
from benchmarks.zoo.subject import Inputs, Subject, Weights, normals

WIDTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of ill-conditioned glue.

    Attributes:
      make: the program; its inputs have `rows` rows.
      lanes: numbers of partial sums of further devices.
      simplified: the function as a compiler may simplify it; None if there is nothing to simplify.
    """

    make: Callable[[int], Subject]
    lanes: tuple[int, ...] = ()
    simplified: Callable[[Any, Array], Any] | None = None


def _constant_images(side: int, rows: int) -> Subject:
    """An instance norm (eps 1e-5) of images of one colour; a row is a position."""
    w, images = Weights(101), max(1, rows // side**2)
    params = {"norm": w.norm(8), "kernel": w.kernel(3, 3, 8, 16), "head": w.matrix(16, WIDTH)}

    def fn(p: Any, x: Array) -> Array:
        y = nn.conv(jax.nn.relu(nn.group_norm(p["norm"], x, 8)), p["kernel"])
        return y.mean((1, 2)) @ p["head"]

    def draw(rng: np.random.Generator) -> Inputs:
        colours = rng.uniform(0.1, 1, (images, 1, 1, 8))
        return (jnp.asarray(np.broadcast_to(colours, (images, side, side, 8)), jnp.float32),)

    return Subject(fn=fn, params=params, draw=draw)


def _dense(prepare: Callable[[Array], Array], draw: Any, width: int = 256) -> Subject:
    """Some glue over the input, then a linear layer."""
    w = Weights(102)

    def fn(p: Any, *inputs: Array) -> Array:
        return prepare(*inputs) @ p["w"]

    return Subject(fn=fn, params={"w": w.matrix(width, WIDTH)}, draw=draw)


def _constant_rows(rows: int) -> Subject:
    """A layer norm (eps 1e-6) of rows of one number each."""

    def draw(rng: np.random.Generator) -> Inputs:
        values = np.exp(rng.uniform(np.log(0.01), np.log(1e3), (rows, 1)))
        return (jnp.asarray(np.broadcast_to(values, (rows, 256)), jnp.float32),)

    one = {"scale": 1.0, "bias": 0.1}
    return _dense(lambda x: nn.layer_norm(one, x, 1e-6), draw)


def _fast_variance(mean: float, rows: int) -> Subject:
    """A layer norm whose variance is E[x^2] - E[x]^2, of rows with this mean and deviation 1."""

    def prepare(x: Array) -> Array:
        centre = jnp.mean(x, -1, keepdims=True)
        variance = jnp.maximum(jnp.mean(x * x, -1, keepdims=True) - centre * centre, 0)
        return (x - centre) * lax.rsqrt(variance + 1e-6)

    def draw(rng: np.random.Generator) -> Inputs:
        return (jnp.asarray(mean + rng.standard_normal((rows, 256)), jnp.float32),)

    return _dense(prepare, draw)


def _angles(largest: float, rows: int) -> Subject:
    """Sines and cosines of arguments up to `largest`, as in embeddings of times and positions."""

    def draw(rng: np.random.Generator) -> Inputs:
        return (jnp.asarray(rng.uniform(0, largest, rows), jnp.float32),)

    return _dense(lambda t: nn.timesteps(t, 256), draw)


def _sharp_attention(rows: int) -> Subject:
    """Attention whose queries are scaled by 1,000: nearly a choice of one key."""
    w, tokens = Weights(103), 25
    params = {name: w.matrix(WIDTH, WIDTH) for name in ("q", "k", "v", "o")}

    def fn(p: Any, x: Array) -> Array:
        q, k, v = (nn.split_heads(x @ p[name], 4) for name in ("q", "k", "v"))
        return nn.merge_heads(nn.attend(1000 * q, k, v)) @ p["o"]

    return Subject(fn=fn, params=params, draw=normals(max(1, rows // tokens), tokens, WIDTH))


def _between(act: Callable[[Array], Array], p: Any, x: Array) -> Array:
    return act(0.5 * x @ p["into"]) @ p["w"]


def _log_exp(h: Array) -> Array:
    return jnp.log(jnp.exp(60 * h))


def _root_square(h: Array) -> Array:
    return jnp.sqrt(jnp.square(1e25 * h)) * 1e-25


def _two_layers(act: Callable[[Array], Array], rows: int) -> Subject:
    """Two linear layers with some function between them."""
    w = Weights(104)
    params = {"into": w.matrix(WIDTH, WIDTH), "w": w.matrix(WIDTH, WIDTH)}
    return Subject(fn=functools.partial(_between, act), params=params, draw=normals(rows, WIDTH))


def _far_distances(rows: int) -> Subject:
    """Gaussians of distances beyond the last centre: nothing but relative errors is left."""

    def prepare(distance: Array) -> Array:
        return jnp.exp(-4 * jnp.square(distance[:, None] - jnp.linspace(0.0, 6.0, WIDTH)))

    def draw(rng: np.random.Generator) -> Inputs:
        return (jnp.asarray(rng.uniform(6, 10, rows), jnp.float32),)

    return _dense(prepare, draw, WIDTH)


def _near_angles(rows: int) -> Subject:
    """The angle between nearly equal vectors, by the arc cosine of their cosine."""

    def prepare(a: Array, b: Array) -> Array:
        norms = jnp.sqrt(jnp.sum(a * a, -1) * jnp.sum(b * b, -1))
        angle = jnp.arccos(jnp.sum(a * b, -1) / norms)
        return jnp.cos(angle[:, None] * jnp.arange(1, WIDTH + 1))

    def draw(rng: np.random.Generator) -> Inputs:
        a = rng.standard_normal((rows, WIDTH))
        b = a + 10.0 ** rng.uniform(-6, -2, (rows, 1)) * rng.standard_normal(a.shape)
        return jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)

    return _dense(prepare, draw, WIDTH)


def _scalar_head(rows: int) -> Subject:
    """One output a row, which may come close to zero, of an MLP."""
    w = Weights(105)
    params = {"mlp": nn.mlp_weights(w, WIDTH, 256), "head": w.matrix(WIDTH, 1)}

    def fn(p: Any, x: Array) -> Array:
        return nn.mlp(p["mlp"], x) @ p["head"]

    return Subject(fn=fn, params=params, draw=normals(rows, WIDTH))


def _scalar_jobs(rows: int) -> Subject:
    """The same, as jobs of one row of eight answers."""
    single = _scalar_head(8)
    return replace(
        single,
        fn=lambda p, x: jax.vmap(lambda job: single.fn(p, job)[:, 0])(x),
        draw=normals(max(1, rows // 8), 8, WIDTH),
    )


FAMILIES: dict[str, Family] = {
    **{
        f"instance norm of a constant image, {side} pixels": Family(
            make=functools.partial(_constant_images, side)
        )
        for side in (20, 28, 48)
    },
    "layer norm of a constant row": Family(make=_constant_rows, lanes=(1, 4, 8, 32)),
    **{
        f"fast variance, mean {mean:,} deviations": Family(
            make=functools.partial(_fast_variance, mean), lanes=(8,)
        )
        for mean in (30, 100, 3000)
    },
    **{
        f"sines of arguments up to {largest:,}": Family(make=functools.partial(_angles, largest))
        for largest in (10_000, 100_000)
    },
    "attention, queries times 1,000": Family(make=_sharp_attention),
    "log(exp(60 x))": Family(
        make=functools.partial(_two_layers, _log_exp),
        simplified=functools.partial(_between, lambda h: 60 * h),
    ),
    "sqrt((1e25 x)^2)": Family(
        make=functools.partial(_two_layers, _root_square),
        simplified=functools.partial(_between, jnp.abs),
    ),
    "Gaussians of far distances": Family(make=_far_distances),
    "arc cosine of a cosine near 1": Family(make=_near_angles),
    "scalar heads, one a row": Family(make=_scalar_head),
    "scalar heads, eight a row": Family(make=_scalar_jobs),
}
