"""Hash suites for Merkle trees: how a leaf, a node and the empty tree are hashed.

| suite  | empty tree                  | leaf                    | node                         |
|--------|-----------------------------|-------------------------|------------------------------|
| SHA256 | SHA256()                    | SHA256(0x00, data)      | SHA256(0x01, left, right)    |
| BLAKE3 | tagged_hash("merkle empty") | BLAKE3 keyed, leaf key  | BLAKE3 keyed, node key       |

SHA256 is RFC 9162 to the letter, for roots that a contract or a transparency log must verify.
BLAKE3 is for traces. Its keys are `tagged_hash("merkle leaf")` and `tagged_hash("merkle node")`:
two keyed modes are independent functions, so leaves and nodes are separated without a prefix, and
the 64 bytes of a node take a single compression.

Large levels of BLAKE3 nodes are hashed in numpy, one array operation for thousands of inputs:
calls from Python for each would cost twice as much. Below that, one hasher is reset and used again:
making one takes longer than hashing 64 bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from blake3 import blake3
from jaxtyping import Int, UInt8, UInt32

from verifiable.encoding import tagged_hash

Pairs: TypeAlias = UInt8[np.ndarray, "k 64"]
Digests: TypeAlias = UInt8[np.ndarray, "k 32"]
Words: TypeAlias = UInt32[np.ndarray, "rows n"]

DIGEST_SIZE: Final = 32
"""Bytes in a digest, in either suite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The hash functions of a tree. The verifier chooses the suite; a proof never names it.

    Attributes:
      name: name of the suite, for messages and headers.
      empty: root of the tree without leaves, 32 bytes.
      leaf: maps the data of a leaf, of any length, to its digest of 32 bytes.
      leaves: the same for several leaves: a list of data to uint8 (k, 32).
      node: maps two digests, left and right, to the digest of their parent.
      nodes: the same for a whole level: uint8 (k, 64), a pair of digests in each row, to uint8
        (k, 32).
    """

    name: str
    empty: bytes = field(repr=False)
    leaf: Callable[[bytes | memoryview], bytes] = field(repr=False)
    leaves: Callable[[Iterable[bytes | memoryview]], Digests] = field(repr=False)
    node: Callable[[bytes, bytes], bytes] = field(repr=False)
    nodes: Callable[[Pairs], Digests] = field(repr=False)


def _rows(digests: Sequence[bytes]) -> Digests:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), DIGEST_SIZE)


def digest_rows(digests: Any) -> UInt8[np.ndarray, "n 32"] | None:
    """Digests as a uint8 array (n, 32); None unless they are such an array or n times 32 bytes."""
    if isinstance(digests, np.ndarray):
        well_formed = digests.dtype == np.uint8 and digests.shape[1:] == (DIGEST_SIZE,)
        return digests if well_formed else None
    if not isinstance(digests, list | tuple):
        return None
    if not all(type(digest) is bytes and len(digest) == DIGEST_SIZE for digest in digests):
        return None
    return _rows(digests)


def _sha256_leaf(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(b"\0" + data).digest()


def _sha256_leaves(leaves: Iterable[bytes | memoryview]) -> Digests:
    return _rows(list(map(_sha256_leaf, leaves)))


def _sha256_node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def _sha256_nodes(pairs: Pairs) -> Digests:
    prefixed = np.full((len(pairs), 65), 1, np.uint8)
    prefixed[:, 1:] = pairs
    sha256 = hashlib.sha256
    return _rows([sha256(pair).digest() for (pair,) in struct.iter_unpack("65s", prefixed.data)])


SHA256: Final = Suite(
    name="sha256",
    empty=hashlib.sha256().digest(),
    leaf=_sha256_leaf,
    leaves=_sha256_leaves,
    node=_sha256_node,
    nodes=_sha256_nodes,
)

_LEAF_KEY: Final = tagged_hash("merkle leaf")
_NODE_KEY: Final = tagged_hash("merkle node")

_VECTORISED: Final = 2048  # nodes in a level from which numpy is faster than a loop
_BATCH: Final = 8192  # nodes hashed at once: 1.5 MB of state, which the caches hold


def _blake3_leaf(data: bytes | memoryview) -> bytes:
    return blake3(data, key=_LEAF_KEY).digest()


def _blake3_leaves(leaves: Iterable[bytes | memoryview]) -> Digests:
    hasher, digests = blake3(key=_LEAF_KEY), list[bytes]()
    for data in leaves:
        digests.append(hasher.update(data).digest())
        hasher.reset()
    return _rows(digests)


def _blake3_node(left: bytes, right: bytes) -> bytes:
    return blake3(left + right, key=_NODE_KEY).digest()


def _blake3_nodes(pairs: Pairs) -> Digests:
    if len(pairs) < _VECTORISED:
        hasher, digests = blake3(key=_NODE_KEY), list[bytes]()
        for (pair,) in struct.iter_unpack("64s", pairs.tobytes()):
            digests.append(hasher.update(pair).digest())
            hasher.reset()
        return _rows(digests)
    words = np.ascontiguousarray(pairs).view("<u4")
    parents = np.empty((len(pairs), 8), "<u4")
    compression = _Compression(min(len(pairs), _BATCH))
    for start in range(0, len(pairs), _BATCH):
        compression(words[start : start + _BATCH], parents[start : start + _BATCH])
    return parents.view(np.uint8)


BLAKE3: Final = Suite(
    name="blake3",
    empty=tagged_hash("merkle empty"),
    leaf=_blake3_leaf,
    leaves=_blake3_leaves,
    node=_blake3_node,
    nodes=_blake3_nodes,
)

# Rows of the initial state: the key, the first half of the IV, then counter 0 in two words, an
# input of 64 bytes, and the flags CHUNK_START 1, CHUNK_END 2, ROOT 8 and KEYED_HASH 16.
_KEY: Final = np.frombuffer(_NODE_KEY, "<u4").astype(np.uint32)[:, None]
_IV: Final = np.array([[0x6A09E667], [0xBB67AE85], [0x3C6EF372], [0xA54FF53A]], np.uint32)
_TAIL: Final = np.array([[0], [0], [64], [27]], np.uint32)
_PERMUTATION: Final = np.array([2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8])


def _schedule() -> Iterator[Int[np.ndarray, "2 2 4"]]:
    """Indices of message words by round: [columns or diagonals, first or second, quarter]."""
    order = np.arange(16)
    for _ in range(7):
        yield order.reshape(2, 4, 2).transpose(0, 2, 1)
        order = order[_PERMUTATION]


_SCHEDULE: Final = tuple(_schedule())


class _Compression:
    """BLAKE3 of n inputs of 64 bytes each under the node key (BLAKE3 specification, 2.2 and 2.4).

    Each row of the 4 by 4 state is an array (4, n), so one numpy call does a step of all four
    quarter-rounds of all inputs. To line up the diagonals, a row turns by copying the words that
    wrap around to spare places beside it, and moving the window.
    """

    def __init__(self, n: int):
        self.a = np.empty((4, n), np.uint32)
        self.b = np.empty((5, n), np.uint32)
        self.c = np.empty((6, n), np.uint32)
        self.d = np.empty((5, n), np.uint32)
        self.message = np.empty((16, n), np.uint32)
        self.operand = np.empty((4, n), np.uint32)
        self.shifted = np.empty((4, n), np.uint32)

    def __call__(self, words: Words, out: Words) -> None:
        """Hash `words`, (n, 16) or fewer rows, into `out`, (n, 8)."""
        n = len(words)
        a, b, c, d = self.a[:, :n], self.b[:, :n], self.c[:, :n], self.d[:, :n]
        self.message[:, :n] = words.T
        a[:], b[:4], c[:4], d[1:] = _KEY[:4], _KEY[4:], _IV, _TAIL
        for columns, diagonals in _SCHEDULE:
            self._quarter_rounds(a, b[:4], c[:4], d[1:], columns)
            b[4], c[4:], d[0] = b[0], c[:2], d[4]
            self._quarter_rounds(a, b[1:], c[2:], d[:4], diagonals)
            b[0], c[:2], d[4] = b[4], c[4:], d[0]
        out[:, :4] = (a ^ c[:4]).T
        out[:, 4:] = (b[:4] ^ d[1:]).T

    def _quarter_rounds(self, a: Words, b: Words, c: Words, d: Words, order: Any) -> None:
        message, operand = self.message[:, : a.shape[1]], self.operand[:, : a.shape[1]]
        for words, turn_d, turn_b in ((order[0], 16, 12), (order[1], 8, 7)):
            np.take(message, words, axis=0, out=operand, mode="clip")
            a += b
            a += operand
            d ^= a
            self._rotate_right(d, turn_d)
            c += d
            b ^= c
            self._rotate_right(b, turn_b)

    def _rotate_right(self, x: Words, bits: int) -> None:
        shifted = self.shifted[:, : x.shape[1]]
        np.left_shift(x, 32 - bits, out=shifted)
        x >>= bits
        x |= shifted
