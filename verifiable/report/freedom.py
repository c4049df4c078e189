"""What a pass leaves to a cheat: the bound of the tests, near-ties, and the corridor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from verifiable.report.formatting import finite, table

_SHOWN = 8  # claims of a printed corridor


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
            "margin": finite(self.margin),
            "reach": finite(self.reach),
            "kappa": finite(self.kappa),
            "within": self.within,
            "shares": [[name, finite(share)] for name, share in self.shares],
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
class NearTie:
    """A choice from a row of a claim that the tolerance could have decided (`freedom.near_ties`).

    Where it follows from several claims, claim and row are those of the choice itself; rows of a
    decided output are its elements, and the columns what it is and may be.

    Attributes:
      claim: its name.
      trip: iteration, counted over the scans around the claim.
      row: of the claim in that iteration.
      chosen: column that was chosen.
      other: column that is closest to being chosen instead.
      kappa: deviation of the row, in units of sigma, that turns it: `Bound.acceptance(kappa)` is
        how often it would pass.
      choice: name of what chooses; several may choose from one row.
    """

    claim: str
    trip: int
    row: int
    chosen: int
    other: int
    kappa: float
    choice: str = ""
