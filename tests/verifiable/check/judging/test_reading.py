"""What a reader of a report, a judgement and the log is told of a run that is wrong."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.runs import ACCEPT, INDETERMINATE, REJECT, SECRET_SEED
from verifiable import challenge, program
from verifiable.check.judging.evidence import evidence_of, verify_evidence
from verifiable.policy import Policy
from verifiable.report import Report
from verifiable.submission import Submission
from verifiable.trace import commit

RNG = np.random.default_rng(5)
W = (RNG.standard_normal((32, 32)) / 6).astype(np.float32)
X = RNG.standard_normal((8, 32)).astype(np.float32)


def model(w: Any, x: Any) -> Any:
    hidden = jnp.tanh(x @ w)
    return jnp.argmax(jnp.tanh(hidden @ w) @ w, -1)


PROGRAM = program.compile(model, W, X, policy=Policy(draws=1), self_test=False)
KEY = PROGRAM.setup(W, challenge.secret(SECRET_SEED))
HONEST = PROGRAM.prove(W, X)


def judged(*changes: tuple[int, Any, float], y: Any = None) -> tuple[Report, Submission]:
    """The report on a run with another answer, or with changes of claims."""
    y = HONEST.y if y is None else y
    values = [np.array(v) for v in HONEST.trace.values]
    for index, place, value in changes:
        values[index][place] = value
    trace = replace(HONEST.trace, values=tuple(values))
    sent = replace(HONEST, y=y, trace=trace, commitment=commit(y, trace).commitment)
    return PROGRAM.verify(KEY, X, sent, commitment=sent.commitment), sent


def test_an_honest_run_is_accepted():
    assert judged()[0].verdict is ACCEPT


def test_what_was_not_judged_behind_nan_is_not_called_accepted():
    """Neither numbers where no device has any, nor NaN that is handed on to the end."""
    for wrong, unjudged in (((0,), 1), ((0, 1, 2), 2)):
        report, _ = judged(*((i, ..., np.nan) for i in wrong))
        assert (report.verdict, report.reason) == (REJECT, "claim-nonfinite")
        first, *after = report.results
        assert first.verdict is REJECT
        for result in after[:unjudged]:
            assert (result.verdict, result.reason) == (INDETERMINATE, "nonfinite-operand")


def test_the_element_of_a_wrong_label_is_named():
    label = np.array(HONEST.y)
    label[3] += 1
    report, sent = judged(y=label)
    assert report.claim == "output"
    assert report.message.endswith(f"element [3] is {label[3]}, replayed {label[3] - 1}")
    assert report.message in str(report)
    judgement = verify_evidence(evidence_of(PROGRAM, report, sent), PROGRAM, W, X)
    text = "output, row 0: shown to be wrong, where nothing explains a difference"
    assert (judgement.guilty, judgement.message) == (True, text)


def test_a_second_look_and_evidence_are_logged(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "verifiable"):
        report, sent = judged((1, (2, 5), 3.0))
        judgement = verify_evidence(evidence_of(PROGRAM, report, sent), PROGRAM, W, X)
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [
        "second look at dot_general.2",
        "evidence against claim dot_general.2, trip 0, row 2",
    ]
    other, (_, sent) = PROGRAM.with_policy(PROGRAM.policy), judged((0, ..., np.nan))
    caplog.clear()
    with caplog.at_level(logging.INFO, "verifiable"):
        other.verify(KEY, X, sent, commitment=sent.commitment)
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [
        "second test of dot_general",
        "second test of dot_general.2",
    ]
    place, size = "claim dot_general.2, trip 0, row 2", "times what rounding explains"
    assert judgement.message.startswith(f"{place}: shown to be wrong, ")
    assert judgement.message.endswith(size)
