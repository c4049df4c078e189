"""From the report on a run to the verdict on its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from verifiable.generation.findings import TextReport, TokenState
from verifiable.generation.ties import mistaken, picks_tokens, token_heads, token_ties
from verifiable.program import Program
from verifiable.report import Report, Verdict


def text_report(
    program: Program, report: Report, *, prompt: int, tokens: tuple[int, ...], places: Sequence[int]
) -> TextReport:
    """The verdict on a text, and on its tokens at the positions that were looked at.

    Args:
      program: what picks tokens at these positions.
      report: on its run.
      prompt: number of tokens of the prompt.
      tokens: the completion.
      places: positions in the order of the program's answer; those behind the text are ignored.
    """
    seen = [p for p in places if p < len(tokens)]
    states = [TokenState.UNSEEN] * len(tokens)
    if report.verdict is not Verdict.ACCEPT:
        for i in seen:
            states[i] = TokenState.UNDECIDED
        for row in mistaken(report, len(seen)):
            states[seen[row]] = TokenState.WRONG
        where = f"{report.claim}: " if report.claim else ""
        return TextReport(
            verdict=report.verdict,
            reason=report.reason,
            message=f"{where}{report.message or report.reason}",
            tokens=tokens,
            states=tuple(states),
            report=report,
        )
    # What the verifier replayed, which the committed choices lead to.
    own = dict(zip(seen, np.asarray(report.y)[: len(seen)].tolist(), strict=True))
    for i, token in own.items():
        states[i] = TokenState.RIGHT if token == tokens[i] else TokenState.WRONG
    edges: set[int] = set()
    heads = token_heads(program, prompt)
    unlisted = [entry.partition(": ")[0] for entry in report.unlisted]
    slack = sum(r.ties for r in report.results if picks_tokens(r.name))
    for i, tie, head in token_ties(heads, report, seen):
        if not head.whole or own[i] in (tie.chosen, tie.other):
            # A run may put either token first if that takes one sigma: it passes for certain.
            turned = tokens[i] in (tie.chosen, tie.other) and tie.kappa <= 1
            # Another candidate at the border need not win: only a tie between winners decides.
            either = turned and head.whole and picks_tokens(tie.choice)
            if own[i] == tokens[i] or either:
                states[i] = TokenState.NEAR_TIE
        else:
            edges.add(i)
    wrong = [i for i, state in enumerate(states) if state is TokenState.WRONG]
    message = ""
    if wrong:
        i = wrong[0]
        message = f"token {i} is {tokens[i]}, the model picks {own[i]}"
    return TextReport(
        verdict=Verdict.REJECT if wrong else Verdict.ACCEPT,
        reason="token-mismatch" if wrong else "ok",
        message=message,
        tokens=tokens,
        states=tuple(states),
        near_candidates=sum(states[i] is TokenState.RIGHT for i in edges),
        listed=any(h.tokens for h in heads.values()) and not any(map(picks_tokens, unlisted)),
        decision_ties=slack,
        report=report,
    )


def differing(own: Any, tokens: Sequence[int]) -> list[int]:
    """Positions at which a program's answer is not the completion."""
    return np.flatnonzero(np.asarray(own)[: len(tokens)] != np.asarray(tokens)).tolist()
