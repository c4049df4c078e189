"""What near-ties say of tokens: which choice they are of, and where they are not listed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from protocols.demo import models
from tests.helpers import decoder
from verifiable import challenge, program
from verifiable.generation import (
    Sampler,
    TextReport,
    TokenState,
    at_positions,
    compile_generation,
    generate,
    transcript,
)
from verifiable.generation.judging import text_report
from verifiable.generation.transcript import shapes
from verifiable.policy import Policy
from verifiable.report import Coverage, NearTie, Report, Verdict

PROMPT, COMPLETION = 6, 5
OWN, OTHER = 3, 9
SAMPLER = Sampler(temperature=1.0, top_k=4)


def everywhere(params: Any, ids: Any) -> Any:
    return decoder.norm(params["table"][ids]) @ params["head"]


def test_a_candidate_that_may_come_in_is_no_token_that_may_win():
    """Both choices are from one product, and only that of the token makes another token right."""
    params = {name: decoder.PARAMS[name] for name in ("table", "head")}
    compiled = program.compile(
        transcript(at_positions(everywhere), SAMPLER, vocabulary=decoder.VOCABULARY),
        params,
        *shapes(SAMPLER, decoder.VOCABULARY, PROMPT, COMPLETION),
        policy=Policy(draws=1),
        self_test=False,
    )
    found = {c.equation.kind: c for c in compiled.compiled_check.near_ties.choices}
    assert found.keys() == {"top_k", "argmax"}
    assert found["top_k"].head.claim is found["argmax"].head.claim

    def judged(kind: str, token: int) -> TextReport:
        choice = found[kind]
        tie = NearTie(
            claim=choice.head.claim.name,
            trip=0,
            row=PROMPT - 1,  # of the first token
            chosen=OWN,
            other=OTHER,
            kappa=0.5,
            choice=choice.equation.name,
        )
        report = Report(
            verdict=Verdict.ACCEPT,
            reason="ok",
            coverage=Coverage(checked=0, replayed=0),
            near_ties=(tie,),
            y=np.full(COMPLETION, OWN, np.int32),
        )
        return text_report(compiled, report, prompt=PROMPT, tokens=(token,), places=(0,))

    for kind in found:
        assert judged(kind, OWN).states == (TokenState.NEAR_TIE,)
    assert judged("argmax", OTHER).require().states == (TokenState.NEAR_TIE,)
    wrong = judged("top_k", OTHER)
    assert (wrong.reason, wrong.states) == ("token-mismatch", (TokenState.WRONG,))


@pytest.mark.filterwarnings("ignore::verifiable.errors.UnlistedChoice")
@pytest.mark.parametrize(
    ("dtype", "cuts"), [("float32", False), ("float32", True), ("bfloat16", False)]
)
def test_an_audit_says_which_ties_are_not_listed(dtype: str, cuts: bool):
    """An audit lists ties of the rows of one product itself.

    Where a cast makes equals of logits, or a cut may move what they follow from, ties are known by
    the choice's name, and only a whole check looks for them.
    """
    plain = dtype == "float32" and not cuts
    made = models.small_llama(3, width=32, layers=2)

    def cast(params: Any, ids: Any, positions: Any) -> Any:
        return made.logits_at(params, ids, positions).astype(dtype)

    model = compile_generation(
        transcript(cast, Sampler(), vocabulary=made.vocabulary),
        made.params,
        lengths=[(4, 4)],
        policy=Policy(draws=4),
        self_test=False,
        cuts=cuts,
        row_block=2,
    )
    job = model.job([5, 7, 9], limit=4)
    text, sent = generate(model, made.params, job)
    key = model.setup(made.params, challenge.secret(bytes(32)))
    whole = model.verify(key, job, text, sent, commitment=sent.commitment)
    plan = model.audit_plan(bytes(32), job, text, layers=1, rows=2, positions=2)
    opening = model.open(sent, plan)
    part = model.audit(key, job, text, plan=plan, commitment=sent.commitment, opening=opening)
    assert [r.require().listed for r in (whole, part)] == [True, plain]
    assert ("not all" in str(part)) is not plain
