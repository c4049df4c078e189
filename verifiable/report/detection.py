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
      rows: rows of a layer, T; 1 if all are audited.
      audited_rows: rows of each audited layer that are audited, r, drawn likewise.
      answer_rows: those of them that are not drawn: the answer follows from them.
      block: rows that are drawn together, of which the last may be fewer.
      apart: whether the rows of each layer are drawn by themselves, as with cuts; else alike.

    Raises:
      ValueError: none is audited, or more than there are.
    """

    layers: int
    audited: int
    rows: int = 1
    audited_rows: int = 1
    answer_rows: int = 0
    block: int = 1
    apart: bool = True

    def __post_init__(self) -> None:
        """Require at least one layer and row, and no more than there are."""
        if not 1 <= self.audited <= self.layers:
            raise ValueError(f"expected 1 .. {self.layers} audited layers, got {self.audited}")
        if not 1 <= self.audited_rows <= self.rows:
            raise ValueError(f"expected 1 .. {self.rows} audited rows, got {self.audited_rows}")
        if not 0 <= self.answer_rows < self.audited_rows:
            raise ValueError(
                f"expected 0 .. {self.audited_rows - 1} rows of the answer, got {self.answer_rows}"
            )

    @property
    def choosing(self) -> float:
        """(s / L) (k / n): the cheapest cheat that chooses the answer, one wrong unit."""
        return self.audited / self.layers * self.row

    @property
    def answering(self) -> float:
        """s / L: one wrong unit in a row that the answer follows from, if those are audited."""
        return self.audited / self.layers if self.answer_rows else self.choosing

    @property
    def row(self) -> float:
        """k / n: how often a row of an audited layer is looked at, at least.

        k = r / block are drawn of n = ceil(T / block) blocks, both less those of the answer: r / T
        in blocks of one row without any.
        """
        answer = self.answer_rows // self.block
        blocks = -(-self.rows // self.block)
        return (self.audited_rows // self.block - answer) / (blocks - answer)

    @property
    def everywhere(self) -> float:
        """A cheat that makes one row, such as a token, wrong in every layer.

        1 - (1 - k / n)^s where rows are drawn for each layer by itself, else k / n, as of `row`.
        """
        return 1.0 - (1.0 - self.row) ** self.audited if self.apart else self.row

    def lazy(self, share: float) -> float:
        """1 - C(L - c, s) / C(L, s): a cheat that computes c = share L layers wrongly in all rows.

        Args:
          share: of the layers, in (0, 1]; c is rounded down, and at least 1.

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
        } | (
            {}
            if self.rows == 1
            else {
                "rows": self.rows,
                "audited_rows": self.audited_rows,
                "answer_rows": self.answer_rows,
                "answering": self.answering,
                "everywhere": self.everywhere,
            }
        )

    def __str__(self) -> str:
        """The probabilities, the one to rely on first.

        Half of two or three layers is one layer, which the first number is about already.
        """
        rows = f", {self.audited_rows} of {self.rows} rows of each" if self.rows > 1 else ""
        rows += f" with {self.answer_rows} of the answer" if self.answer_rows else ""
        everywhere = f", one row of every layer with {self.everywhere:.3g}" if rows else ""
        if self.answer_rows:
            everywhere = f", in a row of the answer with {self.answering:.3g}{everywhere}"
        half = self.layers // 2
        lazy = f", {half} wrong layers with {self.lazy(0.5):.3g}" if half > 1 else ""
        return (
            f"{self.audited} of {self.layers} layers were audited{rows}: one wrong unit is met "
            f"with probability {self.choosing:.3g}{everywhere}{lazy}"
        )
