"""Verdicts and the reports that carry them."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np
import pytest

from verifiable.claims.products import freivalds
from verifiable.errors import Rejected, Undecided, VerdictError, VerificationError
from verifiable.report import (
    REASONS,
    ClaimResult,
    Corridor,
    Coverage,
    Detection,
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
    assert f"{BOUND.kappa():.3g} sigma" in lines[-2]
    assert "16 draws, 1000 rows" in lines[-2]
    assert "claim-mismatch: a claim is not the product of its operands" in lines
    assert lines[-1].startswith("what to do: pay nothing")
    assert "what to do" not in str(report(verdict=Verdict.ACCEPT, reason="ok"))
    assert "reschedule" in str(report(verdict=Verdict.INDETERMINATE, reason="ill-conditioned"))


def test_a_report_of_what_could_not_be_read_prints_too():
    short = report(
        reason="claim-missing", message="the program has 3 claims, got 2", results=(), claim=None,
        bound=None, y=None, coverage=Coverage(checked=0, replayed=0), worst=float("inf"),
    )  # fmt: skip
    lines = str(short).splitlines()
    assert lines[:2] == ["reject: claim-missing", "the program has 3 claims, got 2"]
    assert lines[2:4] == [f"claim-missing: {REASONS['claim-missing']}", "nothing was checked"]
    assert "nothing was checked</p>" in short.to_html()


def test_a_report_can_be_required():
    report(verdict=Verdict.ACCEPT, reason="ok").require()
    with pytest.raises(Rejected, match=r"layer/dot_general\.2: a claim is not the product"):
        report().require()
    with pytest.raises(Undecided, match="trip-limit"):
        report(verdict=Verdict.INDETERMINATE, reason="trip-limit", claim=None).require()
    with pytest.raises(Rejected, match="because"):
        report(message="because").require()


def test_the_ratio_of_an_error_is_the_named_claims_own():
    """The largest of all belongs to a claim that was not looked at, or to one that follows."""
    worse = dataclasses.replace(CLAIMS[1], name="next", worst=1e9)
    with pytest.raises(Rejected, match=r"layer/dot_general\.2: .*ratio 1\.23e\+03\)"):
        report(worst=1e9, results=(*CLAIMS, worse)).require()
    with pytest.raises(Undecided, match=r"allows$"):  # a loop that was cut short has no ratio
        report(verdict=Verdict.INDETERMINATE, reason="trip-limit", claim="while").require()


def test_claims_that_were_not_looked_at_are_explained():
    left = dataclasses.replace(CLAIMS[1], name="next", verdict=Verdict.INDETERMINATE)
    made = report(results=(*CLAIMS, left, dataclasses.replace(left, reason="ill-conditioned")))
    text = "not looked at again since the run is wrong already: 1"
    assert text in str(made)
    assert text in made.to_html()
    assert "looked at again" not in str(report()) + report().to_html()


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


def test_a_result_has_no_truth_value_and_require_returns_it():
    passed = result(verdict=Verdict.ACCEPT, reason="ok")
    assert passed.require() is passed
    for made in (passed, result()):
        with pytest.raises(TypeError, match=r"result\.require\(\)"):
            bool(made)


def test_a_report_becomes_json_without_the_answer():
    made = report(worst=math.inf, results=(*CLAIMS, dataclasses.replace(CLAIMS[0], worst=math.nan)))
    found = json.loads(made.to_json())
    assert found == json.loads(json.dumps(made.to_dict()))
    assert "y" not in found
    assert (found["verdict"], found["reason"], found["worst"]) == ("reject", "claim-mismatch", None)
    assert [r["worst"] for r in found["results"]] == [0.25, 1234.5, 0.0, None]
    assert found["results"][1]["discontinuities"] == []
    assert found["coverage"]["share"] == 0.9
    assert found["bound"]["draws"] == 16
    assert found["corridor"] is None


def test_a_corridor_becomes_json_without_its_function():
    corridor = Corridor(margin=math.nan, reach=2.0, kappa=3.0, shares=(("a", 2.0),), answer=len)
    found = json.loads(report(corridor=corridor).to_json())["corridor"]
    assert found == {
        "margin": None, "reach": 2.0, "kappa": 3.0, "within": True, "shares": [["a", 2.0]]
    }  # fmt: skip


def test_html_escapes_everything():
    evil = "<script>alert('x')</script>"
    claim = dataclasses.replace(CLAIMS[0], name=evil, reason=evil, discontinuities=(evil,))
    text = report(message=evil, claim=evil, reason=evil, results=(claim,))._repr_html_()
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 6
    assert "#cf222e" in text
    assert "#1a7f37" in report(verdict=Verdict.ACCEPT, reason="ok")._repr_html_()


def test_half_of_a_few_layers_is_a_number_of_layers():
    for layers, audited, text in (
        (1, 1, "1 of 1 layers were audited: one wrong unit is met with probability 1"),
        (3, 1, "1 of 3 layers were audited: one wrong unit is met with probability 0.333"),
        (4, 1, "probability 0.25, 2 wrong layers with 0.5"),
        (5, 1, "probability 0.2, 2 wrong layers with 0.4"),
    ):
        assert str(Detection(layers=layers, audited=audited)).endswith(text)


def test_detection_is_that_of_a_draw_without_replacement():
    for layers, audited in ((30, 1), (30, 4), (4, 4)):
        found = Detection(layers=layers, audited=audited)
        assert found.choosing == audited / layers
        assert found.lazy(1 / layers) == pytest.approx(found.choosing)
        for wrong in range(1, layers + 1):
            missed = math.prod(max(layers - wrong - i, 0) / (layers - i) for i in range(audited))
            assert found.lazy(wrong / layers) == pytest.approx(1 - missed)
    for layers, audited in ((0, 0), (3, 0), (3, 4)):
        with pytest.raises(ValueError, match="audited layers"):
            Detection(layers=layers, audited=audited)
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="share"):
            Detection(layers=3, audited=1).lazy(share)
    for rows in ({"rows": 8, "audited_rows": 0}, {"rows": 8, "audited_rows": 9}):
        with pytest.raises(ValueError, match="audited rows"):
            Detection(layers=3, audited=1, **rows)


def test_detection_counts_rows_by_their_blocks():
    found = Detection(layers=30, audited=2, rows=128, audited_rows=8, block=8)
    assert found.choosing == 2 / 30 * 8 / 128
    assert found.everywhere == pytest.approx(1 - (15 / 16) ** 2)
    assert found.lazy(0.5) == Detection(layers=30, audited=2).lazy(0.5)
    assert dataclasses.replace(found, apart=False).everywhere == 1 / 16
    # Of 13 blocks, the last of which has 4 rows of its own.
    assert dataclasses.replace(found, rows=100).row == 1 / 13
    assert "8 of 128 rows of each:" in str(found)
    assert found.answering == found.choosing
    answered = dataclasses.replace(found, audited_rows=24, answer_rows=8)
    assert (answered.row, answered.answering) == (2 / 15, 2 / 30)
    assert "24 of 128 rows of each with 8 of the answer" in str(answered)
    for rows in (-1, 8):
        with pytest.raises(ValueError, match="rows of the answer"):
            dataclasses.replace(found, answer_rows=rows)
    assert found.to_dict()["everywhere"] == found.everywhere
    assert "everywhere" not in Detection(layers=30, audited=2).to_dict()


@pytest.mark.parametrize("claim", ["dot_general", None])
def test_evidence_is_recommended_only_where_a_claim_or_output_was_rejected(claim):
    said = str(report(reason="other-parameters", claim=claim))
    assert "pay nothing, repeat the job" in said
    assert ("evidence_of" in said) is (claim is not None)
