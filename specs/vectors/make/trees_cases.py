"""Trees, proofs and multiproofs (specs/merkle.md)."""

from __future__ import annotations

from typing import Any

from family import Family
from spec import BLAKE, SHA, Hashes, mth, multiproof, path, proof, subtree_proof

SHAPE, ROOT = "malformed-proof", "root-mismatch"


def digests(h: Hashes, n: int) -> list[bytes]:
    return [h.leaf(f"leaf {i}".encode()) for i in range(n)]


def flipped(data: bytes, bit: int = 0) -> bytes:
    return bytes([data[0] ^ 1 << bit]) + data[1:]


def make() -> list[Family]:
    trees, multi = Family("trees", "merkle.md"), Family("multiproofs", "merkle.md, Multiproof")
    for h in (BLAKE, SHA):
        _roots(trees, h)
        _inclusion(trees, h)
        _consistency(trees, h)
        _subtrees(trees, h)
        _multiproofs(multi, h)
    return [trees, multi]


def _roots(family: Family, h: Hashes) -> None:
    for n in (0, 1, 2, 3, 5, 8, 13):
        data = [f"leaf {i}".encode() for i in range(n)]
        root = mth(h, [h.leaf(d) for d in data])
        family.accept(f"{n} leaves", "root", suite=h.name, leaves=data, root=root)
    data = [b"a", b"b", b"c"]
    leaf = [h.leaf(d) for d in data]
    wrong = {
        "the last leaf doubled": mth(h, [*leaf, leaf[2]]),
        "the odd leaf hashed once more": h.node(h.node(leaf[0], leaf[1]), h.node(leaf[2], h.empty)),
        "split after the first leaf": h.node(leaf[0], h.node(leaf[1], leaf[2])),
        "two leaves exchanged": mth(h, [leaf[1], leaf[0], leaf[2]]),
        "leaves hashed as nodes": mth(h, [h.node(d.ljust(32, b"\0"), bytes(32)) for d in data]),
        "the root of the other suite": mth(
            o := SHA if h is BLAKE else BLAKE, [o.leaf(d) for d in data]
        ),
    }
    for what, root in wrong.items():
        family.refuse(ROOT, what, "root", suite=h.name, leaves=data, root=root)


def _inclusion(family: Family, h: Hashes) -> None:
    for n, i in ((1, 0), (2, 1), (5, 4), (7, 2), (8, 5), (11, 10)):
        d = digests(h, n)
        given = {"suite": h.name, "leaf": d[i], "index": i, "size": n}
        right = path(h, i, d)
        what = f"leaf {i} of {n}"
        family.accept(what, "inclusion", **given, proof=right, root=mth(h, d))
    d = digests(h, 7)
    right, root = path(h, 2, d), mth(h, d)
    given: dict[str, Any] = {"suite": h.name, "leaf": d[2], "index": 2, "size": 7, "root": root}
    for what, bad in (
        ("a digest missing", right[:-1]),
        ("a digest too many", [*right, right[0]]),
        ("a digest of 31 bytes", [right[0][:31], *right[1:]]),
        ("a digest of 33 bytes", [right[0] + b"\0", *right[1:]]),
        ("no digests", []),
        ("a proof that is no list", None),
    ):
        family.refuse(SHAPE, what, "inclusion", **given, proof=bad)
    for what, bad in (
        ("a bit of a digest changed", [flipped(right[0]), *right[1:]]),
        ("two digests exchanged", [right[1], right[0], right[2]]),
        ("digests from the root downwards", right[::-1]),
    ):
        family.refuse(ROOT, what, "inclusion", **given, proof=bad)
    for what, reason, change in (
        ("another leaf", ROOT, {"leaf": d[3]}),
        ("another index", ROOT, {"index": 3}),
        ("an index of the other half", SHAPE, {"index": 6}),
        ("an index beyond the tree", SHAPE, {"index": 7}),
        ("a negative index", SHAPE, {"index": -5}),
        ("an index that is a boolean", SHAPE, {"index": True}),
        ("an index that is half a number", SHAPE, {"index": 2.5}),
        ("a size of 2^64", SHAPE, {"size": 2**64}),
        ("a size of zero", SHAPE, {"size": 0}),
        ("a size with longer paths", SHAPE, {"size": 9}),
        ("another root", ROOT, {"root": flipped(root, 7)}),
        ("a leaf of 31 bytes", SHAPE, {"leaf": d[2][:31]}),
        ("a root cut short", ROOT, {"root": root[:31]}),
    ):
        family.refuse(reason, what, "inclusion", **(given | change), proof=right)
    # A path does not bind the size: both of these verify.
    family.accept(
        "another size with the same path", "inclusion", **(given | {"size": 8}), proof=right
    )


def _consistency(family: Family, h: Hashes) -> None:
    for m, n in ((1, 1), (1, 2), (3, 7), (4, 7), (6, 8), (7, 11), (8, 11)):
        d = digests(h, n)
        roots = {"old_root": mth(h, d[:m]), "root": mth(h, d)}
        given = {"suite": h.name, "old_size": m, "size": n, "proof": proof(h, m, d)}
        family.accept(f"{m} leaves become {n}", "consistency", **given, **roots)
    d = digests(h, 7)
    right = proof(h, 3, d)
    cut = mth(h, d)[:31]
    given = {
        **{"suite": h.name, "old_size": 3, "size": 7},
        **{"old_root": mth(h, d[:3]), "root": mth(h, d), "proof": right},
    }
    for reason, what, change in (
        (SHAPE, "an old size of zero", {"old_size": 0, "old_root": h.empty, "proof": []}),
        (SHAPE, "an old size above the new", {"old_size": 8}),
        (SHAPE, "a digest missing", {"proof": right[1:]}),
        (SHAPE, "a digest too many", {"proof": [*right, right[0]]}),
        (ROOT, "another old root", {"old_root": mth(h, d[:2])}),
        (ROOT, "another root", {"root": mth(h, d[:6])}),
        (ROOT, "a bit of the proof changed", {"proof": [right[0], flipped(right[1]), *right[2:]]}),
        (ROOT, "roots exchanged", {"old_root": mth(h, d), "root": mth(h, d[:3])}),
        (ROOT, "equal sizes, different roots", {"old_size": 7, "proof": []}),
        (SHAPE, "equal sizes, a short old root", {"old_size": 7, "old_root": cut, "proof": []}),
    ):
        family.refuse(reason, what, "consistency", **(given | change))


def _subtrees(family: Family, h: Hashes) -> None:
    d = digests(h, 11)
    root = mth(h, d)
    for s, e in ((0, 11), (4, 8), (8, 11), (4, 7), (8, 10), (10, 11), (0, 5)):
        given = {"suite": h.name, "start": s, "end": e, "size": 11, "root": root}
        right = subtree_proof(h, s, e, d)
        sub = mth(h, d[s:e])
        what = f"the subtree [{s}, {e}) of 11"
        family.accept(what, "subtree-consistency", **given, subtree_root=sub, proof=right)
    empty = {"suite": h.name, "start": 3, "end": 3, "size": 11, "root": bytes(32)}
    family.accept(
        "the empty subtree of any root",
        "subtree-consistency",
        **empty,
        subtree_root=h.empty,
        proof=[],
    )
    family.refuse(
        ROOT,
        "an empty subtree with a root",
        "subtree-consistency",
        **empty,
        subtree_root=d[3],
        proof=[],
    )
    family.refuse(
        SHAPE,
        "an empty subtree with a proof",
        "subtree-consistency",
        **empty,
        subtree_root=h.empty,
        proof=[d[0]],
    )
    right = subtree_proof(h, 4, 7, d)
    given = {"suite": h.name, "start": 4, "end": 7, "size": 11, "root": root}
    given |= {"subtree_root": mth(h, d[4:7]), "proof": right}
    for reason, what, change in (
        (SHAPE, "a range that is no subtree", {"start": 5, "end": 8}),
        (SHAPE, "a range beyond the tree", {"start": 8, "end": 12}),
        (SHAPE, "a range that runs backwards", {"start": 7, "end": 4}),
        (SHAPE, "a digest missing", {"proof": right[:-1]}),
        (ROOT, "another subtree root", {"subtree_root": mth(h, d[4:8])}),
        (ROOT, "another root of the tree", {"root": mth(h, d[:10])}),
        (ROOT, "two digests exchanged", {"proof": [right[1], right[0], *right[2:]]}),
    ):
        family.refuse(reason, what, "subtree-consistency", **(given | change))
    inside = path(h, 1, d[4:7])
    given = {"suite": h.name, "start": 4, "end": 7, "leaf": d[5], "index": 5}
    given |= {"root": mth(h, d[4:7]), "proof": inside}
    family.accept("a leaf of a subtree", "subtree-inclusion", **given)
    for reason, what, change in (
        (SHAPE, "an index before the subtree", {"index": 3}),
        (SHAPE, "an index after the subtree", {"index": 7}),
        (SHAPE, "a range that is no subtree", {"start": 5, "end": 8}),
        (SHAPE, "a digest too many", {"proof": [*inside, d[0]]}),
        (ROOT, "the index counted in the subtree's other half", {"index": 4}),
        (ROOT, "the root of the whole tree", {"root": root}),
    ):
        family.refuse(reason, what, "subtree-inclusion", **(given | change))


def _multiproofs(family: Family, h: Hashes) -> None:
    for n, indices in (
        (1, [0]),
        (2, [0, 1]),
        (7, [2]),
        (7, [0, 6]),
        (7, [0, 1, 2, 3, 4, 5, 6]),
        (11, [1, 4, 10]),
        (11, [8, 9]),
        (13, [3, 12]),
        (20, [0, 5, 6, 17, 19]),
    ):
        d = digests(h, n)
        given = {"suite": h.name, "leaves": [d[i] for i in indices], "indices": indices, "size": n}
        right = multiproof(h, indices, d)
        what = f"leaves {', '.join(map(str, indices))} of {n}"
        family.accept(what, "multiproof", **given, proof=right, root=mth(h, d))
    d = digests(h, 11)
    indices = [1, 4, 10]
    right, opened = multiproof(h, indices, d), [d[i] for i in indices]
    given = {"suite": h.name, "leaves": opened, "indices": indices, "size": 11}
    given |= {"proof": right, "root": mth(h, d)}
    in_depth = [*path(h, 1, d)[:2], *path(h, 4, d)[:2], *path(h, 10, d)[:1]]
    for reason, what, change in (
        (SHAPE, "a digest missing", {"proof": right[:-1]}),
        (SHAPE, "a digest too many", {"proof": [*right, right[0]]}),
        (SHAPE, "a digest of 31 bytes", {"proof": [*right[:-1], right[-1][:31]]}),
        (SHAPE, "an entry that is no digest", {"proof": [None, *right[1:]]}),
        (SHAPE, "indices out of order", {"indices": [4, 1, 10]}),
        (SHAPE, "an index twice", {"indices": [1, 1, 10]}),
        (SHAPE, "an index beyond the tree", {"indices": [1, 4, 11]}),
        (SHAPE, "a negative index", {"indices": [-1, 4, 10]}),
        (SHAPE, "a boolean as index", {"indices": [True, 4, 10]}),
        (SHAPE, "no indices", {"indices": [], "leaves": []}),
        (SHAPE, "a leaf missing", {"leaves": opened[:-1]}),
        (SHAPE, "a leaf too many", {"leaves": [*opened, opened[0]]}),
        (SHAPE, "a leaf of 33 bytes", {"leaves": [*opened[:-1], opened[-1] + b"\0"]}),
        (
            SHAPE,
            "the paths of all leaves, one after the other",
            {"proof": [x for i in indices for x in path(h, i, d)]},
        ),
        (SHAPE, "a size of zero", {"size": 0}),
        (SHAPE, "a size of 2^64", {"size": 2**64}),
        (SHAPE, "a larger size", {"size": 33}),
        (ROOT, "leaves exchanged", {"leaves": [opened[1], opened[0], opened[2]]}),
        (ROOT, "digests exchanged", {"proof": [right[1], right[0], *right[2:]]}),
        (ROOT, "digests from the root downwards", {"proof": right[::-1]}),
        (ROOT, "digests in depth-first order", {"proof": in_depth}),
        (ROOT, "a bit of a leaf changed", {"leaves": [flipped(opened[0]), *opened[1:]]}),
        (ROOT, "a bit of a digest changed", {"proof": [flipped(right[0], 3), *right[1:]]}),
        (ROOT, "another index", {"indices": [0, 4, 10]}),
        (ROOT, "another root", {"root": flipped(mth(h, d))}),
        (ROOT, "the root of the empty tree", {"root": h.empty}),
    ):
        family.refuse(reason, what, "multiproof", **(given | change))
