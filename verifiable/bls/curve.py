"""BLS12-381 behind one small interface, for two libraries that must agree on every byte.

G1 lies on y² = x³ + 4 over F_p, G2 on y² = x³ + 4(1 + u) over F_p[u]/(u² + 1); both have the prime
order r, and e: G1 × G2 → GT is bilinear. A signature scheme asks one question of the pairing:

    e(P_1, Q_1) · … · e(P_n, Q_n) = e(g, S)

Points travel in the compressed encoding of the IETF draft, 48 and 96 bytes. `Group.decode` accepts
exactly the bytes that `Group.encode` gives back: on the curve, in the subgroup of order r,
canonical (coordinates below p, one encoding of infinity). The caller decides if infinity is
allowed.

`Arkworks` is native and the default; `PyEcc` is pure Python, the reference, and some 200 times
slower. It is used, with a warning, if the native library is not installed. Neither runs in
constant time.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from verifiable.errors import MalformedEncoding, received_bytes

ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
"""The prime order r of G1, G2 and GT."""

Point = Any
"""A point of G1 or G2: an opaque object of the library that made it."""


class InvalidPoint(MalformedEncoding):
    """Bytes that do not encode a point of the group.

    Attributes:
      reason: the rule that the bytes violate.
      data: the first 192 bytes at most.
      size: number of bytes received.
    """

    def __init__(self, reason: str, data: bytes):
        """Keep the start of the bytes only: a device may send any number."""
        self.reason, self.data, self.size = reason, data[:192], len(data)
        super().__init__(f"{reason}; {len(data)} bytes, starting {data[:8].hex()}")


class Group(ABC):
    """G1 or G2.

    Attributes:
      name: "G1" or "G2".
      size: length of an encoding in bytes, 48 or 96.
      infinity: the encoding of the neutral element.
    """

    def __init__(self, name: str, size: int):
        """Set the name and the length of encodings in bytes."""
        self.name, self.size = name, size
        self.infinity = b"\xc0" + bytes(size - 1)

    def decode(self, data: bytes | bytearray | memoryview) -> Point:
        """Return the point that `data` encodes, infinity included.

        The comparison at the end is not redundant: arkworks ignores all bits after a set infinity
        flag, so that 2^382 strings of 48 bytes decode to infinity.

        Raises:
          InvalidPoint: wrong length, not on the curve, outside the subgroup, or not canonical.
          TypeError: `data` is of another type.
        """
        data = received_bytes(data)
        if len(data) != self.size:
            raise InvalidPoint(f"a point of {self.name} must be encoded in {self.size} bytes", data)
        try:
            point = self._decompress(data)
        except ValueError as error:
            raise InvalidPoint(
                f"not the encoding of a point of {self.name}: {error}", data
            ) from error
        if self.encode(point) != data:
            raise InvalidPoint(f"not the canonical encoding of a point of {self.name}", data)
        return point

    @abstractmethod
    def _decompress(self, data: bytes, /) -> Point:
        """Return a point on the curve and in the subgroup; ValueError otherwise."""

    @abstractmethod
    def encode(self, point: Point, /) -> bytes:
        """Return the compressed encoding, `size` bytes."""

    @abstractmethod
    def affine(self, point: Point, /) -> bytes:
        """Return the big-endian coordinates, x then y, real part first: `2 * size` bytes.

        This is the order of the EVM precompiles (EIP-2537), which pad each 48 bytes to 64.
        Infinity is all zeros.
        """

    @abstractmethod
    def sum(self, points: Sequence[Point], /) -> Point:
        """Return the sum of one or more points of this group."""

    @abstractmethod
    def combine(self, points: Sequence[Point], scalars: Sequence[int], /) -> Point:
        """Return Σ k_i P_i over one or more points.

        Args:
          points: points P_i of this group.
          scalars: as many integers k_i, 0 <= k_i < r.

        Raises:
          ValueError: the lengths differ.
        """


class Curve(ABC):
    """The two groups, hashing into the second, and the pairing equation.

    Attributes:
      name: name of the library.
      g1: the group of public keys.
      g2: the group of signatures.
      generator: the standard generator g of G1.
    """

    name: str
    g1: Group
    g2: Group
    generator: Point

    @abstractmethod
    def hash_to_g2(self, message: bytes, dst: bytes, /) -> Point:
        """Hash to G2 by RFC 9380, suite BLS12381G2_XMD:SHA-256_SSWU_RO_.

        Args:
          message: the bytes to hash, of any length.
          dst: domain separation tag, 1 to 255 bytes.
        """

    @abstractmethod
    def pairing_equation(self, ps: Sequence[Point], qs: Sequence[Point], s: Point, /) -> bool:
        """Return whether Π e(P_i, Q_i) = e(g, S).

        Args:
          ps: points P_i of G1.
          qs: as many points Q_i of G2.
          s: point S of G2.

        Raises:
          ValueError: the lengths differ.
        """


# -------------------------------------------------------------------------------------- arkworks


class _ArkworksGroup(Group):
    """One group of arkworks; the two have the same interface and differ in the class of points."""

    def __init__(self, name: str, size: int, kind: Any, scalar: Any):
        super().__init__(name, size)
        self._kind, self._scalar = kind, scalar

    def _decompress(self, data: bytes, /) -> Point:
        return self._kind.from_compressed_bytes(data)

    def encode(self, point: Point, /) -> bytes:
        return point.to_compressed_bytes()

    def affine(self, point: Point, /) -> bytes:
        return point.to_xy_bytes_be()

    def sum(self, points: Sequence[Point], /) -> Point:
        return functools.reduce(operator.add, points)

    def combine(self, points: Sequence[Point], scalars: Sequence[int], /) -> Point:
        factors = [self._scalar.from_be_bytes(k.to_bytes(32, "big")) for k in scalars]
        if len(points) > 2:  # Below three points its bucket method costs more than it saves.
            if len(points) != len(factors):  # The method itself would truncate.
                raise ValueError(f"{len(points)} points and {len(factors)} scalars")
            return self._kind.multiexp_unchecked(list(points), factors)
        return self.sum([p * k for p, k in zip(points, factors, strict=True)])


class Arkworks(Curve):
    """The native library `py_arkworks_bls12381`.

    Hashing to G2 is half of the cost of a batch, and blst does it in half the time, even with the
    points encoded and decoded again. If `pyblst` is installed, it does the hashing; the points are
    the same.

    Raises:
      ImportError: the library is not installed.
    """

    name = "py_arkworks_bls12381"

    def __init__(self, *, blst: bool = True):
        """Load the library; if `blst` is true, hash with `pyblst` where it is installed."""
        ark = import_module("py_arkworks_bls12381")
        self.g1 = _ArkworksGroup("G1", 48, ark.G1Point, ark.Scalar)
        self.g2 = _ArkworksGroup("G2", 96, ark.G2Point, ark.Scalar)
        self.generator = ark.G1Point()
        self._minus_generator = -self.generator
        self._kind, self._pairing_check = ark.G2Point, ark.GT.pairing_check
        blst = blst and find_spec("pyblst") is not None
        self._blst = import_module("pyblst").BlstP2Element() if blst else None

    def hash_to_g2(self, message: bytes, dst: bytes, /) -> Point:
        """See `Curve`."""
        if self._blst is None:
            return self._kind.hash_to_curve(message, dst)
        hashed = self._blst.hash_to_group(message, dst).compress()
        return self._kind.from_compressed_bytes_unchecked(hashed)

    def pairing_equation(self, ps: Sequence[Point], qs: Sequence[Point], s: Point, /) -> bool:
        """See `Curve`."""
        return self._pairing_check([*ps, self._minus_generator], [*qs, s])


# ---------------------------------------------------------------------------------------- py_ecc


class _PyEccGroup(Group):
    """One group of py_ecc, whose points are tuples of projective coordinates."""

    def __init__(
        self,
        name: str,
        size: int,
        ecc: Any,
        decompress: Callable[[bytes], Any],
        compress: Callable[[Any], bytes],
    ):
        super().__init__(name, size)
        self._ecc, self._from, self._to = ecc, decompress, compress

    def _decompress(self, data: bytes, /) -> Point:
        point = self._from(data)
        # py_ecc does not check that a decompressed point lies in the subgroup.
        if not self._ecc.is_inf(self._ecc.multiply(point, ORDER)):
            raise ValueError("outside the subgroup of order r")
        return point

    def encode(self, point: Point, /) -> bytes:
        return self._to(point)

    def affine(self, point: Point, /) -> bytes:
        if self._ecc.is_inf(point):
            return bytes(2 * self.size)
        x, y = self._ecc.normalize(point)
        parts = [x, y] if self.size == 48 else [*x.coeffs, *y.coeffs]
        return b"".join(int(part).to_bytes(48, "big") for part in parts)

    def sum(self, points: Sequence[Point], /) -> Point:
        return functools.reduce(self._ecc.add, points)

    def combine(self, points: Sequence[Point], scalars: Sequence[int], /) -> Point:
        pairs = zip(points, scalars, strict=True)
        return self.sum([self._ecc.multiply(point, k) for point, k in pairs])


class PyEcc(Curve):
    """The pure Python library `py_ecc`, with the subgroup check that it lacks."""

    name = "py_ecc"

    def __init__(self):
        """Load the library."""
        # Imported here, because it takes a second and the native library does not need it.
        ecc = import_module("py_ecc.optimized_bls12_381")
        codec = import_module("py_ecc.bls.g2_primitives")
        self.g1 = _PyEccGroup("G1", 48, ecc, codec.pubkey_to_G1, codec.G1_to_pubkey)
        self.g2 = _PyEccGroup("G2", 96, ecc, codec.signature_to_G2, codec.G2_to_signature)
        self.generator = ecc.G1
        self._ecc, self._hash = ecc, import_module("py_ecc.bls.hash_to_curve").hash_to_G2

    def hash_to_g2(self, message: bytes, dst: bytes, /) -> Point:
        """See `Curve`."""
        return self._hash(message, dst, hashlib.sha256)

    def pairing_equation(self, ps: Sequence[Point], qs: Sequence[Point], s: Point, /) -> bool:
        """See `Curve`."""
        pairs = zip([*ps, self._ecc.neg(self.generator)], [*qs, s], strict=True)
        loops = [self._ecc.pairing(q, p, final_exponentiate=False) for p, q in pairs]
        product = functools.reduce(operator.mul, loops)
        return self._ecc.final_exponentiate(product) == self._ecc.FQ12.one()


# ------------------------------------------------------------------------------------- selection

_chosen: ContextVar[Curve | None] = ContextVar("curve", default=None)


def active() -> Curve:
    """Return the library in use: the one of the innermost `using`, or else the default."""
    return _chosen.get() or default()


@contextmanager
def using(curve: Curve) -> Generator[None]:
    """Use `curve` within a `with` block, in which points of another library raise TypeError."""
    token = _chosen.set(curve)
    try:
        yield
    finally:
        _chosen.reset(token)


@functools.cache
def default() -> Curve:
    """Return the native library; where it is not installed, py_ecc with a RuntimeWarning."""
    try:
        return Arkworks()
    except ImportError:
        warnings.warn(
            "py_arkworks_bls12381 is not installed: BLS12-381 runs in pure Python, some 200 times "
            "slower",
            RuntimeWarning,
            stacklevel=2,
        )
        return PyEcc()
