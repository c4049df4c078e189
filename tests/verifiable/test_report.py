"""Verdicts and the reports that carry them."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np
import pytest

from verifiable.claims import freivalds
from verifiable.errors import Rejected, Undecided, VerdictError, VerificationError
from verifiable.report import (
    REASONS,
    ClaimResult,
    Coverage,
    Report,
    Result,
    Verdict,
    require,
    table,
)


@pytest.mark.parametrize("verdict", Verdict)
def test_a_verdict_has_no_truth_value(verdict: Verdict):
    """So that neither `if report.verdict` nor `not report.verdict` can be taken for a check."""
    for test in (bool, lambda v: not v, lambda v: v and True, lambda v: 1 if v else 0):
        with pytest.raises(TypeError, match="three values"):
            test(verdict)
    with pytest.raises(TypeError, match="three values"):
        all([verdict])


def test_verdicts_are_their_names():
    assert [v.value for v in Verdict] == ["accept", "reject", "indeterminate"]
    assert Verdict.ACCEPT == "accept"
    assert str(Verdict.REJECT) == "reject"
    assert f"{Verdict.INDETERMINATE}" == "indeterminate"
    assert json.loads(json.dumps({"verdict": Verdict.ACCEPT})) == {"verdict": "accept"}
    assert Verdict("reject") is Verdict.REJECT
    assert len({*Verdict}) == 3
    with pytest.raises(ValueError, match="maybe"):
        Verdict("maybe")


def test_reasons_are_stable_codes_with_a_text():
    assert "ok" in REASONS
    for code, text in REASONS.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
        assert text
        assert not text.endswith(".")


# --------------------------------------------------------------------------------------- require


def test_what_is_required():
    require(Verdict.ACCEPT, "ok", "")
    for verdict, error in ((Verdict.REJECT, Rejected), (Verdict.INDETERMINATE, Undecided)):
        with pytest.raises(error, match="claim-mismatch: because") as caught:
            require(verdict, "claim-mismatch", "because")
        assert caught.value.reason == "claim-mismatch"
        assert isinstance(caught.value, VerdictError)
        assert isinstance(caught.value, VerificationError)
        assert not isinstance(caught.value, ValueError | TypeError)


def test_whatever_is_no_acceptance_raises():
    with pytest.raises(Undecided):
        require("accepted", "ok", "")  # type: ignore[arg-type]
    with pytest.raises(Undecided):
        require(None, "ok", "")  # type: ignore[arg-type]


def result(**changes: Any) -> Result:
    return Result(**({"verdict": Verdict.REJECT, "reason": "claim-mismatch"} | changes))


def test_a_result_without_a_measurement_is_no_pass():
    assert math.isinf(result().worst)
    assert result().bound is None
    with pytest.raises(Rejected, match="worst ratio inf"):
        result().require()
    with pytest.raises(Rejected, match="got another shape"):
        result(message="got another shape").require()
    result(verdict=Verdict.ACCEPT, reason="ok").require()


# --------------------------------------------------------------------------------------- reports

COVERAGE = Coverage(checked=900, replayed=100, discontinuities=("layer/round", "top_k"))
BOUND = freivalds.bound(1e-9, 1000, 16)
CLAIMS = (
    ClaimResult(name="layer/dot_general", verdict=Verdict.ACCEPT, reason="ok", worst=0.25, row=3),
    ClaimResult(
        name="layer/dot_general.2",
        verdict=Verdict.REJECT,
        reason="claim-mismatch",
        worst=1234.5,
        row=17,
        trip=2,
    ),
    ClaimResult(name="output", verdict=Verdict.ACCEPT, reason="ok", worst=0.0),
)


def report(**changes: Any) -> Report:
    fields: dict[str, Any] = {
        "verdict": Verdict.REJECT,
        "reason": "claim-mismatch",
        "coverage": COVERAGE,
        "claim": "layer/dot_general.2",
        "worst": 1234.5,
        "results": CLAIMS,
        "bound": BOUND,
        "y": np.arange(5000.0),
    }
    return Report(**(fields | changes))


def test_a_report_prints_as_a_table():
    text = str(report())
    lines = text.splitlines()
    assert lines[0] == "reject: claim-mismatch at layer/dot_general.2"
    assert lines[1].split() == ["claim", "verdict", "reason", "worst", "trip", "row"]
    assert lines[3].split()[:4] == ["layer/dot_general", "accept", "ok", "0.25"]
    assert lines[4].split() == [
        "layer/dot_general.2",
        "reject",
        "claim-mismatch",
        "1.23e+03",
        "2",
        "17",
    ]
    assert "checked by claim 90.0% of the arithmetic, replayed 10.0%" in lines
    assert "discontinuities: layer/round, top_k" in lines
    assert f"{BOUND.kappa():.3g} sigma" in lines[-1]
    assert "16 draws, 1000 rows" in lines[-1]


def test_a_report_of_what_could_not_be_read_prints_too():
    short = report(
        reason="claim-missing", message="the program has 3 claims, got 2", results=(), claim=None,
        bound=None, y=None, coverage=Coverage(checked=0, replayed=0), worst=float("inf"),
    )  # fmt: skip
    lines = str(short).splitlines()
    assert lines[:2] == ["reject: claim-missing", "the program has 3 claims, got 2"]
    assert "0.0%" in lines[2]
    assert len(lines) == 3


def test_a_report_can_be_required():
    report(verdict=Verdict.ACCEPT, reason="ok").require()
    with pytest.raises(Rejected, match=r"layer/dot_general\.2: a claim is not the product"):
        report().require()
    with pytest.raises(Undecided, match="trip-limit"):
        report(verdict=Verdict.INDETERMINATE, reason="trip-limit", claim=None).require()
    with pytest.raises(Rejected, match="because"):
        report(message="because").require()


def test_a_report_cannot_be_changed_and_does_not_show_the_answer():
    with pytest.raises(dataclasses.FrozenInstanceError):
        report().verdict = Verdict.ACCEPT  # type: ignore[misc]
    assert "4999" not in repr(report())
    assert report().y[-1] == 4999


@pytest.mark.parametrize(
    ("checked", "replayed", "share"), [(0, 0, 0.0), (3, 1, 0.75), (0, 5, 0.0), (5, 0, 1.0)]
)
def test_the_share_that_claims_cover(checked: int, replayed: int, share: float):
    assert Coverage(checked=checked, replayed=replayed).share == share


def test_tables_are_aligned():
    assert table([("a", "bcd"), ("wide", "x")]).splitlines() == [
        "a     bcd",
        "----  ---",
        "wide  x",
    ]
    with pytest.raises(ValueError, match="zip"):
        table([("a",), ("b", "c")])


def test_a_report_has_no_truth_value():
    report = Report(verdict=Verdict.REJECT, reason="claim-mismatch", coverage=COVERAGE)
    with pytest.raises(TypeError, match=r"report\.require\(\)"):
        assert report
    with pytest.raises(TypeError, match=r"report\.require\(\)"):
        _ = "paid" if not report else "unpaid"
