"""Committees, verdicts and votes for tests, with known keys; each is made once."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from protocols.settlement.committee import Committee, Member, prove_registration, registered_key
from protocols.settlement.statements import (
    Deployment,
    EpochStatement,
    Lock,
    LockReport,
    Prepare,
    Rotation,
    Statement,
)
from protocols.settlement.submission import Head, SettlementSubmission
from protocols.settlement.verdicts import EpochLog, VerdictRecord
from protocols.settlement.votes import Vote
from verifiable.bls import ProvenKey, SecretKey, Signature
from verifiable.report import Verdict

S = TypeVar("S", EpochStatement, Rotation, Prepare, Lock, LockReport)

CHAIN = Deployment(chain_id=31337, contract=b"\xc0" * 20)
ELSEWHERE = Deployment(chain_id=1, contract=b"\xc0" * 20)
POLICY, PROGRAM = b"\xaa" * 32, b"\xbb" * 32
REGISTRANT, STRANGER = b"\x11" * 20, b"\x22" * 20


@functools.cache
def secret(i: int) -> SecretKey:
    return SecretKey.generate(i.to_bytes(32, "big"))


@functools.cache
def key(i: int, deployment: Deployment = CHAIN, registrant: bytes = REGISTRANT) -> ProvenKey:
    proof = prove_registration(secret(i), deployment, registrant)
    return registered_key(secret(i).public_key, proof, deployment, registrant)


@functools.cache
def committee(weights: tuple[int, ...], first: int = 0, deployment: Deployment = CHAIN):
    """Members with the keys `first`, `first + 1`, …; weights follow the order of the committee."""
    ordered = sorted(range(first, first + len(weights)), key=lambda i: key(i).key.eip2537())
    return Committee(
        deployment=deployment,
        members=tuple(
            Member(key=key(i, deployment), weight=weight)
            for i, weight in zip(ordered, weights, strict=True)
        ),
    )


@functools.cache
def holder(of: Committee, member: int) -> SecretKey:
    """The secret of a member."""
    public = of.members[member].key.key
    return next(secret(i) for i in range(1000) if secret(i).public_key == public)


@functools.cache
def signature(of: Committee, member: int, statement: Statement) -> Signature:
    return holder(of, member).sign(statement.message, domain=statement.DOMAIN)


def vote(of: Committee, member: int, statement: S) -> Vote[S]:
    return Vote(statement=statement, member=member, signature=signature(of, member, statement))


def submission(of: Committee, signers: Sequence[int], statement: S) -> SettlementSubmission[S]:
    """The submission of these members' signatures."""
    votes = {i: signature(of, i, statement) for i in signers}
    return SettlementSubmission[S].combine(statement, votes, of)


def prepared(
    head: Head, choice: Statement, attempt: int = 0, signers: Sequence[int] = (0, 1, 2)
) -> SettlementSubmission[Prepare]:
    """Prepares of these members, by default of a quorum of `FOUR`."""
    return submission(head.committee, signers, head.attempt(Prepare, attempt, choice.digest))


def decision(
    head: Head, choice: Statement, attempt: int = 0, signers: Sequence[int] = (0, 1, 2)
) -> SettlementSubmission[Lock]:
    """Locks of these members, by default of a quorum of `FOUR`."""
    return submission(head.committee, signers, head.attempt(Lock, attempt, choice.digest))


def record(i: int, **change: Any) -> VerdictRecord:
    """A verdict on the job number i."""
    given: dict[str, Any] = {
        "epoch": 0,
        "job": i.to_bytes(32, "big"),
        "worker": bytes([i % 251]) * 32,
        "verdict": Verdict.ACCEPT,
        "reason": "agreed",
        "commitment": b"\xcc" * 32,
        "answer": b"\xdd" * 32,
        "program": PROGRAM,
        "policy": POLICY,
        "checked": 10**9,
        "replayed": 10**7,
    }
    return VerdictRecord(**(given | change))


def log(numbers: Iterable[int], **change: Any) -> EpochLog:
    return EpochLog.of(record(i, **change) for i in numbers)


def statement(head: Head, of: EpochLog) -> EpochStatement:
    return head.statement(root=of.tree.root, size=of.tree.size, policy=of.policy)


FOUR = committee((1, 1, 1, 1))
"""The committee in office at `HEAD`."""
NEXT = committee((1, 1, 1), first=10)
"""The committee that `ROTATION` names."""
HEAD = Head(committee=FOUR)
ROTATION = HEAD.rotation(NEXT)
RECORDS = [record(i) for i in range(7)]
LOG = EpochLog.of(RECORDS)
STATEMENT = statement(HEAD, LOG)
HONEST = submission(FOUR, [0, 1, 2], STATEMENT)
OTHER_LOG = log(range(1, 8))
OTHER_STATEMENT = statement(HEAD, OTHER_LOG)
"""For the same place as `STATEMENT`: a member that signs both equivocates."""
