"""Audits of ballots: the answer is its trace's, the trace is its worker's, and both are right."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.identities import Identity
from protocols.messages import (
    MAX_VALUE,
    AnswerForm,
    Assignment,
    InvalidSignature,
    Job,
    NotUploaded,
    Reason,
    Reveal,
    RevealRequest,
    Signed,
    TraceRequest,
    UnknownWorker,
    Upload,
    sign,
)
from protocols.replicated import AskReveal, Audit, Blame, Conclude, Dispatch, Phase, order
from protocols.replicated.audit import AuditFinding, Auditor, audited
from protocols.replicated.mismatch import AnswerMismatch, NoMismatch, answer_leaves
from protocols.replicated.orders import trace_request
from protocols.replicated.runs import answer_of, input_digest, reveal_of
from tests.helpers.jobs import JOB, TOLERANCE, Run, rules
from verifiable import challenge, program
from verifiable import trace as traces
from verifiable.encoding import tagged_hash, tensor_bytes
from verifiable.errors import (
    MalformedEncoding,
    MalformedProof,
    RootMismatch,
    VerificationError,
)
from verifiable.key import VerifierKey
from verifiable.policy import Policy
from verifiable.program import Program
from verifiable.report import Verdict
from verifiable.submission import Submission
from verifiable.trace import Opening
from verifiable.voting.quorum import FixedSize

RNG = np.random.default_rng(5)
PARAMS = (RNG.standard_normal((128, 128)) / 8).astype(np.float32)
X = RNG.standard_normal((16, 128)).astype(np.float32)
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in range(1, 4)]
IDS = [Identity(public_key=key.public_key().public_bytes_raw()) for key in KEYS]
SIGNER = {identity.id: key for identity, key in zip(IDS, KEYS, strict=True)}
ALICE, BOB, CAROL = (identity.id for identity in IDS)
FALSE = b"F" * 32


def model(params: Any, x: Any) -> dict[str, Any]:
    h = x @ params
    return {"values": jnp.tanh(h), "first": h[0] > 0}


@functools.cache
def compiled() -> tuple[Program, VerifierKey]:
    made = program.compile(model, PARAMS, X, policy=Policy(draws=4), self_test=False)
    return made, made.setup(PARAMS, challenge.secret(bytes(32)))


@functools.cache
def ran(cheat: bool = False) -> Submission:
    """An honest run; or one of another model, that names the parameters of the job."""
    sent = compiled()[0].prove(PARAMS[::-1].copy() if cheat else PARAMS, X)
    return dataclasses.replace(sent, parameters=program.parameter_root(PARAMS))


def asked(form: AnswerForm = AnswerForm.DIGEST) -> Job:
    return dataclasses.replace(
        JOB,
        program=compiled()[0].id,
        parameters=program.parameter_root(PARAMS),
        input=input_digest(X),
        answer=form,
    )


def auditor(job: Job) -> Auditor:
    made, key = compiled()
    identities = {identity.id: identity for identity in IDS}
    return Auditor(job=job, program=made, key=key, inputs=(X,), identities=identities)


def voted(job: Job, revealed: dict[bytes, Reveal]) -> Run:
    """Three workers commit and reveal, and their ballots disagree."""
    run = Run.of(rules(FixedSize(bad=0.1, size=3)), workers=list(revealed), job=job)
    for reveal in revealed.values():
        run.send(reveal.commit)
    for reveal in revealed.values():
        run.send(reveal)
    run.draw()
    assert run.state.phase is Phase.AUDIT
    return run


def honest(worker: bytes, job: Job, sent: Submission | None = None) -> Reveal:
    return reveal_of(ran() if sent is None else sent, worker=worker, job=job)


def lying(worker: bytes, job: Job) -> Reveal:
    """An honest trace, and a false value."""
    return dataclasses.replace(honest(worker, job), value=FALSE)


def upload(
    job: Job, task: Audit, payload: bytes, by: Ed25519PrivateKey | None = None
) -> tuple[bytes, bytes]:
    message = Upload.of(payload, trace_request(job, task))
    return sign(message, (by or SIGNER[message.worker]).sign).encode(), payload


def found(run: Run, worker: bytes, payload: bytes | None = None) -> AuditFinding:
    job = run.state.job
    (task,) = [t for t in run.all(Audit) if t.commit.message.worker == worker]
    data = ran().encode() if payload is None else payload
    finding = auditor(job).audit(task, *upload(job, task, data))
    run.do(audited(task, finding, at=run.state.now))
    return finding


def test_two_colluders_with_honest_traces_and_a_false_value_get_nothing():
    """They are a majority, and the trace of each is accepted by every check of a trace."""
    job = asked()
    run = voted(job, {ALICE: honest(ALICE, job), BOB: lying(BOB, job), CAROL: lying(CAROL, job)})
    for worker in (BOB, CAROL):
        finding = found(run, worker)
        assert (finding.verdict, finding.reason) == (Verdict.REJECT, "answer-mismatch")
        assert finding.convicted
    assert found(run, ALICE).verdict is Verdict.ACCEPT
    assert run.end.value == answer_of(AnswerForm.DIGEST, ran().y)
    assert run.end.decision.reason is Reason.AUDITED
    assert run.end.decision.group == (ALICE,)
    assert {e.commit.message.worker for e in run.all(Blame)} == {BOB, CAROL}


def test_a_false_value_is_found_whatever_the_check_says(monkeypatch: pytest.MonkeyPatch):
    """Also over a trace of which the check would say nothing: the ballot would have stood."""
    job = asked()
    run = voted(job, {ALICE: honest(ALICE, job), BOB: lying(BOB, job), CAROL: lying(CAROL, job)})
    monkeypatch.setattr(Program, "verify", lambda *_, **__: pytest.fail("not asked"))
    assert found(run, BOB).reason == "answer-mismatch"


def test_a_wrong_trace_is_rejected_by_its_claims():
    job = asked()
    cheats = {w: honest(w, job, ran(cheat=True)) for w in (BOB, CAROL)}
    run = voted(job, {ALICE: honest(ALICE, job)} | cheats)
    finding = found(run, BOB, ran(cheat=True).encode())
    assert (finding.verdict, finding.reason) == (Verdict.REJECT, "claim-mismatch")
    # Evidence may convict it, but not the ballot alone.
    assert not finding.convicted
    assert finding.report is not None and finding.submission is not None
    found(run, ALICE)
    found(run, CAROL, ran(cheat=True).encode())
    assert run.end.decision.group == (ALICE,)
    assert not run.all(Blame)


@pytest.mark.parametrize("payload", ["another run", "garbage"])
def test_another_trace_than_the_committed_one_convicts_nobody(payload: str):
    job = asked()
    run = voted(job, {ALICE: honest(ALICE, job), BOB: honest(BOB, job), CAROL: lying(CAROL, job)})
    data, reason = (
        (ran(cheat=True).encode(), "commitment-mismatch")
        if payload == "another run"
        else (b"junk", "malformed-upload")
    )
    finding = found(run, BOB, data)
    assert (finding.verdict, finding.reason) == (Verdict.REJECT, reason)
    assert not finding.convicted


def test_garbage_under_another_workers_name_does_not_void_its_ballot():
    """It is refused without a verdict, however often it comes, and the worker's own counts."""
    job = asked()
    run = voted(job, {ALICE: honest(ALICE, job), BOB: honest(BOB, job), CAROL: lying(CAROL, job)})
    (task,) = [t for t in run.all(Audit) if t.commit.message.worker == ALICE]
    mallory = SIGNER[CAROL]
    with pytest.raises(InvalidSignature):
        auditor(job).audit(task, *upload(job, task, b"junk", mallory))
    message, _ = upload(job, task, ran().encode())
    with pytest.raises(NotUploaded, match="content"):
        auditor(job).audit(task, message, ran(cheat=True).encode())
    with pytest.raises(NotUploaded, match="size"):
        auditor(job).announced(task, upload(job, task, bytes(10**6))[0])
    for worker in (ALICE, BOB, CAROL):
        found(run, worker)
    assert run.end.decision.group == tuple(sorted((ALICE, BOB)))
    assert [e.commit.message.worker for e in run.all(Blame)] == [CAROL]


def test_values_are_canonical_bytes_or_their_digest():
    y = ran().y
    data = bytes(tensor_bytes(y["first"])) + bytes(tensor_bytes(y["values"]))
    assert answer_of(AnswerForm.BYTES, y) == data
    assert answer_of(AnswerForm.DIGEST, y) == tagged_hash("answer bytes", data)
    job = asked(AnswerForm.BYTES)
    assert honest(ALICE, job).value == data
    large = dataclasses.replace(ran(), y=np.zeros(MAX_VALUE + 1, np.uint8))
    with pytest.raises(ValueError, match="value of a reveal"):
        reveal_of(large, worker=ALICE, job=job)
    assert len(reveal_of(large, worker=ALICE, job=asked()).value) == 32


def test_bytes_are_compared_as_well():
    job = asked(AnswerForm.BYTES)
    flipped = dataclasses.replace(honest(BOB, job), value=b"\1" + honest(BOB, job).value[1:])
    flipped = dataclasses.replace(flipped, value=bytes(len(flipped.value)))
    reveals = {ALICE: honest(ALICE, job), BOB: flipped, CAROL: honest(CAROL, job)}
    config = rules(FixedSize(bad=0.1, size=3), decode=lambda data: tagged_hash("test", data))
    run = Run.of(config, workers=list(reveals), job=job)
    for reveal in reveals.values():
        run.send(reveal.commit)
    for reveal in reveals.values():
        run.send(reveal)
    run.draw()
    assert found(run, BOB).reason == "answer-mismatch"
    assert found(run, ALICE).verdict is Verdict.ACCEPT


def test_digests_need_an_exact_agreement():
    config = rules(FixedSize(bad=0.1, size=3), agreement=TOLERANCE)
    with pytest.raises(ValueError, match="only be compared by Exact"):
        Run.of(config, job=dataclasses.replace(JOB, answer=AnswerForm.DIGEST))


def test_an_audit_of_another_program_or_input_is_the_callers_mistake():
    job = asked()
    for change, match in (({"program": bytes(32)}, "program"), ({"input": bytes(32)}, "input")):
        with pytest.raises(ValueError, match=f"the job names {match} 00"):
            auditor(dataclasses.replace(job, **change))
    assert input_digest(X) != input_digest(X[::-1]) != input_digest(X, X)
    assert input_digest(X) == input_digest(jnp.asarray(X))


def test_every_task_that_concerns_a_worker_has_an_order():
    job = asked()
    run = voted(job, {ALICE: honest(ALICE, job), BOB: honest(BOB, job), CAROL: lying(CAROL, job)})
    for worker in (ALICE, BOB, CAROL):
        found(run, worker)
    kinds = {Dispatch: Assignment, AskReveal: RevealRequest, Audit: TraceRequest}
    for effect, kind in kinds.items():
        orders = [order(job, task) for task in run.all(effect)]
        assert all(type(made) is kind for made in orders)
        assert {made.worker for made in orders} == {ALICE, BOB, CAROL}  # pyright: ignore[reportAttributeAccessIssue]
        assert {(m.coordinator, m.job, m.epoch) for m in orders} == {
            (job.coordinator, job.digest, job.epoch)
        }
    (end,) = run.all(Conclude)
    assert order(job, end) == run.end.decision
    assert run.end.decision.coordinator == job.coordinator


# ------------------------------------------------------------------- evidence of an answer mismatch

REGISTERED = {identity.id: identity for identity in IDS}


def ballot(reveal: Reveal, by: Ed25519PrivateKey | None = None) -> Signed[Reveal]:
    return sign(reveal, (by or SIGNER[reveal.worker]).sign)


@pytest.mark.parametrize("form", AnswerForm)
def test_anybody_is_shown_a_false_value_without_key_parameters_or_inputs(form: AnswerForm):
    job, made = asked(form), compiled()[0]
    evidence = AnswerMismatch.of(job, ballot(lying(BOB, job)), ran(), made)
    read = AnswerMismatch.decode(evidence.encode(), made.layout)
    assert read == evidence
    assert read.verify(made, REGISTERED).worker == BOB
    with pytest.raises(ValueError, match="is the answer"):
        AnswerMismatch.of(job, ballot(honest(BOB, job)), ran(), made)
    with pytest.raises(ValueError, match="not what the reveal commits to"):
        AnswerMismatch.of(job, ballot(lying(BOB, job)), ran(cheat=True), made)


def opened(sent: Submission) -> Opening:
    """The leaves of y of another run."""
    committed = traces.commit(sent.y, sent.trace)
    return committed.open(answer_leaves(compiled()[0].layout))


def accused(
    job: Job, reveal: Reveal, opening: Opening | None = None, **more: Any
) -> AnswerMismatch:
    """Evidence that an accuser made up."""
    return AnswerMismatch(
        job=job, reveal=ballot(reveal, **more).encode(), opening=opening or opened(ran())
    )


def one_leaf_more(opening: Opening) -> Opening:
    return dataclasses.replace(opening, leaves=(*opening.leaves, opening.leaves[-1]))


def cut(opening: Opening, **change: tuple[bytes, ...]) -> Opening:
    return dataclasses.replace(opening, **change)


# What an accuser shows of an honest worker, or makes up, and why the judge refuses it.
FRAMES: dict[str, tuple[type[Exception], Any]] = {
    "the worker's own answer": (NoMismatch, lambda j: accused(j, honest(BOB, j))),
    "the answer of another run": (
        RootMismatch,
        lambda j: accused(j, honest(BOB, j), opened(ran(cheat=True))),
    ),
    "a false value that it did not sign": (
        InvalidSignature,
        lambda j: accused(j, lying(BOB, j), by=SIGNER[CAROL]),
    ),
    "a worker that is not registered": (
        UnknownWorker,
        lambda j: accused(j, dataclasses.replace(lying(BOB, j), worker=bytes(32)), by=KEYS[0]),
    ),
    "a reveal for another job": (
        NoMismatch,
        lambda j: accused(j, dataclasses.replace(lying(BOB, j), job=bytes(32))),
    ),
    "a reveal for another epoch": (
        NoMismatch,
        lambda j: accused(j, dataclasses.replace(lying(BOB, j), epoch=j.epoch + 1)),
    ),
    "the job with the other form of answers": (
        NoMismatch,
        lambda j: dataclasses.replace(
            accused(j, honest(BOB, j)), job=dataclasses.replace(j, answer=AnswerForm.BYTES)
        ),
    ),
    "a job for another program": (
        NoMismatch,
        lambda j: accused(
            dataclasses.replace(j, program=bytes(32)),
            lying(BOB, dataclasses.replace(j, program=bytes(32))),
        ),
    ),
    "a trace of another size": (
        MalformedProof,
        lambda j: accused(j, dataclasses.replace(lying(BOB, j), trace_size=10**6)),
    ),
    "another root": (
        RootMismatch,
        lambda j: accused(j, dataclasses.replace(lying(BOB, j), trace_root=bytes(32))),
    ),
    "no leaves": (
        MalformedProof,
        lambda j: accused(j, lying(BOB, j), cut(opened(ran()), leaves=(), proof=())),
    ),
    "a leaf more": (
        MalformedProof,
        lambda j: accused(j, lying(BOB, j), one_leaf_more(opened(ran()))),
    ),
    "no proof": (MalformedProof, lambda j: accused(j, lying(BOB, j), cut(opened(ran()), proof=()))),
    "a leaf cut short": (
        MalformedEncoding,
        lambda j: accused(
            j,
            lying(BOB, j),
            cut(opened(ran()), leaves=(*opened(ran()).leaves[:-1], opened(ran()).leaves[-1][:-1])),
        ),
    ),
    "a boolean that is none": (
        MalformedEncoding,
        lambda j: accused(
            j, lying(BOB, j), cut(opened(ran()), leaves=(b"\2" * 128, *opened(ran()).leaves[1:]))
        ),
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_no_evidence_is_made_of_an_honest_worker(name: str):
    error, make = FRAMES[name]
    with pytest.raises(error):
        make(asked()).verify(compiled()[0], REGISTERED)


@settings(max_examples=60)
@given(st.data())
def test_hostile_evidence_raises_nothing_else_and_convicts_nobody(data: st.DataObject):
    job, made = asked(), compiled()[0]
    raw = bytearray(accused(job, honest(BOB, job)).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(raw)) | st.integers(0, 600))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    for hostile in (bytes(raw), bytes(raw) + bytes(2**20), bytes(raw)[:-1]):
        with pytest.raises(VerificationError):
            AnswerMismatch.decode(hostile, made.layout).verify(made, REGISTERED)
