"""BLS signatures on BLS12-381: many signatures become one, of 96 bytes.

With a secret key x, S = x·H(m) signs m, and is valid iff e(x·g, H(m)) = e(g, S). Signatures add up,
and so do the keys of those who sign one message. The ciphersuite is that of Ethereum,
BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_ of draft-irtf-cfrg-bls-signature. Where the draft leaves
a choice, this module is strict: every signature names its `domain`, so that no statement of one
kind passes for another; infinity is neither key nor signature, nor the sum of any; nobody signs
twice in an aggregate; only a `ProvenKey` enters one.

Batch verification is the small exponents test (Bellare, Garay and Rabin 1998). Let D_i = S_i -
x_i·H(m_i), and w_i be uniform in 1 … 2^128 - 1, drawn when all signatures are fixed. If some D_i is
not 0, then Σ w_i·D_i = 0 with probability at most 1/(2^128 - 1), since r is prime and every point
was checked to lie in the subgroup. The sum is tested with one pairing for each key or for each
message, whichever share more:

    Π e(x_i·g, H(m_i))^w_i = e(g, Σ w_i·S_i)

Halving a batch that fails names its bad signatures (Law and Matt 2007).
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from verifiable.bls import curve
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
    expect,
    framed,
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

WEIGHT_BITS = 128
"""Size of the random weights of a batch: the base-2 logarithm of its soundness."""


class BadSignature(SignatureError):
    """A well-formed signature that is none of these keys on these messages.

    Attributes:
      signature: what was checked.
      signed: the pairs (public key, framed message) that it was checked against.
    """

    def __init__(self, signature: Signature, signed: Sequence[tuple[PublicKey, bytes]]):
        """Keep both sides."""
        self.signature, self.signed = signature, tuple(signed)
        super().__init__(
            f"{signature} does not verify for {len(self.signed)} key(s): (a) a message, a key or "
            "the domain is not what was signed, or (b) it is forged"
        )


class BadSigners(SignatureError):
    """A set of signers that cannot be aggregated.

    Attributes:
      reason: "no-signers" or "duplicate-signer".
      index: the position of the repeated signer, or None.
    """

    def __init__(self, reason: str, index: int | None = None):
        """Keep the reason code."""
        self.reason, self.index = reason, index
        super().__init__(reason if index is None else f"{reason} at position {index}")


class BadBatch(SignatureError):
    """A batch with signatures that do not verify.

    Attributes:
      report: the `BatchReport` that names them.
    """

    def __init__(self, report: BatchReport):
        """Keep the report."""
        self.report = report
        super().__init__(
            f"{len(report.invalid)} of {report.size} signatures do not verify, "
            f"the first at position {report.invalid[0]}"
        )


# --------------------------------------------------------------------- one signature, or one sum


def verify(key: PublicKey, message: bytes, signature: Signature, *, domain: bytes) -> None:
    """Verify one signature. Raises BadSignature."""
    _judge([(expect(key, PublicKey), framed(message, domain))], signature)


def aggregate(signatures: Sequence[Signature]) -> Signature:
    """Return the sum of signatures.

    It verifies if all of them do. That it verifies does not mean that each of them does.

    Raises:
      ValueError: there are none.
      InfiniteAggregate: they cancel out.
    """
    if not signatures:
        raise ValueError("there is nothing to aggregate")
    points = [expect(signature, Signature).point for signature in signatures]
    return Signature.from_point(curve.active().g2.sum(points))


def fast_aggregate_verify(
    keys: Sequence[ProvenKey], message: bytes, signature: Signature, *, domain: bytes
) -> None:
    """Verify one signature of all `keys` on one message: two pairings, however many keys.

    Raises:
      BadSigners: no keys, or a key that occurs twice.
      InfiniteAggregate: the keys cancel out.
      BadSignature: it does not verify.
    """
    signers = [expect(proven, ProvenKey).key for proven in keys]
    _distinct(signers)
    total = PublicKey.from_point(curve.active().g1.sum([key.point for key in signers]))
    _judge([(total, framed(message, domain))], signature)


def aggregate_verify(
    signed: Sequence[tuple[ProvenKey, bytes]], signature: Signature, *, domain: bytes
) -> None:
    """Verify one signature of pairs (key, message): a pairing for each, and one more.

    Raises:
      BadSigners: no pairs, or a pair that occurs twice.
      BadSignature: it does not verify.
    """
    pairs = [(expect(proven, ProvenKey).key, framed(message, domain)) for proven, message in signed]
    _distinct(pairs)
    _judge(pairs, signature)


def _verifies(signed: Sequence[tuple[PublicKey, bytes]], signature: Signature, dst: bytes) -> bool:
    """CoreVerify and CoreAggregateVerify of the draft, of one or more pairs."""
    active = curve.active()
    hashed = [active.hash_to_g2(message, dst) for _, message in signed]
    return active.pairing_equation([key.point for key, _ in signed], hashed, signature.point)


def _judge(signed: Sequence[tuple[PublicKey, bytes]], signature: Signature) -> None:
    if not _verifies(signed, expect(signature, Signature), DST):
        raise BadSignature(signature, signed)


def _distinct(signers: Sequence[Hashable]) -> None:
    """Refuse an empty set of signers, and one that counts a signer twice."""
    if not signers:
        raise BadSigners("no-signers")
    seen: set[Hashable] = set()
    for index, signer in enumerate(signers):
        if signer in seen:
            raise BadSigners("duplicate-signer", index)
        seen.add(signer)


# ----------------------------------------------------------------------------------------- batch


@dataclass(frozen=True, slots=True)
class SignedMessage:
    """One entry of a batch: a signature and what it is claimed to sign. The key needs no proof."""

    key: PublicKey
    message: bytes
    signature: Signature

    def __post_init__(self):
        """Refuse other types, which would not carry the checks."""
        expect(self.key, PublicKey)
        expect(self.message, bytes)
        expect(self.signature, Signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """What a batch verification found.

    Attributes:
      size: how many signatures were in the batch, one or more.
      invalid: positions of those that do not verify, ascending.
      tests: how many weighted tests were made.
      bound: the probability, at most, that yet another one does not verify.
    """

    size: int
    invalid: tuple[int, ...]
    tests: int
    bound: float

    def require(self) -> None:
        """Raise BadBatch unless all signatures verify."""
        if self.invalid:
            raise BadBatch(self)


def find_invalid(batch: Sequence[SignedMessage], *, domain: bytes) -> BatchReport:
    """Verify many independent signatures at once, and name those that do not verify.

    A valid signature is never named; an invalid one goes unnamed with probability `report.bound`.
    Halving makes at most twice as many pairings as there are signatures; what is undecided by then
    is verified one by one, so that forgeries cannot make a batch much dearer than a loop.

    Raises:
      ValueError: the batch is empty.
    """
    framed_batch = [(entry.key, framed(entry.message, domain), entry.signature) for entry in batch]
    return _find_invalid(framed_batch, DST)


def verify_batch(batch: Sequence[SignedMessage], *, domain: bytes) -> BatchReport:
    """Verify many independent signatures at once. Raises BadBatch; ValueError if it is empty."""
    report = find_invalid(batch, domain=domain)
    report.require()
    return report


def _find_invalid(batch: Sequence[tuple[PublicKey, bytes, Signature]], dst: bytes) -> BatchReport:
    if not batch:
        raise ValueError("an empty batch shows nothing")
    active = curve.active()
    messages = dict.fromkeys(message for _, message, _ in batch)
    hashed = {message: active.hash_to_g2(message, dst) for message in messages}
    tests, budget = 0, 2 * len(batch)

    def holds(part: range) -> bool:
        nonlocal tests
        if len(part) > 1:
            tests += 1
            return _weighted_equation([batch[i] for i in part], hashed)
        key, message, signature = batch[part[0]]
        return active.pairing_equation([key.point], [hashed[message]], signature.point)

    whole = range(len(batch))
    suspects = [] if holds(whole) else [whole]  # Every part in it has an invalid signature.
    invalid: list[int] = []
    while suspects:
        part = suspects.pop()
        if len(part) == 1:
            invalid.append(part[0])
        elif budget < len(part):
            invalid.extend(i for i in part if not holds(range(i, i + 1)))
        else:
            budget -= len(part)
            left, right = part[: len(part) // 2], part[len(part) // 2 :]
            left_holds = holds(left)
            # If the left half holds, the right one does not. Whoever is named was verified alone.
            if (left_holds and len(right) > 1) or not holds(right):
                suspects.append(right)
            if not left_holds:
                suspects.append(left)
    bound = tests / (2**WEIGHT_BITS - 1)
    return BatchReport(size=len(batch), invalid=tuple(sorted(invalid)), tests=tests, bound=bound)


def _weighted_equation(
    batch: Sequence[tuple[PublicKey, bytes, Signature]], hashed: dict[bytes, Any]
) -> bool:
    """Test the equation of the module's docstring with fresh weights."""
    active = curve.active()
    weights = [1 + secrets.randbelow(2**WEIGHT_BITS - 1) for _ in batch]
    of_key = Counter(key for key, _, _ in batch)
    of_message = Counter(message for _, message, _ in batch)
    by_key: dict[PublicKey, list[tuple[Any, int]]] = defaultdict(list)
    by_message: dict[bytes, list[tuple[Any, int]]] = defaultdict(list)
    for (key, message, _), weight in zip(batch, weights, strict=True):
        if of_key[key] > of_message[message]:
            by_key[key].append((hashed[message], weight))
        else:
            by_message[message].append((key.point, weight))
    ps = [key.point for key in by_key]
    qs = [active.g2.combine(*zip(*terms, strict=True)) for terms in by_key.values()]
    ps += [active.g1.combine(*zip(*terms, strict=True)) for terms in by_message.values()]
    qs += [hashed[message] for message in by_message]
    total = active.g2.combine([signature.point for _, _, signature in batch], weights)
    return active.pairing_equation(ps, qs, total)
