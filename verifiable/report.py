"""Verdicts, and the reports that carry them.

*accept*: everything was checked and passed. *reject*: a commitment, a proof or a test shows a
wrong answer. *indeterminate*: nothing was shown either way; reschedule, never blame.
Every reason is one of `REASONS`, a stable code.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Self

from verifiable.errors import Rejected, Undecided


class Verdict(enum.StrEnum):
    """One of three values; never a boolean that a caller forgets to test."""

    ACCEPT = "accept"
    REJECT = "reject"
    INDETERMINATE = "indeterminate"

    def __bool__(self) -> bool:
        """A verdict has no truth value: compare it."""
        raise TypeError("a verdict has three values: compare it with Verdict.ACCEPT")


_SHOWN = 8  # claims of a printed corridor

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
    "claim-untaken": "a claim of a branch that was not taken is not zero",
    "commitment-mismatch": "answer and trace are not what was committed to",
    "other-program": "the device ran another program than the job asked for",
    "other-parameters": "the device ran with other parameters than the job asked for",
    "output-structure": "the output is another pytree than the program returns",
    "output-shape": "an output has another shape than the program gives it",
    "output-dtype": "an output has another dtype than the program gives it",
    "output-nonfinite": "an output is not finite although the replayed one is",
    "output-mismatch": "an output is not the one that the claims lead to",
    "discontinuous-glue": "a failure that last-bit differences before a discontinuity can explain",
    "ill-conditioned": "a failure that other rounding of what the verifier replays can explain",
    "nonfinite-operand": "the verifier's own operands are not finite",
    "undefined-operand": "a failure where an index or a size is none that the operation defines",
    "nonfinite-output": "the verifier's own output is not finite",
    "trip-limit": "a replayed loop ran longer than the policy allows",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What the floating-point tests of a run prove.

    Attributes:
      phi: probability that an honest run is rejected by chance.
      rows: number of rows tested.
      draws: random vectors a row, t.
      limit: L = chi2.isf(phi / rows, draws).
    """

    phi: float
    rows: int
    draws: int
    limit: float

    def acceptance(self, kappa: float) -> float:
        """P(chi2_t <= L / kappa^2): how often a row that deviates by kappa sigma passes."""
        from scipy.special import chdtr  # noqa: PLC0415 - slow to load

        return float(chdtr(self.draws, self.limit / kappa**2)) if kappa > 0 else 1.0

    def kappa(self, miss: float = 1e-9) -> float:
        """The deviation, in units of sigma, that passes with probability `miss`."""
        if not 0 < miss < 1:
            raise ValueError(f"a probability lies between 0 and 1, got {miss}")
        from scipy.special import gammaincinv  # noqa: PLC0415 - slow to load

        return float((self.limit / (2 * gammaincinv(self.draws / 2, miss))) ** 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corridor:
    """How far a cheat can move one scalar answer on one input. Made by `Program.corridor`.

    Attributes:
      margin: the answer of an honest run; where its sign decides, what a cheat has to overcome.
      reach: how far it can be moved, to first order.
      kappa: deviation of a row, in units of sigma, up to which a cheat may go.
      shares: name and share of the reach of each claim, largest first.
      answer: the scalar, as a function of the program's output.
    """

    margin: float
    reach: float
    kappa: float
    shares: tuple[tuple[str, float], ...]
    answer: Callable[[Any], Any] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The corridor without the function; a number that is not finite becomes None."""
        return {
            "margin": _finite(self.margin),
            "reach": _finite(self.reach),
            "kappa": _finite(self.kappa),
            "within": self.within,
            "shares": [[name, _finite(share)] for name, share in self.shares],
        }

    @property
    def within(self) -> bool:
        """Whether a cheat could turn the answer's sign."""
        return not abs(self.margin) > self.reach

    def __str__(self) -> str:
        """Margin and reach, and the claims that leave most."""
        state = "within" if self.within else "outside of"
        rows = [("claim", "reach"), *((n, f"{x:.2e}") for n, x in self.shares[:_SHOWN])]
        head = f"margin {self.margin:.3g}, {state} the corridor of {self.reach:.3g}"
        return f"{head} (kappa {self.kappa:.3g})\n{table(rows)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Verdict on one contraction.

    Attributes:
      verdict: accept, reject or indeterminate.
      reason: a code of `REASONS`.
      message: what was wrong, where there is more to say than the code.
      worst: largest statistic as a fraction of its limit.
      row: the row that it belongs to, counted over all but the projected dimensions.
      bound: what a pass proves of floats.
      exact: whether the test was of integers: a wrong claim passes with at most 1/(2^61 - 1).
    """

    verdict: Verdict
    reason: str
    message: str = ""
    worst: float = float("inf")
    row: int | None = None
    bound: Bound | None = None
    exact: bool = False

    def __bool__(self) -> bool:
        """A result has no truth value: `if result:` would take a rejection for a pass."""
        raise TypeError(
            "a result has no truth value: write result.require(), which raises unless accepted, or "
            "compare result.verdict with Verdict.ACCEPT"
        )

    def require(self) -> Self:
        """This result, if it accepts.

        Raises:
          Rejected: shown to be wrong.
          Undecided: indeterminate.
        """
        require(self.verdict, self.reason, self.message or f"worst ratio {self.worst:.3g}")
        return self


def require(verdict: Verdict, reason: str, message: str) -> None:
    """Raise `Rejected` or `Undecided` unless the verdict is to accept."""
    if verdict is Verdict.REJECT:
        raise Rejected(reason, message)
    if verdict is not Verdict.ACCEPT:
        raise Undecided(reason, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimResult:
    """What became of one claim or output.

    Attributes:
      name: of the claim; outputs are called `output`, with their path.
      verdict: of this claim alone.
      reason: a code of `REASONS`.
      worst: largest statistic as a fraction of its limit.
      row: the row that it belongs to.
      trip: the iteration that it belongs to, counted over the scans around the claim.
      discontinuities: discontinuous equations that the verifier's operands passed through.
      ties: of a decision claim, decisions that are within their slack of a tie.
      flips: of a decision claim, decisions that are not the verifier's own.
    """

    name: str
    verdict: Verdict
    reason: str
    worst: float
    row: int | None = None
    trip: int = 0
    discontinuities: tuple[str, ...] = ()
    ties: int = 0
    flips: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NearTie:
    """A choice from a row of a claim that the tolerance could have decided (`check.near_ties`).

    Attributes:
      claim: its name.
      trip: iteration, counted over the scans around the claim.
      row: of the claim in that iteration.
      chosen: column that was chosen.
      other: column that is closest to being chosen instead.
      kappa: deviation of the row, in units of sigma, that turns it: `Bound.acceptance(kappa)` is
        how often it would pass.
    """

    claim: str
    trip: int
    row: int
    chosen: int
    other: int
    kappa: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What share of the arithmetic was checked how, in operations.

    Attributes:
      checked: operations of contractions that were tested by their claim.
      replayed: operations that the verifier computed again.
      discontinuities: equations where a last-bit difference may flip a value.
    """

    checked: int
    replayed: int
    discontinuities: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Fraction of the operations that was tested by claims."""
        return self.checked / max(self.checked + self.replayed, 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """Verdict on one run.

    Attributes:
      verdict: accept, reject or indeterminate.
      reason: a code of `REASONS`.
      message: what was wrong, where there is more to say than the code.
      claim: name of the first claim or output that was not accepted.
      worst: largest statistic as a fraction of its limit, over everything tested.
      results: what became of each claim, then of each output; none if nothing was checked.
      coverage: what was checked, replayed, and discontinuous; zero if nothing was checked.
      bound: what a pass proves of the floating-point claims; None if none was tested.
      y: the verifier's own replayed output, the canonical answer; None if nothing was replayed.
      corridor: what the tolerance leaves to a cheat, with the margin of this run, if it was asked
        for; an answer within it could have been turned without failing the check.
      near_ties: choices from claimed rows that the tolerance could have decided.
    """

    verdict: Verdict
    reason: str
    coverage: Coverage
    message: str = ""
    claim: str | None = None
    worst: float = float("inf")
    results: tuple[ClaimResult, ...] = ()
    bound: Bound | None = None
    y: Any = field(default=None, repr=False)
    corridor: Corridor | None = None
    near_ties: tuple[NearTie, ...] = ()

    def __bool__(self) -> bool:
        """A report has no truth value: `if report:` would take a rejection for a pass."""
        raise TypeError(
            "a report has no truth value: write report.require(), which raises unless accepted, or "
            "compare report.verdict with Verdict.ACCEPT"
        )

    def require(self) -> Self:
        """This report, if it accepts.

        Raises:
          Rejected: shown to be wrong.
          Undecided: indeterminate.
        """
        where = f"{self.claim}: " if self.claim else ""
        what = self.message or f"{REASONS[self.reason]} (worst ratio {self.worst:.3g})"
        require(self.verdict, self.reason, where + what)
        return self

    def to_dict(self) -> dict[str, Any]:
        """The report without the answer: strings, integers, lists, and floats that are finite.

        A number that is not finite becomes None.
        """
        return {
            "verdict": self.verdict.value,
            "reason": self.reason,
            "message": self.message,
            "claim": self.claim,
            "worst": _finite(self.worst),
            "results": [
                asdict(r) | {"verdict": r.verdict.value, "worst": _finite(r.worst)}
                for r in self.results
            ],
            "coverage": asdict(self.coverage) | {"share": self.coverage.share},
            "bound": None if self.bound is None else asdict(self.bound),
            "corridor": None if self.corridor is None else self.corridor.to_dict(),
            "near_ties": [asdict(tie) for tie in self.near_ties],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def _repr_html_(self) -> str:
        """The report in a notebook."""
        return self.to_html()

    def to_html(self) -> str:
        """The report as a table. Everything is escaped: a device may choose parts of it."""
        colour = {"accept": "#1a7f37", "reject": "#cf222e"}.get(self.verdict.value, "#9a6700")
        head, *_ = str(self).splitlines()
        rows = [("claim", "verdict", "reason", "worst", "trip", "row", "discontinuities")]
        for r in self.results:
            place = str(r.trip), "" if r.row is None else str(r.row)
            worst, jumps = f"{r.worst:.3g}", ", ".join(r.discontinuities)
            rows.append((r.name, r.verdict.value, r.reason, worst, *place, jumps))
        cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        worst = f", worst ratio {self.worst:.3g}" if self.results else ""
        return (
            f'<p><b style="color:{colour}">{escape(head)}</b> {escape(self.message)}</p>'
            f"<p>{self._checked}{worst}</p><table>{body}</table>"
        )

    @property
    def _checked(self) -> str:
        share = self.coverage.share
        shares = f"checked by claim {share:.1%} of the arithmetic, replayed {1 - share:.1%}"
        return shares if self.results else "nothing was checked"

    def __str__(self) -> str:
        """The report as a table."""
        rows = [("claim", "verdict", "reason", "worst", "trip", "row")]
        for c in self.results:
            row = "" if c.row is None else str(c.row)
            rows.append((c.name, c.verdict.value, c.reason, f"{c.worst:.3g}", str(c.trip), row))
        where = f" at {self.claim}" if self.claim else ""
        head = f"{self.verdict.value}: {self.reason}{where}"
        lines = [head, self.message] if self.message else [head]
        if self.results:
            lines.append(table(rows))
        lines.append(self._checked)
        ties, flips = (sum(getattr(r, name) for r in self.results) for name in ("ties", "flips"))
        if ties:
            lines.append(f"near-ties {ties}, of which {flips} are decided in another way")
        if self.coverage.discontinuities:
            lines.append("discontinuities: " + ", ".join(self.coverage.discontinuities))
        if self.bound is not None:
            lines.append(
                f"a row that deviates by {self.bound.kappa():.3g} sigma passes with probability "
                f"1e-9 ({self.bound.draws} draws, {self.bound.rows} rows, phi {self.bound.phi:.0e})"
            )
        if self.near_ties:
            lines.append(f"{len(self.near_ties)} choices are near-ties of their claim")
        if (c := self.corridor) is not None:
            state = "within-corridor" if c.within else "outside of the corridor"
            lines.append(f"{state}: margin {c.margin:.3g}, reach {c.reach:.3g}")
        return "\n".join(lines)


def _finite(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as text in aligned columns; the first row is the header."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in rows)
    lines = ["  ".join(row).rstrip() for row in padded]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)
