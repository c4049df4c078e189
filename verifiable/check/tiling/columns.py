"""Tiles of columns: the heads of attention, a few at a time.

A test of C = A B takes sums over the columns of A, and sums of a few columns at a time add up. That
pays where the columns come from a batch of replayed products, as those of attention come from its
heads: a tile then holds some heads with their own queries, keys and values, and no matrix of scores
is ever whole. If a value between the products and A is needed whole, such as the norm of all
columns, tiles of rows are smaller.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from verifiable.check.tiling.rules import Cut, batched, merged, step
from verifiable.claims.contraction import Contraction
from verifiable.claims.products import freivalds
from verifiable.jaxpr.blocks import Atom, Equation, Var


@dataclass(frozen=True, slots=True)
class Columns:
    """The search for cuts of near operands along their columns.

    Attributes:
      makers: by value, the equation that computes it, of those that the check evaluates.
      outside: equations that are never evaluated in tiles.
    """

    makers: Mapping[Var, Equation]
    outside: Collection[Equation]

    def cut(self, near: Atom, form: Contraction) -> Cut | None:
        """The smallest cut along columns that separates batched products before the near operand.

        Args:
          near: the near operand of a claim.
          form: its contraction.

        Returns:
          The cut; None if there is none, or if sums over parts of the columns do not add up.
        """
        if not isinstance(near, Var) or not freivalds.additive(form):
            return None
        for axis in form.contracted_axes():
            cut, length = Cut(axis), near.shape[axis]
            while cut.unit < length and length % cut.unit == 0:
                found, times = self._separates_products(near, cut)
                if found:
                    return cut
                if times == 1:
                    break
                cut = cut._replace(unit=cut.unit * times)
        return None

    def _separates_products(self, v: Var, cut: Cut) -> tuple[bool, int]:
        """Whether a cut separates replayed products, and the factor by which its unit should grow.

        It does not if the products are also needed whole, such as for a norm of all columns.
        """
        seen: set[tuple[Var, Cut]] = set()
        products: set[Equation] = set()
        left, whole, times = [(v, cut)], list[Var](), 1
        while left:
            v, cut = left.pop()
            equation = self.makers.get(v)
            if (v, cut) in seen or equation is None or equation in self.outside:
                continue
            seen.add((v, cut))
            if batched(equation, cut):
                products.add(equation)
                continue
            found = step(equation, v, cut)
            if found is None:
                times = max(times, merged(equation, cut))
                whole.append(v)
                continue
            for a, c in zip(equation.inputs, found.sources, strict=True):
                if isinstance(a, Var) and c is None:
                    whole.append(a)
                elif isinstance(a, Var) and c is not None:
                    left.append((a, c))
        return bool(products) and not self._depend(whole, products), times

    def _depend(self, values: Collection[Var], equations: Collection[Equation]) -> bool:
        """Whether some values depend on the outputs of some equations of the block."""
        seen: set[Var] = set()
        left = list(values)
        while left:
            v = left.pop()
            equation = self.makers.get(v)
            if equation is None or v in seen:
                continue
            if equation in equations:
                return True
            seen.add(v)
            left += (a for a in equation.inputs if isinstance(a, Var))
        return False
