"""The sequential test against Wald's bounds and its exact error rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from verifiable.audits import (
    Finding,
    Sprt,
)


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


REFUSED: dict[str, tuple[str, Callable[[], Any]]] = {
    "honest 0": ("0 < honest", lambda: Sprt(honest=0.0, cheating=0.1, alpha=0.01, beta=0.01)),
    "honest above cheating": (
        "honest < cheating",
        lambda: Sprt(honest=0.2, cheating=0.1, alpha=0.01, beta=0.01),
    ),
    "errors of a half": (
        "alpha . beta < 1",
        lambda: Sprt(honest=0.1, cheating=0.2, alpha=0.5, beta=0.5),
    ),
    "negative count": (
        "counts must",
        lambda: Sprt(honest=0.1, cheating=0.2, alpha=0.01, beta=0.01).finding(
            passes=-1, failures=0
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_out_of_range_are_refused(name: str) -> None:
    match, call = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        call()
