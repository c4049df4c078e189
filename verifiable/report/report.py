"""Results: what became of one contraction, one claim, and one run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Self

from verifiable.report.detection import Detection
from verifiable.report.formatting import coloured, finite, table
from verifiable.report.freedom import Bound, Corridor, NearTie
from verifiable.report.reasons import OPEN, REASONS, Verdict, require

_NEXT = {
    Verdict.REJECT: "what to do: pay nothing, repeat the job",
    Verdict.INDETERMINATE: "what to do: nothing was shown, so reschedule the job and blame nobody",
}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimResult:
    """What became of one claim or output.

    Attributes:
      name: of the claim; outputs are called `output`, with their path.
      verdict: of this claim alone.
      reason: a code of `REASONS`. Once a claim is shown wrong, later failures that other rounding
        may explain are not looked at again: they are indeterminate, with the reason of their test.
      worst: largest statistic as a fraction of its limit; at most one half, and an upper bound of
        it, where a product passed in float32 (specs/freivalds.md, section 3).
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


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCoverage(Coverage):
    """What an audit of a part looked at.

    Attributes:
      unseen: operations of contractions whose claims were not tested.
      layers: names of the layers that were audited.
      opened: canonical bytes of the leaves that were opened.
      of: canonical bytes of the whole trace and its answer.
    """

    unseen: int
    layers: tuple[str, ...]
    opened: int
    of: int

    @property
    def share(self) -> float:
        """Fraction of the operations that was tested by claims."""
        return self.checked / max(self.checked + self.replayed + self.unseen, 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """Verdict on one run.

    Attributes:
      verdict: accept, reject or indeterminate.
      reason: a code of `REASONS`.
      message: what was wrong, where there is more to say than the code.
      claim: name of the first claim or output that has this verdict, if it is not to accept.
      worst: largest statistic as a fraction of its limit, over everything tested.
      results: what became of each claim, then of each output; none if nothing was checked.
      coverage: what was checked, replayed, and discontinuous; zero if nothing was checked.
      bound: what a pass proves of the floating-point claims; None if none was tested.
      y: the verifier's own replayed output, the canonical answer; None if nothing was replayed.
      corridor: what the tolerance leaves to a cheat, with the margin of this run, if it was asked
        for; an answer within it could have been turned without failing the check.
      near_ties: choices from claimed rows that the tolerance could have decided.
      unlisted: choices whose near-ties are not listed, each with the reason.
      detection: of an audit of a part, how often it meets a cheat; None of a whole check.
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
    unlisted: tuple[str, ...] = ()
    detection: Detection | None = None

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
        # The ratio of the claim that is named: another may be further beyond its own limit.
        own = [r.worst for r in self.results if (r.name, r.verdict) == (self.claim, self.verdict)]
        ratio = f" (worst ratio {own[0]:.3g})" if own else ""
        require(self.verdict, self.reason, where + (self.message or REASONS[self.reason] + ratio))
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
            "worst": finite(self.worst),
            "results": [
                asdict(r) | {"verdict": r.verdict.value, "worst": finite(r.worst)}
                for r in self.results
            ],
            "coverage": asdict(self.coverage) | {"share": self.coverage.share},
            "bound": None if self.bound is None else asdict(self.bound),
            "corridor": None if self.corridor is None else self.corridor.to_dict(),
            "near_ties": [asdict(tie) for tie in self.near_ties],
            "unlisted": list(self.unlisted),
        } | ({} if self.detection is None else {"detection": self.detection.to_dict()})

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def _repr_html_(self) -> str:
        """The report in a notebook."""
        return self.to_html()

    def to_html(self) -> str:
        """The report as a table. Everything is escaped: a device may choose parts of it."""
        head, *_ = str(self).splitlines()
        rows = [("claim", "verdict", "reason", "worst", "trip", "row", "discontinuities")]
        for r in self.results:
            place = str(r.trip), "" if r.row is None else str(r.row)
            worst, jumps = f"{r.worst:.3g}", ", ".join(r.discontinuities)
            rows.append((r.name, r.verdict.value, r.reason, worst, *place, jumps))
        cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        worst = f", worst ratio of all {self.worst:.3g}" if self.results else ""
        left = f"<p>{self._left}</p>" if self._left else ""
        return (
            f"<p>{coloured(self.verdict, head)} {escape(self.message)}</p>"
            f"<p>{self._checked}{worst}</p><table>{body}</table>{left}"
        )

    @property
    def _checked(self) -> str:
        if not self.results:
            return "nothing was checked"
        found, share = self.coverage, self.coverage.share
        if isinstance(found, AuditCoverage):
            layers, part = ", ".join(found.layers), found.opened / max(found.of, 1)
            looked = f"audited {layers}: {share:.1%} of the arithmetic, {part:.1%} of the trace"
            return f"{looked}; {self.detection}" if self.detection else looked
        return f"checked by claim {share:.1%} of the arithmetic, replayed {1 - share:.1%}"

    @property
    def _left(self) -> str:
        undecided = (r for r in self.results if r.verdict is Verdict.INDETERMINATE)
        left = sum(r.reason not in OPEN for r in undecided)
        what = "failed a test, and not looked at again since the run is wrong already"
        return f"{what}: {left}" if left else ""

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
            lines.append("worst: the largest deviation over its limit; above 1 it fails the test")
        codes = dict.fromkeys([self.reason, *(c.reason for c in self.results)])
        meant = {c: REASONS[c] for c in codes if c != "ok" and c in REASONS}
        lines += [f"{c}: {text}" for c, text in meant.items() if text not in self.message]
        if self._left:
            lines.append(self._left)
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
        if self.unlisted:
            lines.append("near-ties are not listed of " + ", ".join(self.unlisted))
        if (c := self.corridor) is not None:
            state = "within-corridor" if c.within else "outside of the corridor"
            lines.append(f"{state}: margin {c.margin:.3g}, reach {c.reach:.3g}")
        if self.verdict in _NEXT:
            rejected = self.verdict is Verdict.REJECT and self.claim is not None
            accuse = "; evidence_of makes evidence of it" if rejected else ""
            lines.append(_NEXT[self.verdict] + accuse)
        return "\n".join(lines)
