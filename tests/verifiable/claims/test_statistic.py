"""The verdict on one statistic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from verifiable.claims.products.product import Product
from verifiable.claims.statistic import Statistic, judge, worst_row
from verifiable.report import Verdict

# --------------------------------------------------------------------------------------- judge


def statistic(**changes: Any) -> Statistic:
    fine = Statistic(
        worst=np.float64(0.5),
        row=np.int32(0),
        passed=np.True_,
        finite_claim=np.True_,
        in_range=np.True_,
        finite_operands=np.True_,
    )
    return fine._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({}, Verdict.ACCEPT, "ok"),
        ({"worst": np.float64(1.0)}, Verdict.ACCEPT, "ok"),
        ({"worst": np.float64(1.0000001)}, Verdict.REJECT, "claim-mismatch"),
        ({"worst": np.float64(np.nan)}, Verdict.REJECT, "claim-mismatch"),
        ({"worst": np.float64(np.inf)}, Verdict.REJECT, "claim-mismatch"),
        ({"passed": np.False_}, Verdict.REJECT, "claim-mismatch"),
        ({"finite_claim": np.False_}, Verdict.REJECT, "claim-nonfinite"),
        ({"in_range": np.False_}, Verdict.REJECT, "claim-range"),
        ({"finite_operands": np.False_}, Verdict.INDETERMINATE, "nonfinite-operand"),
        (
            {"finite_operands": np.False_, "passed": np.False_},
            Verdict.REJECT,
            "claim-mismatch",
        ),
    ],
)
def test_only_what_passed_everything_is_accepted(
    changes: dict[str, Any], verdict: Verdict, reason: str
):
    assert judge(statistic(**changes), Product.mismatch) == (verdict, reason)


def test_a_statistic_that_is_no_number_names_its_own_row():
    """A row beyond the last one could not be accused: evidence of it would be malformed."""
    worst, row, passed = worst_row(np.array([0.0, np.nan, 0.5]))
    assert (worst, row, passed) == (np.inf, 1, False)
