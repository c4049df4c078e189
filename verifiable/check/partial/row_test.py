"""A claim that is tested in some rows: where its output and its operands have them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from verifiable.check.tiling.rules import Cut, Step, step
from verifiable.claims.claim import Claim
from verifiable.claims.form import Form
from verifiable.claims.selected_rows import RowSubset, row_subset
from verifiable.jaxpr.blocks import Atom

Indices = tuple[int, ...]  # rows of a layer, ascending
Numbers = np.ndarray[Any, Any]  # integers


def places(cut: Cut, rows: Any) -> Any:
    """The elements along the axis of a cut that hold some rows, (rows * unit,)."""
    first = cut.offset + cut.unit * rows[:, None]
    return (first + np.arange(cut.unit, dtype=np.int32)).reshape(-1)


def places_of(shape: Sequence[int], trips: Numbers, cut: Cut, rows: Numbers) -> Numbers:
    """Where some rows of a layer are in a tensor of all layers, counted as (rows, last axis).

    Args:
      shape: of the tensor, of which the first axis counts iterations.
      trips: the iterations, int (s,).
      cut: where an iteration has the rows, by an axis that is not the last.
      rows: of each iteration, int (s, r).

    Returns:
      int (s, elements before the axis, elements along it, elements behind it).
    """
    inner = shape[1:-1]
    after = math.prod(inner[cut.axis + 1 :])
    before = np.arange(math.prod(inner[: cut.axis]))[:, None, None] * inner[cut.axis]
    own = (cut.offset + cut.unit * rows[:, :, None] + np.arange(cut.unit)).reshape(len(rows), -1)
    found = (before + own[:, None, :, None]) * after + np.arange(after)
    return trips[:, None, None, None] * math.prod(inner) + found


@dataclass(frozen=True, slots=True)
class RowTest:
    """A claim that is tested in some rows.

    Attributes:
      claim: the claim.
      cut: where its output has the rows.
      near: where its operands have them.
    """

    claim: Claim
    cut: Cut
    near: Cut
    _sizes: dict[int, RowSubset] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def of(claim: Claim, cut: Cut) -> RowTest | None:
        """The test of a claim whose output has rows; None if it is tested whole."""
        found = row_subset(claim.form, claim.output.shape, cut.axis, cut.unit)
        test = None if found is None else RowTest(claim, cut, cut.along(found.near))
        return None if test is None or (claim.replays_itself and test.itself is None) else test

    def of_rows(self, count: int) -> RowSubset:
        """The smaller claim of a number of rows."""
        if count not in self._sizes:
            size, shape = count * self.cut.unit, self.claim.output.shape
            found = row_subset(self.claim.form, shape, self.cut.axis, size)
            if found is None:
                raise AssertionError("a claim has rows of any number or none")
            self._sizes[count] = found
        return self._sizes[count]

    @property
    def itself(self) -> Step | None:
        """The step that replays the claim's own equation, if its test compares with that."""
        claim = self.claim
        return step(claim.equation, claim.output, self.cut) if claim.replays_itself else None

    def operands(self) -> Iterator[tuple[Atom, Cut | None]]:
        """The operands, and where they are cut; None for one that is the same in all rows."""
        length, axis = self.claim.output.shape[self.cut.axis], self.near.axis
        for atom in self.claim.operands:
            yield atom, self.near if atom.shape[axis : axis + 1] == (length,) else None

    def reads(self) -> Iterator[tuple[Atom, Cut | None]]:
        """What the operands are read or replayed from, and where that is cut."""
        made, output = self.itself, self.claim.output
        yield from (pair for pair in self.operands() if pair[0] is not output)
        if made is not None:
            yield from zip(made.equation.inputs, made.sources, strict=True)

    def leaves(self, shape: Sequence[int], block: int) -> tuple[int, int]:
        """Rows of a leaf that holds a block, and of the group that leaves begin anew with.

        Args:
          shape: of the claim in one iteration, counted as (rows, last axis).
          block: rows of a block.
        """
        inner = math.prod(shape[self.cut.axis + 1 : -1])
        rows = shape[self.cut.axis] * inner
        return min(block * self.cut.unit * inner, rows), rows

    @property
    def count(self) -> int:
        """Rows of the whole claim."""
        shape = self.claim.output.shape
        return math.prod(shape[d] for d in self.of_rows(1).rows)

    def numbers(self, rows: Indices) -> Numbers:
        """What the whole claim calls the rows of the smaller one."""
        indices = places(self.cut, np.asarray(rows))
        return self.of_rows(len(rows)).numbers(self.claim.output.shape, self.cut.axis, indices)

    def placed(self, rows: Numbers, found: Numbers) -> Numbers:
        """What the whole claim calls one row each of several smaller ones.

        Args:
          rows: of the layer, that the smaller claims are of, int (s, r).
          found: a row of each, as it counts them, int (s,).
        """
        counted = self.of_rows(rows.shape[1]).rows
        lengths = [self.claim.output.shape[d] for d in counted]
        axis, small = counted.index(self.cut.axis), list(lengths)
        small[axis] = rows.shape[1] * self.cut.unit
        index = list(np.unravel_index(found, small))
        row, rest = np.divmod(index[axis], self.cut.unit)
        index[axis] = self.cut.offset + self.cut.unit * rows[np.arange(len(rows)), row] + rest
        return np.ravel_multi_index(tuple(index), lengths)


@dataclass(frozen=True, kw_only=True)
class RowsTested:
    """The rows in which a claim is tested.

    Attributes:
      test: of the claim.
      rows: of the layer, by iteration.
    """

    test: RowTest
    rows: Mapping[int, Indices]

    @property
    def form(self) -> Form:
        """Of the claim of the rows of one iteration."""
        return self.test.of_rows(len(next(iter(self.rows.values())))).form

    def numbers(self, trip: int) -> Numbers:
        """The rows of the claim in an iteration, as the claim counts them."""
        return self.test.numbers(self.rows[trip])

    def placed(self, found: Numbers) -> Numbers:
        """Rows of the smaller claim, one of each iteration in ascending order, in the whole one."""
        return self.test.placed(np.asarray([self.rows[t] for t in sorted(self.rows)]), found)

    def mask(self, length: int) -> np.ndarray[Any, Any]:
        """Which rows of the claim are tested, bool (iterations, rows).

        Args:
          length: number of iterations.
        """
        found = np.zeros((length, self.test.count), bool)
        for trip in self.rows:
            found[trip, self.numbers(trip)] = True
        return found
