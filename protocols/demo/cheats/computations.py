"""Another computation: a device runs cheaper weights or another input in full, and commits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from protocols.demo.devices import DemoJob, Run
from protocols.demo.models import Encoder, Tokens
from protocols.demo.models.precision import Params, map_kernels
from verifiable.testing import parameters

Array: TypeAlias = "np.ndarray[Any, Any]"


def with_kernels(change: Callable[[str, Array], Array]) -> Run:
    """Return a device that runs kernels changed by `change(path, kernel)`."""
    return lambda job: job.run(params=kernels(job.model, change))


def with_params(change: Callable[[Encoder], Params]) -> Run:
    """Return a device that runs other parameters of the same shapes."""
    return lambda job: job.run(params=change(job.model))


def with_inputs(change: Callable[[DemoJob], Tokens]) -> Run:
    """Return a device that runs another input of the same shape."""
    return lambda job: job.run(inputs=change(job))


def kernels(model: Encoder, change: Callable[[str, Array], Array]) -> Params:
    """Apply `change(path, kernel)` to every trained kernel, then prepare them for the model."""
    return model.prepare(
        map_kernels(model.trained, lambda name, k: jnp.asarray(change(name, np.asarray(k))))
    )


def int4(name: str, kernel: Array) -> Array:
    """Round to 4-bit integers with one scale per 32 weights, as on-device runtimes do."""
    return parameters.rounded(kernel, 7, 32)


def float16(name: str, kernel: Array) -> Array:
    """Keep 11 significant bits of every weight: half the memory, often twice the speed."""
    return np.asarray(parameters.float16(kernel))


def float8(name: str, kernel: Array) -> Array:
    """Keep 4 significant bits of every weight: half the memory of bfloat16."""
    return np.asarray(parameters.float8(kernel))


def before_fine_tuning(name: str, kernel: Array) -> Array:
    """Use last week's weights: off by a rank-one update of one percent of their norm."""
    return parameters.older(kernel, len(name))


def without_last_layer(model: Encoder) -> Params:
    """Set the kernels of the last layer to zero, which leaves nothing to compute in it."""
    last = f"layer{model.layers - 1}/"
    return kernels(model, lambda name, kernel: kernel * (not name.startswith(last)))


def scaled(model: Encoder) -> Params:
    """Make activations a thousand times too large, to enlarge a tolerance relative to them."""
    target = "layer0/mlp/up/kernel"
    return kernels(model, lambda name, kernel: kernel * np.float32(1000 if name == target else 1))


def permuted_heads(model: Encoder) -> Params:
    """Give the queries of each attention head to the next head: the same values, reordered."""

    def roll(name: str, kernel: Array) -> Array:
        if not name.endswith("query/kernel"):
            return kernel
        heads = kernel.reshape(kernel.shape[0], model.heads, -1)
        return np.roll(heads, 1, axis=1).reshape(kernel.shape)

    return kernels(model, roll)


def another_model(model: Encoder) -> Params:
    """Draw random weights with the mean and spread of the right ones, array by array."""
    rng = np.random.default_rng(1)

    def redraw(leaf: Any) -> Any:
        right = np.asarray(leaf)
        noise = rng.standard_normal(right.shape, dtype=np.float32)
        return jnp.asarray(noise * right.std() + right.mean())

    return model.prepare(jax.tree.map(redraw, model.trained))


def another_user(job: DemoJob) -> Tokens:
    """Answer another user's question, whose answer is already computed."""
    for text in ("Please book a table for two at eight tonight.", "What does it cost to fly home?"):
        ids, mask = (np.zeros_like(part) for part in job.inputs)
        for part, other in zip((ids, mask), job.model.tokenize([text]), strict=True):
            length = min(part.shape[1], other.shape[1])
            part[:, :length] = other[:, :length]
        if not (np.array_equal(ids, job.inputs[0]) and np.array_equal(mask, job.inputs[1])):
            return ids, mask
    raise ValueError("every other user has asked the same: there is no other input to run")


def swapped_tokens(job: DemoJob) -> Tokens:
    """Move every token by one position, within its text."""
    ids, mask = job.inputs
    rolled = ids.copy()
    for row, length in zip(rolled, mask.sum(axis=1), strict=True):
        row[:length] = np.roll(row[:length], 1)
    return rolled, mask


def truncated(job: DemoJob) -> Tokens:
    """Read the first half of each text only: attention costs a quarter."""
    ids, mask = job.inputs
    kept = (np.arange(mask.shape[1]) < mask.sum(axis=1, keepdims=True) // 2).astype(mask.dtype)
    return ids * kept, kept
