"""Randomness that no device could know when it committed.

A challenge is a 256-bit seed. `secret` draws it from the coordinator's own entropy, and the key
made from it stays with the coordinator until every receipt of the epoch is committed. `public`
derives it so that anyone can recompute it:

    seed = H(version, program, policy, parameter root, root and size of the epoch's closed
             commitment log, beacon chain, beacon round, beacon value)

where the beacon's round lies after the one in which the log closed. A device cannot choose any of
these after the beacon is known. The types keep the order: a public challenge can only be made from
a `ClosedLog`, and a log that is closed takes no more commitments.

Draws are BLAKE3 in key-derivation mode with extendable output, one stream a label: 52 bits to a
uniform in (0, 1) and the inverse normal distribution (float64), or 128 bits reduced modulo
p = 2^61 - 1 (bias below 2^-66).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from blake3 import blake3
from jaxtyping import Float64, UInt64

from verifiable import merkle
from verifiable.encoding import encode, tagged_hash
from verifiable.errors import received_bytes, require_bytes32
from verifiable.field import F61

_DRAWS = "verifiable v1 draws"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beacon:
    """One value of a public randomness beacon.

    Attributes:
      chain: which beacon, such as the hash of a drand chain.
      round: its round.
      value: its output in that round, at least 16 bytes.
    """

    chain: str
    round: int
    value: bytes

    def __post_init__(self) -> None:
        """Refuse values that no beacon has."""
        if not self.chain:
            raise ValueError("a beacon needs the name of its chain")
        if self.round < 0:
            raise ValueError(f"a beacon's round cannot be negative, got {self.round}")
        if not 16 <= len(self.value) <= 1024:
            raise ValueError(f"a beacon's value has 16 to 1024 bytes, got {len(self.value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLog:
    """The commitments of an epoch, to which none can be added any more.

    Attributes:
      root: 32-byte Merkle root (BLAKE3) over the digests of the commitments.
      size: how many there are.
      chain: the beacon that the challenge will come from.
      closed_at: its newest round when the log closed.
    """

    root: bytes
    size: int
    chain: str
    closed_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlace:
    """Where a closed log holds a commitment. Nothing in a received one is trusted.

    Attributes:
      index: of the commitment.
      proof: Merkle inclusion proof, digests of 32 bytes.
    """

    index: int
    proof: tuple[bytes, ...]

    def verify(self, digest: bytes, log: ClosedLog) -> None:
        """Verify that a log holds a commitment's digest at this place.

        Raises:
          MalformedProof: no proof for this index in a log of this size.
          RootMismatch: the log holds something else there.
        """
        merkle.verify_inclusion(
            self.proof,
            leaf=merkle.BLAKE3.leaf(digest),
            index=self.index,
            size=log.size,
            root=log.root,
        )


@dataclass(slots=True)
class CommitmentLog:
    """Collects the digests of an epoch's commitments until it is closed."""

    _digests: dict[bytes, int] = field(default_factory=dict)
    _closed: ClosedLog | None = None

    def append(self, digest: bytes) -> int:
        """Add a commitment's 32-byte digest; returns its index.

        A digest that is in the log already keeps its index, and nothing is added, so that recorded
        events can be replayed.

        Raises:
          ValueError: the log is closed, or the digest has another length.
        """
        digest = require_bytes32("a digest", received_bytes(digest))
        if self._closed is not None and digest not in self._digests:
            raise ValueError("the log is closed: its challenge may be known already")
        return self._digests.setdefault(digest, len(self._digests))

    def close(self, *, chain: str, closed_at: int) -> ClosedLog:
        """Close the log; `closed_at` is the newest round of beacon `chain` that is known.

        Raises:
          ValueError: the log is empty or already closed.
        """
        if self._closed is not None:
            raise ValueError("the log is closed already")
        if not self._digests:
            raise ValueError("an empty log binds nothing")
        root = merkle.root_from_leaf_data(list(self._digests))
        self._closed = ClosedLog(
            root=root, size=len(self._digests), chain=chain, closed_at=closed_at
        )
        return self._closed

    def places(self, digests: Iterable[bytes]) -> list[LogPlace]:
        """Where the closed log holds these commitments, for whoever made them.

        Raises:
          ValueError: the log is open, or does not hold one of them.
        """
        if self._closed is None:
            raise ValueError("the log is open: what is added would change every proof")
        tree, found = merkle.Tree.from_data(list(self._digests)), list[LogPlace]()
        for digest in digests:
            if digest not in self._digests:
                raise ValueError(f"the log does not hold {digest.hex()}")
            index = self._digests[digest]
            found.append(LogPlace(index=index, proof=tuple(tree.inclusion(index))))
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Challenge:
    """A seed, and the random vectors that follow from it. Never printed, copied or pickled.

    Attributes:
      public: whether anyone can derive it.
    """

    public: bool
    _seed: bytes = field(repr=False)

    @property
    def id(self) -> bytes:
        """32 bytes that name the challenge and reveal nothing of it."""
        return tagged_hash("challenge id", self._seed)

    @property
    def exact_draws(self) -> int:
        """Draws of an exact check: one while the seed is secret, two where it can be ground."""
        return 2 if self.public else 1

    def to_bytes(self) -> bytes:
        """33 bytes, for another process of the same owner. They are the secret, unless public."""
        return bytes([self.public]) + self._seed

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
          ValueError: not 33 bytes that start with 0 or 1.
          TypeError: `data` is of another type.
        """
        data = received_bytes(data)
        if len(data) != 33 or data[0] > 1:
            raise ValueError("a challenge must have 33 bytes, of which the first is 0 or 1")
        return cls(public=bool(data[0]), _seed=data[1:])

    def __reduce__(self):
        """Refuse to be copied or pickled by accident."""
        raise TypeError(
            "a challenge cannot be copied or pickled: write to_bytes() where it must be"
        )

    def derive(self, label: str) -> bytes:
        """32 bytes for another purpose, such as the seed of an audit draw; one for each label."""
        return tagged_hash("challenge derive", self._seed, label.encode())

    def _stream(self, label: str, size: int) -> UInt64[np.ndarray, " size"]:
        hasher = blake3(self._seed, derive_key_context=_DRAWS)
        hasher.update(label.encode())
        return np.frombuffer(hasher.digest(length=8 * size), dtype="<u8")

    def normals(self, label: str, shape: tuple[int, ...]) -> Float64[np.ndarray, "*shape"]:
        """Independent standard normals, float64; equal labels give equal streams."""
        from scipy.special import ndtri  # noqa: PLC0415 - slow to load

        words = self._stream(f"normal/{label}", int(np.prod(shape)))
        # 52 bits and a half are exact in double precision, so that none of them rounds to 1.
        uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        return np.asarray(ndtri(uniform), dtype=np.float64).reshape(shape)

    def residues(self, label: str, shape: tuple[int, ...]) -> UInt64[np.ndarray, "*shape"]:
        """Independent uniform residues modulo p = 2^61 - 1, uint64."""
        words = self._stream(f"residue/{label}", 2 * int(np.prod(shape))).reshape(*shape, 2)
        modulus = np.uint64(F61.p)
        high, low = words[..., 0] % modulus, words[..., 1] % modulus
        # 2^64 = 8 (mod p); eight residues fit 64 bits, nine do not.
        return ((high << np.uint64(3)) % modulus + low) % modulus


def secret(seed: bytes | None = None) -> Challenge:
    """A challenge that only its maker knows; fresh entropy unless a 32-byte seed is given.

    Raises:
      TypeError: the seed is not bytes.
      ValueError: the seed does not have 32 bytes.
    """
    if seed is None:
        seed = os.urandom(32)
    require_bytes32("seed", seed)
    return Challenge(public=False, _seed=tagged_hash("secret challenge", seed))


def public(
    log: ClosedLog, beacon: Beacon, *, program: bytes, policy: bytes, parameters: bytes
) -> Challenge:
    """The challenge that anyone derives for a closed epoch.

    Args:
      log: the epoch's commitments.
      beacon: a value of the log's beacon, of a round after the log closed.
      program: 32-byte program id.
      policy: 32-byte policy id.
      parameters: 32-byte root of the parameters.

    Raises:
      ValueError: the beacon is another one or its value was known before the log closed.
    """
    if beacon.chain != log.chain:
        raise ValueError(f"the log waits for beacon {log.chain!r}, got {beacon.chain!r}")
    if beacon.round <= log.closed_at:
        raise ValueError(
            f"round {beacon.round} was known when the log closed (at round {log.closed_at})"
        )
    for name, value in (("program", program), ("policy", policy), ("parameters", parameters)):
        require_bytes32(name, value)
    place = encode([log.size, beacon.chain, beacon.round])
    seed = tagged_hash(
        "public challenge", program, policy, parameters, log.root, place, beacon.value
    )
    return Challenge(public=True, _seed=seed)
