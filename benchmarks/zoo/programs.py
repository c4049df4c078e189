"""Graphs, mixtures of experts, densities, and programs that are no layer of a network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.zoo import layers as nn
from benchmarks.zoo.subject import Inputs, Subject, Weights, normals

WIDTH, ROWS, NODES, EDGES = 64, 32, 48, 160
VECTORS = normals(ROWS, WIDTH)
# Of experts, whose products are small: a check of a batch costs more an element.
WIDE, HIDDEN = 256, 512


def mlp() -> Subject:
    """Linear layers with ReLU and batch norm, and classes."""
    w = Weights(61)
    params = {
        "layers": [{**w.dense(WIDTH, WIDTH), **w.norm(WIDTH), **w.moments(WIDTH)} for _ in "abc"],
        "head": w.dense(WIDTH, 64),
    }

    def fn(p: Any, x: Array) -> Array:
        for layer in p["layers"]:
            x = jax.nn.relu(nn.batch_norm(layer, nn.dense(layer, x)))
        return jax.nn.softmax(nn.dense(p["head"], x))

    return Subject(fn=fn, params=params, draw=VECTORS)


def moe_top2() -> Subject:
    """Each token goes to two of eight experts; the others are multiplied by zero."""
    w = Weights(62)
    params = {"router": w.matrix(WIDE, 8), "layers": nn.mlp_weights(w, WIDE, HIDDEN, 8)}

    def fn(p: Any, x: Array) -> Array:
        scores = jax.nn.softmax(x @ p["router"])
        gates, chosen = lax.top_k(scores, 2)
        gates = gates / jnp.sum(gates, -1, keepdims=True)
        combine = jnp.sum(jax.nn.one_hot(chosen, 8) * gates[..., None], 1)
        up, down = p["layers"]["up"], p["layers"]["down"]
        h = jax.nn.gelu(jnp.einsum("td,edf->etf", x, up["w"]) + up["b"][:, None])
        y = jnp.einsum("etf,efd->etd", h, down["w"]) + down["b"][:, None]
        return x + jnp.einsum("etd,te->td", y, combine)

    return Subject(fn=fn, params=params, draw=normals(ROWS, WIDE))


def moe_soft() -> Subject:
    """Slots that mix tokens, an expert for each slot, and back."""
    w = Weights(63)
    params = {"slots": w.matrix(8, WIDE, 4), "layers": nn.mlp_weights(w, WIDE, HIDDEN, 8)}

    def fn(p: Any, x: Array) -> Array:
        scores = jnp.einsum("td,eds->tes", x, p["slots"])
        given = jnp.einsum("tes,td->esd", jax.nn.softmax(scores, 0), x)
        y = jax.vmap(nn.mlp)(p["layers"], given)
        share = jax.nn.softmax(scores.reshape(ROWS, -1), -1).reshape(scores.shape)
        return x + jnp.einsum("tes,esd->td", share, y)

    return Subject(fn=fn, params=params, draw=normals(ROWS, WIDE))


def moe_capacity() -> Subject:
    """Switch routing: one expert a token, places in its buffer by a running count."""
    w = Weights(64)
    params = {"router": w.matrix(WIDE, 4), "layers": nn.mlp_weights(w, WIDE, HIDDEN, 4)}

    def fn(p: Any, x: Array) -> Array:
        scores = jax.nn.softmax(x @ p["router"])
        chosen = jax.nn.one_hot(jnp.argmax(scores, -1), 4, dtype=jnp.int32)
        place = (jnp.cumsum(chosen, 0) - 1) * chosen
        kept = (chosen * (place < 12)).astype(x.dtype)
        where = kept[..., None] * jax.nn.one_hot(jnp.sum(place, -1), 12)[:, None]
        y = jax.vmap(nn.mlp)(p["layers"], jnp.einsum("tec,td->ecd", where, x))
        return x + jnp.einsum("tec,ecd->td", where * scores[..., None], y)

    return Subject(fn=fn, params=params, draw=normals(ROWS, WIDE))


def _graph(rng: np.random.Generator) -> Inputs:
    ends = jnp.asarray(rng.integers(0, NODES, (2, EDGES)), jnp.int32)
    return jnp.asarray(rng.standard_normal((NODES, WIDTH)), jnp.float32), ends


def gcn() -> Subject:
    """Graph convolutions: sums over neighbours, divided by roots of degrees."""
    w = Weights(65)
    params = {"layers": [w.dense(WIDTH, WIDTH) for _ in range(3)], "head": w.dense(WIDTH, 64)}

    def fn(p: Any, x: Array, ends: Array) -> Array:
        source, target = ends
        degree = jax.ops.segment_sum(jnp.ones(EDGES), target, NODES) + 1
        scale = lax.rsqrt(degree)[:, None]
        for layer in p["layers"]:
            h = nn.dense(layer, x) * scale
            x = jax.nn.relu(scale * (h + jax.ops.segment_sum(h[source], target, NODES)))
        return nn.dense(p["head"], x)

    return Subject(fn=fn, params=params, draw=_graph)


def gat() -> Subject:
    """Attention over neighbours: a softmax over the edges of each node."""
    w = Weights(66)
    params = {
        "layers": [
            {"w": w.matrix(WIDTH, WIDTH), "to": w.normal(WIDTH, scale=0.1), "from": w.vector(WIDTH)}
            for _ in range(2)
        ],
        "head": w.dense(WIDTH, 64),
    }

    def fn(p: Any, x: Array, ends: Array) -> Array:
        source, target = ends
        for layer in p["layers"]:
            h = x @ layer["w"]
            score = jax.nn.leaky_relu(h[source] @ layer["from"] + h[target] @ layer["to"], 0.2)
            top = jax.ops.segment_max(score, target, NODES)
            share = jnp.exp(score - top[target])
            total = jax.ops.segment_sum(share, target, NODES)
            mixed = jax.ops.segment_sum(share[:, None] * h[source], target, NODES)
            x = x + jax.nn.elu(mixed / (total[:, None] + 1e-9))
        return nn.dense(p["head"], x)

    return Subject(fn=fn, params=params, draw=_graph)


def messages() -> Subject:
    """Message passing: an MLP of both ends, means over edges, a sum over the graph."""
    w = Weights(67)
    params = {
        "layers": nn.mlp_weights(w, 2 * WIDTH, 128),
        "update": w.dense(3 * WIDTH, WIDTH),
        "head": w.dense(WIDTH, 64),
    }

    def fn(p: Any, x: Array, ends: Array) -> Array:
        source, target = ends
        sent = nn.mlp(p["layers"], jnp.concatenate([x[source], x[target]], -1), jax.nn.silu)
        count = jax.ops.segment_sum(jnp.ones(EDGES), target, NODES)
        mean = jax.ops.segment_sum(sent, target, NODES) / jnp.maximum(count, 1)[:, None]
        x = jnp.tanh(nn.dense(p["update"], jnp.concatenate([x, mean], -1)))
        return nn.dense(p["head"], x.sum(0))

    return Subject(fn=fn, params=params, draw=_graph)


def schnet() -> Subject:
    """Energies of molecules: filters made from distances, and shifted softplus."""
    w, atoms = Weights(68), 16
    params = {
        "atoms": w.normal(16, WIDTH),
        "filter": nn.mlp_weights(w, WIDTH, WIDTH),
        "layers": [nn.mlp_weights(w, WIDTH, WIDTH) for _ in range(2)],
        "head": w.dense(WIDTH, 1),
    }

    def soft(x: Array) -> Array:
        return jax.nn.softplus(x) - np.log(2)

    def fn(p: Any, kinds: Array, places: Array) -> Array:
        gaps = places[:, None] - places
        distance = jnp.sqrt(jnp.sum(gaps * gaps, -1) + 1e-6)
        centres = jnp.linspace(0.0, 14.0, WIDTH)
        radial = jnp.exp(-4 * jnp.square(distance[..., None] - centres))
        filters = nn.mlp(p["filter"], radial, soft)
        x = p["atoms"][kinds]
        for layer in p["layers"]:
            x = x + nn.mlp(layer, jnp.sum(filters * x, 1), soft)
        return jnp.sum(nn.dense(p["head"], soft(x)))

    def draw(rng: np.random.Generator) -> Inputs:
        kinds = jnp.asarray(rng.integers(0, 16, atoms), jnp.int32)
        return kinds, jnp.asarray(2 * rng.standard_normal((atoms, 3)), jnp.float32)

    return Subject(fn=fn, params=params, draw=draw)


def real_nvp() -> Subject:
    """A normalising flow: affine couplings, and the log density."""
    w, half = Weights(69), WIDTH // 2
    params = {
        "layers": [{"up": w.dense(half, 128), "down": w.dense(128, 2 * half)} for _ in range(4)]
    }

    def fn(p: Any, x: Array) -> tuple[Array, Array]:
        a, b = jnp.split(x, 2, -1)
        total = jnp.zeros(x.shape[0])
        for layer in p["layers"]:
            scale, shift = jnp.split(nn.mlp(layer, a, jnp.tanh), 2, -1)
            scale = jnp.tanh(scale)
            a, b = b * jnp.exp(scale) + shift, a
            total = total + jnp.sum(scale, -1)
        z = jnp.concatenate([a, b], -1)
        return z, total - 0.5 * jnp.sum(z * z, -1)

    return Subject(fn=fn, params=params, draw=VECTORS)


def nerf() -> Subject:
    """Fourier features of positions, an MLP, and colours summed along rays."""
    w, rays, samples = Weights(70), 16, 8
    params = {
        "layers": [w.dense(60, 128), w.dense(128, 128)],
        "head": w.dense(128, 64),
        "last": w.dense(64, 4),
    }

    def fn(p: Any, places: Array) -> Array:
        angles = places[..., None] * 2.0 ** jnp.arange(10)
        x = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1).reshape(rays, samples, -1)
        for layer in p["layers"]:
            x = jax.nn.relu(nn.dense(layer, x))
        y = nn.dense(p["last"], jax.nn.relu(nn.dense(p["head"], x)))
        opacity = 1 - jnp.exp(-jax.nn.softplus(y[..., 3]))
        before = jnp.cumprod(1 - opacity, -1) / (1 - opacity)
        return jnp.sum((opacity * before)[..., None] * jax.nn.sigmoid(y[..., :3]), 1)

    return Subject(fn=fn, params=params, draw=normals(rays, samples, 3))


def pointnet() -> Subject:
    """The largest of every feature over points, at two levels."""
    w = Weights(71)
    params = {
        "stem": w.dense(3, WIDTH),
        "layers": [w.dense(WIDTH, WIDTH), w.dense(2 * WIDTH, 128)],
        "head": w.dense(128, 64),
    }

    def fn(p: Any, points: Array) -> Array:
        local, joined = p["layers"]
        x = jax.nn.relu(nn.dense(local, jax.nn.relu(nn.dense(p["stem"], points))))
        whole = jnp.broadcast_to(x.max(1, keepdims=True), x.shape)
        x = jax.nn.relu(nn.dense(joined, jnp.concatenate([x, whole], -1)))
        return nn.dense(p["head"], x.max(1))

    return Subject(fn=fn, params=params, draw=normals(2, 32, 3))


def recommender() -> Subject:
    """Tables of users and items, products of all pairs of features, a probability a row."""
    w, features = Weights(72), 8
    params = {
        "tables": w.normal(features, 64, 16),
        "bottom": w.dense(WIDTH, 16),
        "layers": nn.mlp_weights(w, 16 + 36, 128),
        "head": w.dense(16 + 36, 1),
    }
    pairs = np.triu_indices(features + 1, 1)

    def fn(p: Any, x: Array, ids: Array) -> Array:
        dense = jax.nn.relu(nn.dense(p["bottom"], x))
        found = jnp.stack([p["tables"][i][ids[:, i]] for i in range(features)], 1)
        every = jnp.concatenate([dense[:, None], found], 1)
        products = jnp.einsum("nid,njd->nij", every, every)[:, *pairs]
        h = jnp.concatenate([dense, products], -1)
        return jax.nn.sigmoid(nn.dense(p["head"], h + nn.mlp(p["layers"], h, jax.nn.relu)))[:, 0]

    def draw(rng: np.random.Generator) -> Inputs:
        return *VECTORS(rng), jnp.asarray(rng.integers(0, 64, (ROWS, features)), jnp.int32)

    return Subject(fn=fn, params=params, draw=draw)


def vector_quantised() -> Subject:
    """Each row becomes the nearest of 64 codes, then is decoded."""
    w = Weights(73)
    params = {
        "encode": nn.mlp_weights(w, WIDTH, 128),
        "codes": w.normal(64, WIDTH),
        "layers": nn.mlp_weights(w, WIDTH, 128),
    }

    def fn(p: Any, x: Array) -> tuple[Array, Array]:
        z = nn.mlp(p["encode"], x)
        distance = jnp.sum(p["codes"] ** 2, -1) - 2 * z @ p["codes"].T
        chosen = jnp.argmin(distance, -1)
        return chosen, nn.mlp(p["layers"], p["codes"][chosen])

    return Subject(fn=fn, params=params, draw=VECTORS)


def kernel_regression() -> Subject:
    """Gaussian-process means: distances to 64 known points, and a product with solved weights."""
    w = Weights(74)
    params = {"points": w.normal(64, WIDTH), "layers": w.normal(64, 64, scale=0.3)}

    def fn(p: Any, x: Array) -> Array:
        squares = jnp.sum(x * x, -1)[:, None] + jnp.sum(p["points"] ** 2, -1)
        distance = jnp.maximum(squares - 2 * x @ p["points"].T, 0)
        return jnp.exp(-distance / (2 * WIDTH)) @ p["layers"]

    return Subject(fn=fn, params=params, draw=VECTORS)


def siamese() -> Subject:
    """Two inputs through one network, compared by the angle between the results."""
    w = Weights(75)
    params = {"layers": [nn.mlp_weights(w, WIDTH, 128) for _ in range(2)], "norm": w.norm(WIDTH)}

    def fn(p: Any, a: Array, b: Array) -> Array:
        def encode(x: Array) -> Array:
            for layer in p["layers"]:
                x = x + nn.mlp(layer, x)
            x = nn.layer_norm(p["norm"], x)
            return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

        return jnp.arccos(jnp.clip(jnp.sum(encode(a) * encode(b), -1), -0.999, 0.999))

    def draw(rng: np.random.Generator) -> Inputs:
        return *VECTORS(rng), *VECTORS(rng)

    return Subject(fn=fn, params=params, draw=draw)


def equilibrium() -> Subject:
    """The fixed point of a layer, by a `while` of at most 30 steps."""
    w = Weights(76)
    params = {
        "layers": {"w": 0.3 * w.matrix(WIDTH, WIDTH), "u": w.dense(WIDTH, WIDTH)},
        "head": w.dense(WIDTH, 64),
    }

    def fn(p: Any, x: Array) -> Array:
        drive = nn.dense(p["layers"]["u"], x)

        def go_on(state: Any) -> Array:
            return (state[2] < 30) & (jnp.max(jnp.abs(state[0] - state[1])) > 1e-4)

        def step(state: Any) -> Any:
            z, _, count = state
            return jnp.tanh(z @ p["layers"]["w"] + drive), z, count + 1

        start = (jnp.tanh(drive), jnp.zeros_like(drive), 0)
        return nn.dense(p["head"], lax.while_loop(go_on, step, start)[0])

    return Subject(fn=fn, params=params, draw=VECTORS)


MODELS = (
    mlp,
    moe_top2,
    moe_soft,
    moe_capacity,
    gcn,
    gat,
    messages,
    schnet,
    real_nvp,
    nerf,
    pointnet,
    recommender,
    vector_quantised,
    kernel_regression,
    siamese,
    equilibrium,
)
