"""Merkle trees: building one, against merkletools; hashing a trace, against one plain hash.

The same leaves go to every contestant in the same run. `data` is from a list of 64-byte leaves to
the root, `digests` from the digests of the leaves to the root, in the form in which each
contestant keeps them. merkletools hashes with SHA-256 and does not separate leaves from nodes.

The baseline of a trace is BLAKE3 over as many bytes in one buffer, on one core and on all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from blake3 import blake3

from benchmarks.harness import Row, interleaved_medians
from verifiable.merkle import BLAKE3, SHA256, Tree
from verifiable.trace import LEAF_BYTES, Trace, commit

CLAIM = (
    "BLAKE3 trees are built faster than merkletools builds its own; the inner nodes over 2^20 "
    "leaf digests take at most 0.6 s; a trace is hashed at 3 GB/s or better in leaves of 64 KiB."
)


def rows(quick: bool) -> Iterator[Row]:
    """Measure; `quick` takes smaller trees and traces."""
    yield from _against_merkletools(1 << (12 if quick else 18), repeats=3 if quick else 5)
    yield from _inner_nodes(1 << (14 if quick else 20), repeats=3 if quick else 11)
    megabytes = 16 if quick else 256
    for dtype in ("float32", "bfloat16"):
        yield from _trace(megabytes << 20, dtype, LEAF_BYTES, repeats=3 if quick else 11)
    yield from _trace(megabytes << 20, "float32", LEAF_BYTES // 16, repeats=3 if quick else 5)


def _against_merkletools(size: int, repeats: int) -> Iterator[Row]:
    texts = [f"{i:064}" for i in range(size)]
    data = [text.encode() for text in texts]
    digests = {suite.name: list(map(suite.leaf, data)) for suite in (SHA256, BLAKE3)}
    arrays = {
        name: np.frombuffer(b"".join(leaves), np.uint8).reshape(-1, 32)
        for name, leaves in digests.items()
    }
    loaded = _merkletools()
    loaded.add_leaf([leaf.hex() for leaf in digests["sha256"]])

    def peer_from_data() -> None:
        peer = _merkletools()
        peer.add_leaf(texts, do_hash=True)
        peer.make_tree()

    contestants = {
        ("data", "merkletools"): peer_from_data,
        ("data", "sha256"): lambda: Tree.from_data(data, suite=SHA256),
        ("data", "blake3"): lambda: Tree.from_data(data, suite=BLAKE3),
        ("digests", "merkletools"): loaded.make_tree,
        ("digests", "sha256"): lambda: Tree(arrays["sha256"], suite=SHA256),
        ("digests", "blake3"): lambda: Tree(arrays["blake3"], suite=BLAKE3),
    }
    seconds = interleaved_medians({"/".join(k): f for k, f in contestants.items()}, repeats)
    for start in ("data", "digests"):
        taken = {name: seconds[f"{start}/{name}"] for name in ("merkletools", "sha256", "blake3")}
        case = f"leaves={size} from={start}"
        for name, duration in taken.items():
            yield Row(case, name, size / duration, "leaves/s")
        yield Row(case, "sha256_ratio", taken["merkletools"] / taken["sha256"], "1")
        yield Row(case, "blake3_ratio", taken["merkletools"] / taken["blake3"], "1", "> 1")


def _inner_nodes(size: int, repeats: int) -> Iterator[Row]:
    digests = np.random.default_rng(0).integers(0, 256, (size, 32), np.uint8)
    seconds = interleaved_medians(
        {suite.name: lambda suite=suite: Tree(digests, suite=suite) for suite in (BLAKE3, SHA256)},
        repeats,
    )
    for name, taken in seconds.items():
        bar = "<= 0.6" if name == "blake3" else None
        yield Row(f"inner nodes leaves={size}", f"{name}_seconds", taken, "s", bar)


def _trace(size: int, dtype: str, leaf_bytes: int, repeats: int) -> Iterator[Row]:
    random = np.random.default_rng(0)
    width = 2048
    rows = size // 64 // width // jnp.dtype(dtype).itemsize
    claims = tuple(
        jnp.asarray(random.standard_normal((rows, width), np.float32), dtype) for _ in range(64)
    )
    y = claims[-1]
    trace = Trace(values=claims[:-1])
    size = sum(claim.nbytes for claim in claims)
    buffer = random.integers(0, 256, size, np.uint8).data
    seconds = interleaved_medians(
        {
            "commit": lambda: commit(y, trace, leaf_bytes=leaf_bytes),
            "plain_one_core": lambda: blake3(buffer).digest(),
            "plain_all_cores": lambda: blake3(buffer, max_threads=blake3.AUTO).digest(),
        },
        repeats,
    )
    for name, taken in seconds.items():
        bar = ">= 3e9" if name == "commit" and leaf_bytes == LEAF_BYTES else None
        yield Row(f"trace {dtype} leaf={leaf_bytes}", name, size / taken, "B/s", bar)


def _merkletools() -> Any:
    with warnings.catch_warnings():
        # It warns of an optional dependency that is missing.
        warnings.simplefilter("ignore")
        import merkletools  # noqa: PLC0415

    return merkletools.MerkleTools()
