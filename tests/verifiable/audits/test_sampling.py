"""Draws recomputed from the text, and formulas in exact rationals."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from verifiable.audits.sampling import (
    Finding,
    Sprt,
    audits_needed,
    binomial_tail,
    clopper_pearson,
    draw,
    draw_each,
    hypergeometric_tail,
    miss_probability,
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


def exact_hypergeometric(population: int, bad: int, size: int, j: int) -> Fraction:
    if not 0 <= j <= min(bad, size) or size - j > population - bad:
        return Fraction(0)
    return Fraction(
        math.comb(bad, j) * math.comb(population - bad, size - j), math.comb(population, size)
    )


def exact_binomial_tail(trials: int, p: Fraction, threshold: int) -> Fraction:
    return sum(
        (
            math.comb(trials, j) * p**j * (1 - p) ** (trials - j)
            for j in range(max(0, threshold), trials + 1)
        ),
        Fraction(0),
    )


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
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_seats_go_by_weight() -> None:
    weights, seats, trials = [1, 2, 3, 4], 2, 8000
    counts = Counter(select(seed(i), weights, seats) for i in range(trials))
    expected = {
        (a, b): trials * weights[a] / 10 * weights[b] / (10 - weights[a])
        for a, b in itertools.permutations(range(4), 2)
    }
    observed = [counts[pair] for pair in expected]
    assert sum(observed) == trials
    assert chisquare(observed, list(expected.values())).pvalue > 1e-3


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


@pytest.mark.parametrize(
    "call",
    [
        lambda: draw(bytes(31), 10, 1),
        lambda: draw(bytes(32), 10, 11),
        lambda: draw(bytes(32), 10, -1),
        lambda: draw_each(bytes(32), [0.5, math.nan]),
        lambda: draw_each(bytes(32), [1.0 + 1e-9]),
        lambda: draw_each(bytes(32), np.zeros((2, 2))),
        lambda: select(bytes(32), [1, -1], 1),
        lambda: select(bytes(32), [1, 0], 2),
        lambda: miss_probability(10, 11, 1),
        lambda: miss_probability(10, 1, 11),
        lambda: miss_probability(10, 1, 1, detection=1.5),
        lambda: audits_needed(10, 0, 0.5),
        lambda: audits_needed(10, 1, 0.05, detection=0.9),
        lambda: hypergeometric_tail(10, 5, 11, 3),
        lambda: binomial_tail(-1, 0.5, 1),
        lambda: binomial_tail(3, math.nan, 1),
        lambda: clopper_pearson(1, 0),
        lambda: clopper_pearson(3, 2),
        lambda: clopper_pearson(1, 2, confidence=1.0),
        lambda: Sprt(honest=0.0, cheating=0.1, alpha=0.01, beta=0.01),
        lambda: Sprt(honest=0.2, cheating=0.1, alpha=0.01, beta=0.01),
        lambda: Sprt(honest=0.1, cheating=0.2, alpha=0.5, beta=0.5),
        lambda: Sprt(honest=0.1, cheating=0.2, alpha=0.01, beta=0.01).finding(
            passes=-1, failures=0
        ),
    ],
)
def test_arguments_out_of_range_are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=r"\d|probabilities|nan"):
        call()


# --- formulas -------------------------------------------------------------------------------------


def test_the_numbers_of_the_design() -> None:
    needed = [audits_needed(10_000, 100, error) for error in (0.05, 0.01, 1e-6)]
    assert needed == [294, 448, 1284]
    assert hypergeometric_tail(100, 10, 5, 3) == pytest.approx(6.6e-3, rel=1e-2)
    assert hypergeometric_tail(100, 10, 5, 5) == pytest.approx(252 / 75_287_520, rel=1e-12)
    assert binomial_tail(3, 0.1, 2) == pytest.approx(0.028, rel=1e-12)
    assert binomial_tail(9, 0.1, 5) == pytest.approx(8.9e-4, rel=2e-3)


@given(st.integers(1, 40), st.data(), st.fractions(0, 1, max_denominator=50))
@settings(deadline=None)
def test_miss_probability_in_exact_rationals(population: int, data: Any, d: Fraction) -> None:
    bad = data.draw(st.integers(0, population))
    audits = data.draw(st.integers(0, population))
    for detection in (d, Fraction(1)):
        exact = sum(
            (
                exact_hypergeometric(population, bad, audits, j) * (1 - detection) ** j
                for j in range(population + 1)
            ),
            Fraction(0),
        )
        computed = miss_probability(population, bad, audits, detection=float(detection))
        assert computed == pytest.approx(float(exact), rel=1e-11, abs=1e-300)


@given(st.integers(1, 60), st.data())
@settings(deadline=None)
def test_committee_tails_in_exact_rationals(population: int, data: Any) -> None:
    bad = data.draw(st.integers(0, population))
    size = data.draw(st.integers(0, population))
    threshold = data.draw(st.integers(-1, size + 1))
    exact = sum(
        (
            exact_hypergeometric(population, bad, size, j)
            for j in range(max(0, threshold), size + 1)
        ),
        Fraction(0),
    )
    computed = hypergeometric_tail(population, bad, size, threshold)
    assert computed == pytest.approx(float(exact), rel=1e-11, abs=1e-300)


@given(st.integers(0, 60), st.integers(-1, 62), st.fractions(0, 1, max_denominator=100))
@settings(deadline=None)
def test_binomial_tails_in_exact_rationals(trials: int, threshold: int, p: Fraction) -> None:
    exact = float(exact_binomial_tail(trials, p, threshold))
    computed = binomial_tail(trials, float(p), threshold)
    assert computed == pytest.approx(exact, rel=1e-10, abs=1e-300)


@pytest.mark.parametrize(
    ("population", "bad", "audits"), [(10**6, 10**3, 10**4), (10**7, 50, 10**6)]
)
def test_rare_misses_keep_their_digits_in_large_populations(
    population: int, bad: int, audits: int
) -> None:
    exact = Fraction(1)
    for i in range(min(bad, audits)):
        exact *= Fraction(population - max(bad, audits) - i, population - i)
    assert miss_probability(population, bad, audits) == pytest.approx(float(exact), rel=1e-10)


@given(st.integers(1, 300), st.data(), st.floats(1e-6, 0.5), st.sampled_from([1.0, 0.9999999, 0.5]))
@settings(deadline=None)
def test_audits_needed_is_enough_and_one_fewer_is_not(
    population: int, data: Any, error: float, detection: float
) -> None:
    bad = data.draw(st.integers(1, population))
    if miss_probability(population, bad, population, detection=detection) > error:
        return
    audits = audits_needed(population, bad, error, detection=detection)
    assert miss_probability(population, bad, audits, detection=detection) <= error
    if audits:
        assert miss_probability(population, bad, audits - 1, detection=detection) > error


def test_a_committee_drawn_without_replacement_is_covered_by_the_binomial_bound() -> None:
    """Uhlmann 1966: with a bad minority, a bad majority of the committee is no likelier."""
    for population in range(1, 26):
        for bad in range((population + 1) // 2):
            for size in range(1, population + 1):
                for threshold in range(size // 2 + 1, size + 1):
                    drawn = hypergeometric_tail(population, bad, size, threshold)
                    assert drawn <= binomial_tail(size, bad / population, threshold) + 1e-12


def test_audits_find_as_often_as_the_formula_says() -> None:
    population, bad, audits, detection, trials = 300, 6, 60, 0.8, 4000
    rng = np.random.default_rng(5)
    missed = 0
    for i in range(trials):
        found = sum(index < bad for index in draw(seed(i), population, audits))
        missed += not (rng.random(found) < detection).any()
    low, high = clopper_pearson(missed, trials, confidence=0.999)
    assert low <= miss_probability(population, bad, audits, detection=detection) <= high


@pytest.mark.parametrize(("trials", "p"), [(20, 0.1), (50, 0.5), (100, 0.01)])
def test_the_interval_covers_at_least_as_often_as_it_says(trials: int, p: float) -> None:
    q = Fraction(p)
    covered = Fraction(0)
    for x in range(trials + 1):
        low, high = clopper_pearson(x, trials, confidence=0.95)
        if low <= p <= high:
            covered += math.comb(trials, x) * q**x * (1 - q) ** (trials - x)
    assert covered >= Fraction(95, 100)


def test_the_interval_of_no_successes_is_the_rule_of_three() -> None:
    low, high = clopper_pearson(0, 1000, confidence=0.9)
    assert low == 0.0
    assert high == pytest.approx(1 - 0.05 ** (1 / 1000), rel=1e-9)
    assert clopper_pearson(1000, 1000)[1] == 1.0


# --- sequential test ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("honest", "cheating", "alpha", "beta"),
    [(0.01, 0.2, 0.01, 0.01), (0.05, 0.5, 1e-3, 1e-2), (0.3, 0.4, 0.1, 0.1)],
)
def test_sprt_errors_are_within_walds_guarantee(
    honest: float, cheating: float, alpha: float, beta: float
) -> None:
    """Exact distribution of the test, ballot by ballot, against the three inequalities."""
    test = Sprt(honest=honest, cheating=cheating, alpha=alpha, beta=beta)
    ended: dict[float, dict[Finding, float]] = {}
    audits: dict[float, float] = {}
    for rate in (honest, cheating):
        open_ = {0: 1.0}  # failures -> probability
        ended[rate] = dict.fromkeys(Finding, 0.0)
        audits[rate] = 0.0
        for n in range(1, 3000):
            step: dict[int, float] = {}
            for failures, p in open_.items():
                step[failures] = step.get(failures, 0.0) + p * (1 - rate)
                step[failures + 1] = step.get(failures + 1, 0.0) + p * rate
            open_ = {}
            for failures, p in step.items():
                finding = test.finding(passes=n - failures, failures=failures)
                if finding is Finding.OPEN:
                    if p > 1e-18:
                        open_[failures] = p
                else:
                    ended[rate][finding] += p
                    audits[rate] += p * n
            if not open_:
                break
        assert sum(ended[rate].values()) == pytest.approx(1.0, abs=1e-9)
    blamed, spared = ended[honest][Finding.CHEATING], ended[cheating][Finding.HONEST]
    assert blamed <= alpha / (1 - beta) + 1e-9
    assert spared <= beta / (1 - alpha) + 1e-9
    assert blamed + spared <= alpha + beta + 1e-9
    # Overshoot is neglected, so the approximation is low, by less than one step on either side.
    on_pass, on_failure = test.steps
    for rate, is_cheating in ((honest, False), (cheating, True)):
        drift = abs(rate * on_failure + (1 - rate) * on_pass)
        approximate = test.expected_audits(cheating=is_cheating)
        assert abs(audits[rate] - approximate) <= (on_failure - on_pass) / drift


def test_sprt_bounds_are_walds() -> None:
    low, high = Sprt(honest=0.1, cheating=0.2, alpha=0.01, beta=0.05).bounds
    assert low == pytest.approx(math.log(0.05 / 0.99))
    assert high == pytest.approx(math.log(0.95 / 0.01))
