"""BLS signatures on BLS12-381: many signatures become one, and batches verify at once.

    key = SecretKey.generate()                                       # signer: a secret scalar
    proven = ProvenKey(key=key.public_key, possession=key.prove_possession())
    signature = key.sign(b"statement", domain=b"example v1")         # signer: 96 bytes
    verify(key.public_key, b"statement", signature, domain=b"example v1")
    total = aggregate([signature])                                   # of one or many signers
    fast_aggregate_verify([proven], b"statement", total, domain=b"example v1")

    keys         secret and public keys, signatures, proofs of possession: types that check
    signatures   verify one signature, an aggregate, or a batch
    curve        the groups and the pairing, behind one interface for two libraries

A signature that does not verify raises a `SignatureError`, malformed bytes raise `InvalidPoint`.
Specification: specs/bls.md.
"""

from __future__ import annotations

from verifiable.bls.curve import InvalidPoint
from verifiable.bls.keys import (
    DST,
    POSSESSION_DST,
    BadPossession,
    InfiniteAggregate,
    Possession,
    ProvenKey,
    PublicKey,
    SecretKey,
    Signature,
    SignatureError,
    framed,
)
from verifiable.bls.signatures import (
    BadBatch,
    BadSignature,
    BadSigners,
    BatchReport,
    SignedMessage,
    aggregate,
    aggregate_verify,
    fast_aggregate_verify,
    find_invalid,
    verify,
    verify_batch,
)

__all__ = [
    "DST",
    "POSSESSION_DST",
    "BadBatch",
    "BadPossession",
    "BadSignature",
    "BadSigners",
    "BatchReport",
    "InfiniteAggregate",
    "InvalidPoint",
    "Possession",
    "ProvenKey",
    "PublicKey",
    "SecretKey",
    "Signature",
    "SignatureError",
    "SignedMessage",
    "aggregate",
    "aggregate_verify",
    "fast_aggregate_verify",
    "find_invalid",
    "framed",
    "verify",
    "verify_batch",
]
