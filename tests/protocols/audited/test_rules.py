"""Rules of audits of a part: counts and times that mean nothing are refused at the door."""

from dataclasses import replace
from typing import Any

import pytest

from tests.helpers.jobs import PARTIAL

COUNTS = ("layers", "rows", "receipt_seconds", "log_seconds", "opening_seconds", "judging_seconds")


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1, True, 2.0, float("nan"), "8"])
def test_counts_are_positive_integers(name: str, value: Any):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer"):
        replace(PARTIAL, **{name: value})


def test_only_rows_may_be_none():
    assert replace(PARTIAL, rows=None).rows is None
    with pytest.raises(ValueError, match="layers must be a positive integer"):
        replace(PARTIAL, layers=None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_a_rate_is_a_share(rate: float):
    with pytest.raises(ValueError, match=r"lies in \(0, 1\]"):
        replace(PARTIAL, rate=rate)
