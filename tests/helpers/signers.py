"""Eight signers of BLS, what they signed, and ways to spoil it."""

import functools
from collections.abc import Callable
from typing import Any

from hypothesis import settings

from verifiable.bls import ProvenKey, PublicKey, SecretKey, Signature, SignedMessage, curve
from verifiable.errors import VerificationError

DOMAIN = b"verifiable/test/v1"
MESSAGE = b"epoch 7"
KEYS = [SecretKey.generate(bytes([i]) * 32) for i in range(8)]
PROVEN = [ProvenKey(key=k.public_key, possession=k.prove_possession()) for k in KEYS]
SIGNED = [k.sign(MESSAGE, domain=DOMAIN) for k in KEYS]


def accepted(check: Callable[[], object]) -> bool:
    """Whether a check passes; only the prover's fault counts as a rejection."""
    try:
        check()
    except VerificationError:
        return False
    return True


def proven(data: bytes) -> ProvenKey:
    """A proven key whose proof was never checked."""
    made = object.__new__(ProvenKey)
    for name, value in (("key", PublicKey(data)), ("possession", None), ("binding", b"")):
        object.__setattr__(made, name, value)
    return made


@functools.cache
def reference() -> curve.Curve:
    return curve.PyEcc()


def cheap(examples: int) -> Any:
    return settings(deadline=None, max_examples=examples)


def entries(count: int = 4) -> list[SignedMessage]:
    return [
        SignedMessage(k.public_key, bytes([i]), k.sign(bytes([i]), domain=DOMAIN))
        for i, k in enumerate(KEYS[:count])
    ]


def shifted(batch: list[SignedMessage], by: dict[int, int]) -> list[SignedMessage]:
    """Add multiples of one point to some signatures."""
    group = curve.active().g2
    error = curve.active().hash_to_g2(b"error", b"tests")
    batch = list(batch)
    for i, factor in by.items():
        entry = batch[i]
        shift = group.combine([error], [factor % curve.ORDER])
        moved = Signature.from_point(group.sum([entry.signature.point, shift]))
        batch[i] = SignedMessage(entry.key, entry.message, moved)
    return batch
