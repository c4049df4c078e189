"""Reports on texts: what they print, and what they raise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from verifiable.errors import Rejected, Undecided
from verifiable.generation import TEXT_REASONS, TextReport, TokenState
from verifiable.report import REASONS, Verdict

ACCEPTED = TextReport(
    verdict=Verdict.ACCEPT,
    reason="ok",
    tokens=(4, 5, 6),
    states=(TokenState.RIGHT, TokenState.NEAR_TIE, TokenState.RIGHT),
    near_candidates=1,
)


def test_an_accepted_text_counts_its_near_ties():
    assert ACCEPTED.require() is ACCEPTED
    assert ACCEPTED.near_ties == 1
    assert str(ACCEPTED).splitlines() == [
        "accept: ok",
        "3 tokens: 2 right, 1 near-tie",
        "1 more with a near-tie of the last candidate only",
    ]


def test_a_text_without_listed_near_ties_says_so():
    report = replace(ACCEPTED, listed=False, decision_ties=2)
    assert str(report).splitlines()[-1].endswith("within slack: 2")


def test_a_report_in_a_notebook_has_each_token_and_no_markup_of_a_device():
    page = ACCEPTED._repr_html_()
    assert "#1a7f37" in page
    assert "<tr><td>1</td><td>5</td><td>near-tie</td></tr>" in page
    refused = TextReport(
        verdict=Verdict.REJECT, reason="text-range", message="<script>", tokens=(4,)
    )._repr_html_()
    assert "#cf222e" in refused
    assert "<script>" not in refused
    assert "<table>" not in refused


@pytest.mark.parametrize("reason", [r for r in TEXT_REASONS if r != "ok"])
def test_a_rejected_text_says_why(reason: str):
    report = TextReport(verdict=Verdict.REJECT, reason=reason)
    with pytest.raises(Rejected, match=reason):
        report.require()
    with pytest.raises(Rejected, match="token 3"):
        TextReport(verdict=Verdict.REJECT, reason=reason, message="token 3").require()


def test_an_undecided_text_is_not_accepted():
    report = TextReport(verdict=Verdict.INDETERMINATE, reason="ill-conditioned", message="x")
    with pytest.raises(Undecided):
        report.require()
    with pytest.raises(TypeError, match="no truth value"):
        bool(report)


def test_reasons_of_texts_are_no_reasons_of_runs():
    assert set(TEXT_REASONS) & set(REASONS) == {"ok"}
