"""What the library says of a case of specs/vectors: one function for each operation.

A function takes the input of a case and returns its output, if it has one; what must fail raises a
`VerificationError`. `Refused` has the reasons for which the library has no error of its own.
"""

from __future__ import annotations

from tests.helpers.vectors import (
    audit,
    claims,
    draws,
    formats,
    partial,
    settlement,
    signed,
    traces,
    trees,
)
from tests.helpers.vectors.values import Operations, Refused

OPERATIONS: Operations = {
    name: operation
    for module in (audit, claims, draws, formats, partial, settlement, signed, traces, trees)
    for name, operation in module.OPERATIONS.items()
}

__all__ = ["OPERATIONS", "Refused"]
