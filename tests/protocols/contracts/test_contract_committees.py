"""Committees: Python builds exactly those that the contract puts in office, and reads them back."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from eth_utils.crypto import keccak
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.contracts import calldata, evm
from protocols.contracts.calldata import _word
from protocols.settlement import submission
from protocols.settlement.committee import MAX_MEMBERS, REGISTRATION_DOMAIN, Committee, Member
from protocols.settlement.statements import Deployment, Rotation, SettlementError
from tests.helpers.chain_cheats import EVERYONE, WEIGHTS, incoming, office, registering
from tests.helpers.onchain import REGISTRANT, STRANGER, Office, committee_of, found, secret, signed
from verifiable.bls import ProvenKey, SecretKey, curve


@functools.cache
def holder(number: int) -> SecretKey:
    """Secrets 1 to 3; a negative number is minus the secret of the positive one."""
    scalar = int.from_bytes(secret(abs(number)).encode(), "big")
    return SecretKey(scalar if number > 0 else curve.ORDER - scalar)


@dataclass(frozen=True)
class Seat:
    """A key with a valid proof of possession over a binding of its holder's choice."""

    number: int
    weight: int = 1
    registrant: bytes = REGISTRANT
    padding: bytes = bytes(12)
    chain_id: int = 31337

    def proven(self, contract: bytes) -> ProvenKey:
        words = Deployment(chain_id=self.chain_id, contract=contract).words
        return proven(self.number, words + self.padding + self.registrant)


@functools.cache
def proven(number: int, binding: bytes) -> ProvenKey:
    key = holder(number)
    return ProvenKey(
        key=key.public_key,
        possession=key.prove_possession(binding, domain=REGISTRATION_DOMAIN),
        binding=binding,
        domain=REGISTRATION_DOMAIN,
    )


def python(seats: Sequence[Seat], here: Deployment) -> Committee | str:
    """The committee of these seats in this order, or the reason for which there is none."""
    try:
        members = tuple(Member(key=s.proven(here.contract), weight=s.weight) for s in seats)
        return Committee(deployment=here, members=members)
    except SettlementError as error:
        return error.reason


@functools.cache
def settled() -> Office:
    """An office of this module's own, since staging changes it."""
    return found(evm.Chain(native=True))


def contract(seats: Sequence[Seat], sender: bytes) -> str | None:
    """The reason for which an account cannot put these seats in office, or None if it can."""
    made = settled()
    keys = [seat.proven(made.address) for seat in seats]
    words = b"".join(k.key.eip2537() + _word(s.weight) for k, s in zip(keys, seats, strict=True))
    rotation = replace(
        made.head.rotation(made.head.committee),
        incoming=hashlib.sha256(_word(len(seats)) + words).digest(),
    )
    try:
        for start in range(0, max(len(seats), 1), calldata.CHUNK):
            part = [
                (k.key.eip2537(), s.weight, k.possession.eip2537())
                for k, s in zip(keys, seats, strict=True)
            ][start : start + calldata.CHUNK]
            made.call(registering(*part), sender=sender)
        return made.refusal(
            calldata.rotate(signed(rotation, made, range(len(made.secrets)))), sender=sender
        )
    except evm.Reverted as error:
        return error.reason
    finally:
        made.call(calldata.discard(), sender=sender)


def agreed(seats: Sequence[Seat]) -> str | None:
    """Require one judgement of Python and of the contract, whoever stages; return Python's."""
    ours = python(seats, settled().head.deployment)
    if isinstance(ours, Committee):
        assert contract(seats, ours.registrant) is None
        return None
    assert {contract(seats, sender) for sender in (REGISTRANT, STRANGER)}.isdisjoint({None})
    return ours


def ordered(*seats: Seat) -> list[Seat]:
    return sorted(seats, key=lambda seat: holder(seat.number).public_key.eip2537())


COMMITTEES: dict[str, tuple[str | None, Callable[[], list[Seat]]]] = {
    "one member": (None, lambda: [Seat(1)]),
    "the largest weights": (None, lambda: ordered(*(Seat(i, 2**64 - 1) for i in (1, 2, 3)))),
    "keys that cancel out, and another": (None, lambda: ordered(Seat(1), Seat(-1), Seat(2))),
    "another registrant's committee": (None, lambda: [Seat(1, registrant=STRANGER)]),
    "nobody": ("no-members", list),
    "keys that add up to infinity": ("infinite-key", lambda: ordered(Seat(1), Seat(-1))),
    "two pairs that cancel out": (
        "infinite-key",
        lambda: ordered(Seat(1), Seat(-1), Seat(2), Seat(-2)),
    ),
    "two registrants": (
        "other-registrant",
        lambda: ordered(Seat(1), Seat(2, registrant=STRANGER)),
    ),
    "a registrant wider than an address": (
        "unregistered-key",
        lambda: [Seat(1, padding=b"\1" + bytes(11))],
    ),
    "a key registered on another chain": ("unregistered-key", lambda: [Seat(1, chain_id=1)]),
    "a key twice": ("duplicate-key", lambda: [Seat(1), Seat(1, 2)]),
    "out of order": ("unordered-members", lambda: ordered(Seat(1), Seat(2))[::-1]),
}


@pytest.mark.parametrize("name", COMMITTEES)
def test_python_builds_the_committees_that_the_contract_installs(name: str):
    expected, seats = COMMITTEES[name]
    assert agreed(seats()) == expected


def test_both_refuse_a_member_more_than_bits():
    made = found(evm.Chain(native=True), range(MAX_MEMBERS), activate=False)
    for data in calldata.registrations(made.head.committee):
        made.call(data)
    one_more = calldata.registrations(committee_of([300], made.head.deployment))[0]
    assert made.refusal(one_more) == "too-many-members"
    assert python([Seat(1)] * 257, settled().head.deployment) == "too-many-members"


SEATS = st.builds(
    Seat,
    number=st.sampled_from([1, -1, 2, -2, 3]),
    weight=st.sampled_from([1, 2**64 - 1]),
    registrant=st.sampled_from([REGISTRANT] * 5 + [STRANGER]),
    padding=st.sampled_from([bytes(12)] * 7 + [bytes(11) + b"\1"]),
    chain_id=st.sampled_from([31337] * 7 + [1]),
)


@given(st.lists(SEATS, min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_python_and_the_contract_agree_on_random_committees(seats: list[Seat], disorder: int):
    agreed(seats if disorder == 0 else ordered(*seats))


# ------------------------------------------------------------------------ what a chain can be asked


def test_members_in_office_and_staged_members_are_read_from_the_contract():
    made = office()
    for of, read in (
        (made.head.committee, calldata.member),
        (incoming(made), lambda i: calldata.staged_member(REGISTRANT, i)),
    ):
        for i, member in enumerate(of.members):
            words = made.call(read(i), keep=False).output
            assert words == member.key.key.eip2537() + _word(member.weight)
        assert made.refusal(read(len(of.members))) == "no-such-member"
    assert made.refusal(calldata.staged_member(b"\x44" * 20, 0)) == "no-such-member"
    with pytest.raises(ValueError, match="20 bytes"):
        calldata.staged_member(bytes(32), 0)


def test_members_of_every_chunk_are_read():
    made = found(evm.Chain(native=True), range(33))
    for i in (0, 31, 32):
        key = made.head.committee.members[i].key.key
        assert made.call(calldata.member(i), keep=False).output == key.eip2537() + _word(1)


def events(receipt: evm.CallReceipt, text: str) -> list[list[bytes]]:
    """Words of the events of a signature, indexed fields first."""
    topic = keccak(text=text)
    return [
        [*topics[1:], *(data[i : i + 32] for i in range(0, len(data), 32))]
        for topics, data in receipt.logs
        if topics[0] == topic
    ]


def test_an_indexer_follows_stagings_and_terms_by_events():
    """Whose staging was discarded or took office, in which term, and from which epoch on."""
    made = found(evm.Chain(native=True), weights=WEIGHTS, activate=False)
    first, account = made.head.committee, bytes(12) + REGISTRANT
    discarded, activated = (
        "Discarded(address,uint256)",
        "Activated(bytes32,address,uint64,uint64,uint256,uint256)",
    )
    [register] = calldata.registrations(first)
    staged = made.call(register)
    assert events(staged, "Registered(address,uint256)") == [[account, _word(7)]]
    assert events(made.call(calldata.discard()), discarded) == [[account, _word(7)]]
    assert events(made.call(calldata.discard()), discarded) == [[account, _word(0)]]
    made.call(register)
    done = made.call(calldata.activate())
    term = [first.id, account, _word(0), _word(0), _word(7), _word(sum(WEIGHTS))]
    assert events(done, activated) == [term]
    assert events(done, discarded) == []
    sent = made.next()
    made.call(calldata.settle(sent))
    made.head = submission.verify_epoch(sent, made.head)
    second = committee_of((20, 21, 22), first.deployment, registrant=STRANGER)
    for data in calldata.registrations(second):
        made.call(data, sender=STRANGER)
    handover: Any = signed(made.head.rotation(second), made, EVERYONE)
    assert isinstance(handover.statement, Rotation)
    done = made.call(calldata.rotate(handover), sender=second.registrant)
    term = [second.id, bytes(12) + STRANGER, _word(1), _word(1), _word(3), _word(3)]
    assert events(done, activated) == [term]
