"""Calldata of the contract `Settlement`, for whatever client sends the transaction.

Each function returns the bytes of a transaction's `data`: a selector of 4 bytes, then the arguments
as the contract ABI of Solidity lays them out. Words have 32 bytes; an argument of fixed size stands
in the head, of any other the head holds the offset, counted from the head's start, and the tail its
length and content. `ABI` and `BYTECODE` are those of the compiled contract, for clients that encode
calls themselves. What the contract checks: specs/contract.md.

No client, no compiler, no hash: the selectors come with the compiled contract.
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
from verifiable.bls.keys import expect

CHUNK: Final = 32
"""Members that one registration brings."""
MAX_LEAF: Final = 2048
"""Bytes of the longest verdict that the contract hashes."""
MAX_PROOF: Final = 64
"""Digests in the longest inclusion proof."""

_COMPILED: Final[dict[str, Any]] = json.loads(
    files("protocols.contracts").joinpath("Settlement.json").read_text()
)
ABI: Final[list[dict[str, Any]]] = _COMPILED["abi"]
"""The contract's interface, as the JSON that every client reads."""
BYTECODE: Final = bytes.fromhex(_COMPILED["bytecode"].removeprefix("0x"))
"""Its init code, without the constructor's argument."""
SELECTORS: Final = {name: bytes.fromhex(x[2:]) for name, x in _COMPILED["selectors"].items()}
"""The first four bytes of a call, by the name of the function."""


@dataclass(frozen=True, slots=True)
class _Dynamic:
    """An argument whose size is not fixed by its type: its length and content."""

    tail: bytes


def deployment(genesis: bytes) -> bytes:
    """Init code of a contract whose first committee has this id (32 bytes)."""
    return BYTECODE + _bytes32(genesis)


def registrations(committee: Committee) -> list[bytes]:
    """Calls that stage a committee, in order; then comes `activate` or `rotate`.

    All must come from the registrant that the members' proofs of possession bind.
    """
    calls: list[bytes] = []
    for start in range(0, len(committee.members), CHUNK):
        members = committee.members[start : start + CHUNK]
        seats = [m.key.key.eip2537() + _word(m.weight) for m in members]
        proofs = [m.key.possession.eip2537() for m in members]
        calls.append(call("register", _array(seats), _array(proofs)))
    return calls


def activate() -> bytes:
    """Make what the caller staged the first committee."""
    return call("activate")


def discard() -> bytes:
    """Forget what the caller staged."""
    return call("discard")


def settle(submission: SettlementSubmission[EpochStatement]) -> bytes:
    """Submit an epoch."""
    return _submit("settle", submission, EpochStatement)


def rotate(submission: SettlementSubmission[Rotation]) -> bytes:
    """Replace the committee by what the caller staged."""
    return _submit("rotate", submission, Rotation)


def verify_inclusion(epoch: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Ask whether a verdict is the one at `index` of an epoch: the call fails if it is not.

    Raises:
      ValueError: a verdict or a proof longer than the contract takes.
    """
    if len(leaf) > MAX_LEAF or len(proof) > MAX_PROOF:
        raise ValueError(f"at most {MAX_LEAF} bytes and {MAX_PROOF} digests fit")
    digests = _array([_bytes32(digest) for digest in proof])
    return call("verify_inclusion", _word(epoch), _word(index), _bytes(leaf), digests)


def call(name: str, *arguments: bytes | _Dynamic) -> bytes:
    """Lay out a call. Arguments of fixed size are given as their words."""
    if not all(isinstance(a, _Dynamic) or len(a) % 32 == 0 for a in arguments):
        raise ValueError("arguments are whole words")
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
    words = expect(submission.statement, kind).message
    return call(name, words, _bytes(submission.bitmap), submission.signature.eip2537())


def _word(number: int) -> bytes:
    """Raises OverflowError for a number that is negative or does not fit."""
    return number.to_bytes(32, "big")


def _bytes32(data: bytes) -> bytes:
    if len(data) != 32:
        raise ValueError(f"expected 32 bytes, not {len(data)}")
    return data


def _bytes(data: bytes) -> _Dynamic:
    return _Dynamic(_word(len(data)) + data + bytes(-len(data) % 32))


def _array(items: Sequence[bytes]) -> _Dynamic:
    """An array of items of one fixed size."""
    return _Dynamic(_word(len(items)) + b"".join(items))
