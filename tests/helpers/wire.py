"""Messages of all kinds for tests: examples, and strategies that draw them."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st

from protocols.audited import AnswerReceipt, AuditNotice, OpeningRequest, TraceReceipt
from protocols.identities import Identity
from protocols.messages import (
    AnswerForm,
    Assignment,
    Commit,
    Decision,
    Job,
    Message,
    Order,
    Reason,
    Reveal,
    RevealRequest,
    TraceRequest,
    Upload,
    answer_digest,
)
from verifiable import encoding
from verifiable.encoding import encode
from verifiable.voting import VoteOutcome

ALICE, MALLORY = (Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2))
ALICE_ID, MALLORY_ID = (
    Identity(public_key=key.public_key().public_bytes_raw()) for key in (ALICE, MALLORY)
)
REGISTRY = {identity.id: identity for identity in (ALICE_ID, MALLORY_ID)}
ORDERS: tuple[type[Order], ...] = (Assignment, RevealRequest, TraceRequest, AuditNotice)
RECEIPTS: tuple[type[Message], ...] = (AnswerReceipt, TraceReceipt)
KINDS: tuple[type[Message], ...] = (
    *(Job, Commit, Reveal, Upload, Decision, OpeningRequest),
    *ORDERS,
    *RECEIPTS,
)
digests = st.binary(min_size=32, max_size=32)
uints = st.integers(0, 2**64 - 1)
workers = st.lists(digests, unique=True, max_size=6)
BOSS = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)
BOSS_ID = Identity(public_key=BOSS.public_key().public_bytes_raw())
JOB = Job(
    coordinator=BOSS_ID.id,
    epoch=7,
    nonce=bytes(range(32)),
    expiry=1_800_000_000,
    program=b"\x01" * 32,
    parameters=b"\x02" * 32,
    input=b"\x03" * 32,
)
REVEAL = Reveal(
    worker=ALICE_ID.id,
    job=JOB.digest,
    epoch=JOB.epoch,
    salt=b"\x04" * 32,
    value=b"answer",
    trace_root=b"\x05" * 32,
    trace_size=9,
)
COMMIT = REVEAL.commit
ASSIGNMENT, REQUEST, TRACE_REQUEST = (
    kind(
        coordinator=BOSS_ID.id,
        worker=ALICE_ID.id,
        job=JOB.digest,
        epoch=JOB.epoch,
        deadline=1_800_000_060,
    )
    for kind in (Assignment, RevealRequest, TraceRequest)
)
UPLOAD = Upload.of(b"trace", TRACE_REQUEST)
DECISION = Decision(
    coordinator=BOSS_ID.id,
    job=JOB.digest,
    epoch=JOB.epoch,
    outcome=VoteOutcome.ACCEPT,
    reason=Reason.AGREED,
    answer=answer_digest(b"answer"),
    group=(b"\x01" * 32, b"\x02" * 32),
    dissenters=(b"\x03" * 32,),
    requested=3,
    beacon=12,
    error=0.028,
)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    everyone = draw(workers)
    cut = draw(st.integers(0, len(everyone)))
    group = tuple(sorted(everyone[:cut]))
    reason = draw(st.sampled_from(list(Reason)))
    accepted = reason in {Reason.AGREED, Reason.AUDITED}
    if accepted and not group:
        group = (draw(digests),)
    return Decision(
        coordinator=draw(digests),
        job=draw(digests),
        epoch=draw(uints),
        outcome=VoteOutcome.ACCEPT if accepted else VoteOutcome.INDETERMINATE,
        reason=reason,
        answer=draw(digests) if accepted else None,
        group=group if accepted else (),
        dissenters=tuple(sorted(set(everyone[cut:]) - set(group))),
        requested=draw(st.integers(1, 2**64 - 1)),
        beacon=draw(st.none() | uints),
        error=draw(st.floats(0.0, 1.0)) if reason is Reason.AGREED else None,
    )


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Job,
        coordinator=digests,
        epoch=uints,
        nonce=digests,
        expiry=uints,
        program=digests,
        parameters=digests,
        input=digests,
        answer=st.sampled_from(AnswerForm),
    ),
    *(
        st.builds(
            kind, coordinator=digests, worker=digests, job=digests, epoch=uints, deadline=uints
        )
        for kind in ORDERS
    ),
    st.builds(
        Upload,
        worker=digests,
        job=digests,
        epoch=uints,
        request=digests,
        size=st.integers(1, 2**64 - 1),
        content=digests,
    ),
    st.builds(Commit, worker=digests, job=digests, epoch=uints, commitment=digests),
    st.builds(AnswerReceipt, worker=digests, job=digests, epoch=uints, answer=digests),
    st.builds(
        TraceReceipt,
        worker=digests,
        job=digests,
        epoch=uints,
        receipt=digests,
        trace_root=digests,
        trace_size=st.integers(1, 2**64 - 1),
    ),
    st.builds(
        OpeningRequest,
        coordinator=digests,
        worker=digests,
        job=digests,
        epoch=uints,
        deadline=uints,
        seed=digests,
        layers=st.none() | st.integers(1, 2**64 - 1),
        rows=st.none() | st.integers(1, 2**64 - 1),
    ),
    st.builds(
        Reveal,
        worker=digests,
        job=digests,
        epoch=uints,
        salt=digests,
        value=st.binary(max_size=300),
        trace_root=digests,
        trace_size=st.integers(1, 2**64 - 1),
    ),
    decisions(),
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.binary(max_size=40)
    | digests
    | st.text(max_size=20)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
)


@st.composite
def nearly_messages(draw: st.DrawFn) -> bytes:
    """Messages with fields replaced, or bytes changed."""
    message = draw(messages)
    values = encoding.decode(message.encode(), max_size=1 << 22)
    for _ in range(draw(st.integers(0, 2))):
        values[draw(st.integers(0, len(values) - 1))] = draw(anything)
    data = bytearray(encode(values))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


def joined(body: bytes, signature: bytes) -> bytes:
    """A signed message as the specification has it."""
    return body + b"\x58\x40" + signature
