"""Verifiers of Merkle proofs: against those of RFC 9162 on any size, and third-party vectors."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.helpers.merkle_oracle import (
    accepts,
    consistency_accepts,
    data,
    inclusion_accepts,
    some_leaves,
    tree,
)
from tests.helpers.paths import VECTORS, needs_vectors
from verifiable.errors import MerkleError, RootMismatch
from verifiable.merkle import (
    BLAKE3,
    MAX_SIZE,
    SHA256,
    root_from_inclusion,
    roots_from_subtree_consistency,
    verify_consistency,
    verify_inclusion,
    verify_multiproof,
    verify_subtree_consistency,
    verify_subtree_inclusion,
)


@st.composite
def huge(draw: st.DrawFn) -> tuple[int, int]:
    bits = draw(st.integers(1, 64))
    size = draw(st.integers(2, min(2**bits, MAX_SIZE)))
    return draw(st.integers(0, size - 1)), size


@settings(deadline=None)
@given(huge(), st.data())
def test_inclusion_verifier_agrees_with_the_rfc_on_any_size(where: tuple[int, int], data: Any):
    index, size = where
    leaf, proof = bytes(32), tuple(bytes([i]) * 32 for i in range(64))
    accepted = [
        n
        for n in range(65)
        if accepts(lambda n=n: root_from_inclusion(proof[:n], leaf=leaf, index=index, size=size))
    ]
    assert len(accepted) == 1
    proof = proof[: accepted[0]]
    root = root_from_inclusion(proof, leaf=leaf, index=index, size=size)
    assert inclusion_accepts(proof, leaf, where, root)
    other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(size, MAX_SIZE))
    for i, n in ((other[0], size), (index, other[1]), other):
        mine = accepts(
            lambda i=i, n=n: verify_inclusion(proof, leaf=leaf, index=i, size=n, root=root)
        )
        assert mine == inclusion_accepts(proof, leaf, (i, n), root)


@pytest.mark.parametrize(("index", "length"), [(0, 64), (MAX_SIZE - 1, 63)])
def test_the_largest_tree_is_of_all_sizes_of_64_bits(index: int, length: int):
    assert MAX_SIZE == 2**64 - 1
    leaf, proof = bytes(32), tuple(bytes([i]) * 32 for i in range(length))
    root = root_from_inclusion(proof, leaf=leaf, index=index, size=MAX_SIZE)
    assert inclusion_accepts(proof, leaf, (index, MAX_SIZE), root)


@settings(deadline=None)
@given(huge())
def test_consistency_verifier_agrees_with_the_rfc_on_any_size(where: tuple[int, int]):
    old, size = where
    assume(old > 0)
    old_root, proof = bytes(32), tuple(bytes([i]) * 32 for i in range(66))

    def roots(n: int) -> tuple[bytes, bytes]:
        return roots_from_subtree_consistency(
            proof[:n], start=0, end=old, size=size, subtree_root=old_root
        )

    accepted = [n for n in range(67) if accepts(lambda n=n: roots(n))]
    assert len(accepted) == 1
    computed = roots(accepted[0])
    for n in range(67):
        expected = n == accepted[0]
        assert consistency_accepts(proof[:n], (old, size), computed) == expected


@settings(deadline=None)
@given(some_leaves(), st.data())
def test_every_single_bit_change_fails(leaves: tuple[list[int], int], draw: Any):
    indices, size = leaves
    whole = tree(BLAKE3, size)
    message = [*map(BLAKE3.leaf, map(data, indices)), *whole.multiproof(indices), whole.root]

    def verify(message: list[bytes]) -> None:
        *proof, root = message[len(indices) :]
        verify_multiproof(
            proof, leaves=message[: len(indices)], indices=indices, size=size, root=root
        )

    verify(message)
    at, bit = draw.draw(st.integers(0, len(message) - 1)), draw.draw(st.integers(0, 255))
    flipped = int.from_bytes(message[at], "big") ^ 1 << bit
    message[at] = flipped.to_bytes(32, "big")
    with pytest.raises(RootMismatch):
        verify(message)


@settings(deadline=None)
@given(some_leaves(), st.data())
def test_a_multiproof_is_for_its_own_leaves(leaves: tuple[list[int], int], draw: Any):
    indices, size = leaves
    others = sorted(draw.draw(st.sets(st.integers(0, size - 1), min_size=1)))
    assume(others != indices)
    whole = tree(BLAKE3, size)
    with pytest.raises(MerkleError):
        verify_multiproof(
            whole.multiproof(indices),
            leaves=[BLAKE3.leaf(data(index)) for index in indices],
            indices=others,
            size=size,
            root=whole.root,
        )


# Third-party vectors.

VERIFIERS: dict[str, tuple[Any, dict[str, str]]] = {
    "inclusion": (
        verify_inclusion,
        {"leaf": "leafHash", "index": "leafIdx", "size": "treeSize", "root": "root"},
    ),
    "consistency": (
        verify_consistency,
        {"old_size": "size1", "size": "size2", "old_root": "root1", "root": "root2"},
    ),
    "subtreeinclusion": (
        verify_subtree_inclusion,
        {"leaf": "leafHash", "index": "leafIdx", "start": "start", "end": "end", "root": "root"},
    ),
    "subtreeconsistency": (
        verify_subtree_consistency,
        {"start": "start", "end": "end", "size": "size", "subtree_root": "root1", "root": "root2"},
    ),
}


def digest_of(text: str, *, accepted: bool) -> bytes:
    """Two cases of equal sizes are right for any root, and have a text for it: here, its hash."""
    root = base64.b64decode(text)
    return hashlib.sha256(root).digest() if accepted and len(root) != 32 else root


@needs_vectors("rfc6962", 518)
def test_third_party_vectors():
    cases = must_fail = 0
    wrong: list[str] = []
    for folder, (verify, fields) in VERIFIERS.items():
        for file in sorted((VECTORS / "rfc6962" / folder).rglob("*.json")):
            case = json.loads(file.read_text())
            values = {name: case[field] for name, field in fields.items()}
            arguments = {
                name: digest_of(value, accepted=not case["wantErr"])
                if isinstance(value, str)
                else value
                for name, value in values.items()
            }
            proof = tuple(map(base64.b64decode, case["proof"] or ()))
            refused = not accepts(functools.partial(verify, proof, suite=SHA256, **arguments))
            if refused != case["wantErr"]:
                wrong.append(str(file))
            cases, must_fail = cases + 1, must_fail + case["wantErr"]
    assert not wrong
    assert (cases, must_fail) == (518, 482)
