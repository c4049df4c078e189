"""The contract in py-evm: what it accepts, and named attacks that it refuses."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocols.contracts import build, calldata, evm
from protocols.contracts.calldata import _bytes, _word, call
from protocols.settlement import committee, submission
from protocols.settlement.statements import Deployment
from protocols.settlement.submission import SettlementSubmission
from tests.helpers import onchain
from tests.helpers.chain_cheats import (
    CHEATS,
    EVERYONE,
    INCLUSIONS,
    INCOMING,
    REGISTRATIONS,
    WEIGHTS,
    Cheat,
    everyone,
    fresh,
    honest,
    inclusion,
    incoming,
    office,
    python,
    raw_settle,
    registering,
    seat,
)
from tests.helpers.onchain import REGISTRANT, STRANGER, Office, committee_of, found, secret, signed
from tests.helpers.paths import ROOT
from verifiable import bls
from verifiable.bls import curve

SPEC = ROOT / "specs" / "contract.md"


# ------------------------------------------------------------------------------ what is accepted


def test_an_epoch_is_settled_and_its_verdicts_are_shown():
    made = found(evm.Chain(native=True), weights=WEIGHTS)
    for epoch, size in enumerate((1, 13, 8)):
        sent = made.next(size)
        made.head = submission.verify_epoch(sent, made.head)
        made.call(calldata.settle(sent))
        assert made.call(call("epochs")).output == _word(epoch + 1)
        assert made.call(call("roots", _word(epoch))).output == sent.statement.root
        assert made.call(call("sizes", _word(epoch))).output == _word(size)
        tree, leaves = onchain.tree(epoch, size), onchain.leaves(epoch, size)
        for i, leaf in enumerate(leaves):
            made.call(calldata.verify_inclusion(epoch, i, leaf, tree.inclusion(i)))


def test_a_committee_hands_over_and_is_out_of_office():
    made = found(evm.Chain(native=True), weights=WEIGHTS)
    old = dataclasses.replace(made, head=made.head)
    for data in calldata.registrations(incoming(made)):
        made.call(data)
    handover = signed(made.head.rotation(incoming(made)), made, EVERYONE)
    made.head = submission.verify_rotation(handover, made.head, incoming(made))
    made.secrets = onchain.holders(incoming(made), INCOMING)
    made.call(calldata.rotate(handover))
    assert made.call(call("committee_id")).output == incoming(made).id
    assert made.call(call("committee_sequence")).output == _word(1)
    assert made.call(call("members")).output == _word(3)
    assert made.call(call("weight")).output == _word(3)
    assert made.refusal(calldata.settle(old.next())) == "other-committee"
    assert made.refusal(calldata.rotate(handover)) == "other-committee"
    # The outgoing committee signs for the new sequence, but is no longer in office.
    statement = made.head.statement(root=bytes(32), size=1, policy=bytes(32))
    by_old = replace(signed(statement, old, EVERYONE), bitmap=b"\x07")
    assert made.refusal(calldata.settle(by_old)) == "bad-signature"
    made.call(calldata.settle(made.next()))


@pytest.mark.parametrize("size", [1, 8, 9, 32, 33, 256])
def test_committees_of_every_size(size: int):
    """Bitmaps that end within a byte, committees that end within or at a chunk, and the largest."""
    made = found(evm.Chain(native=True), range(size))
    assert made.call(call("committee_id")).output == made.head.committee.id
    assert made.call(call("members")).output == _word(size)
    sent = made.next()
    needed = 2 * size // 3 + 1
    for signers in (range(needed), range(size - needed, size), range(size)):
        some = signed(sent.statement, made, signers)
        assert python(some, made.head) is None
        assert made.refusal(calldata.settle(some)) is None
        short = signed(sent.statement, made, list(signers)[1 + len(signers) - needed :] or [0])
        if size > 1:
            assert python(short, made.head) == made.refusal(calldata.settle(short)) == "no-quorum"
    if size % 8:
        excess = sent.bitmap[:-1] + bytes([sent.bitmap[-1] | 1 << size % 8])
        data = raw_settle(sent, signature=sent.signature.eip2537(), bitmap=excess)
        assert made.refusal(data) == "bitmap-excess"
    made.call(calldata.settle(sent))


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda c: c.name)
def test_a_cheat_is_refused(cheat: Cheat):
    made = office()
    assert made.refusal(calldata.settle(honest(made))) is None
    assert made.refusal(cheat.data(made)) == cheat.expect


def test_an_epoch_of_no_verdicts_is_refused():
    sent = honest(office())
    words = bytearray(sent.statement.message)
    words[4 * 32 : 5 * 32] = bytes(32)
    signature = everyone(office()).sign(bytes(words), domain=sent.statement.DOMAIN)
    data = call("settle", bytes(words), _bytes(sent.bitmap), signature.eip2537())
    assert office().refusal(data) == "no-verdicts"


def test_integers_wider_than_their_type_are_refused():
    sent = honest(office())
    for word in (1, 2, 4, 7):  # contract, epoch, size, sequence
        words = bytearray(sent.statement.message)
        words[32 * word] = 1
        signature = everyone(office()).sign(bytes(words), domain=sent.statement.DOMAIN)
        data = call("settle", bytes(words), _bytes(sent.bitmap), signature.eip2537())
        assert office().refusal(data) == ""


@pytest.mark.parametrize(
    ("expect", "data"), [r[1:] for r in REGISTRATIONS], ids=[r[0] for r in REGISTRATIONS]
)
def test_a_registration_is_refused(expect: str, data: Callable[[], bytes]):
    assert fresh().refusal(registering(seat(1))) is None
    assert fresh().refusal(data()) == expect


def staged(*calls: bytes) -> Office:
    made = found(evm.Chain(native=True), activate=False)
    for data in calls:
        made.call(data)
    return made


def in_order(*numbers: int) -> list[tuple[bytes, int, bytes]]:
    return sorted(seat(number) for number in numbers)


def test_one_key_is_not_registered_twice_to_double_its_weight():
    """Each proof is valid; the committee is not."""
    twice = [*in_order(*EVERYONE), in_order(*EVERYONE)[-1]]
    assert staged(registering(*twice)).refusal(calldata.activate()) == "unordered-members"
    a, b = in_order(0, 1)
    assert staged(registering(b, a)).refusal(calldata.activate()) == "unordered-members"


def test_uniqueness_reaches_across_calls():
    numbers = range(100, 132)
    seats = in_order(*numbers)
    made = staged(registering(*seats), registering(seats[-1]))
    assert made.refusal(calldata.activate()) == "unordered-members"


def test_only_the_committee_named_at_deployment_is_the_first():
    made = staged(registering(*in_order(0, 1)))
    assert made.refusal(calldata.activate()) == "other-committee"
    others = sorted(seat(number, weight=2) for number in EVERYONE)
    assert staged(registering(*others)).refusal(calldata.activate()) == "other-committee"
    assert staged(registering(*in_order(*EVERYONE))).refusal(calldata.activate()) is None


def test_nothing_works_before_a_committee_is_in_office():
    made = fresh()
    assert made.refusal(calldata.activate()) == "no-members"
    assert made.refusal(calldata.settle(made.next())) == "no-committee"
    handover = signed(made.head.rotation(incoming(made)), made, EVERYONE)
    assert made.refusal(calldata.rotate(handover)) == "no-committee"
    assert made.refusal(calldata.verify_inclusion(0, 0, b"", ())) == "epoch-ahead"


def test_a_committee_is_activated_once():
    again = committee_of(EVERYONE, office().head.deployment, WEIGHTS, STRANGER)
    for data in calldata.registrations(again):
        office().call(data, sender=STRANGER)
    assert again.id == office().head.committee.id
    assert office().refusal(calldata.activate(), sender=STRANGER) == "already-active"


def test_a_rotation_takes_what_its_sender_staged():
    """No account can use, fill or discard the staging of another."""
    handover = signed(office().head.rotation(incoming(office())), office(), EVERYONE)
    data = calldata.rotate(handover)
    assert office().refusal(data) is None
    another = b"\x33" * 20
    assert office().refusal(data, sender=another) == "no-members"
    office().call(calldata.discard(), sender=another)
    assert office().refusal(data) is None


def test_staging_can_be_discarded_and_done_again():
    made = staged(registering(*in_order(0)), calldata.discard())
    assert made.refusal(calldata.activate()) == "no-members"
    made.call(registering(*in_order(*EVERYONE)))
    made.call(calldata.activate())
    assert made.call(call("staged_members", bytes(12) + REGISTRANT)).output == _word(0)


def test_all_calls_but_the_last_bring_32_members():
    made = staged(registering(*in_order(0)))
    assert made.refusal(registering(seat(1))) == "already-complete"


def test_keys_that_cancel_out_are_no_committee():
    key = secret(1)
    opposite = bls.SecretKey(curve.ORDER - int.from_bytes(key.encode(), "big"))
    where = fresh().head.deployment
    pair = [
        (k.public_key.eip2537(), 1, committee.prove_registration(k, where, REGISTRANT).eip2537())
        for k in (key, opposite)
    ]
    made = staged(registering(*sorted(pair)))
    assert made.refusal(calldata.activate()) == "infinite-key"


def test_signers_whose_keys_cancel_out_are_refused():
    """The holder of both keys could otherwise submit an infinite signature."""
    chain = evm.Chain(native=True)
    address = chain.next_address(REGISTRANT)
    deployment = Deployment(chain_id=chain.chain_id, contract=address)
    opposite = bls.SecretKey(curve.ORDER - int.from_bytes(secret(1).encode(), "big"))
    seats = [
        onchain.seat(k, deployment, w) for k, w in ((secret(1), 4), (opposite, 4), (secret(2), 1))
    ]
    first = committee.Committee.of(deployment, seats)
    chain.deploy(calldata.deployment(first.id), sender=REGISTRANT)
    made = Office(chain, address, [], submission.Head(committee=first))
    for data in [*calldata.registrations(first), calldata.activate()]:
        made.call(data)
    bitmap = first.bitmap(i for i, m in enumerate(first.members) if m.weight == 4)
    statement = made.head.statement(root=bytes(32), size=1, policy=bytes(32))
    sent = SettlementSubmission(
        statement=statement, signature=secret(3).sign(b"", domain=b"d"), bitmap=bitmap
    )
    assert python(sent, made.head) == made.refusal(calldata.settle(sent)) == "infinite-key"
    assert made.refusal(raw_settle(sent, signature=bytes(256))) == "infinite-key"


# ----------------------------------------------------------------------------------- precompiles


@pytest.mark.parametrize(
    ("address", "name"), [(5, "MODEXP"), (13, "G2ADD"), (15, "PAIRING"), (17, "MAP_FP2_TO_G2")]
)
def test_a_chain_without_the_precompile_accepts_nothing(address: int, name: str):
    """A call to an address without code succeeds with no output."""
    made = found(evm.Chain(native=True, missing=[address.to_bytes(20, "big")]), activate=False)
    assert made.refusal(registering(seat(1))) == "no-precompile"


def test_a_chain_without_sha256_gets_no_contract():
    with pytest.raises(evm.Reverted, match="no-precompile"):
        found(evm.Chain(native=True, missing=[(2).to_bytes(20, "big")]), activate=False)


def test_a_contract_without_a_first_committee_is_refused():
    with pytest.raises(evm.Reverted, match="no-genesis"):
        evm.Chain().deploy(calldata.deployment(bytes(32)), sender=REGISTRANT)


def test_a_chain_without_g1add_accepts_nothing():
    made = found(evm.Chain(native=True, missing=[(11).to_bytes(20, "big")]), activate=False)
    made.call(calldata.registrations(made.head.committee)[0])
    assert made.refusal(calldata.activate()) == "no-precompile"


@pytest.mark.parametrize(
    ("expect", "make"), [r[1:] for r in INCLUSIONS], ids=[r[0] for r in INCLUSIONS]
)
def test_an_inclusion_proof_is_refused(expect: str, make: Callable[..., Any]):
    assert office().refusal(inclusion(make)) == expect


def test_the_largest_verdict_and_its_limits_in_python():
    leaf = bytes(2048)
    with pytest.raises(ValueError, match="at most 2048"):
        calldata.verify_inclusion(0, 0, leaf + b"\0", ())
    with pytest.raises(ValueError, match="at most 2048"):
        calldata.verify_inclusion(0, 0, leaf, [bytes(32)] * 65)


def test_the_spec_lists_every_reason_that_the_contract_gives():
    source = build.SOURCE.read_text()
    given = set(re.findall(r'assert .*, "([a-z0-9-]+)"$', source, re.MULTILINE))
    assert len(given) > 20
    assert source.count("    assert ") == len(re.findall(r'assert .*, "[a-z0-9-]+"$', source, re.M))
    table = SPEC.read_text().partition("## Reasons")[2].partition("## Gas")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    listed = {reason.strip() for row in rows for reason in row.split("|")[2].split(",")}
    assert listed == given
