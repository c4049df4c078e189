"""Draws against slow oracles written from the text, and their distributions."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.p_values import chisquare
from verifiable.audits import (
    clopper_pearson,
    draw,
    draw_each,
    select,
)

SEEDS = st.binary(min_size=32, max_size=32)


def seed(number: int) -> bytes:
    return number.to_bytes(32, "big")


# --- slow oracles, from specs/sampling.md ---------------------------------------------------------


class Stream:
    """Bytes of BLAKE3 in key-derivation mode over seed and label."""

    def __init__(self, seed: bytes, label: str):
        self.hasher = blake3(seed + label.encode(), derive_key_context="verifiable v1 sampling")
        self.position = 0

    def take(self, count: int) -> bytes:
        self.position += count
        return self.hasher.digest(length=self.position)[self.position - count :]

    def below(self, bound: int) -> int:
        bits = (bound - 1).bit_length()
        while True:
            value = int.from_bytes(self.take((bits + 7) // 8), "little") % 2**bits
            if value < bound:
                return value


def slow_draw(seed: bytes, population: int, audits: int, label: str) -> tuple[int, ...]:
    stream = Stream(seed, f"draw/{label}")
    deck = list(range(population))
    for place in range(audits):
        chosen = place + stream.below(population - place)
        deck[place], deck[chosen] = deck[chosen], deck[place]
    return tuple(deck[:audits])


def slow_each(seed: bytes, rates: list[float], label: str) -> tuple[int, ...]:
    stream = Stream(seed, f"each/{label}")
    return tuple(
        i
        for i, rate in enumerate(rates)
        if int.from_bytes(stream.take(8), "little") < math.ceil(Fraction(rate) * 2**64)
    )


def slow_select(seed: bytes, weights: list[int], seats: int, label: str) -> tuple[int, ...]:
    stream = Stream(seed, f"select/{label}")
    left = dict(enumerate(weights))
    chosen: list[int] = []
    for _ in range(seats):
        point = stream.below(sum(left.values()))
        ends = itertools.accumulate(left.values())
        index = next(i for i, end in zip(left, ends, strict=True) if point < end)
        chosen.append(index)
        del left[index]
    return tuple(chosen)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int8", "uint8", "object"])
def test_weights_of_numpy_select_as_weights_of_python(dtype: str) -> None:
    """Sums of 8-bit weights, and of 64-bit ones near their limit, do not wrap around."""
    top = 2**70 if dtype == "object" else np.iinfo(dtype).max
    weights = [int(top), 1, int(top), int(top) - 1]
    array = np.array(weights, dtype=dtype)
    for number in range(20):
        expected = select(seed(number), weights, 3)
        assert (
            select(seed(number), array, 3)
            == expected
            == slow_select(seed(number), weights, 3, "seats")
        )
        assert select(seed(number), list(array), 3) == expected
        assert all(type(index) is int for index in expected)


@pytest.mark.parametrize("weight", [1.0, np.float32(1), "1", None])
def test_weights_that_are_no_integers_are_refused(weight: Any) -> None:
    with pytest.raises(TypeError):
        select(bytes(32), [1, weight], 1)


# --- draws ----------------------------------------------------------------------------------------


@given(SEEDS, st.integers(0, 60), st.data(), st.text(max_size=8))
@settings(deadline=None)
def test_a_draw_is_the_shuffle_of_the_text(
    seed: bytes, population: int, data: Any, label: str
) -> None:
    audits = data.draw(st.integers(0, population))
    drawn = draw(seed, population, audits, label=label)
    assert drawn == slow_draw(seed, population, audits, label)
    assert len(set(drawn)) == audits
    assert drawn == draw(seed, population, population, label=label)[:audits]


@given(SEEDS, st.lists(st.integers(0, 10**30), min_size=1, max_size=12), st.data())
@settings(deadline=None)
def test_a_selection_is_the_one_of_the_text(seed: bytes, weights: list[int], data: Any) -> None:
    seats = data.draw(st.integers(0, sum(weight > 0 for weight in weights)))
    chosen = select(seed, weights, seats)
    assert chosen == slow_select(seed, weights, seats, "seats")
    assert len(set(chosen)) == seats
    assert all(weights[index] > 0 for index in chosen)


@given(SEEDS, st.lists(st.floats(0, 1), max_size=40))
@settings(deadline=None)
def test_independent_draws_are_those_of_the_text(seed: bytes, rates: list[float]) -> None:
    drawn = draw_each(seed, rates)
    assert drawn == slow_each(seed, rates, "audits")
    assert {i for i, rate in enumerate(rates) if rate == 1.0} <= set(drawn)
    assert not {i for i, rate in enumerate(rates) if rate == 0.0} & set(drawn)


def test_draws_longer_than_one_buffer_are_the_same_stream() -> None:
    assert draw(seed(3), 5000, 3000) == slow_draw(seed(3), 5000, 3000, "audits")


def test_every_set_is_drawn_equally_often() -> None:
    counts = Counter(frozenset(draw(seed(i), 6, 3)) for i in range(8000))
    assert len(counts) == math.comb(6, 3)
    assert chisquare(list(counts.values())) > 1e-3


def test_seats_go_by_weight() -> None:
    weights, seats, trials = [1, 2, 3, 4], 2, 8000
    counts = Counter(select(seed(i), weights, seats) for i in range(trials))
    expected = {
        (a, b): trials * weights[a] / 10 * weights[b] / (10 - weights[a])
        for a, b in itertools.permutations(range(4), 2)
    }
    observed = [counts[pair] for pair in expected]
    assert sum(observed) == trials
    assert chisquare(observed, list(expected.values())) > 1e-3


def test_an_audit_predictor_without_the_beacon_does_no_better_than_chance() -> None:
    """Honest only when the audit can be predicted.

    The predictor knows population and number of audits, and guesses with seeds of its own.
    """
    population, audits, trials = 200, 20, 400
    hits = sum(
        len(set(draw(seed(i), population, audits)) & set(draw(seed(i + 10**6), population, audits)))
        for i in range(trials)
    )
    low, high = clopper_pearson(hits, audits * trials, confidence=0.999)
    assert low <= audits / population <= high


def test_a_sybil_split_leaves_its_share_of_one_seat_as_it_was() -> None:
    """Ten sybils of weight 1 win a seat as often as one identity of weight 10."""
    trials = 4000
    sybils = sum(select(seed(i), [10, *[1] * 10], 1)[0] > 0 for i in range(trials))
    low, high = clopper_pearson(sybils, trials, confidence=0.999)
    assert low <= 0.5 <= high


def test_labels_and_seeds_separate_draws() -> None:
    base = draw(seed(0), 1000, 50)
    assert base != draw(seed(1), 1000, 50)
    assert base != draw(seed(0), 1000, 50, label="another worker")


REFUSED: dict[str, tuple[str, Callable[[], Any]]] = {
    "seed of 31 bytes": ("seed must", lambda: draw(bytes(31), 10, 1)),
    "more than there are": ("audits must be in 0 .. 10", lambda: draw(bytes(32), 10, 11)),
    "fewer than none": ("audits must be in 0 .. 10", lambda: draw(bytes(32), 10, -1)),
    "rate NaN": ("rates must", lambda: draw_each(bytes(32), [0.5, math.nan])),
    "rate above 1": ("rates must", lambda: draw_each(bytes(32), [1.0 + 1e-9])),
    "table of rates": ("rates must", lambda: draw_each(bytes(32), np.zeros((2, 2)))),
    "negative weight": ("weights must", lambda: select(bytes(32), [1, -1], 1)),
    "too few weights": ("seats must be in 0 .. 1", lambda: select(bytes(32), [1, 0], 2)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_out_of_range_are_refused(name: str) -> None:
    match, call = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        call()
