"""Models of images: convolutional networks, transformers of patches, and those that make images."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.zoo import layers as nn
from benchmarks.zoo.subject import Inputs, Subject, Weights, normals

SIDE, WIDE, PATCH, WIDTH, HEADS = 16, 32, 4, 64, 4
PIXELS = normals(2, SIDE, SIDE, 3)


def _unit(w: Weights, inputs: int, outputs: int, taps: int = 3) -> dict[str, Any]:
    """A convolution and the batch norm after it."""
    norm = {**w.norm(outputs), **w.moments(outputs)}
    return {"kernel": w.kernel(taps, taps, inputs, outputs), "norm": norm}


def _apply(p: Any, x: Array, act: Any = jax.nn.relu, **options: Any) -> Array:
    return act(nn.batch_norm(p["norm"], nn.conv(x, p["kernel"], **options)))


def _same(x: Array) -> Array:
    return x


def resnet() -> Subject:
    """Residual blocks with batch norm, one of stride 2 with a projected shortcut."""
    w = Weights(21)
    params = {
        "stem": _unit(w, 3, WIDE),
        "layers": [
            {"one": _unit(w, WIDE, WIDE), "two": _unit(w, WIDE, WIDE)},
            {"one": _unit(w, WIDE, 64), "two": _unit(w, 64, 64), "short": _unit(w, WIDE, 64, 1)},
        ],
        "head": w.dense(64, 64),
    }

    def fn(p: Any, x: Array) -> Array:
        x = nn.pool(_apply(p["stem"], x))
        for layer in p["layers"]:
            stride = 2 if "short" in layer else 1
            y = _apply(layer["two"], _apply(layer["one"], x, stride=stride), _same)
            x = _apply(layer["short"], x, _same, stride=stride) if "short" in layer else x
            x = jax.nn.relu(x + y)
        return nn.dense(p["head"], x.mean((1, 2)))

    return Subject(fn=fn, params=params, draw=PIXELS)


def mobilenet() -> Subject:
    """Depthwise and pointwise convolutions, hard swish, squeeze and excitation."""
    w = Weights(22)

    def block(width: int) -> dict[str, Any]:
        return {
            "expand": _unit(w, width, 4 * width, 1),
            "depth": {**_unit(w, 1, 4 * width), "kernel": w.kernel(3, 3, 1, 4 * width)},
            "squeeze": w.dense(4 * width, width),
            "excite": w.dense(width, 4 * width),
            "project": _unit(w, 4 * width, width, 1),
        }

    params = {
        "stem": _unit(w, 3, WIDE),
        "layers": [block(WIDE), block(WIDE)],
        "head": w.dense(WIDE, 16),
    }

    def fn(p: Any, x: Array) -> Array:
        x = _apply(p["stem"], x, jax.nn.hard_swish, stride=2)
        for layer in p["layers"]:
            y = _apply(layer["expand"], x, jax.nn.hard_swish)
            y = _apply(layer["depth"], y, jax.nn.hard_swish, groups=y.shape[-1])
            gate = jax.nn.relu(nn.dense(layer["squeeze"], y.mean((1, 2))))
            y = y * jax.nn.hard_sigmoid(nn.dense(layer["excite"], gate))[:, None, None]
            x = x + _apply(layer["project"], y, _same)
        return jax.nn.softmax(nn.dense(p["head"], x.mean((1, 2))))

    return Subject(fn=fn, params=params, draw=PIXELS)


def convnext() -> Subject:
    """Depthwise 7x7 convolutions, layer norms, GELU, scaled residuals."""
    w = Weights(23)
    params = {
        "stem": w.kernel(2, 2, 3, WIDTH),
        "layers": [
            {
                "depth": w.kernel(7, 7, 1, WIDTH),
                "norm": w.norm(WIDTH),
                "mlp": nn.mlp_weights(w, WIDTH, 4 * WIDTH),
                "scale": w.vector(WIDTH, around=0.5),
            }
            for _ in range(2)
        ],
        "head": w.dense(WIDTH, 64),
    }

    def fn(p: Any, x: Array) -> Array:
        x = nn.conv(x, p["stem"], stride=2)
        for layer in p["layers"]:
            y = nn.layer_norm(layer["norm"], nn.conv(x, layer["depth"], groups=WIDTH), 1e-6)
            x = x + layer["scale"] * nn.mlp(layer["mlp"], y)
        return nn.dense(p["head"], x.mean((1, 2)))

    return Subject(fn=fn, params=params, draw=PIXELS)


def densenet() -> Subject:
    """Every layer reads all earlier ones."""
    w, growth = Weights(24), 16
    params = {
        "stem": _unit(w, 3, WIDE),
        "layers": [_unit(w, WIDE + growth * i, growth) for i in range(3)],
        "head": w.dense(WIDE + 3 * growth, 64),
    }

    def fn(p: Any, x: Array) -> Array:
        x = _apply(p["stem"], x, stride=2)
        for layer in p["layers"]:
            x = jnp.concatenate([x, _apply(layer, x)], -1)
        return nn.dense(p["head"], x.mean((1, 2)))

    return Subject(fn=fn, params=params, draw=PIXELS)


def _unet_weights(w: Weights, inputs: int) -> dict[str, Any]:
    return {
        "stem": w.kernel(3, 3, inputs, WIDE),
        "layers": [
            {"norm": w.norm(WIDE), "kernel": w.kernel(3, 3, WIDE, 64)},
            {"norm": w.norm(64), "kernel": w.kernel(3, 3, 64, 64)},
        ],
        "up": w.kernel(2, 2, 64, WIDE),
        "norm": w.norm(2 * WIDE),
        "head": w.kernel(3, 3, 2 * WIDE, 3),
    }


def _unet(p: Any, x: Array, shift: Array | None = None) -> Array:
    x = nn.conv(x, p["stem"])
    down, middle = p["layers"]
    y = jax.nn.silu(nn.group_norm(down["norm"], x, 8))
    y = nn.conv(y, down["kernel"], stride=2)
    if shift is not None:
        y = y + shift[:, None, None]
    y = y + nn.conv(jax.nn.silu(nn.group_norm(middle["norm"], y, 8)), middle["kernel"])
    y = lax.conv_transpose(y, p["up"], (2, 2), "SAME")
    y = nn.group_norm(p["norm"], jnp.concatenate([x, y], -1), 8)
    return nn.conv(jax.nn.silu(y), p["head"])


def unet() -> Subject:
    """Down, up by a transposed convolution, and across; group norms; a class for every pixel."""

    def fn(p: Any, x: Array) -> tuple[Array, Array]:
        logits = _unet(p, x)
        return jnp.argmax(logits, -1), jax.nn.log_softmax(logits)

    return Subject(fn=fn, params=_unet_weights(Weights(25), 3), draw=PIXELS)


def diffusion() -> Subject:
    """One step of DDIM: time embedding, U-Net, and the update of the image."""
    w = Weights(26)
    params = {**_unet_weights(w, 3), "time": nn.mlp_weights(w, 64, 128)}
    kept = jnp.asarray(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)), jnp.float32)

    def fn(p: Any, x: Array, t: Array) -> Array:
        noise = _unet(p, x, nn.mlp(p["time"], nn.timesteps(t, 64), jax.nn.silu))
        now, then = (kept[jnp.maximum(i, 0)][:, None, None, None] for i in (t, t - 20))
        image = (x - jnp.sqrt(1 - now) * noise) / jnp.sqrt(now)
        return jnp.sqrt(then) * jnp.clip(image, -3, 3) + jnp.sqrt(1 - then) * noise

    def draw(rng: np.random.Generator) -> Inputs:
        return *PIXELS(rng), jnp.asarray(rng.integers(20, 1000, 2), jnp.int32)

    return Subject(fn=fn, params=params, draw=draw)


def _patches(x: Array) -> Array:
    n, cells = x.shape[0], SIDE // PATCH
    x = x.reshape(n, cells, PATCH, cells, PATCH, 3)
    return jnp.swapaxes(x, 2, 3).reshape(n, cells * cells, PATCH * PATCH * 3)


def _patch_weights(w: Weights) -> dict[str, Any]:
    return {"patch": w.dense(PATCH * PATCH * 3, WIDTH), "head": w.dense(WIDTH, 64)}


def vit() -> Subject:
    """A transformer of patches with a class token."""
    w = Weights(27)
    params = {
        **_patch_weights(w),
        "token": w.normal(1, 1, WIDTH),
        "positions": w.normal((SIDE // PATCH) ** 2 + 1, WIDTH, scale=0.2),
        "layers": [nn.block_weights(w, WIDTH) for _ in range(2)],
        "norm": w.norm(WIDTH),
    }

    def fn(p: Any, x: Array) -> Array:
        x = nn.dense(p["patch"], _patches(x))
        token = jnp.broadcast_to(p["token"], (x.shape[0], 1, WIDTH))
        x = jnp.concatenate([token, x], 1) + p["positions"]
        for layer in p["layers"]:
            x = nn.block(layer, x, HEADS)
        return nn.dense(p["head"], nn.layer_norm(p["norm"], x[:, 0]))

    return Subject(fn=fn, params=params, draw=PIXELS)


def swin() -> Subject:
    """Attention in windows, the second layer's windows shifted by half."""
    w = Weights(28)
    params = {**_patch_weights(w), "layers": [nn.block_weights(w, WIDTH) for _ in range(2)]}
    cells = SIDE // PATCH

    def fn(p: Any, x: Array) -> Array:
        x = nn.dense(p["patch"], _patches(x)).reshape(-1, cells, cells, WIDTH)
        for i, layer in enumerate(p["layers"]):
            x = jnp.roll(x, (-i, -i), (1, 2))
            windows = jnp.swapaxes(x.reshape(-1, 2, 2, 2, 2, WIDTH), 2, 3).reshape(-1, 4, WIDTH)
            mixed = nn.block(layer, windows, HEADS).reshape(-1, 2, 2, 2, 2, WIDTH)
            x = jnp.roll(jnp.swapaxes(mixed, 2, 3).reshape(x.shape), (i, i), (1, 2))
        return nn.dense(p["head"], x.mean((1, 2)))

    return Subject(fn=fn, params=params, draw=PIXELS)


def mlp_mixer() -> Subject:
    """MLPs over patches and over features, in turn."""
    w, cells = Weights(29), (SIDE // PATCH) ** 2
    params = {
        **_patch_weights(w),
        "layers": [
            {
                "first": w.norm(WIDTH),
                "tokens": nn.mlp_weights(w, cells, 128),
                "second": w.norm(WIDTH),
                "mlp": nn.mlp_weights(w, WIDTH, 4 * WIDTH),
            }
            for _ in range(2)
        ],
    }

    def fn(p: Any, x: Array) -> Array:
        x = nn.dense(p["patch"], _patches(x))
        for layer in p["layers"]:
            turned = jnp.swapaxes(nn.layer_norm(layer["first"], x), 1, 2)
            x = x + jnp.swapaxes(nn.mlp(layer["tokens"], turned), 1, 2)
            x = x + nn.mlp(layer["mlp"], nn.layer_norm(layer["second"], x))
        return nn.dense(p["head"], x.mean(1))

    return Subject(fn=fn, params=params, draw=PIXELS)


def vae() -> Subject:
    """Encode, sample with given noise, decode; also the evidence bound."""
    w, latent = Weights(30), 64
    params = {
        "layers": [w.kernel(3, 3, 3, WIDE), w.kernel(3, 3, WIDE, WIDE)],
        "to": w.dense(WIDE * 16, 2 * latent),
        "from": w.dense(latent, WIDE * 16),
        "ups": [w.kernel(3, 3, WIDE, WIDE), w.kernel(3, 3, WIDE, 3)],
    }

    def fn(p: Any, x: Array, noise: Array) -> tuple[Array, Array]:
        h = x
        for kernel in p["layers"]:
            h = jax.nn.elu(nn.conv(h, kernel, stride=2))
        mean, log_variance = jnp.split(nn.dense(p["to"], h.reshape(h.shape[0], -1)), 2, -1)
        z = mean + jnp.exp(0.5 * log_variance) * noise
        h = jax.nn.elu(nn.dense(p["from"], z)).reshape(-1, 4, 4, WIDE)
        h = jax.nn.elu(lax.conv_transpose(h, p["ups"][0], (2, 2), "SAME"))
        image = jax.nn.sigmoid(lax.conv_transpose(h, p["ups"][1], (2, 2), "SAME"))
        divergence = jnp.exp(log_variance) + mean**2 - 1 - log_variance
        return image, 0.5 * jnp.sum(divergence, -1)

    def draw(rng: np.random.Generator) -> Inputs:
        return *PIXELS(rng), jnp.asarray(rng.standard_normal((2, latent)), jnp.float32)

    return Subject(fn=fn, params=params, draw=draw)


def super_resolution() -> Subject:
    """Bilinear enlargement plus a correction, by convolutions and a pixel shuffle."""
    w = Weights(31)
    params = {
        "layers": [w.kernel(5, 5, 3, WIDE), w.kernel(3, 3, WIDE, WIDE)],
        "last": w.kernel(3, 3, WIDE, 12),
    }

    def fn(p: Any, x: Array) -> Array:
        h = x
        for kernel in p["layers"]:
            h = jnp.tanh(nn.conv(h, kernel))
        n, side = x.shape[0], 2 * SIDE
        h = nn.conv(h, p["last"]).reshape(n, SIDE, SIDE, 2, 2, 3)
        h = jnp.swapaxes(h, 2, 3).reshape(n, side, side, 3)
        return h + jax.image.resize(x, (n, side, side, 3), "bilinear")

    return Subject(fn=fn, params=params, draw=PIXELS)


def style_transfer() -> Subject:
    """Instance norms around residual convolutions."""
    w = Weights(32)
    params = {
        "stem": w.kernel(3, 3, 3, WIDE),
        "layers": [{"kernel": w.kernel(3, 3, WIDE, WIDE), "norm": w.norm(WIDE)} for _ in range(2)],
        "last": w.kernel(3, 3, WIDE, 3),
    }

    def fn(p: Any, x: Array) -> Array:
        x = jax.nn.relu(nn.conv(x, p["stem"]))
        for layer in p["layers"]:
            x = x + nn.group_norm(layer["norm"], nn.conv(x, layer["kernel"]), WIDE)
        return jax.nn.sigmoid(nn.conv(x, p["last"]))

    return Subject(fn=fn, params=params, draw=PIXELS)


def detector() -> Subject:
    """Boxes and scores of every cell, and the best ten cells."""
    w = Weights(33)
    params = {
        "layers": [_unit(w, 3, WIDE), _unit(w, WIDE, 64)],
        "boxes": w.dense(64, 64),
        "classes": w.dense(64, 64),
    }

    def fn(p: Any, x: Array) -> tuple[Array, Array, Array]:
        for layer in p["layers"]:
            x = _apply(layer, x, jax.nn.silu, stride=2)
        cells = x.reshape(x.shape[0], -1, 64)
        scores = jax.nn.sigmoid(nn.dense(p["classes"], cells)).max(-1)
        best, where = lax.top_k(scores, 10)
        boxes = jnp.exp(0.2 * nn.dense(p["boxes"], cells))
        return best, where, jnp.take_along_axis(boxes, where[..., None], 1)

    return Subject(fn=fn, params=params, draw=PIXELS)


def segmentation() -> Subject:
    """Dilated convolutions and pooled context; the class of every pixel."""
    w = Weights(34)
    params = {
        "stem": _unit(w, 3, WIDE),
        "layers": [_unit(w, WIDE, WIDE) for _ in range(3)],
        "head": w.dense(4 * WIDE, 16),
    }

    def fn(p: Any, x: Array) -> Array:
        x = _apply(p["stem"], x)
        found = [_apply(layer, x, dilation=2**i) for i, layer in enumerate(p["layers"])]
        context = jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
        logits = nn.dense(p["head"], jnp.concatenate([*found, context], -1))
        return jnp.argmax(logits, -1).astype(jnp.int32)

    return Subject(fn=fn, params=params, draw=PIXELS)


MODELS = (
    resnet,
    mobilenet,
    convnext,
    densenet,
    unet,
    diffusion,
    vit,
    swin,
    mlp_mixer,
    vae,
    super_resolution,
    style_transfer,
    detector,
    segmentation,
)
