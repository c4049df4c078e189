"""A contract with a committee in office, for tests, on any chain."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from protocols.contracts import calldata, evm
from protocols.settlement import committee
from protocols.settlement.committee import Committee, Member
from protocols.settlement.statements import Deployment
from protocols.settlement.submission import Head, SettlementSubmission
from verifiable import merkle
from verifiable.bls import SecretKey, curve

REGISTRANT = b"\x11" * 20
STRANGER = b"\x22" * 20
POLICY = b"p" * 32


@functools.cache
def secret(number: int) -> SecretKey:
    return SecretKey.generate(number.to_bytes(32, "big"))


def seat(
    key: SecretKey, deployment: Deployment, weight: int = 1, registrant: bytes = REGISTRANT
) -> Member:
    proof = committee.prove_registration(key, deployment, registrant)
    proven = committee.registered_key(key.public_key, proof, deployment, registrant)
    return Member(key=proven, weight=weight)


@functools.cache
def known_seat(number: int, deployment: Deployment, registrant: bytes) -> Member:
    """A seat with weight 1, proven once: contracts on fresh chains have one address."""
    return seat(secret(number), deployment, registrant=registrant)


def committee_of(
    numbers: Iterable[int],
    deployment: Deployment,
    weights: Sequence[int] | None = None,
    registrant: bytes = REGISTRANT,
) -> Committee:
    seats = [known_seat(number, deployment, registrant) for number in numbers]
    weights = weights or [1] * len(seats)
    return Committee.of(
        deployment, (replace(s, weight=w) for s, w in zip(seats, weights, strict=True))
    )


def holders(of: Committee, numbers: Iterable[int]) -> list[SecretKey]:
    """Secrets in the order of the members."""
    by_key = {secret(number).public_key: secret(number) for number in numbers}
    return [by_key[member.key.key] for member in of.members]


def joint(secrets: Iterable[SecretKey]) -> SecretKey:
    """The sum of secrets, which signs as all of them together."""
    return SecretKey(sum(int.from_bytes(s.encode(), "big") for s in secrets) % curve.ORDER)


def signed(statement: Any, office: Office, signers: Iterable[int]) -> SettlementSubmission[Any]:
    chosen = sorted(signers)
    total = joint(office.secrets[i] for i in chosen)
    return SettlementSubmission(
        statement=statement,
        signature=total.sign(statement.message, domain=statement.DOMAIN),
        bitmap=office.head.committee.bitmap(chosen),
    )


@functools.cache
def tree(epoch: int, size: int = 13) -> merkle.Tree:
    return merkle.Tree.from_data(leaves(epoch, size), suite=merkle.SHA256)


def leaves(epoch: int, size: int = 13) -> list[bytes]:
    return [f"verdict {i} of epoch {epoch}".encode() * (1 + i % 5) for i in range(size)]


@dataclass
class Office:
    """A contract, the secrets of its committee, and its head."""

    chain: evm.Chain
    address: bytes
    secrets: list[SecretKey]
    head: Head

    def call(
        self, data: bytes, *, sender: bytes = REGISTRANT, keep: bool = True
    ) -> evm.CallReceipt:
        return self.chain.call(self.address, data, sender=sender, keep=keep)

    def refusal(self, data: bytes, *, sender: bytes = REGISTRANT) -> str | None:
        """The reason for which the contract refuses a call, or None if it accepts it."""
        try:
            self.call(data, sender=sender, keep=False)
        except evm.Reverted as error:
            return error.reason
        return None

    def next(self, size: int = 13) -> SettlementSubmission[Any]:
        """The next epoch, signed by all members."""
        root = tree(self.head.epoch, size).root
        statement = self.head.statement(root=root, size=size, policy=POLICY)
        return signed(statement, self, range(len(self.secrets)))


def found(
    chain: evm.Chain,
    numbers: Sequence[int] = tuple(range(7)),
    weights: Sequence[int] | None = None,
    *,
    activate: bool = True,
) -> Office:
    """Deploy a contract; register its first committee, and put it in office."""
    address = chain.next_address(REGISTRANT)
    deployment = Deployment(chain_id=chain.chain_id, contract=address)
    first = committee_of(numbers, deployment, weights)
    chain.deploy(calldata.deployment(first.id), sender=REGISTRANT)
    office = Office(chain, address, holders(first, numbers), Head(committee=first))
    if activate:
        for data in calldata.registrations(first):
            office.call(data)
        office.call(calldata.activate())
    return office
