"""COSE Receipts (RFC 9942): an inclusion proof of a verdict that transparency tools can read.

A receipt is a COSE_Sign1 (RFC 9052) in which the issuer, the keeper of the log, signs the root of
the tree with Ed25519. The proof is in the unprotected header. The root is not in the receipt: the
verifier computes it from the verdict and the proof.

    18([ << {1: -8, 4: issuer, 395: 1, "epoch statement": words} >>,      protected
         {396: {-1: [ << [tree size, leaf index, [digest, ...]] >> ]}},   unprotected
         null,                                                            payload: detached
         signature ])            of ["Signature1", protected, h'', root]

RFC 9942 signs only the root, and a proof for one size may verify for another. So the protected
header also holds the words of the epoch's statement, whose root and size must be the proof's: a
receipt names its chain, contract and epoch. Tools that do not know this label skip it. A receipt is
its issuer's word; `verdicts.verify_verdict` verifies a verdict against a statement of the chain.

`decode` accepts exactly one encoding of a receipt. Format: specs/receipts.md.
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
from verifiable import encoding
from verifiable.errors import MalformedEncoding, is_bytes32, received_bytes

MAX_SIZE: Final = 4096
"""The most bytes in a receipt; enough for the longest path."""

_SIGN1: Final = 18
_ALG, _KID, _VDS, _VDP, _INCLUSION = 1, 4, 395, 396, -1
_EDDSA: Final = -8  # RFC 9053; the type of the issuer's key makes it Ed25519
_RFC9162_SHA256: Final = 1
_STATEMENT: Final = "epoch statement"
_MAX_PATH: Final = 64

# Tag, array and head take 5 bytes; then come 349 bytes of header, which end in the words.
_HEADER: Final = slice(5, 354)
_ISSUER, _WORDS = slice(6, 38), slice(-288, None)
_UNPROTECTED: Final = bytes.fromhex("a119018ca12081")  # {396: {-1: [ …
_TAIL: Final = 1 + 2 + 64  # null, head, signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A signed inclusion proof, not verified: `verify` verifies it.

    Attributes:
      statement: statement of the epoch, as the issuer signed it, with root and size of the proof.
      issuer: identity of the signer, 32 bytes.
      index: position of the verdict in the tree.
      path: inclusion proof, digests from the leaf upwards.
      signature: 64 bytes.
    """

    statement: EpochStatement
    issuer: bytes
    index: int
    path: tuple[bytes, ...]
    signature: bytes

    def __post_init__(self) -> None:
        """Raises ValueError for a field of a wrong type, size or range."""
        if not (
            type(self.statement) is EpochStatement
            and is_bytes32(self.issuer)
            and type(self.index) is int
            and 0 <= self.index < self.statement.size
            and type(self.path) is tuple
            and len(self.path) <= _MAX_PATH
            and all(map(is_bytes32, self.path))
            and type(self.signature) is bytes
            and len(self.signature) == 64
        ):
            raise ValueError("a field of a receipt has a wrong type, size or range")

    def encode(self) -> bytes:
        """The one encoding of this receipt, with tag 18 in front."""
        proof = cbor2.dumps([self.statement.size, self.index, list(self.path)])
        protected = _protected(self.issuer, self.statement)
        fields = [protected, {_VDP: {_INCLUSION: [proof]}}, None, self.signature]
        return cbor2.dumps(cbor2.CBORTag(_SIGN1, fields))

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read a receipt.

        Raises:
          MalformedEncoding: too long, not canonical, another algorithm, structure or header, or a
            payload that is not detached.
          TypeError: `data` is of another type.
        """
        data = received_bytes(data, most=MAX_SIZE)
        if len(data) > MAX_SIZE:
            raise MalformedEncoding(f"receipt has more than the {MAX_SIZE} bytes allowed")
        # Only the proof has a variable length: other fields are cut out by position, not parsed.
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
            raise MalformedEncoding(f"expected a receipt: {error}") from error
        # This compares everything that is not a field: tags, labels, algorithms, order, heads.
        if receipt.encode() != data:
            raise MalformedEncoding("expected a receipt in its one encoding")
        return receipt

    def verify(self, record: VerdictRecord, issuer: Identity) -> None:
        """Verify that an issuer signed that the statement's epoch includes a verdict.

        Raises:
          SettlementError: the verdict is of another epoch or policy.
          MalformedProof, RootMismatch: the verdict is not at this position of the statement's tree.
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
    """Issue the receipt of one verdict.

    Args:
      log: the verdicts of an epoch.
      index: position of the verdict.
      statement: the statement of that epoch.
      issuer: the identity that signs.
      signer: takes bytes and returns a signature, such as `Ed25519PrivateKey.sign`.

    Raises:
      ValueError: no such verdict, a statement of another log, or a signature of another key.
    """
    if (log.tree.root, log.tree.size) != (statement.root, statement.size):
        raise ValueError("the statement is not of this log: its root or size differs")
    signed = _signature_structure(_protected(issuer.id, statement), statement.root)
    signature = signer(signed)
    if issuer.algorithm is not Algorithm.ED25519 or not issuer.verifies(signature, signed):
        raise ValueError("the signer is not the issuer: the issuer's key does not verify it")
    return Receipt(
        statement=statement,
        issuer=issuer.id,
        index=index,
        path=log.inclusion(index),
        signature=signature,
    )


def _protected(issuer: bytes, statement: EpochStatement) -> bytes:
    # Canonical, as the keys are in ascending order: shorter ones first, then bytewise.
    return cbor2.dumps(
        {_ALG: _EDDSA, _KID: issuer, _VDS: _RFC9162_SHA256, _STATEMENT: statement.message}
    )


def _signature_structure(protected: bytes, payload: bytes) -> bytes:
    """The Sig_structure that COSE_Sign1 signs (RFC 9052, 4.4), without external data."""
    return cbor2.dumps(["Signature1", protected, b"", payload])
