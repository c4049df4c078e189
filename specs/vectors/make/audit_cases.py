"""One whole audit in float32, given the key: a network of two layers (specs/freivalds.md, program.md)."""

from __future__ import annotations

import math
import statistics
import struct
from typing import Any

import numpy as np
from blake3 import blake3
from family import Family
from spec import BLAKE, leaves, mth, tagged_hash

ROWS, WIDTHS, DRAWS, PHI, EPS = 8, (64, 48, 32), 4, 1e-9, 2.0**-16
TINY = 2.0**-126
RANDOM = bytes(range(32))


def numbers(name: str, *shape: int) -> Any:
    """Fixed numbers between -1 and 1, in float32."""
    count = math.prod(shape)
    data = blake3(name.encode()).digest(length=4 * count)
    words = struct.unpack(f"<{count}i", data)
    return np.asarray([w / 2**31 for w in words], np.float32).reshape(shape)


def normals(columns: int) -> Any:
    seed = tagged_hash("secret challenge", RANDOM)
    name = f"normal/float/parameters/{columns}".encode()
    data = blake3(seed + name, derive_key_context="verifiable v1 draws").digest(
        length=8 * columns * DRAWS
    )
    words = struct.unpack(f"<{columns * DRAWS}Q", data)
    inverse = statistics.NormalDist().inv_cdf
    drawn = [inverse(((w >> 12) + 0.5) * 2.0**-52) for w in words]
    return np.asarray(drawn, np.float32).reshape(columns, DRAWS)


def projection(b: Any) -> dict[str, Any]:
    """What the key holds of a matrix of parameters (freivalds.md, sections 3 and 4)."""
    wide = b.astype(np.float64)
    columns = np.sqrt((wide * wide).sum(axis=0))
    w = 1 / np.maximum(columns, 2.0**-12 * columns.max())
    scaled, g = wide * w, normals(b.shape[1])
    norms = np.sqrt((scaled * scaled).sum(axis=1))
    floor = (b.shape[0] + 1) * TINY * math.sqrt((w * w).sum()) + TINY * norms.sum()
    return {
        "vectors": f32(g),
        "image": f64(scaled @ g.astype(np.float64)),
        "weights": f64(w),
        "norms": f64(norms),
        "floor": f64(floor),
    }


def f64(x: Any) -> bytes:
    return np.ascontiguousarray(x, "<f8").tobytes()


def f32(x: Any) -> bytes:
    return np.ascontiguousarray(x, "<f4").tobytes()


def committed(c1: Any, c2: Any, y: Any) -> dict[str, Any]:
    tensors = [("float32", list(t.shape), f32(t)) for t in (c1, c2, y)]
    digests = [BLAKE.leaf(piece[3]) for piece in leaves(tensors, 1 << 16)]
    return {"root": mth(BLAKE, digests), "size": len(digests)}


def layer(c: Any, bias: Any) -> Any:
    return np.maximum(c + bias, np.float32(0))


def make() -> list[Family]:
    family = Family("audit", "freivalds.md, sections 3 to 5; program.md, section 6; trace.md")
    x, w1, w2 = numbers("x", ROWS, 64), numbers("w1", 64, 48), numbers("w2", 48, 32)
    b1, b2 = numbers("b1", 48), numbers("b2", 32)

    def run(
        w1: Any = w1, w2: Any = w2, x: Any = x, b1: Any = b1, b2: Any = b2
    ) -> tuple[Any, Any, Any]:
        c1 = (x.astype(np.float64) @ w1).astype(np.float32)
        c2 = (layer(c1, b1).astype(np.float64) @ w2).astype(np.float32)
        return c1, c2, c2 + b2

    c1, c2, y = run()
    family.shared = {
        **{"x": f32(x), "w1": f32(w1), "b1": f32(b1), "w2": f32(w2), "b2": f32(b2)},
        **{
            "rows": ROWS,
            "widths": WIDTHS,
            "draws": DRAWS,
            "phi": PHI,
            "eps": EPS,
            "random": RANDOM,
        },
        "key": [projection(w1), projection(w2)],
    }

    def case(c1: Any, c2: Any, y: Any, commitment: Any = None) -> dict[str, Any]:
        found = commitment or committed(c1, c2, y)
        return {"claims": [f32(c1), f32(c2)], "y": f32(y), "commitment": found}

    def followed(c1: Any) -> tuple[Any, Any, Any]:
        """A device that goes on honestly after a wrong first product."""
        c2 = (layer(c1, b1).astype(np.float64) @ w2).astype(np.float32)
        return c1, c2, c2 + b2

    def moved(c: Any, i: int, j: int, by: float) -> Any:
        made = c.copy()
        made[i, j] += np.float32(by)
        return made

    family.accept("an honest run", "audit", **case(c1, c2, y))
    add1 = np.zeros((ROWS, 48), np.float32)
    for k in range(64):
        add1 = add1 + x[:, k : k + 1] * w1[k]
    add2 = np.zeros((ROWS, 32), np.float32)
    for k in range(48):
        add2 = add2 + layer(add1, b1)[:, k : k + 1] * w2[k]
    family.accept("a device that adds one by one", "audit", **case(add1, add2, add2 + b2))
    ulp = np.nextafter(c1, np.float32(9))
    family.accept("every number of a layer a digit more", "audit", **case(*followed(ulp)))
    bad = "claim-mismatch"
    gone = w1.copy()
    gone[:, 7] = 0
    swap = x[[1, 0, *range(2, ROWS)]]
    narrow = (x.astype(np.float64) @ (w1 * np.float32(1.001)).astype(np.float32)).astype(np.float32)
    rounded = (np.round(c1 * 64) / 64).astype(np.float32)
    for what, run_ in (
        ("other weights in the first layer", run(w1=numbers("other", 64, 48))),
        ("other weights in the second layer", run(w2=numbers("other", 48, 32))),
        ("another input", run(x=numbers("other", ROWS, 64))),
        ("two rows of the input exchanged", run(x=swap)),
        ("a hidden unit left out", run(w1=gone)),
        ("weights larger by a thousandth", followed(narrow)),
        ("a layer rounded to sixty-fourths", followed(rounded)),
        ("one number of the first layer", followed(moved(c1, 3, 5, 0.05))),
        ("one number of the second layer", (c1, m := moved(c2, 7, 31, 0.05), m + b2)),
        ("one number of the last row", followed(moved(c1, 7, 47, -0.05))),
        ("the first layer before the bias is left out", followed(c1 + b1)),
        ("a row of zeros", followed(np.vstack([c1[:-1], 0 * c1[-1:]]))),
        ("zeros", followed(0 * c1)),
        (
            "the second layer without max(x, 0)",
            (c1, m := ((c1 + b1).astype(np.float64) @ w2).astype(np.float32), m + b2),
        ),
        (
            "the second layer without bias before it",
            (c1, m := (np.maximum(c1, 0).astype(np.float64) @ w2).astype(np.float32), m + b2),
        ),
        ("the negated answer", (c1, -c2, -c2 + b2)),
        ("a thousand times as large", (c1, m := c2 * np.float32(1000), m + b2)),
    ):
        family.refuse(bad, what, "audit", **case(*run_))
    nan = moved(c1, 2, 2, 0)
    nan[2, 2] = np.nan
    large = moved(c2, 0, 0, 0)
    large[0, 0] = np.inf
    family.refuse("claim-nonfinite", "NaN in the first layer", "audit", **case(nan, c2, y))
    family.refuse("claim-nonfinite", "infinity in the second layer", "audit", **case(c1, large, y))
    out = "output-mismatch"
    for what, answer in (
        ("another answer than follows from the claims", moved(y, 4, 4, 0.5)),
        ("an answer without bias", c2),
        ("the answer of zeros", 0 * y),
        ("the rows of the answer exchanged", y[::-1]),
    ):
        family.refuse(out, what, "audit", **case(c1, c2, answer))
    unlike = "commitment-mismatch"
    honest = committed(c1, c2, y)
    for what, sent in (
        ("the trace changed after the commitment", followed(moved(c1, 0, 0, 1e-6))),
        ("the answer changed after the commitment", (c1, c2, moved(y, 0, 0, 1e-6))),
        ("another run than was committed to", run(x=numbers("other", ROWS, 64))),
    ):
        family.refuse(unlike, what, "audit", **case(*sent, honest))
    return [family]
