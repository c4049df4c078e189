"""Verdicts, and the codes that say why.

Every reason is one of `REASONS`, a stable code.
"""

from __future__ import annotations

import enum

from verifiable.errors import Rejected, Undecided


class Verdict(enum.StrEnum):
    """One of three values; never a boolean that a caller forgets to test."""

    ACCEPT = "accept"
    REJECT = "reject"
    INDETERMINATE = "indeterminate"

    def __bool__(self) -> bool:
        """A verdict has no truth value: compare it."""
        raise TypeError("a verdict has three values: compare it with Verdict.ACCEPT")


REASONS: dict[str, str] = {
    "ok": "every claim and output passed",
    "trace-structure": "the trace is not a sequence of arrays",
    "claim-missing": "the trace has fewer claims than the program",
    "claim-extra": "the trace has more claims than the program",
    "claim-reordered": "the claims are those of the program in another order",
    "claim-shape": "a claim has another shape than the program gives it",
    "claim-dtype": "a claim has another dtype than the program gives it",
    "claim-nonfinite": "a claim is not finite although its operands are",
    "claim-range": "a claim is not a value that its operation can have, whatever the operands",
    "claim-mismatch": "a claim is not the product of its operands",
    "rounding-mismatch": "a committed rounding is not that of the value before it",
    "decision-mismatch": "a committed decision is not that of the values before it",
    "lookup-mismatch": "a committed row is not that of the parameter table",
    "table-mismatch": "a committed table is not the one that parameters and constants lead to",
    "decision-ties": "more decisions differ from the verifier's own than rounding explains",
    "cut-mismatch": "a committed cut is not what its layer leads to",
    "claim-untaken": "a claim of a branch that was not taken is not zero",
    "commitment-mismatch": "answer and trace are not what was committed to",
    "opening-structure": "an answer to an audit is no opening",
    "opening-plan": "an opening answers the plan of another audit",
    "opening-missing": "an opening has fewer leaves than its plan asks for",
    "opening-extra": "an opening has more leaves than its plan asks for",
    "opening-reordered": "an opening has the leaves of its plan in another order",
    "opening-leaf": "a leaf is not the rows that the layout puts there",
    "opening-proof": "the proof of an opening has another form than its plan requires",
    "opening-mismatch": "what was opened was not committed to at these places",
    "other-program": "the device ran another program than the job asked for",
    "other-parameters": "the device ran with other parameters than the job asked for",
    "output-structure": "the output is another pytree than the program returns",
    "output-shape": "an output has another shape than the program gives it",
    "output-dtype": "an output has another dtype than the program gives it",
    "output-nonfinite": "an output is not finite although the replayed one is",
    "output-mismatch": "an output is not the one that the claims lead to",
    "discontinuous-glue": "a failure that last-bit differences before a discontinuity can explain",
    "ill-conditioned": "a failure that other rounding of what the verifier replays can explain",
    "nonfinite-operand": "the verifier's own operands are not finite, or a bias hides a product",
    "undefined-operand": "a failure where an index or a size is none that the operation defines",
    "nonfinite-output": "the verifier's own output is not finite",
    "trip-limit": "a replayed loop ran longer than the policy allows",
}

OPEN = frozenset(
    "discontinuous-glue ill-conditioned nonfinite-operand nonfinite-output trip-limit "
    "undefined-operand".split()
)
"""Reasons that show nothing either way; under any other, an indeterminate claim failed a test."""


def require(verdict: Verdict, reason: str, message: str) -> None:
    """Require the verdict to accept.

    Args:
      verdict: on a run, or on one contraction.
      reason: a code of `REASONS`, kept by the error.
      message: what was wrong, for the error's text.

    Raises:
      Rejected: the verdict is to reject.
      Undecided: it is anything else than to accept.
    """
    if verdict is Verdict.REJECT:
        raise Rejected(reason, message)
    if verdict is not Verdict.ACCEPT:
        raise Undecided(reason, message)
