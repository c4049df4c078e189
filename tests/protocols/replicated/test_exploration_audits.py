"""Audits of which any subset is answered, in any order, for up to five ballots.

From the state in which ballots disagree, every set of answered audits is reached by every order of
its answers, and from each the deadline may come. What the job then ends with is compared with a
slow oracle of the specification. Of four ballots and five, the suite explores some scenarios, and
`uv run pytest --exhaustive` all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from protocols.messages import Reason
from protocols.replicated import (
    Audited,
    Blame,
    Conclude,
    Effect,
    Phase,
    Received,
    Refuse,
    State,
    Tick,
    step,
)
from tests.helpers.jobs import LIE, TRUTH, WORKERS, Run, answer, metric, number, rules, signed
from verifiable.encoding import tagged_hash
from verifiable.report import Verdict
from verifiable.voting.quorum import FixedSize

ACCEPT, REJECT, NOTHING = Verdict.ACCEPT, Verdict.REJECT, Verdict.INDETERMINATE
OTHER = b"O" * 32


class Voter(NamedTuple):
    """A ballot, and what its audit finds if it is answered."""

    value: bytes
    verdict: Verdict
    convicted: bool = False


HONEST, FRAMED, VAGUE = Voter(TRUTH, ACCEPT), Voter(TRUTH, REJECT), Voter(TRUTH, NOTHING)
# Another answer that is right as well, and wrong ones.
BESIDE, LYING, UNSHOWN = Voter(OTHER, ACCEPT), Voter(LIE, REJECT, True), Voter(LIE, REJECT)
KINDS = {
    "honest": HONEST,
    "framed": FRAMED,
    "vague": VAGUE,
    "beside": BESIDE,
    "lying": LYING,
    "unshown": UNSHOWN,
}
# In order, neighbours agree within the tolerance, and the first and the third do not.
NEAR = {
    "low": Voter(number(1.0), ACCEPT),
    "middle": Voter(number(1.0008), ACCEPT),
    "high": Voter(number(1.0016), ACCEPT),
    "vague": Voter(number(1.0008), NOTHING),
    "lying": Voter(number(3.0), REJECT, True),
}
NUMBERS = {number(x): x for x in (1.0, 1.0008, 1.0016, 3.0)}


def equal(a: bytes, b: bytes) -> float:
    return 0.0 if a == b else 9.0


def relative(a: bytes, b: bytes) -> float:
    x, y = NUMBERS[a], NUMBERS[b]
    return abs(x - y) / max(x, y) / 1e-3


class End(NamedTuple):
    """What a job ends with."""

    reason: Reason
    value: bytes | None
    group: tuple[bytes, ...]


def oracle(
    voters: Sequence[Voter],
    answered: frozenset[int],
    beacon: bytes,
    distance: Callable[[bytes, bytes], float],
) -> End:
    """specs/replicated.md, judgment, and specs/voting.md, 2, for a vote that cannot grow."""
    rejected = {i for i in answered if voters[i].verdict is REJECT}
    accepted = [i for i in answered if voters[i].verdict is ACCEPT]
    standing = [i for i in range(len(voters)) if i not in rejected]

    def far(i: int, j: int) -> float:
        return distance(voters[i].value, voters[j].value)

    def tie(i: int) -> bytes:
        return tagged_hash("vote tie", beacon, WORKERS[i])

    support = {i: [j for j in standing if far(i, j) <= 1] for i in standing}
    candidates = [i for i in standing if 2 * len(support[i]) > len(voters)]
    # The score of a medoid; under equality all ballots of a group hold the same answer.
    score = {i: round(sum(min(far(i, j), 2) for j in standing), 9) for i in standing}
    chosen = min(candidates, key=lambda i: (score[i], tie(i)), default=None)
    group = [] if chosen is None else support[chosen]
    if accepted:
        winner = min(accepted, key=lambda i: (i != chosen, i not in group, tie(i)))
        reason = Reason.AUDITED
    elif chosen is not None:
        winner, reason = chosen, Reason.AGREED
    else:
        # The ballots that would settle it have vacant seats, for which nobody is left, or have not.
        lacking = len(voters) // 2 + 1 - max(map(len, support.values()), default=0)
        vacant = len(standing) + lacking <= len(voters)
        return End(Reason.NO_WORKERS if vacant else Reason.EXHAUSTED, None, ())
    workers = tuple(sorted(WORKERS[i] for i in support[winner]))
    return End(reason, voters[winner].value, workers)


def disagreeing(voters: Sequence[Voter], run: Run, beacon: bytes) -> State | None:
    """The state in which audits are asked for, or None if the ballots agree."""
    for worker, voter in zip(WORKERS, voters, strict=False):
        run.send(answer(worker, voter.value).commit)
    for worker, voter in zip(WORKERS, voters, strict=False):
        run.send(answer(worker, voter.value))
    run.draw(beacon)
    return run.state if run.state.phase is Phase.AUDIT else None


def explore(
    voters: Sequence[Voter], run: Run, beacon: bytes, distance: Callable[[bytes, bytes], float]
) -> int:
    """Visit every set of answers in every order; returns how many sets there are."""
    first = disagreeing(voters, run, beacon)
    if first is None:
        return 0
    verdicts = [
        Audited(at=first.now, worker=worker, verdict=voter.verdict, convicted=voter.convicted)
        for worker, voter in zip(WORKERS, voters, strict=False)
    ]
    states: dict[frozenset[int], State] = {frozenset(): first}
    for size, _ in enumerate(voters):
        for answered in map(frozenset, itertools.combinations(range(len(voters)), size)):
            state = states[answered]
            ended, effects = step(state, Tick(at=state.deadline))
            judged(ended, effects, oracle(voters, answered, beacon, distance))
            for i, event in enumerate(verdicts):
                after, effects = step(state, event)
                if i in answered:
                    assert after == state and [*map(type, effects)] == [Refuse]
                    continue
                blamed = [e.commit.message.worker for e in effects if isinstance(e, Blame)]
                assert blamed == ([WORKERS[i]] if voters[i].convicted else [])
                # Whatever the order of the answers, the state is the same.
                assert states.setdefault(answered | {i}, after) == after
                if after.phase is Phase.ENDED:
                    everyone = frozenset(range(len(voters)))
                    assert answered | {i} == everyone
                    judged(after, effects, oracle(voters, everyone, beacon, distance))
    last = states[frozenset(range(len(voters)))]
    late = Received(at=last.now, message=signed(answer(WORKERS[0], LIE)))
    for event in (*verdicts, late):
        assert [*map(type, step(last, event)[1])] == [Refuse]
    return len(states)


def judged(state: State, effects: Sequence[Effect], expected: End) -> None:
    assert state.phase is Phase.ENDED and state.decision is not None
    (end,) = (effect for effect in effects if isinstance(effect, Conclude))
    found = End(state.decision.reason, end.value, state.decision.group)
    assert found == expected


def scenarios(kinds: dict[str, Voter], sizes: Sequence[int]) -> list[tuple[str, ...]]:
    return [
        who
        for size in sizes
        for who in itertools.combinations_with_replacement(kinds, size)
        if len({kinds[name].value for name in who}) > 1
    ]


# Of five ballots, by default: a majority against a lone one, a split, and all that differ.
FIVE = [
    ("honest", "vague", "vague", "vague", "beside"),
    ("vague", "vague", "vague", "beside", "lying"),
    ("honest", "framed", "beside", "lying", "unshown"),
    ("honest", "honest", "beside", "beside", "lying"),
    ("framed", "vague", "beside", "lying", "lying"),
]
NEAR_FIVE = [
    ("low", "middle", "high", "vague", "lying"),
    ("low", "low", "vague", "high", "high"),
]


@pytest.mark.parametrize("beacon", [bytes(16), b"\1" * 16], ids=["one beacon", "another"])
def test_equal_answers(beacon: bytes, request: pytest.FixtureRequest):
    more = request.config.option.exhaustive
    chosen = scenarios(KINDS, (2, 3, 4, 5)) if more else [*scenarios(KINDS, (2, 3)), *FIVE]
    for who in chosen:
        voters = [KINDS[name] for name in who]
        size = len(voters)
        run = Run.of(rules(FixedSize(bad=0.1, size=size), dispatches=size), workers=WORKERS[:size])
        assert explore(voters, run, beacon, equal) == 2**size


@pytest.mark.parametrize("beacon", [bytes(16), b"\1" * 16], ids=["one beacon", "another"])
def test_answers_within_a_tolerance(beacon: bytes, request: pytest.FixtureRequest):
    more = request.config.option.exhaustive
    chosen = scenarios(NEAR, (2, 3, 4, 5)) if more else [*scenarios(NEAR, (2, 3)), *NEAR_FIVE]
    explored = 0
    for who in chosen:
        voters = [NEAR[name] for name in who]
        run = Run.of(metric(len(voters)), workers=WORKERS[: len(voters)])
        explored += explore(voters, run, beacon, relative)
    assert explored > 100
