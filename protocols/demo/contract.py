"""The settlement contract in a chain of this process, and the committee in office there.

The chain runs py-evm with native pairings (`protocols.contracts.evm`) and the shipped bytecode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocols.contracts import calldata, evm
from protocols.settlement import (
    Committee,
    Deployment,
    EpochStatement,
    Head,
    Member,
    SettlementSubmission,
    prove_registration,
    registered_key,
)
from verifiable.bls import SecretKey
from verifiable.encoding import tagged_hash

WEIGHTS = (3, 2, 2, 1, 1, 1, 1)
"""Weights of the members' votes: more than two thirds of 11 is 8."""

SENDER = tagged_hash("demo account")[:20]
"""Account that sends every transaction."""


@dataclass(slots=True, kw_only=True)
class DeployedContract:
    """The contract and the secrets of its committee.

    Attributes:
      chain: the chain.
      head: what the contract waits for next: its deployment, committee and epoch.
      secrets: of the members, in the order of the committee.
      gas: used so far, by step.
    """

    chain: evm.Chain
    head: Head
    secrets: list[SecretKey]
    gas: dict[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def deploy(cls, seed: bytes) -> DeployedContract:
        """Deploy the contract, register a committee, and put it in office.

        Args:
          seed: 32 bytes, from which the members' secrets are derived.

        Raises:
          ImportError: py-evm is not installed; the message says how to install it.
        """
        chain = evm.Chain(native=True)
        deployment = Deployment(chain_id=chain.chain_id, contract=chain.next_address(SENDER))
        secrets = [SecretKey.generate(seed, info=bytes([i])) for i in range(len(WEIGHTS))]
        members = [_member(s, w, deployment) for s, w in zip(secrets, WEIGHTS, strict=True)]
        committee = Committee.of(deployment, members)
        secrets.sort(key=lambda secret: committee.index(secret.public_key))
        chain.deploy(calldata.deployment(committee.id), sender=SENDER)
        contract = cls(chain=chain, head=Head(committee=committee), secrets=secrets)
        for data in calldata.registrations(committee):
            contract.send("register", data)
        contract.send("activate", calldata.activate())
        return contract

    def send(self, step: str, data: bytes) -> None:
        """Send a transaction, and count its gas under a step. Raises `evm.Reverted`."""
        used = self.chain.call(self.address, data, sender=SENDER).gas
        self.gas[step] = self.gas.get(step, 0) + used

    def read(self, name: str, epoch: int) -> bytes:
        """Return what a getter of the contract returns for an epoch: 32 bytes."""
        data = calldata.call(name, epoch.to_bytes(32, "big"))
        return self.chain.call(self.address, data, sender=SENDER).output

    def refusal(self, data: bytes) -> str | None:
        """Return why the contract refuses a call, or None; the chain stays as it is."""
        try:
            self.chain.call(self.address, data, sender=SENDER, keep=False)
        except evm.Reverted as error:
            return error.reason
        return None

    def signed(
        self, statement: EpochStatement, signers: Sequence[int]
    ) -> SettlementSubmission[EpochStatement]:
        """Return the submission of any statement, signed by any members."""
        message, domain = statement.message, statement.DOMAIN
        votes = {i: self.secrets[i].sign(message, domain=domain) for i in signers}
        return SettlementSubmission.combine(statement, votes, self.head.committee)

    @property
    def address(self) -> bytes:
        """Address of the contract, 20 bytes."""
        return self.head.deployment.contract


def _member(secret: SecretKey, weight: int, deployment: Deployment) -> Member:
    """A member whose key is registered with a proof of possession."""
    proof = prove_registration(secret, deployment, SENDER)
    key = registered_key(secret.public_key, proof, deployment, SENDER)
    return Member(key=key, weight=weight)
