"""Networks of six layers, one for each function that compares floats, or is made of comparisons."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import xlogy

from benchmarks.zoo import layers as nn
from benchmarks.zoo.subject import Subject, Weights, normals

ROWS, WIDTH, LAYERS = 32, 64, 6

Activation = Callable[[Array], Array]

ACTIVATIONS: dict[str, Activation] = {
    "leaky-relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "softplus": jax.nn.softplus,
    "mish": jax.nn.mish,
    "log-sigmoid": jax.nn.log_sigmoid,
    "logaddexp": lambda h: jnp.logaddexp(h, -h),
    "hard-tanh": jax.nn.hard_tanh,
    "nan-to-num": jnp.nan_to_num,
    "sinc": jnp.sinc,
    "hypot": lambda h: jnp.hypot(h, jnp.roll(h, 1, -1)),
    "median": lambda h: jnp.abs(h - jnp.median(h, -1, keepdims=True)),
    "quantile": lambda h: jnp.abs(h - jnp.quantile(h, 0.3, -1, keepdims=True)),
    "xlogy": lambda h: xlogy(h, 1 + h * h),
    "where": lambda h: jnp.where(h > 0, h, 0.1 * h),
}


def network(seed: int, act: Activation) -> Subject:
    """Six residual layers and a head."""
    w = Weights(seed)
    params = {
        "layers": [w.dense(WIDTH, WIDTH) for _ in range(LAYERS)],
        "head": w.dense(WIDTH, WIDTH),
    }

    def fn(p: Any, x: Array) -> Array:
        for layer in p["layers"]:
            x = x + act(nn.dense(layer, x))
        return nn.dense(p["head"], x)

    return Subject(fn=fn, params=params, draw=normals(ROWS, WIDTH))


NETWORKS: dict[str, Callable[[], Subject]] = {
    name: functools.partial(network, 151 + i, act)
    for i, (name, act) in enumerate(ACTIVATIONS.items())
}
