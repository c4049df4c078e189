"""Hash suites: against the package, RFC 9162, and a compression transcribed from its text."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.paths import VECTORS, needs_vectors
from verifiable.encoding import tagged_hash
from verifiable.merkle.hashing import BLAKE3, SHA256, Suite

SUITES = pytest.mark.parametrize("suite", [BLAKE3, SHA256], ids=lambda suite: suite.name)


# The slow oracle: the compression function of the BLAKE3 specification, section 2.2.

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A]
IV += [0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
CHUNK_START, CHUNK_END, ROOT_FLAG, KEYED_HASH = 1, 2, 8, 16


def keyed_hash_of_64_bytes(key: bytes, block: bytes) -> bytes:
    def rotate(x: int, bits: int) -> int:
        return (x >> bits | x << (32 - bits)) & 0xFFFFFFFF

    def g(at: tuple[int, int, int, int], mx: int, my: int) -> None:
        a, b, c, d = at
        v[a] = (v[a] + v[b] + mx) % 2**32
        v[d] = rotate(v[d] ^ v[a], 16)
        v[c] = (v[c] + v[d]) % 2**32
        v[b] = rotate(v[b] ^ v[c], 12)
        v[a] = (v[a] + v[b] + my) % 2**32
        v[d] = rotate(v[d] ^ v[a], 8)
        v[c] = (v[c] + v[d]) % 2**32
        v[b] = rotate(v[b] ^ v[c], 7)

    words = [int.from_bytes(key[i : i + 4], "little") for i in range(0, 32, 4)]
    m = [int.from_bytes(block[i : i + 4], "little") for i in range(0, 64, 4)]
    flags = CHUNK_START | CHUNK_END | ROOT_FLAG | KEYED_HASH
    v = [*words, *IV[:4], 0, 0, 64, flags]
    for _ in range(7):
        g((0, 4, 8, 12), m[0], m[1])
        g((1, 5, 9, 13), m[2], m[3])
        g((2, 6, 10, 14), m[4], m[5])
        g((3, 7, 11, 15), m[6], m[7])
        g((0, 5, 10, 15), m[8], m[9])
        g((1, 6, 11, 12), m[10], m[11])
        g((2, 7, 8, 13), m[12], m[13])
        g((3, 4, 9, 14), m[14], m[15])
        m = [m[i] for i in (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)]
    return b"".join((v[i] ^ v[i + 8]).to_bytes(4, "little") for i in range(8))


@settings(deadline=None, max_examples=20)
@given(st.binary(min_size=64, max_size=64))
def test_node_is_one_keyed_compression(pair: bytes):
    assert BLAKE3.node(pair[:32], pair[32:]) == keyed_hash_of_64_bytes(
        tagged_hash("merkle node"), pair
    )


@SUITES
@pytest.mark.parametrize("count", [0, 1, 1000, 2047, 2048, 2049, 8191, 8192, 8193, 20_000])
def test_a_level_is_hashed_as_its_nodes_are(suite: Suite, count: int):
    pairs = np.random.default_rng(count).integers(0, 256, (count, 64), np.uint8)
    expected = [suite.node(pair[:32].tobytes(), pair[32:].tobytes()) for pair in pairs]
    parents = suite.nodes(pairs)
    assert parents.shape == (count, 32)
    assert parents.dtype == np.uint8
    assert parents.tobytes() == b"".join(expected)


@SUITES
def test_extreme_words(suite: Suite):
    pairs = np.repeat(np.array([[0], [1], [0x7F], [0x80], [0xFF]], np.uint8), 64, axis=1)
    pairs = np.concatenate([pairs] * 500)
    expected = [suite.node(pair[:32].tobytes(), pair[32:].tobytes()) for pair in pairs[:5]]
    assert suite.nodes(pairs).tobytes() == b"".join(expected) * 500


@SUITES
def test_a_level_may_be_any_view(suite: Suite):
    rows = np.random.default_rng(0).integers(0, 256, (6000, 32), np.uint8)
    rows.flags.writeable = False
    pairs, wide = rows.reshape(3000, 64), np.zeros((3000, 128), np.uint8)
    wide[:, 32:96] = pairs
    for count in (600, 3000):  # by a loop, and in numpy
        assert (suite.nodes(wide[:count, 32:96]) == suite.nodes(pairs[:count])).all()


@SUITES
@pytest.mark.parametrize("size", [0, 1, 64, 1024, 1025, 1 << 20])
def test_leaf(suite: Suite, size: int):
    data = bytes(size)
    expected = {
        "sha256": hashlib.sha256(b"\0" + data).digest(),
        "blake3": blake3(data, key=tagged_hash("merkle leaf")).digest(),
    }
    assert suite.leaf(data) == suite.leaf(memoryview(data)) == expected[suite.name]


@SUITES
def test_several_leaves_are_hashed_as_each_is(suite: Suite):
    data = [bytes(n) for n in (3, 0, 64, 5000, 1 << 20, 7)] + [memoryview(b"view")]
    digests = suite.leaves(data)
    assert (digests.shape, digests.dtype) == ((7, 32), np.uint8)
    assert digests.tobytes() == b"".join(map(suite.leaf, data))
    assert suite.leaves([]).shape == (0, 32)


@SUITES
def test_a_suite_is_shown_by_its_name(suite: Suite):
    assert repr(suite) == f"Suite(name={suite.name!r})"


def test_sha256_is_that_of_the_rfc():
    assert SHA256.empty == hashlib.sha256(b"").digest()
    assert (
        SHA256.node(b"a" * 32, b"b" * 32) == hashlib.sha256(b"\1" + b"a" * 32 + b"b" * 32).digest()
    )


@SUITES
def test_leaf_node_and_empty_tree_are_separate_domains(suite: Suite):
    pair = bytes(range(64))
    digests = {
        suite.leaf(pair),
        suite.node(pair[:32], pair[32:]),
        suite.leaf(b""),
        suite.leaf(b"\0"),
        suite.leaf(b"\1" + pair),
        suite.empty,
        blake3(pair).digest(),
        hashlib.sha256(pair).digest(),
    }
    assert len(digests) == 8


def test_values_of_the_specification():
    assert tagged_hash("merkle leaf").hex() == (
        "4137c37fb306b2792bdee4c583fe681e3d65fefccba11359a701c16baa49a5eb"
    )
    assert tagged_hash("merkle node").hex() == (
        "189842a021188538fe1f349df057edc3a2902b9f20baddfbe952fe6f4f99dc5f"
    )
    assert BLAKE3.leaf(b"").hex() == (
        "fb521bbbf5992aad2db031e01647b552c5eb27fcec07686870373b19dd61d58b"
    )
    assert BLAKE3.node(bytes(32), bytes(32)).hex() == (
        "476f35a2c618a1672e55dd08cc285676cee7ada15aaa0142bb73a714bcd673c2"
    )
    assert BLAKE3.empty.hex() == (
        "52f7d7860c03b55e0e43661cc22d092db05ca116d9edcfb7db43deec552ce72d"
    )


@needs_vectors("blake3", 35)
def test_third_party_vectors():
    (file,) = (VECTORS / "blake3").glob("*.json")
    vectors = json.loads(file.read_text())
    assert len(vectors["cases"]) == 35
    key, context = vectors["key"].encode(), vectors["context_string"]
    for case in vectors["cases"]:
        data = bytes(i % 251 for i in range(case["input_len"]))
        length = len(case["hash"]) // 2
        assert blake3(data).hexdigest(length) == case["hash"]
        assert blake3(data, key=key).hexdigest(length) == case["keyed_hash"]
        derived = blake3(data, derive_key_context=context)
        assert derived.hexdigest(length) == case["derive_key"]
        if case["input_len"] == 64:
            assert keyed_hash_of_64_bytes(key, data).hex() == case["keyed_hash"][:64]
