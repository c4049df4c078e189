"""Keys and proofs of possession: what they are made from, what they refuse and never show."""

import copy
import dataclasses
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py_ecc.bls import G2ProofOfPossession as Reference

from verifiable import bls
from verifiable.bls import (
    InvalidPoint,
    Possession,
    ProvenKey,
    PublicKey,
    SecretKey,
    Signature,
    curve,
)

ALICE, BOB = (SecretKey.generate(bytes([i]) * 32) for i in range(2))
DOMAIN = b"tests"


@settings(deadline=None, max_examples=20)
@given(entropy=st.binary(min_size=32, max_size=80), info=st.binary(max_size=40))
def test_keys_are_generated_as_in_the_draft(entropy: bytes, info: bytes):
    expected = Reference.KeyGen(entropy, info)
    key = SecretKey.generate(entropy, info=info)
    assert key.encode() == expected.to_bytes(32, "big")


def test_keys_and_proofs_are_those_of_py_ecc():
    scalar = int.from_bytes(ALICE.encode(), "big")
    assert ALICE.public_key.encoded == Reference.SkToPk(scalar)
    assert ALICE.prove_possession().encoded == Reference.PopProve(scalar)


def test_fresh_keys_differ():
    assert SecretKey.generate().encode() != SecretKey.generate().encode()


def test_short_entropy_is_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        SecretKey.generate(bytes(31))


def test_a_secret_key_survives_storage():
    assert SecretKey.decode(ALICE.encode()).public_key == ALICE.public_key


@pytest.mark.parametrize(
    "data",
    [bytes(32), curve.ORDER.to_bytes(32, "big"), b"\xff" * 32, b"", bytes(31) + b"\1\1"],
    ids=["zero", "the order", "above the order", "empty", "33 bytes"],
)
def test_what_is_no_secret_key_is_refused(data: bytes):
    with pytest.raises(ValueError, match="secret key"):
        SecretKey.decode(data)


@pytest.mark.parametrize("scalar", [1, curve.ORDER - 1])
def test_every_scalar_but_zero_is_a_secret_key(scalar: int):
    key = SecretKey(scalar)
    assert key.encode() == scalar.to_bytes(32, "big")
    bls.verify(key.public_key, b"m", key.sign(b"m", domain=DOMAIN), domain=DOMAIN)


def test_a_secret_key_does_not_show_itself():
    for shown in (repr(ALICE), str(ALICE), f"{ALICE}", repr([ALICE])):
        assert ALICE.encode().hex() not in shown
        assert str(int.from_bytes(ALICE.encode(), "big")) not in shown
        assert shown.strip("[]").startswith("SecretKey(of PublicKey(")


def test_a_secret_key_is_neither_copied_nor_compared():
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be copied"):
            leak(ALICE)
    twin = SecretKey.decode(ALICE.encode())
    assert twin != ALICE
    assert hash(twin) != hash(ALICE)
    assert not hasattr(ALICE, "__dict__")


POINTS = [ALICE.public_key, ALICE.sign(b"m", domain=DOMAIN), ALICE.prove_possession()]


@pytest.mark.parametrize("value", POINTS, ids=lambda v: type(v).__name__)
def test_points_are_values(value: PublicKey | Signature | Possession):
    kind = type(value)
    for twin in (kind(value.encoded), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):  # noqa: S301
        assert twin == value
        assert hash(twin) == hash(value)
        assert twin.affine() == value.affine()
        assert len(twin.affine()) == 2 * len(value.encoded)
    assert value.encoded.hex() in repr(value)
    for name in ("encoded", "point", "other"):
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
            setattr(value, name, b"")


@pytest.mark.parametrize("value", POINTS, ids=lambda v: type(v).__name__)
def test_no_bit_of_an_encoding_is_free(value: PublicKey | Signature | Possession):
    for bit in range(8 * len(value.encoded)):
        changed = bytearray(value.encoded)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert type(value)(bytes(changed)).affine() != value.affine()
        except InvalidPoint:
            continue


@pytest.mark.parametrize("kind", [PublicKey, Signature, Possession])
def test_infinity_is_none_of_them(kind: type):
    size = 48 if kind is PublicKey else 96
    with pytest.raises(InvalidPoint, match=f"infinity is not a {kind.__name__}"):
        kind(b"\xc0" + bytes(size - 1))
    state = (kind, (b"\xc0" + bytes(size - 1),))
    with pytest.raises(InvalidPoint):  # Unpickling calls the same constructor.
        state[0](*state[1])


@pytest.mark.parametrize(
    "data",
    ["80" * 48, bytearray(48), memoryview(bytes(96)), None, 7],
    ids=["text", "bytearray", "memoryview", "none", "int"],
)
def test_what_is_not_bytes_is_the_callers_mistake(data: object):
    for kind in (PublicKey, Signature, Possession):
        with pytest.raises(TypeError, match="encoded must be bytes"):
            kind(data)  # pyright: ignore


def test_signature_and_proof_of_the_same_bytes_differ():
    proof = ALICE.prove_possession()
    assert Signature(proof.encoded) != proof


def test_a_proof_makes_a_proven_key():
    binding = b"chain 1, contract 2, registrant 3"
    proven = ProvenKey(
        key=ALICE.public_key, possession=ALICE.prove_possession(binding), binding=binding
    )
    assert proven.key == ALICE.public_key
    assert pickle.loads(pickle.dumps(proven)) == proven  # noqa: S301


@settings(deadline=None, max_examples=25)
@given(made=st.binary(max_size=40), shown=st.binary(max_size=40))
def test_a_proof_binds_its_context(made: bytes, shown: bytes):
    proof = ALICE.prove_possession(made)
    if made == shown:
        ProvenKey(key=ALICE.public_key, possession=proof, binding=shown)
        return
    with pytest.raises(bls.BadPossession, match="does not prove possession of PublicKey") as caught:
        ProvenKey(key=ALICE.public_key, possession=proof, binding=shown)
    assert caught.value.key == ALICE.public_key
    assert caught.value.possession == proof
    assert caught.value.binding == shown


def test_what_carries_no_checks_makes_no_proven_key():
    proof = ALICE.prove_possession()
    signature = Signature(proof.encoded)
    for key, possession in [(ALICE, proof), (ALICE.public_key, signature), (proof, proof)]:
        with pytest.raises(TypeError, match="must be a"):
            ProvenKey(key=key, possession=possession)  # pyright: ignore


def test_domains_are_framed():
    assert bls.framed(b"message", b"ab") == b"\x02abmessage"
    assert bls.framed(b"", b"x" * 255) == b"\xff" + b"x" * 255
    for domain in (b"", b"x" * 256):
        with pytest.raises(ValueError, match="domain"):
            bls.framed(b"message", domain)


@given(
    a=st.tuples(st.binary(max_size=6), st.binary(min_size=1, max_size=6)),
    b=st.tuples(st.binary(max_size=6), st.binary(min_size=1, max_size=6)),
)
def test_framing_is_injective(a: tuple[bytes, bytes], b: tuple[bytes, bytes]):
    assert (bls.framed(*a) == bls.framed(*b)) == (a == b)


def test_neither_jax_nor_py_ecc_is_imported():
    code = (
        "import sys; from verifiable import bls; k = bls.SecretKey.generate(bytes(32));"
        "bls.verify(k.public_key, b'm', k.sign(b'm', domain=b'd'), domain=b'd');"
        "sys.exit(' '.join({'jax', 'numpy', 'py_ecc'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stderr) == (0, "")


# ------------------------------------------------------- proofs that a contract checks (EIP-2537)


@pytest.mark.parametrize("value", POINTS, ids=lambda v: type(v).__name__)
def test_eip_2537_pads_each_number_to_64_bytes(value: PublicKey | Signature | Possession):
    padded, numbers = value.eip2537(), value.affine()
    assert len(padded) == {48: 128, 96: 256}[len(value.encoded)]
    assert [padded[i : i + 16] for i in range(0, len(padded), 64)] == [bytes(16)] * (
        len(padded) // 64
    )
    assert b"".join(padded[i + 16 : i + 64] for i in range(0, len(padded), 64)) == numbers


@settings(deadline=None, max_examples=20)
@given(
    binding=st.binary(max_size=40), domain=st.binary(min_size=1, max_size=127), change=st.binary()
)
def test_a_proof_with_a_domain_holds_in_it_alone(binding: bytes, domain: bytes, change: bytes):
    key, proof = ALICE.public_key, ALICE.prove_possession(binding, domain=domain)
    proven = ProvenKey(key=key, possession=proof, binding=binding, domain=domain)
    assert pickle.loads(pickle.dumps(proven)) == proven  # noqa: S301
    wrong = {(binding, b""), (binding + b"\0", domain), (binding, domain[:-1])}
    # The boundary between domain and binding cannot move, nor one form pass for the other.
    wrong |= {(domain[-1:] + binding, domain[:-1]), (ALICE.public_key.eip2537() + binding, b"")}
    wrong |= {(binding, change[:127]), (change, domain)}
    for other, place in wrong - {(binding, domain)}:
        with pytest.raises(bls.BadPossession):
            ProvenKey(key=key, possession=proof, binding=other, domain=place)
    with pytest.raises(bls.BadPossession):
        ProvenKey(key=BOB.public_key, possession=proof, binding=binding, domain=domain)


def test_both_libraries_prove_for_a_contract_alike():
    proof = ALICE.prove_possession(b"binding", domain=b"domain")
    padded = ALICE.public_key.eip2537()
    with curve.using(curve.PyEcc()):
        twin = SecretKey.decode(ALICE.encode())
        assert twin.public_key.eip2537() == padded
        again = twin.prove_possession(b"binding", domain=b"domain")
        assert again == proof
        ProvenKey(key=twin.public_key, possession=again, binding=b"binding", domain=b"domain")


def test_the_domain_of_a_proof_has_at_most_127_bytes():
    """Its length must leave the first bit to compressed keys."""
    ALICE.prove_possession(domain=b"d" * 127)
    with pytest.raises(ValueError, match="127"):
        ALICE.prove_possession(domain=b"d" * 128)
