"""Traces: the values a device computed on the way to its answer, committed to in a root and a size.

A trace holds the outputs of a program's claims, in program order. It is committed to together with
the leaves of the answer y. Each tensor is cut into leaves of whole rows (a row runs along the last
axis): as many rows as fit in `leaf_bytes`, and at least one. The canonical bytes of those rows
(`encoding.tensor_bytes`) are the data of a leaf of an RFC 9162 tree over BLAKE3. Its root and its
number of leaves are the commitment: they fix y and every claim before a challenge is known.

The rows of a leaf follow from the shapes and dtypes of the program. Both sides compute this
`Layout` for themselves, and it is never sent. A root binds bytes in places; the layout says what
they mean. So a verifier takes the layout of its own program, never of the received data.

    layout      which rows of which tensor each leaf holds
    commitment  commit, open leaves, verify both
    validate    what a device sent, compared with the layout
    wire        trace and answer as bytes
    audit_plan  which leaves an audit opens; `copies`: those that follow from others
    opened      verify the opening of an audit, and read it
"""

from __future__ import annotations

from verifiable.trace.audit_plan import AuditOpening, AuditPlan
from verifiable.trace.commitment import (
    Commitment,
    Committed,
    OpenedRows,
    Opening,
    commit,
    verify,
    verify_opening,
)
from verifiable.trace.layout import LEAF_BYTES, Layout, LeafRows, TensorLayout, Trace
from verifiable.trace.opened import OpenedTensor, verify_audit
from verifiable.trace.wire import MAGIC, decode, encode, encoded_size

__all__ = [
    "LEAF_BYTES",
    "MAGIC",
    "AuditOpening",
    "AuditPlan",
    "Commitment",
    "Committed",
    "Layout",
    "LeafRows",
    "OpenedRows",
    "OpenedTensor",
    "Opening",
    "TensorLayout",
    "Trace",
    "commit",
    "decode",
    "encode",
    "encoded_size",
    "verify",
    "verify_audit",
    "verify_opening",
]
