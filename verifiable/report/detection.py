"""What an audit of a part leaves to a cheat that may have been outside of what it looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How often an audit of some layers meets a cheat, which cannot know them beforehand.

    Attributes:
      layers: layers of the program, L.
      audited: layers that are audited, s, drawn without replacement.

    Raises:
      ValueError: none is audited, or more than there are.
    """

    layers: int
    audited: int

    def __post_init__(self) -> None:
        """Require at least one layer, and no more than there are."""
        if not 1 <= self.audited <= self.layers:
            raise ValueError(f"expected 1 .. {self.layers} audited layers, got {self.audited}")

    @property
    def choosing(self) -> float:
        """s / L: the cheapest cheat that chooses the answer, one wrong unit in one layer."""
        return self.audited / self.layers

    def lazy(self, share: float) -> float:
        """1 - C(L - b, s) / C(L, s): a cheat that computes b = share L layers wrongly.

        Args:
          share: of the layers, in (0, 1]; b is rounded down, and at least 1.

        Raises:
          ValueError: the share is outside of (0, 1].
        """
        if not 0 < share <= 1:
            raise ValueError(f"a share of the layers lies in (0, 1], got {share}")
        wrong = max(1, math.floor(share * self.layers * (1 + 1e-12)))  # 3 / 30 of 30 are 3
        right = self.layers - wrong
        return 1.0 - math.comb(right, self.audited) / math.comb(self.layers, self.audited)

    def to_dict(self) -> dict[str, float]:
        """The numbers of layers, and the probabilities that `str` names."""
        return {
            "layers": self.layers,
            "audited": self.audited,
            "choosing": self.choosing,
            "lazy": self.lazy(0.5),
        }

    def __str__(self) -> str:
        """Both numbers, the one to rely on first."""
        return (
            f"{self.audited} of {self.layers} layers were audited: one wrong unit is met with "
            f"probability {self.choosing:.3g}, half of the layers with {self.lazy(0.5):.3g}"
        )
