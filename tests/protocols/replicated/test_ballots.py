"""Ballots that stand: which of several right ones wins, and values that no code can read."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.messages import Reason
from protocols.replicated import Phase, Rules
from tests.helpers.jobs import LIE, TRUTH, WORKERS, Run, answer, metric, number, rules
from tests.helpers.wire import anything
from verifiable import encoding
from verifiable.report import Verdict
from verifiable.voting.agreement import Agreement, Argmax, Equality, Exact, Tolerance, Within
from verifiable.voting.quorum import FixedSize
from verifiable.voting.tokens import Tokens

FIVE = WORKERS[:5]


def voted(config: Rules, values: dict[bytes, bytes], beacon: int = 0) -> Run:
    """All commit and reveal, and the beacon has this value."""
    run = Run.of(config, workers=list(values))
    for worker, value in values.items():
        run.send(answer(worker, value).commit)
    for worker, value in values.items():
        run.send(answer(worker, value))
    run.draw(bytes([beacon]) * 16)
    return run


def of_equals() -> tuple[Rules, dict[bytes, bytes], bytes]:
    values = dict(zip(FIVE, [TRUTH] * 4 + [LIE], strict=True))
    return rules(FixedSize(bad=0.1, size=5), dispatches=5), values, TRUTH


def of_near() -> tuple[Rules, dict[bytes, bytes], bytes]:
    # The first is the medoid of the four.
    near = [1.0004, 1.0, 1.0003, 1.0008, 3.0]
    return metric(5), dict(zip(FIVE, map(number, near), strict=True)), number(1.0008)


@pytest.mark.parametrize("beacon", range(8))
@pytest.mark.parametrize("case", [of_equals, of_near])
def test_a_majority_whose_first_member_is_offline_beats_a_lone_ballot(
    case: Callable[[], Any], beacon: int
):
    """All audits that are answered pass: by the beacon alone, the fifth would win half of them."""
    config, values, expected = case()
    run = voted(config, values, beacon)
    for worker in FIVE[:3]:
        run.audit(worker, Verdict.INDETERMINATE)
    for worker in FIVE[3:]:
        run.audit(worker, Verdict.ACCEPT)
    assert run.end.value == expected
    assert run.end.decision.group == tuple(FIVE[:4])
    assert run.end.decision.dissenters == (FIVE[4],)


@pytest.mark.parametrize("case", [of_equals, of_near])
def test_a_group_without_an_accepted_ballot_loses_to_one_that_has(case: Callable[[], Any]):
    config, values, _ = case()
    run = voted(config, values)
    for worker in FIVE[:4]:
        run.audit(worker, Verdict.INDETERMINATE)
    run.audit(FIVE[4], Verdict.ACCEPT)
    assert run.end.value == values[FIVE[4]]
    assert run.end.decision.group == (FIVE[4],)


def test_without_a_group_the_beacon_chooses_among_accepted_ballots():
    values = dict(zip(FIVE, [bytes([i]) * 32 for i in (1, 1, 2, 2, 3)], strict=True))
    found: set[bytes | None] = set()
    for beacon in range(8):
        run = voted(rules(FixedSize(bad=0.1, size=5), dispatches=5), values, beacon)
        for worker in FIVE:
            accepted = worker in FIVE[1:3]
            run.audit(worker, Verdict.ACCEPT if accepted else Verdict.INDETERMINATE)
        assert run.end.decision.reason is Reason.AUDITED
        found.add(run.end.value)
    assert found == {bytes([1]) * 32, bytes([2]) * 32}


# Values that raise where they are read or compared.


def decoded(data: bytes) -> Any:
    return encoding.decode(data, max_size=100)


class Unhashable(Equality):
    """Reads lists as they are, which no dictionary takes."""

    def read(self, value: Any) -> Hashable | None:
        return value


def _far(a: Any, b: Any) -> float:
    if "bad" in (a, b):
        raise ZeroDivisionError
    return 0.0 if a == b else 9.0


def _negative(a: Any, b: Any) -> float:
    return -1.0 if "bad" in (a, b) else 0.0 if a == b else 9.0


def _recursive(a: Any) -> bool:
    return _recursive(a) if a == "bad" else True


TOKENS = Tokens(vocabulary=10, longest=4)
HOSTILE: dict[str, tuple[Agreement, Any, Any]] = {
    "tokens: an integer": (TOKENS, [1, 2], 7),
    "tokens: null": (TOKENS, [1, 2], None),
    "tokens: text": (TOKENS, [1, 2], "12"),
    "tokens: a map": (TOKENS, [1, 2], {"0": 1}),
    "tokens: nested": (TOKENS, [1, 2], [[1, 2]]),
    "exact: an integer": (Exact(size=2), b"ab", 7),
    "exact: null": (Exact(size=2), b"ab", None),
    "exact: text": (Exact(size=2), b"ab", "ab"),
    "a reading that cannot be hashed": (Unhashable(), 1, [1]),
    "a distance that raises": (Within(distance=_far, well_formed=bool), "good", "bad"),
    "a negative distance": (Within(distance=_negative, well_formed=bool), "good", "bad"),
    "a distance of text": (
        Within(distance=lambda a, b: abs(a - b), well_formed=lambda _: True),
        1,
        "bad",
    ),
    "endless recursion": (Within(distance=_far, well_formed=_recursive), "good", "bad"),
    "bytes that do not decode": (Exact(size=2), b"ab", ...),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_value_that_raises_is_a_malformed_ballot(name: str):
    """`step` raises nothing, whatever the first ballot holds; the honest majority stands."""
    agreement, honest, hostile = HOSTILE[name]
    good = encoding.encode(honest)
    bad = b"\xff" if hostile is ... else encoding.encode(hostile)
    config = rules(FixedSize(bad=0.1, size=3), agreement=agreement, decode=decoded)
    for cheat in WORKERS[:3]:
        run = voted(config, {w: bad if w == cheat else good for w in WORKERS[:3]})
        assert run.state.phase is Phase.AUDIT
        run.wait()
        assert run.end.value == good
        assert run.end.decision.dissenters == (cheat,)
    # The same three ballots without the cheat agree at once.
    run = voted(config, dict.fromkeys(WORKERS[:3], good))
    assert run.end.decision.group == tuple(WORKERS[:3])
    assert run.end.decision.reason is Reason.AGREED


AGREEMENTS: dict[str, Agreement] = {
    "tokens": TOKENS,
    "exact": Exact(size=2),
    "argmax": Argmax(shape=(2,)),
    "tolerance": Tolerance(shape=(2,), dtype="float64", relative=0.1),
    "a naive distance": Within(distance=lambda a, b: abs(a - b), well_formed=lambda _: True),
}


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(AGREEMENTS)),
    st.lists(anything.map(encoding.encode) | st.binary(max_size=20), min_size=3, max_size=3),
    st.sets(st.integers(0, 2)),
)
def test_step_raises_nothing_whatever_devices_sent(
    name: str, values: list[bytes], answered: set[int]
):
    """The caller's decoder returns what was sent, of whatever type: it forgot to check."""
    config = rules(FixedSize(bad=0.1, size=3), agreement=AGREEMENTS[name], decode=decoded)
    run = voted(config, dict(zip(FIVE, values, strict=False)))
    for i in answered:
        run.audit(FIVE[i], Verdict.ACCEPT)
    while run.state.phase is not Phase.ENDED:
        run.wait()
    assert run.end.value is None or run.end.decision.group


def test_a_decoder_that_fails_on_everything_ends_the_job_without_an_answer():
    def broken(_: bytes) -> Any:
        raise KeyError("missing")

    run = voted(rules(FixedSize(bad=0.1, size=3), decode=broken), dict.fromkeys(FIVE[:3], TRUTH))
    for worker in FIVE[:3]:
        run.audit(worker, Verdict.ACCEPT)
    assert run.end.value is None


def test_ballots_compared_in_pairs_decide_as_ballots_compared_at_once():
    """One comparison that raises changes nothing between the others."""

    def distance(a: Any, b: Any) -> float:
        if "bad" in (a, b):
            raise ArithmeticError
        return abs(a - b)

    agreement = Within(distance=distance, well_formed=lambda _: True)
    config = rules(FixedSize(bad=0.1, size=5), agreement=agreement, decode=decoded, dispatches=5)
    numbers = [0.0, 0.75, 1.5, 9.0]
    honest = dict(zip(FIVE, [*map(encoding.encode, numbers), encoding.encode(20.0)], strict=True))
    broken = honest | {FIVE[4]: encoding.encode("bad")}
    ends: list[Any] = []
    for values in (honest, broken):
        run = voted(config, values)
        run.wait()
        ends.append((run.end.value, run.end.decision.group))
    assert ends[0] == ends[1] == (encoding.encode(0.75), tuple(FIVE[:3]))
    assert math.isfinite(distance(0.0, 9.0))
