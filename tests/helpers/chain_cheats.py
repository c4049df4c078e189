"""Named attacks on the contract, as calldata, with the reason for which it refuses each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from py_ecc.bls.hash_to_curve import map_to_curve_G2
from py_ecc.optimized_bls12_381 import FQ2, is_inf, multiply, normalize
from py_ecc.optimized_bls12_381 import add as ecc_add

from protocols.contracts import calldata, evm
from protocols.contracts.calldata import _array, _bytes, _word, call
from protocols.settlement import committee, submission
from protocols.settlement.statements import Deployment, EpochStatement, SettlementError
from protocols.settlement.submission import SettlementSubmission
from tests.helpers import onchain
from tests.helpers.onchain import REGISTRANT, STRANGER, Office, committee_of, found, secret, signed
from verifiable import bls, merkle
from verifiable.bls import Signature, curve

P = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab",
    16,
)
WEIGHTS = [3, 1, 1, 2, 1, 5, 2]  # in the order of secrets 0 to 6: 15 together
EVERYONE = range(7)
INCOMING = (20, 21, 22)


@functools.cache
def office() -> Office:
    """`established` in py-evm with native pairings; not to be changed."""
    return established(evm.Chain(native=True))


def established(chain: Any) -> Office:
    """A contract with one epoch settled, and another committee staged."""
    made = found(chain, weights=WEIGHTS)
    first = made.next()
    made.call(calldata.settle(first))
    made.head = submission.verify_epoch(first, made.head)
    for data in calldata.registrations(incoming(made)):
        made.call(data)
    return made


@functools.cache
def fresh() -> Office:
    """A contract without a committee."""
    return found(evm.Chain(native=True), activate=False)


@functools.cache
def incoming_at(deployment: Deployment) -> committee.Committee:
    return committee_of(INCOMING, deployment)


def incoming(made: Office) -> committee.Committee:
    """The staged committee, which is to follow the first."""
    return incoming_at(made.head.deployment)


def python(sent: SettlementSubmission[Any], head: submission.Head) -> str | None:
    """The reason for which Python refuses a submission, as the contract names it, or None."""
    try:
        if isinstance(sent.statement, EpochStatement):
            submission.verify_epoch(sent, head)
        else:
            submission.verify_rotation(sent, head, incoming_at(head.deployment))
    except SettlementError as error:
        return error.reason
    except bls.BadSignature:
        return "bad-signature"
    except bls.InfiniteAggregate:
        return "infinite-key"
    except bls.BadSigners as error:
        return error.reason
    return None


def data_of(sent: SettlementSubmission[Any]) -> bytes:
    epoch = isinstance(sent.statement, EpochStatement)
    return calldata.settle(sent) if epoch else calldata.rotate(sent)


def raw_settle(
    sent: SettlementSubmission[Any], *, signature: bytes, bitmap: bytes | None = None
) -> bytes:
    """Calldata with a signature or a bitmap that no `SettlementSubmission` can hold."""
    words = sent.statement.message
    return call("settle", words, _bytes(sent.bitmap if bitmap is None else bitmap), signature)


# --------------------------------------------------------------------------------- submissions


@dataclass(frozen=True, slots=True)
class Cheat:
    """A named attack, with the reason for which the contract refuses it."""

    name: str
    expect: str
    data: Callable[[Office], bytes]


def honest(made: Office) -> SettlementSubmission[Any]:
    return made.next()


def stated(**changes: Any) -> Callable[[Office], bytes]:
    """A statement with fields changed, signed by all."""

    def data(made: Office) -> bytes:
        return calldata.settle(signed(replace(honest(made).statement, **changes), made, EVERYONE))

    return data


def by(signers: Callable[[Office], list[int]]) -> Callable[[Office], bytes]:
    return lambda made: calldata.settle(signed(honest(made).statement, made, signers(made)))


def with_weight(made: Office, weight: int) -> list[int]:
    """Members that have exactly this weight together."""
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


def signature_of(
    make: Callable[[Office, SettlementSubmission[Any]], bytes],
) -> Callable[[Office], bytes]:
    return lambda made: raw_settle(honest(made), signature=make(made, honest(made)))


def everyone(made: Office) -> bls.SecretKey:
    return onchain.joint(made.secrets)


def signer_twice(made: Office, sent: SettlementSubmission[Any]) -> bytes:
    again = made.secrets[0].sign(sent.statement.message, domain=sent.statement.DOMAIN)
    return bls.aggregate([sent.signature, again]).eip2537()


def under(domain: bytes) -> Callable[[Office], bytes]:
    return signature_of(
        lambda made, sent: everyone(made).sign(sent.statement.message, domain=domain).eip2537()
    )


def possession_as_signature(made: Office, sent: SettlementSubmission[Any]) -> bytes:
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
    statement = replace(made.head.rotation(incoming(made)), **changes)
    return calldata.rotate(signed(statement, made, EVERYONE))


def epoch_as_rotation(made: Office) -> bytes:
    """A rotation with the signature of an epoch."""
    statement = made.head.rotation(incoming(made))
    return data_of(
        SettlementSubmission(statement=statement, signature=honest(made).signature, bitmap=b"\x7f")
    )


def rotation_as_epoch(made: Office) -> bytes:
    handover = signed(made.head.rotation(incoming(made)), made, EVERYONE)
    return calldata.settle(replace(honest(made), signature=handover.signature))


def yesterday(made: Office) -> bytes:
    """A statement by a committee that is not in office, under its own id."""
    return stated(committee=incoming(made).id)(made)


CHEATS: tuple[Cheat, ...] = (
    Cheat(
        "a proof of possession used as a signature",
        "bad-signature",
        signature_of(possession_as_signature),
    ),
    Cheat("infinite signature", "infinite-signature", with_signature(lambda s: bytes(256))),
    Cheat("empty signer set", "no-quorum", with_bitmap(lambda b: b"\0")),
    Cheat(
        "empty signer set, infinite signature",
        "no-quorum",
        lambda m: raw_settle(honest(m), signature=bytes(256), bitmap=b"\0"),
    ),
    Cheat("signature off the curve", "", with_signature(other_point)),
    Cheat("coordinate not below the modulus", "", with_signature(unreduced)),
    Cheat("padding of a coordinate not zero", "", with_signature(lambda s: b"\1" + s[1:])),
    Cheat(
        "small-order part added to the signature, which leaves the subgroup",
        "",
        with_signature(lambda s: add(s, of_small_order())),
    ),
    Cheat("signer counted twice", "bad-signature", signature_of(signer_twice)),
    Cheat(
        "signer claimed that did not sign",
        "bad-signature",
        lambda m: calldata.settle(
            replace(signed(honest(m).statement, m, range(1, 7)), bitmap=b"\x7f")
        ),
    ),
    Cheat(
        "signer not claimed",
        "bad-signature",
        lambda m: calldata.settle(replace(honest(m), bitmap=b"\x7e")),
    ),
    Cheat("bitmap longer than the committee", "bitmap-length", with_bitmap(lambda b: b + b"\0")),
    Cheat("bitmap longer by a committee", "bitmap-length", with_bitmap(lambda b: b + b"\x7f")),
    Cheat("empty bitmap", "bitmap-length", with_bitmap(lambda b: b"")),
    Cheat("bits beyond the committee", "bitmap-excess", with_bitmap(lambda b: b"\xff")),
    Cheat("exactly two thirds", "no-quorum", by(lambda m: with_weight(m, 10))),
    Cheat("below quorum", "no-quorum", by(lambda m: [0])),
    Cheat("yesterday's committee", "other-committee", yesterday),
    Cheat("another term of the committee", "other-sequence", stated(sequence=1)),
    Cheat("another chain", "other-chain", stated(chain_id=1)),
    Cheat("another contract", "other-contract", stated(contract=STRANGER)),
    Cheat(
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
        "signed under the domain of a later version",
        "bad-signature",
        under(b"verifiable epoch statement 2"),
    ),
    Cheat(
        "signed under the domain of registration",
        "bad-signature",
        under(b"verifiable registration 1"),
    ),
    Cheat("epoch passed off as a rotation", "bad-signature", epoch_as_rotation),
    Cheat("rotation passed off as an epoch", "bad-signature", rotation_as_epoch),
    Cheat(
        "rotation to another than the staged committee",
        "other-incoming",
        lambda m: rotation_by(m, incoming=bytes(32)),
    ),
    Cheat(
        "rotation by a committee not in office",
        "other-committee",
        lambda m: rotation_by(m, committee=incoming(m).id),
    ),
    Cheat("rotation of another term", "other-sequence", lambda m: rotation_by(m, sequence=1)),
    Cheat("rotation for another chain", "other-chain", lambda m: rotation_by(m, chain_id=1)),
    Cheat(
        "rotation for another contract",
        "other-contract",
        lambda m: rotation_by(m, contract=STRANGER),
    ),
    Cheat(
        "rotation without quorum",
        "no-quorum",
        lambda m: calldata.rotate(signed(m.head.rotation(incoming(m)), m, [0])),
    ),
    Cheat("epoch settled twice", "epoch-settled", stated(epoch=0)),
    Cheat("epoch out of order", "epoch-ahead", stated(epoch=2)),
    Cheat("history rewritten", "other-previous-root", stated(previous_root=bytes(32))),
)


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
    """x·g minus another's key, with the proof of x: its holder could sign for both."""
    group = curve.active().g1
    victim, own = secret(0).public_key, secret(50)
    difference = group.combine([own.public_key.point, victim.point], [1, curve.ORDER - 1])
    return bls.PublicKey.from_point(difference).eip2537(), 1, seat(50)[2]


def signature_as_possession() -> tuple[bytes, int, bytes]:
    """A signature is no proof of possession, even over the same bytes."""
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


REGISTRATIONS: tuple[tuple[str, str, Callable[[], bytes]], ...] = (
    ("rogue key", "bad-possession", lambda: registering(rogue())),
    (
        "missing proof of possession",
        "bad-lengths",
        lambda: call("register", _array([seat(1)[0] + _word(1)]), _array([])),
    ),
    ("proof of another key", "bad-possession", lambda: registering((seat(1)[0], 1, seat(2)[2]))),
    (
        "signature as a proof of possession",
        "bad-possession",
        lambda: registering(signature_as_possession()),
    ),
    (
        "proof that binds nothing",
        "bad-possession",
        lambda: registering((seat(1)[0], 1, secret(1).prove_possession().eip2537())),
    ),
    ("infinite key", "infinite-key", lambda: registering((bytes(128), 1, seat(1)[2]))),
    (
        "infinite key, infinite proof",
        "infinite-key",
        lambda: registering((bytes(128), 1, bytes(256))),
    ),
    ("infinite proof", "infinite-signature", lambda: registering((seat(1)[0], 1, bytes(256)))),
    ("key off the curve", "", lambda: registering((other_point(seat(1)[0]), 1, seat(1)[2]))),
    (
        "key outside the subgroup",
        "",
        lambda: registering((key_outside_the_subgroup(), 1, seat(1)[2])),
    ),
    (
        "key's coordinate not below the modulus",
        "",
        lambda: registering((unreduced(seat(1)[0]), 1, seat(1)[2])),
    ),
    (
        "proof outside the subgroup",
        "",
        lambda: registering((seat(1)[0], 1, add(seat(1)[2], of_small_order()))),
    ),
    (
        "registered for another chain",
        "bad-possession",
        lambda: registering(seat(1, chain_id=1)),
    ),
    (
        "registered for another contract",
        "bad-possession",
        lambda: registering(seat(1, contract=STRANGER)),
    ),
    (
        "registered for another registrant",
        "bad-possession",
        lambda: registering(seat(1, sender=STRANGER)),
    ),
    ("no weight", "no-weight", lambda: registering(seat(1, weight=0))),
    ("weight wider than its type", "", lambda: registering(seat(1, weight=2**64))),
    ("no member", "bad-lengths", registering),
    (
        "one bad among good",
        "bad-possession",
        lambda: registering(seat(1), seat(2, sender=STRANGER), seat(3)),
    ),
    ("more than a call takes", "", lambda: registering(*[seat(1)] * 33)),
)


INCLUSIONS: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("verdict never signed", "root-mismatch", lambda p: (0, 3, b"forged", p(3))),
    ("verdict of another epoch", "root-mismatch", lambda p: (0, 3, onchain.leaves(1)[3], p(3))),
    ("epoch not settled", "epoch-ahead", lambda p: (1, 3, onchain.leaves(0)[3], p(3))),
    (
        "node as a leaf",
        "proof-length",
        lambda p: (0, 0, merkle.SHA256.leaf(onchain.leaves(0)[0]) + p(0)[0], p(0)[1:]),
    ),
    (
        "node as a leaf, at the depth of a leaf",
        "root-mismatch",
        lambda p: (
            0,
            1,
            b"\1" + merkle.SHA256.leaf(onchain.leaves(0)[0]) + p(0)[0],
            [*p(0)[1:], bytes(32)],
        ),
    ),
    ("root with an empty proof", "proof-length", lambda p: (0, 0, b"", [])),
    (
        "index beyond the size",
        "no-such-verdict",
        lambda p: (0, 13, onchain.leaves(0)[12], p(12)),
    ),
    (
        "last verdict as one of a full tree",
        "proof-length",
        lambda p: (
            0,
            12,
            onchain.leaves(0)[12],
            [merkle.SHA256.leaf(onchain.leaves(0)[12]), *p(12)],
        ),
    ),
    ("proof for another index", "root-mismatch", lambda p: (0, 3, onchain.leaves(0)[3], p(2))),
    ("65 digests", "", lambda p: (0, 3, onchain.leaves(0)[3], [bytes(32)] * 65)),
    ("2,049 bytes", "", lambda p: (0, 3, bytes(2049), p(3))),
)


def inclusion(make: Callable[..., Any]) -> bytes:
    """Calldata of a row of `INCLUSIONS`, whatever its lengths."""
    epoch, index, leaf, proof = make(onchain.tree(0).inclusion)
    digests = _array(list(proof))
    return call("verify_inclusion", _word(epoch), _word(index), _bytes(leaf), digests)
