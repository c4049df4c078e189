"""BLS12-381 signatures: keys, aggregation, batch verification."""

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
    WEIGHT_BITS,
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
    "WEIGHT_BITS",
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
