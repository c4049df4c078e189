"""Signatures state which arrays go in and come out: right calls pass, wrong ones fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests.helpers.contractions import matrix_form
from tests.helpers.shapes import checked
from verifiable import challenge, encoding, merkle
from verifiable.audits import draw_each
from verifiable.challenge import Challenge
from verifiable.check.freedom import corridor
from verifiable.claims.products import far_norms, freivalds, standalone
from verifiable.field import F61
from verifiable.key import KeyHeader, VerifierKey, require_arrays
from verifiable.merkle import BLAKE3, Tree
from verifiable.voting import Ballot, Tolerance, coordinate_median

ROWS = np.arange(160, dtype=np.uint8).reshape(5, 32)
TREE = Tree(ROWS)
RESIDUES = np.arange(6, dtype=np.uint64).reshape(3, 2)
AGREEMENT = Tolerance.usual(shape=(2, 3), dtype="float32")
VALUES = [np.full((2, 3), 1.0 + i, np.float32) for i in range(4)]
SECRET = challenge.secret(bytes(32))
HEADER = KeyHeader(
    **dict.fromkeys(("program", "policy", "parameters", "challenge"), bytes(32)), version="0"
)
FLOATS = np.ones((3, 4), np.float32)
IMAGES = np.ones((1, 2, 8, 8), np.float32)
LIMITS = {"eps": 1e-6, "limit": 50.0}


def multiproof(leaves: Any) -> Any:
    verify = checked(merkle.verify_multiproof)
    verify(TREE.multiproof([1, 3]), leaves=leaves, indices=[1, 3], size=5, root=TREE.root)


def apply_linear(residues: Any) -> Any:
    apply = checked(F61.apply_linear)
    return apply(lambda x: np.ones((4, 3)) @ x, residues, magnitude=1, terms=3)


def key(arrays: dict[str, Any]) -> VerifierKey:
    made = object.__new__(VerifierKey)
    checked(VerifierKey.__init__)(made, HEADER, arrays)
    return made


def projected(far: str = "float32", draws: int = 5, **changed: Any) -> Any:
    """Shapes of a projection of (4, 6), as its type states them; `g` may be `changed`."""
    form = matrix_form(3, 4, 6, ("int8", "int8", "int32") if far == "int8" else (far,) * 3)
    name = form.vectors(far_known=True)
    g = changed.get("g", checked(freivalds.vectors)(SECRET, name, draws))

    def run(far: Any) -> Any:
        found = checked(freivalds.project)(form, far, g, eps=1e-6)
        return checked(freivalds.Projection.__new__)(freivalds.Projection, *found)

    with jax.enable_x64(True):
        return form, g, jax.eval_shape(run, jax.ShapeDtypeStruct((4, 6), far))


def statistic_of(dtype: str = "float32", **changed: Any) -> Any:
    """The shapes of a test of a product (3, 4) (4, 6), with some arguments `changed`."""
    form, g, projection = projected(dtype)
    near = jax.ShapeDtypeStruct((3, 4), dtype)
    out = jax.ShapeDtypeStruct((3, 6), form.dtypes[2])

    def run(near: Any, projection: Any, out: Any, g: Any) -> Any:
        one = checked(freivalds.test)(form, near, projection, out, g, **LIMITS)
        applied = checked(freivalds.apply)(form, near, projection)
        applied = checked(freivalds.Applied.__new__)(freivalds.Applied, *applied)
        rows = checked(freivalds.compare)(form, applied, projection, out, g, **LIMITS)
        return one, rows

    arguments = {"near": near, "projection": projection, "out": out, "g": g}
    with jax.enable_x64(True):
        return jax.eval_shape(run, **arguments | changed)


def weights(far: Any) -> Any:
    form = matrix_form(3, 4, 6)
    with jax.enable_x64(True):
        return jax.eval_shape(lambda x: checked(far_norms.column_weights)(form, x), far)


def dot(lhs: Any) -> Any:
    return checked(standalone.verify_dot_general)(SECRET, lhs, FLOATS.T, FLOATS)


def convolution(lhs: Any) -> Any:
    verify = checked(standalone.verify_conv_general_dilated)
    return verify(SECRET, lhs, IMAGES[..., :3, :3], FLOATS, (1, 1), "VALID")


RIGHT: dict[str, Callable[[], Any]] = {
    "tensor_bytes": lambda: checked(encoding.tensor_bytes)(ROWS),
    "tensor_from_bytes": lambda: checked(encoding.tensor_from_bytes)(bytes(24), (2, 3), "float32"),
    "Field.reduce": lambda: checked(F61.reduce)(RESIDUES),
    "Field.shift": lambda: checked(F61.shift)(RESIDUES, 3),
    "Field.from_integers": lambda: checked(F61.from_integers)(np.ones((2, 3))),
    "Field.apply_linear": lambda: apply_linear(RESIDUES),
    "Tree": lambda: checked(Tree.__init__)(object.__new__(Tree), ROWS),
    "Suite.nodes": lambda: checked(BLAKE3.nodes)(ROWS[:4].reshape(2, 64)),
    "verify_multiproof": lambda: multiproof(ROWS[[1, 3]]),
    "Tolerance.read": lambda: checked(Tolerance.read)(AGREEMENT, VALUES[0]),
    "Tolerance.distances": lambda: checked(Tolerance.distances)(AGREEMENT, VALUES),
    "coordinate_median": lambda: checked(coordinate_median)(
        [Ballot(bytes([i]), value) for i, value in enumerate(VALUES)], agreement=AGREEMENT
    ),
    "draw_each": lambda: checked(draw_each)(bytes(32), np.array([0.5, 1.0])),
    "Challenge.normals": lambda: checked(Challenge.normals)(SECRET, "label", (2, 3)),
    "Challenge.residues": lambda: checked(Challenge.residues)(SECRET, "label", (2, 3)),
    "VerifierKey": lambda: key({"vectors/a": ROWS}),
    "require_arrays": lambda: checked(require_arrays)(
        {"vectors/a": ROWS}, {"vectors/a": jax.ShapeDtypeStruct(ROWS.shape, ROWS.dtype)}
    ),
    "margin": lambda: checked(corridor.margin)(jnp.arange(3.0)),
    "freivalds, floats": statistic_of,
    "freivalds, float64": lambda: statistic_of("float64"),
    "freivalds, integers": lambda: statistic_of("int8"),
    "column_weights": lambda: weights(np.ones((4, 6))),
    "verify_dot_general": lambda: dot(FLOATS),
    "verify_conv_general_dilated": lambda: convolution(IMAGES),
}

WRONG: dict[str, Callable[[], Any]] = {
    "list for an array": lambda: checked(encoding.tensor_bytes)([1, 2]),
    "signed residues": lambda: checked(F61.reduce)(RESIDUES.astype(np.int64)),
    "floats for residues": lambda: checked(F61.shift)(RESIDUES.astype(np.float64), 3),
    "integers of 64 bits": lambda: checked(F61.from_integers)(RESIDUES),
    "float residues": lambda: apply_linear(RESIDUES.astype(np.float64)),
    "digests of 31 bytes": lambda: checked(Tree.__init__)(object.__new__(Tree), ROWS[:, :31]),
    "half a pair": lambda: checked(BLAKE3.nodes)(ROWS),
    "digests of int8": lambda: multiproof(ROWS[[1, 3]].view(np.int8)),
    "list of readings for one": lambda: checked(Tolerance.distances)(AGREEMENT, VALUES[0]),
    "table of rates": lambda: checked(draw_each)(bytes(32), np.full((2, 2), 0.5)),
    "list for an array of a key": lambda: key({"vectors/a": [1.0, 2.0]}),
    "number for an array of a key": lambda: checked(require_arrays)({"vectors/a": 1.0}, {}),
    "table of scores": lambda: checked(corridor.margin)(jnp.ones((2, 3))),
    "integer scores": lambda: checked(corridor.margin)(jnp.arange(3)),
    "one vector for many": lambda: projected(g=np.ones(6)),
    "vectors of float16": lambda: statistic_of(g=np.ones((6, 5), np.float16)),
    "signed vectors": lambda: statistic_of("int8", g=np.ones((6, 1), np.int64)),
    "list for the near operand": lambda: statistic_of(near=[1.0, 2.0]),
    "far operand of float32": lambda: weights(np.ones((4, 6), np.float32)),
    "int32 operand": lambda: dot(FLOATS.astype(np.int32)),
    "complex images": lambda: convolution(IMAGES.astype(np.complex64)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_a_signature_promises_holds(name: str):
    RIGHT[name]()


@pytest.mark.parametrize("name", WRONG)
def test_other_arrays_break_the_signature(name: str):
    with pytest.raises(TypeCheckError):
        WRONG[name]()
