"""Statements: words as a contract lays them out, decoded strictly."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.settlement.committee import (
    REGISTRATION_DOMAIN,
)
from protocols.settlement.statements import (
    REASONS,
    AttemptStatement,
    Deployment,
    EpochStatement,
    Lock,
    LockReport,
    Prepare,
    Rotation,
    SettlementError,
    Statement,
    kind_name,
)
from protocols.settlement.submission import (
    NO_ROOT,
)
from tests.helpers.committees import (
    CHAIN,
    HEAD,
    ROTATION,
    STATEMENT,
)
from verifiable.bls import (
    framed,
)
from verifiable.errors import MalformedEncoding

digests = st.binary(min_size=32, max_size=32)
uint64s = st.integers(0, 2**64 - 1)
addresses = st.binary(min_size=20, max_size=20)
epochs = st.builds(
    EpochStatement,
    chain_id=st.integers(1, 2**256 - 1),
    contract=addresses,
    epoch=uint64s,
    root=digests,
    size=st.integers(1, 2**64 - 1),
    policy=digests,
    committee=digests,
    sequence=uint64s,
    previous_root=digests,
)
rotations = st.builds(
    Rotation,
    chain_id=st.integers(1, 2**256 - 1),
    contract=addresses,
    committee=digests,
    sequence=uint64s,
    incoming=digests,
)
attempt = {
    "chain_id": st.integers(1, 2**256 - 1),
    "contract": addresses,
    "committee": digests,
    "sequence": uint64s,
    "epoch": uint64s,
}
votes = st.builds(Prepare, **attempt, attempt=uint64s, choice=digests)
locks = st.builds(Lock, **attempt, attempt=uint64s, choice=digests)
reports = st.integers(1, 2**64 - 1).flatmap(
    lambda number: st.builds(
        LockReport,
        **attempt,
        attempt=st.just(number),
        locked=st.integers(1, number),
        choice=digests.filter(any),
    )
)
unlocked = st.builds(
    LockReport,
    **attempt,
    attempt=st.integers(1, 2**64 - 1),
    locked=st.just(0),
    choice=st.just(bytes(32)),
)
statements: st.SearchStrategy[Any] = epochs | rotations | votes | locks | reports | unlocked


def words(s: Any) -> bytes:
    """`abi.encode`, written out by hand from the table of specs/settlement.md."""

    def uint(value: int) -> bytes:
        return bytes.fromhex(f"{value:064x}")

    here = uint(s.chain_id) + uint(int.from_bytes(s.contract, "big"))
    if isinstance(s, Rotation):
        return here + s.committee + uint(s.sequence) + s.incoming
    if isinstance(s, AttemptStatement):
        place = here + s.committee + uint(s.sequence) + uint(s.epoch) + uint(s.attempt)
        return place + (uint(s.locked) if isinstance(s, LockReport) else b"") + s.choice
    verdicts = uint(s.epoch) + s.root + uint(s.size) + s.policy
    return here + verdicts + s.committee + uint(s.sequence) + s.previous_root


@given(statements)
def test_statements_are_words(s: Statement):
    assert s.message == words(s)
    assert type(s).decode(s.message) == s
    sizes = {"epoch": 288, "rotation": 160, "prepare": 224, "lock": 224, "report": 256}
    assert len(s.message) == sizes[s.KIND]
    for other in (s.message[:-1], s.message[:-32], s.message + b"\0", s.message + bytes(32)):
        with pytest.raises(MalformedEncoding, match=f"must be {sizes[s.KIND]} bytes"):
            type(s).decode(other)


CONTENT = {
    "epoch": {"root", "size", "policy", "previous_root"},
    "rotation": {"incoming"},
    "prepare": {"choice"},
    "lock": {"choice"},
    "report": {"locked", "choice"},
}
"""The fields of each kind that are not part of the place (specs/settlement.md, Statements)."""


@given(statements, st.data())
def test_the_place_is_everything_but_the_content(s: Any, data: st.DataObject):
    name = data.draw(st.sampled_from(list(s.LAYOUT)))
    value = getattr(s, name)
    other = bytes(b ^ 1 for b in value) if isinstance(value, bytes) else value ^ 1
    try:
        changed = replace(s, **{name: other})
    except ValueError:
        return
    assert (changed.place == s.place) == (name in CONTENT[s.KIND])


@given(statements, st.data())
def test_every_bit_of_a_statement_counts(s: Statement, data: st.DataObject):
    flipped = bytearray(s.message)
    bit = data.draw(st.integers(0, 8 * len(flipped) - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(MalformedEncoding):
        assert type(s).decode(bytes(flipped)) != s


@given(st.binary(max_size=400) | st.binary(min_size=288, max_size=288))
def test_statement_decoders_raise_nothing_else(data: bytes):
    for kind in (EpochStatement, Rotation):
        try:
            assert kind.decode(data).message == data
        except MalformedEncoding:
            continue


BAD_FIELDS: dict[str, dict[str, Any]] = {
    "no chain": {"chain_id": 0},
    "chain of 257 bits": {"chain_id": 2**256},
    "short address": {"contract": b"\1" * 19},
    "epoch of 65 bits": {"epoch": 2**64},
    "negative epoch": {"epoch": -1},
    "no verdicts": {"size": 0},
    "size as a float": {"size": 5.0},
    "size as a boolean": {"size": True},
    "long root": {"root": b"\1" * 33},
    "root as text": {"root": "1" * 32},
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_malformed_statement_cannot_be_built(name: str):
    with pytest.raises(ValueError, match="wrong type, size or range"):
        replace(STATEMENT, **BAD_FIELDS[name])


@pytest.mark.parametrize("width", ["contract", "epoch", "sequence", "size"])
def test_a_word_wider_than_its_field_is_refused(width: str):
    """A contract would revert or truncate: here it is an error."""
    at = 32 * list(EpochStatement.LAYOUT).index(width)
    data = STATEMENT.message[:at] + b"\1" + STATEMENT.message[at + 1 :]
    with pytest.raises(MalformedEncoding, match=width):
        EpochStatement.decode(data)


def test_domains_and_layouts_separate_the_kinds():
    assert EpochStatement.DOMAIN != Rotation.DOMAIN != REGISTRATION_DOMAIN
    assert len(EpochStatement.LAYOUT) != len(Rotation.LAYOUT)
    with pytest.raises(MalformedEncoding):
        Rotation.decode(STATEMENT.message)
    with pytest.raises(MalformedEncoding):
        EpochStatement.decode(ROTATION.message)


BAD_REPORTS: dict[str, dict[str, Any]] = {
    "a short choice": {"choice": b"\1" * 31},
    "a lock as a boolean": {"locked": True},
    "an attempt of 65 bits": {"attempt": 2**64},
    "no chain": {"chain_id": 0},
}


@pytest.mark.parametrize("name", BAD_REPORTS)
def test_a_malformed_report_cannot_be_built(name: str):
    honest = HEAD.attempt(LockReport, 2, b"\1" * 32, locked=1)
    with pytest.raises(ValueError, match="wrong type, size or range"):
        replace(honest, **BAD_REPORTS[name])


@pytest.mark.parametrize("kind", [Statement, AttemptStatement, bytes, "epoch", None])
def test_only_a_kind_of_statement_is_decoded(kind: Any):
    for one in (EpochStatement, Rotation, Prepare, Lock, LockReport):
        assert kind_name(one) == one.KIND
    with pytest.raises(TypeError, match="one kind of statement"):
        kind_name(kind)
    if kind in (Statement, AttemptStatement):
        with pytest.raises(TypeError, match="one kind of statement"):
            kind.decode(STATEMENT.message)


def test_a_deployment_is_checked():
    Deployment(chain_id=2**256 - 1, contract=b"\1" * 20)
    for chain_id, contract in ((0, b"\1" * 20), (1, b"\1" * 21), (2**256, b"\1" * 20)):
        with pytest.raises(ValueError, match=r"chain id|address"):
            Deployment(chain_id=chain_id, contract=contract)
    assert STATEMENT.deployment == CHAIN


def test_every_reason_is_explained():
    assert all(len(text) > 10 for text in REASONS.values())
    with pytest.raises(KeyError):
        SettlementError("no such reason")


def test_the_signed_message_is_framed():
    by_hand = b"\x1cverifiable epoch statement 1" + STATEMENT.message
    assert framed(STATEMENT.message, STATEMENT.DOMAIN) == by_hand
    assert framed(ROTATION.message, ROTATION.DOMAIN)[:32] == b"\x1fverifiable committee rotation 1"
    assert NO_ROOT == bytes(32) == STATEMENT.previous_root
