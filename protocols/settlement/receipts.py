"""COSE Receipts (RFC 9942): an inclusion proof of a verdict that transparency tools can read.

A receipt is a COSE_Sign1 (RFC 9052) in which the issuer, whoever keeps the log, signs the root of
the tree with Ed25519. The proof travels in the unprotected header, the root not at all: whoever
verifies computes it from the verdict and the proof, so there is none to compare by mistake.

    18([ << {1: -8, 4: issuer, 395: 1, "epoch statement": words} >>,      protected
         {396: {-1: [ << [tree size, leaf index, [digest, ...]] >> ]}},   unprotected
         null,                                                            payload: detached
         signature ])            of ["Signature1", protected, h'', root]

RFC 9942 signs the root alone, and a proof for one size may verify for another. So the protected
header also holds the words of the epoch's statement, and root and size must be those of it: a
receipt says of which chain, contract and epoch it is, and tools that do not know this label skip
it. A receipt is its issuer's word. What the chain says is verified by `verdicts.verify_verdict`.

`decode` accepts one encoding of a receipt, this one. Format: specs/receipts.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import cbor2

from protocols.identities import Algorithm, Identity
from protocols.messages import InvalidSignature
from protocols.settlement.statements import EpochStatement
from protocols.settlement.verdicts import EpochLog, VerdictRecord, verify_verdict
from verifiable import encoding, merkle
from verifiable.errors import MalformedEncoding

MAX_SIZE: Final = 4096
"""The most bytes in a receipt: more than the longest path takes."""

_SIGN1: Final = 18
_ALG, _KID, _VDS, _VDP, _INCLUSION = 1, 4, 395, 396, -1
_EDDSA: Final = -8  # RFC 9053, as tools know it; with the key's type, Ed25519 and nothing else
_RFC9162_SHA256: Final = 1
_STATEMENT: Final = "epoch statement"
_MAX_PATH: Final = 64

# Where the fields are: after tag, array and head come 349 bytes of header, which end in the words.
_HEADER: Final = slice(5, 354)
_ISSUER, _WORDS = slice(6, 38), slice(-288, None)
_UNPROTECTED: Final = bytes.fromhex("a119018ca12081")  # {396: {-1: [ …
_TAIL: Final = 1 + 2 + 64  # null, head, signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A signed inclusion proof. That it is well-formed verifies nothing: `verify` does.

    Attributes:
      statement: of the epoch, as the issuer signed it; root and size are those of the proof.
      issuer: identity of who signed, 32 bytes.
      index: position of the verdict.
      path: inclusion proof, digests from the leaf upwards.
      signature: 64 bytes.
    """

    statement: EpochStatement
    issuer: bytes
    index: int
    path: tuple[bytes, ...]
    signature: bytes

    def __post_init__(self) -> None:
        """Refuse a field of another type, size or range (ValueError)."""
        if not (
            type(self.statement) is EpochStatement
            and _bytes(self.issuer, 32)
            and type(self.index) is int
            and 0 <= self.index < self.statement.size
            and type(self.path) is tuple
            and len(self.path) <= _MAX_PATH
            and all(_bytes(digest, merkle.DIGEST_SIZE) for digest in self.path)
            and _bytes(self.signature, 64)
        ):
            raise ValueError("a field of a receipt has another type, size or range")

    def encode(self) -> bytes:
        """The one encoding of this receipt, with tag 18 in front."""
        proof = _dumps([self.statement.size, self.index, list(self.path)])
        protected = _protected(self.issuer, self.statement)
        fields = [protected, {_VDP: {_INCLUSION: [proof]}}, None, self.signature]
        return _dumps(cbor2.CBORTag(_SIGN1, fields))

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read a receipt.

        Raises:
          MalformedEncoding: too long, not canonical, another algorithm, structure or header, or a
            payload that is not detached.
        """
        data = bytes(memoryview(data).cast("B")[: MAX_SIZE + 1])
        if len(data) > MAX_SIZE:
            raise MalformedEncoding(f"receipt has more than the {MAX_SIZE} bytes allowed")
        # Only the proof has no fixed length: the rest is cut out by position, not parsed.
        header, rest = data[_HEADER], data[_HEADER.stop : -_TAIL]
        proof: Any = encoding.decode(rest[len(_UNPROTECTED) :], max_size=MAX_SIZE)
        try:
            _, index, path = encoding.decode(proof, max_size=MAX_SIZE)
            receipt = cls(
                statement=EpochStatement.decode(header[_WORDS]),
                issuer=header[_ISSUER],
                index=index,
                path=tuple(path),
                signature=data[-64:],
            )
        except (TypeError, ValueError) as error:
            raise MalformedEncoding(f"not a receipt: {error}") from error
        # What is not a field is compared here: tags, labels, algorithms, order, heads, size.
        if receipt.encode() != data:
            raise MalformedEncoding("not a receipt in its canonical form, or of another kind")
        return receipt

    def verify(self, record: VerdictRecord, issuer: Identity) -> None:
        """Verify that an issuer signed that a verdict is among those of the statement's epoch.

        Raises:
          SettlementError: the verdict is of another epoch or policy.
          MalformedProof, RootMismatch: it is not at this position of the statement's tree.
          InvalidSignature: this issuer did not sign the root that the proof leads to.
        """
        statement = self.statement
        verify_verdict(record, index=self.index, proof=self.path, statement=statement)
        # The proof led to the statement's root, which is therefore the payload (RFC 9942, 5.2.1).
        signed = _signature_structure(_protected(self.issuer, statement), statement.root)
        if self.issuer != issuer.id or not issuer.verifies(self.signature, signed):
            raise InvalidSignature(worker=issuer.id, kind="receipt")


def issue_receipt(
    log: EpochLog,
    index: int,
    statement: EpochStatement,
    issuer: Identity,
    signer: Callable[[bytes], bytes],
) -> Receipt:
    """Make the receipt of one verdict.

    Args:
      log: the epoch's verdicts.
      index: which of them.
      statement: of that epoch.
      issuer: the identity that signs.
      signer: from bytes to a signature, such as `Ed25519PrivateKey.sign`.

    Raises:
      ValueError: no such verdict, a statement that is not of this log, or a signature that is not
        the issuer's.
    """
    if (log.tree.root, log.tree.size) != (statement.root, statement.size):
        raise ValueError("the statement is not of this log")
    signed = _signature_structure(_protected(issuer.id, statement), statement.root)
    signature = signer(signed)
    if issuer.algorithm is not Algorithm.ED25519 or not issuer.verifies(signature, signed):
        raise ValueError("the signer is not the issuer")
    return Receipt(
        statement=statement,
        issuer=issuer.id,
        index=index,
        path=log.inclusion(index),
        signature=signature,
    )


def _protected(issuer: bytes, statement: EpochStatement) -> bytes:
    return _dumps(
        {_ALG: _EDDSA, _KID: issuer, _VDS: _RFC9162_SHA256, _STATEMENT: statement.message}
    )


def _signature_structure(protected: bytes, payload: bytes) -> bytes:
    """What COSE_Sign1 signs (RFC 9052, 4.4), without external data."""
    return _dumps(["Signature1", protected, b"", payload])


def _dumps(value: object) -> bytes:
    # Keys are few and fixed: by length first, or bytewise, their order is the same.
    return cbor2.dumps(value, canonical=True)


def _bytes(value: Any, size: int) -> bool:
    return type(value) is bytes and len(value) == size
