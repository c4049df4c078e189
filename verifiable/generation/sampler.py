"""How a token is picked from logits, as a pure function, each step of which can be verified.

    z = logits, with a repetition penalty of r: min(z r, z / r) where the token was there before
    z = z / temperature
    the candidates: the `top_k` largest z, in order
      of which `top_p` keeps those before which less than this probability stands, and
      `min_p` those with at least this part of the probability of the first
    token = the candidate with the largest z + g

This is a sample of the softmax over the candidates if g is Gumbel noise. The noise follows from
the job's seed (`noise`), or from a threefry key as in `jax.random.categorical`, so nothing can be
drawn again. Without a temperature the token is the argmax of z.

With `top_k` or `top_p`, the device commits to each position's candidates, in order. Nothing of the
size of the vocabulary is then compared, and the shares of probability are sums over candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from verifiable.errors import require_bytes32
from verifiable.generation import noise

SCOPE = "pick_token"
"""Name scope of the equations that pick."""

Inputs = Mapping[str, Any]
NUMBERS = ("repetition_penalty", "temperature", "top_p", "min_p")
THREEFRY_KEY_BYTES = 8  # two 32-bit words


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """How tokens are picked; greedy without arguments.

    Which of these are given, and `top_k`, belong to the program. The other numbers belong to the
    job: jobs with another temperature use the same program and key.

    Attributes:
      temperature: divides the logits; without it, the likeliest token is picked.
      top_k: how many of the largest logits are candidates.
      top_p: the candidates are the fewest that have this probability together; between 0 and 1.
        Without `top_k` the whole vocabulary is put in order, which costs a device and the trace
        much.
      min_p: candidates have at least this part of the largest probability; between 0 and 1.
      repetition_penalty: at least 1; a positive logit of a token that was there before, in prompt
        or completion, is divided by it, another one multiplied.
      source: where the noise comes from: `blake3` (`noise.gumbel`) or `threefry`, which is
        `jax.random.categorical(jax.random.fold_in(key, position), z)`.

    Raises:
      TypeError: `top_k` is no integer, or another attribute no number.
      ValueError: a number is out of range, or candidates are asked for without a temperature.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    source: Literal["blake3", "threefry"] = "blake3"

    def __post_init__(self) -> None:
        """Require numbers within their ranges, in float32 too."""
        for name in NUMBERS:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, got {type(value).__name__}")
            low, high = _RANGES[name]
            # Far beyond the range, numpy would warn that float32 overflows.
            if not (abs(value) <= 2 * high and low <= np.float32(value) <= high):
                raise ValueError(f"{name} must be between {low} and {high}, got {value}")
        if self.top_k is not None:
            if type(self.top_k) is not int:
                raise TypeError(f"top_k must be an int, got {type(self.top_k).__name__}")
            if self.top_k < 1:
                raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.source not in ("blake3", "threefry"):
            raise ValueError(f"source must be 'blake3' or 'threefry', got {self.source!r}")
        if self.greedy and any(x is not None for x in (self.top_k, self.top_p, self.min_p)):
            raise ValueError("top_k, top_p and min_p need a temperature: without, nothing is drawn")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is picked."""
        return self.temperature is None

    @property
    def seed_bytes(self) -> int:
        """Length of a job's seed: 32 for BLAKE3, 8 for threefry."""
        return noise.SEED_BYTES if self.source == "blake3" else THREEFRY_KEY_BYTES

    @property
    def structure(self) -> tuple[Any, ...]:
        """What the program depends on."""
        given = (f.name for f in fields(self) if getattr(self, f.name) is not None)
        return (tuple(given), self.top_k, self.source)

    def require_seed(self, seed: bytes) -> None:
        """Require the bytes that the noise is made from: 32, or 8 for threefry.

        Raises:
          TypeError: the seed is not bytes.
          ValueError: the seed has another length.
        """
        if self.source == "blake3":
            require_bytes32("the seed of a job", seed)
        elif type(seed) is not bytes or len(seed) != THREEFRY_KEY_BYTES:
            raise ValueError("the seed of a threefry key has 8 bytes: the words of its key data")

    def inputs(
        self,
        seed: bytes,
        positions: int,
        vocabulary: int,
        *,
        places: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """The job's inputs of `pick`: numbers and noise. Each side makes its own.

        Args:
          seed: 32 bytes; 8 for threefry, the two words of its key data, big-endian.
          positions: rows of the logits.
          vocabulary: columns of the logits.
          places: numbers of the positions that need noise, in the order of the rows, of which those
            after them get zeros; from zero by default.

        Raises:
          TypeError: as `require_seed`.
          ValueError: as `require_seed`.
        """
        self.require_seed(seed)
        given: dict[str, Any] = {
            name: np.float32(getattr(self, name))
            for name in NUMBERS
            if getattr(self, name) is not None
        }
        if self.greedy:
            return given
        if self.source == "threefry":
            return given | {"key": np.frombuffer(seed, ">u4").astype(np.uint32)}
        made = np.zeros((positions, vocabulary), np.float32)
        for row, place in enumerate(range(positions) if places is None else places):
            made[row] = noise.gumbel(seed, 1, vocabulary, start=place)[0]
        return given | {"noise": made}

    def pick(
        self,
        logits: Float[Array, "positions vocabulary"],
        inputs: Inputs,
        *,
        places: Int32[Array, " positions"] | None = None,
        seen: Bool[Array, "positions vocabulary"] | None = None,
    ) -> Int32[Array, " positions"]:
        """The token of each position; pure.

        Args:
          logits: of any type of floats; used in float32.
          inputs: from `inputs`, for these positions.
          places: numbers of the positions, from zero by default; a key of threefry draws by them.
          seen: whether a token was there before a position; needed for a repetition penalty.

        Raises:
          ValueError: a repetition penalty without `seen`.
        """
        with jax.named_scope(SCOPE):
            return self._picked(logits.astype(jnp.float32), inputs, places, seen)

    def _picked(self, z: Any, inputs: Inputs, places: Any, seen: Any) -> Any:
        rows, vocabulary = z.shape
        if self.repetition_penalty is not None:
            if seen is None:
                raise ValueError("a repetition penalty needs `seen`: which tokens were there")
            penalty = inputs["repetition_penalty"]
            # Continuous, unlike a comparison of the logit with zero.
            z = jnp.where(seen, jnp.minimum(z * penalty, z / penalty), z)
        if self.greedy:
            return jnp.argmax(z, axis=-1).astype(jnp.int32)
        z = z / inputs["temperature"]
        places = jnp.arange(rows, dtype=jnp.int32) if places is None else places
        g = self._noise(inputs, places, vocabulary)
        index = None
        if self.top_k is not None or self.top_p is not None:
            _, index = lax.top_k(z, min(self.top_k or vocabulary, vocabulary))
            z, g = (_at(x, index) for x in (z, g))
        kept = self._kept(z, inputs)
        score = z + g if kept is None else jnp.where(kept, z + g, -jnp.inf)
        best = jnp.argmax(score, axis=-1).astype(jnp.int32)
        return best if index is None else _at(index, best[:, None])[:, 0].astype(jnp.int32)

    def _noise(self, inputs: Inputs, places: Any, vocabulary: int) -> Any:
        if self.source == "blake3":
            return inputs["noise"]
        key = jax.random.wrap_key_data(jnp.asarray(inputs["key"]), impl="threefry2x32")

        def row(position: Any) -> Any:
            return jax.random.gumbel(jax.random.fold_in(key, position), (vocabulary,), jnp.float32)

        return jax.vmap(row)(places)

    def _kept(self, z: Any, inputs: Inputs) -> Any:
        """Which candidates are kept, or None if all are; with `top_p`, they are in order."""
        kept = None
        if self.top_p is not None:
            likely = jax.nn.softmax(z, axis=-1)
            before = jnp.cumsum(likely, axis=-1) - likely  # exactly zero for the first
            kept = before < inputs["top_p"]
        if self.min_p is not None:
            share = jnp.exp(z - jnp.max(z, axis=-1, keepdims=True))
            enough = share >= inputs["min_p"]
            kept = enough if kept is None else kept & enough
        return kept


def _at(values: Any, index: Any) -> Any:
    return jnp.take_along_axis(values, index, axis=-1, mode="promise_in_bounds")


_RANGES = {
    "repetition_penalty": (1.0, 2.0**10),
    "temperature": (2.0**-10, 2.0**10),
    "top_p": (2.0**-10, 1 - 2.0**-20),
    "min_p": (2.0**-20, 1.0),
}
