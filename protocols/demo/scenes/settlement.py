"""A committee settles an epoch's verdicts at the contract: the last scene of `verifiable demo`.

Seven members register their keys, with proofs of possession, at a contract in a chain of this
process. Each holds the verdicts, builds the statement from them, and signs. One is offline; one
vote is forged, and turned away. Once more than two thirds of the weight has signed, one submission
goes to the contract, which checks it, stores the root, and is then shown one verdict under it.
Before and after, cheats try their luck: each must be refused, and for the reason that it deserves.

The chain runs py-evm with native pairings (`protocols.evm`); the bytecode is the one that ships.
`play` prints nothing; it yields what happens as it happens. Needs the extra `evm`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from protocols import settlement
from protocols.contracts import calldata, evm
from protocols.demo.scenes.check import Outcome as Judged
from protocols.demo.scenes.check import Step
from protocols.settlement import (
    AskVotes,
    RefuseVote,
    SettlementRules,
    SubmitSettlement,
    VoteReceived,
    submission,
)
from protocols.settlement.committee import Committee, Member, prove_registration, registered_key
from protocols.settlement.statements import Deployment, EpochStatement
from protocols.settlement.submission import Head, SettlementSubmission
from protocols.settlement.verdicts import EpochLog, VerdictRecord
from protocols.settlement.votes import Signer, Vote, sign_epoch
from verifiable.bls import SecretKey
from verifiable.encoding import tagged_hash
from verifiable.report import Verdict

WEIGHTS = (3, 2, 2, 1, 1, 1, 1)
"""What the members' votes weigh: more than two thirds of 11 is 8."""

RULES = SettlementRules(batch=3)
SENDER = tagged_hash("demo account")[:20]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the contract said to a cheat.

    Attributes:
      name: what the cheat did.
      expected: the reason that it deserves.
      reason: the reason that it got, or None if it was not refused.
    """

    name: str
    expected: str
    reason: str | None

    @property
    def right(self) -> bool:
        """Whether it was refused for the right reason."""
        return self.reason == self.expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How the epoch was settled.

    Attributes:
      submission: what went on chain.
      weight: of its signers.
      total: of the committee.
      members: how many there are.
      refused: votes that were turned away, with the reason.
      settled: whether the contract holds this root and size now.
      shown: the verdict that was shown to be under the root.
      path: how many digests that took.
      gas: of execution, by step: register, activate, settle, and show a verdict.
      outcomes: of every cheat.
    """

    submission: SettlementSubmission[EpochStatement]
    weight: int
    total: int
    members: int
    refused: tuple[RefuseVote, ...]
    settled: bool
    shown: VerdictRecord
    path: int
    gas: dict[str, int]
    outcomes: tuple[Outcome, ...]

    @property
    def right(self) -> bool:
        """Whether the epoch is settled, and every cheat was refused as it deserves."""
        return (
            self.settled and bool(self.outcomes) and all(outcome.right for outcome in self.outcomes)
        )


Event: TypeAlias = "Step | Outcome | Summary"


def records(
    judged: Sequence[Judged], *, job: bytes, program: bytes, policy: bytes
) -> list[VerdictRecord]:
    """The verdicts of the first scene as records of epoch 0; `job` and the ids are 32 bytes.

    A device is known by a hash of its name. The root of a trace covers the answer, so that it also
    serves as the answer's digest.
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


@dataclass(slots=True)
class _Site:
    """The contract, who is in office there, and what each step cost."""

    chain: evm.Chain
    head: Head
    secrets: list[SecretKey]
    gas: dict[str, int]

    def send(self, step: str, data: bytes) -> None:
        address = self.head.deployment.contract
        used = self.chain.call(address, data, sender=SENDER).gas
        self.gas[step] = self.gas.get(step, 0) + used

    def read(self, name: str, epoch: int) -> bytes:
        data = calldata.call(name, epoch.to_bytes(32, "big"))
        return self.chain.call(self.head.deployment.contract, data, sender=SENDER).output

    def refusal(self, data: bytes) -> str | None:
        try:
            self.chain.call(self.head.deployment.contract, data, sender=SENDER, keep=False)
        except evm.Reverted as error:
            return error.reason
        return None

    def signed(
        self, statement: EpochStatement, signers: Sequence[int]
    ) -> SettlementSubmission[Any]:
        message, domain = statement.message, statement.DOMAIN
        votes = {i: self.secrets[i].sign(message, domain=domain) for i in signers}
        return SettlementSubmission.combine(statement, votes, self.head.committee)


def play(verdicts: Sequence[VerdictRecord], *, seed: bytes | None = None) -> Iterator[Event]:
    """Play the scene; yield a `Step` before each piece of work, outcomes, and last the `Summary`.

    Args:
      verdicts: of epoch 0, in any order, at least two.
      seed: 32 bytes that fix the members' keys, for tests; by default they are fresh.

    Raises:
      ImportError: the extra `evm` is not installed; the message says how to get it.
      ValueError: fewer than two verdicts.
      SettlementError: verdicts that are not of epoch 0, or of one policy.
    """
    if len(verdicts) < 2:
        raise ValueError("the scene takes two verdicts or more: an inner node is shown as one")
    log = EpochLog.of(verdicts)
    cheats = (*BEFORE, *AFTER)
    total = len(cheats) + 4
    yield Step(done=0, total=total, what="settle: register a committee")
    site = _deploy(os.urandom(32) if seed is None else seed)

    yield Step(done=1, total=total, what="settle: collect votes")
    sent, refused = _vote(site, log)

    outcomes: list[Outcome] = []

    def attempt(some: Sequence[Cheat]) -> Iterator[Event]:
        for name, expected, data in some:
            yield Step(done=len(outcomes) + 2, total=total, what=f"settle: {name}")
            reason = site.refusal(data(site, log, sent))
            outcomes.append(Outcome(name=name, expected=expected, reason=reason))
            yield outcomes[-1]

    yield from attempt(BEFORE)
    yield Step(done=len(outcomes) + 2, total=total, what="settle: submit")
    before, site.head = site.head, submission.verify_epoch(sent, site.head)
    site.send("settle", calldata.settle(sent))
    root, size = site.read("roots", before.epoch), site.read("sizes", before.epoch)
    index = len(log.records) // 2
    site.send("show", _show(log, index))
    yield from attempt(AFTER)

    committee = before.committee
    yield Summary(
        submission=sent,
        weight=committee.weight(committee.signers(sent.bitmap)),
        total=committee.total,
        members=len(committee.members),
        refused=refused,
        settled=(root, int.from_bytes(size, "big")) == (log.tree.root, log.tree.size),
        shown=log.records[index],
        path=len(log.inclusion(index)),
        gas=site.gas,
        outcomes=tuple(outcomes),
    )


def _deploy(seed: bytes) -> _Site:
    """Deploy the contract, register a committee, and put it in office."""
    chain = evm.Chain(native=True)
    deployment = Deployment(chain_id=chain.chain_id, contract=chain.next_address(SENDER))
    seats: list[Member] = []
    secrets = [SecretKey.generate(seed, info=bytes([i])) for i in range(len(WEIGHTS))]
    for secret, weight in zip(secrets, WEIGHTS, strict=True):
        proof = prove_registration(secret, deployment, SENDER)
        key = registered_key(secret.public_key, proof, deployment, SENDER)
        seats.append(Member(key=key, weight=weight))
    committee = Committee.of(deployment, seats)
    secrets.sort(key=lambda secret: committee.index(secret.public_key))
    chain.deploy(calldata.deployment(committee.id), sender=SENDER)
    site = _Site(chain, Head(committee=committee), secrets, {})
    for data in calldata.registrations(committee):
        site.send("register", data)
    site.send("activate", calldata.activate())
    return site


def _vote(
    site: _Site, log: EpochLog
) -> tuple[SettlementSubmission[EpochStatement], tuple[RefuseVote, ...]]:
    """Collect votes until the quorum has signed: the lightest member is offline, one is forged."""
    state, effects = settlement.start_epoch(site.head, log, RULES, now=0)
    (ask,) = (effect for effect in effects if isinstance(effect, AskVotes))
    members = site.head.committee.members
    offline = min(ask.members, key=lambda i: members[i].weight)
    present = [i for i in ask.members if i != offline]
    votes = [_ballot(site, log, ask.statement, i) for i in present]
    forged = replace(votes[0], member=votes[1].member)
    refused: list[RefuseVote] = []
    for vote in (forged, *votes):
        state, effects = settlement.step(state, VoteReceived(at=0, vote=vote))
        refused += (effect for effect in effects if isinstance(effect, RefuseVote))
        for effect in effects:
            if isinstance(effect, SubmitSettlement):
                return effect.submission, tuple(refused)
    raise RuntimeError("all but one member voted, and there is no quorum")


def _ballot(
    site: _Site, log: EpochLog, proposal: EpochStatement, member: int
) -> Vote[EpochStatement]:
    """What a member sends who holds the verdicts, and has signed nothing yet."""
    signer = Signer(head=site.head, policy=log.policy)
    return sign_epoch(site.secrets[member], signer, proposal, log.records)[1]


def _show(log: EpochLog, index: int) -> bytes:
    record = log.records[index]
    return calldata.verify_inclusion(log.epoch, index, record.encode(), log.inclusion(index))


# The cheats, each with the reason that it deserves: before the epoch is settled, and after.

Sent: TypeAlias = SettlementSubmission[EpochStatement]
Cheat: TypeAlias = tuple[str, str, Callable[[_Site, EpochLog, Sent], bytes]]


def _flipped(log: EpochLog) -> EpochLog:
    """The log with one verdict turned round."""
    first, *others = log.records
    accepted = first.verdict is Verdict.ACCEPT
    changed = replace(
        first,
        verdict=Verdict.REJECT if accepted else Verdict.ACCEPT,
        commitment=first.commitment or bytes(32),
        answer=None if accepted else bytes(32),
    )
    return EpochLog([changed, *others])


def _verdict_changed(site: _Site, log: EpochLog, sent: Sent) -> bytes:
    statement = replace(sent.statement, root=_flipped(log).tree.root)
    return calldata.settle(replace(sent, statement=statement))


def _stated(**changes: Any) -> Callable[[_Site, EpochLog, Sent], bytes]:
    """A statement that all members sign, which is not what the contract waits for."""

    def data(site: _Site, log: EpochLog, sent: Sent) -> bytes:
        statement = replace(sent.statement, **changes)
        return calldata.settle(site.signed(statement, range(len(site.secrets))))

    return data


def _too_few(site: _Site, log: EpochLog, sent: Sent) -> bytes:
    return calldata.settle(site.signed(sent.statement, [0]))


def _absent_claimed(site: _Site, log: EpochLog, sent: Sent) -> bytes:
    everybody = site.head.committee.bitmap(range(len(site.secrets)))
    return calldata.settle(replace(sent, bitmap=everybody))


def _bits_beyond(site: _Site, log: EpochLog, sent: Sent) -> bytes:
    return calldata.settle(replace(sent, bitmap=b"\xff"))


def _infinite(site: _Site, log: EpochLog, sent: Sent) -> bytes:
    data = calldata.settle(sent)
    return data.replace(sent.signature.eip2537(), bytes(256))


def _replayed_proof(site: _Site, log: EpochLog, sent: Sent) -> bytes:
    elsewhere = Deployment(chain_id=1, contract=site.head.deployment.contract)
    secret = site.secrets[0]
    proof = prove_registration(secret, elsewhere, SENDER)
    key = registered_key(secret.public_key, proof, elsewhere, SENDER)
    stranger = Committee.of(elsewhere, [Member(key=key, weight=1)])
    return calldata.registrations(stranger)[0]


def _never_signed(site: _Site, log: EpochLog, sent: Sent) -> bytes:
    changed = _flipped(log).records[0].encode()
    return calldata.verify_inclusion(log.epoch, 0, changed, log.inclusion(0))


def _node_as_verdict(site: _Site, log: EpochLog, sent: Sent) -> bytes:
    """The two halves of the root, shown as the data of a leaf."""
    middle = 1 << (log.tree.size - 1).bit_length() - 1
    halves = log.tree.subtree_root(0, middle), log.tree.subtree_root(middle, log.tree.size)
    return calldata.verify_inclusion(log.epoch, 0, b"".join(halves), ())


BEFORE: tuple[Cheat, ...] = (
    ("a verdict changed after signing", "bad-signature", _verdict_changed),
    ("the absent member claimed to have signed", "bad-signature", _absent_claimed),
    ("signed by too few", "no-quorum", _too_few),
    ("signers that do not exist", "bitmap-excess", _bits_beyond),
    ("no signature but infinity", "infinite-signature", _infinite),
    ("signed for another chain", "other-chain", _stated(chain_id=1)),
    ("signed for another contract", "other-contract", _stated(contract=bytes(20))),
    ("signed by another term of the committee", "other-sequence", _stated(sequence=1)),
    ("an epoch left out", "epoch-ahead", _stated(epoch=1)),
    ("a key registered for another chain", "bad-possession", _replayed_proof),
)
AFTER: tuple[Cheat, ...] = (
    ("the epoch settled twice", "epoch-settled", lambda site, log, sent: calldata.settle(sent)),
    ("a verdict that nobody signed", "root-mismatch", _never_signed),
    ("an inner node shown as a verdict", "proof-length", _node_as_verdict),
)
