"""A committee: registered keys in ascending order, each with a weight.

A key is registered for one chain, contract and registrant: its proof of possession binds all three,
and the contract checks the same proof. So a proof is invalid at another contract or for another
registrant, and every key in a sum is held by its registrant (no rogue keys).

    committee id = SHA-256(count, then for each member its key as EIP-2537 encodes it, its weight)

with count and weight as 32-byte words. A `Committee` is one that the contract can put in office:
one account registered all members, and their keys do not add up to infinity. A bitmap names
signers: bit i mod 8 of byte i div 8, least significant first, is member i. A quorum has *more than*
two thirds of the weight, so two quorums share more than a third. Rules: specs/settlement.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Self

from protocols.settlement.statements import Deployment, SettlementError
from verifiable.bls import InfiniteAggregate, Possession, ProvenKey, PublicKey, SecretKey, curve
from verifiable.errors import require_exact_type

REGISTRATION_DOMAIN: Final = b"verifiable registration 1"
"""Domain of the proofs of possession that the contract checks."""

MAX_MEMBERS: Final = 256


def registration_binding(deployment: Deployment, registrant: bytes) -> bytes:
    """The three words that a registration binds: chain id, contract, address of the registrant.

    Raises:
      ValueError: the registrant is not 20 bytes.
    """
    if type(registrant) is not bytes or len(registrant) != 20:
        raise ValueError("a registrant must be an address of 20 bytes")
    return deployment.words + bytes(12) + registrant


def prove_registration(secret: SecretKey, deployment: Deployment, registrant: bytes) -> Possession:
    """Proof of possession that registers a key at a contract."""
    binding = registration_binding(deployment, registrant)
    return secret.prove_possession(binding, domain=REGISTRATION_DOMAIN)


def registered_key(
    key: PublicKey, possession: Possession, deployment: Deployment, registrant: bytes
) -> ProvenKey:
    """Verify a registration, as the contract does.

    Raises:
      BadPossession: the proof is forged, or for another key, chain, contract or registrant.
    """
    return ProvenKey(
        key=key,
        possession=possession,
        binding=registration_binding(deployment, registrant),
        domain=REGISTRATION_DOMAIN,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a committee.

    Attributes:
      key: its key, from `registered_key`.
      weight: a positive integer below 2^64.
    """

    key: ProvenKey
    weight: int

    def __post_init__(self) -> None:
        """Raises ValueError for a weight out of range, TypeError for a key without a proof."""
        require_exact_type("key", self.key, ProvenKey)
        if type(self.weight) is not int or not 0 < self.weight < 2**64:
            raise ValueError(f"a weight must be an integer in (0, 2^64), got {self.weight!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Committee:
    """Members in ascending order of their keys' EIP-2537 encodings, which bitmaps follow.

    Attributes:
      deployment: the contract at which they registered.
      members: 1 to 256 members with distinct keys, which do not add up to infinity.
      registrant: address of the one account that registered them, and that must send the calls.
      id: 32 bytes that bind every key and weight, and their order.
      total: total weight.

    Raises:
      SettlementError: no-members, too-many-members, duplicate-key, unordered-members,
        unregistered-key, other-registrant, infinite-key.
    """

    deployment: Deployment
    members: tuple[Member, ...]
    registrant: bytes = field(init=False)
    id: bytes = field(init=False)
    total: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the members, and compute id and total weight."""
        if not self.members:
            raise SettlementError("no-members")
        if len(self.members) > MAX_MEMBERS:
            raise SettlementError("too-many-members", expected=MAX_MEMBERS, found=len(self.members))
        keys = [member.key.key.eip2537() for member in self.members]
        for a, b in pairwise(keys):
            if a >= b:
                raise SettlementError("duplicate-key" if a == b else "unordered-members")
        for member in self.members:
            self._require_registered(member.key)
        registrant, *others = dict.fromkeys(m.key.binding[-20:] for m in self.members)
        if others:
            raise SettlementError("other-registrant", expected=registrant, found=others[0])
        try:
            PublicKey.from_point(curve.active().g1.sum([m.key.key.point for m in self.members]))
        except InfiniteAggregate as error:
            raise SettlementError("infinite-key") from error
        digest = hashlib.sha256(len(self.members).to_bytes(32, "big"))
        for key, member in zip(keys, self.members, strict=True):
            digest.update(key + member.weight.to_bytes(32, "big"))
        object.__setattr__(self, "registrant", registrant)
        object.__setattr__(self, "id", digest.digest())
        object.__setattr__(self, "total", sum(member.weight for member in self.members))

    @classmethod
    def of(cls, deployment: Deployment, members: Iterable[Member]) -> Self:
        """The committee of these members, in any order. Raises as the class does."""
        ordered = sorted(members, key=lambda member: member.key.key.eip2537())
        return cls(deployment=deployment, members=tuple(ordered))

    def index(self, key: PublicKey) -> int:
        """Position of the member with a key.

        Raises:
          SettlementError: unknown-member.
        """
        for index, member in enumerate(self.members):
            if member.key.key == key:
                return index
        raise SettlementError("unknown-member", expected="a member's key", found=str(key))

    def bitmap(self, signers: Iterable[int]) -> bytes:
        """The bitmap of these members.

        Raises:
          ValueError: the committee has no member of this number.
        """
        bits = 0
        for index in signers:
            if not 0 <= index < len(self.members):
                raise ValueError(f"the committee has no member {index}")
            bits |= 1 << index
        return bits.to_bytes(self._bitmap_size, "little")

    def signers(self, bitmap: bytes) -> tuple[int, ...]:
        """The members that a bitmap names, ascending; may be empty.

        Raises:
          SettlementError: bitmap-length, bitmap-excess.
        """
        if len(bitmap) != self._bitmap_size:
            raise SettlementError("bitmap-length", expected=self._bitmap_size, found=len(bitmap))
        bits = int.from_bytes(bitmap, "little")
        if bits >> len(self.members):
            raise SettlementError("bitmap-excess")
        return tuple(i for i in range(len(self.members)) if bits >> i & 1)

    def weight(self, signers: Sequence[int] | frozenset[int]) -> int:
        """Total weight of some members, each counted once."""
        return sum(self.members[i].weight for i in frozenset(signers))

    def has_quorum(self, signers: Sequence[int] | frozenset[int]) -> bool:
        """Whether these members have more than two thirds of the weight."""
        return 3 * self.weight(signers) > 2 * self.total

    def _require_registered(self, key: ProvenKey) -> None:
        words, binding = self.deployment.words + bytes(12), key.binding
        here = binding.startswith(words) and len(binding) == len(words) + 20
        if key.domain != REGISTRATION_DOMAIN or not here:
            raise SettlementError("unregistered-key", expected=words, found=binding[:96])

    @property
    def _bitmap_size(self) -> int:
        return (len(self.members) + 7) // 8
