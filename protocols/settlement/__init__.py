"""Settlement: a committee signs the verdicts of an epoch, and a contract stores their root.

    statements   what a committee signs: EpochStatement, Rotation; SettlementError and its reasons
    committee    Member, Committee: registered keys, weights, bitmaps, quorum
    verdicts     VerdictRecord, EpochLog: the verdicts of an epoch and their Merkle tree
    votes        Vote, Signer: how a member signs; Equivocation: two votes that convict it
    submission   SettlementSubmission and Head: what goes on chain, and what it is judged by
    state, step  collection of votes, as a pure step function
    receipts     Receipt: an inclusion proof of a verdict that COSE tools can read

The contract is in `protocols.contracts`. Rules: specs/settlement.md, specs/receipts.md.
"""

from __future__ import annotations

from protocols.events import Tick
from protocols.settlement.committee import (
    Committee,
    Member,
    prove_registration,
    registered_key,
    registration_binding,
)
from protocols.settlement.receipts import Receipt, issue_receipt
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
    Rotation,
    SettlementError,
    Statement,
)
from protocols.settlement.step import start_epoch, start_rotation, step
from protocols.settlement.submission import (
    NO_ROOT,
    Head,
    SettlementSubmission,
    verify_epoch,
    verify_rotation,
)
from protocols.settlement.verdicts import EpochLog, VerdictRecord, verify_verdict
from protocols.settlement.votes import Equivocation, Signer, Vote, sign_epoch, sign_rotation

__all__ = [
    "NO_ROOT",
    "REASONS",
    "Accuse",
    "AskVotes",
    "Committee",
    "Deployment",
    "EpochLog",
    "EpochStatement",
    "Equivocation",
    "Head",
    "Member",
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
    "prove_registration",
    "registered_key",
    "registration_binding",
    "sign_epoch",
    "sign_rotation",
    "start_epoch",
    "start_rotation",
    "step",
    "verify_epoch",
    "verify_rotation",
    "verify_verdict",
]
