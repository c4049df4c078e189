"""Fifth scene: a committee settles the verdicts of an epoch at a contract.

Seven members register their keys, with proofs of possession, at a contract in a chain of this
process. Each holds the verdicts and builds the statement from them; it prepares it, locks it once
more than two thirds prepared it, and signs it once more than two thirds locked it. One member is
offline, and one vote is forged and refused. Once more than two thirds of the weight has signed, one
submission goes to the contract, which checks it, stores the root, and then verifies one verdict
under it. Forgeries are tried before and after: each must be refused, and for the right reason.

Needs the extra `evm`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from protocols import settlement
from protocols.contracts import calldata
from protocols.demo.contract import DeployedContract
from protocols.demo.forgeries import AFTER, BEFORE, Forgery, Sent
from protocols.demo.scenes.check import DeviceOutcome
from protocols.demo.scenes.scene import Counter, Progress
from protocols.settlement import (
    EpochLog,
    EpochStatement,
    Lock,
    Prepare,
    RefuseVote,
    SettlementRules,
    SettlementSubmission,
    SettlementTransition,
    Signer,
    SubmitSettlement,
    VerdictRecord,
    Vote,
    VoteReceived,
    prepare_epoch,
    sign_epoch,
)
from verifiable.bls import SecretKey
from verifiable.encoding import tagged_hash
from verifiable.report import Verdict

RULES = SettlementRules(batch=3)

S = TypeVar("S", EpochStatement, Prepare, Lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgeryOutcome:
    """What the contract answered to a forgery.

    Attributes:
      name: what was forged.
      expected: the reason for which it must be refused.
      reason: the reason that the contract gave, or None if it did not refuse.
    """

    name: str
    expected: str
    reason: str | None

    @property
    def right(self) -> bool:
        """Whether it was refused for the right reason."""
        return self.reason == self.expected


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementSummary:
    """How the epoch was settled.

    Attributes:
      submission: what was submitted to the contract.
      weight: of its signers.
      total: weight of the committee.
      members: number of members.
      refused: votes that were refused, with the reason.
      settled: whether the contract now holds this root and size.
      shown: the verdict that was verified under the root.
      path: number of digests in its inclusion proof.
      gas: of execution, by step: register, activate, settle, and show a verdict.
      outcomes: one for every forgery.
    """

    submission: Sent
    weight: int
    total: int
    members: int
    refused: tuple[RefuseVote, ...]
    settled: bool
    shown: VerdictRecord
    path: int
    gas: dict[str, int]
    outcomes: tuple[ForgeryOutcome, ...]

    @property
    def right(self) -> bool:
        """Whether the epoch is settled, and every forgery was refused for the right reason."""
        outcomes = self.outcomes
        return self.settled and bool(outcomes) and all(outcome.right for outcome in outcomes)


SettlementSceneEvent: TypeAlias = "Progress | ForgeryOutcome | SettlementSummary"


def records(
    judged: Sequence[DeviceOutcome], *, job: bytes, program: bytes, policy: bytes
) -> list[VerdictRecord]:
    """Return the verdicts of the first scene as records of epoch 0.

    The id of a device is a hash of its name. The root of a trace covers the answer, so it also
    serves as the answer's digest.

    Args:
      judged: outcomes of the first scene.
      job: 32-byte id.
      program: 32-byte id.
      policy: 32-byte id.
    """
    return [
        VerdictRecord(
            epoch=0,
            job=job,
            worker=tagged_hash("demo device", outcome.device.name.encode()),
            verdict=Verdict(outcome.verdict),
            reason=outcome.reason,
            commitment=outcome.root,
            answer=outcome.root if outcome.verdict == "accept" else None,
            program=program,
            policy=policy,
            checked=0,
            replayed=0,
        )
        for outcome in judged
    ]


def play(
    verdicts: Sequence[VerdictRecord], *, seed: bytes | None = None
) -> Iterator[SettlementSceneEvent]:
    """Play the scene: yield progress, the outcome of every forgery, and the summary.

    Args:
      verdicts: of epoch 0, in any order, at least two.
      seed: 32 bytes that fix the members' keys, for tests; by default they are fresh.

    Raises:
      ImportError: the extra `evm` is not installed; the message says how to install it.
      ValueError: fewer than two verdicts.
      SettlementError: verdicts of another epoch than 0, or of several policies.
    """
    if len(verdicts) < 2:
        raise ValueError(
            f"expected two verdicts or more, got {len(verdicts)}: one forgery needs an inner node"
        )
    log = EpochLog.of(verdicts)
    counter = Counter(total=len(BEFORE) + len(AFTER) + 3)
    yield counter.start("settle: register a committee")
    contract = DeployedContract.deploy(os.urandom(32) if seed is None else seed)
    committee = contract.head.committee
    yield counter.start("settle: collect votes")
    sent, refused = _votes(contract, log)

    outcomes: list[ForgeryOutcome] = []

    def attempt(forgeries: Sequence[Forgery]) -> Iterator[SettlementSceneEvent]:
        for forgery in forgeries:
            yield counter.start(f"settle: {forgery.name}")
            reason = contract.refusal(forgery.forge(contract, log, sent))
            outcomes.append(
                ForgeryOutcome(name=forgery.name, expected=forgery.expected, reason=reason)
            )
            yield outcomes[-1]

    yield from attempt(BEFORE)
    yield counter.start("settle: submit")
    index = len(log.records) // 2
    settled = _settle(contract, log, sent, index)
    yield from attempt(AFTER)

    yield SettlementSummary(
        submission=sent,
        weight=committee.weight(committee.signers(sent.bitmap)),
        total=committee.total,
        members=len(committee.members),
        refused=refused,
        settled=settled,
        shown=log.records[index],
        path=len(log.inclusion(index)),
        gas=contract.gas,
        outcomes=tuple(outcomes),
    )


def _votes(contract: DeployedContract, log: EpochLog) -> tuple[Sent, tuple[RefuseVote, ...]]:
    """Decide on the statement and sign it: the lightest member is offline, one vote is forged."""
    head, secrets = contract.head, contract.secrets
    members = head.committee.members
    offline = min(range(len(members)), key=lambda i: members[i].weight)
    present = [i for i in range(len(members)) if i != offline]
    signers = {i: Signer(head=head, policy=log.policy) for i in present}
    proposal = head.statement(root=log.tree.root, size=log.tree.size, policy=log.policy)

    def cast(sign: Callable[[SecretKey, Signer], tuple[Signer, Vote[S]]]) -> list[Vote[S]]:
        votes: list[Vote[S]] = []
        for i in present:
            signers[i], vote = sign(secrets[i], signers[i])
            votes.append(vote)
        return votes

    prepares = cast(lambda key, signer: prepare_epoch(key, signer, proposal, log.records))
    prepared, _ = _collected(settlement.start_prepare(head, proposal, 0, RULES, now=0), prepares)
    locks = cast(lambda key, signer: settlement.lock(key, signer, prepared))
    decision, _ = _collected(settlement.start_lock(head, prepared, RULES, now=0), locks)
    votes = cast(lambda key, signer: sign_epoch(key, signer, proposal, log.records, decision))
    forged = replace(votes[0], member=votes[1].member)
    return _collected(settlement.start_epoch(head, log, RULES, now=0), [forged, *votes])


def _collected(
    start: SettlementTransition[S], votes: Sequence[Vote[S]]
) -> tuple[SettlementSubmission[S], tuple[RefuseVote, ...]]:
    """The submission of these votes, and the refusals before it."""
    state, _ = start
    refused: list[RefuseVote] = []
    for vote in votes:
        state, effects = settlement.step(state, VoteReceived(at=0, vote=vote))
        refused += (effect for effect in effects if isinstance(effect, RefuseVote))
        for effect in effects:
            if isinstance(effect, SubmitSettlement):
                return effect.submission, tuple(refused)
    raise RuntimeError("all members but one voted, and the quorum is not reached")


def _settle(contract: DeployedContract, log: EpochLog, sent: Sent, index: int) -> bool:
    """Submit, show the verdict at `index`, and return whether the contract holds root and size."""
    epoch = contract.head.epoch
    contract.head = settlement.verify_epoch(sent, contract.head)
    contract.send("settle", calldata.settle(sent))
    root, size = contract.read("roots", epoch), contract.read("sizes", epoch)
    record = log.records[index].encode()
    shown = calldata.verify_inclusion(log.epoch, index, record, log.inclusion(index))
    contract.send("show", shown)
    return (root, int.from_bytes(size, "big")) == (log.tree.root, log.tree.size)
