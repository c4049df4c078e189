"""Wire messages: frozen values, each with one encoding, and the signatures that bind them.

    Job       coordinator: run this program on this input, before this time
    Commit    worker: a salted hash of its answer and of its trace's root
    Reveal    worker: the answer, the root and the salt behind that hash
    Decision  coordinator: how the vote, or an audit, ended the job

`message` holds what all kinds share: encoding, decoding and digest. `job`, `commit_reveal` and
`decision` hold the kinds. `signing` holds the signatures of workers: `sign`, `receive`.

A message is a deterministic CBOR array of its kind, its version and its fields. No field is
optional, so a missing field is never read as null. The digest of a message is a tagged hash of
those bytes, with a separate tag for each kind; the digest of a job is its identity.

Workers sign the digests of their messages. A message names the worker, the job and the epoch, so
its signature is valid for no other name, job, epoch or kind. The registered identity fixes the
algorithm; a message never names one.

    commitment = H(worker, job, epoch, salt, value, trace root, trace size)

binds the answer before any other is known (collision resistance) and hides it (a salt of 256 bits).
A worker that copies a commitment cannot open it under its own name. Format: specs/messages.md.
"""

from __future__ import annotations

from protocols.messages.commit_reveal import MAX_VALUE, Commit, Reveal
from protocols.messages.decision import MAX_BALLOTS, Decision, Reason, answer_digest
from protocols.messages.job import Job
from protocols.messages.message import VERSION, Message, is_digest, is_uint, or_null
from protocols.messages.signing import (
    InvalidSignature,
    NotSeated,
    Signed,
    UnknownWorker,
    receive,
    sign,
)

__all__ = [
    "MAX_BALLOTS",
    "MAX_VALUE",
    "VERSION",
    "Commit",
    "Decision",
    "InvalidSignature",
    "Job",
    "Message",
    "NotSeated",
    "Reason",
    "Reveal",
    "Signed",
    "UnknownWorker",
    "answer_digest",
    "is_digest",
    "is_uint",
    "or_null",
    "receive",
    "sign",
]
