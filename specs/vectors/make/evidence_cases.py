"""Evidence: its encoding and its opening (specs/evidence.md, sections 2 and 4)."""

from __future__ import annotations

from typing import Any

from audit_cases import ROWS, WIDTHS, committed, f32, layer, numbers
from family import Family
from spec import BLAKE, multiproof

# The id of the network of audit.json under JAX 0.10 and later (specs/program.md, section 8), as the
# library computes it: nothing else has the trace of the function.
PROGRAM = bytes.fromhex("7b97ece41bd7b1210393b8db994b069341c47e6cb63131566285b3fcaeb0e4a4")
REASON = "malformed-encoding"


def make() -> list[Family]:
    family = Family("evidence", "evidence.md, sections 2 and 4; trace.md, Opening")
    x, w1, w2 = numbers("x", ROWS, 64), numbers("w1", 64, 48), numbers("w2", 48, 32)
    b1, b2 = numbers("b1", 48), numbers("b2", 32)
    c1 = (x.astype("f8") @ w1).astype("f4")
    c2 = (layer(c1, b1).astype("f8") @ w2).astype("f4")
    data = [f32(c1), f32(c2), f32(c2 + b2)]
    digests = [BLAKE.leaf(tensor) for tensor in data]
    root = committed(c1, c2, c2 + b2)["root"]
    family.shared = {
        "program": PROGRAM,
        "layout": [{"dtype": "float32", "shape": [ROWS, n]} for n in (48, 32, 32)],
        "claims": 2,
        # Of each claim and output: the tensors that are opened.
        "opened": {"claim": [[0], [0, 1]], "output": [[1, 2]]},
    }
    assert WIDTHS == (64, 48, 32)

    def evidence(
        *,
        magic: bytes = b"verifiable evidence 1".ljust(32, b"\0"),
        program: bytes = PROGRAM,
        kind: int = 0,
        index: int = 1,
        trip: int = 0,
        row: int = 3,
        size: int = 3,
        leaves: Any = None,
        proof: Any = None,
        top: bytes = root,
    ) -> bytes:
        tensors = {(0, 0): [0], (0, 1): [0, 1], (1, 0): [1, 2]}.get((kind, index), [0, 1])
        leaves = [data[i] for i in tensors] if leaves is None else leaves
        proof = multiproof(BLAKE, tensors, digests) if proof is None else proof
        place = bytes([kind]) + index.to_bytes(4, "big") + trip.to_bytes(8, "big")
        place += row.to_bytes(8, "big")
        head = magic + program + b"\7" * 32 + top + size.to_bytes(8, "big") + place
        return head + b"".join(leaves) + b"".join(proof)

    right = evidence()

    def shown(kind: str, index: int, row: int = 3, trip: int = 0) -> dict[str, Any]:
        return {
            "kind": kind,
            "index": index,
            "trip": str(trip),
            "row": str(row),
            "parameters": b"\7" * 32,
        }

    family.accept("of the second claim", "open", shown("claim", 1), data=right)
    family.accept("of the first claim", "open", shown("claim", 0), data=evidence(index=0))
    family.accept("of the answer", "open", shown("output", 0), data=evidence(kind=1, index=0))
    most = 2**64 - 1
    family.accept(
        "of the last place that an encoding has",
        "open",
        shown("claim", 1, most, most),
        data=evidence(row=most, trip=most),
    )
    proof = multiproof(BLAKE, [0, 1], digests)
    changed = bytearray(right)
    changed[200] ^= 1
    for reason, what, bad in (
        (REASON, "nothing", b""),
        (REASON, "the header alone", right[:157]),
        (REASON, "a byte less than the header", right[:156]),
        (REASON, "another version", evidence(magic=b"verifiable evidence 2".ljust(32, b"\0"))),
        (REASON, "a header padded with spaces", evidence(magic=b"verifiable evidence 1".ljust(32))),
        (REASON, "a trace", evidence(magic=b"verifiable trace 1".ljust(32, b"\0"))),
        (REASON, "neither claim nor output", evidence(kind=2)),
        (REASON, "a claim that the program does not have", evidence(index=2)),
        (REASON, "the largest index", evidence(index=2**32 - 1)),
        (REASON, "an output that the program does not have", evidence(kind=1, index=1)),
        (REASON, "a byte missing", right[:-1]),
        (REASON, "a byte too many", right + b"\0"),
        (REASON, "a leaf missing", evidence(leaves=[data[0]], proof=[])),
        (REASON, "more than 64 digests for each leaf", evidence(proof=[bytes(32)] * 129)),
        (REASON, "a size of zero", evidence(size=0)),
        ("misnamed", "another program", evidence(program=bytes(32))),
        ("misnamed", "another program, cut off", evidence(program=bytes(32))[:200]),
        ("malformed-proof", "another size committed to", evidence(size=4)),
        ("malformed-proof", "no digests", evidence(proof=[])),
        ("malformed-proof", "a digest too many", evidence(proof=[*proof, proof[0]])),
        (
            "malformed-proof",
            "the digests of the first claim",
            evidence(proof=multiproof(BLAKE, [0], digests)),
        ),
        ("root-mismatch", "a bit of a leaf", bytes(changed)),
        ("root-mismatch", "another root", evidence(top=digests[0])),
        ("root-mismatch", "another digest", evidence(proof=[digests[0]])),
        ("root-mismatch", "leaves in another order", evidence(leaves=[(data[1] + data[0])])),
        (
            "root-mismatch",
            "the leaves of the answer for a claim",
            evidence(leaves=[data[0], data[2]]),
        ),
    ):
        family.refuse(reason, what, "open", data=bad)
    return [family]
