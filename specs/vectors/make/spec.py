"""Small transcriptions of the specifications, which share no code with the library.

Slow, and about nothing but the text: specs/merkle.md, trace.md, messages.md.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from blake3 import blake3


def tagged_hash(tag: str, *parts: bytes) -> bytes:
    hasher = blake3(derive_key_context=f"verifiable v1 {tag}")
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.digest()


# Messages (trace.md, Messages).


def cbor(value: Any) -> bytes:
    """The one encoding of a value; a `Float` is a float, so that 1 and 1.0 differ."""
    if value is None:
        return b"\xf6"
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        return cbor_float(value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list | tuple):
        return head(4, len(value)) + b"".join(map(cbor, value))
    pairs = sorted((cbor(key), cbor(item)) for key, item in value.items())
    return head(5, len(value)) + b"".join(key + item for key, item in pairs)


def head(major: int, count: int) -> bytes:
    if count < 24:
        return bytes([major << 5 | count])
    for i in range(4):
        if count < 1 << (8 << i):
            return bytes([major << 5 | 24 + i]) + count.to_bytes(1 << i, "big")
    raise ValueError("a head holds 64 bits")


def cbor_float(value: float) -> bytes:
    for first, code in ((0xF9, ">e"), (0xFA, ">f"), (0xFB, ">d")):
        try:
            data = struct.pack(code, value)
        except OverflowError:
            continue
        if struct.unpack(code, data)[0] == value:
            return bytes([first]) + data
    raise ValueError("a float has an encoding iff it is finite")


# Trees (merkle.md).


@dataclass(frozen=True)
class Hashes:
    name: str
    empty: bytes
    leaf: Callable[[bytes], bytes]
    node: Callable[[bytes, bytes], bytes]


def _sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


_LEAF, _NODE = tagged_hash("merkle leaf"), tagged_hash("merkle node")
SHA = Hashes("sha256", _sha(b""), lambda d: _sha(b"\0" + d), lambda a, b: _sha(b"\1" + a + b))
BLAKE = Hashes(
    "blake3",
    tagged_hash("merkle empty"),
    lambda d: blake3(d, key=_LEAF).digest(),
    lambda a, b: blake3(a + b, key=_NODE).digest(),
)


def split(n: int) -> int:
    """The largest power of two below n."""
    return 1 << (n - 1).bit_length() - 1


def mth(h: Hashes, digests: Sequence[bytes]) -> bytes:
    """Root over digests of leaves."""
    if not digests:
        return h.empty
    if len(digests) == 1:
        return digests[0]
    k = split(len(digests))
    return h.node(mth(h, digests[:k]), mth(h, digests[k:]))


def path(h: Hashes, i: int, digests: Sequence[bytes]) -> list[bytes]:
    if len(digests) == 1:
        return []
    k = split(len(digests))
    if i < k:
        return [*path(h, i, digests[:k]), mth(h, digests[k:])]
    return [*path(h, i - k, digests[k:]), mth(h, digests[:k])]


def proof(h: Hashes, m: int, digests: Sequence[bytes], known: bool = True) -> list[bytes]:
    n = len(digests)
    if m == n:
        return [] if known else [mth(h, digests)]
    k = split(n)
    if m <= k:
        return [*proof(h, m, digests[:k], known), mth(h, digests[k:])]
    return [*proof(h, m - k, digests[k:], False), mth(h, digests[:k])]


def subtree_proof(
    h: Hashes, start: int, end: int, digests: Sequence[bytes], known: bool = True
) -> list[bytes]:
    """SUBTREE_SUBPROOF of draft-ietf-plants-merkle-tree-certs."""
    n = len(digests)
    if start == 0 and end == n:
        return [] if known else [mth(h, digests)]
    k = split(n)
    if end <= k:
        return [*subtree_proof(h, start, end, digests[:k], known), mth(h, digests[k:])]
    if k <= start:
        return [*subtree_proof(h, start - k, end - k, digests[k:], known), mth(h, digests[:k])]
    return [*subtree_proof(h, 0, end - k, digests[k:], False), mth(h, digests[:k])]


def multiproof(h: Hashes, indices: Sequence[int], digests: Sequence[bytes]) -> list[bytes]:
    """By the definition of merkle.md: children of ancestors that are no ancestors themselves."""
    found: list[tuple[int, int, bytes]] = []

    def visit(start: int, end: int) -> None:
        if end - start == 1:
            return
        height = (end - start - 1).bit_length()
        middle = start + split(end - start)
        for a, b in ((start, middle), (middle, end)):
            if any(a <= i < b for i in indices):
                visit(a, b)
            else:
                found.append((height, a, mth(h, digests[a:b])))

    visit(0, len(digests))
    return [digest for _, _, digest in sorted(found)]


# Traces (trace.md).

SIZES = {
    **{f"{kind}{bits}": bits // 8 for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{"bool": 1, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8},
    **{"float8_e4m3fn": 1, "float8_e5m2": 1, "complex64": 8, "complex128": 16},
}


def leaves(tensors: Sequence[tuple[str, list[int], bytes]], leaf_bytes: int) -> list[Any]:
    """[tensor, start, stop, data] of each leaf."""
    found: list[Any] = []
    for i, (dtype, shape, data) in enumerate(tensors):
        row = (shape[-1] if shape else 1) * SIZES[dtype]
        if not data:
            continue
        rows = len(data) // row
        step = max(1, leaf_bytes // row)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            found.append([i, start, stop, data[start * row : stop * row]])
    return found
