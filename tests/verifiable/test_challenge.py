"""Challenges: the order that they enforce, what enters them, and what is drawn from them."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from tests.helpers import p_values
from verifiable import encoding, merkle
from verifiable.challenge import Beacon, Challenge, ClosedLog, CommitmentLog, public, secret
from verifiable.errors import RootMismatch
from verifiable.field import F61

SEED = bytes(range(32))
IDS: dict[str, bytes] = {"program": b"p" * 32, "policy": b"q" * 32, "parameters": b"w" * 32}
labels = st.text(max_size=20)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def closed(count: int = 3, *, chain: str = "drand", closed_at: int = 100) -> ClosedLog:
    log = CommitmentLog()
    for i in range(count):
        log.append(digest(i))
    return log.close(chain=chain, closed_at=closed_at)


def beacon(**changes: Any) -> Beacon:
    return Beacon(**({"chain": "drand", "round": 101, "value": b"v" * 32} | changes))


# ---------------------------------------------------------------------------------------- order


def test_a_closed_log_takes_no_more():
    log = CommitmentLog()
    assert [log.append(digest(i)) for i in range(3)] == [0, 1, 2]
    binding = log.close(chain="drand", closed_at=7)
    assert binding == ClosedLog(
        root=merkle.root_from_leaf_data([digest(i) for i in range(3)]),
        size=3,
        chain="drand",
        closed_at=7,
    )
    with pytest.raises(ValueError, match="log is closed"):
        log.append(digest(4))
    assert log.append(digest(1)) == 1
    with pytest.raises(ValueError, match="closed already"):
        log.close(chain="drand", closed_at=8)


def test_places_are_proven_once_the_log_is_closed():
    log = CommitmentLog()
    for i in range(5):
        log.append(digest(i))
    with pytest.raises(ValueError, match="log is open"):
        log.places([digest(0)])
    binding = log.close(chain="drand", closed_at=7)
    places = log.places([digest(3), digest(0)])
    assert [place.index for place in places] == [3, 0]
    for place, number in zip(places, (3, 0), strict=True):
        place.verify(digest(number), binding)
        with pytest.raises(RootMismatch):
            place.verify(digest(1), binding)
    with pytest.raises(ValueError, match=f"does not hold {digest(5).hex()}"):
        log.places([digest(0), digest(5)])


def test_an_empty_log_binds_nothing():
    with pytest.raises(ValueError, match="empty"):
        CommitmentLog().close(chain="drand", closed_at=7)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_log_takes_digests_only(length: int):
    with pytest.raises(ValueError, match="32 bytes"):
        CommitmentLog().append(bytes(length))


def test_what_is_appended_later_changed_does_not_change():
    """A caller's buffer that changes after the call would change what was committed."""
    data = bytearray(digest(1))
    log = CommitmentLog()
    log.append(data)  # type: ignore[arg-type]
    data[0] = 255
    assert log.close(chain="drand", closed_at=1).root == merkle.root_from_leaf_data([digest(1)])


def test_limits_of_a_beacon_belong_to_it():
    for value in (bytes(16), bytes(1024)):
        assert beacon(value=value, round=0).value == value
    for value in (bytes(15), bytes(1025)):
        with pytest.raises(ValueError, match="16 to 1024 bytes"):
            beacon(value=value)


@pytest.mark.parametrize("round_", [0, 99, 100])
def test_a_round_that_was_known_when_the_log_closed_is_refused(round_: int):
    with pytest.raises(ValueError, match="known when the log closed"):
        public(closed(), beacon(round=round_), **IDS)


def test_another_beacon_is_refused():
    with pytest.raises(ValueError, match="waits for beacon 'drand', got 'other'"):
        public(closed(), beacon(chain="other"), **IDS)


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("length", [0, 31, 33])
def test_ids_have_32_bytes(name: str, length: int):
    with pytest.raises(ValueError, match=f"{name} must be 32 bytes"):
        public(closed(), beacon(), **(IDS | {name: bytes(length)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chain": ""}, "name of its chain"),
        ({"round": -1}, "negative"),
        ({"value": b"short"}, "16 to 1024"),
        ({"value": bytes(1025)}, "16 to 1024"),
    ],
)
def test_a_beacon_that_is_none_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        beacon(**changes)


@pytest.mark.parametrize("length", [0, 8, 31, 33])
def test_a_seed_has_256_bits(length: int):
    with pytest.raises(ValueError, match="32 bytes"):
        secret(bytes(length))


@pytest.mark.parametrize("seed", [32, "a" * 32, [0] * 32])
def test_a_seed_is_of_bytes(seed: Any):
    """`bytes(32)` of the number 32 would be a seed that everybody knows."""
    with pytest.raises(TypeError, match="seed must be 32 bytes, got"):
        secret(seed)


# ---------------------------------------------------------------------------------- what enters


@dataclass(frozen=True)
class Change:
    """Something that a public seed depends on, changed."""

    name: str
    make: Callable[[], Challenge]


def with_id(name: str) -> Callable[[], Challenge]:
    other = IDS[name][:-1] + b"\0"
    return lambda: public(closed(), beacon(), **(IDS | {name: other}))


CHANGES = [
    Change("one more commitment", lambda: public(closed(4), beacon(), **IDS)),
    Change("one fewer commitment", lambda: public(closed(2), beacon(), **IDS)),
    Change(
        "another size with the same root",
        lambda: public(dataclasses.replace(closed(), size=4), beacon(), **IDS),
    ),
    Change(
        "another root of the same size",
        lambda: public(dataclasses.replace(closed(), root=digest(9)), beacon(), **IDS),
    ),
    Change("a later round", lambda: public(closed(), beacon(round=102), **IDS)),
    Change(
        "another beacon's value", lambda: public(closed(), beacon(value=b"v" * 31 + b"w"), **IDS)
    ),
    Change("a longer value", lambda: public(closed(), beacon(value=b"v" * 33), **IDS)),
    Change(
        "another chain",
        lambda: public(closed(chain="other"), beacon(chain="other"), **IDS),
    ),
    *(Change(f"another {name}", with_id(name)) for name in IDS),
    Change("program and policy swapped", lambda: public(closed(), beacon(), **swapped())),
]


def swapped() -> dict[str, bytes]:
    return IDS | {"program": IDS["policy"], "policy": IDS["program"]}


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.name)
def test_every_input_of_a_public_seed_matters(change: Change):
    ours, theirs = public(closed(), beacon(), **IDS), change.make()
    assert ours.id != theirs.id
    assert not np.any(ours.normals("x", (8,)) == theirs.normals("x", (8,)))


def test_a_public_challenge_is_the_same_for_all():
    """The hash over the parts that the text lists, each after its length."""
    log, value = closed(), beacon()
    place = encoding.encode([log.size, value.chain, value.round])
    parts = [*IDS.values(), log.root, place, value.value]
    hasher = blake3(derive_key_context="verifiable v1 public challenge")
    for part in parts:
        hasher.update(struct.pack("<Q", len(part)) + part)
    want = blake3(hasher.digest(), derive_key_context="verifiable v1 draws")
    words = struct.unpack("<8Q", want.update(b"residue/x").digest(length=64))
    pairs = zip(words[::2], words[1::2], strict=True)
    got = public(log, value, **IDS).residues("x", (4,))
    assert got.tolist() == [(high * 2**64 + low) % F61.p for high, low in pairs]


def test_when_the_log_closed_is_public_but_cannot_be_ground():
    """Which of the rounds before the beacon's it closed in is no input of the seed."""
    early, late = (public(closed(closed_at=n), beacon(), **IDS) for n in (5, 100))
    assert early.id == late.id


def test_a_secret_is_fresh_unless_given():
    assert secret(SEED).id == secret(SEED).id
    assert len({secret().id for _ in range(8)} | {secret(SEED).id}) == 9


def test_a_secret_and_a_public_challenge_never_share_a_seed():
    ours = public(closed(), beacon(), **IDS)
    assert secret(ours._seed).id != ours.id


def test_two_exact_draws_where_the_seed_can_be_ground():
    assert secret(SEED).exact_draws == 1
    assert public(closed(), beacon(), **IDS).exact_draws == 2


# ------------------------------------------------------------------------------------- secrecy


@pytest.mark.parametrize("made", [secret(SEED), public(closed(), beacon(), **IDS)], ids=str)
def test_the_seed_is_never_shown(made: Challenge):
    seed = made._seed
    assert len(seed) == 32
    for text in (repr(made), str(made), f"{made}", repr([made]), repr({"c": made})):
        assert seed.hex() not in text
        assert repr(seed)[2:-1] not in text
        assert re.search(r"seed", text) is None
    assert seed not in made.id
    assert made.id != seed


def test_the_id_reveals_no_draw():
    made = secret(SEED)
    stream = blake3(made.id, derive_key_context="verifiable v1 draws").update(b"residue/x")
    words = np.frombuffer(stream.digest(length=64), "<u8")
    assert not set(words.tolist()) & set(made.residues("x", (8,)).tolist())


def test_challenges_are_compared_by_identity():
    """So that no comparison of seeds leaks its time."""
    assert secret(SEED) != secret(SEED)


def test_a_challenge_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        secret(SEED).public = True  # type: ignore[misc]


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_challenge_is_not_copied_or_pickled(leak: Callable[[Any], Any]):
    for made in (secret(SEED), public(closed(), beacon(), **IDS)):
        for value in (made, [made], {"challenge": made}):
            if leak is not copy.copy or value is made:
                with pytest.raises(TypeError, match="to_bytes"):
                    leak(value)


@pytest.mark.parametrize("made", [secret(SEED), public(closed(), beacon(), **IDS)], ids=str)
def test_a_challenge_survives_its_bytes(made: Challenge):
    data = made.to_bytes()
    again = Challenge.from_bytes(data)
    assert (again.public, again.id, again.to_bytes()) == (made.public, made.id, data)
    assert np.array_equal(again.normals("x", (8,)), made.normals("x", (8,)))


@pytest.mark.parametrize("data", [b"", bytes(32), bytes(34), b"\2" + bytes(32)], ids=len)
def test_other_bytes_are_no_challenge(data: bytes):
    with pytest.raises(ValueError, match="33 bytes"):
        Challenge.from_bytes(data)


# --------------------------------------------------------------------------------------- draws


def words(made: Challenge, name: str, count: int) -> list[int]:
    hasher = blake3(made._seed, derive_key_context="verifiable v1 draws").update(name.encode())
    return list(struct.unpack(f"<{count}Q", hasher.digest(length=8 * count)))


@given(label=labels, shape=shapes, seed=st.binary(min_size=32, max_size=32))
@settings(max_examples=40, deadline=None)
def test_residues_against_python_integers(label: str, shape: tuple[int, ...], seed: bytes):
    made = secret(seed)
    got = made.residues(label, shape)
    assert got.dtype == np.uint64
    assert got.shape == shape
    stream = iter(words(made, f"residue/{label}", 2 * math.prod(shape)))
    want = [(high * 2**64 + low) % F61.p for high, low in zip(stream, stream, strict=True)]
    assert got.reshape(-1).tolist() == want


@given(label=labels, shape=shapes, seed=st.binary(min_size=32, max_size=32))
@settings(max_examples=40, deadline=None)
def test_normals_against_the_standard_library(label: str, shape: tuple[int, ...], seed: bytes):
    made = secret(seed)
    got = made.normals(label, shape)
    assert got.dtype == np.float64
    assert got.shape == shape
    inverse = NormalDist().inv_cdf
    want = [
        inverse(((w >> 11) + 0.5) / 2**53) for w in words(made, f"normal/{label}", math.prod(shape))
    ]
    np.testing.assert_allclose(got.reshape(-1), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("word", [0, 1, 2**11, 2**63, 2**64 - 2**11 - 1, 2**64 - 1])
def test_normals_are_finite_whatever_the_stream_holds(word: int, monkeypatch: pytest.MonkeyPatch):
    def stream(_self: Challenge, _label: str, size: int) -> np.ndarray:
        return np.full(size, word, np.uint64)

    monkeypatch.setattr(Challenge, "_stream", stream)
    drawn = secret(SEED).normals("x", (2,))
    assert np.all(np.isfinite(drawn))
    assert np.all(np.abs(drawn) < 9)


@pytest.mark.parametrize("high", [0, 1, F61.p - 1, F61.p, 2**63, 2**64 - 1])
@pytest.mark.parametrize("low", [0, 1, F61.p - 1, F61.p, 2**63, 2**64 - 1])
def test_residues_are_below_p_whatever_the_stream_holds(
    high: int, low: int, monkeypatch: pytest.MonkeyPatch
):
    def stream(_self: Challenge, _label: str, size: int) -> np.ndarray:
        return np.array([high, low] * (size // 2), np.uint64)

    monkeypatch.setattr(Challenge, "_stream", stream)
    [drawn] = secret(SEED).residues("x", (1,)).tolist()
    assert drawn == (high * 2**64 + low) % F61.p < F61.p


@given(a=labels, b=labels)
def test_streams_of_different_labels_are_independent(a: str, b: str):
    made = secret(SEED)
    same = np.array_equal(made.residues(a, (4,)), made.residues(b, (4,)))
    assert same == (a == b)


def test_normals_and_residues_do_not_share_a_stream():
    made = secret(SEED)
    assert words(made, "normal/x", 4) != words(made, "residue/x", 4)
    uniform = ndtr(made.normals("x", (64,)))
    residues = made.residues("x", (64,)) / F61.p
    assert not np.any(np.isclose(uniform, residues, atol=1e-6))


def test_a_longer_set_extends_a_shorter_one_only_under_its_label():
    """Sets are named by their size, so this prefix is never shared by two sets of one key."""
    made = secret(SEED)
    assert np.array_equal(made.normals("x", (4,)), made.normals("x", (9,))[:4])
    assert not np.any(made.normals("x/4", (4,)) == made.normals("x/9", (9,))[:4])


COUNT = 1 << 17


def test_normals_are_normal():
    """Moments within five of their standard errors, and Kolmogorov-Smirnov, on a fixed seed."""
    drawn = secret(SEED).normals("moments", (COUNT,))
    for order, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert np.mean(drawn**order) == pytest.approx(moment, abs=5 * math.sqrt(variance / COUNT))
    assert p_values.normal(drawn) > 1e-3
    # Successive draws do not depend on one another.
    assert abs(np.mean(drawn[1:] * drawn[:-1])) < 5 / math.sqrt(COUNT)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_residues_are_uniform_in_their_low_and_high_bits(bits: int):
    drawn = secret(SEED).residues("uniform", (COUNT,))
    assert np.all(drawn < F61.p)
    low = np.bincount((drawn & np.uint64(2**bits - 1)).astype(np.int64), minlength=2**bits)
    high = np.bincount((drawn >> np.uint64(61 - bits)).astype(np.int64), minlength=2**bits)
    for counts in (low, high):
        assert p_values.chisquare(counts) > 1e-3


def test_a_seed_for_another_purpose_is_one_of_its_label():
    made = secret(bytes(32))
    assert made.derive("audit") == secret(bytes(32)).derive("audit")
    labelled = encoding.tagged_hash("challenge derive", made._seed, b"audit")
    assert made.derive("audit") == labelled
    others = {made.derive("audits"), secret(bytes([1] * 32)).derive("audit"), made.id}
    assert len(made.derive("audit")) == 32 and made.derive("audit") not in others
