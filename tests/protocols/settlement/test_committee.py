"""Committees: ids, bitmaps, quorums, and registrations that prove possession."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.settlement.committee import (
    MAX_MEMBERS,
    REGISTRATION_DOMAIN,
    Committee,
    Member,
    prove_registration,
    registered_key,
    registration_binding,
)
from protocols.settlement.statements import (
    Deployment,
    SettlementError,
)
from tests.helpers.committees import (
    CHAIN,
    ELSEWHERE,
    FOUR,
    NEXT,
    REGISTRANT,
    STRANGER,
    committee,
    key,
    secret,
)
from verifiable import bls
from verifiable.bls import (
    BadPossession,
    BadSignature,
    Possession,
    ProvenKey,
    PublicKey,
    SecretKey,
    Signature,
    curve,
)


def test_the_id_of_a_committee_is_a_hash_of_words():
    """From the text: count, then for each member 128 bytes of key and its weight."""
    weighted = committee((3, 1, 2**64 - 1))
    data = (3).to_bytes(32, "big")
    for member in weighted.members:
        x, y = member.key.key.affine()[:48], member.key.key.affine()[48:]
        data += bytes(16) + x + bytes(16) + y + member.weight.to_bytes(32, "big")
    assert weighted.id == hashlib.sha256(data).digest()
    assert len({FOUR.id, weighted.id, committee((3, 1, 1)).id, NEXT.id}) == 4


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 17), st.data())
def test_bitmaps_name_members(n: int, data: st.DataObject):
    of = committee((1,) * n, first=100)
    chosen = data.draw(st.sets(st.integers(0, n - 1)))
    bitmap = of.bitmap(chosen)
    assert of.signers(bitmap) == tuple(sorted(chosen))
    assert len(bitmap) == -(-n // 8)
    assert [bool(bitmap[i // 8] >> i % 8 & 1) for i in range(n)] == [i in chosen for i in range(n)]
    with pytest.raises(SettlementError) as longer:
        of.signers(bitmap + b"\0")
    assert longer.value.reason == "bitmap-length"
    for nobody in (n, -1):
        with pytest.raises(ValueError, match="no member"):
            of.bitmap([nobody])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=9), st.data())
def test_a_quorum_is_more_than_two_thirds(weights: list[int], data: st.DataObject):
    of = committee(tuple(weights), first=100)
    chosen = data.draw(st.lists(st.integers(0, len(weights) - 1)))
    share = Fraction(sum(weights[i] for i in set(chosen)), sum(weights))
    assert of.has_quorum(chosen) == (share > Fraction(2, 3))


def test_exactly_two_thirds_are_no_quorum():
    three = committee((1, 1, 1))
    assert not three.has_quorum([0, 1])
    assert three.has_quorum([0, 1, 2])
    assert not three.has_quorum([0, 0, 0, 1])


def members(*numbers: int, deployment: Deployment = CHAIN) -> list[Member]:
    return [Member(key=key(i, deployment), weight=1) for i in numbers]


def opposite(number: int) -> SecretKey:
    """The secret whose public key is minus this one's."""
    return SecretKey(curve.ORDER - int.from_bytes(secret(number).encode(), "big"))


def bound(binding: bytes, by: SecretKey | None = None) -> ProvenKey:
    """A key with a valid proof over a binding of its holder's choice."""
    by = by or secret(0)
    return ProvenKey(
        key=by.public_key,
        possession=by.prove_possession(binding, domain=REGISTRATION_DOMAIN),
        binding=binding,
        domain=REGISTRATION_DOMAIN,
    )


BAD_COMMITTEES: dict[str, tuple[str, Callable[[], Committee]]] = {
    "no member": ("no-members", lambda: Committee.of(CHAIN, [])),
    "a key twice, to double its weight": (
        "duplicate-key",
        lambda: Committee.of(CHAIN, members(0, 1, 0)),
    ),
    "a replayed proof under another weight": (
        "duplicate-key",
        lambda: Committee.of(CHAIN, [Member(key=key(0), weight=5), *members(0, 1)]),
    ),
    "out of order": (
        "unordered-members",
        lambda: Committee(deployment=CHAIN, members=FOUR.members[::-1]),
    ),
    "registered on another chain": (
        "unregistered-key",
        lambda: Committee.of(CHAIN, members(0, 1, deployment=ELSEWHERE)),
    ),
    "a proof of the draft, which binds nothing": (
        "unregistered-key",
        lambda: Committee.of(
            CHAIN,
            [
                Member(
                    key=ProvenKey(
                        key=secret(0).public_key, possession=secret(0).prove_possession()
                    ),
                    weight=1,
                )
            ],
        ),
    ),
    "a registration that binds more than its registrant": (
        "unregistered-key",
        lambda: Committee.of(
            CHAIN, [Member(key=bound(registration_binding(CHAIN, REGISTRANT) + b"\0"), weight=1)]
        ),
    ),
    "a registration without a registrant": (
        "unregistered-key",
        lambda: Committee.of(CHAIN, [Member(key=bound(CHAIN.words), weight=1)]),
    ),
    "a registrant wider than an address": (
        "unregistered-key",
        lambda: Committee.of(
            CHAIN, [Member(key=bound(CHAIN.words + b"\1" * 12 + REGISTRANT), weight=1)]
        ),
    ),
    "members of two registrants, whom no account can stage together": (
        "other-registrant",
        lambda: Committee.of(
            CHAIN, [*members(0, 1), Member(key=key(2, CHAIN, STRANGER), weight=1)]
        ),
    ),
    "keys that add up to infinity": (
        "infinite-key",
        lambda: Committee.of(
            CHAIN,
            [
                *members(0),
                Member(key=bound(registration_binding(CHAIN, REGISTRANT), opposite(0)), weight=1),
            ],
        ),
    ),
    "the right binding in the draft's form": (
        "unregistered-key",
        lambda: Committee.of(
            CHAIN,
            [
                Member(
                    key=ProvenKey(
                        key=secret(0).public_key,
                        possession=secret(0).prove_possession(
                            registration_binding(CHAIN, REGISTRANT)
                        ),
                        binding=registration_binding(CHAIN, REGISTRANT),
                    ),
                    weight=1,
                )
            ],
        ),
    ),
}


@pytest.mark.parametrize("name", BAD_COMMITTEES)
def test_a_malformed_committee_cannot_be_built(name: str):
    expected, build = BAD_COMMITTEES[name]
    with pytest.raises(SettlementError) as raised:
        build()
    assert raised.value.reason == expected


def test_a_committee_names_the_account_that_must_send_its_calls():
    assert FOUR.registrant == REGISTRANT
    assert (
        Committee.of(CHAIN, [Member(key=key(0, CHAIN, STRANGER), weight=1)]).registrant == STRANGER
    )


def test_a_committee_is_shown_by_what_it_is_made_of():
    shown = repr(FOUR)
    assert "registrant=" in shown
    assert "total" not in shown


def test_a_committee_has_at_most_256_members():
    crowd = [FOUR.members[0]] * (MAX_MEMBERS + 1)
    with pytest.raises(SettlementError) as raised:
        Committee(deployment=CHAIN, members=tuple(crowd))
    assert raised.value.reason == "too-many-members"
    with pytest.raises(SettlementError) as raised:
        Committee(deployment=CHAIN, members=tuple(crowd[:256]))
    assert raised.value.reason == "duplicate-key"


@pytest.mark.parametrize("weight", [0, -1, 2**64, 1.0, True])
def test_weights_are_positive_integers(weight: Any):
    with pytest.raises(ValueError, match="weight"):
        Member(key=key(0), weight=weight)


def test_a_bare_key_is_no_member():
    with pytest.raises(TypeError, match="ProvenKey"):
        Member(key=secret(0).public_key, weight=1)  # pyright: ignore[reportArgumentType]


def negated(public: PublicKey) -> PublicKey:
    group = curve.active().g1
    return PublicKey.from_point(group.combine([public.point], [curve.ORDER - 1]))


def rogue() -> ProvenKey:
    """x·g minus the others' keys: the holder of x could sign alone in all names."""
    group = curve.active().g1
    others = [negated(key(i).key).point for i in (1, 2, 3)]
    own = PublicKey.from_point(group.sum([secret(0).public_key.point, *others]))
    proof = prove_registration(secret(0), CHAIN, REGISTRANT)
    return registered_key(own, proof, CHAIN, REGISTRANT)


REGISTRATIONS: dict[str, Callable[[], ProvenKey]] = {
    "rogue key": rogue,
    "another's proof": lambda: registered_key(
        secret(1).public_key, key(0).possession, CHAIN, REGISTRANT
    ),
    "registered on another chain": lambda: registered_key(
        secret(0).public_key, key(0, ELSEWHERE).possession, CHAIN, REGISTRANT
    ),
    "registered at another contract": lambda: registered_key(
        secret(0).public_key,
        key(0).possession,
        Deployment(chain_id=CHAIN.chain_id, contract=b"\xc1" * 20),
        REGISTRANT,
    ),
    "replayed by another registrant": lambda: registered_key(
        secret(0).public_key, key(0).possession, CHAIN, STRANGER
    ),
    "a proof of the draft's form": lambda: registered_key(
        secret(0).public_key,
        secret(0).prove_possession(registration_binding(CHAIN, REGISTRANT)),
        CHAIN,
        REGISTRANT,
    ),
    "a signature used as a proof": lambda: registered_key(
        secret(0).public_key,
        Possession(
            secret(0)
            .sign(
                secret(0).public_key.eip2537() + registration_binding(CHAIN, REGISTRANT),
                domain=REGISTRATION_DOMAIN,
            )
            .encoded
        ),
        CHAIN,
        REGISTRANT,
    ),
}


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_a_registration_proves_possession_here_and_now(name: str):
    with pytest.raises(BadPossession):
        REGISTRATIONS[name]()


def test_the_registration_proof_is_over_what_a_contract_reads():
    x, y = secret(0).public_key.affine()[:48], secret(0).public_key.affine()[48:]
    words = (31337).to_bytes(32, "big") + bytes(12) + CHAIN.contract + bytes(12) + REGISTRANT
    message = b"\x19verifiable registration 1" + bytes(16) + x + bytes(16) + y + words
    point = secret(0).core_sign(message, bls.POSSESSION_DST)
    assert Possession.from_point(point) == key(0).possession


def test_a_proof_of_possession_is_no_signature():
    proof = Signature(key(0).possession.encoded)
    message = key(0).key.eip2537() + key(0).binding
    with pytest.raises(BadSignature):
        bls.verify(key(0).key, message, proof, domain=REGISTRATION_DOMAIN)


def test_domains_of_proofs_are_short():
    with pytest.raises(ValueError, match="127"):
        secret(0).prove_possession(domain=b"d" * 128)
    with pytest.raises(ValueError, match="registrant"):
        registration_binding(CHAIN, b"\1" * 32)
