"""Keys and signatures of BLS: types that hold valid points only.

A secret key is a scalar x, its public key x·g in G1; signatures and proofs of possession are points
of G2. `PublicKey`, `Signature` and `Possession` are parsed from bytes once. From then on they are
canonical, on the curve, in the subgroup of order r, and not infinity. None is taken for another.

An attacker that registers x·g - (another's key) could sign alone in both names (Ristenpart and
Yilek 2007, "the power of proofs-of-possession"). Therefore a `PublicKey` verifies single signatures
only, and an aggregate takes a `ProvenKey`, whose constructor checks a proof of possession.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from verifiable.bls import curve
from verifiable.bls.curve import InvalidPoint
from verifiable.errors import (
    VerificationError,
    received_bytes,
    require_bytes32,
    require_exact_type,
)

DST = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
"""Domain separation tag of signatures, which names the ciphersuite."""

POSSESSION_DST = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
"""Domain separation tag of proofs of possession."""


class SignatureError(VerificationError):
    """A signature, a proof of possession or a set of signers that does not verify."""


class BadPossession(SignatureError):
    """A proof of possession that does not verify.

    Attributes:
      key: the key that it is about.
      possession: the proof.
      binding: the context that the proof had to bind.
    """

    def __init__(self, key: PublicKey, possession: Possession, binding: bytes):
        """Keep both sides."""
        self.key, self.possession, self.binding = key, possession, binding
        super().__init__(
            f"{possession} does not prove possession of {key} in context {binding[:96].hex()!r}: "
            "(a) it was made for another key, chain, contract or registrant, or (b) it is forged"
        )


class InfiniteAggregate(SignatureError):
    """Keys or signatures whose sum is infinity, which their holders must have arranged."""


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A point that is canonical, on the curve, in the subgroup and not infinity.

    Attributes:
      encoded: compressed encoding, 48 or 96 bytes; equality and hash compare these bytes.
      point: the point, an opaque object of the library that parsed it.
    """

    encoded: bytes
    point: Any = field(init=False, compare=False)

    _group: ClassVar[str] = "g2"

    def __post_init__(self):
        """Parse the bytes; raises InvalidPoint, and TypeError unless they are bytes."""
        require_exact_type("encoded", self.encoded, bytes)
        group: curve.Group = getattr(curve.active(), self._group)
        if self.encoded == group.infinity:
            raise InvalidPoint(f"infinity is not a {type(self).__name__}", self.encoded)
        object.__setattr__(self, "point", group.decode(self.encoded))

    @classmethod
    def from_point(cls, point: Any) -> Self:
        """Wrap a combination of points that were checked; only infinity is checked here.

        Raises:
          InfiniteAggregate: the point is infinity.
        """
        group: curve.Group = getattr(curve.active(), cls._group)
        made = object.__new__(cls)
        object.__setattr__(made, "encoded", group.encode(point))
        object.__setattr__(made, "point", point)
        if made.encoded == group.infinity:
            raise InfiniteAggregate(f"infinity is not a {cls.__name__}: the summands cancel out")
        return made

    def affine(self) -> bytes:
        """Return x then y, big-endian, 48 bytes a number, real part first: the order of EIP-2537.

        96 bytes in G1, 192 in G2.
        """
        group: curve.Group = getattr(curve.active(), self._group)
        return group.affine(self.point)

    def eip2537(self) -> bytes:
        """Return `affine()` with each number padded to 64 bytes, as the EVM's precompiles read it.

        128 bytes in G1, 256 in G2 (EIP-2537).
        """
        numbers = self.affine()
        return b"".join(bytes(16) + numbers[i : i + 48] for i in range(0, len(numbers), 48))

    def __reduce__(self):
        """Copy and pickle as bytes, which are checked again when they are loaded."""
        return type(self), (self.encoded,)

    def __repr__(self) -> str:
        """Show all bytes."""
        return f"{type(self).__name__}({self.encoded.hex()})"

    def __str__(self) -> str:
        """Show a few bytes."""
        return f"{type(self).__name__}({self.encoded[:8].hex()}…)"


class PublicKey(_Encoded):
    """A point of G1, parsed from 48 bytes.

    Raises:
      InvalidPoint: the bytes are not the canonical encoding of such a point, or infinity.
      TypeError: the argument is not bytes.
    """

    __slots__ = ()
    _group: ClassVar[str] = "g1"


class Signature(_Encoded):
    """A point of G2, parsed from 96 bytes. It is well-formed; only `verify` says if it is valid.

    Raises:
      InvalidPoint: the bytes are not the canonical encoding of such a point, or infinity.
      TypeError: the argument is not bytes.
    """

    __slots__ = ()


class Possession(_Encoded):
    """A proof of possession: a point of G2, parsed like a `Signature`, but of its own type."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenKey:
    """A public key with a proof that its holder knows the secret key; making one checks the proof.

    Attributes:
      key: the public key.
      possession: the proof.
      binding: the context that the proof binds, such as chain, contract and registrant.
      domain: domain of a proof made for a contract, 1 to 127 bytes; empty for any other proof.

    Raises:
      BadPossession: the proof does not verify.
      ValueError: the domain is longer than 127 bytes.
      TypeError: the key or the proof is of another type.
    """

    key: PublicKey
    possession: Possession
    binding: bytes = b""
    domain: bytes = b""

    def __post_init__(self):
        """Check e(key, H(key || binding)) = e(g, possession), H with the tag of proofs."""
        require_exact_type("key", self.key, PublicKey)
        require_exact_type("possession", self.possession, Possession)
        active = curve.active()
        proven = _possession_message(self.key, self.binding, self.domain)
        hashed = active.hash_to_g2(proven, POSSESSION_DST)
        if not active.pairing_equation([self.key.point], [hashed], self.possession.point):
            raise BadPossession(self.key, self.possession, self.binding)


class SecretKey:
    """A scalar 0 < x < r. It is never printed, copied, pickled, or compared by value.

    The libraries below do not run in constant time: do not sign where an attacker can measure the
    time that it takes.

    Attributes:
      public_key: the public key x·g.
    """

    __slots__ = ("_scalar", "public_key")

    def __init__(self, scalar: int):
        """Make a key from its scalar; most callers use `generate` or `decode`.

        Raises:
          ValueError: the scalar is not strictly between 0 and r. The message does not show it.
        """
        if not 0 < scalar < curve.ORDER:
            raise ValueError("a secret key must be strictly between 0 and r")
        active = curve.active()
        self._scalar = scalar
        self.public_key = PublicKey.from_point(active.g1.combine([active.generator], [scalar]))

    @classmethod
    def generate(cls, entropy: bytes | None = None, *, info: bytes = b"") -> Self:
        """Derive a key by KeyGen of draft-irtf-cfrg-bls-signature.

        Args:
          entropy: at least 32 secret bytes; drawn from the operating system if None.
          info: further public input of the key, such as an index.

        Raises:
          ValueError: there are fewer than 32 bytes of entropy.
        """
        entropy = secrets.token_bytes(32) if entropy is None else entropy
        if len(entropy) < 32:
            raise ValueError(f"entropy must have at least 32 bytes, got {len(entropy)}")
        salt, scalar = b"BLS-SIG-KEYGEN-SALT-", 0
        while scalar == 0:
            salt = hashlib.sha256(salt).digest()
            # HKDF-SHA-256 (RFC 5869): extract, then the two blocks of expand that make 48 bytes.
            key = hmac.digest(salt, entropy + b"\0", "sha256")
            context = info + (48).to_bytes(2, "big")
            first = hmac.digest(key, context + b"\1", "sha256")
            second = hmac.digest(key, first + context + b"\2", "sha256")
            scalar = int.from_bytes((first + second)[:48], "big") % curve.ORDER
        return cls(scalar)

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read the 32 bytes that `encode` returned, big-endian.

        Raises:
          ValueError: another length, or a scalar that is not strictly between 0 and r.
          TypeError: `data` is of another type.
        """
        data = require_bytes32("a secret key", received_bytes(data))
        return cls(int.from_bytes(data, "big"))

    def encode(self) -> bytes:
        """Return the scalar as 32 bytes, big-endian. These bytes are the secret."""
        return self._scalar.to_bytes(32, "big")

    def sign(self, message: bytes, *, domain: bytes) -> Signature:
        """Sign `framed(message, domain)`.

        Args:
          message: the statement, of any length.
          domain: kind and version of the statement, 1 to 255 bytes.

        Raises:
          ValueError: the domain is empty or longer than 255 bytes.
        """
        return Signature.from_point(self.core_sign(framed(message, domain), DST))

    def prove_possession(self, binding: bytes = b"", *, domain: bytes = b"") -> Possession:
        """Prove knowledge of this key. Without binding and domain it is PopProve of the draft.

        Args:
          binding: context of the registration, such as chain, contract and registrant.
          domain: 1 to 127 bytes for a proof that a contract is to check (specs/bls.md).

        Raises:
          ValueError: the domain is longer than 127 bytes.
        """
        message = _possession_message(self.public_key, binding, domain)
        return Possession.from_point(self.core_sign(message, POSSESSION_DST))

    def core_sign(self, message: bytes, dst: bytes) -> Any:
        """Return the point x·H(message): CoreSign of the draft, without framing."""
        active = curve.active()
        return active.g2.combine([active.hash_to_g2(message, dst)], [self._scalar])

    def __repr__(self) -> str:
        """Show the public key only."""
        return f"SecretKey(of {self.public_key})"

    def __reduce__(self):
        """Refuse to be copied or pickled by accident."""
        raise TypeError("a secret key cannot be copied or pickled; use encode() to store it")


def framed(message: bytes, domain: bytes) -> bytes:
    """Return the bytes that are signed: the length of `domain` in one byte, `domain`, `message`.

    Args:
      message: the statement, of any length.
      domain: kind and version of the statement, 1 to 255 bytes.

    Raises:
      ValueError: the domain is empty or longer than 255 bytes.
    """
    if not 1 <= len(domain) <= 255:
        raise ValueError(f"a domain has 1 to 255 bytes, got {len(domain)}")
    return bytes([len(domain)]) + domain + message


def _possession_message(key: PublicKey, binding: bytes, domain: bytes) -> bytes:
    """Return the bytes hashed to prove possession of a key; no two contexts give the same bytes.

    The first bit tells the two forms apart: a compressed key sets it, a length below 128 does not.
    """
    if not domain:
        return key.encoded + binding
    if len(domain) > 127:
        raise ValueError(f"the domain of a proof has at most 127 bytes, got {len(domain)}")
    return framed(key.eip2537() + binding, domain)
