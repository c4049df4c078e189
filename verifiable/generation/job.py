"""What a coordinator asks for, and whether what came back has the form of an answer."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from verifiable.errors import require_type
from verifiable.generation.sampler import Sampler


class TextFault(NamedTuple):
    """What is wrong with a completion before any model is asked.

    Attributes:
      reason: a code of `TEXT_REASONS`.
      message: what was expected and what came.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationJob:
    """A text to be generated; the coordinator's own. Made by `Generation.job`.

    Attributes:
      prompt: token ids, at least one.
      limit: the most tokens of the completion. A shorter one must end with a stop token.
      sampler: how tokens are picked.
      seed: for the noise: 32 bytes, or 8 for threefry. Whoever knows it before the job is fixed can
        choose among texts: the coordinator draws it and gives each job its own.

    Raises:
      TypeError: prompt, limit, sampler or seed are of another type.
      ValueError: the prompt is empty or has a negative id, the limit is below one, or the seed has
        another length.
    """

    prompt: tuple[int, ...]
    limit: int
    sampler: Sampler
    seed: bytes

    def __post_init__(self) -> None:
        """Require token ids, a limit and a seed."""
        if type(self.prompt) is not tuple or any(type(t) is not int for t in self.prompt):
            raise TypeError("prompt must be a tuple of ints, the token ids")
        if not self.prompt or min(self.prompt) < 0:
            raise ValueError("a prompt has at least one token, and no negative ids")
        if type(self.limit) is not int:
            raise TypeError(f"limit must be an int, got {type(self.limit).__name__}")
        if self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")
        require_type("sampler", self.sampler, Sampler)
        self.sampler.require_seed(self.seed)


def fresh_seed(sampler: Sampler) -> bytes:
    """A seed from the operating system's entropy."""
    return os.urandom(sampler.seed_bytes)


def token_ids(value: Any, most: int) -> tuple[int, ...] | TextFault:
    """The token ids of a sequence of integers.

    Args:
      value: any object; a list or tuple of integers, or an array of one axis, is read.
      most: how many it may hold.
    """
    if type(value) not in (list, tuple):
        try:
            array = np.asarray(value) if isinstance(value, np.ndarray | jax.Array) else None
        except Exception:  # an object of a device may do anything
            array = None
        if array is None or array.ndim != 1 or array.dtype.kind not in "iu":
            return TextFault(
                "text-structure",
                f"expected a list of token ids, got {type(value).__name__} that holds none",
            )
        value = array[: most + 1].tolist()
    if len(value) > most:
        return TextFault("text-length", f"the job allows {most} tokens")
    if not all(type(t) is int or isinstance(t, np.integer) for t in value):
        return TextFault("text-structure", "every token id must be an integer")
    return tuple(int(t) for t in value)


def fault_of(
    tokens: tuple[int, ...], job: GenerationJob, stop: Collection[int], vocabulary: int
) -> TextFault | None:
    """What is wrong with a completion, whatever the model is; None if nothing is.

    Args:
      tokens: no more than the job's limit.
      job: the job that it answers.
      stop: token ids after which nothing follows.
      vocabulary: how many token ids there are.
    """
    if not tokens:
        return TextFault("text-empty", "a completion has at least one token")
    outside = [i for i, t in enumerate(tokens) if not 0 <= t < vocabulary]
    if outside:
        i = outside[0]
        return TextFault(
            "text-range", f"token {i} is {tokens[i]}, the vocabulary has {vocabulary} tokens"
        )
    ends = [i for i, t in enumerate(tokens) if t in stop]
    if ends and ends[0] < len(tokens) - 1:
        return TextFault(
            "text-stop",
            f"token {ends[0]} is the stop token {tokens[ends[0]]}, but {len(tokens)} came",
        )
    if not ends and len(tokens) < job.limit:
        return TextFault(
            "text-unfinished",
            f"{len(tokens)} tokens came without a stop token at the end, the job's limit is "
            f"{job.limit}",
        )
    return None
