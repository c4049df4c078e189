"""Trees, proofs and multiproofs."""

from __future__ import annotations

from typing import Any

from tests.helpers.vectors.values import Given, Operations, number, octets
from verifiable import merkle
from verifiable.errors import RootMismatch

SUITES = {suite.name: suite for suite in (merkle.BLAKE3, merkle.SHA256)}
_LISTS = ("proof", "leaves")
_DIGESTS = ("leaf", "root", "old_root", "subtree_root")


def arguments(given: Given) -> dict[str, Any]:
    found: dict[str, Any] = {name: number(value) for name, value in given.items()}
    for name in _LISTS:
        if type(found.get(name)) is list:
            found[name] = [octets(item) for item in found[name]]
    for name in _DIGESTS:
        if name in found:
            found[name] = octets(found[name])
    return found | {"suite": SUITES[given["suite"]]}


def root(given: Given) -> None:
    found = arguments(given)
    computed = merkle.Tree.from_data(found["leaves"], suite=found["suite"]).root
    if computed != found["root"]:
        raise RootMismatch(expected=found["root"], computed=computed)


OPERATIONS: Operations = {
    "trees/root": root,
    "trees/inclusion": lambda given: merkle.verify_inclusion(**arguments(given)),
    "trees/consistency": lambda given: merkle.verify_consistency(**arguments(given)),
    "trees/subtree-inclusion": lambda given: merkle.verify_subtree_inclusion(**arguments(given)),
    "trees/subtree-consistency": lambda given: merkle.verify_subtree_consistency(
        **arguments(given)
    ),
    "multiproofs/multiproof": lambda given: merkle.verify_multiproof(**arguments(given)),
}
