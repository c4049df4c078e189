"""A model under a calibrated policy: texts and audits of them are judged by what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocols.demo import models
from verifiable import challenge
from verifiable.generation import Sampler, compile_generation, generate, transcript
from verifiable.policy import Calibration, Measured, Policy

MODEL = models.small_llama(3, width=32, layers=2)
POLICY = Policy(draws=8)


def test_a_calibration_that_names_all_lengths_holds_for_texts_and_their_audits():
    before = compile_generation(
        transcript(MODEL.logits_at, Sampler(), vocabulary=MODEL.vocabulary),
        MODEL.params,
        lengths=[(4, 8), (8, 8)],
        policy=POLICY,
        self_test=False,
        cuts=True,
        row_block=2,
    )
    members = before.family.members
    name, own = next(item for item in members[0].tolerances.items() if "mlp" in item[0])
    measured = Measured(name=name, median=0.0, worst=0.0, eps=16 * own)

    def calibrated(*programs: bytes) -> Policy:
        found = Calibration(
            programs=programs, samples=1, executors=1, factor=4.0, measured=(measured,)
        )
        return replace(POLICY, calibration=found)

    with pytest.raises(ValueError, match="list the ids of all programs"):
        before.with_policy(calibrated(members[0].id))
    made = before.with_policy(calibrated(*(m.id for m in members)))
    assert (made.family.id, made.lengths) == (before.family.id, before.lengths)

    job = made.job([5, 7, 9], limit=6)
    text, submission = generate(made, MODEL.params, job, **MODEL.decoder)
    key = made.setup(MODEL.params, challenge.secret(bytes(32)))
    given = {"commitment": submission.commitment, "parameters": submission.parameters}
    assert made.verify(key, job, text, submission, **given).require().tokens == text
    plan = made.audit_plan(bytes(32), job, text, layers=2, rows=4, positions=2)
    # Made for the policy before, it would be of the other tolerances.
    assert plan.id == before.audit_plan(bytes(32), job, text, layers=2, rows=4, positions=2).id
    opening = made.open(submission, plan).encode()
    report = made.audit(key, job, text, plan=plan, opening=opening, **given)
    found, whole = report.require().report, made.verify(key, job, text, submission, **given).report
    assert found is not None
    assert whole is not None
    # The largest ratio of all rows is at least that of some, under the same tolerance.
    ratios = [{r.name: r.worst for r in x.results}[name] for x in (found, whole)]
    assert 0 < ratios[0] < 2 * ratios[1]
    with pytest.raises(ValueError, match="policy"):
        before.audit(key, job, text, plan=plan, opening=opening, **given)
