"""Jobs, samplers and token ids as plain values, for canonical bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from verifiable.encoding import encode
from verifiable.errors import MalformedEncoding
from verifiable.generation.job import GenerationJob
from verifiable.generation.sampler import NUMBERS, Sampler


def token_bytes(tokens: Iterable[int]) -> bytes:
    """Token ids as little-endian uint32; ValueError for ids that need more."""
    tokens = tuple(tokens)
    if any(not 0 <= t < 1 << 32 for t in tokens):
        raise ValueError("token ids must be at least 0 and below 2^32")
    return np.asarray(tokens, "<u4").tobytes()


def tokens_of(data: bytes) -> tuple[int, ...]:
    """The inverse of `token_bytes`; MalformedEncoding unless these are bytes, four each."""
    if type(data) is not bytes or len(data) % 4:
        raise MalformedEncoding("token ids must be bytes, four for each")
    return tuple(np.frombuffer(data, "<u4").tolist())


def sampler_fields(sampler: Sampler) -> dict[str, Any]:
    """The numbers of a sampler that are given, and the source of its noise."""
    given = {f.name: getattr(sampler, f.name) for f in fields(sampler)}
    # An int, or a float of numpy, has the encoding of the float that it equals.
    return {k: float(v) if k in NUMBERS else v for k, v in given.items() if v is not None}


def sampler_of(given: Any) -> Sampler:
    """The inverse of `sampler_fields`.

    Raises:
      MalformedEncoding: no sampler has these numbers.
    """
    names = {f.name for f in fields(Sampler)}
    if type(given) is not dict or not names.issuperset(given):
        raise MalformedEncoding(f"a sampler is a map of {', '.join(sorted(names))}")
    try:
        sampler = Sampler(**given)
    except (TypeError, ValueError) as error:
        raise MalformedEncoding(f"not the numbers of a sampler: {error}") from error
    if not _same(sampler_fields(sampler), given):
        raise MalformedEncoding("a number of a sampler is of another type")
    return sampler


def job_fields(job: GenerationJob) -> dict[str, Any]:
    """A job as plain values."""
    return {
        "prompt": token_bytes(job.prompt),
        "limit": job.limit,
        "sampler": sampler_fields(job.sampler),
        "seed": job.seed,
    }


def job_of(given: Mapping[str, Any]) -> GenerationJob:
    """The inverse of `job_fields`.

    Raises:
      MalformedEncoding: no job has these values.
    """
    try:
        job = GenerationJob(
            prompt=tokens_of(given["prompt"]),
            limit=given["limit"],
            sampler=sampler_of(given["sampler"]),
            seed=given["seed"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedEncoding(f"not a job: {error}") from error
    if not _same(job_fields(job), given):
        raise MalformedEncoding("a job has other values too")
    return job


def _same(one: Any, other: Any) -> bool:
    """Whether two values have the same bytes: 1 and 1.0 are equal, and have not."""
    return encode(one) == encode(other)
