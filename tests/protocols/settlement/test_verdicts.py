"""Verdicts of an epoch: records, their log and its tree, and what is not in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.settlement.statements import EpochStatement, SettlementError
from protocols.settlement.verdicts import EpochLog, VerdictRecord, verify_verdict
from tests.helpers.committees import (
    HEAD,
    LOG,
    RECORDS,
    STATEMENT,
    record,
    statement,
)
from verifiable import encoding
from verifiable.errors import MalformedEncoding, MerkleError
from verifiable.merkle import SHA256
from verifiable.report import Verdict


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, word for word."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + mth(leaves[:k]) + mth(leaves[k:])).digest()


@given(st.permutations(list(range(9))), st.integers(1, 9))
def test_the_root_is_a_function_of_the_set_of_verdicts(order: list[int], size: int):
    records = [record(i) for i in order[:size]]
    made = EpochLog.of(records)
    assert made.tree.root == mth([record(i).encode() for i in sorted(order[:size])])
    assert made.records == tuple(sorted(records, key=lambda r: r.job))
    for r in records:
        index = made.index(r.job, r.worker)
        assert made.records[index] == r
        verify_verdict(r, index=index, proof=made.inclusion(index), statement=statement(HEAD, made))
    with pytest.raises(KeyError):
        made.index(record(100).job, record(100).worker)
    with pytest.raises(KeyError):
        made.index(record(order[0]).job, b"\xff" * 32)


LOGS: dict[str, tuple[str, Callable[[], EpochLog]]] = {
    "nothing": ("no-verdicts", lambda: EpochLog.of([])),
    "a verdict twice": ("unordered-verdicts", lambda: EpochLog.of([*RECORDS, RECORDS[3]])),
    "two verdicts on one run": (
        "unordered-verdicts",
        lambda: EpochLog.of([*RECORDS, replace(RECORDS[3], reason="audited")]),
    ),
    "out of order": ("unordered-verdicts", lambda: EpochLog(RECORDS[::-1])),
    "of two epochs": ("other-epoch", lambda: EpochLog.of([*RECORDS, record(9, epoch=1)])),
    "of two policies": (
        "other-policy",
        lambda: EpochLog.of([*RECORDS, record(9, policy=bytes(32))]),
    ),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_malformed_log_cannot_be_built(name: str):
    expected, build = LOGS[name]
    with pytest.raises(SettlementError) as raised:
        build()
    assert raised.value.reason == expected


PROOF = LOG.inclusion(2)
INNER = SHA256.node(SHA256.leaf(RECORDS[0].encode()), SHA256.leaf(RECORDS[1].encode()))
INCLUSIONS: dict[str, Callable[[], None]] = {
    "a verdict never signed": lambda: shown(record(8)),
    "accepted instead of rejected": lambda: shown(replace(RECORDS[2], checked=0)),
    "at another position": lambda: shown(RECORDS[2], index=3),
    "beyond the end": lambda: shown(RECORDS[2], index=7),
    "proof of another": lambda: shown(RECORDS[2], proof=LOG.inclusion(3)),
    "without a proof": lambda: shown(RECORDS[2], proof=()),
    "a longer proof": lambda: shown(RECORDS[2], proof=(*PROOF, bytes(32))),
    "of yesterday's epoch": lambda: shown(replace(RECORDS[2], epoch=1)),
    "under another policy": lambda: shown(replace(RECORDS[2], policy=bytes(32))),
    "a leaf taken for the root": lambda: shown(
        RECORDS[2], proof=(), of=replace(STATEMENT, root=SHA256.leaf(RECORDS[2].encode()))
    ),
    "a node taken for a leaf": lambda: shown(
        RECORDS[2], index=0, proof=PROOF[1:], of=replace(STATEMENT, size=4)
    ),
}


def shown(
    what: VerdictRecord,
    index: int = 2,
    proof: Sequence[bytes] = PROOF,
    of: EpochStatement = STATEMENT,
) -> None:
    verify_verdict(what, index=index, proof=proof, statement=of)


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"epoch": 1}, "other-epoch"), ({"policy": bytes(32)}, "other-policy")],
    ids=["epoch", "policy"],
)
def test_a_verdict_is_of_the_statements_epoch_and_policy(change: dict[str, Any], expected: str):
    """Even if it is in the tree: the same root may be signed for another epoch."""
    with pytest.raises(SettlementError) as raised:
        shown(RECORDS[2], of=replace(STATEMENT, **change))
    assert raised.value.reason == expected


@pytest.mark.parametrize("name", INCLUSIONS)
def test_a_false_inclusion_is_refused(name: str):
    shown(RECORDS[2])
    with pytest.raises((MerkleError, SettlementError)):
        INCLUSIONS[name]()


def test_a_leaf_is_never_a_node():
    """A node hashes 64 bytes, and every record is longer; the prefixes differ too."""
    assert len(min((r.encode() for r in RECORDS), key=len)) > 64
    with pytest.raises(MalformedEncoding):
        VerdictRecord.decode(bytes(64))
    assert SHA256.leaf(SHA256.leaf(RECORDS[0].encode()) + SHA256.leaf(b"")) != INNER


digests = st.binary(min_size=32, max_size=32)
uints = st.integers(0, 2**64 - 1)
codes = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=32)


@st.composite
def records(draw: st.DrawFn) -> VerdictRecord:
    verdict = draw(st.sampled_from(list(Verdict)))
    accepted = verdict is Verdict.ACCEPT
    return VerdictRecord(
        epoch=draw(uints),
        job=draw(digests),
        worker=draw(digests),
        verdict=verdict,
        reason=draw(codes),
        commitment=draw(digests if accepted else st.none() | digests),
        answer=draw(digests) if accepted else None,
        program=draw(digests),
        policy=draw(digests),
        checked=draw(uints),
        replayed=draw(uints),
    )


@settings(deadline=None)
@given(records())
def test_records_survive_the_wire(r: VerdictRecord):
    assert VerdictRecord.decode(r.encode()) == r
    assert len(r.encode()) <= VerdictRecord.MAX_SIZE


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_the_decoder_of_records_raises_nothing_else(data: st.DataObject):
    values = encoding.decode(RECORDS[0].encode(), max_size=512)
    for _ in range(data.draw(st.integers(0, 2))):
        some = st.none() | st.booleans() | uints | digests | st.text(max_size=3) | st.floats(0, 1)
        values[data.draw(st.integers(0, len(values) - 1))] = data.draw(some)
    raw = bytearray(encoding.encode(values))
    for _ in range(data.draw(st.integers(0, 1))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + 1] = data.draw(st.binary(max_size=2))
    try:
        assert VerdictRecord.decode(bytes(raw)).encode() == bytes(raw)
    except MalformedEncoding:
        return


@pytest.mark.parametrize("reason", ["a", "-", "z" * 32])
def test_reasons_have_1_to_32_characters(reason: str):
    made = record(0, reason=reason)
    assert VerdictRecord.decode(made.encode()) == made


def test_a_log_is_shown_by_epoch_size_and_root():
    assert repr(LOG) == f"EpochLog(0, size=7, root={LOG.tree.root.hex()})"


CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "accepted without an answer": {"answer": None},
    "an answer that was not accepted": {"verdict": Verdict.REJECT},
    "accepted without a commitment": {"commitment": None},
    "no reason": {"reason": ""},
    "a reason in prose": {"reason": "It was late."},
    "a long reason": {"reason": "a" * 33},
    "a verdict as text": {"verdict": "accept"},
    "a coverage below zero": {"checked": -1},
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_records_that_contradict_themselves_cannot_be_built(name: str):
    with pytest.raises(ValueError, match=r"type, size or range|answer|nothing"):
        record(0, **CONTRADICTIONS[name])
