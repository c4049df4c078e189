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
    Deployment,
    EpochStatement,
    Rotation,
    SettlementError,
    Statement,
)
from protocols.settlement.submission import (
    NO_ROOT,
)
from tests.helpers.committees import (
    CHAIN,
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
statements: st.SearchStrategy[Any] = epochs | rotations


def words(s: Any) -> bytes:
    """`abi.encode`, written out by hand from the table of specs/settlement.md."""

    def uint(value: int) -> bytes:
        return bytes.fromhex(f"{value:064x}")

    here = uint(s.chain_id) + uint(int.from_bytes(s.contract, "big"))
    if isinstance(s, Rotation):
        return here + s.committee + uint(s.sequence) + s.incoming
    verdicts = uint(s.epoch) + s.root + uint(s.size) + s.policy
    return here + verdicts + s.committee + uint(s.sequence) + s.previous_root


@given(statements)
def test_statements_are_words(s: Statement):
    assert s.message == words(s)
    assert type(s).decode(s.message) == s
    assert len(s.message) == {"epoch": 288, "rotation": 160}[s.KIND]


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


def test_a_deployment_is_checked():
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
