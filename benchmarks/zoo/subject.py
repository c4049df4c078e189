"""What the benchmark of verdicts runs: a function, its parameters, and a source of inputs.

Parameters are drawn like trained ones: no scale is 1, no bias is 0, and matrices keep the size of
what they are applied to. Widths are small, but large enough that testing a contraction with 16
draws costs less than the contraction, so that every program has claims.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

Inputs = tuple[Any, ...]
# What a cheat runs in place of the parameters and inputs of the job.
Replace = Callable[[Any, Inputs], tuple[Any, Inputs]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model or program.

    Attributes:
      fn: `fn(params, *inputs)`.
      params: its parameters; repeated blocks are under the key "layers".
      draw: makes inputs from a random generator; always of the same shapes and dtypes.
      cheats: those that only this program has, by name.
    """

    fn: Callable[..., Any]
    params: Any = field(repr=False)
    draw: Callable[[np.random.Generator], Inputs]
    cheats: Mapping[str, Replace] = field(default_factory=dict[str, Replace])


class Weights:
    """A source of parameters, float32 unless told otherwise."""

    def __init__(self, seed: int, dtype: Any = jnp.float32):
        """Draw from this seed, in this type."""
        self._rng = np.random.default_rng(seed)
        self._dtype = dtype

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        """Normal values with mean zero."""
        return jnp.asarray(scale * self._rng.standard_normal(shape), self._dtype)

    def matrix(self, *shape: int) -> Array:
        """(..., in, out), of variance 1 / in."""
        return self.normal(*shape, scale=1 / math.sqrt(shape[-2]))

    def kernel(self, *shape: int) -> Array:
        """(taps..., in, out) of a convolution, of variance 1 / (taps in)."""
        return self.normal(*shape, scale=1 / math.sqrt(math.prod(shape[:-1])))

    def vector(self, *shape: int, around: float = 0.0) -> Array:
        """Values near a number: biases near 0, scales near 1."""
        return jnp.asarray(around + 0.1 * self._rng.standard_normal(shape), self._dtype)

    def dense(self, inputs: int, outputs: int, *stack: int) -> dict[str, Array]:
        """A linear layer, or a stack of them."""
        return {"w": self.matrix(*stack, inputs, outputs), "b": self.vector(*stack, outputs)}

    def norm(self, width: int, *stack: int) -> dict[str, Array]:
        """Scale and bias of a normalisation."""
        return {"scale": self.vector(*stack, width, around=1.0), "bias": self.vector(*stack, width)}

    def moments(self, width: int) -> dict[str, Array]:
        """Running mean and variance of a batch norm."""
        return {"mean": self.vector(width), "variance": jnp.abs(self.vector(width, around=1.0))}


def normals(*shape: int) -> Callable[[np.random.Generator], Inputs]:
    """A source of one normal float32 input."""
    return lambda rng: (jnp.asarray(rng.standard_normal(shape), jnp.float32),)


def integers(high: int, *shape: int) -> Callable[[np.random.Generator], Inputs]:
    """A source of one input of int32 below `high`, such as token ids."""
    return lambda rng: (jnp.asarray(rng.integers(0, high, shape), jnp.int32),)
