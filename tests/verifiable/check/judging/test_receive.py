"""`verify` and `check` of any object that a device could send: a reject, soon, and no exception."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import verifiable as vf
from verifiable.check.judging import receive
from verifiable.testing.hostile import OBJECTS
from verifiable.trace import Trace

PARAMS = jnp.asarray(np.random.default_rng(0).standard_normal((64, 64)) / 8, jnp.float32)
X = jnp.ones((16, 64), jnp.float32)
PROGRAM = vf.compile(
    lambda w, x: {"a": jnp.tanh(x @ w), "b": x + 1}, PARAMS, X, policy=vf.Policy(draws=4)
)


@functools.cache
def key() -> vf.VerifierKey:
    return PROGRAM.setup(PARAMS, vf.challenge.secret(bytes(32)))


@functools.cache
def honest() -> vf.Submission:
    return PROGRAM.prove(PARAMS, X)


PLACES: dict[str, Any] = {
    "answer": lambda sent, x: {"y": x},
    "part of the answer": lambda sent, x: {"y": sent.y | {"b": x}},
    "trace": lambda sent, x: {"trace": x},
    "values": lambda sent, x: {"trace": Trace(values=x)},
    "claim": lambda sent, x: {"trace": Trace(values=(x,))},
    "answer and trace": lambda sent, x: {"y": x, "trace": x},
}


def test_an_honest_submission_is_accepted():
    sent = honest()
    report = PROGRAM.verify(key(), X, sent, commitment=sent.commitment)
    assert report.verdict is vf.Verdict.ACCEPT
    assert len(sent.trace.values) == 1


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", OBJECTS)
def test_any_object_is_rejected_soon(name: str, place: str):
    sent = dataclasses.replace(honest(), **PLACES[place](honest(), OBJECTS[name]()))
    start = time.perf_counter()
    for report in (
        PROGRAM.verify(key(), X, sent, commitment=sent.commitment),
        PROGRAM.check(key(), X, y=sent.y, trace=sent.trace),
    ):
        assert report.verdict is vf.Verdict.REJECT
        assert report.reason.startswith(("trace-", "claim-", "output-"))
        assert len(report.message) < 400
        assert str(report).splitlines()[-2] == "nothing was checked"
    assert time.perf_counter() - start < 20


def test_no_more_arrays_are_read_than_the_program_has_claims(monkeypatch: pytest.MonkeyPatch):
    """Each may be in a mapped file, which is copied."""
    read: list[Any] = []
    monkeypatch.setattr(receive, "array_or_none", lambda x: read.append(x) or np.asarray(x))
    sent = honest()
    report = PROGRAM.check(key(), X, y=sent.y, trace=[*sent.trace.values] * 1000)
    assert (report.verdict, report.reason) == (vf.Verdict.REJECT, "claim-extra")
    assert "1 claims, got 1000" in report.message
    assert len(read) == len(PROGRAM.claims) + len(sent.y)
