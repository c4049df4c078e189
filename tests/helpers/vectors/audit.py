"""One whole audit in float32, by a program that is compiled once."""

from __future__ import annotations

import functools
import json
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import verifiable as vf
from tests.helpers.vectors.claims import require_ok
from tests.helpers.vectors.values import Given, Operations, octets
from verifiable import challenge, program, trace
from verifiable.policy import Policy
from verifiable.trace import Trace


class Audit(NamedTuple):
    """What a coordinator has."""

    program: Any
    key: Any
    x: Any


def network(params: Any, x: Any) -> Any:
    """Two layers."""
    w1, b1, w2, b2 = params
    return jnp.maximum(x @ w1 + b1, 0) @ w2 + b2


def _array(text: str, *shape: int, dtype: str = "<f4") -> np.ndarray[Any, Any]:
    return np.frombuffer(octets(text), dtype).reshape(shape)


@functools.cache
def _compiled(rows: int, widths: tuple[int, int, int], draws: int, phi: float) -> Any:
    a, b, c = widths
    shapes = (a, b), (b,), (b, c), (c,)
    params = tuple(np.zeros(shape, np.float32) for shape in shapes)
    x, policy = np.zeros((rows, a), np.float32), Policy(draws=draws, phi=phi)
    compiled = program.compile(network, params, x, policy=policy, self_test=False)
    assert len(compiled.claims) == 2
    return compiled


@functools.cache
def _audit(shared: str) -> Audit:
    given = json.loads(shared)
    rows, (a, b, c), draws = given["rows"], given["widths"], given["draws"]
    compiled = _compiled(rows, (a, b, c), draws, given["phi"])
    params = (
        _array(given["w1"], a, b),
        _array(given["b1"], b),
        _array(given["w2"], b, c),
        _array(given["b2"], c),
    )
    x = _array(given["x"], rows, a)
    key = compiled.setup(params, challenge.secret(octets(given["random"])))
    for columns, theirs in zip((b, c), given["key"], strict=True):
        _compare(key.arrays, columns, theirs, draws)
    return Audit(compiled, key, x)


def _compare(arrays: Any, columns: int, theirs: Given, draws: int) -> None:
    """The key of the library and that of the case are the same numbers."""
    g = np.asarray(arrays[f"vectors/float/parameters/{columns}"])
    found = _array(theirs["vectors"], columns, draws)
    np.testing.assert_allclose(g, found, rtol=2.0**-23)
    [name] = [
        name.removesuffix("weights")
        for name, array in arrays.items()
        if name.endswith("/weights") and array.size == columns and name.startswith("projected")
    ]
    part = {field: np.asarray(arrays[name + field], np.float64) for field in ("image", "norms")}
    norms = (part["norms"] / 2.0**100).reshape(-1, 1)
    image = part["image"].reshape(len(norms), draws) * norms
    theirs_image = _array(theirs["image"], len(norms), draws, dtype="<f8")
    np.testing.assert_allclose(image, theirs_image, rtol=1e-5, atol=1e-5)
    theirs_norms = _array(theirs["norms"], len(norms), 1, dtype="<f8")
    np.testing.assert_allclose(norms, theirs_norms, rtol=1e-6)


def audit(given: Given) -> None:
    own = ("claims", "y", "commitment")
    shared = {name: value for name, value in given.items() if name not in own}
    found = _audit(json.dumps(shared, sort_keys=True))
    rows, (_, b, c) = given["rows"], given["widths"]
    values = tuple(_array(t, rows, n) for t, n in zip(given["claims"], (b, c), strict=True))
    y, sent = _array(given["y"], rows, c), Trace(values=values)
    root, size = octets(given["commitment"]["root"]), given["commitment"]["size"]
    commitment = trace.Commitment(root=root, size=size)
    trace.verify(commitment, y, sent, layout=found.program.layout)
    require_ok(found.program.check(found.key, found.x, y=y, trace=sent).reason)


def evidence(given: Given) -> dict[str, Any]:
    """Read evidence about the network of the audit, and verify what it opens."""
    compiled = _compiled(8, (64, 48, 32), 4, 1e-9)
    assert compiled.id.hex() == given["program"]
    assert [list(t.shape) for t in compiled.layout.tensors] == [t["shape"] for t in given["layout"]]
    found = vf.Evidence.decode(octets(given["data"]), compiled)
    assert found.encode() == octets(given["data"])
    kind = "output" if found.output else "claim"
    opened = given["opened"][kind][found.index]
    leaves = [i for i in range(compiled.layout.size) if compiled.layout.rows_of(i).tensor in opened]
    trace.verify_opening(found.commitment, compiled.layout, found.opening, indices=leaves)
    return {
        "kind": kind,
        "index": found.index,
        "trip": str(found.trip),
        "row": str(found.row),
        "parameters": found.parameters.hex(),
    }


OPERATIONS: Operations = {"audit/audit": audit, "evidence/open": evidence}
