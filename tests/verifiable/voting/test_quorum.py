"""Policies that count: bounds and costs against exact enumeration, and laws of asking for more."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiable.audits.probabilities import clopper_pearson
from verifiable.voting.assurance import Assurance, bad_among_answers
from verifiable.voting.quorum import (
    NEWCOMER,
    FirstToMatch,
    FixedSize,
    Poll,
    QuorumPolicy,
    Ruling,
    RulingReason,
    Sequential,
    Standing,
    opened_by_bad,
)

Counting = FixedSize | FirstToMatch | Sequential


def rule(policy: QuorumPolicy, requested: int, support: int, others: int) -> Any:
    return policy.rule(Poll(requested, [NEWCOMER] * support, [NEWCOMER] * others))


@st.composite
def policies(draw: st.DrawFn) -> Counting:
    bad = draw(st.sampled_from([0.05, 0.1, 0.25, 0.4]))
    kind = draw(st.sampled_from(["fixed", "first", "sequential"]))
    if kind == "fixed":
        size = draw(st.integers(1, 7))
        quorum = draw(st.integers(size // 2 + 1, size))
        return FixedSize(bad=bad, size=size, quorum=quorum, limit=draw(st.integers(size, 11)))
    if kind == "first":
        matches = draw(st.integers(1, 4))
        return FirstToMatch(bad=bad, matches=matches, limit=draw(st.integers(2 * matches - 1, 11)))
    error = draw(st.sampled_from([0.3, 0.1, 0.03]))
    return Sequential(bad=bad, error=error, limit=11)


def rounds(policy: Counting, bad_ballots: tuple[bool, ...]) -> Iterator[tuple[int, Any]]:
    """A job in which bad ballots agree, and honest ones do: ballots, (ruling, whether bad won)."""
    requested = policy.first()
    while True:
        bad = sum(bad_ballots[:requested])
        rulings = [
            rule(policy, requested, support, requested - support)
            for support in (bad, requested - bad)
        ]
        best = min(
            rulings, key=lambda ruling: (ruling.reason is not RulingReason.AGREED, ruling.more)
        )
        yield requested, (best, rulings[0].reason is RulingReason.AGREED)
        if best.reason is not RulingReason.UNDECIDED:
            return
        requested += best.seats


@settings(max_examples=40, deadline=None)
@given(policies())
def test_assurances_equal_exact_enumeration(policy: Counting) -> None:
    """Every sequence of good and bad ballots up to the limit, weighted exactly."""
    f = Fraction(policy.bad)
    runs = undecided = ever = Fraction(0)
    for sequence in itertools.product([False, True], repeat=policy.limit):
        weight = Fraction(1)
        for bad in sequence:
            weight *= f if bad else 1 - f
        # Honest ballots that scatter never settle it: the bad ones have every look.
        ever += weight * any(
            sum(sequence[:n]) >= policy.threshold(n)
            for n in range(policy.first(), policy.limit + 1)
        )
        requested, (ruling, _) = list(rounds(policy, sequence))[-1]
        if ruling.reason is RulingReason.EXHAUSTED:
            requested, undecided = policy.limit, undecided + weight
        runs += weight * requested
    bound = policy.assurance
    assert bound.error == bound.error_if_colluding == pytest.approx(float(ever), rel=1e-12)
    assert bound.undecided == pytest.approx(float(undecided), rel=1e-12, abs=1e-15)
    # What cannot be settled within the limit is given up as soon as that is clear.
    assert float(runs) <= bound.runs * (1 + 1e-12)
    if undecided == 0:
        assert bound.runs == pytest.approx(float(runs), rel=1e-12)


@pytest.mark.parametrize("bad", [0.1, 0.25, 0.4])
def test_errors_and_costs_equal_the_published_formulas(bad: float) -> None:
    f = Fraction(bad)
    for m in range(1, 8):
        wrong = sum(
            math.comb(2 * m - 1, j) * f**j * (1 - f) ** (2 * m - 1 - j) for j in range(m, 2 * m)
        )
        runs = sum(
            (m + j) * math.comb(m - 1 + j, j) * ((1 - f) ** m * f**j + f**m * (1 - f) ** j)
            for j in range(m)
        )
        first, fixed = FirstToMatch(bad=bad, matches=m), FixedSize(bad=bad, size=2 * m - 1)
        assert first.assurance.error == pytest.approx(float(wrong), rel=1e-12)
        assert fixed.assurance.error == pytest.approx(float(wrong), rel=1e-12)
        assert first.assurance.runs == pytest.approx(float(runs), rel=1e-12)
        assert fixed.assurance.runs == pytest.approx(2 * m - 1, rel=1e-12)
    for error in (1e-1, 1e-3, 1e-6):
        policy = Sequential(bad=bad, error=error, limit=2000)
        d, odds = policy.margin, f / (1 - f)
        assert odds**d <= Fraction(error)
        assert d == 1 or odds ** (d - 1) > Fraction(error)
        assert policy.assurance.error == pytest.approx(float(odds**d), rel=1e-9)
        # Gambler's ruin between -d and d (Feller I, XIV.3).
        ruin = odds**d / (1 + odds**d)
        assert policy.assurance.runs == pytest.approx(
            float(d * (1 - 2 * ruin) / (1 - 2 * f)), rel=1e-9
        )


def test_the_numbers_of_the_design() -> None:
    assert FirstToMatch(bad=0.1, matches=2).assurance.error == pytest.approx(0.028, rel=1e-12)
    assert FirstToMatch(bad=0.1, matches=5).assurance.error == pytest.approx(8.9e-4, rel=2e-3)
    assert bad_among_answers(0.1, honest_availability=0.5) == pytest.approx(2 / 11)
    assert FixedSize(bad=0.1, size=5, quorum=5).assurance.error == pytest.approx(1e-5)


def test_half_the_honest_phones_offline_is_part_of_the_bound() -> None:
    """Absent honest phones raise the bad fraction among the answers."""
    trials, registered, availability = 20_000, 0.1, 0.5
    rng = np.random.default_rng(7)
    answering = rng.random((trials, 60)) < registered  # bad identities always answer
    present = answering | (rng.random((trials, 60)) < availability)
    wrong = 0
    for bad, here in zip(answering, present, strict=True):
        wrong += bad[here][:5].sum() >= 3
    low, high = clopper_pearson(int(wrong), trials, confidence=0.999)
    naive = FixedSize(bad=registered, size=5).assurance.error
    among = bad_among_answers(registered, honest_availability=availability)
    assert naive < low
    assert low <= FixedSize(bad=among, size=5).assurance.error <= high


@settings(max_examples=300, deadline=None)
@given(policies(), st.data())
def test_asking_for_more_is_exact(policy: Counting, data: Any) -> None:
    requested = data.draw(st.integers(policy.first(), policy.limit))
    received = data.draw(st.integers(0, requested))
    support = data.draw(st.integers(0, received))
    ruling = rule(policy, requested, support, received - support)
    if ruling.reason is RulingReason.AGREED:
        assert 2 * support > requested
        assert (ruling.more, ruling.seats) == (0, 0)
        return

    def settles(more: int) -> bool:
        total = max(requested, received + more)
        return support + more >= policy.threshold(total)

    assert settles(ruling.more)
    assert not any(settles(more) for more in range(ruling.more))
    assert ruling.seats == max(0, received + ruling.more - requested)
    over = requested + ruling.seats > policy.limit
    assert ruling.reason is (RulingReason.EXHAUSTED if over else RulingReason.UNDECIDED)


@settings(max_examples=200, deadline=None)
@given(policies(), st.data())
def test_support_is_monotone(policy: Counting, data: Any) -> None:
    """A further ballot, for or against, never un-decides; nor does one that agrees and its seat."""
    requested = data.draw(st.integers(policy.first(), policy.limit))
    support = data.draw(st.integers(0, requested))
    others = data.draw(st.integers(0, requested - support))
    if rule(policy, requested, support, others).reason is not RulingReason.AGREED:
        return
    room = requested - support - others
    for more_support in range(room + 1):
        for more_others in range(room - more_support + 1):
            again = rule(policy, requested, support + more_support, others + more_others)
            assert again.reason is RulingReason.AGREED
    for grown in range(policy.limit - requested + 1):
        again = rule(policy, requested + grown, support + grown, others)
        assert again.reason is RulingReason.AGREED


@given(policies())
@settings(deadline=None)
def test_thresholds_are_majorities_that_grow_by_at_most_one(policy: Counting) -> None:
    thresholds = [policy.threshold(n) for n in range(1, 40)]
    assert all(2 * need > n for n, need in enumerate(thresholds, 1))
    assert all(0 <= b - a <= 1 for a, b in itertools.pairwise(thresholds))


def test_two_of_seven_never_win() -> None:
    """The threshold grows with the number of ballots."""
    for policy in (
        FixedSize(bad=0.1, size=3, limit=7),
        FirstToMatch(bad=0.1, matches=2, limit=7),
        Sequential(bad=0.1, error=0.2, limit=7),
    ):
        assert rule(policy, 7, 2, 5).reason is not RulingReason.AGREED


def test_measured_errors_lie_within_the_bounds() -> None:
    """Adversaries that collude and abstain: each ballot of theirs may be the honest answer too."""
    rng = np.random.default_rng(11)
    trials = 4000
    for policy in (
        FixedSize(bad=0.3, size=5, limit=9),
        FirstToMatch(bad=0.3, matches=3, limit=9),
        Sequential(bad=0.3, error=0.05, limit=60),
    ):
        wrong = 0
        for sequence in rng.random((trials, policy.limit)) < policy.bad:
            *_, (_, (_, accepted_bad)) = rounds(policy, tuple(sequence.tolist()))
            wrong += accepted_bad
        low, _ = clopper_pearson(wrong, trials, confidence=0.999)
        assert low <= policy.assurance.error


@pytest.mark.parametrize("bad", [0.003, 0.05, 0.1, 0.2, 0.3, 0.4])
def test_the_margin_is_the_least_that_bounds_the_error(bad: float) -> None:
    """Errors that are powers of the odds, where logarithms may be rounded either way."""
    odds = bad / (1 - bad)
    for power in range(1, 25):
        for error in (odds**power, np.nextafter(odds**power, 0.0), np.nextafter(odds**power, 1.0)):
            margin = Sequential(bad=bad, error=float(error), limit=30).margin
            assert odds**margin <= error
            assert margin == 1 or odds ** (margin - 1) > error


def test_what_a_bad_ballot_opens_is_bounded_for_any_policy() -> None:
    """A policy that does not count says its totals alone: errors in all, and runs in all."""
    for colluding, error in ((0.05, 0.5), (0.2, 1.0)):

        class Own(QuorumPolicy):
            assurance = Assurance(
                bad=0.1,
                error=0.01,
                error_if_colluding=colluding,
                runs=3.0,
                undecided=0.0,
                assumes="nothing",
            )

            def first(self, candidates: Sequence[Standing] = ()) -> int:
                raise NotImplementedError

            def rule(self, poll: Poll) -> Ruling:
                raise NotImplementedError

        assert opened_by_bad(Own()) == pytest.approx((error, (3.0 - 0.9) / 0.1))


def test_who_has_no_record_has_passed_nothing() -> None:
    assert Standing() == NEWCOMER == Standing(passed=0, cleared=False)


def test_a_probability_is_at_most_one() -> None:
    """Whatever rounding makes of a vote that hardly ever ends."""
    for limit in range(9, 30):
        undecided = Sequential(bad=0.4, error=0.05, limit=limit).assurance.undecided
        assert 0.0 < undecided <= 1.0


def test_policies_are_shown_by_what_was_chosen() -> None:
    for made in (
        FixedSize(bad=0.1, size=3),
        FirstToMatch(bad=0.1, matches=2),
        Sequential(bad=0.1, error=0.1),
    ):
        assert "bad=0.1" in repr(made)
        assert "assurance" not in repr(made)


UNBOUNDED: dict[str, tuple[str, Callable[[], Any]]] = {
    "half bad": ("bad must", lambda: FixedSize(bad=0.5, size=3)),
    "none bad": ("bad must", lambda: FixedSize(bad=0.0, size=3)),
    "NaN bad": ("bad must", lambda: FixedSize(bad=math.nan, size=3)),
    "most bad": ("bad must", lambda: Sequential(bad=0.6, error=0.1)),
    "half bad, one by one": ("bad must", lambda: Sequential(bad=0.5, error=0.1)),
    "half bad, matching": ("bad must", lambda: FirstToMatch(bad=0.5, matches=3)),
    "no ballots": ("quorum must", lambda: FixedSize(bad=0.1, size=0)),
    "half a quorum": ("quorum must", lambda: FixedSize(bad=0.1, size=4, quorum=2)),
    "quorum above size": ("quorum must", lambda: FixedSize(bad=0.1, size=4, quorum=5)),
    "limit below size": ("limit must", lambda: FixedSize(bad=0.1, size=4, limit=3)),
    "no matches": ("matches must", lambda: FirstToMatch(bad=0.1, matches=0)),
    "fewer than no matches": ("matches must", lambda: FirstToMatch(bad=0.1, matches=-3)),
    "limit below matches": ("limit must", lambda: FirstToMatch(bad=0.1, matches=3, limit=2)),
    "error 0": ("error must", lambda: Sequential(bad=0.1, error=0.0)),
    "error 1": ("error must", lambda: Sequential(bad=0.1, error=1.0)),
    "limit below margin": ("limit must", lambda: Sequential(bad=0.1, error=1e-6, limit=3)),
    "checks below 0": ("passed must", lambda: Standing(passed=-1)),
    "fraction above 1": ("got 1.5", lambda: bad_among_answers(1.5, honest_availability=0.5)),
    "fraction below 0": ("got -0.5", lambda: bad_among_answers(-0.5, honest_availability=0.5)),
    "availability above 1": ("got 1.5", lambda: bad_among_answers(0.1, honest_availability=1.5)),
    "no answers": ("no worker", lambda: bad_among_answers(0.0, honest_availability=0.0)),
    "beyond the limit": ("covers 1 to 3", lambda: rule(FixedSize(bad=0.1, size=3), 4, 3, 1)),
    "none requested": ("covers 1 to 3", lambda: rule(FixedSize(bad=0.1, size=3), 0, 0, 0)),
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_a_policy_without_a_bound_cannot_be_built(name: str) -> None:
    match, make = UNBOUNDED[name]
    with pytest.raises(ValueError, match=match):
        make()
