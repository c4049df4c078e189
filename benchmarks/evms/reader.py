"""What Python says of calldata: a transcription of specs/contract.md, over `protocols.settlement`.

Calldata is read as the contract's ABI lays it out. Beyond its end there are zeros, and offsets wrap
around, as in the EVM; a value that does not fit its type refuses the call without a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from protocols.contracts import calldata
from protocols.settlement.committee import Committee
from protocols.settlement.statements import EpochStatement, Rotation, SettlementError
from protocols.settlement.submission import (
    Head,
    SettlementSubmission,
    verify_epoch,
    verify_rotation,
)
from verifiable import bls, merkle
from verifiable.bls import Signature
from verifiable.errors import MalformedProof, RootMismatch

BEFORE_SIZE = frozenset(
    "other-chain other-contract epoch-settled epoch-ahead other-committee other-sequence "
    "other-previous-root".split()
)
SIGNERS = frozenset({"bitmap-length", "bitmap-excess", "no-quorum"})
NAMES = {selector: name for name, selector in calldata.SELECTORS.items()}


class Untyped(Exception):
    """A value does not fit its type."""


@dataclass(frozen=True)
class Words:
    """The arguments of a call."""

    data: bytes

    def bytes_at(self, at: int, size: int) -> bytes:
        """Bytes of the arguments; zeros beyond their end."""
        at = (at + 4) % 2**256
        return (b"selector"[:4] + self.data)[at : at + size].ljust(size, b"\0")

    def uint(self, at: int, bits: int = 256) -> int:
        """The word at an offset. Raises Untyped if it is wider than its type."""
        value = int.from_bytes(self.bytes_at(at, 32), "big")
        if value >> bits:
            raise Untyped
        return value

    def dynamic(self, at: int, most: int, each: int) -> bytes:
        """An array or bytes, whose offset is at `at`. Raises Untyped for more than `most`."""
        start = self.uint(at)
        size = self.uint(start)
        if size > most:
            raise Untyped
        return self.bytes_at(start + 32, each * size)


@dataclass
class Ledger:
    """The state of the contract as Python follows it.

    Attributes:
      head: what the next submission is judged by.
      staged: committees whose members an account has registered.
      epochs: root and size of each settled epoch.
      known: signatures by their EIP-2537 encoding: every other is a point off the curve or outside
        its subgroup.
    """

    head: Head
    staged: dict[bytes, Committee] = field(default_factory=dict)
    epochs: list[tuple[bytes, int]] = field(default_factory=list)
    known: dict[bytes, Signature] = field(default_factory=dict)

    def submit(self, data: bytes, sender: bytes) -> tuple[str | None, Callable[[], None]]:
        """The reason for which a call must be refused, or None, and what it changes then.

        A reason of "" is a refusal without one: by a type or a precompile.
        """
        words = Words(data[4:])
        try:
            match NAMES.get(data[:4]):
                case "settle" if len(data) >= 4 + 18 * 32:
                    return self._settle(words)
                case "rotate" if len(data) >= 4 + 14 * 32:
                    return self._rotate(words, sender)
                case "verify_inclusion" if len(data) >= 4 + 4 * 32:
                    return self._inclusion(words), _nothing
                case _:
                    return "", _nothing
        except Untyped:
            return "", _nothing

    def _settle(self, words: Words) -> tuple[str | None, Callable[[], None]]:
        fields = _statement(words, EpochStatement)
        bitmap, raw = words.dynamic(9 * 32, 32, 1), words.bytes_at(10 * 32, 256)
        if not fields["chain_id"]:
            return "other-chain", _nothing
        stated = EpochStatement(**fields | {"size": max(fields["size"], 1)})
        sent, flaw = self._submission(stated, bitmap, raw)
        reason = _reason(lambda: verify_epoch(sent, self.head), bitmap)
        if not fields["size"] and reason not in BEFORE_SIZE:
            reason = "no-verdicts"

        def settle() -> None:
            self.head = verify_epoch(sent, self.head)
            self.epochs.append((stated.root, stated.size))

        return _flawed(reason, flaw), settle

    def _rotate(self, words: Words, sender: bytes) -> tuple[str | None, Callable[[], None]]:
        fields = _statement(words, Rotation)
        bitmap, raw = words.dynamic(5 * 32, 32, 1), words.bytes_at(6 * 32, 256)
        if not fields["chain_id"]:
            return "other-chain", _nothing
        stated, staged = Rotation(**fields), self.staged.get(sender)
        sent, flaw = self._submission(stated, bitmap, raw)
        # The contract checks the incoming committee after the signers, Python before.
        named = replace(stated, incoming=self.head.committee.id)
        reason = _reason(
            lambda: verify_rotation(replace(sent, statement=named), self.head, self.head.committee),
            bitmap,
        )
        if reason in (None, "bad-signature", "infinite-key"):
            if staged is None:
                return "no-members", _nothing
            reason = _reason(lambda: verify_rotation(sent, self.head, staged), bitmap)

        def rotate() -> None:
            assert staged is not None
            self.head = verify_rotation(sent, self.head, staged)
            del self.staged[sender]

        return _flawed(reason, flaw), rotate

    def _inclusion(self, words: Words) -> str | None:
        epoch, index = words.uint(0, 64), words.uint(32, 64)
        leaf = words.dynamic(64, calldata.MAX_LEAF, 1)
        digests = words.dynamic(96, calldata.MAX_PROOF, 32)
        if epoch >= len(self.epochs):
            return "epoch-ahead"
        root, size = self.epochs[epoch]
        if index >= size:
            return "no-such-verdict"
        try:
            merkle.verify_inclusion(
                [digests[i : i + 32] for i in range(0, len(digests), 32)],
                leaf=merkle.SHA256.leaf(leaf),
                index=index,
                size=size,
                root=root,
                suite=merkle.SHA256,
            )
        except MalformedProof:
            return "proof-length"
        except RootMismatch:
            return "root-mismatch"
        return None

    def _submission(
        self, stated: Any, bitmap: bytes, raw: bytes
    ) -> tuple[SettlementSubmission[Any], str | None]:
        """The submission, and the reason for which its signature can be none."""
        flaw = None if raw in self.known else "" if any(raw) else "infinite-signature"
        signature = self.known[raw] if flaw is None else next(iter(self.known.values()))
        return SettlementSubmission(
            statement=stated, signature=signature, bitmap=bitmap or b"\0"
        ), flaw


def _statement(words: Words, kind: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for i, (name, (form, width)) in enumerate(kind.LAYOUT.items()):
        value = words.uint(32 * i, 8 * width)
        fields[name] = value.to_bytes(width, "big") if form is bytes else value
    return fields


def _reason(verify: Callable[[], object], bitmap: bytes) -> str | None:
    """The reason for which Python refuses a submission, as the contract names it."""
    try:
        verify()
    except SettlementError as error:
        # No submission has an empty bitmap: it stands as one byte, and its length is wrong.
        return "bitmap-length" if error.reason in SIGNERS and not bitmap else error.reason
    except bls.BadSignature:
        return "bad-signature"
    except bls.InfiniteAggregate:
        return "infinite-key"
    return None


def _flawed(reason: str | None, flaw: str | None) -> str | None:
    """The reason, where the signature is one that Python cannot even read."""
    return flaw if flaw is not None and reason in (None, "bad-signature") else reason


def _nothing() -> None:
    """A refused call, or one that reads, changes nothing."""
