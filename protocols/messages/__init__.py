"""Wire messages: frozen values, each with one encoding, and the signatures that bind them.

    Job             program, inputs, coordinator; its digest is its identity
    Assignment      coordinator: run this job
    Commit          worker: a salted hash of its answer and of its trace's root
    RevealRequest   coordinator: commitments are closed
    Reveal          worker: the answer, the root and the salt behind that hash
    TraceRequest    coordinator: hand in the trace
    Upload          worker: size and digest of what it hands in
    Decision        coordinator: how the vote, or an audit, ended the job

`message` holds what all kinds share: encoding, decoding and digest. `job`, `orders`,
`commit_reveal`, `upload` and `decision` hold the kinds. `signing` holds the signatures: `sign`,
`receive`. `obey` and `disclose` are for workers, `announced` and `require_payload` for
coordinators.

A message is a deterministic CBOR array of its kind, its version and its fields. No field is
optional, so a missing field is never read as null. The digest of a message is a tagged hash of
those bytes, with a separate tag for each kind; the digest of a job is its identity.

Senders sign the digests of their messages. A message names its sender first, and the job and the
epoch, so its signature is valid for no other name, job, epoch or kind. The registered identity
fixes the algorithm; a message never names one.

    commitment = H(worker, job, epoch, salt, value, trace root, trace size)

binds the answer before any other is known (collision resistance) and hides it (a salt of 256 bits).
A worker that copies a commitment cannot open it under its own name. Format: specs/messages.md.
"""

from __future__ import annotations

from protocols.messages.commit_reveal import MAX_VALUE, Commit, Reveal
from protocols.messages.decision import MAX_BALLOTS, Decision, Reason, answer_digest
from protocols.messages.job import AnswerForm, Job
from protocols.messages.message import VERSION, Message, is_digest, is_uint, or_null
from protocols.messages.orders import (
    Assignment,
    NotOrdered,
    Order,
    RevealRequest,
    TraceRequest,
    disclose,
    obey,
)
from protocols.messages.signing import (
    InvalidSignature,
    NotSeated,
    Signed,
    UnknownWorker,
    receive,
    sign,
)
from protocols.messages.upload import (
    NotUploaded,
    Upload,
    announced,
    content_digest,
    require_payload,
)

__all__ = [
    "MAX_BALLOTS",
    "MAX_VALUE",
    "VERSION",
    "AnswerForm",
    "Assignment",
    "Commit",
    "Decision",
    "InvalidSignature",
    "Job",
    "Message",
    "NotOrdered",
    "NotSeated",
    "NotUploaded",
    "Order",
    "Reason",
    "Reveal",
    "RevealRequest",
    "Signed",
    "TraceRequest",
    "UnknownWorker",
    "Upload",
    "announced",
    "answer_digest",
    "content_digest",
    "disclose",
    "is_digest",
    "is_uint",
    "obey",
    "or_null",
    "receive",
    "require_payload",
    "sign",
]
