"""Openings: every subset of leaves verifies, every changed bit fails, and a table of cheats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.traces import HONEST, A, Run, runs
from verifiable import merkle
from verifiable.errors import MalformedEncoding, MalformedProof, RootMismatch, VerificationError
from verifiable.testing.hostile import Raises
from verifiable.trace import Commitment, Opening, verify, verify_opening


@settings(deadline=None)
@given(runs(), st.data())
def test_every_opening_of_every_trace_verifies(run: Run, data: Any):
    committed = run.commit()
    layout = committed.layout
    verify(committed.commitment, run.y, run.trace, layout=layout)
    everything = verify_opening(
        committed.commitment, layout, committed.open_all(), indices=range(layout.size)
    )
    indices = sorted(data.draw(st.sets(st.integers(0, layout.size - 1), min_size=1)))
    some = verify_opening(committed.commitment, layout, committed.open(indices), indices=indices)
    for i, opened in zip([*range(layout.size), *indices], everything + some, strict=True):
        place = opened.place
        assert place == layout.rows_of(i)
        tensor = np.asarray(run.tensors[place.tensor])
        rows = tensor.reshape(layout.tensors[place.tensor].rows, -1)
        expected = rows[place.start : place.stop]
        assert opened.rows.dtype == tensor.dtype
        assert opened.rows.shape == expected.shape
        assert opened.rows.tobytes() == expected.tobytes()


@settings(deadline=None)
@given(runs(), st.data())
def test_every_single_bit_change_of_an_opening_fails(run: Run, data: Any):
    committed = run.commit()
    layout, commitment = committed.layout, committed.commitment
    indices = sorted(data.draw(st.sets(st.integers(0, layout.size - 1), min_size=1)))
    opening = committed.open(indices)
    message = [*opening.leaves, *opening.proof, commitment.root]
    at = data.draw(st.integers(0, len(message) - 1))
    bit = data.draw(st.integers(0, 8 * len(message[at]) - 1))
    flipped = int.from_bytes(message[at], "little") ^ 1 << bit
    message[at] = flipped.to_bytes(len(message[at]), "little")
    n = len(indices)
    changed = Opening(leaves=tuple(message[:n]), proof=tuple(message[n:-1]))
    with pytest.raises((RootMismatch, MalformedEncoding)):
        verify_opening(replace(commitment, root=message[-1]), layout, changed, indices=indices)


ASKED = [0, 6, 9]
DIGESTS = "verifiable.trace.commitment.digests_of"


@dataclass(frozen=True)
class Cheat:
    """What a prover sends in place of an honest commitment or opening."""

    name: str
    expect: type[VerificationError]
    tamper: Callable[[Commitment, Opening], tuple[Any, Any]]

    def __str__(self) -> str:
        return self.name


def leaves(edit: Callable[[tuple[bytes, ...]], Any]) -> Callable[..., tuple[Any, Any]]:
    return lambda commitment, opening: (commitment, replace(opening, leaves=edit(opening.leaves)))


def leaf(at: int, edit: Callable[[Any], Any]) -> Callable[..., tuple[Any, Any]]:
    return leaves(lambda x: (*x[:at], edit(x[at]), *x[at + 1 :]))


def proof(edit: Callable[[tuple[bytes, ...]], Any]) -> Callable[..., tuple[Any, Any]]:
    return lambda commitment, opening: (commitment, replace(opening, proof=edit(opening.proof)))


def reopened(*indices: int) -> Callable[..., tuple[Any, Any]]:
    return lambda commitment, opening: (commitment, HONEST.commit().open(indices))


def inner_node(x: bytes) -> bytes:
    """The 64 bytes whose node hash is the parent of leaves 0 and 1, where a leaf of 32 is due."""
    tree = HONEST.commit().tree
    return tree.subtree_root(0, 1) + tree.subtree_root(1, 2)


def committed_to(**fields: Any) -> Callable[..., tuple[Any, Any]]:
    return lambda commitment, opening: (replace(commitment, **fields), opening)


OPENING_CHEATS = [
    Cheat("leaf missing", MalformedProof, leaves(lambda x: x[:-1])),
    Cheat("extra leaf", MalformedProof, leaves(lambda x: (*x, x[0]))),
    Cheat("null opening", MalformedProof, lambda commitment, opening: (commitment, None)),
    Cheat("opening as a pair", MalformedProof, lambda c, opening: (c, (opening.leaves, ()))),
    Cheat("opening that raises", MalformedProof, lambda c, opening: (c, Raises())),
    Cheat("no leaves", MalformedProof, leaves(lambda x: ())),
    Cheat("null leaves", MalformedProof, leaves(lambda x: None)),
    Cheat("leaves as one byte string", MalformedProof, leaves(b"".join)),
    Cheat("leaves as a map", MalformedProof, leaves(lambda x: dict.fromkeys(x, b""))),
    Cheat("leaves reordered", RootMismatch, leaves(lambda x: (x[1], x[0], x[2]))),
    Cheat("leaf repeated", RootMismatch, leaves(lambda x: (x[0], x[0], x[2]))),
    Cheat("leaf that is null", MalformedEncoding, leaf(0, lambda x: None)),
    Cheat("leaf that is text", MalformedEncoding, leaf(0, lambda x: "x" * 32)),
    Cheat("leaf that is an array", MalformedEncoding, leaf(0, lambda x: np.zeros(32, np.uint8))),
    Cheat("leaf truncated", MalformedEncoding, leaf(2, lambda x: x[:-1])),
    Cheat("leaf without its second row", MalformedEncoding, leaf(1, lambda x: x[:16])),
    Cheat("leaf padded with zeros", MalformedEncoding, leaf(1, lambda x: x + bytes(16))),
    Cheat("empty leaf", MalformedEncoding, leaf(2, lambda x: b"")),
    Cheat("leaf of 100 MB", MalformedEncoding, leaf(2, lambda x: bytes(10**8))),
    Cheat(
        "byte moved to the next leaf",
        MalformedEncoding,
        leaves(lambda x: (x[0][:-1], x[0][-1:] + x[1], x[2])),
    ),
    Cheat("inner node as a leaf", MalformedEncoding, leaf(0, inner_node)),
    Cheat("digest as a leaf", RootMismatch, leaf(0, merkle.BLAKE3.leaf)),
    Cheat(
        "leaf in the other byte order",
        RootMismatch,
        leaf(0, lambda x: np.frombuffer(x, "<u4").byteswap().tobytes()),
    ),
    Cheat(
        "leaf transposed",
        RootMismatch,
        leaf(1, lambda x: np.frombuffer(x, "<i2").reshape(2, 8).T.tobytes()),
    ),
    Cheat("negative zero", RootMismatch, leaf(0, lambda x: b"\0\0\0\x80" + x[4:])),
    Cheat("NaN", RootMismatch, leaf(0, lambda x: b"\0\0\xc0\x7f" + x[4:])),
    Cheat("other leaves than were asked for", RootMismatch, reopened(1, 7, 10)),
    Cheat("fewer leaves than were asked for", MalformedProof, reopened(0, 6)),
    Cheat("more leaves than were asked for", MalformedProof, reopened(0, 6, 9, 10)),
    Cheat("proof missing", MalformedProof, proof(lambda x: ())),
    Cheat("null proof", MalformedProof, proof(lambda x: None)),
    Cheat("extra digest", MalformedProof, proof(lambda x: (*x, bytes(32)))),
    Cheat("digest missing", MalformedProof, proof(lambda x: x[1:])),
    Cheat("digests reordered", RootMismatch, proof(lambda x: x[::-1])),
    Cheat("commitment to fewer leaves", MalformedProof, committed_to(size=11)),
    Cheat("commitment to more leaves", MalformedProof, committed_to(size=13)),
    Cheat("commitment to 2^64 - 1 leaves", MalformedProof, committed_to(size=2**64 - 1)),
    Cheat("another commitment", RootMismatch, committed_to(root=bytes(32))),
]


@pytest.mark.parametrize("cheat", OPENING_CHEATS, ids=str)
def test_opening_cheat(cheat: Cheat):
    committed = HONEST.commit()
    opening = committed.open(ASKED)
    verify_opening(committed.commitment, committed.layout, opening, indices=ASKED)
    commitment, opening = cheat.tamper(committed.commitment, opening)
    with pytest.raises(cheat.expect):
        verify_opening(commitment, committed.layout, opening, indices=ASKED)


def test_sizes_are_compared_before_anything_is_hashed(monkeypatch: pytest.MonkeyPatch):
    committed = HONEST.commit()
    opening = committed.open(ASKED)
    monkeypatch.setattr(DIGESTS, lambda leaves: pytest.fail("hashed"))
    for commitment, sent in (
        (replace(committed.commitment, size=11), opening),
        (committed.commitment, replace(opening, leaves=opening.leaves[1:])),
        (committed.commitment, replace(opening, leaves=(*opening.leaves[:2], b""))),
    ):
        with pytest.raises((MalformedProof, MalformedEncoding)):
            verify_opening(commitment, committed.layout, sent, indices=ASKED)


# The caller's own mistakes.


@pytest.mark.parametrize("indices", [[], [1, 1], [2, 1], [12], [-1], [1.0], [True], ["1"]])
def test_a_verifier_asks_for_leaves_that_exist(indices: Any):
    committed = HONEST.commit()
    message = "at least one leaf|not strictly increasing|not all integers within a tree of 12"
    with pytest.raises(ValueError, match=message):
        committed.open(indices)
    with pytest.raises(ValueError, match=message):
        verify_opening(
            committed.commitment, committed.layout, committed.open(ASKED), indices=indices
        )


def test_the_tree_is_one_that_others_can_prove_from():
    committed = HONEST.commit()
    leaf = merkle.BLAKE3.leaf(A[3].tobytes())
    merkle.verify_inclusion(
        committed.tree.inclusion(3),
        leaf=leaf,
        index=committed.layout.leaf(0, 3),
        size=committed.commitment.size,
        root=committed.commitment.root,
    )


@pytest.mark.parametrize("name", ["commitment", "layout"])
def test_swapped_arguments_are_named(name: str):
    committed = HONEST.commit()
    arguments: dict[str, Any] = {
        "commitment": committed.commitment,
        "layout": committed.layout,
        "opening": committed.open(ASKED),
        "indices": ASKED,
    }
    with pytest.raises(TypeError, match=f"{name} must be a {name.capitalize()}, got bytes"):
        verify_opening(**(arguments | {name: bytes(32)}))
