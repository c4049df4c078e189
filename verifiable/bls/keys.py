"""Keys and signatures of BLS, as types that cannot hold what must not be trusted.

A secret key is a scalar x, its public key x·g in G1; signatures and proofs of possession are points
of G2. `PublicKey`, `Signature` and `Possession` are parsed from bytes once, and are from then on
canonical, on the curve, in the subgroup of order r, and not infinity. None is taken for another.

Whoever registers x·g - (another's key) signs alone in both names (Ristenpart and Yilek 2007, "the
power of proofs-of-possession"). So a `PublicKey` verifies what it alone signed, and only a
`ProvenKey`, whose constructor checks a proof of possession, can enter an aggregate.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

from verifiable.bls import curve
from verifiable.bls.curve import InvalidPoint
from verifiable.errors import VerificationError

DST = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
"""Domain separation tag of signatures, which names the ciphersuite."""

POSSESSION_DST = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
"""Domain separation tag of proofs of possession."""

T = TypeVar("T")


class SignatureError(VerificationError):
    """A signature, a proof of possession or a set of signers that does not verify."""


class BadPossession(SignatureError):
    """A proof of possession that does not verify.

    Attributes:
      key: the key that it is about.
      possession: the proof.
      binding: the context that it had to bind.
    """

    def __init__(self, key: PublicKey, possession: Possession, binding: bytes):
        """Keep both sides."""
        self.key, self.possession, self.binding = key, possession, binding
        super().__init__(
            f"{possession} does not prove possession of {key} in context {binding[:96].hex()!r}: "
            "(a) it was made for another key, chain, contract or registrant, or (b) nobody holds "
            "the key"
        )


class InfiniteAggregate(SignatureError):
    """Keys or signatures that cancel out: their holders chose them to."""


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A point that is canonical, on the curve, in the subgroup and not infinity.

    Attributes:
      encoded: its compressed encoding; equality and hash are those of these bytes.
      point: the point itself, opaque, for the library that parsed it.
    """

    encoded: bytes
    point: Any = field(init=False, repr=False, compare=False)

    _group: ClassVar[str] = "g2"

    def __post_init__(self):
        """Parse the bytes; InvalidPoint says what is wrong with them."""
        expect(self.encoded, bytes)
        group: curve.Group = getattr(curve.active(), self._group)
        if self.encoded == group.infinity:
            raise InvalidPoint(f"infinity is no {type(self).__name__}", self.encoded)
        object.__setattr__(self, "point", group.decode(self.encoded))

    @classmethod
    def from_point(cls, point: Any) -> Self:
        """Wrap a combination of checked points, for which only infinity is left to exclude.

        Raises:
          InfiniteAggregate: it is infinity.
        """
        group: curve.Group = getattr(curve.active(), cls._group)
        made = object.__new__(cls)
        object.__setattr__(made, "encoded", group.encode(point))
        object.__setattr__(made, "point", point)
        if made.encoded == group.infinity:
            raise InfiniteAggregate(f"infinity is no {cls.__name__}: the summands cancel out")
        return made

    def affine(self) -> bytes:
        """Return big-endian x then y, 48 bytes a number, real part first: the order of EIP-2537."""
        group: curve.Group = getattr(curve.active(), self._group)
        return group.affine(self.point)

    def eip2537(self) -> bytes:
        """Return `affine()` with each number padded to 64 bytes, as the precompiles take it.

        128 bytes in G1, 256 in G2.
        """
        numbers = self.affine()
        return b"".join(bytes(16) + numbers[i : i + 48] for i in range(0, len(numbers), 48))

    def __reduce__(self):
        """Copy and pickle as bytes, which are checked anew."""
        return type(self), (self.encoded,)

    def __repr__(self) -> str:
        """Show all bytes."""
        return f"{type(self).__name__}({self.encoded.hex()})"

    def __str__(self) -> str:
        """Show a few bytes."""
        return f"{type(self).__name__}({self.encoded[:8].hex()}…)"


class PublicKey(_Encoded):
    """A point of G1, parsed from 48 bytes; raises InvalidPoint, and TypeError if not bytes."""

    __slots__ = ()
    _group: ClassVar[str] = "g1"


class Signature(_Encoded):
    """A point of G2, parsed from 96 bytes; raises InvalidPoint, and TypeError if not bytes.

    That it is well-formed says nothing of whether it verifies.
    """

    __slots__ = ()


class Possession(_Encoded):
    """A proof of possession: a point of G2, parsed like a `Signature` but never taken for one."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenKey:
    """A public key that its holder proved to possess; making one checks the proof.

    Attributes:
      key: the public key.
      possession: the proof.
      binding: the context that the proof binds, such as chain, contract and registrant.
      domain: of the proof, if it was made for a contract, which reads points uncompressed.

    Raises:
      BadPossession: the proof does not verify.
      ValueError: a domain longer than 127 bytes.
    """

    key: PublicKey
    possession: Possession
    binding: bytes = b""
    domain: bytes = b""

    def __post_init__(self):
        """Check e(key, H(key || binding)) = e(g, possession), hashed under the tag of proofs."""
        expect(self.key, PublicKey)
        expect(self.possession, Possession)
        active = curve.active()
        proven = _possession_message(self.key, self.binding, self.domain)
        hashed = active.hash_to_g2(proven, POSSESSION_DST)
        if not active.pairing_equation([self.key.point], [hashed], self.possession.point):
            raise BadPossession(self.key, self.possession, self.binding)


class SecretKey:
    """A scalar 0 < x < r. It is never printed, copied, pickled, or compared by value.

    Attributes:
      public_key: the public key.

    The libraries underneath do not run in constant time: sign where nobody can time it.
    """

    __slots__ = ("_scalar", "public_key")

    def __init__(self, scalar: int):
        """Take the scalar; `generate` and `decode` are the usual ways. Raises ValueError."""
        if not 0 < scalar < curve.ORDER:
            raise ValueError("a secret key lies strictly between 0 and r")
        active = curve.active()
        self._scalar = scalar
        self.public_key = PublicKey.from_point(active.g1.combine([active.generator], [scalar]))

    @classmethod
    def generate(cls, entropy: bytes | None = None, *, info: bytes = b"") -> Self:
        """Derive a key by the draft's KeyGen, from fresh entropy unless some is given.

        Args:
          entropy: at least 32 secret bytes.
          info: what else the key depends on, such as an index.

        Raises:
          ValueError: fewer than 32 bytes of entropy.
        """
        entropy = secrets.token_bytes(32) if entropy is None else entropy
        if len(entropy) < 32:
            raise ValueError(f"a key takes 32 bytes of entropy or more, not {len(entropy)}")
        salt, scalar = b"BLS-SIG-KEYGEN-SALT-", 0
        while scalar == 0:
            salt = hashlib.sha256(salt).digest()
            # HKDF-SHA-256 (RFC 5869): extract, then the two blocks of expand that 48 bytes take.
            key = hmac.digest(salt, entropy + b"\0", "sha256")
            context = info + (48).to_bytes(2, "big")
            first = hmac.digest(key, context + b"\1", "sha256")
            second = hmac.digest(key, first + context + b"\2", "sha256")
            scalar = int.from_bytes((first + second)[:48], "big") % curve.ORDER
        return cls(scalar)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` wrote: 32 bytes, big-endian. Raises ValueError."""
        if len(data) != 32:
            raise ValueError(f"a secret key has 32 bytes, not {len(data)}")
        return cls(int.from_bytes(data, "big"))

    def encode(self) -> bytes:
        """Return the scalar as 32 bytes, big-endian. They are the secret: mind where they go."""
        return self._scalar.to_bytes(32, "big")

    def sign(self, message: bytes, *, domain: bytes) -> Signature:
        """Sign `framed(message, domain)`; ValueError for a domain not of 1 to 255 bytes."""
        return Signature.from_point(self.core_sign(framed(message, domain), DST))

    def prove_possession(self, binding: bytes = b"", *, domain: bytes = b"") -> Possession:
        """Prove that this key is held, in a context; without one it is the draft's PopProve.

        With a `domain`, the proof is one that a contract can check.
        """
        message = _possession_message(self.public_key, binding, domain)
        return Possession.from_point(self.core_sign(message, POSSESSION_DST))

    def core_sign(self, message: bytes, dst: bytes) -> Any:
        """Return the point x·H(message), the draft's CoreSign, for the two methods above."""
        active = curve.active()
        return active.g2.combine([active.hash_to_g2(message, dst)], [self._scalar])

    def __repr__(self) -> str:
        """Name the public key alone."""
        return f"SecretKey(of {self.public_key})"

    def __reduce__(self):
        """Refuse to be copied or pickled by accident."""
        raise TypeError("a secret key is not copied or pickled; encode() it where that is meant")


def framed(message: bytes, domain: bytes) -> bytes:
    """Return the bytes that are signed: the length of `domain` in one byte, `domain`, `message`.

    Raises:
      ValueError: the domain is empty or longer than 255 bytes.
    """
    if not 1 <= len(domain) <= 255:
        raise ValueError(f"a domain has 1 to 255 bytes, not {len(domain)}")
    return bytes([len(domain)]) + domain + message


def _possession_message(key: PublicKey, binding: bytes, domain: bytes) -> bytes:
    """Return what is hashed to prove possession of a key; no two contexts give the same bytes.

    Compressed keys start with a set bit, lengths below 128 do not: the two forms differ at once.
    """
    if not domain:
        return key.encoded + binding
    if len(domain) > 127:
        raise ValueError(f"the domain of a proof has at most 127 bytes, not {len(domain)}")
    return framed(key.eip2537() + binding, domain)


def expect(value: Any, kind: type[T]) -> T:
    """Refuse another type than the one that carries the checks, subclasses included: TypeError."""
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
    return value
