"""What a verifier says of a text: a verdict, and of each position whether its token is right."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from html import escape
from typing import Self

from verifiable.report import Report, Verdict
from verifiable.report.formatting import coloured
from verifiable.report.reasons import require

TEXT_REASONS: dict[str, str] = {
    "ok": "the model picks these tokens",
    "text-structure": "the completion is not a sequence of integers",
    "text-range": "a token is not of the vocabulary",
    "text-empty": "the completion has no tokens",
    "text-length": "the completion has more tokens than the job allows",
    "text-stop": "tokens follow the first stop token",
    "text-unfinished": "the completion ends before the job's limit and without a stop token",
    "token-mismatch": "the model picks another token than the completion has",
    "token-unseen": "the run picks another token where the audit did not look",
    "receipt-model": "the receipt names another model",
    "receipt-job": "the receipt names another job, or one that the model cannot have",
    "receipt-text": "the receipt names another text",
    "receipt-chain": "the receipt or the prompt does not follow from the turn before",
    "run-structure": "what was sent is not the run of this text",
    "audit-draw": "the audit is of another draw, or of one that the model cannot have",
}
"""Reasons of a verdict on a text; where the run itself fails, the reason is the report's."""


class TokenState(enum.StrEnum):
    """What is known of one token, given all tokens before it."""

    RIGHT = "right"
    NEAR_TIE = "near-tie"
    WRONG = "wrong"
    UNDECIDED = "undecided"
    UNSEEN = "not audited"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextReport:
    """Verdict on a completion.

    Attributes:
      verdict: accept, reject or indeterminate.
      reason: a code of `TEXT_REASONS`, or of `report.REASONS` if the run fails.
      message: what was wrong, where there is more to say than the code.
      tokens: the completion, as it was read; empty if it is none.
      states: one for each token. A token within the tolerance of a tie is a near-tie: a device
        could have picked another, and no more is known.
      near_candidates: positions, without those of near-ties, where the tolerance decides which
        token is the last of the `top_k` candidates.
      listed: whether all near-ties between tokens are listed: the check followed the choice of the
        tokens back to a product of logits, or an audit, to the rows of one. If not, `right` only
        says that the run leads there.
      decision_ties: choices of tokens, padding included, that are within the slack of their own
        test; what a device is free to choose at least.
      report: on the run; None if the completion was refused before.
    """

    verdict: Verdict
    reason: str
    message: str = ""
    tokens: tuple[int, ...] = ()
    states: tuple[TokenState, ...] = ()
    near_candidates: int = 0
    listed: bool = True
    decision_ties: int = 0
    report: Report | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        """A report has no truth value: `if report:` would take a rejection for a pass."""
        raise TypeError(
            "a report has no truth value: write report.require(), which raises unless accepted, or "
            "compare report.verdict with Verdict.ACCEPT"
        )

    @property
    def near_ties(self) -> int:
        """How many tokens a device could have exchanged for another within the tolerance."""
        return self.states.count(TokenState.NEAR_TIE)

    def meets(self, wrong: int = 1) -> float:
        """1 - C(l - w, m) / C(l, m): how often an audit meets one of w wrong tokens.

        The m of l positions are drawn once the text cannot change. Of a whole check, 1.

        Args:
          wrong: tokens that the run does not lead to, whatever it claims of them; w.

        Raises:
          ValueError: there are not so many tokens, or none is wrong.
        """
        length = len(self.states)
        if not 1 <= wrong <= length:
            raise ValueError(f"1 .. {length} tokens may be wrong, not {wrong}")
        unseen = self.states.count(TokenState.UNSEEN)
        return 1 - math.comb(unseen, wrong) / math.comb(length, wrong)

    def require(self) -> Self:
        """This report, if it accepts.

        Raises:
          Rejected: shown to be wrong.
          Undecided: indeterminate.
        """
        require(self.verdict, self.reason, self.message or TEXT_REASONS[self.reason])
        return self

    def __str__(self) -> str:
        """The verdict, and how many tokens are what."""
        lines = [f"{self.verdict.value}: {self.reason}"]
        if self.message:
            lines.append(self.message)
        counts = [f"{self.states.count(s)} {s.value}" for s in TokenState if s in self.states]
        if counts:
            lines.append(f"{len(self.tokens)} tokens: " + ", ".join(counts))
        if TokenState.UNSEEN in self.states and self.report is not None:
            lines.append(f"one wrong token is met with probability {self.meets():.3g}")
            found = self.report.detection
            lines += [] if found is None else [str(found)]
        if self.near_candidates:
            lines.append(f"{self.near_candidates} more with a near-tie of the last candidate only")
        if not self.listed:
            lines.append(
                "near-ties between tokens are not listed here, or not all; at least so many "
                f"choices are within slack: {self.decision_ties}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The report in a notebook."""
        return self.to_html()

    def to_html(self) -> str:
        """The verdict, what is known of each token, and the report on the run. All is escaped."""
        head, *lines = str(self).splitlines()
        said = "".join(f"<p>{escape(line)}</p>" for line in lines)
        rows = zip(self.tokens, self.states, strict=False)  # a refused text has tokens alone
        known = [(str(i), str(t), state.value) for i, (t, state) in enumerate(rows)]
        cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in known]
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        names = "<tr><th>position</th><th>token</th><th>state</th></tr>"
        table = f"<table>{names}{body}</table>" if known else ""
        run = "" if self.report is None else f"<p>its run:</p>{self.report.to_html()}"
        return f"<p>{coloured(self.verdict, head)}</p>{said}{table}{run}"
