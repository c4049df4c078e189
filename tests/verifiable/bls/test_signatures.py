"""BLS signatures: laws, and cheats by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from py_ecc.bls import G2ProofOfPossession as Reference

from tests.helpers.paths import ROOT
from tests.helpers.signers import (
    DOMAIN,
    KEYS,
    MESSAGE,
    PROVEN,
    SIGNED,
    cheap,
    entries,
    proven,
    reference,
    shifted,
)
from verifiable import bls
from verifiable.bls import (
    BadBatch,
    BadPossession,
    BadSignature,
    BadSigners,
    InfiniteAggregate,
    InvalidPoint,
    Possession,
    ProvenKey,
    PublicKey,
    SecretKey,
    Signature,
    SignedMessage,
    curve,
    keys,
    signatures,
)


@pytest.fixture
def unframed(monkeypatch: pytest.MonkeyPatch):
    """Sign and verify bare messages, as the vectors do: they know of no domains."""
    for module in (signatures, keys):
        monkeypatch.setattr(module, "framed", lambda message, domain: message)


# ------------------------------------------------------------------------------------------- laws


@cheap(20)
@given(entropy=st.binary(min_size=32, max_size=32), message=st.binary(max_size=200))
def test_what_is_signed_verifies(entropy: bytes, message: bytes):
    key = SecretKey.generate(entropy)
    signature = key.sign(message, domain=DOMAIN)
    bls.verify(key.public_key, message, signature, domain=DOMAIN)
    assert key.sign(message, domain=DOMAIN) == signature


def test_the_example_of_the_specification():
    text = (ROOT / "specs" / "bls.md").read_text().partition("## Example")[2]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    said = {name: bytes.fromhex(value) for name, value in rows[1:]}
    key = SecretKey.generate(said.pop("entropy"))
    made = [
        key.encode(),
        key.public_key.encoded,
        bls.framed(b"message", b"domain"),
        key.sign(b"message", domain=b"domain").encoded,
        key.prove_possession().encoded,
        key.prove_possession(b"binding").encoded,
        key.prove_possession(b"binding", domain=b"domain").encoded,
    ]
    assert made == list(said.values())


@pytest.mark.usefixtures("unframed")
def test_py_ecc_is_an_independent_oracle():
    scalar = int.from_bytes(KEYS[0].encode(), "big")
    signature = KEYS[0].sign(MESSAGE, domain=DOMAIN)
    assert signature.encoded == Reference.Sign(scalar, MESSAGE)
    assert Reference.Verify(KEYS[0].public_key.encoded, MESSAGE, signature.encoded)
    both = bls.aggregate([signature, KEYS[1].sign(MESSAGE, domain=DOMAIN)])
    keys = [k.public_key.encoded for k in KEYS[:2]]
    assert Reference.FastAggregateVerify(keys, MESSAGE, both.encoded)


def test_both_libraries_sign_prove_and_judge_alike():
    valid = (KEYS[0].public_key.encoded, MESSAGE, SIGNED[0].encoded)
    batch = [valid, (KEYS[1].public_key.encoded, *valid[1:])]
    with curve.using(reference()):
        key = SecretKey.decode(KEYS[0].encode())
        assert key.public_key == KEYS[0].public_key
        assert key.sign(MESSAGE, domain=DOMAIN) == SIGNED[0]
        proof = key.prove_possession(b"b")
        assert proof == KEYS[0].prove_possession(b"b")
        entries = [SignedMessage(PublicKey(k), m, Signature(s)) for k, m, s in batch]
        assert bls.find_invalid(entries, domain=DOMAIN).invalid == (1,)
        ProvenKey(key=key.public_key, possession=proof, binding=b"b")
        with pytest.raises(BadPossession):
            ProvenKey(key=key.public_key, possession=proof, binding=b"c")


def test_every_bit_of_a_signature_counts():
    for bit in range(8 * 96):
        changed = bytearray(SIGNED[0].encoded)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((InvalidPoint, BadSignature)):
            bls.verify(KEYS[0].public_key, MESSAGE, Signature(bytes(changed)), domain=DOMAIN)


def test_every_bit_of_message_and_domain_counts():
    for bit in range(8 * len(MESSAGE)):
        changed = bytearray(MESSAGE)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadSignature):
            bls.verify(KEYS[0].public_key, bytes(changed), SIGNED[0], domain=DOMAIN)
    for bit in range(8 * len(DOMAIN)):
        changed = bytearray(DOMAIN)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadSignature):
            bls.verify(KEYS[0].public_key, MESSAGE, SIGNED[0], domain=bytes(changed))


@cheap(20)
@given(order=st.permutations(range(8)), size=st.integers(1, 8))
def test_aggregation_does_not_depend_on_order(order: list[int], size: int):
    chosen = order[:size]
    total = bls.aggregate([SIGNED[i] for i in chosen])
    assert total == bls.aggregate([SIGNED[i] for i in sorted(chosen)])
    bls.fast_aggregate_verify([PROVEN[i] for i in chosen], MESSAGE, total, domain=DOMAIN)
    bls.aggregate_verify([(PROVEN[i], MESSAGE) for i in chosen], total, domain=DOMAIN)


def test_one_key_may_sign_several_messages_in_an_aggregate():
    total = bls.aggregate([KEYS[0].sign(m, domain=DOMAIN) for m in (b"a", b"b")])
    bls.aggregate_verify([(PROVEN[0], b"a"), (PROVEN[0], b"b")], total, domain=DOMAIN)


def test_nothing_cannot_be_aggregated():
    with pytest.raises(ValueError, match="nothing"):
        bls.aggregate([])


# ------------------------------------------------------------------------------------------ cheats


@dataclass(frozen=True)
class Cheat:
    """What an attacker sends, and how it is refused."""

    name: str
    expect: type[Exception]
    attack: Callable[[], object]


CHEATS: list[Cheat] = []


def cheat(name: str, expect: type[Exception]) -> Callable[[Callable[[], object]], Any]:
    def add(attack: Callable[[], object]) -> None:
        CHEATS.append(Cheat(name, expect, attack))

    return add


def point_of(value: Any) -> Any:
    return value.point


def rogue() -> tuple[SecretKey, PublicKey]:
    """Return a key x, and x·g minus the victim's key: the attacker knows no secret key of that."""
    group = curve.active().g1
    minus_victim = group.combine([PROVEN[0].key.point], [curve.ORDER - 1])
    own = SecretKey.generate(b"mallory" * 5)
    return own, PublicKey.from_point(group.sum([own.public_key.point, minus_victim]))


def test_without_proofs_a_rogue_key_signs_for_its_victim():
    """The attack is real: what stops it is that the rogue key can never be proven."""
    own, rogue_key = rogue()
    signature = own.sign(MESSAGE, domain=DOMAIN)
    bls.fast_aggregate_verify(
        [PROVEN[0], proven(rogue_key.encoded)], MESSAGE, signature, domain=DOMAIN
    )


@cheat("rogue key with the proof of the key behind it", BadPossession)
def _():
    own, rogue_key = rogue()
    ProvenKey(key=rogue_key, possession=own.prove_possession())


@cheat("rogue key with a signature over itself made by the key behind it", BadPossession)
def _():
    own, rogue_key = rogue()
    proof = own.core_sign(rogue_key.encoded, bls.POSSESSION_DST)
    ProvenKey(key=rogue_key, possession=Possession.from_point(proof))


@cheat("rogue key with the victim's proof subtracted from its own", BadPossession)
def _():
    own, rogue_key = rogue()
    group = curve.active().g2
    victims = group.combine([PROVEN[0].possession.point], [curve.ORDER - 1])
    proof = group.sum([own.prove_possession().point, victims])
    ProvenKey(key=rogue_key, possession=Possession.from_point(proof))


@cheat("missing proof of possession", TypeError)
def _():
    bls.fast_aggregate_verify([KEYS[0].public_key], MESSAGE, SIGNED[0], domain=DOMAIN)  # pyright: ignore


@cheat("missing proof of possession, among pairs", TypeError)
def _():
    bls.aggregate_verify([(KEYS[0].public_key, MESSAGE)], SIGNED[0], domain=DOMAIN)  # pyright: ignore


@cheat("subclass of a proven key that skips the check", TypeError)
def _():
    class Lenient(ProvenKey):
        def __post_init__(self):
            pass

    lenient = Lenient(key=rogue()[1], possession=PROVEN[0].possession)
    bls.fast_aggregate_verify([lenient], MESSAGE, SIGNED[0], domain=DOMAIN)


@cheat("replayed proof of possession of another key", BadPossession)
def _():
    ProvenKey(key=KEYS[1].public_key, possession=PROVEN[0].possession)


@cheat("proof of possession made for another registrant", BadPossession)
def _():
    proof = KEYS[0].prove_possession(b"chain 1 contract 2 registrant 3")
    ProvenKey(key=KEYS[0].public_key, possession=proof, binding=b"chain 1 contract 2 registrant 4")


@cheat("proof of possession used as a signature on the key", BadSignature)
def _():
    key = KEYS[0].public_key
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signatures, "framed", lambda message, domain: message)
        bls.verify(key, key.encoded, Signature(PROVEN[0].possession.encoded), domain=DOMAIN)


@cheat("proof of possession handed over as a signature", TypeError)
def _():
    bls.verify(KEYS[0].public_key, MESSAGE, PROVEN[0].possession, domain=DOMAIN)  # pyright: ignore


@cheat("signature on the key used as a proof of possession", BadPossession)
def _():
    key = KEYS[0].public_key
    point = KEYS[0].core_sign(key.encoded, bls.DST)
    ProvenKey(key=key, possession=Possession.from_point(point))


@cheat("infinity key that any infinity signature verifies", InvalidPoint)
def _():
    bls.verify(PublicKey(b"\xc0" + bytes(47)), MESSAGE, SIGNED[0], domain=DOMAIN)


@cheat("infinity signature", InvalidPoint)
def _():
    Signature(b"\xc0" + bytes(95))


@cheat("infinity proof of possession", InvalidPoint)
def _():
    Possession(b"\xc0" + bytes(95))


@cheat("empty set of signers", BadSigners)
def _():
    bls.fast_aggregate_verify([], MESSAGE, SIGNED[0], domain=DOMAIN)


@cheat("empty set of pairs", BadSigners)
def _():
    bls.aggregate_verify([], SIGNED[0], domain=DOMAIN)


def negated() -> SecretKey:
    return SecretKey(curve.ORDER - int.from_bytes(KEYS[0].encode(), "big"))


@cheat("two proven keys that cancel out", InfiniteAggregate)
def _():
    other = negated()
    pair = [
        PROVEN[0],
        ProvenKey(key=other.public_key, possession=other.prove_possession()),
    ]
    bls.fast_aggregate_verify(pair, MESSAGE, SIGNED[0], domain=DOMAIN)


@cheat("two signatures that cancel out", InfiniteAggregate)
def _():
    bls.aggregate([SIGNED[0], negated().sign(MESSAGE, domain=DOMAIN)])


@cheat("signer counted twice", BadSigners)
def _():
    total = bls.aggregate([SIGNED[0], SIGNED[0], SIGNED[1]])
    bls.fast_aggregate_verify([PROVEN[0], PROVEN[1], PROVEN[0]], MESSAGE, total, domain=DOMAIN)


@cheat("signer counted twice under another binding", BadSigners)
def _():
    again = ProvenKey(
        key=KEYS[0].public_key, possession=KEYS[0].prove_possession(b"2"), binding=b"2"
    )
    total = bls.aggregate([SIGNED[0], SIGNED[0]])
    bls.fast_aggregate_verify([PROVEN[0], again], MESSAGE, total, domain=DOMAIN)


@cheat("pair counted twice", BadSigners)
def _():
    total = bls.aggregate([SIGNED[0], SIGNED[0]])
    bls.aggregate_verify([(PROVEN[0], MESSAGE)] * 2, total, domain=DOMAIN)


@cheat("signer listed who did not sign", BadSignature)
def _():
    total = bls.aggregate(SIGNED[:4])
    bls.fast_aggregate_verify(PROVEN[:5], MESSAGE, total, domain=DOMAIN)


@cheat("signer left out who did sign", BadSignature)
def _():
    total = bls.aggregate(SIGNED[:4])
    bls.fast_aggregate_verify(PROVEN[:3], MESSAGE, total, domain=DOMAIN)


@cheat("signature of one domain under another", BadSignature)
def _():
    bls.verify(KEYS[0].public_key, MESSAGE, SIGNED[0], domain=b"verifiable/rotation/v1")


@cheat("byte moved from message to domain", BadSignature)
def _():
    bls.verify(KEYS[0].public_key, MESSAGE[1:], SIGNED[0], domain=DOMAIN + MESSAGE[:1])


@cheat("messages swapped between the pairs of an aggregate", BadSignature)
def _():
    total = bls.aggregate([KEYS[i].sign(bytes([i]), domain=DOMAIN) for i in range(2)])
    bls.aggregate_verify([(PROVEN[0], b"\1"), (PROVEN[1], b"\0")], total, domain=DOMAIN)


@cheat("errors that cancel within a batch", BadBatch)
def _():
    bls.verify_batch(shifted(entries(), {1: 1, 3: -1}), domain=DOMAIN)


@cheat("messages swapped within a batch", BadBatch)
def _():
    a, b, *rest = entries()
    bls.verify_batch(
        [
            SignedMessage(a.key, b.message, a.signature),
            SignedMessage(b.key, a.message, b.signature),
            *rest,
        ],
        domain=DOMAIN,
    )


@cheat("signatures swapped within a batch", BadBatch)
def _():
    a, b, *rest = entries()
    bls.verify_batch(
        [
            SignedMessage(a.key, a.message, b.signature),
            SignedMessage(b.key, b.message, a.signature),
            *rest,
        ],
        domain=DOMAIN,
    )


def torsion() -> Any:
    """Return a point of the curve of G2 whose order divides the cofactor: r times any point."""
    import py_arkworks_bls12381 as ark  # noqa: PLC0415

    for x in range(1, 100):
        try:
            point = ark.G2Point.from_compressed_bytes_unchecked(b"\x80" + x.to_bytes(95, "big"))
        except ValueError:
            continue
        small = point * ark.Scalar(curve.ORDER - 1) + point
        if small != ark.G2Point.identity():
            return small
    raise AssertionError("r times a random point is hardly ever infinity")


def test_small_order_parts_would_cancel():
    """The attack is real: the sum of the two tampered points is the honest aggregate."""
    part = torsion()
    a, b = (point_of(s) for s in SIGNED[:2])
    assert (a + part) + (b - part) == a + b


@cheat("small-order parts that cancel on aggregation", InvalidPoint)
def _():
    part = torsion()
    a, b = (point_of(s) for s in SIGNED[:2])
    tampered = [(a + part).to_compressed_bytes(), (b - part).to_compressed_bytes()]
    bls.aggregate([Signature(data) for data in tampered])


@pytest.mark.parametrize("case", CHEATS, ids=lambda f: f.name)
def test_cheats_are_refused(case: Cheat):
    with pytest.raises(case.expect):
        case.attack()


def test_errors_carry_both_sides():
    with pytest.raises(BadSignature, match="does not verify") as bad:
        bls.verify(KEYS[1].public_key, MESSAGE, SIGNED[0], domain=DOMAIN)
    assert bad.value.signature == SIGNED[0]
    assert bad.value.signed == ((KEYS[1].public_key, bls.framed(MESSAGE, DOMAIN)),)
    with pytest.raises(BadSigners, match="position 2") as signers:
        bls.fast_aggregate_verify(
            [PROVEN[0], PROVEN[1], PROVEN[0]], MESSAGE, SIGNED[0], domain=DOMAIN
        )
    assert (signers.value.reason, signers.value.index) == ("duplicate-signer", 2)
    with pytest.raises(BadBatch, match="2 of 4") as batch:
        bls.verify_batch(shifted(entries(), {1: 1, 3: -1}), domain=DOMAIN)
    assert batch.value.report.invalid == (1, 3)
