"""Calldata of the contract `Settlement`, for any client that sends transactions.

Each function returns the bytes of a transaction's `data`: a selector of 4 bytes, then the arguments
as the contract ABI of Solidity lays them out. Words have 32 bytes. An argument of fixed size is in
the head; for any other, the head holds its offset from the start of the head, and the tail holds
its length and content. `ABI` and `BYTECODE` come from the compiled contract, for clients that
encode calls themselves. What the contract checks: specs/contract.md.

This module needs no client, compiler or hash: the selectors come with the compiled contract.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from protocols.settlement.committee import Committee
from protocols.settlement.statements import EpochStatement, Rotation
from protocols.settlement.submission import SettlementSubmission
from verifiable.errors import require_bytes32, require_exact_type

CHUNK: Final = 32
"""The most members in one registration."""
MAX_LEAF: Final = 2048
"""The most bytes in a verdict that the contract hashes."""
MAX_PROOF: Final = 64
"""The most digests in an inclusion proof."""

_COMPILED: Final[dict[str, Any]] = json.loads(
    files("protocols.contracts").joinpath("Settlement.json").read_text()
)
ABI: Final[list[dict[str, Any]]] = _COMPILED["abi"]
"""Interface of the contract, as clients read it."""
BYTECODE: Final = bytes.fromhex(_COMPILED["bytecode"].removeprefix("0x"))
"""Init code of the contract, without the constructor's argument."""
SELECTORS: Final = {name: bytes.fromhex(x[2:]) for name, x in _COMPILED["selectors"].items()}
"""The first four bytes of a call, by the name of the function."""


@dataclass(frozen=True, slots=True)
class _Dynamic:
    """Length and content of an argument whose type does not fix its size."""

    tail: bytes


def deployment(genesis: bytes) -> bytes:
    """Init code of a contract whose first committee has this id (32 bytes)."""
    return BYTECODE + require_bytes32("genesis", genesis)


def registrations(committee: Committee) -> list[bytes]:
    """Calls that stage a committee, in order; `activate` or `rotate` follows.

    The sender of all calls must be `committee.registrant`.
    """
    calls: list[bytes] = []
    for start in range(0, len(committee.members), CHUNK):
        members = committee.members[start : start + CHUNK]
        seats = [m.key.key.eip2537() + _word(m.weight) for m in members]
        proofs = [m.key.possession.eip2537() for m in members]
        calls.append(call("register", _array(seats), _array(proofs)))
    return calls


def activate() -> bytes:
    """Put the committee that the caller staged in office, as the first."""
    return call("activate")


def discard() -> bytes:
    """Discard the members that the caller staged."""
    return call("discard")


def member(index: int) -> bytes:
    """Read a member of the committee in office: four words of key, and its weight."""
    return call("member", _word(index))


def staged_member(registrant: bytes, index: int) -> bytes:
    """Read a member that an account (20 bytes) has staged: four words of key, and its weight."""
    if len(registrant) != 20:
        raise ValueError(f"an address must be 20 bytes, got {len(registrant)}")
    return call("staged_member", bytes(12) + registrant, _word(index))


def settle(submission: SettlementSubmission[EpochStatement]) -> bytes:
    """Submit an epoch."""
    return _submit("settle", submission, EpochStatement)


def rotate(submission: SettlementSubmission[Rotation]) -> bytes:
    """Replace the committee by the one that the caller staged."""
    return _submit("rotate", submission, Rotation)


def verify_inclusion(epoch: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Verify that a verdict is at `index` of an epoch: the call reverts if it is not.

    Raises:
      ValueError: a verdict or a proof longer than the contract accepts.
    """
    if len(leaf) > MAX_LEAF or len(proof) > MAX_PROOF:
        raise ValueError(
            f"the contract accepts at most {MAX_LEAF} bytes and {MAX_PROOF} digests, "
            f"got {len(leaf)} and {len(proof)}"
        )
    digests = _array([require_bytes32("a digest", digest) for digest in proof])
    return call("verify_inclusion", _word(epoch), _word(index), _bytes(leaf), digests)


def call(name: str, *arguments: bytes | _Dynamic) -> bytes:
    """Lay out a call. An argument of fixed size is given as its words."""
    if not all(isinstance(a, _Dynamic) or len(a) % 32 == 0 for a in arguments):
        raise ValueError("arguments must be whole words of 32 bytes")
    offset = sum(32 if isinstance(a, _Dynamic) else len(a) for a in arguments)
    head, tail = b"", b""
    for argument in arguments:
        if isinstance(argument, _Dynamic):
            head += _word(offset + len(tail))
            tail += argument.tail
        else:
            head += argument
    return SELECTORS[name] + head + tail


def _submit(name: str, submission: SettlementSubmission[Any], kind: type) -> bytes:
    words = require_exact_type("statement", submission.statement, kind).message
    return call(name, words, _bytes(submission.bitmap), submission.signature.eip2537())


def _word(number: int) -> bytes:
    """Raises OverflowError for a number that is negative or does not fit."""
    return number.to_bytes(32, "big")


def _bytes(data: bytes) -> _Dynamic:
    return _Dynamic(_word(len(data)) + data + bytes(-len(data) % 32))


def _array(items: Sequence[bytes]) -> _Dynamic:
    """An array of items of equal size."""
    return _Dynamic(_word(len(items)) + b"".join(items))
