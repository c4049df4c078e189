"""Accusations: one encoding, limits before parsing, and a judge that trusts no field."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.demo import accusation, models
from protocols.demo.accusation import Accusation, convicts, judge
from protocols.demo.cheats.computations import int4, with_kernels
from protocols.demo.cheats.submissions import changed_after_commitment, missing_claim
from protocols.demo.devices import DemoJob, Run, jitted
from protocols.demo.scenes.scene import prepare
from verifiable import challenge, encoding
from verifiable.check.judging.evidence import evidence_of
from verifiable.errors import MalformedEncoding, VerificationError
from verifiable.report import Report
from verifiable.submission import Submission

TEXTS = ("a", "the cat")


def small(seed: int = 0) -> models.Encoder:
    """Its products are of integers: exact, so that a judgement needs no perturbed replay."""
    return models.in_precision(models.small_transformer(seed, width=32, layers=1), "w8a8")


@functools.cache
def job() -> DemoJob:
    return prepare(small(), TEXTS)


@functools.cache
def checked(run: Run) -> tuple[Report, Submission]:
    key = job().program.setup(job().model.params, challenge.secret(bytes(32)))
    sent = run(job())
    report = job().program.verify(
        key, *job().inputs, sent, commitment=sent.commitment, parameters=job().root
    )
    return report, sent


CHEAT = with_kernels(int4)


@functools.cache
def made() -> Accusation:
    return Accusation.of(job(), evidence_of(job().program, *checked(CHEAT)))


def test_what_was_written_is_read_and_convicts():
    data = made().encode()
    received = Accusation.decode(data)
    assert received == made() and received.encode() == data
    assert (received.loader, received.precision) == ("small_transformer", "w8a8")
    assert received.texts == TEXTS
    judged = judge(received, prepare(job().model, received.texts))
    assert judged.judgement.guilty
    report, sent = checked(CHEAT)
    assert (judged.claim, judged.root) == (report.claim, sent.commitment.root)


def test_the_same_place_of_an_honest_run_is_acquitted():
    report, _ = checked(CHEAT)
    framing = Accusation.of(job(), evidence_of(job().program, report, checked(jitted)[1]))
    assert not judge(Accusation.decode(framing.encode()), job()).judgement.guilty


@pytest.mark.parametrize("run", [jitted, missing_claim, changed_after_commitment])
def test_what_no_judge_can_repeat_does_not_convict(run: Run):
    """An accepted run, one that is refused, and one that was not committed to."""
    assert not convicts(job(), *checked(run))


def test_a_rejected_product_convicts():
    assert convicts(job(), *checked(CHEAT))


def headed(head: object) -> bytes:
    data = encoding.encode(head)
    return accusation.MAGIC + len(data).to_bytes(4, "big") + data + made().evidence


def put(data: bytes, start: int, new: bytes) -> bytes:
    return data[:start] + new + data[start + len(new) :]


MALFORMED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "not an accusation"),
    "another file": (lambda _: b"# verifiable" * 40, "not an accusation"),
    "another version": (lambda d: put(d, 22, b"2"), "has version '2', expected version 1"),
    "cut in the magic": (lambda d: d[:30], "not an accusation"),
    "cut in the length": (lambda d: d[:35], "truncated"),
    "cut in the head": (lambda d: d[:50], "truncated"),
    "head of 4 GB": (lambda d: put(d, 32, b"\xff" * 4), "truncated"),
    "head with a longer integer": (lambda d: put(d, 36, b"\x98\x03"), "CBOR|canonical|head"),
    "no list": (lambda _: headed("minilm"), "is .loader, precision"),
    "another loader": (lambda _: headed(["smollm2", "f32", ["a"]]), "loader of an accusation"),
    "a private name": (lambda _: headed(["__dict__", "f32", ["a"]]), "loader of an accusation"),
    "another precision": (lambda _: headed(["minilm", "f8", ["a"]]), "precision of an accusation"),
    "no text": (lambda _: headed(["minilm", "f32", []]), "1 to 64 texts"),
    "65 texts": (lambda _: headed(["minilm", "f32", ["a"] * 65]), "1 to 64 texts"),
    "a text of bytes": (lambda _: headed(["minilm", "f32", [b"a"]]), "has texts"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused_before_a_model_is_loaded(name: str):
    change, message = MALFORMED[name]
    with pytest.raises(MalformedEncoding, match=message):
        Accusation.decode(change(made().encode()))


def test_no_more_is_written_than_a_file_may_have(monkeypatch):
    data = made().encode()
    monkeypatch.setattr(accusation, "MOST_BYTES", 100)
    with pytest.raises(MalformedEncoding, match="at most 100 bytes"):
        Accusation.decode(data)
    with pytest.raises(ValueError, match="and 100 in all"):
        made().encode()
    monkeypatch.undo()
    long = dataclasses.replace(made(), texts=("x" * accusation.MOST_HEAD,))
    with pytest.raises(ValueError, match="of head"):
        long.encode()


def test_another_model_of_the_same_shapes_is_not_judged_by():
    other = prepare(small(1), TEXTS)
    with pytest.raises(ValueError, match="about parameters"):
        judge(made(), other)
    longer = prepare(job().model, ("a text that is longer",))
    with pytest.raises((ValueError, VerificationError)):
        judge(made(), longer)


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_hostile_evidence_is_refused_or_judged(data: st.DataObject):
    """Nothing but a refusal comes of bytes that are not what the device committed to."""
    bad = bytearray(made().evidence)
    kind = data.draw(st.sampled_from(["flip", "cut", "extend"]))
    if kind == "flip":
        bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del bad[data.draw(st.integers(0, len(bad) - 1)) :]
    else:
        bad += bytes(data.draw(st.integers(1, 70)))
    received = Accusation.decode(dataclasses.replace(made(), evidence=bytes(bad)).encode())
    try:
        judged = judge(received, job())
    except (VerificationError, ValueError):
        return
    # Only the place can change without another opening: another row of the same claim.
    assert judged.root == checked(CHEAT)[1].commitment.root
