"""Settlement: a committee signs the verdicts of an epoch, and a contract stores their root.

    statements   what a committee signs: EpochStatement, Rotation; SettlementError and its reasons
    committee    Member, Committee: registered keys, weights, bitmaps, quorum
    verdicts     VerdictRecord, EpochLog: the verdicts of an epoch and their Merkle tree
    votes        Vote; Equivocation: two votes that convict a member
    ballots      MemberBallot: what a member may sign, so that a place has one decision
    attempts     Justification: why a member may take part in another attempt
    signer       Signer: a member's view and memory, and how it signs each step
    submission   SettlementSubmission and Head: what goes on chain, and what it is judged by
    state, step  collection of votes, as a pure step function
    receipts     Receipt: an inclusion proof of a verdict that COSE tools can read

The contract is in `protocols.contracts`. Rules: specs/settlement.md, specs/receipts.md.
"""

from __future__ import annotations

from protocols.events import Tick
from protocols.settlement.attempts import BrokenReport, Justification
from protocols.settlement.ballots import MemberBallot
from protocols.settlement.committee import (
    Committee,
    Member,
    prove_registration,
    registered_key,
    registration_binding,
)
from protocols.settlement.receipts import Receipt, issue_receipt
from protocols.settlement.signer import (
    Signer,
    lock,
    prepare_epoch,
    prepare_rotation,
    report,
    sign_epoch,
    sign_rotation,
)
from protocols.settlement.state import (
    Accuse,
    AskVotes,
    RefuseVote,
    SettlementEffect,
    SettlementEvent,
    SettlementPhase,
    SettlementRules,
    SettlementState,
    SettlementTransition,
    SubmitSettlement,
    VoteReceived,
)
from protocols.settlement.statements import (
    REASONS,
    Deployment,
    EpochStatement,
    Lock,
    LockReport,
    Prepare,
    Rotation,
    SettlementError,
    Statement,
)
from protocols.settlement.step import start_epoch, start_lock, start_prepare, start_rotation, step
from protocols.settlement.submission import (
    NO_ROOT,
    Head,
    SettlementSubmission,
    verify_certificate,
    verify_epoch,
    verify_rotation,
)
from protocols.settlement.verdicts import EpochLog, VerdictRecord, verify_verdict
from protocols.settlement.votes import Equivocation, Vote

__all__ = [
    "NO_ROOT",
    "REASONS",
    "Accuse",
    "AskVotes",
    "BrokenReport",
    "Committee",
    "Deployment",
    "EpochLog",
    "EpochStatement",
    "Equivocation",
    "Head",
    "Justification",
    "Lock",
    "LockReport",
    "Member",
    "MemberBallot",
    "Prepare",
    "Receipt",
    "RefuseVote",
    "Rotation",
    "SettlementEffect",
    "SettlementError",
    "SettlementEvent",
    "SettlementPhase",
    "SettlementRules",
    "SettlementState",
    "SettlementSubmission",
    "SettlementTransition",
    "Signer",
    "Statement",
    "SubmitSettlement",
    "Tick",
    "VerdictRecord",
    "Vote",
    "VoteReceived",
    "issue_receipt",
    "lock",
    "prepare_epoch",
    "prepare_rotation",
    "prove_registration",
    "registered_key",
    "registration_binding",
    "report",
    "sign_epoch",
    "sign_rotation",
    "start_epoch",
    "start_lock",
    "start_prepare",
    "start_rotation",
    "step",
    "verify_certificate",
    "verify_epoch",
    "verify_rotation",
    "verify_verdict",
]
