"""Every call that the settlement contract must refuse, by name, with the reason.

A new forgery is a function that returns the call's data, and a row in one of the two tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from protocols.contracts import calldata
from protocols.demo.contract import SENDER, DeployedContract
from protocols.settlement import (
    Committee,
    Deployment,
    EpochLog,
    EpochStatement,
    Member,
    SettlementSubmission,
    prove_registration,
    registered_key,
)
from verifiable.report import Verdict

Sent: TypeAlias = SettlementSubmission[EpochStatement]
Forge: TypeAlias = Callable[[DeployedContract, EpochLog, Sent], bytes]


@dataclass(frozen=True, slots=True)
class Forgery:
    """A call that the contract must refuse.

    Attributes:
      name: what was forged.
      expected: stable code of the reason for which it must be refused.
      forge: from the contract, the epoch's verdicts and the honest submission to the call's data.
    """

    name: str
    expected: str
    forge: Forge


def _flipped(log: EpochLog) -> EpochLog:
    """The log with the first verdict reversed."""
    first, *others = log.records
    accepted = first.verdict is Verdict.ACCEPT
    changed = replace(
        first,
        verdict=Verdict.REJECT if accepted else Verdict.ACCEPT,
        commitment=first.commitment or bytes(32),
        answer=None if accepted else bytes(32),
    )
    return EpochLog([changed, *others])


def verdict_changed(contract: DeployedContract, log: EpochLog, sent: Sent) -> bytes:
    """Submit the root of other verdicts under the signature of the right ones."""
    statement = replace(sent.statement, root=_flipped(log).tree.root)
    return calldata.settle(replace(sent, statement=statement))


def stated(**changes: Any) -> Forge:
    """Return a forgery in which all members sign a statement that the contract does not expect."""

    def forge(contract: DeployedContract, log: EpochLog, sent: Sent) -> bytes:
        statement = replace(sent.statement, **changes)
        return calldata.settle(contract.signed(statement, range(len(contract.secrets))))

    return forge


def too_few(contract: DeployedContract, log: EpochLog, sent: Sent) -> bytes:
    """Submit the signature of one member."""
    return calldata.settle(contract.signed(sent.statement, [0]))


def absent_claimed(contract: DeployedContract, log: EpochLog, sent: Sent) -> bytes:
    """Claim that all members signed."""
    everyone = contract.head.committee.bitmap(range(len(contract.secrets)))
    return calldata.settle(replace(sent, bitmap=everyone))


def bits_beyond(contract: DeployedContract, log: EpochLog, sent: Sent) -> bytes:
    """Claim the signature of an eighth member, where there are seven."""
    return calldata.settle(replace(sent, bitmap=b"\xff"))


def infinite(contract: DeployedContract, log: EpochLog, sent: Sent) -> bytes:
    """Send the point at infinity as the signature."""
    return calldata.settle(sent).replace(sent.signature.eip2537(), bytes(256))


def replayed_proof(contract: DeployedContract, log: EpochLog, sent: Sent) -> bytes:
    """Register a key with the proof of possession made for another chain."""
    elsewhere = Deployment(chain_id=1, contract=contract.address)
    secret = contract.secrets[0]
    proof = prove_registration(secret, elsewhere, SENDER)
    key = registered_key(secret.public_key, proof, elsewhere, SENDER)
    return calldata.registrations(Committee.of(elsewhere, [Member(key=key, weight=1)]))[0]


def never_signed(contract: DeployedContract, log: EpochLog, sent: Sent) -> bytes:
    """Show a verdict that is not under the root."""
    changed = _flipped(log).records[0].encode()
    return calldata.verify_inclusion(log.epoch, 0, changed, log.inclusion(0))


def node_as_verdict(contract: DeployedContract, log: EpochLog, sent: Sent) -> bytes:
    """Show the two children of the root as the data of a leaf."""
    middle = 1 << (log.tree.size - 1).bit_length() - 1
    halves = log.tree.subtree_root(0, middle), log.tree.subtree_root(middle, log.tree.size)
    return calldata.verify_inclusion(log.epoch, 0, b"".join(halves), ())


def settled_again(contract: DeployedContract, log: EpochLog, sent: Sent) -> bytes:
    """Send the honest submission once more."""
    return calldata.settle(sent)


BEFORE = (
    Forgery("a verdict changed after signing", "bad-signature", verdict_changed),
    Forgery("the absent member claimed to have signed", "bad-signature", absent_claimed),
    Forgery("signed by too few", "no-quorum", too_few),
    Forgery("signers that do not exist", "bitmap-excess", bits_beyond),
    Forgery("no signature but infinity", "infinite-signature", infinite),
    Forgery("signed for another chain", "other-chain", stated(chain_id=1)),
    Forgery("signed for another contract", "other-contract", stated(contract=bytes(20))),
    Forgery("signed by another term of the committee", "other-sequence", stated(sequence=1)),
    Forgery("an epoch left out", "epoch-ahead", stated(epoch=1)),
    Forgery("a key registered for another chain", "bad-possession", replayed_proof),
)
"""What is tried before the epoch is settled."""

AFTER = (
    Forgery("the epoch settled twice", "epoch-settled", settled_again),
    Forgery("a verdict that was never signed", "root-mismatch", never_signed),
    Forgery("an inner node shown as a verdict", "proof-length", node_as_verdict),
)
"""What is tried after the epoch is settled."""
