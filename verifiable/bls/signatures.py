"""BLS signatures on BLS12-381: many signatures become one, of 96 bytes.

With a secret key x, S = x·H(m) signs m, and is valid iff e(x·g, H(m)) = e(g, S). Signatures add up,
and so do the keys of all signers of one message. The ciphersuite is Ethereum's,
BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_ of draft-irtf-cfrg-bls-signature. Where the draft leaves
a choice, this module is strict: every signature names its `domain`, so that no statement of one
kind passes for another; infinity is refused as key, as signature and as a sum of either; no signer
is counted twice in an aggregate; only a `ProvenKey` enters one.

Batch verification is the small exponents test (Bellare, Garay and Rabin 1998). Let D_i = S_i -
x_i·H(m_i), and w_i be uniform in 1 … 2^128 - 1, drawn when all signatures are fixed. If some D_i is
not 0, then Σ w_i·D_i = 0 with probability at most 1/(2^128 - 1), since r is prime and every point
was checked to lie in the subgroup. The sum is tested with one pairing for each key or for each
message, whichever share more:

    Π e(x_i·g, H(m_i))^w_i = e(g, Σ w_i·S_i)

If a batch fails, halving it finds the bad signatures (Law and Matt 2007).
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from verifiable.bls import curve
from verifiable.bls.keys import (
    DST,
    ProvenKey,
    PublicKey,
    Signature,
    SignatureError,
    framed,
)
from verifiable.errors import require_exact_type

WEIGHT_BITS = 128
"""Bits of the random weights of a batch; its soundness error is 1/(2^WEIGHT_BITS - 1)."""


class BadSignature(SignatureError):
    """A well-formed signature that does not verify for these keys and messages.

    Attributes:
      signature: the signature.
      signed: the pairs (public key, framed message) that it was checked against.
    """

    def __init__(self, signature: Signature, signed: Sequence[tuple[PublicKey, bytes]]):
        """Keep both sides."""
        self.signature, self.signed = signature, tuple(signed)
        super().__init__(
            f"{signature} does not verify for {len(self.signed)} key(s): (a) the message, the key "
            "or the domain differs from the signer's, or (b) it is forged"
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
    """A batch that contains signatures that do not verify.

    Attributes:
      report: the `BatchReport`, which lists their positions.
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
    """Verify one signature.

    Args:
      key: public key of the signer.
      message: the statement, of any length.
      signature: the signature.
      domain: kind and version of the statement, 1 to 255 bytes.

    Raises:
      BadSignature: it does not verify.
      TypeError: key or signature is of another type.
      ValueError: the domain is empty or longer than 255 bytes.
    """
    _judge([(require_exact_type("key", key, PublicKey), framed(message, domain))], signature)


def aggregate(signatures: Sequence[Signature]) -> Signature:
    """Return the sum of one or more signatures.

    The sum verifies if every summand does. The converse does not hold.

    Raises:
      ValueError: there are no signatures.
      InfiniteAggregate: they cancel out.
      TypeError: one of them is not a `Signature`.
    """
    if not signatures:
        raise ValueError("there is nothing to aggregate: pass at least one signature")
    points = [
        require_exact_type("signatures", signature, Signature).point for signature in signatures
    ]
    return Signature.from_point(curve.active().g2.sum(points))


def fast_aggregate_verify(
    keys: Sequence[ProvenKey], message: bytes, signature: Signature, *, domain: bytes
) -> None:
    """Verify one aggregate signature of all `keys` on one message: two pairings for any number.

    Args:
      keys: proven public keys of the signers, each once.
      message: the statement that all of them signed.
      signature: the aggregate.
      domain: kind and version of the statement, 1 to 255 bytes.

    Raises:
      BadSigners: there are no keys, or a key occurs twice.
      InfiniteAggregate: the keys cancel out.
      BadSignature: it does not verify.
      TypeError: a key is not a `ProvenKey`, or the signature not a `Signature`.
      ValueError: the domain is empty or longer than 255 bytes.
    """
    signers = [require_exact_type("keys", proven, ProvenKey).key for proven in keys]
    _distinct(signers)
    total = PublicKey.from_point(curve.active().g1.sum([key.point for key in signers]))
    _judge([(total, framed(message, domain))], signature)


def aggregate_verify(
    signed: Sequence[tuple[ProvenKey, bytes]], signature: Signature, *, domain: bytes
) -> None:
    """Verify one aggregate signature over pairs (key, message): a pairing for each, and one more.

    Args:
      signed: proven public keys and the message that each signed, each pair once.
      signature: the aggregate.
      domain: kind and version of the statements, 1 to 255 bytes.

    Raises:
      BadSigners: there are no pairs, or a pair occurs twice.
      BadSignature: it does not verify.
      TypeError: a key is not a `ProvenKey`, or the signature not a `Signature`.
      ValueError: the domain is empty or longer than 255 bytes.
    """
    pairs = [
        (require_exact_type("signed", proven, ProvenKey).key, framed(message, domain))
        for proven, message in signed
    ]
    _distinct(pairs)
    _judge(pairs, signature)


def _verifies(signed: Sequence[tuple[PublicKey, bytes]], signature: Signature, dst: bytes) -> bool:
    """CoreVerify and CoreAggregateVerify of the draft, for one or more pairs."""
    active = curve.active()
    hashed = [active.hash_to_g2(message, dst) for _, message in signed]
    return active.pairing_equation([key.point for key, _ in signed], hashed, signature.point)


def _judge(signed: Sequence[tuple[PublicKey, bytes]], signature: Signature) -> None:
    if not _verifies(signed, require_exact_type("signature", signature, Signature), DST):
        raise BadSignature(signature, signed)


def _distinct(signers: Sequence[Hashable]) -> None:
    """Raise BadSigners for an empty set of signers, or one that counts a signer twice."""
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
    """One entry of a batch. The key needs no proof of possession.

    Attributes:
      key: public key of the signer.
      message: the statement that it is claimed to have signed.
      signature: the signature.

    Raises:
      TypeError: one of them is of another type.
    """

    key: PublicKey
    message: bytes
    signature: Signature

    def __post_init__(self):
        """Require the exact types, whose constructors have checked the points."""
        require_exact_type("key", self.key, PublicKey)
        require_exact_type("message", self.message, bytes)
        require_exact_type("signature", self.signature, Signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """Result of verifying a batch.

    Attributes:
      size: number of signatures in the batch, at least 1.
      invalid: positions of the signatures that do not verify, ascending.
      tests: number of weighted tests made.
      bound: upper bound on the probability that a further signature does not verify.
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
    """Verify many independent signatures at once, and name the invalid ones.

    A valid signature is never named; an invalid one is missed with probability at most
    `report.bound`. Halving makes at most twice as many pairings as there are signatures; the
    entries undecided by then are verified one by one, so that forgeries cannot make a batch cost
    much more than a loop.

    Args:
      batch: the signatures, at least one.
      domain: kind and version of the statements, 1 to 255 bytes.

    Raises:
      ValueError: the batch is empty, or the domain is empty or longer than 255 bytes.
    """
    framed_batch = [(entry.key, framed(entry.message, domain), entry.signature) for entry in batch]
    return _find_invalid(framed_batch, DST)


def verify_batch(batch: Sequence[SignedMessage], *, domain: bytes) -> BatchReport:
    """Verify many independent signatures at once.

    Args:
      batch: the signatures, at least one.
      domain: kind and version of the statements, 1 to 255 bytes.

    Raises:
      BadBatch: some do not verify; its `report` names them.
      ValueError: the batch is empty, or the domain is empty or longer than 255 bytes.
    """
    report = find_invalid(batch, domain=domain)
    report.require()
    return report


def _find_invalid(batch: Sequence[tuple[PublicKey, bytes, Signature]], dst: bytes) -> BatchReport:
    if not batch:
        raise ValueError("the batch is empty: pass at least one signature")
    active = curve.active()
    messages = dict.fromkeys(message for _, message, _ in batch)
    hashed = {message: active.hash_to_g2(message, dst) for message in messages}
    tests, budget = 0, 2 * len(batch)

    def holds(part: range) -> bool:
        nonlocal tests
        entries = [batch[i] for i in part]
        if len(entries) > 1:
            tests += 1
            return _weighted_equation(entries, hashed)
        [(key, message, signature)] = entries
        return active.pairing_equation([key.point], [hashed[message]], signature.point)

    whole = range(len(batch))
    suspects = [] if holds(whole) else [whole]  # Each part contains an invalid signature.
    invalid: list[int] = []
    while suspects:
        part = suspects.pop()
        if len(part) == 1:
            invalid.extend(part)
        elif budget < len(part):
            invalid.extend(i for i in part if not holds(range(i, i + 1)))
        else:
            budget -= len(part)
            left, right = part[: len(part) // 2], part[len(part) // 2 :]
            left_holds = holds(left)
            # If the left half holds, the right one does not. Only single entries are ever named.
            if (left_holds and len(right) > 1) or not holds(right):
                suspects.append(right)
            if not left_holds:
                suspects.append(left)
    bound = tests / (2**WEIGHT_BITS - 1)
    return BatchReport(size=len(batch), invalid=tuple(sorted(invalid)), tests=tests, bound=bound)


def _weighted_equation(
    batch: Sequence[tuple[PublicKey, bytes, Signature]], hashed: dict[bytes, Any]
) -> bool:
    """Test the equation at the head of this module with fresh weights."""
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
