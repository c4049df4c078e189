"""The contract against its rules: cheats by name, and Python's verdict beside its own."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import onchain
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from py_ecc.bls.hash_to_curve import map_to_curve_G2
from py_ecc.optimized_bls12_381 import FQ2, is_inf, multiply, normalize
from py_ecc.optimized_bls12_381 import add as ecc_add
from onchain import REGISTRANT, STRANGER, Office, committee_of, found, secret, signed

from protocols import calldata, committee, evm, submission
from protocols.calldata import _array, _bytes, _word, call
from protocols.statements import Deployment, EpochStatement, SettlementError
from protocols.submission import Submission
from verifiable import bls, curve, merkle
from verifiable.bls import Signature
from verifiable.errors import VerificationError

P = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab",
    16,
)
WEIGHTS = [3, 1, 1, 2, 1, 5, 2]  # in the order of secrets 0 to 6: 15 together
EVERYONE = range(7)
INCOMING = (20, 21, 22)


@functools.cache
def office() -> Office:
    """A contract with one epoch settled, and another committee staged."""
    made = found(evm.Chain(native=True), weights=WEIGHTS)
    first = made.next()
    made.call(calldata.settle(first))
    made.head = submission.verify(first, made.head)
    for data in calldata.registrations(incoming()):
        made.call(data)
    return made


@functools.cache
def fresh() -> Office:
    """A contract without a committee."""
    return found(evm.Chain(native=True), activate=False)


@functools.cache
def incoming() -> committee.Committee:
    # The address is that of the first contract that this account deploys, in every chain here.
    chain = evm.Chain()
    deployment = Deployment(chain_id=chain.chain_id, contract=chain.next_address(REGISTRANT))
    return committee_of(INCOMING, deployment)


def python(sent: Submission[Any], head: submission.Head) -> str | None:
    """Why Python refuses a submission, or None: by the contract's reasons."""
    try:
        if isinstance(sent.statement, EpochStatement):
            submission.verify(sent, head)
        else:
            submission.verify_rotation(sent, head, incoming())
    except SettlementError as error:
        return error.reason
    except bls.BadSignature:
        return "bad-signature"
    except bls.InfiniteAggregate:
        return "infinite-key"
    except bls.BadSigners as error:
        return error.reason
    return None


def data_of(sent: Submission[Any]) -> bytes:
    epoch = isinstance(sent.statement, EpochStatement)
    return calldata.settle(sent) if epoch else calldata.rotate(sent)


def raw_settle(sent: Submission[Any], *, signature: bytes, bitmap: bytes | None = None) -> bytes:
    """Calldata with a signature, or a bitmap, that no `Submission` can hold."""
    words = sent.statement.message
    return call("settle", words, _bytes(sent.bitmap if bitmap is None else bitmap), signature)


# ------------------------------------------------------------------------------ what is accepted


def test_an_epoch_is_settled_and_its_verdicts_are_shown():
    made = found(evm.Chain(native=True), weights=WEIGHTS)
    for epoch, size in enumerate((1, 13, 8)):
        sent = made.next(size)
        made.head = submission.verify(sent, made.head)
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
    for data in calldata.registrations(incoming()):
        made.call(data)
    handover = signed(made.head.rotation(incoming()), made, EVERYONE)
    made.head = submission.verify_rotation(handover, made.head, incoming())
    made.secrets = onchain.holders(incoming(), INCOMING)
    made.call(calldata.rotate(handover))
    assert made.call(call("committee_id")).output == incoming().id
    assert made.call(call("committee_sequence")).output == _word(1)
    assert made.call(call("members")).output == _word(3)
    assert made.call(call("weight")).output == _word(3)
    assert made.refusal(calldata.settle(old.next())) == "other-committee"
    assert made.refusal(calldata.rotate(handover)) == "other-committee"
    # The outgoing committee signs for the new sequence: it is no longer asked.
    statement = made.head.statement(root=bytes(32), size=1, policy=bytes(32))
    by_old = replace(signed(statement, old, EVERYONE), bitmap=b"\x07")
    assert made.refusal(calldata.settle(by_old)) == "bad-signature"
    made.call(calldata.settle(made.next()))


@pytest.mark.parametrize("size", [1, 7, 8, 9, 31, 32, 33, 64, 65, 256])
def test_committees_of_every_size(size: int):
    """Bitmaps that end within a byte, committees that end within a chunk."""
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


# --------------------------------------------------------------------------------- submissions


@dataclass(frozen=True, slots=True)
class Cheat:
    """A row of attacks, by its number, with what the contract answers to it."""

    row: str
    name: str
    expect: str
    data: Callable[[Office], bytes]


def honest(made: Office) -> Submission[Any]:
    return made.next()


def stated(**changes: Any) -> Callable[[Office], bytes]:
    """A statement with fields changed, signed by all."""

    def data(made: Office) -> bytes:
        return calldata.settle(signed(replace(honest(made).statement, **changes), made, EVERYONE))

    return data


def by(signers: Callable[[Office], list[int]]) -> Callable[[Office], bytes]:
    return lambda made: calldata.settle(signed(honest(made).statement, made, signers(made)))


def with_weight(made: Office, weight: int) -> list[int]:
    """Members who have exactly this weight together."""
    weights = [member.weight for member in made.head.committee.members]
    for bits in range(1 << len(weights)):
        chosen = [i for i in range(len(weights)) if bits >> i & 1]
        if sum(weights[i] for i in chosen) == weight:
            return chosen
    raise ValueError(weight)


def with_signature(change: Callable[[bytes], bytes]) -> Callable[[Office], bytes]:
    return lambda made: raw_settle(honest(made), signature=change(honest(made).signature.eip2537()))


def with_bitmap(change: Callable[[bytes], bytes]) -> Callable[[Office], bytes]:
    def data(made: Office) -> bytes:
        sent = honest(made)
        return raw_settle(sent, signature=sent.signature.eip2537(), bitmap=change(sent.bitmap))

    return data


def signature_of(make: Callable[[Office, Submission[Any]], bytes]) -> Callable[[Office], bytes]:
    return lambda made: raw_settle(honest(made), signature=make(made, honest(made)))


def everyone(made: Office) -> bls.SecretKey:
    return onchain.joint(made.secrets)


def signer_twice(made: Office, sent: Submission[Any]) -> bytes:
    again = made.secrets[0].sign(sent.statement.message, domain=sent.statement.DOMAIN)
    return bls.aggregate([sent.signature, again]).eip2537()


def under(domain: bytes) -> Callable[[Office], bytes]:
    return signature_of(
        lambda made, sent: everyone(made).sign(sent.statement.message, domain=domain).eip2537()
    )


def possession_as_signature(made: Office, sent: Submission[Any]) -> bytes:
    key = everyone(made)
    message = bls.framed(sent.statement.message, sent.statement.DOMAIN)
    point = key.core_sign(message, bls.POSSESSION_DST)
    return Signature.from_point(point).eip2537()


def add(point: bytes, other: Any) -> bytes:
    """Add a point that need not lie in the subgroup, in py_ecc's coordinates."""
    n = [int.from_bytes(point[i : i + 64], "big") for i in range(0, 256, 64)]
    total = normalize(ecc_add((FQ2(n[:2]), FQ2(n[2:]), FQ2([1, 0])), other))
    return b"".join(int(c).to_bytes(64, "big") for axis in total for c in axis.coeffs)


@functools.cache
def of_small_order() -> Any:
    """A point of G2's curve whose order divides the cofactor: r times a point of the curve."""
    point = multiply(map_to_curve_G2(FQ2([1, 2])), curve.ORDER)
    assert not is_inf(point)
    return point


def other_point(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def unreduced(data: bytes) -> bytes:
    return (int.from_bytes(data[:64], "big") + P).to_bytes(64, "big") + data[64:]


def rotation_by(made: Office, **changes: Any) -> bytes:
    statement = replace(made.head.rotation(incoming()), **changes)
    return calldata.rotate(signed(statement, made, EVERYONE))


def attestation_as_rotation(made: Office) -> bytes:
    """Signed was an epoch; its signature comes with a rotation."""
    statement = made.head.rotation(incoming())
    return data_of(
        Submission(statement=statement, signature=honest(made).signature, bitmap=b"\x7f")
    )


def rotation_as_attestation(made: Office) -> bytes:
    handover = signed(made.head.rotation(incoming()), made, EVERYONE)
    return calldata.settle(replace(honest(made), signature=handover.signature))


def yesterday(made: Office) -> bytes:
    """A statement by a committee that is not in office, under its own id."""
    return stated(committee=incoming().id)(made)


CHEATS = (
    Cheat(
        "26",
        "a proof of possession used as a signature",
        "bad-signature",
        signature_of(possession_as_signature),
    ),
    Cheat("27", "infinite signature", "infinite-signature", with_signature(lambda s: bytes(256))),
    Cheat("27", "empty signer set", "no-quorum", with_bitmap(lambda b: b"\0")),
    Cheat(
        "27",
        "empty signer set, infinite signature",
        "no-quorum",
        lambda m: raw_settle(honest(m), signature=bytes(256), bitmap=b"\0"),
    ),
    Cheat("27", "signature off the curve", "", with_signature(other_point)),
    Cheat("27", "coordinate not below the modulus", "", with_signature(unreduced)),
    Cheat("27", "padding of a coordinate not zero", "", with_signature(lambda s: b"\1" + s[1:])),
    Cheat(
        "27",
        "signature outside the subgroup",
        "",
        with_signature(lambda s: add(s, of_small_order())),
    ),
    Cheat("28", "signer counted twice", "bad-signature", signature_of(signer_twice)),
    Cheat(
        "28",
        "signer claimed who did not sign",
        "bad-signature",
        lambda m: calldata.settle(
            replace(signed(honest(m).statement, m, range(1, 7)), bitmap=b"\x7f")
        ),
    ),
    Cheat(
        "28",
        "signer not claimed",
        "bad-signature",
        lambda m: calldata.settle(replace(honest(m), bitmap=b"\x7e")),
    ),
    Cheat(
        "28", "bitmap longer than the committee", "bitmap-length", with_bitmap(lambda b: b + b"\0")
    ),
    Cheat(
        "28", "bitmap longer by a committee", "bitmap-length", with_bitmap(lambda b: b + b"\x7f")
    ),
    Cheat("28", "empty bitmap", "bitmap-length", with_bitmap(lambda b: b"")),
    Cheat("28", "bits beyond the committee", "bitmap-excess", with_bitmap(lambda b: b"\xff")),
    Cheat("28", "exactly two thirds", "no-quorum", by(lambda m: with_weight(m, 10))),
    Cheat("28", "below quorum", "no-quorum", by(lambda m: [0])),
    Cheat("28", "yesterday's committee", "other-committee", yesterday),
    Cheat("28", "another term of the committee", "other-sequence", stated(sequence=1)),
    Cheat("29", "another chain", "other-chain", stated(chain_id=1)),
    Cheat("29", "another contract", "other-contract", stated(contract=STRANGER)),
    Cheat(
        "29",
        "signed for another chain, stated for this",
        "bad-signature",
        lambda m: calldata.settle(
            replace(
                honest(m),
                signature=signed(replace(honest(m).statement, chain_id=1), m, EVERYONE).signature,
            )
        ),
    ),
    Cheat(
        "29", "signed under another domain", "bad-signature", under(b"verifiable epoch statement 2")
    ),
    Cheat(
        "29",
        "signed under the domain of registration",
        "bad-signature",
        under(b"verifiable registration 1"),
    ),
    Cheat("29a", "attestation passed off as a rotation", "bad-signature", attestation_as_rotation),
    Cheat("29a", "rotation passed off as an attestation", "bad-signature", rotation_as_attestation),
    Cheat(
        "29a",
        "statement of a version to come",
        "bad-signature",
        under(b"verifiable epoch statement 2"),
    ),
    Cheat(
        "29a",
        "rotation to another than the staged committee",
        "other-incoming",
        lambda m: rotation_by(m, incoming=bytes(32)),
    ),
    Cheat(
        "29a",
        "rotation by a committee not in office",
        "other-committee",
        lambda m: rotation_by(m, committee=incoming().id),
    ),
    Cheat(
        "29a", "rotation of another term", "other-sequence", lambda m: rotation_by(m, sequence=1)
    ),
    Cheat("29a", "rotation for another chain", "other-chain", lambda m: rotation_by(m, chain_id=1)),
    Cheat(
        "29a",
        "rotation for another contract",
        "other-contract",
        lambda m: rotation_by(m, contract=STRANGER),
    ),
    Cheat(
        "29a",
        "rotation without quorum",
        "no-quorum",
        lambda m: calldata.rotate(signed(m.head.rotation(incoming()), m, [0])),
    ),
    Cheat("30", "epoch settled twice", "epoch-settled", stated(epoch=0)),
    Cheat("30", "epoch out of order", "epoch-ahead", stated(epoch=2)),
    Cheat("30", "history rewritten", "other-previous-root", stated(previous_root=bytes(32))),
    Cheat(
        "31",
        "small-order part added to the signature",
        "",
        with_signature(lambda s: add(s, of_small_order())),
    ),
)


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda c: f"{c.row} {c.name}")
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


# ------------------------------------------------------------------------------- registration


def registering(*seats: tuple[bytes, int, bytes]) -> bytes:
    """A registration of (key, weight, proof), as bytes."""
    members = [key + _word(weight) for key, weight, _ in seats]
    return call("register", _array(members), _array([proof for _, _, proof in seats]))


def seat(
    number: int, *, sender: bytes = REGISTRANT, weight: int = 1, **changes: Any
) -> tuple[bytes, int, bytes]:
    """A key with its proof for this contract, or another: `chain_id`, `contract`."""
    where = replace(fresh().head.deployment, **changes)
    proof = committee.prove_registration(secret(number), where, sender)
    return secret(number).public_key.eip2537(), weight, proof.eip2537()


def rogue() -> tuple[bytes, int, bytes]:
    """x·g - (another's key), with the proof of x: whoever had this key would sign for both."""
    group = curve.active().g1
    victim, own = secret(0).public_key, secret(50)
    difference = group.combine([own.public_key.point, victim.point], [1, curve.ORDER - 1])
    return bls.PublicKey.from_point(difference).eip2537(), 1, seat(50)[2]


def signature_as_possession() -> tuple[bytes, int, bytes]:
    """What a member could be made to sign is no proof, even over the very same bytes."""
    key, weight, _ = seat(1)
    binding = committee.registration_binding(fresh().head.deployment, REGISTRANT)
    made = secret(1).sign(key + binding, domain=committee.REGISTRATION_DOMAIN)
    return key, weight, made.eip2537()


@functools.cache
def key_outside_the_subgroup() -> bytes:
    for x in range(1, 100):
        y = pow(x**3 + 4, (P + 1) // 4, P)
        if y * y % P == (x**3 + 4) % P:
            return x.to_bytes(64, "big") + y.to_bytes(64, "big")
    raise AssertionError


REGISTRATIONS = (
    ("26 rogue key", "bad-possession", lambda: registering(rogue())),
    (
        "26 missing proof of possession",
        "bad-lengths",
        lambda: call("register", _array([seat(1)[0] + _word(1)]), _array([])),
    ),
    ("26 proof of another key", "bad-possession", lambda: registering((seat(1)[0], 1, seat(2)[2]))),
    (
        "26 signature as a proof of possession",
        "bad-possession",
        lambda: registering(signature_as_possession()),
    ),
    (
        "26 proof that binds nothing",
        "bad-possession",
        lambda: registering((seat(1)[0], 1, secret(1).prove_possession().eip2537())),
    ),
    ("27 infinite key", "infinite-key", lambda: registering((bytes(128), 1, seat(1)[2]))),
    (
        "27 infinite key, infinite proof",
        "infinite-key",
        lambda: registering((bytes(128), 1, bytes(256))),
    ),
    ("27 infinite proof", "infinite-signature", lambda: registering((seat(1)[0], 1, bytes(256)))),
    ("27 key off the curve", "", lambda: registering((other_point(seat(1)[0]), 1, seat(1)[2]))),
    (
        "27 key outside the subgroup",
        "",
        lambda: registering((key_outside_the_subgroup(), 1, seat(1)[2])),
    ),
    (
        "27 key's coordinate not below the modulus",
        "",
        lambda: registering((unreduced(seat(1)[0]), 1, seat(1)[2])),
    ),
    (
        "27 proof outside the subgroup",
        "",
        lambda: registering((seat(1)[0], 1, add(seat(1)[2], of_small_order()))),
    ),
    (
        "27a registered for another chain",
        "bad-possession",
        lambda: registering(seat(1, chain_id=1)),
    ),
    (
        "27a registered for another contract",
        "bad-possession",
        lambda: registering(seat(1, contract=STRANGER)),
    ),
    (
        "27a registered for another registrant",
        "bad-possession",
        lambda: registering(seat(1, sender=STRANGER)),
    ),
    ("28 no weight", "no-weight", lambda: registering(seat(1, weight=0))),
    ("28 weight wider than its type", "", lambda: registering(seat(1, weight=2**64))),
    ("28 nobody", "bad-lengths", registering),
    (
        "28 one bad among good",
        "bad-possession",
        lambda: registering(seat(1), seat(2, sender=STRANGER), seat(3)),
    ),
    ("33 more than a call takes", "", lambda: registering(*[seat(1)] * 33)),
)


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
    """Row 27a: each proof is good; the committee is not."""
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
    handover = signed(made.head.rotation(incoming()), made, EVERYONE)
    assert made.refusal(calldata.rotate(handover)) == "no-committee"
    assert made.refusal(calldata.verify_inclusion(0, 0, b"", ())) == "epoch-ahead"


def test_a_committee_is_activated_once():
    again = committee_of(EVERYONE, office().head.deployment, WEIGHTS, STRANGER)
    for data in calldata.registrations(again):
        office().call(data, sender=STRANGER)
    assert again.id == office().head.committee.id
    assert office().refusal(calldata.activate(), sender=STRANGER) == "already-active"


def test_a_rotation_takes_what_its_sender_staged():
    """Nobody else's staging can be used, filled up or thrown away."""
    handover = signed(office().head.rotation(incoming()), office(), EVERYONE)
    data = calldata.rotate(handover)
    assert office().refusal(data) is None
    nobody = b"\x33" * 20
    assert office().refusal(data, sender=nobody) == "no-members"
    office().call(calldata.discard(), sender=nobody)
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
    """Whoever holds both keys of such a pair could otherwise show an infinite signature."""
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
    sent = Submission(
        statement=statement, signature=secret(3).sign(b"", domain=b"d"), bitmap=bitmap
    )
    assert python(sent, made.head) == made.refusal(calldata.settle(sent)) == "infinite-key"
    assert made.refusal(raw_settle(sent, signature=bytes(256))) == "infinite-key"


# ----------------------------------------------------------------------------------- precompiles


@pytest.mark.parametrize(
    ("address", "name"), [(5, "MODEXP"), (13, "G2ADD"), (15, "PAIRING"), (17, "MAP_FP2_TO_G2")]
)
def test_a_chain_without_the_precompile_accepts_nothing(address: int, name: str):
    """Row 32: a call to an address without code succeeds with no output."""
    made = found(evm.Chain(native=True, missing=[address.to_bytes(20, "big")]), activate=False)
    assert made.refusal(registering(seat(1))) == "no-precompile"


def test_a_chain_without_g1add_accepts_nothing():
    made = found(evm.Chain(native=True, missing=[(11).to_bytes(20, "big")]), activate=False)
    made.call(calldata.registrations(made.head.committee)[0])
    assert made.refusal(calldata.activate()) == "no-precompile"


# ---------------------------------------------------------------------------------- differential

BIG = st.sampled_from([0, 1, 2, 2**63, 2**64 - 1])
WORD = st.sampled_from([bytes(32), b"\xff" * 32, b"p" * 32]) | st.binary(min_size=32, max_size=32)


@st.composite
def submissions(draw: st.DrawFn) -> Submission[Any]:
    """Submissions on and around the honest one, for either kind of statement."""
    made = office()
    if draw(st.integers(0, 3)):
        statement = made.head.statement(root=onchain.tree(1).root, size=13, policy=onchain.POLICY)
        names = {
            "root": WORD,
            "size": st.integers(1, 2**64 - 1),
            "policy": WORD,
            "epoch": BIG,
            "previous_root": WORD,
        }
    else:
        statement = made.head.rotation(incoming())
        names = {"incoming": WORD | st.just(made.head.committee.id)}
    names |= {
        "chain_id": st.sampled_from([1, 31337, 31338, 2**256 - 1]),
        "contract": st.sampled_from([STRANGER, REGISTRANT, bytes(20), made.address]),
        "committee": st.sampled_from([incoming().id, made.head.committee.id, bytes(32)]),
        "sequence": BIG,
    }
    changed = draw(st.lists(st.sampled_from(sorted(names)), max_size=2, unique=True))
    sent = replace(statement, **{name: draw(names[name]) for name in changed})
    told = draw(st.sampled_from([sent, statement]))
    signers = draw(st.just(list(EVERYONE)) | st.lists(st.sampled_from(EVERYONE), min_size=1))
    point = onchain.joint(made.secrets[i] for i in signers)
    domain = draw(
        st.just(told.DOMAIN)
        | st.sampled_from([b"verifiable committee rotation 1", b"verifiable epoch statement 1"])
    )
    signature = point.sign(told.message, domain=domain)
    honest_bitmap = made.head.committee.bitmap(signers)
    bitmap = draw(
        st.just(honest_bitmap)
        | st.sampled_from([b"\x7f", b"\xff", b"\0", b"\x7f\0", b"\x7e"])
        | st.binary(min_size=1, max_size=32)
    )
    return Submission(statement=sent, signature=signature, bitmap=bitmap)


REASONS = (
    "bad-signature bitmap-excess bitmap-length no-quorum other-chain other-contract epoch-ahead "
    "epoch-settled other-committee other-sequence other-previous-root other-incoming"
)


def test_python_and_the_contract_agree_on_every_submission():
    """Verdict and reason; among what is compared are acceptances, and every reason."""
    seen: Counter[str | None] = Counter()

    @given(submissions())
    @settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
    def compare(sent: Submission[Any]):
        ours, theirs = python(sent, office().head), office().refusal(data_of(sent))
        seen[ours] += 1
        if ours == "other-incoming":
            # The contract knows the incoming committee only after it has counted the signers.
            assert theirs in {ours, "bitmap-length", "bitmap-excess", "no-quorum"}
        else:
            assert ours == theirs

    compare()
    assert seen.total() >= 2000
    assert set(seen) == {None, *REASONS.split()}


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_bit_of_a_submission_is_idle(data: st.DataObject):
    """A flipped bit is refused, or is padding of the bitmap, which says nothing."""
    good = calldata.settle(honest(office()))
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    flipped = bytearray(good)
    flipped[bit // 8] ^= 1 << bit % 8
    padding = bit // 8 > len(good) - 32
    assert (office().refusal(bytes(flipped)) is None) is padding


def leaf_of(data: st.DataObject, epoch: int) -> tuple[int, bytes, list[bytes]]:
    tree, leaves = onchain.tree(epoch), onchain.leaves(epoch)
    index = data.draw(st.integers(0, len(leaves) - 1))
    return index, leaves[index], list(tree.inclusion(index))


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_python_and_the_contract_agree_on_every_inclusion_proof(data: st.DataObject):
    index, leaf, proof = leaf_of(data, 0)
    changes = st.sampled_from(["index", "leaf", "drop", "add", "swap", "flip", "none", "sibling"])
    match data.draw(changes):
        case "index":
            index = data.draw(st.integers(0, 14) | st.integers(0, 2**64 - 1))
        case "leaf":
            leaf = data.draw(st.binary(max_size=70) | st.sampled_from(onchain.leaves(0)))
        case "drop":
            proof.pop(data.draw(st.integers(0, len(proof) - 1)))
        case "add":
            more = data.draw(st.integers(1, calldata.MAX_PROOF - len(proof)))
            proof[:0] = [data.draw(st.binary(min_size=32, max_size=32))] * more
        case "swap":
            proof.reverse()
        case "flip":
            at = data.draw(st.integers(0, len(proof) - 1))
            proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        case "sibling":
            # An inner node, or a pair of digests, shown as a verdict.
            leaf, proof = merkle.SHA256.leaf(leaf) + proof[0], proof[1:]
        case _:
            pass
    tree = onchain.tree(0)
    try:
        merkle.verify_inclusion(
            proof,
            leaf=merkle.SHA256.leaf(leaf),
            index=index,
            size=tree.size,
            root=tree.root,
            suite=merkle.SHA256,
        )
        ours = None
    except VerificationError as error:
        ours = type(error).__name__
    theirs = office().refusal(calldata.verify_inclusion(0, index, leaf, proof))
    expected = {
        None: {None},
        "RootMismatch": {"root-mismatch"},
        "MalformedProof": {"proof-length", "no-such-verdict"},
    }
    assert theirs in expected[ours]


def test_inclusion_in_trees_of_many_shapes_and_large_ones():
    """An independent oracle for sizes that no list of leaves reaches: `root_from_inclusion`."""
    made = found(evm.Chain(native=True))
    leaf, digests = b"verdict", [bytes([i]) * 32 for i in range(64)]
    sizes = [1, 2, 3, 5, 8, 2**20, 2**20 + 1, 2**32 - 1, 2**63 + 12345, 2**64 - 1]
    for size in sizes:
        index = (size - 1) & 0xAAAA_AAAA_AAAA_AAAA
        proof = digests[: len(merkle._path(index, index + 1, size))]
        root = merkle.root_from_inclusion(
            proof,
            leaf=merkle.SHA256.leaf(leaf),
            index=index,
            size=size,
            suite=merkle.SHA256,
        )
        epoch = made.head.epoch
        statement = made.head.statement(root=root, size=size, policy=bytes(32))
        sent = signed(statement, made, EVERYONE)
        made.call(calldata.settle(sent))
        made.head = submission.verify(sent, made.head)
        made.call(calldata.verify_inclusion(epoch, index, leaf, proof))
        for wrong in (leaf + b"!", b""):
            data = calldata.verify_inclusion(epoch, index, wrong, proof)
            assert made.refusal(data) == "root-mismatch"
        data = calldata.verify_inclusion(epoch, index, leaf, [*proof, bytes(32)][:64])
        assert made.refusal(data) == ("proof-length" if len(proof) < 64 else None)
        if proof:
            data = calldata.verify_inclusion(epoch, index, leaf, proof[:-1])
            assert made.refusal(data) in {"proof-length", "root-mismatch"}
        assert made.refusal(calldata.verify_inclusion(epoch, size % 2**64, leaf, proof)) in {
            "no-such-verdict",
            "root-mismatch",
        }


INCLUSIONS = (
    ("30 verdict never signed", "root-mismatch", lambda p: (0, 3, b"forged", p(3))),
    ("30 verdict of another epoch", "root-mismatch", lambda p: (0, 3, onchain.leaves(1)[3], p(3))),
    ("30 epoch not settled", "epoch-ahead", lambda p: (1, 3, onchain.leaves(0)[3], p(3))),
    (
        "30 node as a leaf",
        "root-mismatch",
        lambda p: (0, 0, merkle.SHA256.leaf(onchain.leaves(0)[0]) + p(0)[0], p(0)[1:]),
    ),
    (
        "30 node as a leaf, at the depth of a leaf",
        "root-mismatch",
        lambda p: (
            0,
            1,
            b"\1" + merkle.SHA256.leaf(onchain.leaves(0)[0]) + p(0)[0],
            [*p(0)[1:], bytes(32)],
        ),
    ),
    ("13 root with an empty proof", "proof-length", lambda p: (0, 0, b"", [])),
    (
        "14 index beyond the size",
        "no-such-verdict",
        lambda p: (0, 13, onchain.leaves(0)[12], p(12)),
    ),
    (
        "14 last verdict as one of a full tree",
        "proof-length",
        lambda p: (
            0,
            12,
            onchain.leaves(0)[12],
            [merkle.SHA256.leaf(onchain.leaves(0)[12]), *p(12)],
        ),
    ),
    ("15 proof for another index", "root-mismatch", lambda p: (0, 3, onchain.leaves(0)[3], p(2))),
    ("33 65 digests", "", lambda p: (0, 3, onchain.leaves(0)[3], [bytes(32)] * 65)),
    ("33 2,049 bytes", "", lambda p: (0, 3, bytes(2049), p(3))),
)


@pytest.mark.parametrize(
    ("expect", "make"), [r[1:] for r in INCLUSIONS], ids=[r[0] for r in INCLUSIONS]
)
def test_an_inclusion_proof_is_refused(expect: str, make: Callable[..., Any]):
    epoch, index, leaf, proof = make(onchain.tree(0).inclusion)
    digests = _array(list(proof))
    data = call("verify_inclusion", _word(epoch), _word(index), _bytes(leaf), digests)
    refused = office().refusal(data)
    assert refused is not None
    assert refused == expect or {refused, expect} == {"proof-length", "root-mismatch"}


def test_the_largest_verdict_and_its_limits_in_python():
    leaf = bytes(2048)
    with pytest.raises(ValueError, match="at most 2048"):
        calldata.verify_inclusion(0, 0, leaf + b"\0", ())
    with pytest.raises(ValueError, match="at most 2048"):
        calldata.verify_inclusion(0, 0, leaf, [bytes(32)] * 65)
