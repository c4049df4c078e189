"""The decision rule against a transcription of its text, and against voters that would bend it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiable.audits.probabilities import clopper_pearson
from verifiable.encoding import tagged_hash
from verifiable.voting import Ballot, VoteDecision, VoteOutcome, coordinate_median, decide
from verifiable.voting.agreement import Agreement, Argmax, Exact, Tolerance, Within
from verifiable.voting.quorum import (
    FirstToMatch,
    FixedSize,
    Poll,
    QuorumPolicy,
    Ruling,
    RulingReason,
    Sequential,
    Standing,
)
from verifiable.voting.tokens import Tokens
from verifiable.voting.trust import Adaptive, Credibility

BEACON = bytes(range(32))
# Positions on a line, in units of which four are one tolerance: exact, and not transitive.
LINE = Within(
    distance=lambda a, b: abs(a - b) / 4, well_formed=lambda value: isinstance(value, int)
)


def ballots(values: Sequence[Any]) -> list[Ballot]:
    return [Ballot(bytes([i]) * 32, value) for i, value in enumerate(values)]


def vote(
    values: Sequence[Any],
    *,
    agreement: Agreement = LINE,
    requested: int | None = None,
    policy: QuorumPolicy | None = None,
    beacon: bytes = BEACON,
) -> VoteDecision:
    requested = len(values) if requested is None else requested
    return decide(
        ballots(values),
        agreement=agreement,
        policy=policy or FixedSize(bad=0.1, size=requested),
        requested=requested,
        beacon=beacon,
    )


# --- the rule, transcribed ------------------------------------------------------------------------


def oracle(values: Sequence[Any], requested: int, threshold: int) -> tuple[Any, list[int]] | None:
    """Canonical value and its group's positions, or None: specs/voting.md, section 2, on LINE."""
    valid = [i for i, v in enumerate(values) if isinstance(v, int)]

    def near(i: int) -> list[int]:
        return [j for j in valid if abs(values[i] - values[j]) <= 4]

    candidates = [i for i in valid if len(near(i)) >= max(threshold, requested // 2 + 1)]
    if not candidates:
        return None
    # Distances in quarters of a tolerance, capped at two tolerances: integers throughout.
    score = {i: sum(min(abs(values[i] - values[j]), 8) for j in valid) for i in candidates}
    least = min(score.values())
    tied = [i for i in candidates if score[i] == least]
    winner = min(tied, key=lambda i: tagged_hash("vote tie", BEACON, bytes([i]) * 32))
    return values[winner], near(winner)


def check_against_oracle(values: Sequence[Any], requested: int, quorum: int) -> None:
    policy = FixedSize(bad=0.1, size=requested, quorum=quorum)
    decision = vote(values, requested=requested, policy=policy)
    expected = oracle(values, requested, quorum)
    if expected is None:
        assert decision.outcome is VoteOutcome.INDETERMINATE
        assert decision.canonical is None
        assert decision.group == decision.dissenters == decision.distances == ()
        assert decision.more >= 1
        return
    canonical, group = expected
    assert decision.outcome is VoteOutcome.ACCEPT
    assert decision.canonical == canonical
    assert decision.group == tuple(bytes([i]) * 32 for i in group)
    assert sorted(decision.group + decision.dissenters) == [b.worker for b in ballots(values)]
    assert decision.distances == tuple(sorted(abs(values[i] - canonical) / 4 for i in group))
    assert decision.bound == policy.assurance


def test_every_small_vote_is_decided_as_the_text_says() -> None:
    """All votes of up to four ballots at six positions or malformed, none or one missing."""
    positions: list[Any] = [0, 1, 2, 4, 5, 8, "malformed"]
    for count in range(1, 5):
        for values in itertools.product(positions, repeat=count):
            if list(values[1:]) == sorted(values[1:], key=str):
                requested = count + count % 2
                check_against_oracle(values, requested, requested // 2 + 1)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.integers(0, 16), st.just("malformed")), max_size=9),
    st.integers(0, 3),
    st.data(),
)
def test_any_vote_is_decided_as_the_text_says(values: list[Any], missing: int, data: Any) -> None:
    requested = len(values) + missing
    if requested:
        quorum = data.draw(st.integers(requested // 2 + 1, requested))
        check_against_oracle(values, requested, quorum)


# --- laws -----------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=7), st.randoms())
def test_order_does_not_matter(values: list[int], random: Any) -> None:
    """Arrival order deciding a tolerance group."""
    arrived = ballots(values)
    policy = FixedSize(bad=0.1, size=len(values))

    def decided(order: list[Ballot]) -> VoteDecision:
        return decide(order, agreement=LINE, policy=policy, requested=len(values), beacon=BEACON)

    first = decided(arrived)
    random.shuffle(arrived)
    assert decided(arrived) == first


def test_order_does_not_matter_to_the_last_bit_of_floats() -> None:
    rng = np.random.default_rng(6)
    agreement = Tolerance.usual(shape=(257,), dtype="float32")
    base = rng.normal(size=257)
    arrived = ballots(
        [(base * (1 + 4e-6 * rng.normal(size=257))).astype(np.float32) for _ in range(5)]
    )
    found = {
        (decision.canonical.tobytes(), decision.group, decision.distances)
        for order in itertools.permutations(arrived)
        for decision in [
            decide(
                order,
                agreement=agreement,
                policy=FixedSize(bad=0.1, size=5),
                requested=5,
                beacon=BEACON,
            )
        ]
    }
    assert len(found) == 1


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(0, 12))
def test_a_further_ballot_never_undecides(values: list[int], late: int) -> None:
    for requested in range(len(values) + 1, len(values) + 3):
        if vote(values, requested=requested).outcome is VoteOutcome.ACCEPT:
            assert vote([*values, late], requested=requested).outcome is VoteOutcome.ACCEPT


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=6))
def test_an_agreeing_ballot_with_a_seat_of_its_own_never_undecides(values: list[int]) -> None:
    policy = FixedSize(bad=0.1, size=1, limit=7)
    decision = vote(values, policy=policy)
    if decision.outcome is VoteOutcome.ACCEPT:
        grown = vote([*values, decision.canonical], policy=policy)
        assert grown.outcome is VoteOutcome.ACCEPT


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=0, max_size=6), st.integers(0, 2))
def test_more_is_how_many_would_settle_it(values: list[int], missing: int) -> None:
    requested = len(values) + missing
    if not requested:
        return
    policy = FixedSize(bad=0.1, size=1, limit=30)
    decision = vote(values, requested=requested, policy=policy)
    if decision.outcome is VoteOutcome.ACCEPT:
        assert (decision.more, decision.seats, decision.reason) == (0, 0, RulingReason.AGREED)
        return
    assert decision.seats == max(0, len(values) + decision.more - requested)
    settled = [
        any(
            vote(
                [*values, *[value] * more],
                requested=max(requested, len(values) + more),
                policy=policy,
            ).outcome
            is VoteOutcome.ACCEPT
            for value in {*values, 100}
        )
        for more in range(decision.more + 1)
    ]
    assert settled == [False] * decision.more + [True]


# --- what colluders can and cannot do -------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 9), st.integers(0, 3))
def test_with_fewer_bad_ballots_than_support_canonical_is_near_an_honest_value(
    data: Any, requested: int, spread: int
) -> None:
    """The guarantee of the module, for bad ballots anywhere and honest ones anywhere."""
    bad = data.draw(st.integers(0, requested))
    honest = data.draw(st.lists(st.integers(50, 50 + 2 * spread), max_size=requested - bad))
    hostile = data.draw(st.lists(st.integers(40, 66), max_size=bad))
    values = data.draw(st.permutations(honest + hostile))
    decision = vote(values, requested=requested)
    if decision.outcome is VoteOutcome.INDETERMINATE:
        assert math.isinf(decision.radius(0))
        return
    assert decision.radius(0) == 0.0
    radius = decision.radius(bad)
    if bad < len(decision.group):
        assert radius <= 1.0
        assert min(abs(decision.canonical - value) for value in honest) <= 4 * radius
    else:
        assert math.isinf(radius)


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 5), st.data())
def test_the_medoid_is_dragged_no_further_than_stated(honest_count: int, data: Any) -> None:
    """Attacks 22 and 24a: colluders inside the tolerance, in as many dimensions as they like."""
    bad_count = data.draw(st.integers(1, honest_count - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    agreement = Tolerance(shape=(40,), dtype="float64", relative=0.1)
    base = rng.normal(size=40)
    noise = data.draw(st.sampled_from([0.001, 0.01, 0.03])) / math.sqrt(40)
    honest = [base + noise * rng.normal(size=40) * np.abs(base).mean() for _ in range(honest_count)]
    delta = agreement.distances(honest).max()
    if delta > 1.0:
        return
    # Colluders stand together, at a distance of their choice, orthogonal to the honest noise or
    # beside one honest value.
    start = honest[0] if data.draw(st.booleans()) else np.mean(honest, axis=0)
    push = rng.normal(size=40)
    reach = data.draw(st.floats(0.0, 0.3)) * np.linalg.norm(base) / np.linalg.norm(push)
    values = honest + [start + reach * push] * bad_count
    decision = vote(values, agreement=agreement)
    assert decision.outcome is VoteOutcome.ACCEPT
    nearest = min(agreement.distances([decision.canonical, value])[0, 1] for value in honest)
    stated = min(1.0, delta * (honest_count - 1) / (honest_count - bad_count))
    assert nearest <= stated + 1e-9
    assert nearest <= decision.radius(bad_count) + 1e-9


def test_the_stated_drag_can_be_reached() -> None:
    """Three honest values pairwise delta apart, two colluders 1.9 delta from each: they win."""
    delta, reach = 0.2, 0.38
    honest = [0, 1, 2]
    distance = {frozenset(pair): delta for pair in itertools.combinations(honest, 2)}
    distance |= {frozenset((value, 9)): reach for value in honest}
    plane = Within(
        distance=lambda a, b: 0.0 if a == b else distance[frozenset((a, b))],
        well_formed=lambda value: isinstance(value, int),
    )
    decision = vote([0, 1, 2, 9, 9], agreement=plane)
    assert decision.canonical == 9
    assert decision.radius(2) == reach <= delta * 2 / 1
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        decision.radius(-1)


def test_one_ballot_cannot_veto_wherever_it_stands() -> None:
    """Near all but one honest value, or anywhere else."""
    honest = [0, 1, 2, 3]
    for position in range(-10, 14):
        assert vote([*honest, position]).outcome is VoteOutcome.ACCEPT
        assert vote([*honest, position], policy=FixedSize(bad=0.1, size=5, quorum=4)).group


def test_two_colluders_of_seven_do_not_beat_five() -> None:
    """Two of seven winning."""
    scattered = [0, 10, 20, 30, 40]  # five honest values that differ beyond tolerance
    assert vote([*scattered, 99, 99]).outcome is VoteOutcome.INDETERMINATE
    agreeing = vote([7, 7, 7, 7, 7, 99, 99])
    assert agreeing.canonical == 7
    assert agreeing.dissenters == (bytes([5]) * 32, bytes([6]) * 32)


def test_agreement_is_never_chained() -> None:
    """Each of six agrees with the next one, and none with a majority."""
    assert vote([0, 4, 8, 12, 16, 20]).outcome is VoteOutcome.INDETERMINATE
    assert vote([0, 4, 8]).canonical == 4  # the only one that both others agree with


def test_ties_cannot_be_ground() -> None:
    """The beacon alone decides which of two equal medoids wins."""
    winners = [vote([0, 2], beacon=i.to_bytes(32, "big")).canonical for i in range(600)]
    low, high = clopper_pearson(winners.count(0), len(winners), confidence=0.999)
    assert low <= 0.5 <= high
    assert vote([0, 2]).canonical == vote([0, 2]).canonical


def test_an_outlier_weighs_no_more_than_another() -> None:
    """However far a malformed or distant ballot lies, the same medoid wins."""
    near, far = vote([0, 1, 2, 30, 30]), vote([0, 1, 2, 10**9, -(10**9)])
    assert near.canonical == far.canonical == 1


def test_malformed_ballots_count_as_requested_and_dissent() -> None:
    """A malformed ballot takes a seat, but has no part in the group."""
    values = [5, 5, None, "rubbish", 5]
    decision = vote(values)
    assert decision.canonical == 5
    assert decision.dissenters == (bytes([2]) * 32, bytes([3]) * 32)
    assert vote(values[:4]).outcome is VoteOutcome.INDETERMINATE
    assert vote([None] * 3).more == 4
    # Stallers: nothing arrived at all.
    assert (vote([], requested=3).more, vote([], requested=3).seats) == (2, 0)


class Agreed(NamedTuple):
    name: str
    agreement: Agreement
    values: list[Any]
    canonical: Any
    dissent: int


VECTORS = [np.array([1.0, 2.0], np.float32), np.array([np.nan, 2.0], np.float32)]
CASES = [
    Agreed("digests", Exact(size=1), [b"a", b"a", b"b"], b"a", 1),
    Agreed("a digest of another length", Exact(size=1), [b"a", b"a", b"aa"], b"a", 1),
    Agreed("tokens", Tokens(vocabulary=9, longest=3), [[1, 2], [1, 2], [2, 1]], (1, 2), 1),
    Agreed(
        "argmax: the logits behind the answer are not canonical",
        Argmax(shape=(2,)),
        [VECTORS[0], VECTORS[0] * 50, VECTORS[1]],
        (1,),
        1,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_other_agreements_decide_by_the_same_rule(case: Agreed) -> None:
    decision = vote(case.values, agreement=case.agreement)
    assert decision.canonical == case.canonical
    assert len(decision.dissenters) == case.dissent


def test_nan_ballots_in_the_majority_decide_nothing() -> None:
    agreement = Tolerance.usual(shape=(2,), dtype="float32")
    decision = vote([VECTORS[1]] * 3 + [VECTORS[0]] * 2, agreement=agreement)
    assert decision.outcome is VoteOutcome.INDETERMINATE


# --- policies behind the one interface ------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        FixedSize(bad=0.2, size=5, limit=25),
        FirstToMatch(bad=0.2, matches=3, limit=25),
        Sequential(bad=0.2, error=0.02, limit=61),
        Credibility(bad=0.2, error=0.02, limit=61),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_wrong_acceptance_is_within_the_bound_of_the_decision(policy: QuorumPolicy) -> None:
    """Colluders on one wrong answer, through whole jobs: dispatch, decide, ask for more."""
    rng = np.random.default_rng(4)
    trials, wrong, runs = 3000, 0, 0
    for _ in range(trials):
        values: list[Any] = []
        seats = policy.first()
        while True:
            values += [b"wrong" if rng.random() < 0.2 else b"right" for _ in range(seats)]
            decision = vote(values, agreement=Exact(size=5), policy=policy)
            if decision.reason is not RulingReason.UNDECIDED:
                break
            seats = decision.seats
        wrong += decision.canonical == b"wrong"
        runs += len(values)
    low, _ = clopper_pearson(wrong, trials, confidence=0.999)
    assert low <= decision.bound.error
    assert decision.bound.bad == 0.2
    assert runs / trials == pytest.approx(decision.bound.runs, rel=0.05)


def test_a_lone_trusted_worker_is_provisional_until_its_window_is_cleared() -> None:
    """Trust lets a worker run alone; only a cleared window makes its answer final."""
    policy = Adaptive(bad=0.1, newcomers=FirstToMatch(bad=0.1, matches=3))
    (ballot,) = ballots([b"a"])

    def lone(standing: Standing) -> VoteDecision:
        return decide(
            [ballot],
            agreement=Exact(size=1),
            policy=policy,
            requested=1,
            beacon=BEACON,
            standings={ballot.worker: standing},
        )

    assert lone(Standing(passed=10)).reason is RulingReason.AUDIT
    assert lone(Standing(passed=10)).outcome is VoteOutcome.INDETERMINATE
    assert lone(Standing(passed=10, cleared=True)).canonical == b"a"
    assert lone(Standing(cleared=True)).reason is RulingReason.UNDECIDED


class Lenient(QuorumPolicy):
    """A policy that would accept anything."""

    assurance = FixedSize(bad=0.1, size=1).assurance

    def first(self, candidates: Sequence[Standing] = ()) -> int:
        return 1

    def rule(self, poll: Poll) -> Ruling:
        return Ruling(RulingReason.AGREED)


def test_a_beacon_of_16_bytes_is_long_enough() -> None:
    assert vote([1, 1, 1], beacon=bytes(16)).outcome is VoteOutcome.ACCEPT


MISTAKES: dict[str, tuple[str, Callable[[], Any]]] = {
    "twice": ("two ballots", lambda: vote_with([*ballots([1]), *ballots([1])], 3)),
    "twice, differing": ("two ballots", lambda: vote_with([*ballots([1]), *ballots([2])], 3)),
    "unrequested": ("only 2 were requested", lambda: vote_with(ballots([1, 1, 1]), 2)),
    "beyond the bound": ("covers 1 to 3", lambda: vote_with(ballots([1, 1, 1]), 4)),
    "short beacon": ("16 bytes", lambda: vote([1], beacon=bytes(15))),
    "minority policy": ("strict majority", lambda: vote([1, 9], policy=Lenient())),
    "median, twice": (
        "two ballots",
        lambda: coordinate_median(ballots([1]) * 2, agreement=SCALAR),
    ),
    "median of none": ("no well-formed", lambda: coordinate_median([], agreement=SCALAR)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_of_the_coordinator_are_refused(name: str) -> None:
    """A double vote that was let through, and votes that were never requested."""
    match, call = MISTAKES[name]
    with pytest.raises(ValueError, match=match):
        call()


WRONG_TYPES: dict[str, Callable[[], Any]] = {
    "policy must be a QuorumPolicy, got str": lambda: vote([1, 9], policy="first"),  # type: ignore[arg-type]
    "agreement must be an Agreement": lambda: decide(
        ballots([1]), agreement=None, policy=Lenient(), requested=1, beacon=BEACON
    ),  # type: ignore[arg-type]
    "beacon must be bytes, got str": lambda: vote([1], beacon="0" * 32),  # type: ignore[arg-type]
    "the worker of a ballot must be bytes, got str": lambda: vote_with([Ballot("a", 1)], 1),  # type: ignore[arg-type]
    "a ballot must be a Ballot, got tuple": lambda: vote_with([(b"a", 1)], 1),  # type: ignore[list-item]
    "requested must be an int": lambda: vote_with(ballots([1]), "1"),  # type: ignore[arg-type]
    "agreement must be a Tolerance, got str": lambda: coordinate_median(
        ballots([1]), agreement="exact"
    ),  # type: ignore[arg-type]
    "a ballot must": lambda: coordinate_median([1.0], agreement=SCALAR),  # type: ignore[list-item]
}


@pytest.mark.parametrize("message", WRONG_TYPES)
def test_wrong_types_are_refused_before_any_vote_is_counted(message: str) -> None:
    with pytest.raises(TypeError, match=message):
        WRONG_TYPES[message]()


SCALAR = Tolerance.usual(shape=(), dtype="float64")


def vote_with(cast: list[Ballot], requested: int) -> VoteDecision:
    return decide(
        cast,
        agreement=LINE,
        policy=FixedSize(bad=0.1, size=3),
        requested=requested,
        beacon=BEACON,
    )


# --- median ---------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 9), st.data())
def test_the_median_lies_in_the_honest_range(count: int, data: Any) -> None:
    tolerated = (count - 1) // 2
    bad = data.draw(st.integers(0, tolerated))
    numbers = st.floats(-1e6, 1e6, width=32)
    rows = st.lists(numbers, min_size=3, max_size=3)
    honest = data.draw(st.lists(rows, min_size=count - bad, max_size=count - bad))
    anything = st.one_of(
        rows, st.lists(st.sampled_from([math.nan, math.inf, 3e38, -3e38]), min_size=3, max_size=3)
    )
    hostile = data.draw(st.lists(anything, min_size=bad, max_size=bad))
    values = [np.array(row, np.float32) for row in data.draw(st.permutations(honest + hostile))]
    agreement = Tolerance.usual(shape=(3,), dtype="float32")
    median = coordinate_median(ballots(values), agreement=agreement)
    lows, highs = np.min(honest, axis=0), np.max(honest, axis=0)
    assert (lows <= median.value).all()
    assert (median.value <= highs).all()
    assert median.value.dtype == np.float32
    assert median.tolerates == (median.ballots - 1) // 2
    for column, coordinate in enumerate(median.value):
        assert coordinate in [value[column] for value in values]
