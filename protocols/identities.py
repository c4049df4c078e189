"""Registered workers: a public key and its signature algorithm.

The algorithm is fixed at registration; no message names one. A worker's name is the hash of
algorithm and key, so one key cannot be registered under two names.

The algorithm is Ed25519 (RFC 8032), verified as `cryptography` does: without the cofactor, and with
s below the group order. A key must be the canonical encoding of a curve point that is not of small
order: under a key of small order one signature can be valid for every message.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from verifiable.encoding import tagged_hash
from verifiable.errors import MalformedEncoding, require_bytes32


class Algorithm(enum.Enum):
    """Signature algorithm of an identity, fixed at registration."""

    ED25519 = "ed25519"


_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A registered worker: its key and its algorithm.

    Attributes:
      public_key: 32 bytes (RFC 8032): canonical, on the curve, and not of small order.
      algorithm: its signature algorithm.
      id: 32-byte name of the worker: hash of algorithm and key.

    Raises:
      MalformedEncoding: the key, which comes from a device, is not such a point.
    """

    public_key: bytes
    algorithm: Algorithm = Algorithm.ED25519
    id: bytes = field(init=False)
    _key: Ed25519PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the key, and name the worker."""
        key: Any = self.public_key
        require_bytes32("an Ed25519 key", key, MalformedEncoding)
        y = int.from_bytes(key, "little") & (1 << 255) - 1
        if y >= _P:
            raise MalformedEncoding("an Ed25519 key must have a coordinate below 2^255 - 19")
        if y in _SMALL_ORDER:
            raise MalformedEncoding("an Ed25519 key must not be a point of small order")
        # x^2 = (y^2 - 1) / (d y^2 + 1): a quotient is a square iff the product is (Euler).
        square = (y * y - 1) * (_D * y * y + 1) % _P
        if pow(square, (_P - 1) // 2, _P) != 1:
            raise MalformedEncoding("an Ed25519 key must be a point of the curve")
        object.__setattr__(self, "_key", Ed25519PublicKey.from_public_bytes(key))
        name = tagged_hash("worker identity", self.algorithm.value.encode(), key)
        object.__setattr__(self, "id", name)

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """Whether the identity's key verifies a signature over a digest."""
        try:
            self._key.verify(signature, digest)
        except InvalidSignature:
            return False
        return True
