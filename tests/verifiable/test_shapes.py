"""Signatures state which arrays go in and come out: right calls pass, wrong ones fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests.helpers.shapes import checked
from verifiable import encoding, merkle
from verifiable.audits import draw_each
from verifiable.field import F61
from verifiable.merkle import BLAKE3, Tree
from verifiable.voting import Ballot, Tolerance, coordinate_median

ROWS = np.arange(160, dtype=np.uint8).reshape(5, 32)
TREE = Tree(ROWS)
RESIDUES = np.arange(6, dtype=np.uint64).reshape(3, 2)
AGREEMENT = Tolerance.usual(shape=(2, 3), dtype="float32")
VALUES = [np.full((2, 3), 1.0 + i, np.float32) for i in range(4)]


def multiproof(leaves: Any) -> Any:
    verify = checked(merkle.verify_multiproof)
    verify(TREE.multiproof([1, 3]), leaves=leaves, indices=[1, 3], size=5, root=TREE.root)


def apply_linear(residues: Any) -> Any:
    apply = checked(F61.apply_linear)
    return apply(lambda x: np.ones((4, 3)) @ x, residues, magnitude=1, terms=3)


RIGHT: dict[str, Callable[[], Any]] = {
    "tensor_bytes": lambda: checked(encoding.tensor_bytes)(ROWS),
    "tensor_from_bytes": lambda: checked(encoding.tensor_from_bytes)(bytes(24), (2, 3), "float32"),
    "Field.reduce": lambda: checked(F61.reduce)(RESIDUES),
    "Field.add": lambda: checked(F61.add)(RESIDUES, RESIDUES),
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
}

WRONG: dict[str, Callable[[], Any]] = {
    "list for an array": lambda: checked(encoding.tensor_bytes)([1, 2]),
    "signed residues": lambda: checked(F61.reduce)(RESIDUES.astype(np.int64)),
    "other shapes": lambda: checked(F61.add)(RESIDUES, RESIDUES[:2]),
    "integers of 64 bits": lambda: checked(F61.from_integers)(RESIDUES),
    "float residues": lambda: apply_linear(RESIDUES.astype(np.float64)),
    "digests of 31 bytes": lambda: checked(Tree.__init__)(object.__new__(Tree), ROWS[:, :31]),
    "half a pair": lambda: checked(BLAKE3.nodes)(ROWS),
    "digests of int8": lambda: multiproof(ROWS[[1, 3]].view(np.int8)),
    "list of readings for one": lambda: checked(Tolerance.distances)(AGREEMENT, VALUES[0]),
    "table of rates": lambda: checked(draw_each)(bytes(32), np.full((2, 2), 0.5)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_a_signature_promises_holds(name: str):
    RIGHT[name]()


@pytest.mark.parametrize("name", WRONG)
def test_other_arrays_break_the_signature(name: str):
    with pytest.raises(TypeCheckError):
        WRONG[name]()
