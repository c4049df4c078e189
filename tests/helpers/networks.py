"""Small models in three frameworks, and programs on the edges of discontinuous glue.

Each function returns `(fn, params, inputs)` with `fn(params, *inputs)`, its values drawn from a
fixed seed. Sizes are small enough to compile in a second or two, and large enough that checking a
contraction with 16 draws is cheaper than replaying it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax import lax

Model = tuple[Callable[..., Any], Any, tuple[Any, ...]]

WIDTH, HEADS, GROUPS, HEAD, TOKENS, LAYERS = 256, 4, 2, 64, 128, 2


def _normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _filled(tree: Any, seed: int = 7) -> Any:
    """Give the floats of an abstract model values like trained ones: no scale is 1, no bias 0.

    Nothing of the model's own initialisation is compiled, which would take longer than the test.
    """
    rng = np.random.default_rng(seed)

    def leaf(path: Any, x: Any) -> Any:
        if not isinstance(x, jax.ShapeDtypeStruct):
            return x
        values = rng.standard_normal(x.shape)
        last = jax.tree_util.keystr(path).lower()
        if len(x.shape) > 1:
            # All but the largest dimension feed one output, whatever a framework's order is.
            values /= math.sqrt(math.prod(x.shape) / max(x.shape))
        elif any(word in last for word in ("scale", "var", "norm")):
            values = 1 + 0.1 * values
        else:
            values *= 0.1
        return jnp.asarray(values, x.dtype)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def _causal(tokens: int) -> jax.Array:
    return jnp.tril(jnp.ones((tokens, tokens), bool))


# ------------------------------------------------------------------------------------ Flax NNX


class _NnxMlp(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.up = nnx.Linear(128, WIDTH, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.down = nnx.Linear(WIDTH, 128, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(self.norm(jax.nn.gelu(self.up(x))))


class _NnxCnn(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, 64, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(64, use_running_average=True, rngs=rngs)
        self.conv = nnx.Conv(64, 128, (3, 3), strides=(2, 2), rngs=rngs)
        self.last = nnx.BatchNorm(128, use_running_average=True, rngs=rngs)
        self.head = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.norm(self.stem(x)))
        x = jax.nn.relu(self.last(self.conv(x)))
        return self.head(x.mean((1, 2)))


class _NnxBlock(nnx.Module):
    """A transformer block whose query heads share key and value heads, by one grouped einsum."""

    def __init__(self, rngs: nnx.Rngs):
        linear = partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.attention_norm = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.q = linear(WIDTH, HEADS * HEAD)
        self.k = linear(WIDTH, GROUPS * HEAD)
        self.v = linear(WIDTH, GROUPS * HEAD)
        self.o = linear(HEADS * HEAD, WIDTH)
        self.mlp_norm = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.gate = linear(WIDTH, 2 * WIDTH)
        self.up = linear(WIDTH, 2 * WIDTH)
        self.down = linear(2 * WIDTH, WIDTH)

    def __call__(self, x: jax.Array) -> jax.Array:
        h = self.attention_norm(x)
        q = self.q(h).reshape(*h.shape[:-1], GROUPS, HEADS // GROUPS, HEAD)
        k, v = (f(h).reshape(*h.shape[:-1], GROUPS, HEAD) for f in (self.k, self.v))
        scores = jnp.einsum("...tghd,...sgd->...ghts", q, k) / math.sqrt(HEAD)
        scores = jnp.where(_causal(h.shape[-2]), scores, -jnp.inf)
        mixed = jnp.einsum("...ghts,...sgd->...tghd", jax.nn.softmax(scores), v)
        x = x + self.o(mixed.reshape(*h.shape[:-1], HEADS * HEAD))
        h = self.mlp_norm(x)
        return x + self.down(jax.nn.silu(self.gate(h)) * self.up(h))


class _NnxTransformer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(512, WIDTH, rngs=rngs)
        self.block = _NnxBlock(rngs)
        self.norm = nnx.RMSNorm(WIDTH, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.embed.attend(self.norm(self.block(self.embed(tokens))))


class _NnxLayer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.down(jax.nn.gelu(self.up(self.norm(x))))


class _NnxStack(nnx.Module):
    """Layers whose parameters are stacked, run under `scan`."""

    def __init__(self, rngs: nnx.Rngs):
        @nnx.split_rngs(splits=LAYERS)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(rngs: nnx.Rngs) -> _NnxLayer:
            return _NnxLayer(rngs)

        self.layers = make(rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(x: jax.Array, layer: _NnxLayer) -> jax.Array:
            return layer(x)

        return run(x, self.layers)


def _nnx(module: type[nnx.Module], *inputs: Any) -> Model:
    graph, state = nnx.split(nnx.eval_shape(lambda: module(nnx.Rngs(0))))

    def fn(params: Any, *inputs: Any) -> Any:
        return nnx.merge(graph, params)(*inputs)

    return fn, _filled(state), inputs


def nnx_mlp() -> Model:
    return _nnx(_NnxMlp, _normal(1, 96, 128))


def nnx_cnn() -> Model:
    return _nnx(_NnxCnn, _normal(1, 2, 16, 16, 3))


def nnx_transformer() -> Model:
    return _nnx(_NnxTransformer, _tokens())


def nnx_scan() -> Model:
    return _nnx(_NnxStack, _normal(1, TOKENS, WIDTH))


# ---------------------------------------------------------------------------------- Flax Linen


class _LinenMlp(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(linen.Dense(WIDTH)(x))
        return linen.Dense(128)(linen.LayerNorm()(x))


class _LinenCnn(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features, stride in ((64, 1), (128, 2)):
            x = linen.Conv(features, (3, 3), (stride, stride), padding="SAME")(x)
            x = jax.nn.silu(linen.BatchNorm(use_running_average=True)(x))
        x = linen.avg_pool(x, (2, 2), (2, 2))
        return linen.Dense(10)(x.reshape(x.shape[0], -1))


class _LinenBlock(linen.Module):
    """A transformer block on `jax.nn.dot_product_attention`, which groups the heads itself."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = linen.LayerNorm()(x)
        q = linen.DenseGeneral((HEADS, HEAD), name="q")(h)
        k = linen.DenseGeneral((GROUPS, HEAD), name="k")(h)
        v = linen.DenseGeneral((GROUPS, HEAD), name="v")(h)
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + linen.DenseGeneral(WIDTH, axis=(-2, -1), name="o")(mixed)
        h = linen.Dense(2 * WIDTH, name="up")(linen.LayerNorm()(x))
        return x + linen.Dense(WIDTH, name="down")(jax.nn.gelu(h))


class _LinenTransformer(linen.Module):
    @linen.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        embed = linen.Embed(512, WIDTH)
        return embed.attend(linen.LayerNorm()(_LinenBlock()(embed(tokens))))


class _LinenBody(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return _LinenBlock()(x), None


class _LinenStack(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stack = linen.scan(
            _LinenBody, variable_axes={"params": 0}, split_rngs={"params": True}, length=LAYERS
        )
        return stack()(x, None)[0]


def _linen(module: linen.Module, *inputs: Any) -> Model:
    params = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return module.apply, _filled(params), inputs


def linen_mlp() -> Model:
    return _linen(_LinenMlp(), _normal(1, 96, 128))


def linen_cnn() -> Model:
    return _linen(_LinenCnn(), _normal(1, 2, 16, 16, 3))


def linen_transformer() -> Model:
    return _linen(_LinenTransformer(), _tokens(1))


def linen_scan() -> Model:
    return _linen(_LinenStack(), _normal(1, 1, TOKENS, WIDTH))


# ------------------------------------------------------------------------------------- Equinox


class _EqxBlock(eqx.Module):
    """A transformer block over one sequence; `W @ x` under `vmap`; keys and values repeated."""

    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]
    q: eqx.nn.Linear
    k: eqx.nn.Linear
    v: eqx.nn.Linear
    o: eqx.nn.Linear
    mlp: eqx.nn.MLP

    def __init__(self, key: jax.Array):
        q, k, v, o, mlp = jax.random.split(key, 5)
        self.norms = (eqx.nn.LayerNorm(WIDTH), eqx.nn.LayerNorm(WIDTH))
        self.q = eqx.nn.Linear(WIDTH, HEADS * HEAD, key=q)
        self.k = eqx.nn.Linear(WIDTH, GROUPS * HEAD, key=k)
        self.v = eqx.nn.Linear(WIDTH, GROUPS * HEAD, key=v)
        self.o = eqx.nn.Linear(HEADS * HEAD, WIDTH, key=o)
        self.mlp = eqx.nn.MLP(WIDTH, WIDTH, 2 * WIDTH, depth=1, key=mlp)

    def __call__(self, x: jax.Array) -> jax.Array:
        h = jax.vmap(self.norms[0])(x)
        q = jax.vmap(self.q)(h).reshape(-1, HEADS, HEAD)
        k, v = (
            jnp.repeat(jax.vmap(f)(h).reshape(-1, GROUPS, HEAD), HEADS // GROUPS, axis=1)
            for f in (self.k, self.v)
        )
        mixed = jax.vmap(self.attend, in_axes=1, out_axes=1)(q, k, v)
        x = x + jax.vmap(self.o)(mixed.reshape(-1, HEADS * HEAD))
        return x + jax.vmap(self.mlp)(jax.vmap(self.norms[1])(x))

    @staticmethod
    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        scores = jnp.where(_causal(q.shape[0]), q @ k.T / math.sqrt(HEAD), -jnp.inf)
        return jax.nn.softmax(scores) @ v


class _EqxTransformer(eqx.Module):
    embed: eqx.nn.Embedding
    block: _EqxBlock
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array):
        embed, block, head = jax.random.split(key, 3)
        self.embed = eqx.nn.Embedding(512, WIDTH, key=embed)
        self.block = _EqxBlock(block)
        self.head = eqx.nn.Linear(WIDTH, 512, key=head)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return jax.vmap(self.head)(self.block(jax.vmap(self.embed)(tokens)))


class _EqxLayer(eqx.Module):
    norm: eqx.nn.LayerNorm
    mlp: eqx.nn.MLP

    def __init__(self, key: jax.Array):
        self.norm = eqx.nn.LayerNorm(WIDTH)
        self.mlp = eqx.nn.MLP(WIDTH, WIDTH, 2 * WIDTH, depth=1, key=key)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + jax.vmap(self.mlp)(jax.vmap(self.norm)(x))


class _EqxCnn(eqx.Module):
    convolutions: tuple[eqx.nn.Conv2d, eqx.nn.Conv2d]
    norms: tuple[eqx.nn.BatchNorm, eqx.nn.BatchNorm]
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array):
        first, second, head = jax.random.split(key, 3)
        self.convolutions = (
            eqx.nn.Conv2d(3, 64, 3, padding=1, key=first),
            eqx.nn.Conv2d(64, 128, 3, stride=2, padding=1, key=second),
        )
        self.norms = tuple(eqx.nn.BatchNorm(n, axis_name="batch", mode="ema") for n in (64, 128))
        self.head = eqx.nn.Linear(128, 10, key=head)

    def __call__(self, x: jax.Array, state: eqx.nn.State) -> tuple[jax.Array, eqx.nn.State]:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x, state = norm(convolution(x), state)
            x = jax.nn.relu(x)
        return self.head(x.mean((1, 2))), state


def _eqx(make: Callable[..., Any]) -> tuple[Any, Any]:
    """Arrays and the rest of a model that is made from a random key."""
    params, static = eqx.partition(eqx.filter_eval_shape(make, jax.random.key(0)), _is_abstract)
    return _filled(params), static


def _is_abstract(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)


def eqx_mlp() -> Model:
    params, static = _eqx(lambda key: eqx.nn.MLP(128, 128, WIDTH, depth=2, key=key))

    def fn(params: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(eqx.combine(params, static))(x)

    return fn, params, (_normal(1, 96, 128),)


def eqx_cnn() -> Model:
    params, static = _eqx(eqx.nn.make_with_state(_EqxCnn))
    # The running statistics are means and variances without a name to tell them apart by.
    params = (params[0], jax.tree.map(lambda x: jnp.abs(x) + 0.5, params[1]))

    def fn(params: Any, x: jax.Array) -> jax.Array:
        model, state = eqx.combine(params, static)
        model = eqx.nn.inference_mode(model)
        return jax.vmap(model, axis_name="batch", in_axes=(0, None))(x, state)[0]

    return fn, params, (_normal(1, 2, 3, 16, 16),)


def eqx_transformer() -> Model:
    params, static = _eqx(_EqxTransformer)

    def fn(params: Any, tokens: jax.Array) -> jax.Array:
        return eqx.combine(params, static)(tokens)

    return fn, params, (_tokens(),)


def eqx_scan() -> Model:
    params, static = _eqx(lambda key: eqx.filter_vmap(_EqxLayer)(jax.random.split(key, LAYERS)))

    def fn(params: Any, x: jax.Array) -> jax.Array:
        def body(x: jax.Array, layer: Any) -> tuple[jax.Array, None]:
            return eqx.combine(layer, static)(x), None

        return lax.scan(body, x, params)[0]

    return fn, params, (_normal(1, TOKENS, WIDTH),)


def _tokens(*batch: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).integers(0, 512, (*batch, TOKENS)), jnp.int32)


# ------------------------------------------------------------------------- discontinuous glue
#
# Every choice below is between two values that are equal in exact arithmetic, `s a + s b` and
# `s (a + b)`. A compiler that contracts a product and a sum rounds them otherwise than one that
# does not, so honest devices choose differently.


def _twins(scores: jax.Array, split: jax.Array) -> jax.Array:
    return jnp.concatenate(
        [scores * split[0] + scores * split[1], scores * (split[0] + split[1])], -1
    )


def near_tie_argmax() -> Model:
    """Each row picks one of 128 classes, of which any two twins tie; the choice is returned, and
    its embedding goes through another layer."""
    rng = np.random.default_rng(2)
    params = {
        "w": _normal(2, WIDTH, 64),
        "split": jnp.asarray(rng.uniform(0.3, 0.7, (2, 64)), jnp.float32),
        "table": _normal(3, 128, WIDTH),
        "out": _normal(4, WIDTH, 128),
    }

    def fn(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        best = jnp.argmax(_twins(x @ params["w"], params["split"]), axis=-1)
        return best, jnp.tanh(params["table"][best]) @ params["out"]

    return fn, params, (_normal(1, 96, WIDTH),)


def expert_routing() -> Model:
    """Each token goes to three of eight experts by one-hot dispatch: two twins, and one of the next
    two."""
    rng = np.random.default_rng(2)
    params = {
        "router": _normal(2, WIDTH, 4),
        "split": jnp.asarray(rng.uniform(0.3, 0.7, (2, 4)), jnp.float32),
        "up": _normal(3, 8, WIDTH, 128) / 16,
        "down": _normal(4, 8, 128, WIDTH) / 11,
    }

    def fn(params: Any, x: jax.Array) -> jax.Array:
        scores = jax.nn.softmax(_twins(x @ params["router"], params["split"]))
        gates, chosen = lax.top_k(scores, 3)
        combine = (jax.nn.one_hot(chosen, 8) * gates[..., None]).sum(1)
        dispatch = (combine > 0).astype(x.dtype)
        h = jnp.einsum("te,td,edf->etf", dispatch, x, params["up"])
        return jnp.einsum("etf,efd,te->td", jax.nn.gelu(h), params["down"], combine)

    return fn, params, (_normal(1, 96, WIDTH),)


def int8_layers() -> Model:
    """Two int8 layers with int32 accumulators, requantised by an integer shift: exact throughout.

    No float occurs before the last line, so two honest devices agree bit for bit.
    """
    rng = np.random.default_rng(2)
    params = {
        "up": jnp.asarray(rng.integers(-127, 128, (WIDTH, 512)), jnp.int8),
        "down": jnp.asarray(rng.integers(-127, 128, (512, WIDTH)), jnp.int8),
        "scale": jnp.asarray(rng.uniform(1e-5, 2e-5, WIDTH), jnp.float32),
    }

    def fn(params: Any, x: jax.Array) -> jax.Array:
        h = lax.dot(x, params["up"], preferred_element_type=jnp.int32)
        h = jnp.clip(h >> 10, 0, 127).astype(jnp.int8)
        y = lax.dot(h, params["down"], preferred_element_type=jnp.int32)
        return y.astype(jnp.float32) * params["scale"]

    x = np.random.default_rng(1).integers(-127, 128, (96, WIDTH))
    return fn, params, (jnp.asarray(x, jnp.int8),)


def int8_dynamic() -> Model:
    """An int8 layer whose activations are rounded from floats, many of them halfway between two
    integers up to rounding."""
    rng = np.random.default_rng(2)
    low = rng.uniform(0.1, 0.4, WIDTH).astype(np.float32)
    params = {
        "embed": jnp.asarray(rng.integers(-1, 2, (WIDTH, WIDTH)), jnp.float32),
        "split": jnp.asarray(np.stack([low, np.float32(0.5) - low])),
        "w": jnp.asarray(rng.integers(-127, 128, (WIDTH, 512)), jnp.int8),
        "scale": jnp.asarray(rng.uniform(1e-3, 2e-3, 512), jnp.float32),
    }

    def fn(params: Any, x: jax.Array) -> jax.Array:
        h = x @ params["embed"]
        h = h * params["split"][0] + h * params["split"][1]
        q = jnp.clip(jnp.round(h), -127, 127).astype(jnp.int8)
        y = lax.dot(q, params["w"], preferred_element_type=jnp.int32)
        return y.astype(jnp.float32) * params["scale"]

    x = np.random.default_rng(1).integers(-8, 9, (96, WIDTH))
    return fn, params, (jnp.asarray(x, jnp.float32),)


CONTINUOUS: dict[str, Callable[[], Model]] = {
    f.__name__: f
    for f in (
        nnx_mlp,
        nnx_cnn,
        nnx_transformer,
        nnx_scan,
        linen_mlp,
        linen_cnn,
        linen_transformer,
        linen_scan,
        eqx_mlp,
        eqx_cnn,
        eqx_transformer,
        eqx_scan,
        int8_layers,
    )
}
DISCONTINUOUS: dict[str, Callable[[], Model]] = {
    f.__name__: f for f in (near_tie_argmax, expert_routing)
}
