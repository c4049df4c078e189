"""Settlement: what an epoch of 10^6 verdicts costs its coordinator, its members and a verifier.

The tree is built from the encoded verdicts, as they are received or stored; checking and encoding
the records is shown beside it. Votes are collected by the step function itself, from votes already
read, once in batches and once one by one. Everything runs on one core.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.harness import Row, interleaved_medians
from protocols import settlement
from protocols.identities import Identity
from protocols.settlement import SettlementRules, SubmitSettlement, VoteReceived, start_epoch
from protocols.settlement.committee import Committee, Member, prove_registration, registered_key
from protocols.settlement.receipts import Receipt, issue_receipt
from protocols.settlement.statements import Deployment, EpochStatement
from protocols.settlement.submission import Head, SettlementSubmission, verify_epoch
from protocols.settlement.verdicts import EpochLog, VerdictRecord, verify_verdict
from protocols.settlement.votes import Vote
from verifiable.bls import SecretKey
from verifiable.merkle import SHA256, Tree
from verifiable.report import Verdict

CLAIM = (
    "The tree over an epoch of 10^6 verdicts is built in at most 3 s, and a verdict's inclusion "
    "proof made in at most 1 ms"
)
CHAIN = Deployment(chain_id=1, contract=bytes(20))
MEMBERS = 128


def rows(quick: bool) -> Iterator[Row]:
    """Measure; `quick` takes 50,000 verdicts and few repeats."""
    size, repeats = (50_000, 3) if quick else (1_000_000, 5)
    yield from _tree(size, repeats)
    yield from _votes(3 if quick else 21)


def _records(size: int) -> list[VerdictRecord]:
    random = os.urandom(64 * size)
    return [
        VerdictRecord(
            epoch=0,
            job=i.to_bytes(32, "big"),
            worker=random[64 * i : 64 * i + 32],
            verdict=Verdict.ACCEPT,
            reason="agreed",
            commitment=random[64 * i + 32 : 64 * i + 64],
            answer=random[64 * i + 16 : 64 * i + 48],
            program=bytes(32),
            policy=bytes(32),
            checked=10**9,
            replayed=10**7,
        )
        for i in range(size)
    ]


def _tree(size: int, repeats: int) -> Iterator[Row]:
    """From verdicts to a root, and from a root to a proof."""
    case = f"{size} verdicts"
    records = _records(size)
    start = time.perf_counter()
    data = [record.encode() for record in records]
    yield Row(case, "encode the records", time.perf_counter() - start, "s")
    medians = interleaved_medians({"tree": lambda: Tree.from_data(data, suite=SHA256)}, repeats)
    bar = "<= 3" if size == 1_000_000 else None
    yield Row(case, "tree from encoded verdicts", medians["tree"], "s", bar)
    start = time.perf_counter()
    log = EpochLog(records)
    yield Row(case, "log from records, checked and encoded", time.perf_counter() - start, "s")
    positions = itertools.cycle(range(size // 3, size, size // 7))
    statement = Head(committee=_committee(1)[1]).statement(
        root=log.tree.root, size=size, policy=log.policy
    )
    key = Ed25519PrivateKey.generate()
    issuer = Identity(public_key=key.public_key().public_bytes_raw())
    index = size // 2
    proof = log.inclusion(index)
    receipt = issue_receipt(log, index, statement, issuer, key.sign)
    encoded = receipt.encode()
    parts = {
        "inclusion proof": lambda: log.inclusion(next(positions)),
        "verify an inclusion": lambda: verify_verdict(
            records[index], index=index, proof=proof, statement=statement
        ),
        "issue a COSE receipt": lambda: issue_receipt(log, index, statement, issuer, key.sign),
        "read and verify a COSE receipt": lambda: Receipt.decode(encoded).verify(
            records[index], issuer
        ),
    }
    for part, seconds in interleaved_medians(parts, 200).items():
        yield Row(case, part, seconds, "s", "<= 1e-3" if part == "inclusion proof" else None)
    yield Row(case, "bytes of a COSE receipt", len(encoded), "B")


def _committee(size: int) -> tuple[list[SecretKey], Committee]:
    """A committee of equal weights, and the secrets of its members in order."""
    secrets = [SecretKey.generate(i.to_bytes(32, "big")) for i in range(size)]
    members = [
        Member(
            key=registered_key(
                secret.public_key, prove_registration(secret, CHAIN, bytes(20)), CHAIN, bytes(20)
            ),
            weight=1,
        )
        for secret in secrets
    ]
    committee = Committee.of(CHAIN, members)
    ordered = sorted(secrets, key=lambda secret: committee.index(secret.public_key))
    return ordered, committee


def _votes(repeats: int) -> Iterator[Row]:
    """128 votes from the first to the submission, and what verifies that."""
    start = time.perf_counter()
    secrets, committee = _committee(MEMBERS)
    made = time.perf_counter() - start
    case = f"committee of {MEMBERS}"
    yield Row(case, "sign and check all registrations", made, "s")
    head = Head(committee=committee)
    log = EpochLog(_records(10))
    statement = head.statement(root=log.tree.root, size=10, policy=log.policy)
    domain = EpochStatement.DOMAIN
    votes = [
        Vote(
            statement=statement,
            member=member,
            signature=secret.sign(statement.message, domain=domain),
        )
        for member, secret in enumerate(secrets)
    ]
    wire = [vote.encode() for vote in votes]

    def collect(batch: int) -> SettlementSubmission[EpochStatement]:
        # With time of grace, so that all votes are collected and not only a quorum.
        rules = SettlementRules(batch=batch, grace_seconds=60)
        state, _ = start_epoch(head, log, rules, now=0)
        for vote in votes:
            state, effects = settlement.step(state, VoteReceived(at=1, vote=vote))
            for effect in effects:
                if isinstance(effect, SubmitSettlement):
                    return effect.submission
        raise AssertionError("all votes, and no submission")

    submission = collect(32)
    encoded = submission.encode()
    contestants = {
        "read the votes": lambda: [Vote.decode(EpochStatement, vote) for vote in wire],
        "one by one": lambda: collect(1),
        "in batches of 32": lambda: collect(32),
        "in one batch": lambda: collect(MEMBERS),
        "verify the submission": lambda: verify_epoch(submission, head),
        "read and verify the submission": lambda: verify_epoch(
            SettlementSubmission.decode(EpochStatement, encoded), head
        ),
    }
    medians = interleaved_medians(contestants, repeats)
    for name, seconds in medians.items():
        yield Row(case, name, seconds, "s")
    ratio = medians["one by one"] / medians["in batches of 32"]
    yield Row(case, "batches of 32, times cheaper", ratio, "1")
    yield Row(case, "bytes of a submission", len(encoded), "B")
