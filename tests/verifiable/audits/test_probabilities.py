"""Probabilities of audits against exact rationals, and intervals against their coverage."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiable.audits import (
    audits_needed,
    binomial_tail,
    clopper_pearson,
    draw,
    hypergeometric_tail,
    miss_probability,
)


def seed(number: int) -> bytes:
    return number.to_bytes(32, "big")


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


REFUSED: dict[str, tuple[str, Callable[[], Any]]] = {
    "more bad than all": ("bad and audits must", lambda: miss_probability(10, 11, 1)),
    "more audits than all": ("bad and audits must", lambda: miss_probability(10, 1, 11)),
    "detection above 1": ("detection must", lambda: miss_probability(10, 1, 1, detection=1.5)),
    "none bad": ("no number of audits", lambda: audits_needed(10, 0, 0.5)),
    "detection too low": (
        "no number of audits",
        lambda: audits_needed(10, 1, 0.05, detection=0.9),
    ),
    "committee above all": ("bad and audits must", lambda: hypergeometric_tail(10, 5, 11, 3)),
    "negative trials": ("trials must", lambda: binomial_tail(-1, 0.5, 1)),
    "probability NaN": ("probability must", lambda: binomial_tail(3, math.nan, 1)),
    "no trials": ("got 1 of 0", lambda: clopper_pearson(1, 0)),
    "more successes than trials": ("got 3 of 2", lambda: clopper_pearson(3, 2)),
    "confidence 1": ("confidence must", lambda: clopper_pearson(1, 2, confidence=1.0)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_out_of_range_are_refused(name: str) -> None:
    match, call = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        call()
