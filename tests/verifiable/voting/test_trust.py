"""Credibility against Sarmenta's formulas; audited trust against whoever earns it to spend it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from verifiable.audits.probabilities import clopper_pearson, miss_probability
from verifiable.voting.quorum import (
    NEWCOMER,
    FirstToMatch,
    FixedSize,
    Poll,
    QuorumPolicy,
    RulingReason,
    Sequential,
    Standing,
    opened_by_bad,
)
from verifiable.voting.trust import Adaptive, Credibility, spending_bound

BAD = 0.1
VOTE = Sequential(bad=BAD, error=1e-3)
TRUSTED = Standing(passed=10)


def passed(*checks: int) -> list[Standing]:
    return [Standing(passed=count) for count in checks]


# --- credibility ----------------------------------------------------------------------------------


def credibility(checks: int) -> Fraction:
    return 1 - Fraction(1, 10) / max(checks, 1)


def sarmenta(groups: list[list[int]]) -> Fraction:
    """Credibility of the first group (Sarmenta 2001, section 3.2), in exact rationals."""

    def good(group: list[int]) -> Fraction:
        return math.prod((credibility(s) for s in group), start=Fraction(1))

    def bad(group: list[int]) -> Fraction:
        return math.prod((1 - credibility(s) for s in group), start=Fraction(1))

    def only(index: int) -> Fraction:
        return good(groups[index]) * math.prod(
            (bad(group) for i, group in enumerate(groups) if i != index), start=Fraction(1)
        )

    nobody = math.prod((bad(group) for group in groups), start=Fraction(1))
    return only(0) / (nobody + sum((only(i) for i in range(len(groups))), Fraction(0)))


def ours(supporters: list[int], others: list[int]) -> Fraction:
    """P(group good, others bad) / P(the same, or group bad)."""
    good = math.prod((credibility(s) for s in supporters), start=Fraction(1))
    bad = math.prod((1 - credibility(s) for s in supporters), start=Fraction(1))
    rest = math.prod((1 - credibility(s) for s in others), start=Fraction(1))
    return good * rest / (good * rest + bad)


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    head, *tail = items
    for rest in partitions(tail):
        yield [[head], *rest]
        for i in range(len(rest)):
            yield [*rest[:i], [head, *rest[i]], *rest[i + 1 :]]


CHECKS = st.lists(st.integers(0, 60), max_size=4)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), CHECKS)
def test_a_group_is_never_more_credible_than_sarmenta_has_it(
    supporters: list[int], others: list[int]
) -> None:
    for groups in partitions(others):
        assert ours(supporters, others) <= sarmenta([supporters, *groups])


@settings(max_examples=200, deadline=None)
@example([10**6], [], 3, 1e-4)
@example([10**6], [], 6, 1e-4)
@example([10**6], [], 1, 1e-4)
@example([], [], 1, 0.9)
@given(CHECKS, CHECKS, st.integers(0, 3), st.sampled_from([1e-4, 0.9]))
def test_credible_enough_and_a_strict_majority(
    supporters: list[int], others: list[int], missing: int, error: float
) -> None:
    policy = Credibility(bad=BAD, error=error, limit=20)
    requested = len(supporters) + len(others) + missing
    if not requested:
        return
    ruling = policy.rule(Poll(requested, passed(*supporters), passed(*others)))
    enough = 2 * len(supporters) > requested and ours(supporters, others) >= 1 - Fraction(error)
    assert (ruling.reason is RulingReason.AGREED) == enough
    if enough:
        return
    # What is asked for settles it, and one fewer would not.
    for more in (ruling.more, ruling.more - 1):
        total = max(requested, len(supporters) + len(others) + more)
        grown = [*supporters, *[0] * more]
        settled = 2 * len(grown) > total and ours(grown, others) >= 1 - Fraction(error)
        assert settled == (more == ruling.more)


def test_first_takes_as_many_as_are_credible_together() -> None:
    policy = Credibility(bad=BAD, error=1e-4)
    assert policy.first(passed(1001)) == 1
    assert policy.first(passed(500, 500)) == 2
    assert policy.first([NEWCOMER] * 10) == policy.first() == 5
    for error in (0.5, 0.9):
        assert Credibility(bad=BAD, error=error).first() == 1
    short = Credibility(bad=BAD, error=1e-4, limit=3)
    assert short.first() == 3
    assert (short.assurance.runs, short.assurance.undecided) == pytest.approx((3, 1))
    assert Credibility(bad=BAD, error=1e-4, limit=5).assurance.undecided < 0.5
    assert Credibility(bad=0.2, error=1e-6, limit=3).assurance.undecided <= 1


def test_as_credible_as_wanted_is_enough() -> None:
    """A newcomer errs as often as the vote may, where both odds are rounded to the same float."""
    exact = [
        f
        for f in (i / 1000 for i in range(1, 499))
        if math.log(1.0 / f - 1.0) == math.log1p(-f) - math.log(f)
    ]
    assert exact
    for f in exact[:3]:
        policy = Credibility(bad=f, error=f)
        assert policy.first() == 1
        assert policy.rule(Poll(1, [NEWCOMER], [])).reason is RulingReason.AGREED
        assert policy.assurance.runs == pytest.approx(1.0)


@pytest.mark.parametrize("typical", [0, 1, 20])
@pytest.mark.parametrize("error", [0.99, 0.9, 0.4, 0.1, 1e-3])
def test_credibility_costs_exactly_what_enumeration_says(error: float, typical: int) -> None:
    """Honest ballots agree, and so do bad ones: every sequence of them up to the limit."""
    policy = Credibility(bad=0.3, error=error, typical=typical, limit=6)
    worker = Standing(passed=typical)
    runs = undecided = 0.0
    for sequence in itertools.product((False, True), repeat=6):
        chance = math.prod(0.3 if bad else 0.7 for bad in sequence)
        for n in range(policy.first([worker] * 6), 7):
            polls = [
                Poll(n, [worker] * support, [worker] * (n - support))
                for support in (sum(sequence[:n]), n - sum(sequence[:n]))
            ]
            if any(policy.rule(poll).reason is RulingReason.AGREED for poll in polls):
                runs += chance * n
                break
        else:
            undecided += chance
    assert policy.assurance.runs == pytest.approx(runs + 6 * undecided)
    assert policy.assurance.undecided == pytest.approx(undecided, abs=1e-15)
    assert policy.assurance.undecided <= 1.0


def test_trust_is_shown_by_what_was_chosen() -> None:
    for made in (Credibility(bad=BAD, error=0.1), Adaptive(bad=BAD, newcomers=VOTE)):
        assert repr(made).startswith(f"{type(made).__name__}(bad=0.1, ")
        assert "assurance" not in repr(made)


def test_credibility_says_what_collusion_does_to_it() -> None:
    """Honest until trusted, then always cheating, voids the independence assumed."""
    bound = Credibility(bad=BAD, error=1e-6, typical=1000).assurance
    assert bound.error == 1e-6
    assert bound.error_if_colluding == BAD
    assert "collusion voids" in bound.assumes
    lone = Credibility(bad=BAD, error=1e-6).rule(Poll(1, passed(10**6), []))
    assert lone.reason is RulingReason.AGREED  # and a tenth of such lone workers may be spending


def test_credibility_costs_what_enumeration_says() -> None:
    policy = Credibility(bad=BAD, error=1e-4, typical=20, limit=30)
    rng = np.random.default_rng(2)
    runs: list[int] = []
    for sequence in rng.random((3000, 30)) < BAD:
        requested = policy.first(passed(*[20] * 30))
        while True:
            bad = int(sequence[:requested].sum())
            rulings = [
                policy.rule(Poll(requested, passed(*[20] * a), passed(*[20] * (requested - a))))
                for a in (bad, requested - bad)
            ]
            if any(ruling.reason is not RulingReason.UNDECIDED for ruling in rulings):
                break
            requested += 1
        runs.append(requested)
    error = 4 * np.std(runs) / math.sqrt(len(runs))
    assert policy.assurance.runs == pytest.approx(np.mean(runs), abs=float(error))


# --- audited trust --------------------------------------------------------------------------------


@pytest.mark.parametrize("detection", [1.0, 0.9, 0.5, 0.25])
@pytest.mark.parametrize("audits", [1, 2, 4, 8])
def test_no_window_and_no_share_of_cheats_exceeds_the_bound(audits: int, detection: float) -> None:
    """Every window of at least u results and every number of cheats in it, exactly."""
    bound = spending_bound(audits, detection)
    best = max(
        m / n * miss_probability(n, m, audits, detection=detection)
        for n in range(audits, 61)
        for m in range(n + 1)
    )
    assert best <= bound
    # In long windows a cheat comes near the bound: it promises no more than there is to be had.
    m = round(min(1.0, 1.0 / (detection * (audits + 1))) * 2000)
    assert m / 2000 * miss_probability(2000, m, audits, detection=detection) > 0.99 * bound
    assert bound < 1.0 / (math.e * audits * detection) or detection * (audits + 1) < 1.0


def test_the_recommended_defaults_hold_under_earn_then_spend() -> None:
    """Wrong results and runs per job for every share a cheat may choose.

    Bad workers deliver a tenth of the dispatched results. Each passes the probation honestly, then
    cheats on m of every window of 200 until it is caught, and comes back as a newcomer.
    """
    policy = Adaptive(bad=BAD, newcomers=FirstToMatch(bad=BAD, matches=3))
    n, u, s = policy.window, policy.audits, policy.probation
    vote = policy.newcomers.assurance.runs
    bound = policy.assurance
    assert bound.error < 0.01
    assert policy.runs_if_spent < 1.2
    rng = np.random.default_rng(24)
    worst_error = worst_runs = 0.0
    for m in (1, 2, 5, 10, 15, 20, 22, 25, 30, 40, 60, 100, 200):
        lives = 20_000
        survived = np.zeros(lives, dtype=np.int64)
        alive = np.ones(lives, dtype=bool)
        # A worker that is still not caught after this many windows is replaced by an honest one,
        # which only the smallest m ever come to.
        for _ in range(400):
            alive &= rng.hypergeometric(m, n - m, u, size=lives) == 0
            survived += alive
            if not alive.any():
                break
        kept, void = survived.sum() * n, (~alive).sum() * n
        dispatched = lives * s + kept + void
        good = dispatched * (1 - BAD) / BAD
        finished = good + lives * s + kept
        wrong = survived.sum() * m
        newcomers = good * s / policy.lifetime
        runs = (
            (lives * s + newcomers) * vote
            + (dispatched - lives * s + good - newcomers) * (1 + policy.audit_cost * u / n)
        ) / finished
        worst_error, worst_runs = max(worst_error, wrong / finished), max(worst_runs, runs)
    assert worst_error < bound.error
    assert worst_error > 0.7 * bound.error  # the bound is not slack
    assert worst_runs <= policy.runs_if_spent * (1 + 1e-12)
    assert worst_runs == pytest.approx(
        policy.runs_if_spent, rel=1e-6
    )  # cheating in all of a window


@pytest.mark.parametrize(
    "vote",
    [
        FixedSize(bad=BAD, size=1),
        FixedSize(bad=BAD, size=5),
        FirstToMatch(bad=BAD, matches=2),
        FirstToMatch(bad=BAD, matches=3),
        Sequential(bad=BAD, error=0.01, limit=11),
        Credibility(bad=BAD, error=0.01),
    ],
    ids=lambda vote: f"{type(vote).__name__}-{vote.first()}",
)
def test_a_vote_that_a_bad_ballot_opens_is_enumerated(vote: QuorumPolicy) -> None:
    """And the whole is at least that vote's share: bad workers may open nearly all of them."""
    error, runs = opened_by_bad(vote)
    assert BAD * error <= vote.assurance.error_if_colluding * (1 + 1e-12)
    if not isinstance(vote, FixedSize | FirstToMatch | Sequential):
        # All that is not known is put on such votes; the others take a run at least.
        assert error == min(1.0, vote.assurance.error_if_colluding / BAD)
        assert BAD * runs + (1 - BAD) == pytest.approx(vote.assurance.runs)
        return
    wrong = cost = 0.0
    for others in itertools.product((False, True), repeat=vote.limit - 1):
        chance = math.prod(BAD if bad else 1 - BAD for bad in others)
        counts = list(itertools.accumulate((True, *others)))
        looks = range(vote.opening, vote.limit + 1)
        wrong += chance * any(counts[n - 1] >= vote.threshold(n) for n in looks)
        ends = (n for n in looks if max(counts[n - 1], n - counts[n - 1]) >= vote.threshold(n))
        cost += chance * next(ends, vote.limit)
    assert error == pytest.approx(wrong)
    assert runs == pytest.approx(cost)


def test_workers_that_never_earn_trust_cost_votes_and_are_within_the_bound() -> None:
    """Each job whose first seat is theirs goes to a vote, the other seats of which are drawn."""
    policy = Adaptive(bad=BAD, newcomers=FirstToMatch(bad=BAD, matches=3))
    slip, dear = opened_by_bad(policy.newcomers)
    assert slip > spending_bound(policy.audits)
    assert policy.assurance.error >= BAD * slip / (1 - BAD)
    assert policy.assurance.runs == pytest.approx(
        0.9 * (1.04 + (3.319 - 1.04) / 100) + 0.1 * dear, rel=1e-3
    )
    assert 1.2 < policy.assurance.runs < 1.4


def test_wrong_acceptance_by_boincs_rule_is_what_the_bound_is_for() -> None:
    """The same attack on trust that is audited at rate 1/N, N growing, and paid out at once.

    BOINC's constants: ten valid results in a row, then single runs except with probability 1/N.
    """
    rng = np.random.default_rng(3)
    wrong = jobs = 0
    for _ in range(4000):
        wasted = 0
        while rng.random() >= 1 / 10:  # N is kept at ten, which favours the rule
            wasted += 1
        wrong, jobs = wrong + wasted, jobs + wasted + 11
    low, _ = clopper_pearson(wrong, jobs, confidence=0.99)
    assert low > 0.4
    assert spending_bound(8) == spending_bound(8, 1.0) < 0.05


def test_a_lone_trusted_ballot_waits_for_its_window() -> None:
    policy = Adaptive(bad=BAD, newcomers=VOTE)
    assert policy.first([TRUSTED, NEWCOMER]) == 1
    assert policy.first([NEWCOMER, TRUSTED]) == policy.first() == VOTE.margin
    waiting = policy.rule(Poll(1, [TRUSTED], []))
    assert (waiting.reason, waiting.more) == (RulingReason.AUDIT, 0)
    cleared = Standing(passed=10, cleared=True)
    assert policy.rule(Poll(1, [cleared], [])).reason is RulingReason.AGREED
    # A newcomer's lone ballot is never enough, cleared or not; nor is a malformed one.
    assert (
        policy.rule(Poll(1, [Standing(passed=9, cleared=True)], [])).reason
        is RulingReason.UNDECIDED
    )
    assert policy.rule(Poll(1, [], [cleared])).reason is RulingReason.UNDECIDED
    # Beside other ballots it counts as one of them.
    assert policy.rule(Poll(2, [cleared], [])).reason is RulingReason.UNDECIDED
    assert policy.rule(Poll(4, [cleared] * 4, [])).reason is RulingReason.AGREED


@pytest.mark.parametrize("audit_cost", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("window", [20, 200, 2000])
def test_more_audits_cost_more_and_bound_better(window: int, audit_cost: float) -> None:
    bounds = [
        Adaptive(bad=BAD, newcomers=VOTE, window=window, audits=u, audit_cost=audit_cost).assurance
        for u in (1, 2, 4, 8, 16)
    ]
    errors, runs = [b.error for b in bounds], [b.runs for b in bounds]
    assert errors == sorted(errors, reverse=True)
    assert runs == sorted(runs)
    assert bounds[0].error_if_colluding == errors[0]


def test_votes_of_newcomers_that_do_not_decide_are_counted() -> None:
    """Jobs go to a vote when a bad worker, or an honest one in its probation, is drawn first.

    Each job starts over as often as its worker's window turns out void.
    """
    vote = Sequential(bad=0.2, error=0.05, limit=5)
    assert vote.assurance.undecided > 0.05
    made = Adaptive(bad=0.2, newcomers=vote, window=30, audits=4, probation=20, lifetime=100.0)
    opened = 0.2 + 0.8 * 20 / 100
    starts = 1 / (1 - 0.2 * 30 / (20 + 30))
    assert made.assurance.undecided == pytest.approx(starts * opened * vote.assurance.undecided)


def test_what_is_recommended_is_the_default() -> None:
    made, group = Adaptive(bad=BAD, newcomers=VOTE), Credibility(bad=BAD, error=0.1)
    assert (made.probation, made.window, made.audits) == (10, 200, 8)
    assert (made.detection, made.audit_cost, made.lifetime) == (1.0, 1.0, 1000.0)
    assert (group.limit, group.typical) == (100, 0)
    assert Sequential(bad=BAD, error=0.1).limit == 500


def test_probation_may_be_a_single_check() -> None:
    policy = adaptive(probation=1)
    assert policy.trusts(Standing(passed=1))
    assert not policy.trusts(NEWCOMER)


@pytest.mark.parametrize("bad", [BAD, 0.05])
def test_the_error_is_that_of_the_specification(bad: float) -> None:
    """Of votes that collusion voids, and of votes that it does not: section 6."""
    for vote in (VOTE, Credibility(bad=BAD, error=1e-4)):
        made = Adaptive(
            bad=bad, newcomers=vote, probation=5, lifetime=50.0, detection=0.8, audits=3
        )
        slip, _ = opened_by_bad(vote)
        cheats = bad / (1 - bad) * max(spending_bound(3, 0.8), slip)
        assert made.assurance.bad == bad
        for found, voted in (
            (made.assurance.error, vote.assurance.error),
            (made.assurance.error_if_colluding, vote.assurance.error_if_colluding),
        ):
            assert found == pytest.approx(cheats + 5 / 50 * voted, rel=1e-12)


def test_a_probability_is_at_most_one() -> None:
    """Sums of bounds say nothing where votes hardly help, and workers live for a probation."""
    one = FixedSize(bad=0.45, size=1)
    weak = Adaptive(bad=0.45, newcomers=one, audits=1, probation=10, lifetime=10.0).assurance
    assert (weak.error, weak.error_if_colluding) == (1.0, 1.0)
    lost = Sequential(bad=0.45, error=1e-4, limit=60)
    assert lost.assurance.undecided > 0.99
    slow = Adaptive(bad=0.45, newcomers=lost, probation=10, lifetime=10.0).assurance
    assert slow.undecided == 1.0


def test_every_result_of_a_window_may_be_audited() -> None:
    """Then a worker is paid for no wrong result, and the newcomers' votes alone may be wrong."""
    some, every = (Adaptive(bad=BAD, newcomers=VOTE, window=8, audits=u) for u in (7, 8))
    assert every.assurance.error < some.assurance.error
    assert every.assurance.runs > some.assurance.runs


def adaptive(**change: Any) -> Adaptive:
    return Adaptive(**{"bad": BAD, "newcomers": VOTE} | change)


UNBOUNDED: dict[str, tuple[str, Callable[[], Any]]] = {
    "half bad": ("bad must", lambda: Credibility(bad=0.5, error=0.1)),
    "error 0": ("error must", lambda: Credibility(bad=0.1, error=0.0)),
    "error 1": ("error must", lambda: Credibility(bad=0.1, error=1.0)),
    "beyond the limit": (
        "covers 1 to 100",
        lambda: Credibility(bad=0.1, error=0.1).rule(Poll(101, [NEWCOMER], [])),
    ),
    "adaptive, half bad": ("bad must", lambda: adaptive(bad=0.5)),
    "worse than the vote assumes": ("bad fraction of at least 0.2", lambda: adaptive(bad=0.2)),
    "vote that assumes fewer": (
        "bad fraction of at least 0.1",
        lambda: adaptive(newcomers=FixedSize(bad=0.05, size=3)),
    ),
    "no audits": ("need 1 <= audits", lambda: adaptive(audits=0)),
    "audits above window": ("need 1 <= audits", lambda: adaptive(audits=201)),
    "no probation": ("need 1 <= audits", lambda: adaptive(probation=0)),
    "no detection": ("need 0 < detection", lambda: adaptive(detection=0.0)),
    "detection above 1": ("need 0 < detection", lambda: adaptive(detection=1.5)),
    "detection NaN": ("need 0 < detection", lambda: adaptive(detection=math.nan)),
    "audit cost below 0": ("need 0 < detection", lambda: adaptive(audit_cost=-0.1)),
    "audit cost NaN": ("need 0 < detection", lambda: adaptive(audit_cost=math.nan)),
    "short life": ("lifetime must", lambda: adaptive(lifetime=9.0)),
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_a_policy_without_a_bound_cannot_be_built(name: str) -> None:
    match, make = UNBOUNDED[name]
    with pytest.raises(ValueError, match=match):
        make()
