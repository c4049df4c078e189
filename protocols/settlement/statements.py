"""Statements that a committee signs: one for each epoch, and one for each rotation.

A statement is a fixed list of 32-byte words, big-endian, exactly as Solidity's `abi.encode` lays
out static types, so a contract can rebuild it from its own storage and a few arguments:

    epoch      chain id, contract, epoch, root, size, policy id,
               committee id, committee sequence, previous root
    rotation   chain id, contract, outgoing committee id, sequence, incoming committee id

The signed message is `bls.framed(words, domain)`. Each kind has its own domain, which includes its
version. Chain and contract, epoch and previous root, committee and sequence make every statement
unique, so a signature cannot be replayed. `Prepare`, `Lock` and `LockReport` are what members sign
before, to decide on one statement (`ballots`); no contract reads them. Format: specs/settlement.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from verifiable.bls import framed
from verifiable.errors import MalformedEncoding, VerificationError, received_bytes

REASONS: Final[Mapping[str, str]] = {
    "other-chain": "the statement is for another chain",
    "other-contract": "the statement is for another contract",
    "other-committee": "the statement names another committee than the one in office",
    "other-sequence": "the statement names another term of the committee in office",
    "epoch-settled": "the epoch is already settled",
    "epoch-ahead": "an earlier epoch is not settled yet",
    "other-previous-root": "the statement does not follow the last root settled",
    "other-incoming": "the rotation names another committee than the one that is to take office",
    "other-root": "the verdicts held have another root than the statement",
    "other-size": "the number of verdicts held differs from the statement's size",
    "other-policy": "a verdict or a statement names another policy",
    "already-signed": "the member has signed another statement for this place",
    "other-attempt": "the attempt is over, or the certificate is not for it",
    "other-choice": "the certificate, or the lock that it names, is for another statement",
    "bitmap-length": "the bitmap must have one bit for each member, rounded up to whole bytes",
    "bitmap-excess": "the bitmap has bits beyond the last member",
    "no-quorum": "the signers must have more than two thirds of the weight",
    "no-members": "a committee must have at least one member",
    "too-many-members": "a committee must have at most 256 members",
    "duplicate-key": "a key is in the committee twice",
    "unordered-members": "members must be in ascending order of their keys",
    "unregistered-key": "a key's proof of possession is not for this chain and contract",
    "other-registrant": "all keys of a committee must be registered by one account",
    "infinite-key": "the keys of a committee must not add up to infinity",
    "unknown-member": "the committee has no such member",
    "no-conflict": "the two votes do not contradict each other",
    "other-place": "the vote is for another epoch, term or contract than the statement in hand",
    "other-statement": "the vote is on another statement than the one in hand",
    "duplicate": "the vote was already received",
    "bad-signature": "the named member did not sign this statement",
    "unordered-verdicts": "verdicts must be in ascending order of job and worker, each once",
    "other-epoch": "a verdict and its log or statement name different epochs",
    "no-verdicts": "an epoch must have at least one verdict",
}
"""Every reason for which a settlement is refused, by its stable code."""


class SettlementError(VerificationError):
    """A part of a settlement is invalid.

    Attributes:
      reason: a code of `REASONS`.
      expected: the value required, if there are two values to compare.
      found: the value found.
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
    """A contract on a chain.

    Attributes:
      chain_id: chain id of EIP-155, positive, below 2^256.
      contract: address of the contract, 20 bytes.
    """

    chain_id: int
    contract: bytes

    def __post_init__(self) -> None:
        """Raises ValueError for a chain id out of range, or an address of another size."""
        if type(self.chain_id) is not int or not 0 < self.chain_id < 2**256:
            raise ValueError(f"a chain id must be an integer in (0, 2^256), got {self.chain_id!r}")
        if type(self.contract) is not bytes or len(self.contract) != 20:
            raise ValueError("the address of a contract must be 20 bytes")

    @property
    def words(self) -> bytes:
        """Chain id and contract as two words."""
        return self.chain_id.to_bytes(32, "big") + bytes(12) + self.contract


_UINT64, _BYTES32 = (int, 8), (bytes, 32)
_DEPLOYMENT: Final = {"chain_id": (int, 32), "contract": (bytes, 20)}
_POSITIVE: Final = frozenset({"chain_id", "size"})


class Statement:
    """Base of both kinds: fields as words, decoded strictly, and the place that they settle."""

    __slots__ = ()

    KIND: ClassVar[str]
    """Its name on the wire."""
    DOMAIN: ClassVar[bytes]
    """Domain of its signatures."""
    LAYOUT: ClassVar[Mapping[str, tuple[type, int]]]
    """Its fields in order, each with its type and the bytes that it uses at the end of a word."""
    CONTENT: ClassVar[frozenset[str]]
    """Fields that are not part of the place: a signer signs one value of them for each place."""

    chain_id: int
    contract: bytes
    committee: bytes
    sequence: int

    def __post_init__(self) -> None:
        """Raises ValueError for a field of a wrong type, size or range."""
        for name, (kind, width) in self.LAYOUT.items():
            value: Any = getattr(self, name)
            fits = type(value) is kind and (
                len(value) == width
                if kind is bytes
                else (name in _POSITIVE) <= value < 1 << 8 * width
            )
            if not fits:
                raise ValueError(
                    f"{name} of a statement has a wrong type, size or range: {value!r}"
                )

    @property
    def deployment(self) -> Deployment:
        """The contract of the statement."""
        return Deployment(chain_id=self.chain_id, contract=self.contract)

    @property
    def message(self) -> bytes:
        """Its words, which are signed under `DOMAIN`."""
        return b"".join(
            (value if type(value) is bytes else value.to_bytes(32, "big")).rjust(32, b"\0")
            for value in (getattr(self, name) for name in self.LAYOUT)
        )

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read the words of a statement: the inverse of `message`.

        Raises:
          MalformedEncoding: another length, a field wider than its type, a chain id or size of 0.
          TypeError: `data` is of another type, or this class is the base of both kinds.
        """
        kind_name(cls)
        data = received_bytes(data)
        if len(data) != 32 * len(cls.LAYOUT):
            raise MalformedEncoding(
                f"a statement of the kind {cls.KIND} must be {32 * len(cls.LAYOUT)} bytes"
            )
        fields: dict[str, Any] = {}
        for i, (name, (kind, width)) in enumerate(cls.LAYOUT.items()):
            padding, value = data[32 * i : 32 * i + 32 - width], data[32 * i + 32 - width :][:width]
            if any(padding):
                raise MalformedEncoding(f"{name} of a statement must fit {width} bytes")
            fields[name] = value if kind is bytes else int.from_bytes(value, "big")
        try:
            return cls(**fields)
        except ValueError as error:
            raise MalformedEncoding(str(error)) from error

    @property
    def digest(self) -> bytes:
        """Its 32-byte digest, which attempts name as their choice."""
        return hashlib.sha256(framed(self.message, self.DOMAIN)).digest()

    @property
    def place(self) -> tuple[object, ...]:
        """What it settles: a member that signs two statements for one place equivocates."""
        return tuple(getattr(self, name) for name in self.LAYOUT if name not in self.CONTENT)


def kind_name(kind: type[Statement]) -> str:
    """The name of a kind of statement on the wire.

    Raises:
      TypeError: it is not one kind, but another type or the base of several.
    """
    if not (isinstance(kind, type) and issubclass(kind, Statement) and hasattr(kind, "KIND")):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"expected one kind of statement, such as EpochStatement, got {kind!r}")
    return kind.KIND


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochStatement(Statement):
    """A statement of the verdicts of one epoch.

    Attributes:
      chain_id: id of the chain.
      contract: address of the contract, 20 bytes.
      epoch: its number; the first is 0, and each follows the one before.
      root: RFC 9162 root over the verdicts, SHA-256, 32 bytes.
      size: number of verdicts, at least 1.
      policy: id of the policy that all verdicts name, 32 bytes.
      committee: id of the committee that signs, 32 bytes.
      sequence: its term; the first committee has 0, and each rotation adds 1.
      previous_root: root of the epoch before, or zeros for the first epoch.
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
    """A statement by which a committee hands over to the next.

    Attributes:
      chain_id: id of the chain.
      contract: address of the contract, 20 bytes.
      committee: id of the outgoing committee, which signs, 32 bytes.
      sequence: its term.
      incoming: id of the committee that takes office in the next term, 32 bytes.
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


_ATTEMPT: Final = _DEPLOYMENT | {
    "committee": _BYTES32,
    "sequence": _UINT64,
    "epoch": _UINT64,
    "attempt": _UINT64,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStatement(Statement):
    """What a member signs in an attempt to decide on a statement.

    Attributes:
      chain_id: id of the chain.
      contract: address of the contract, 20 bytes.
      committee: id of the committee in office, which signs, 32 bytes.
      sequence: its term.
      epoch: number of the next epoch, also if the choice is a rotation.
      attempt: number of the attempt, from 0.
      choice: `digest` of the statement, 32 bytes.
    """

    CONTENT: ClassVar[frozenset[str]] = frozenset({"choice"})

    chain_id: int
    contract: bytes
    committee: bytes
    sequence: int
    epoch: int
    attempt: int
    choice: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare(AttemptStatement):
    """The member agrees with the choice, and prepares no other in this attempt."""

    KIND: ClassVar[str] = "prepare"
    DOMAIN: ClassVar[bytes] = b"verifiable settlement prepare 1"
    LAYOUT: ClassVar[Mapping[str, tuple[type, int]]] = _ATTEMPT | {"choice": _BYTES32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock(AttemptStatement):
    """The member saw more than two thirds prepare the choice, and locks it in this attempt."""

    KIND: ClassVar[str] = "lock"
    DOMAIN: ClassVar[bytes] = b"verifiable settlement lock 1"
    LAYOUT: ClassVar[Mapping[str, tuple[type, int]]] = _ATTEMPT | {"choice": _BYTES32}


@dataclass(frozen=True, slots=True, kw_only=True)
class LockReport(AttemptStatement):
    """The member's last lock when it left all attempts before this one.

    Attributes:
      locked: 1 + the attempt of its last lock, at most `attempt`; 0 without one.
      choice: what it locked; zeros without a lock.
    """

    KIND: ClassVar[str] = "report"
    DOMAIN: ClassVar[bytes] = b"verifiable settlement report 1"
    LAYOUT: ClassVar[Mapping[str, tuple[type, int]]] = _ATTEMPT | {
        "locked": _UINT64,
        "choice": _BYTES32,
    }
    CONTENT: ClassVar[frozenset[str]] = frozenset({"locked", "choice"})

    locked: int

    def __post_init__(self) -> None:
        """Raises ValueError also for a lock of this attempt or a later one."""
        Statement.__post_init__(self)
        if self.locked > self.attempt or not self.attempt or (self.locked == 0) == any(self.choice):
            raise ValueError("a report must be for an attempt from 1 and name an earlier lock")
