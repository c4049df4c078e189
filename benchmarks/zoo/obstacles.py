"""Programs that hide products from a verifier, or have a choice before them.

Choices: images that are resized, weights that are rounded in the graph, largest of segments and of
windows, experts and branches chosen by scores. Products: by groups, by gathered matrices, in eight
bits, with zero points, inside `shard_map` and `composite`, behind names of values.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, PartitionSpec

from benchmarks.zoo import layers as nn
from benchmarks.zoo.subject import Inputs, Subject, Weights, normals

ROWS, WIDTH, HIDDEN, EXPERTS, NODES, EDGES = 32, 64, 128, 4, 48, 160
VECTORS, PIXELS = normals(ROWS, WIDTH), normals(2, 12, 12, 3)


def leaky_relu_cnn() -> Subject:
    """Convolutions and leaky ReLUs, pooled."""
    w = Weights(181)
    sizes = ((3, 32), (32, 32), (32, 32), (32, 32))
    params = {
        "layers": [{"w": w.kernel(3, 3, i, o), "b": w.vector(o)} for i, o in sizes],
        "head": w.dense(32, 64),
    }

    def fn(p: Any, x: Array) -> Array:
        for layer in p["layers"]:
            x = jax.nn.leaky_relu(nn.conv(x, layer["w"]) + layer["b"], 0.1)
        return nn.dense(p["head"], x.mean((1, 2)))

    return Subject(fn=fn, params=params, draw=PIXELS)


def resized() -> Subject:
    """Features enlarged by cubic interpolation between convolutions."""
    w = Weights(182)
    params = {
        "stem": w.kernel(3, 3, 3, 32),
        "layers": [w.kernel(3, 3, 32, 32) for _ in range(2)],
        "head": w.dense(32, 64),
    }

    def fn(p: Any, x: Array) -> Array:
        x = jax.nn.relu(nn.conv(x, p["stem"]))
        for kernel in p["layers"]:
            side = 2 * x.shape[1] // 3 * 2
            x = jax.image.resize(x, (x.shape[0], side, side, x.shape[3]), "cubic")
            x = jax.nn.relu(nn.conv(x, kernel))
        return nn.dense(p["head"], x.mean((1, 2)))

    return Subject(fn=fn, params=params, draw=PIXELS)


def rounded_weights() -> Subject:
    """Weights that are rounded to eight bits in the graph, from parameters in float32."""
    w = Weights(183)
    params = {"layers": [nn.mlp_weights(w, WIDTH, HIDDEN) for _ in range(2)]}

    def rounded(kernel: Array) -> Array:
        scale = jnp.max(jnp.abs(kernel), 0) / 127
        return jnp.round(kernel / scale).astype(jnp.int8).astype(jnp.float32) * scale

    def fn(p: Any, x: Array) -> Array:
        for layer in p["layers"]:
            up, down = layer["up"], layer["down"]
            h = jax.nn.silu(x @ rounded(up["w"]) + up["b"])
            x = x + h @ rounded(down["w"]) + down["b"]
        return x

    return Subject(fn=fn, params=params, draw=normals(4 * ROWS, WIDTH))


def segment_largest() -> Subject:
    """A graph network that takes the largest over neighbours, by `segment_max`."""
    w = Weights(184)
    params = {"layers": [w.dense(WIDTH, WIDTH) for _ in range(3)], "head": w.dense(WIDTH, WIDTH)}

    def fn(p: Any, x: Array, ends: Array) -> Array:
        source, target = ends
        for layer in p["layers"]:
            h = nn.dense(layer, x)
            largest = jax.ops.segment_max(h[source], target, NODES)
            x = jnp.tanh(x + jnp.maximum(largest, -1.0))
        return nn.dense(p["head"], x)

    def draw(rng: np.random.Generator) -> Inputs:
        ends = jnp.asarray(rng.integers(0, NODES, (2, EDGES)), jnp.int32)
        return *normals(NODES, WIDTH)(rng), ends

    return Subject(fn=fn, params=params, draw=draw)


def windows() -> Subject:
    """Largest minus least of windows between convolutions, their first values traced."""
    w = Weights(185)
    params = {
        "stem": w.kernel(3, 3, 3, 32),
        "layers": [w.kernel(3, 3, 32, 32) for _ in range(2)],
        "floor": jnp.float32(-10.0),
        "head": w.dense(32, 64),
    }

    def fn(p: Any, x: Array) -> Array:
        x = nn.conv(x, p["stem"])
        size, step = (1, 3, 3, 1), (1, 1, 1, 1)
        for kernel in p["layers"]:
            top = lax.reduce_window(x, p["floor"], lax.max, size, step, "SAME")
            least = lax.reduce_window(x, -p["floor"], lax.min, size, step, "SAME")
            x = nn.conv(top - least, kernel)
        return nn.dense(p["head"], x.mean((1, 2)))

    return Subject(fn=fn, params=params, draw=PIXELS)


def _experts(seed: int) -> tuple[Weights, dict[str, Any]]:
    w = Weights(seed)
    params = {
        "router": w.matrix(WIDTH, EXPERTS),
        "layers": {
            "up": w.matrix(EXPERTS, WIDTH, HIDDEN),
            "down": w.matrix(EXPERTS, HIDDEN, WIDTH),
        },
        "head": w.dense(WIDTH, WIDTH),
    }
    return w, params


def moe_ragged() -> Subject:
    """Tokens sorted by expert and multiplied group by group, by `ragged_dot`."""

    def fn(p: Any, x: Array) -> Array:
        scores = jax.nn.softmax(x @ p["router"])
        chosen = jnp.argmax(scores, -1)
        order = jnp.argsort(chosen)
        sizes = jnp.sum(jax.nn.one_hot(chosen, EXPERTS, dtype=jnp.int32), 0)
        h = jax.nn.gelu(lax.ragged_dot(x[order], p["layers"]["up"], sizes))
        y = lax.ragged_dot(h, p["layers"]["down"], sizes)
        gate = jnp.take_along_axis(scores, chosen[:, None], -1)
        x = x + gate * jnp.zeros_like(y).at[order].set(y, unique_indices=True)
        return nn.dense(p["head"], x)

    return Subject(fn=fn, params=_experts(186)[1], draw=normals(2 * ROWS, WIDTH))


def moe_gathered() -> Subject:
    """Each token multiplied by the gathered matrices of its expert."""

    def fn(p: Any, x: Array) -> Array:
        scores = jax.nn.softmax(x @ p["router"])
        chosen = jnp.argmax(scores, -1)
        h = jax.nn.gelu(jnp.einsum("td,tdf->tf", x, p["layers"]["up"][chosen]))
        y = jnp.einsum("tf,tfd->td", h, p["layers"]["down"][chosen])
        x = x + jnp.take_along_axis(scores, chosen[:, None], -1) * y
        return nn.dense(p["head"], x)

    return Subject(fn=fn, params=_experts(187)[1], draw=VECTORS)


def branches() -> Subject:
    """Batches that go through one of three branches, by the sign and size of a score."""
    w = Weights(188)
    params = {
        "score": w.matrix(WIDTH, 3),
        "layers": [nn.mlp_weights(w, WIDTH, HIDDEN) for _ in range(3)],
        "head": w.dense(WIDTH, WIDTH),
    }

    def fn(p: Any, x: Array) -> Array:
        def one(rows: Array) -> Array:
            best = jnp.argmax(jnp.mean(rows @ p["score"], 0))
            acts = (jax.nn.gelu, jnp.tanh, jax.nn.silu)
            paths = [
                functools.partial(lambda layer, act, r: r + nn.mlp(layer, r, act), layer, act)
                for layer, act in zip(p["layers"], acts, strict=True)
            ]
            return lax.switch(best, paths, rows)

        return nn.dense(p["head"], lax.map(one, x))

    return Subject(fn=fn, params=params, draw=normals(4, 16, WIDTH))


def float8() -> Subject:
    """Products of float8 by float8 into float32, with a scale a row and a column."""
    w, largest = Weights(189), 448.0

    def narrow(kernel: Array) -> dict[str, Array]:
        scale = jnp.max(jnp.abs(kernel), 0) / largest
        return {"w": (kernel / scale).astype(jnp.float8_e4m3fn), "scale": scale}

    params = {"layers": [narrow(w.matrix(WIDTH, WIDTH)) for _ in range(4)]}

    def fn(p: Any, x: Array) -> Array:
        for layer in p["layers"]:
            scale = jnp.max(jnp.abs(x), -1, keepdims=True) / largest
            levels = (x / scale).astype(jnp.float8_e4m3fn)
            y = jnp.matmul(levels, layer["w"], preferred_element_type=jnp.float32)
            x = x + jax.nn.silu(y * scale * layer["scale"])
        return x

    return Subject(fn=fn, params=params, draw=VECTORS)


def zero_points() -> Subject:
    """uint8 activations and int8 weights, both with a zero point, multiplied as int32."""
    w, width = Weights(190), 2 * WIDTH
    rng = np.random.default_rng(190)
    params = {
        "layers": [
            {
                "levels": jnp.asarray(rng.integers(-128, 128, (width, width)), jnp.int8),
                "zero": jnp.asarray(rng.integers(-8, 8, width), jnp.int8),
                "scale": jnp.abs(w.vector(width, around=1.0)) / 850,
                "b": w.vector(width),
            }
            for _ in range(4)
        ]
    }

    def fn(p: Any, x: Array) -> Array:
        for layer in p["layers"]:
            least = jnp.min(x, -1, keepdims=True)
            scale = (jnp.max(x, -1, keepdims=True) - least) / 255
            zero = jnp.clip(jnp.round(-least / scale), 0, 255).astype(jnp.uint8)
            levels = jnp.clip(jnp.round(x / scale) + zero, 0, 255).astype(jnp.uint8)
            centred = levels.astype(jnp.int32) - zero.astype(jnp.int32)
            kernel = layer["levels"].astype(jnp.int32) - layer["zero"].astype(jnp.int32)
            y = jnp.matmul(centred, kernel, preferred_element_type=jnp.int32)
            x = x + jnp.tanh(y.astype(jnp.float32) * scale * layer["scale"] + layer["b"])
        return x

    return Subject(fn=fn, params=params, draw=normals(ROWS, width))


def sharded() -> Subject:
    """Layers inside `shard_map` over a mesh of one device, columns summed by `psum`."""
    w = Weights(191)
    params = {"layers": [nn.mlp_weights(w, WIDTH, HIDDEN) for _ in range(2)]}
    mesh = Mesh(np.array(jax.devices()[:1]), ("columns",))
    split, whole = PartitionSpec(None, "columns"), PartitionSpec()

    def fn(p: Any, x: Array) -> Array:
        def part(up: Array, down: Array, rows: Array) -> Array:
            return lax.psum(jax.nn.gelu(rows @ up) @ down, "columns")

        specs = (split, PartitionSpec("columns"), whole)
        mapped = jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=whole)
        for layer in p["layers"]:
            x = x + mapped(layer["up"]["w"], layer["down"]["w"], x + layer["down"]["b"])
        return x

    return Subject(fn=fn, params=params, draw=VECTORS)


def composed() -> Subject:
    """Layers inside `composite`, as exporters mark them."""
    w = Weights(192)
    params = {"layers": [nn.mlp_weights(w, WIDTH, HIDDEN) for _ in range(2)]}

    @functools.partial(lax.composite, name="benchmarks.mlp")
    def layer(up: Array, down: Array, x: Array) -> Array:
        return jax.nn.gelu(x @ up) @ down

    def fn(p: Any, x: Array) -> Array:
        for one in p["layers"]:
            x = x + layer(one["up"]["w"], one["down"]["w"], x + one["down"]["b"])
        return x

    return Subject(fn=fn, params=params, draw=VECTORS)


def named() -> Subject:
    """Values that are named for a checkpoint, or narrowed in place, between products."""
    w = Weights(193)
    params = {"layers": [nn.mlp_weights(w, WIDTH, HIDDEN) for _ in range(2)]}

    def fn(p: Any, x: Array) -> Array:
        for layer in p["layers"]:
            h = checkpoint_name(jax.nn.silu(nn.dense(layer["up"], x)), "hidden")
            h = lax.reduce_precision(h, exponent_bits=8, mantissa_bits=7)
            x = x + nn.dense(layer["down"], h)
        return x

    return Subject(fn=fn, params=params, draw=VECTORS)


MODELS = (
    leaky_relu_cnn,
    resized,
    rounded_weights,
    segment_largest,
    windows,
    moe_ragged,
    moe_gathered,
    branches,
    float8,
    zero_points,
    sharded,
    composed,
    named,
)
