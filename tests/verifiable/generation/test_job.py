"""What is asked for, and hostile answers that no model is asked about."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from verifiable.generation import GenerationJob, Sampler
from verifiable.generation.job import TextFault, fault_of, fresh_seed, token_ids

STOP = {7}
JOB = GenerationJob(prompt=(1, 2), limit=4, sampler=Sampler(), seed=bytes(32))


class Hostile:
    """Whatever is asked of it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


TEXTS: dict[str, tuple[Any, str | None]] = {
    "as many as asked for": ([1, 2, 3, 4], None),
    "an early stop": ((5, 7), None),
    "a stop at the end": ([1, 2, 3, 7], None),
    "an array": (np.asarray([1, 7], np.uint8), None),
    "an array of JAX": (jnp.asarray([1, 7]), None),
    "an array of all token ids": (np.arange(100), "text-length"),
    "numbers of numpy": ([np.int64(1), np.int32(7)], None),
    "no text": (None, "text-structure"),
    "a string": ("12", "text-structure"),
    "bytes": (b"\x01\x07", "text-structure"),
    "an endless one": (iter(int, 1), "text-structure"),
    "an object that raises": (Hostile(), "text-structure"),
    "an array of floats": (np.asarray([1.0, 7.0]), "text-structure"),
    "an array of rows": (np.asarray([[1, 7]]), "text-structure"),
    "an array of objects": (np.asarray([1, 7], object), "text-structure"),
    "a float": ([1.0, 7], "text-structure"),
    "a boolean": ([True, 7], "text-structure"),
    "nothing": ([], "text-empty"),
    "a negative token": ([-1, 7], "text-range"),
    "a token beyond the vocabulary": ([9, 7], "text-range"),
    "a token beyond any integer type": ([2**200, 7], "text-range"),
    "more than was asked for": ([1, 2, 3, 4, 7], "text-length"),
    "a token after the stop": ([1, 7, 2, 3], "text-stop"),
    "two stops": ([1, 7, 7], "text-stop"),
    "an end without a stop": ([1, 2, 3], "text-unfinished"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_form_of_a_completion(name: str):
    value, reason = TEXTS[name]
    found = token_ids(value, JOB.limit)
    if not isinstance(found, TextFault):
        assert all(type(t) is int for t in found)
        found = fault_of(found, JOB, STOP, 9)
    assert (found and found.reason) == reason
    assert found is None or found.message


REFUSED: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "no prompt": ({"prompt": ()}, ValueError),
    "a negative token": ({"prompt": (3, -1)}, ValueError),
    "a list": ({"prompt": [3]}, TypeError),
    "a boolean": ({"prompt": (True,)}, TypeError),
    "no tokens": ({"limit": 0}, ValueError),
    "half a token": ({"limit": 1.5}, TypeError),
    "a short seed": ({"seed": b"7"}, ValueError),
    "a number as seed": ({"seed": 7}, TypeError),
    "no sampler": ({"sampler": None}, TypeError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_jobs_are_refused(name: str):
    changed, error = REFUSED[name]
    given: dict[str, Any] = {"prompt": (1,), "limit": 4, "sampler": Sampler(), "seed": bytes(32)}
    with pytest.raises(error):
        GenerationJob(**(given | changed))


def test_seeds_are_fresh_and_fit_their_source():
    threefry = Sampler(temperature=1.0, source="threefry")
    assert [len(fresh_seed(s)) for s in (Sampler(), threefry)] == [32, 8]
    assert fresh_seed(Sampler()) != fresh_seed(Sampler())
