"""What a committee signs: one statement an epoch, and one when it hands over to the next.

A statement is a fixed list of 32-byte words, big-endian, exactly as Solidity's `abi.encode` lays
out static types, so that a contract rebuilds it from its own storage and a few arguments:

    epoch      chain id, contract, epoch, root, size, policy id,
               committee id, committee sequence, previous root
    rotation   chain id, contract, outgoing committee id, sequence, incoming committee id

Signed is `bls.framed(words, domain)`, with a domain of its own, which holds its version, for each
kind. Chain and contract, epoch and previous root, committee and sequence leave nothing at which a
signature could be shown a second time. Format: specs/settlement.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from verifiable.errors import MalformedEncoding, VerificationError

REASONS: Final[Mapping[str, str]] = {
    "other-chain": "the statement is for another chain",
    "other-contract": "the statement is for another contract",
    "other-committee": "the statement names another committee than the one in office",
    "other-sequence": "the committee held office before, or will: this is another term of it",
    "epoch-settled": "the epoch is settled already",
    "epoch-ahead": "an earlier epoch is not settled yet",
    "other-previous-root": "the statement does not follow the last one settled",
    "other-incoming": "the committee that was signed for is not the one that is to take office",
    "other-root": "the verdicts held have another root",
    "other-size": "another number of verdicts is held",
    "other-policy": "the verdicts were reached under another policy",
    "already-signed": "another statement was signed in its place",
    "bitmap-length": "the bitmap has not one bit for each member, rounded up to bytes",
    "bitmap-excess": "the bitmap has bits beyond the last member",
    "no-quorum": "the signers have not more than two thirds of the weight",
    "no-members": "a committee has at least one member",
    "too-many-members": "a committee has at most 256 members",
    "duplicate-key": "a key is in the committee twice",
    "unordered-members": "members are not in ascending order of their keys",
    "unregistered-key": "a key's proof of possession is not for this chain and contract",
    "unknown-member": "the committee has no member of this number",
    "no-conflict": "the two votes may both be cast",
    "other-place": "the vote is on another epoch, term or contract than the one in hand",
    "other-statement": "the vote is on another statement than the one in hand",
    "duplicate": "the vote is here already",
    "bad-signature": "the member named did not sign this",
    "unordered-verdicts": "verdicts are not in ascending order of job and worker, each once",
    "other-epoch": "a verdict is of another epoch than its log",
    "no-verdicts": "an epoch without a verdict has nothing to settle",
}
"""Every reason for which something of a settlement is refused, by its stable code."""


class SettlementError(VerificationError):
    """Something of a settlement that does not hold.

    Attributes:
      reason: a code of `REASONS`.
      expected: what it had to be, where there is something to compare.
      found: what it is.
    """

    def __init__(self, reason: str, *, expected: object = None, found: object = None):
        """Keep both sides."""
        self.reason, self.expected, self.found = reason, expected, found
        sides = "" if expected is None else f": expected {_shown(expected)}, found {_shown(found)}"
        super().__init__(f"{reason}: {REASONS[reason]}{sides}")


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Where a contract lives.

    Attributes:
      chain_id: of EIP-155, positive, below 2^256.
      contract: its address, 20 bytes.
    """

    chain_id: int
    contract: bytes

    def __post_init__(self) -> None:
        """Refuse what is no chain or no address (ValueError)."""
        if type(self.chain_id) is not int or not 0 < self.chain_id < 2**256:
            raise ValueError("a chain id is an integer in (0, 2^256)")
        if type(self.contract) is not bytes or len(self.contract) != 20:
            raise ValueError("an address is 20 bytes")

    @property
    def words(self) -> bytes:
        """Chain id and contract as two words."""
        return self.chain_id.to_bytes(32, "big") + bytes(12) + self.contract


_UINT64, _BYTES32 = (int, 8), (bytes, 32)
_DEPLOYMENT: Final = {"chain_id": (int, 32), "contract": (bytes, 20)}
_POSITIVE: Final = frozenset({"chain_id", "size"})


class Statement:
    """What both kinds have: words, read strictly, and a place that is filled only once."""

    __slots__ = ()

    KIND: ClassVar[str]
    """Its name on the wire."""
    DOMAIN: ClassVar[bytes]
    """Under which it is signed."""
    LAYOUT: ClassVar[Mapping[str, tuple[type, int]]]
    """Its fields in order: type, and bytes used of a word, at its end."""
    CONTENT: ClassVar[frozenset[str]]
    """The fields of which one signer may sign only one value for all the others."""

    chain_id: int
    contract: bytes
    committee: bytes
    sequence: int

    def __post_init__(self) -> None:
        """Refuse a field of another type, size or range (ValueError)."""
        for name, (kind, width) in self.LAYOUT.items():
            value: Any = getattr(self, name)
            fits = type(value) is kind and (
                len(value) == width
                if kind is bytes
                else (name in _POSITIVE) <= value < 1 << 8 * width
            )
            if not fits:
                raise ValueError(f"{name} of a statement has another type, size or range")

    @property
    def deployment(self) -> Deployment:
        """The contract that it is for."""
        return Deployment(chain_id=self.chain_id, contract=self.contract)

    @property
    def message(self) -> bytes:
        """Its words: what is signed, under `DOMAIN`."""
        return b"".join(
            (value if type(value) is bytes else value.to_bytes(32, "big")).rjust(32, b"\0")
            for value in (getattr(self, name) for name in self.LAYOUT)
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `message` gives.

        Raises:
          MalformedEncoding: another length, a field wider than its type, or no chain or verdicts.
        """
        if type(data) is not bytes or len(data) != 32 * len(cls.LAYOUT):
            raise MalformedEncoding(
                f"a statement of the kind {cls.KIND} is {32 * len(cls.LAYOUT)} bytes"
            )
        fields: dict[str, Any] = {}
        for i, (name, (kind, width)) in enumerate(cls.LAYOUT.items()):
            padding, value = data[32 * i : 32 * i + 32 - width], data[32 * i + 32 - width :][:width]
            if any(padding):
                raise MalformedEncoding(f"{name} of a statement has more than {width} bytes")
            fields[name] = bytes(value) if kind is bytes else int.from_bytes(value, "big")
        try:
            return cls(**fields)
        except ValueError as error:
            raise MalformedEncoding(str(error)) from error

    @property
    def place(self) -> tuple[object, ...]:
        """What it settles: whoever signs two statements of one kind and place equivocates."""
        return tuple(getattr(self, name) for name in self.LAYOUT if name not in self.CONTENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochStatement(Statement):
    """The verdicts of one epoch.

    Attributes:
      chain_id: of the chain.
      contract: address of the contract, 20 bytes.
      epoch: its number; the first is 0, and none is left out.
      root: RFC 9162 root over the verdicts, SHA-256, 32 bytes.
      size: how many verdicts, at least 1.
      policy: id of the policy under which they were reached, 32 bytes.
      committee: id of the committee that signs, 32 bytes.
      sequence: its term; that of the first is 0, and each rotation adds 1.
      previous_root: root of the epoch before, or zeros for the first.
    """

    KIND: ClassVar[str] = "epoch"
    DOMAIN: ClassVar[bytes] = b"verifiable epoch statement 1"
    LAYOUT: ClassVar[Mapping[str, tuple[type, int]]] = _DEPLOYMENT | {
        "epoch": _UINT64,
        "root": _BYTES32,
        "size": _UINT64,
        "policy": _BYTES32,
        "committee": _BYTES32,
        "sequence": _UINT64,
        "previous_root": _BYTES32,
    }
    CONTENT: ClassVar[frozenset[str]] = frozenset({"root", "size", "policy", "previous_root"})

    chain_id: int
    contract: bytes
    epoch: int
    root: bytes
    size: int
    policy: bytes
    committee: bytes
    sequence: int
    previous_root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation(Statement):
    """A committee hands over to the next.

    Attributes:
      chain_id: of the chain.
      contract: address of the contract, 20 bytes.
      committee: id of the outgoing committee, which signs, 32 bytes.
      sequence: its term.
      incoming: id of the committee that takes office, with the next sequence, 32 bytes.
    """

    KIND: ClassVar[str] = "rotation"
    DOMAIN: ClassVar[bytes] = b"verifiable committee rotation 1"
    LAYOUT: ClassVar[Mapping[str, tuple[type, int]]] = _DEPLOYMENT | {
        "committee": _BYTES32,
        "sequence": _UINT64,
        "incoming": _BYTES32,
    }
    CONTENT: ClassVar[frozenset[str]] = frozenset({"incoming"})

    chain_id: int
    contract: bytes
    committee: bytes
    sequence: int
    incoming: bytes
