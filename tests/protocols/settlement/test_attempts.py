"""Attempts with signatures: split committees settle, and justifications that are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.settlement.attempts import BrokenReport, Justification
from protocols.settlement.ballots import NO_LOCK
from protocols.settlement.signer import (
    Signer,
    lock,
    prepare_epoch,
    prepare_rotation,
    report,
    sign_epoch,
    sign_rotation,
)
from protocols.settlement.state import SettlementRules, SubmitSettlement, VoteReceived
from protocols.settlement.statements import Lock, LockReport, Prepare, SettlementError
from protocols.settlement.step import start_epoch, start_lock, start_prepare, start_rotation, step
from protocols.settlement.submission import (
    Head,
    SettlementSubmission,
    verify_epoch,
    verify_rotation,
)
from protocols.settlement.votes import Equivocation, Vote
from tests.helpers.committees import (
    FOUR,
    HEAD,
    LOG,
    NEXT,
    OTHER_LOG,
    OTHER_STATEMENT,
    POLICY,
    ROTATION,
    STATEMENT,
    decision,
    holder,
    prepared,
    signature,
    submission,
    vote,
)
from verifiable import encoding
from verifiable.bls import BadSignature
from verifiable.errors import MalformedEncoding, VerificationError

RULES = SettlementRules()


def collected(start: Any, votes: Sequence[Vote[Any]]) -> SettlementSubmission[Any] | None:
    """What a coordinator makes of these votes."""
    state, _ = start
    for cast in votes:
        state, effects = step(state, VoteReceived(at=0, vote=cast))
        for effect in effects:
            if isinstance(effect, SubmitSettlement):
                return effect.submission
    return None


class Members:
    """Three correct members of `FOUR`, with their memories; the fourth is silent."""

    def __init__(self):
        self.signers = {i: Signer(head=HEAD, policy=POLICY) for i in range(3)}

    def cast(
        self, sign: Callable[[Any, Signer], Any], members: Sequence[int] = (0, 1, 2)
    ) -> list[Any]:
        """What these members send; each is stopped, and restored from its memory, before that."""
        sent: list[Any] = []
        for i in members:
            after, *made = sign(holder(FOUR, i), self.signers[i])
            self.signers[i] = Signer.decode(after.encode(), HEAD)
            assert self.signers[i] == after
            sent.append(made[0] if len(made) == 1 else made)
        return sent

    def justification(self, attempt: int) -> Justification:
        sent = self.cast(lambda key, signer: report(key, signer, attempt))
        proofs = [proof for _, proof in sent if proof is not None]
        highest = max(proofs, key=lambda proof: proof.statement.attempt, default=None)
        made = Justification(reports=tuple(told for told, _ in sent), prepared=highest)
        assert Justification.decode(made.encode()) == made
        return made

    def settle(self, log: Any, attempt: int, why: Justification | None) -> Head:
        """A correct coordinator's attempt, from the prepares to the chain."""
        proposal = HEAD.statement(root=log.tree.root, size=log.tree.size, policy=POLICY)
        prepares = self.cast(
            lambda key, signer: prepare_epoch(
                key, signer, proposal, log.records, attempt=attempt, justification=why
            )
        )
        polled = collected(start_prepare(HEAD, proposal, attempt, RULES, now=0), prepares)
        assert polled is not None
        locks = self.cast(lambda key, signer: lock(key, signer, polled))
        decided = collected(start_lock(HEAD, polled, RULES, now=0), locks)
        assert decided is not None
        votes = self.cast(
            lambda key, signer: sign_epoch(key, signer, proposal, log.records, decided)
        )
        sent = collected(start_epoch(HEAD, log, RULES, now=0), votes)
        assert sent is not None
        return verify_epoch(sent, HEAD)


def test_an_epoch_is_settled_in_the_first_attempt():
    assert Members().settle(LOG, 0, None).root == LOG.tree.root


def test_a_coordinator_that_shows_two_logs_freezes_nothing():
    """Two members prepared one log, one another: the next attempt is free to choose."""
    members = Members()
    members.cast(lambda k, s: prepare_epoch(k, s, STATEMENT, LOG.records), [0, 1])
    members.cast(lambda k, s: prepare_epoch(k, s, OTHER_STATEMENT, OTHER_LOG.records), [2])
    assert members.settle(OTHER_LOG, 1, members.justification(1)).root == OTHER_LOG.tree.root


def test_a_lock_of_one_member_is_what_all_settle():
    """One member locked; it might have been more. Another choice is refused, the same settles."""
    members = Members()
    members.cast(lambda k, s: prepare_epoch(k, s, STATEMENT, LOG.records))
    members.cast(lambda k, s: lock(k, s, prepared(HEAD, STATEMENT)), [1])
    why = members.justification(1)
    with pytest.raises(SettlementError, match="other-choice"):
        members.settle(OTHER_LOG, 1, why)
    assert members.settle(LOG, 1, why).root == LOG.tree.root


def test_an_epoch_and_a_rotation_split_no_term():
    """Both could come next; one of them is decided, and no member signs the other."""
    members = Members()
    members.cast(lambda k, s: prepare_epoch(k, s, STATEMENT, LOG.records), [0, 1])
    members.cast(lambda k, s: prepare_rotation(k, s, ROTATION, NEXT), [2])
    why = members.justification(1)
    prepares = members.cast(
        lambda k, s: prepare_rotation(k, s, ROTATION, NEXT, attempt=1, justification=why)
    )
    polled = collected(start_prepare(HEAD, ROTATION, 1, RULES, now=0), prepares)
    assert polled is not None
    locks = members.cast(lambda k, s: lock(k, s, polled))
    decided = collected(start_lock(HEAD, polled, RULES, now=0), locks)
    assert decided is not None
    votes = members.cast(lambda k, s: sign_rotation(k, s, ROTATION, NEXT, decided))
    sent = collected(start_rotation(HEAD, NEXT, RULES, now=0), votes)
    assert sent is not None
    assert verify_rotation(sent, HEAD, NEXT).sequence == 1
    with pytest.raises(SettlementError, match="already-signed"):
        members.cast(
            lambda k, s: sign_epoch(k, s, STATEMENT, LOG.records, decision(HEAD, STATEMENT))
        )


def told(
    member: int, attempt: int = 2, locked: int = 0, choice: bytes = bytes(32), head: Head = HEAD
):
    return vote(FOUR, member, head.attempt(LockReport, attempt, choice, locked=locked))


REPORTS = [told(i) for i in range(3)]
LOCKED = [told(0, 2, 1, STATEMENT.digest), told(1, 2, 2, OTHER_STATEMENT.digest), told(2)]
PROOF = prepared(HEAD, OTHER_STATEMENT, 1)
LATER = replace(HEAD, epoch=1)

# What is shown to a member that is asked to prepare STATEMENT in attempt 2, and why it refuses.
UNJUSTIFIED: dict[str, tuple[str, Justification | None]] = {
    "no reason but a deadline": ("other-attempt", None),
    "reports of two thirds": ("no-quorum", Justification(reports=(*REPORTS[:2],), prepared=None)),
    "a report twice": ("duplicate", Justification(reports=(*REPORTS, REPORTS[0]), prepared=None)),
    "reports of another attempt": (
        "other-attempt",
        Justification(reports=tuple(told(i, 1) for i in range(3)), prepared=None),
    ),
    "reports of another epoch": (
        "epoch-ahead",
        Justification(reports=tuple(told(i, head=LATER) for i in range(3)), prepared=None),
    ),
    "a report in another's name": (
        "BadBatch",
        Justification(
            reports=(*REPORTS[:2], replace(REPORTS[2], signature=REPORTS[0].signature)),
            prepared=None,
        ),
    ),
    "a report of nobody": (
        "unknown-member",
        Justification(reports=(*REPORTS, replace(REPORTS[0], member=4)), prepared=None),
    ),
    "a lock without its prepares": (
        "other-choice",
        Justification(reports=tuple(LOCKED), prepared=None),
    ),
    "prepares of a lower lock": (
        "other-choice",
        Justification(reports=tuple(LOCKED), prepared=prepared(HEAD, STATEMENT)),
    ),
    "prepares that no report names": (
        "other-choice",
        Justification(reports=tuple(REPORTS), prepared=prepared(HEAD, STATEMENT)),
    ),
    "two choices for the highest lock": (
        "other-choice",
        Justification(
            reports=(LOCKED[1], told(0, 2, 2, STATEMENT.digest), LOCKED[2]), prepared=PROOF
        ),
    ),
    "prepares of two thirds": (
        "no-quorum",
        Justification(reports=tuple(LOCKED), prepared=prepared(HEAD, OTHER_STATEMENT, 1, [0, 1])),
    ),
    "forged prepares": (
        "BadSignature",
        Justification(
            reports=tuple(LOCKED), prepared=replace(PROOF, signature=signature(FOUR, 0, STATEMENT))
        ),
    ),
    "the highest lock is another choice": (
        "other-choice",
        Justification(reports=tuple(LOCKED), prepared=PROOF),
    ),
}


def reason(error: VerificationError) -> str:
    return error.reason if isinstance(error, SettlementError) else type(error).__name__


@pytest.mark.parametrize("name", UNJUSTIFIED)
def test_a_member_joins_no_attempt_without_a_reason(name: str):
    expected, shown = UNJUSTIFIED[name]
    signer = Signer(head=HEAD, policy=POLICY)
    with pytest.raises(VerificationError) as raised:
        prepare_epoch(
            holder(FOUR, 0), signer, STATEMENT, LOG.records, attempt=2, justification=shown
        )
    assert reason(raised.value) == expected


def test_an_attempt_is_justified_at_the_head_alone():
    why = Justification(reports=tuple(REPORTS), prepared=None)
    proposal = HEAD.attempt(Prepare, 2, STATEMENT.digest)
    assert why.verify(proposal, HEAD) == (NO_LOCK,) * 3
    with pytest.raises(SettlementError, match="epoch-ahead"):
        why.verify(replace(proposal, epoch=1), HEAD)


def test_the_honest_justifications_of_the_table_are_accepted():
    """So the rows above are refused only for their cheats."""
    signer = Signer(head=HEAD, policy=POLICY)
    for proposal, log, why in (
        (STATEMENT, LOG, Justification(reports=tuple(REPORTS), prepared=None)),
        (OTHER_STATEMENT, OTHER_LOG, Justification(reports=tuple(LOCKED), prepared=PROOF)),
    ):
        after, made = prepare_epoch(
            holder(FOUR, 0), signer, proposal, log.records, attempt=2, justification=why
        )
        made.verify(FOUR)
        assert (after.ballot.attempt, after.ballot.prepared) == (2, proposal.digest)


FORGED: dict[str, tuple[str, SettlementSubmission[Any]]] = {
    "two thirds": ("no-quorum", decision(HEAD, STATEMENT, signers=[0, 1])),
    "another statement": ("other-choice", decision(HEAD, OTHER_STATEMENT)),
    "prepares for locks": (
        "BadSignature",
        replace(decision(HEAD, STATEMENT), signature=prepared(HEAD, STATEMENT).signature),
    ),
    "another epoch": ("epoch-ahead", decision(LATER, STATEMENT)),
    "another term": ("other-sequence", decision(replace(HEAD, sequence=1), STATEMENT)),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_member_signs_nothing_that_is_not_decided(name: str):
    """A coordinator cannot obtain signatures for the contract before there is a decision."""
    expected, shown = FORGED[name]
    signer = Signer(head=HEAD, policy=POLICY)
    with pytest.raises(VerificationError) as raised:
        sign_epoch(holder(FOUR, 0), signer, STATEMENT, LOG.records, shown)
    assert reason(raised.value) == expected


def test_a_member_locks_only_what_a_quorum_prepared():
    signer = Signer(head=HEAD, policy=POLICY)
    for few, expected in (
        (prepared(HEAD, STATEMENT, signers=[0, 1]), "no-quorum"),
        (prepared(LATER, STATEMENT), "epoch-ahead"),
    ):
        with pytest.raises(SettlementError, match=expected):
            lock(holder(FOUR, 0), signer, few)
    forged = replace(prepared(HEAD, STATEMENT), signature=signature(FOUR, 0, STATEMENT))
    with pytest.raises(BadSignature):
        lock(holder(FOUR, 0), signer, forged)


# ------------------------------------------------------------------------------- evidence, encoding


def test_two_prepares_of_one_attempt_convict_and_of_two_attempts_do_not():
    first, other = (
        vote(FOUR, 1, HEAD.attempt(Prepare, 0, s.digest)) for s in (STATEMENT, OTHER_STATEMENT)
    )
    evidence = Equivocation.of(first, other)
    assert Equivocation.decode(Prepare, evidence.encode()) == evidence
    evidence.verify(FOUR)
    later = vote(FOUR, 1, HEAD.attempt(Prepare, 1, OTHER_STATEMENT.digest))
    with pytest.raises(SettlementError, match="no-conflict"):
        Equivocation.of(first, later)


def locked_in(attempt: int, choice: bytes = STATEMENT.digest, member: int = 0) -> Vote[Lock]:
    return vote(FOUR, member, HEAD.attempt(Lock, attempt, choice))


BROKEN = (
    BrokenReport(report=told(0), lock=locked_in(0)),
    BrokenReport(report=told(0, 2, 1, STATEMENT.digest), lock=locked_in(1)),
    BrokenReport(report=told(0, 2, 1, STATEMENT.digest), lock=locked_in(0, OTHER_STATEMENT.digest)),
)


def test_a_hidden_lock_convicts():
    for evidence in BROKEN:
        evidence.verify(FOUR)
        assert BrokenReport.decode(evidence.encode()) == evidence
        forged = replace(evidence, lock=replace(evidence.lock, signature=told(0).signature))
        with pytest.raises(BadSignature):
            forged.verify(FOUR)


def broken(**changes: Any) -> bytes:
    """An encoding of evidence with fields changed, or several in place of one."""
    fields = dict(zip("kind version member told by done also".split(), FIELDS, strict=True))
    return encoding.encode([*(fields | changes).values()])


FIELDS: list[Any] = encoding.decode(BROKEN[0].encode(), max_size=2048)

# What a stranger sends in place of evidence.
NOT_BROKEN: dict[str, bytes] = {
    "another kind": broken(kind="report equivocation"),
    "another version": broken(version=2),
    "a version that is no number": broken(version=True),
    "a member beyond 255": broken(member=256),
    "a member that is no number": broken(member=False),
    "the lock first": broken(told=FIELDS[5], done=FIELDS[3]),
    "a report cut short": broken(told=FIELDS[3][:-1]),
    "no signature": broken(also=b""),
    "an infinite signature": broken(also=b"\xc0" + bytes(95)),
    "one field more": broken(more=0),
    "bytes after the end": broken() + b"\0",
    "a long head": b"\x98\x07" + broken()[1:],
    "a megabyte": broken(told=bytes(2**20)),
    "nothing": b"",
}


@pytest.mark.parametrize("name", NOT_BROKEN)
def test_evidence_that_is_none_is_malformed(name: str):
    assert BrokenReport.decode(broken()) == BROKEN[0]
    with pytest.raises(MalformedEncoding):
        BrokenReport.decode(NOT_BROKEN[name])


@settings(max_examples=150)
@given(st.sampled_from(BROKEN), st.data())
def test_mutated_evidence_convicts_nobody(evidence: BrokenReport, data: st.DataObject):
    """Whatever is changed, another encoding is refused, or is of what this member signed."""
    raw = bytearray(evidence.encode())
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        read = BrokenReport.decode(bytes(raw))
        assert read.encode() == bytes(raw)
        read.verify(FOUR)
    except VerificationError:
        return
    assert read == evidence


HONEST_PAIRS = {
    "a lock that it reports": (told(0, 2, 2, STATEMENT.digest), locked_in(1)),
    "an earlier lock than it reports": (told(0, 2, 2, STATEMENT.digest), locked_in(0)),
    "a lock in the attempt that it joins": (told(0), locked_in(2)),
    "a later lock": (told(0), locked_in(3)),
    "another member's lock": (told(0), locked_in(0, member=1)),
    "a lock for another epoch": (told(0, head=LATER), locked_in(0)),
}


@pytest.mark.parametrize("name", HONEST_PAIRS)
def test_an_honest_member_is_not_framed(name: str):
    said, done = HONEST_PAIRS[name]
    with pytest.raises(SettlementError, match="no-conflict"):
        BrokenReport(report=said, lock=done)


def test_reports_name_earlier_locks():
    for attempt, locked, choice in ((0, 0, bytes(32)), (1, 2, b"\1" * 32), (1, 1, bytes(32))):
        with pytest.raises(ValueError, match="report"):
            HEAD.attempt(LockReport, attempt, choice, locked=locked)
    with pytest.raises(ValueError, match="report"):
        HEAD.attempt(LockReport, 1, b"\1" * 32, locked=0)


def test_certificates_survive_the_wire_and_nothing_else_does():
    made = Justification(reports=tuple(LOCKED), prepared=PROOF)
    raw = made.encode()
    assert Justification.decode(raw) == made
    assert SettlementSubmission.decode(Prepare, PROOF.encode()) == PROOF
    kind, version, told, proof = encoding.decode(raw, max_size=2**18)
    others = (
        ["justification", version, told, proof],
        [kind, 2, told, proof],
        [kind, True, told, proof],
        [kind, version, [*told, None], proof],
        [kind, version, [*told, "vote"], proof],
        [kind, version, [*told, PROOF.encode()], proof],
        [kind, version, told[0], proof],
        [kind, version, told, proof, None],
        [kind, version, told, "proof"],
        [kind, version, told, told[0]],
    )
    assert encoding.encode([kind, version, told, proof]) == raw and version == 1
    cut = (raw[:-1], raw + b"\0", PROOF.encode(), LOCKED[0].encode())
    for other in (*cut, *map(encoding.encode, others)):
        with pytest.raises(MalformedEncoding):
            Justification.decode(other)
    with pytest.raises(MalformedEncoding):
        SettlementSubmission.decode(Lock, PROOF.encode())


def test_a_justification_has_at_most_256_reports():
    most = Justification(reports=(REPORTS[0],) * 256, prepared=None)
    assert Justification.decode(most.encode()) == most
    more = Justification(reports=(REPORTS[0],) * 257, prepared=None)
    with pytest.raises(MalformedEncoding, match="attempt justification"):
        Justification.decode(more.encode())


def test_steps_have_domains_of_their_own():
    """The words of a prepare and of a lock are the same; their signatures are not."""
    first, second = (HEAD.attempt(kind, 0, STATEMENT.digest) for kind in (Prepare, Lock))
    assert first.message == second.message
    with pytest.raises(BadSignature):
        replace(vote(FOUR, 0, second), signature=signature(FOUR, 0, first)).verify(FOUR)
    assert submission(FOUR, [0, 1, 2], second) == decision(HEAD, STATEMENT)
