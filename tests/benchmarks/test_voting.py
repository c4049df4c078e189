"""What the voting benchmarks compare with: BOINC's rules as described, and when ours is below."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import boinc, voting_error, voting_speed
from benchmarks.voting_error import Point
from protocols.simulation import Kind, Population, VoteStatistics, run_votes
from verifiable.voting.quorum import FirstToMatch


def described(min_quorum: int, results: Iterator[str]) -> tuple[str | None, int]:
    """The quorum in the words of its description: the canonical result, and how many it took."""
    received: list[str] = []
    while len(received) < boinc.MOST_RESULTS:
        received.append(next(results))
        if len(received) < min_quorum:
            continue
        for result in received:  # the first one with enough matches
            if sum(other == result for other in received) >= min_quorum // 2 + 1:
                return result, len(received)
    return None, len(received)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(2, 8),
    st.lists(
        st.sampled_from([Kind.HONEST, Kind.COLLUDER, Kind.SCATTERED, Kind.ERRING]),
        min_size=boinc.MOST_RESULTS,
        max_size=boinc.MOST_RESULTS,
    ),
)
def test_the_simulated_quorum_is_the_described_one(min_quorum: int, kinds: list[Kind]):
    order = iter(kinds)
    found = run_votes(
        boinc.quorum_rule(min_quorum),
        opening=min_quorum,
        jobs=1,
        draw=lambda _: np.array([next(order)]),
    )
    alone = {Kind.SCATTERED, Kind.ERRING}
    names = [f"{k.name} {i}" if k in alone else k.name for i, k in enumerate(kinds)]
    canonical, taken = described(min_quorum, iter(names))
    assert found.runs == taken
    assert found.accepted == (canonical is not None)
    assert found.wrong == (canonical == "COLLUDER")


def test_a_quorum_that_does_not_grow_lets_two_of_many_win():
    """Row 23: where honest answers scatter, a pair of colluders wins sooner or later."""
    population = Population(colluders=0.1, scatter=0.5)
    theirs = boinc.quorum(3, population, jobs=20_000)
    policy = FirstToMatch(bad=0.1, matches=2, limit=15)
    ours = voting_error.simulate_votes(policy, population, jobs=20_000)
    assert theirs.interval()[0] > policy.assurance.error
    assert ours.interval()[0] <= policy.assurance.error


def test_trust_that_is_spent_is_caught_after_cv_cheats():
    """A cheat of a host with CV = 10 is replicated every tenth time, and then mostly lost."""
    found = boinc.adaptive(0.1, share=1.0, slots=500, results=2000)
    # Ten results to earn it, then 1 / (0.1 * 0.81) cheats, all but the last accepted; but where a
    # second or third host colludes, CV grows.
    assert 0.45 < found.error / 0.1 < 0.6
    assert boinc.adaptive(0.1, share=0.0, slots=500, results=500).wrong == 0
    assert found.runs_per_job > 1.0


def measured(wrong: int, runs: float, accepted: int = 10_000) -> VoteStatistics:
    return VoteStatistics(accepted=accepted, wrong=wrong, runs=runs, dispatches=0)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (measured(10, 20_000), measured(500, 20_000), True),
        (measured(10, 20_000), measured(500, 19_000), False),
        (measured(500, 10_000), measured(10, 20_000), False),
        (measured(101, 20_000), measured(100, 20_000), True),
        # Jobs that are given up make no answer cheaper.
        (measured(10, 20_000, accepted=8_000), measured(500, 21_000), False),
    ],
    ids=["fewer errors", "dearer", "more errors", "equal, nearly", "given up"],
)
def test_on_or_below(ours: VoteStatistics, theirs: VoteStatistics, expected: bool):
    assert voting_error.beats(ours, theirs) is expected
    points = [Point("first", "1", "a", ours), Point("BOINC quorum", "2", "a", theirs)]
    rows = {row.measure: row.value for row in voting_error._beside(points)}
    assert rows["on_or_below"] == expected
    assert rows["theirs_wrong"] == theirs.error
    assert rows["ours_runs"] == ours.runs / ours.accepted


def test_a_bound_that_is_exceeded_is_a_bar_that_is_missed():
    rows = {r.measure: r for r in voting_error._against("c", measured(500, 1.0), 0.01, 3.0)}
    assert rows["interval_low"].holds is False
    assert rows["formula"].value == 3.0
    rows = {r.measure: r for r in voting_error._against("c", measured(100, 1.0), 0.01, 3.0)}
    assert rows["interval_low"].holds is True


def test_the_plot_is_the_same_file_each_time(tmp_path: Path):
    pytest.importorskip("matplotlib")
    points = [
        Point(rule, parameter, adversary, measured(wrong, 20_000.0 + wrong))
        for rule in ("sequential", "BOINC quorum")
        for adversary in (voting_error.COLLUDING, voting_error.SPENDING)
        for parameter, wrong in (("2", 40), ("3", 0))
    ]
    for name in ("a.svg", "b.svg"):
        voting_error.plot(points, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert "<svg" in text


def test_the_speed_rows_hold_each_to_the_bar_of_the_claim(monkeypatch: pytest.MonkeyPatch):
    """Every piece of work is run once; how long it took decides nothing here."""

    def once(work: object, repeats: int = 3) -> float:
        assert callable(work)
        work()
        return 1e-3

    monkeypatch.setattr(voting_speed, "_best", once)
    rows = [
        *voting_speed._floats(10),
        *voting_speed._digests(10),
        *voting_speed._messages(10),
    ]
    bars = {row.bar for row in rows}
    assert bars == {"<= 0.5", ">= 100000", ">= 20000", ">= 4000", None}
