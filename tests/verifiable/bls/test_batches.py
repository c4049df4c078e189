"""Batch verification of BLS signatures: which are named, with what probability, at what cost."""

import dataclasses
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.p_values import binomial
from tests.helpers.signers import (
    DOMAIN,
    KEYS,
    accepted,
    cheap,
    entries,
    shifted,
)
from verifiable import bls
from verifiable.bls import (
    BadBatch,
    BatchReport,
    SignedMessage,
    curve,
    signatures,
)


@cheap(40)
@given(data=st.data())
def test_a_batch_names_what_a_loop_names(data: st.DataObject):
    """Any mixture of shared keys and messages, with any signatures spoilt, errors cancelling."""
    size = data.draw(st.integers(1, 12))
    shape = st.tuples(st.integers(0, 3), st.integers(0, 3))
    batch = []
    for who, what in data.draw(st.lists(shape, min_size=size, max_size=size)):
        message = bytes([what])
        batch.append(
            SignedMessage(KEYS[who].public_key, message, KEYS[who].sign(message, domain=DOMAIN))
        )
    spoilt = data.draw(st.dictionaries(st.integers(0, size - 1), st.sampled_from([1, -1, 2])))
    batch = shifted(batch, spoilt)
    looped = [
        i
        for i, e in enumerate(batch)
        if not accepted(lambda e=e: bls.verify(e.key, e.message, e.signature, domain=DOMAIN))
    ]
    report = bls.find_invalid(batch, domain=DOMAIN)
    assert report.invalid == tuple(looped) == tuple(sorted(spoilt))
    assert report.size == size
    assert report.bound == report.tests / (2**128 - 1)
    assert (report.tests == 0) == (size == 1)


def test_what_was_verified_is_reported():
    report = BatchReport(size=4, invalid=(), tests=1, bound=1 / (2**128 - 1))
    assert bls.verify_batch(entries(), domain=DOMAIN) == report


def test_an_empty_batch_is_refused():
    for check in (bls.find_invalid, bls.verify_batch):
        with pytest.raises(ValueError, match="empty"):
            check([], domain=DOMAIN)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", KEYS[0]),
        ("key", KEYS[0].public_key.encoded),
        ("message", "text"),
        ("message", bytearray(1)),
        ("signature", KEYS[0].prove_possession()),
        ("signature", KEYS[0].prove_possession().encoded),
    ],
)
def test_an_entry_of_another_type_is_the_callers_mistake(field: str, value: Any):
    with pytest.raises(TypeError, match=f"{field} must be "):
        dataclasses.replace(entries(1)[0], **{field: value})


def test_weights_decide_with_the_stated_probability(monkeypatch: pytest.MonkeyPatch):
    """With weights of 1 … 15, errors D and -D cancel iff the weights agree: once in 15."""
    monkeypatch.setattr(signatures, "WEIGHT_BITS", 4)
    framed = [
        (e.key, bls.framed(e.message, DOMAIN), e.signature)
        for e in shifted(entries(2), {0: 1, 1: -1})
    ]
    hashed = {m: curve.active().hash_to_g2(m, bls.DST) for _, m, _ in framed}
    runs = 600
    passed = sum(signatures._weighted_equation(framed, hashed) for _ in range(runs))
    assert binomial(passed, runs, 1 / 15) > 1e-6
    report = bls.find_invalid(entries(2), domain=DOMAIN)
    assert report.bound == 1 / 15


def test_chance_never_names_a_valid_signature(monkeypatch: pytest.MonkeyPatch):
    """With weights of 1 … 3 the left half often holds by chance; the right one is innocent."""
    monkeypatch.setattr(signatures, "WEIGHT_BITS", 2)
    batch = shifted(entries(4), {0: 1, 1: -1})
    named = [bls.find_invalid(batch, domain=DOMAIN).invalid for _ in range(60)]
    assert set(named) == {(), (0, 1)}


def test_weights_are_fresh_nonzero_and_of_full_size(monkeypatch: pytest.MonkeyPatch):
    drawn: list[int] = []
    real = secrets.randbelow
    monkeypatch.setattr(signatures.secrets, "randbelow", lambda n: drawn.append(n) or real(n))
    bls.verify_batch(entries(), domain=DOMAIN)
    bls.verify_batch(entries(), domain=DOMAIN)
    assert drawn == [2**128 - 1] * 8
    monkeypatch.setattr(signatures.secrets, "randbelow", lambda n: 0)
    with pytest.raises(BadBatch):  # Even the smallest weights are not 0.
        bls.verify_batch(shifted(entries(), {2: 1}), domain=DOMAIN)


@pytest.mark.parametrize(("drawn", "weight"), [(0, 1), (2**128 - 2, 2**128 - 1)])
def test_the_least_and_the_greatest_weight(
    drawn: int, weight: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(signatures.secrets, "randbelow", lambda n: drawn)
    batch, watched, weights = entries(), curve.Arkworks(), list[int]()
    combine = watched.g2.combine
    monkeypatch.setattr(
        watched.g2, "combine", lambda points, by: weights.extend(by) or combine(points, by)
    )
    with curve.using(watched):
        bls.verify_batch(batch, domain=DOMAIN)
    assert weights == [weight] * 4


class Counting(curve.Arkworks):
    """Counts the pairings on the left side of the equation."""

    def __init__(self):
        super().__init__()
        self.sizes: list[int] = []

    def pairing_equation(self, ps: Sequence[Any], qs: Sequence[Any], s: Any, /) -> bool:
        self.sizes.append(len(ps))
        return super().pairing_equation(ps, qs, s)


def sized(
    count: int, key: Callable[[int], int], message: Callable[[int], int]
) -> list[SignedMessage]:
    pairs = [(KEYS[key(i)], message(i).to_bytes(2, "big")) for i in range(count)]
    return [SignedMessage(k.public_key, m, k.sign(m, domain=DOMAIN)) for k, m in pairs]


@pytest.mark.parametrize(
    ("key", "message", "pairings"),
    [
        (lambda i: i % 8, lambda i: 0, 1),
        (lambda i: 0, lambda i: i, 1),
        (lambda i: i // 8, lambda i: i, 8),
        (lambda i: i % 8, lambda i: i // 8, 8),
        (lambda i: 0 if i < 32 else i % 8, lambda i: i if i < 32 else 99, 2),
    ],
    ids=["one message", "one key", "eight of each key", "grid", "one key and one message"],
)
def test_what_is_shared_is_paired_once(key: Any, message: Any, pairings: int):
    counting = Counting()
    batch = sized(64, key, message)
    with curve.using(counting):
        bls.verify_batch(batch, domain=DOMAIN)
    assert counting.sizes == [pairings]


def test_what_is_shared_as_often_as_its_signer_is_paired_with_the_message():
    counting = Counting()
    batch = sized(5, [0, 0, 1, 2, 3].__getitem__, [0, 1, 0, 1, 1].__getitem__)
    with curve.using(counting):
        bls.verify_batch(batch, domain=DOMAIN)
    assert counting.sizes == [2]


@pytest.mark.parametrize(("spoilt", "tests"), [(0, 5), (3, 4), (4, 4), (7, 3)])
def test_a_half_whose_sibling_passes_is_not_tested(spoilt: int, tests: int):
    """Eight entries: a test of all, of both halves or of the left one, and so on."""
    report = bls.find_invalid(shifted(sized(8, int, int), {spoilt: 1}), domain=DOMAIN)
    assert (report.invalid, report.tests) == ((spoilt,), tests)


@pytest.mark.parametrize(("count", "tests"), [(5, 4), (10, 6)])
def test_halving_stops_when_its_pairings_are_used_up(count: int, tests: int):
    """Twice as many as entries, counted as the specification does: each entry of a half is one."""
    batch = shifted(sized(count, lambda i: i % 8, int), dict.fromkeys(range(count), 1))
    report = bls.find_invalid(batch, domain=DOMAIN)
    assert (report.invalid, report.tests) == (tuple(range(count)), tests)


def test_naming_one_forgery_costs_two_batches():
    counting = Counting()
    batch = shifted(sized(64, lambda i: i % 8, lambda i: i), {41: 1})
    with curve.using(counting):
        assert bls.find_invalid(batch, domain=DOMAIN).invalid == (41,)
    assert len(counting.sizes) <= 2 * 6 + 2
    assert sum(counting.sizes) <= 2 * 64 + 2


@pytest.mark.parametrize("spoilt", [range(64), range(0, 64, 2), range(0, 64, 7), range(32)])
def test_forgeries_cannot_make_a_batch_much_dearer_than_a_loop(spoilt: range):
    counting = Counting()
    batch = shifted(sized(64, lambda i: i % 8, lambda i: i), dict.fromkeys(spoilt, 1))
    with curve.using(counting):
        assert bls.find_invalid(batch, domain=DOMAIN).invalid == tuple(spoilt)
    assert sum(counting.sizes) <= (1 + 2 + 1) * 64  # The batch, the halving, one by one.
